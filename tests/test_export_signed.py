"""`export_bundle` with a key that is kept outside: a command signs, or nobody does."""

import io
import json
import shlex
import tarfile

import pytest

from mirrors import keys
from mirrors.models import AuditEntry, Bundle, SigningKey
from mirrors.signing import Key, PublicKey
from tests.kept import keep_build
from tests.signing.conftest import openssh
from tests.test_export_command import run

__all__ = ["openssh"]
pytestmark = pytest.mark.django_db


@pytest.fixture
def held(store, make_mirror, now):
    return keep_build(store, make_mirror("trivy-db"), now)


def inside(path) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(path.read_bytes())) as tar:
        return {one.name.partition("/")[2]: tar.extractfile(one).read() for one in tar}


def test_our_own_key_signs_without_being_asked(held, tmp_path):
    status, out, _ = run("export_bundle", "--output", str(tmp_path / "o.tar"), "--json")
    assert status == 0 and json.loads(out)[0]["signed_by"] == keys.current().fingerprint
    assert "SHA256SUMS.sig" in inside(tmp_path / "o.tar")


@pytest.mark.peers
def test_a_command_signs(held, now, tmp_path, openssh):
    path = openssh.key()
    public = PublicKey.from_text(path.with_suffix(".pub").read_text())
    keys.use_elsewhere(public.line(), "outside", by="ada", now=now)
    command = f"ssh-keygen -q -Y sign -n airgap-bundle -f {shlex.quote(str(path))}"
    status, out, err = run("export_bundle", "--output", str(tmp_path / "o.tar"), "--sign-with", command, "--json")
    assert status == 0, err
    assert json.loads(out)[0]["signed_by"] == public.fingerprint
    found = inside(tmp_path / "o.tar")
    signers = public.allowed_signers("airgap", "airgap-bundle")
    assert openssh.verifies(found["SHA256SUMS"], found["SHA256SUMS.sig"], signers)


@pytest.fixture
def outside(now):
    return keys.use_elsewhere(Key.generate().public_line(), "outside", by="ada", now=now)


def test_without_a_signature_it_says_what_to_do_and_leaves_nothing(held, outside, tmp_path):
    status, out, err = run("export_bundle", "--output", str(tmp_path / "o.tar"))
    assert (status, out) == (1, "")
    assert f"The key {outside.fingerprint} is kept outside" in err and "--sign-with" in err
    assert not (tmp_path / "o.tar").exists()
    assert Bundle.objects.get().expires_at <= AuditEntry.objects.latest("pk").at


@pytest.mark.parametrize(
    ("command", "status", "sentence"),
    [
        ("false", 1, "ended with status 1; nothing was signed"),
        ("cat", 1, "This is no signature of OpenSSH"),
        ("/nowhere/sign", 1, "cannot be run: No such file or directory"),
        ("sign 'x", 2, "a quote is not closed"),
    ],
)
def test_a_command_that_does_not_sign_is_told(held, outside, tmp_path, command, status, sentence):
    ended, out, err = run("export_bundle", "--output", str(tmp_path / "o.tar"), "--sign-with", command)
    assert (ended, out) == (status, "")
    assert sentence in err
    assert not (tmp_path / "o.tar").exists()


def test_it_is_written_unsigned_when_that_is_asked_for(held, outside, tmp_path):
    status, out, err = run("export_bundle", "--output", str(tmp_path / "o.tar"), "--unsigned", "--json")
    assert "refused over there unless an administrator allows" in err
    assert status == 0 and json.loads(out)[0]["signed_by"] is None
    assert "SHA256SUMS.sig" not in inside(tmp_path / "o.tar")
    assert AuditEntry.objects.filter(action="bundle left unsigned").exists()


@pytest.mark.parametrize("option", [("--unsigned",), ("--sign-with", "cat")])
def test_an_instance_that_signs_by_itself_does_not_pass_over_what_was_asked(held, tmp_path, option):
    status, out, err = run("export_bundle", "--output", str(tmp_path / "o.tar"), *option)
    assert (status, out) == (2, "")
    assert f"{option[0]} is for a key that is kept outside" in err
    assert not (tmp_path / "o.tar").exists() and not Bundle.objects.exists() and not SigningKey.objects.exists()


def test_a_cache_archive_is_unsigned_and_takes_no_signature(held, tmp_path):
    status, _, err = run("export_bundle", "--profile", "cache", "--output", str(tmp_path / "o.tgz"), "--unsigned")
    assert status == 0, err
    status, _, err = run("export_bundle", "--profile", "cache", "--output", str(tmp_path / "p"), "--sign-with", "cat")
    assert status == 2 and "no place for a signature" in err
