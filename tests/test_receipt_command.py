"""`manage.py receipt`, as a script calls it: exit status, stdout, stderr."""

import json

import pytest
from django.utils import timezone

from mirrors.models import Import, Transfer
from mirrors.receipting import giving
from mirrors.receipts import read, read_code
from tests.receipting.conftest import code, fact, nord, prepare, signed, their_key, transfer, trusted
from tests.receipting.test_giving import ended
from tests.test_mirror_command import manage

__all__ = ["code", "ended", "fact", "manage", "nord", "prepare", "signed", "their_key", "transfer", "trusted"]

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def own_data(data_dir):
    return data_dir


@pytest.fixture
def now():
    return timezone.now().replace(microsecond=0)


@pytest.fixture
def on(db, now):
    giving.switch(True, by="ada", now=now)


def test_it_prints_the_signed_file_and_nothing_else(manage, ended, on):
    ended()
    status, out, err = manage("receipt", "show")
    assert (status, err) == (0, "") and read(out.encode()).receipt.bundle == "ab12cd34"
    assert manage("receipt", "show", "ab12cd34")[1] == out


def test_it_prints_the_code_alone(manage, ended, on):
    ended()
    status, out, err = manage("receipt", "show", "ab12cd34", "--text")
    assert (status, err) == (0, "") and out.count("\n") == 1
    assert read_code(out).bundle == "ab12cd34"


def test_with_json_there_are_both(manage, ended, on):
    ended()
    status, out, _ = manage("receipt", "show", "--json")
    (said,) = json.loads(out)
    assert status == 0 and set(said) == {"bundle", "outcome", "date", "key", "site", "text", "code"}
    assert read_code(said["code"]).bundle == read(said["text"].encode()).receipt.bundle


@pytest.mark.parametrize("words", [["show"], ["show", "ffffffff"], ["show", "--text"]])
def test_without_one_it_exits_with_1(manage, on, words):
    for each in (words, [*words, "--json"]):
        status, out, err = manage("receipt", *each)
        assert status == 1 and "has ended here" in err
        assert json.loads(out) == [] if "--json" in each else not out


def test_while_they_are_off_it_says_so(manage, ended):
    ended()
    status, out, err = manage("receipt", "show")
    assert status == 1 and not out and "Receipts are off" in err


def test_it_turns_them_on_and_off(manage):
    status, out, _ = manage("receipt", "on")
    assert status == 0 and "the site's code" in out and giving.is_on()
    status, out, _ = manage("receipt", "off", "--json")
    assert status == 0 and json.loads(out) == [{"receipts": False, "changed": True}] and not giving.is_on()


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
    status, _, err = manage("receipt", "load", "-", stdin="\udcff\udcfe\udc80")
    assert status == 1 and "A fault" not in err, "bytes that are no text, as Python hands them over"
    assert not Import.objects.exists()
