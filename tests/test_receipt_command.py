"""`manage.py receipt`, as a script calls it: exit status, stdout, stderr."""

import json

import pytest
from django.utils import timezone

from mirrors.models import Transfer
from tests.receipting.conftest import code, fact, nord, prepare, signed, their_key, transfer, trusted
from tests.test_mirror_command import manage

__all__ = ["code", "fact", "manage", "nord", "prepare", "signed", "their_key", "transfer", "trusted"]

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def own_data(data_dir):
    return data_dir


@pytest.fixture
def now():
    return timezone.now().replace(microsecond=0)


def test_it_loads_a_file(manage, signed, trusted, transfer, tmp_path):
    (tmp_path / "receipt.txt").write_bytes(signed())
    status, out, err = manage("receipt", "load", str(tmp_path / "receipt.txt"))
    assert status == 0 and not err and "was received at Plant Nord" in out
    assert Transfer.objects.get().state == "received"
    status, out, err = manage("receipt", "load", str(tmp_path / "receipt.txt"), "--json")
    assert status == 1 and json.loads(out) == [] and "loaded already" in err


def test_it_loads_a_code_from_standard_input(manage, code, transfer):
    status, out, _ = manage("receipt", "load", "-", "--json", stdin=code().decode() + "\n")
    (said,) = json.loads(out)
    assert status == 0 and said["evidence"] == "code" and said["signed"] is False and said["site"] == "plant-nord"


def test_it_refuses_what_is_not_there_or_no_receipt(manage, tmp_path):
    status, _, err = manage("receipt", "load", str(tmp_path / "nothing"))
    assert status == 2 and "cannot be read" in err
    (tmp_path / "zeros").write_bytes(bytes(100_000))
    status, _, err = manage("receipt", "load", str(tmp_path / "zeros"))
    assert status == 1 and "too long" in err
