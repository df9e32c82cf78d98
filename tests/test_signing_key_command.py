"""`manage.py signing_key`, as a script calls it: exit status, stdout, stderr."""

import json
import subprocess

import pytest

from mirrors import keys
from mirrors.models import AuditEntry, SigningKey, TrustedKey
from mirrors.signing import Key, PublicKey
from tests.signing.conftest import load_into, openssh, ssh_agent
from tests.test_mirror_command import manage

__all__ = ["manage", "openssh", "ssh_agent"]
OTHER = Key.generate()


@pytest.fixture(autouse=True)
def own_data(data_dir, db):
    return data_dir


@pytest.fixture
def other(tmp_path):
    path = tmp_path / "other.pub"
    path.write_text(OTHER.public_line("theirs") + "\n")
    return str(path)


def test_show_prints_one_public_key_line_and_nothing_else(manage):
    status, out, err = manage("signing_key", "show")
    assert (status, err) == (0, "")
    assert out.count("\n") == 1
    assert PublicKey.from_text(out) == keys.public_of(keys.current())
    assert out.split()[0] == "ssh-ed25519" and out.split()[2].startswith("airgap-")
    assert manage("signing_key", "show")[1] == out


def test_show_prints_the_allowed_signers_line(manage):
    status, out, err = manage("signing_key", "show", "--allowed-signers")
    line = manage("signing_key", "show")[1]
    assert (status, err) == (0, "")
    assert out == f'airgap namespaces="airgap-bundle,airgap-kit" {line}'


def test_show_with_json(manage):
    (said,) = json.loads(manage("signing_key", "show", "--json")[1])
    assert said["kept"] == "own" and said["fingerprint"] == keys.current().fingerprint
    assert said["allowed_signers"].endswith(said["public_key"]) and said["created_at"].endswith("Z")
    assert "PRIVATE" not in str(said)


@pytest.mark.peers
def test_ssh_keygen_takes_what_it_shows(manage, openssh):
    signers = manage("signing_key", "show", "--allowed-signers")[1]
    assert openssh.verifies(b"sums", keys.sign(b"sums", "airgap-bundle"), signers.strip())


def test_trust_list_and_revoke(manage, other):
    status, out, err = manage("signing_key", "list")
    assert (status, out) == (0, "") and "No key is trusted here" in err
    status, out, _ = manage("signing_key", "trust", "outside", other, "--note", "by phone")
    assert status == 0 and out.startswith(f"outside is trusted: {OTHER.fingerprint}.")
    status, out, _ = manage("signing_key", "list")
    assert status == 0 and out.startswith(f"{OTHER.fingerprint}  outside  (trusted; added ") and "by phone" in out
    status, out, _ = manage("signing_key", "revoke", "outside")
    assert status == 0 and out == f"Revoked outside. What {OTHER.fingerprint} signed is refused from now on.\n"
    assert manage("signing_key", "list")[1] == ""
    assert "revoked " in manage("signing_key", "list", "--all")[1]
    assert [entry.action for entry in AuditEntry.objects.order_by("pk")] == ["key trusted", "key revoked"]
    assert AuditEntry.objects.first().actor.endswith("(command line)")


def test_the_same_with_json(manage, other):
    (said,) = json.loads(manage("signing_key", "trust", "outside", other, "--json")[1])
    assert said["name"] == "outside" and said["state"] == "trusted" and said["revoked_at"] is None
    assert json.loads(manage("signing_key", "list", "--json")[1]) == [said]
    (gone,) = json.loads(manage("signing_key", "revoke", "outside", "--json")[1])
    assert gone["state"] == "revoked" and gone["revoked_at"].endswith("Z")


def test_a_key_from_standard_input_and_from_an_allowed_signers_line(manage):
    line = OTHER.public.allowed_signers("airgap", "airgap-bundle")
    assert manage("signing_key", "trust", "outside", "-", stdin=line + "\n")[0] == 0
    assert TrustedKey.objects.get().fingerprint == OTHER.fingerprint


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (["trust", "outside", "/nowhere"], 2, "The public key /nowhere cannot be read"),
        (["trust", "Out side", "OTHER"], 2, "A name is lower-case letters"),
        (["trust", "outside", "GARBAGE"], 2, "This is no public key of OpenSSH"),
        (["trust", "outside", "PRIVATE"], 2, "This is a private key"),
        (["revoke", "nobody"], 1, "There is no trusted key called nobody"),
        (["use", "GARBAGE"], 2, "This is no public key of OpenSSH"),
        (["use", "OTHER", "--agent"], 1, "AIRGAP_SSH_AUTH_SOCK does not say where"),
        (["frobnicate"], 2, "invalid choice"),
        ([], 2, "required"),
    ],
)
def test_it_says_what_is_wrong(manage, other, tmp_path, words, status, sentence):
    (tmp_path / "garbage").write_bytes(b"\xff\xfe")
    (tmp_path / "private").write_text(OTHER.private_openssh())
    files = {"OTHER": other, "GARBAGE": str(tmp_path / "garbage"), "PRIVATE": str(tmp_path / "private")}
    ended, out, err = manage("signing_key", *(files.get(word, word) for word in words))
    assert (ended, out) == (status, "")
    assert sentence in err


def test_a_taken_name_and_a_revoked_key_are_refused(manage, other):
    manage("signing_key", "trust", "outside", other)
    status, out, err = manage("signing_key", "trust", "outside", other, "--json")
    assert (status, json.loads(out)) == (1, []) and "trusted already" in err
    manage("signing_key", "revoke", "outside")
    status, _, err = manage("signing_key", "trust", "outside", other)
    assert status == 1 and "(--again)" in err
    assert manage("signing_key", "trust", "outside", other, "--again")[0] == 0


def test_rotate_prints_the_new_line(manage):
    before = manage("signing_key", "show")[1]
    status, out, err = manage("signing_key", "rotate")
    assert status == 0 and out == manage("signing_key", "show")[1] != before
    assert "Give its public line to everybody" in err
    (said,) = json.loads(manage("signing_key", "rotate", "--json")[1])
    assert said["kept"] == "own"


def test_a_key_kept_outside_is_used(manage, other):
    status, out, err = manage("signing_key", "use", other)
    assert status == 0 and out == OTHER.public_line("theirs") + "\n" and "which is kept outside" in err
    assert manage("signing_key", "show")[1] == out
    status, _, err = manage("signing_key", "export", "--passphrase-stdin", stdin="correct horse battery\n")
    assert status == 1 and "is kept outside" in err


@pytest.mark.peers
def test_a_key_in_an_agent_is_used(manage, openssh, ssh_agent, settings):
    settings.AIRGAP_SSH_AUTH_SOCK = ssh_agent
    path = openssh.key()
    load_into(ssh_agent, path)
    assert manage("signing_key", "use", str(path.with_suffix(".pub")), "--agent")[0] == 0
    assert SigningKey.objects.current().get().kept == "agent"


def test_export_gives_the_private_key_under_a_passphrase(manage):
    status, out, err = manage("signing_key", "export", "--passphrase-stdin", stdin="correct horse battery\n")
    assert (status, err) == (0, "")
    assert Key.from_openssh(out, "correct horse battery").fingerprint == keys.current().fingerprint
    for stdin, sentence in (("short\n", "at least 12"), ("", "No passphrase came")):
        status, out, err = manage("signing_key", "export", "--passphrase-stdin", stdin=stdin)
        assert status > 0 and not out and sentence in err
    assert manage("signing_key", "export")[0] == 2


@pytest.mark.peers
def test_ssh_keygen_opens_what_it_exports(manage, openssh):
    out = manage("signing_key", "export", "--passphrase-stdin", stdin="correct horse battery\n")[1]
    path = openssh.root / "exported"
    path.write_text(out)
    path.chmod(0o600)
    done = subprocess.run(
        ["ssh-keygen", "-y", "-P", "correct horse battery", "-f", path], capture_output=True, text=True, timeout=30
    )
    assert done.stdout.split()[:2] == keys.current().public_line.split()[:2]
