"""`manage.py receipt`, as a script calls it: exit status, stdout, stderr."""

import json
import shlex

import pytest
from django.utils import timezone

from mirrors import keys
from mirrors.models import AuditEntry, Import, IssuedReceipt, Transfer
from mirrors.receipting import giving
from mirrors.receipts import NAMESPACE, read, read_code
from mirrors.signing import Key, PublicKey, sign
from tests.receipting.conftest import code, ended, fact, nord, on, prepare, signed, their_key, transfer, trusted
from tests.signing.conftest import load_into, openssh, ssh_agent
from tests.test_mirror_command import manage

__all__ = [
    "code", "ended", "fact", "manage", "nord", "on", "openssh", "prepare", "signed", "ssh_agent", "their_key",
    "transfer", "trusted",
]  # fmt: skip

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def own_data(data_dir):
    return data_dir


@pytest.fixture
def now():
    return timezone.now().replace(microsecond=0)


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
    assert status == 0 and set(said) == {"bundle", "outcome", "date", "key", "site", "text", "code", "to_sign"}
    assert said["to_sign"] is None
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


OUTSIDE = Key.generate()


@pytest.fixture
def outside(now):
    return keys.use_elsewhere(OUTSIDE.public_line(), "outside", by="ada", now=now)


def public(path) -> PublicKey:
    return PublicKey.from_text(path.with_suffix(".pub").read_text())


class TestKeptOutside:
    def test_show_says_what_to_do(self, manage, ended, on, outside):
        ended()
        status, out, err = manage("receipt", "show")
        assert (status, out) == (1, "")
        assert "receipt show ab12cd34 --unsigned prints, with -n airgap-receipt" in err
        assert "receipt sign ab12cd34 --signature FILE" in err and "receipt show --text" in err
        assert manage("receipt", "show", "--text")[0] == 0

    def test_it_prints_what_is_signed_and_nothing_else(self, manage, ended, on, outside):
        facts = giving.to_sign(ended()).text().decode()
        assert manage("receipt", "show", "--unsigned") == (0, facts, "")
        for words in (["--json"], ["--json", "--unsigned"]):
            status, out, _ = manage("receipt", "show", *words)
            (said,) = json.loads(out)
            assert status == 0 and said["to_sign"] == facts and said["text"] is None
        assert AuditEntry.objects.filter(action="receipt made").count() == 1

    @pytest.mark.parametrize("way", ["file", "-"])
    def test_a_signature_is_taken(self, manage, ended, on, outside, tmp_path, way):
        signature = sign(giving.to_sign(ended()).text(), OUTSIDE, NAMESPACE)
        (tmp_path / "sig").write_bytes(signature)
        named = "-" if way == "-" else str(tmp_path / "sig")
        stdin = signature.decode() if way == "-" else ""
        status, out, err = manage("receipt", "sign", "ab12cd34", "--signature", named, stdin=stdin)
        assert (status, err) == (0, "") and f"is signed with {OUTSIDE.fingerprint}" in out
        status, out, err = manage("receipt", "show")
        assert (status, err) == (0, "") and out.encode().endswith(signature)
        status, out, err = manage("receipt", "sign", "--signature", named, "--json", stdin=stdin)
        assert status == 1 and json.loads(out) == [] and "does not wait for a signature" in err

    def test_with_json_it_is_as_show_prints_it(self, manage, ended, on, outside, tmp_path):
        (tmp_path / "sig").write_bytes(sign(giving.to_sign(ended()).text(), OUTSIDE, NAMESPACE))
        status, out, _ = manage("receipt", "sign", "--signature", str(tmp_path / "sig"), "--json")
        assert status == 0 and json.loads(out) == json.loads(manage("receipt", "show", "--json")[1])
        assert json.loads(out)[0]["key"] == OUTSIDE.fingerprint

    @pytest.mark.parametrize(
        ("words", "status", "sentence"),
        [
            ([], 1, "Give --signature FILE, or --sign-with 'ssh-keygen -Y sign -f KEY -n airgap-receipt'"),
            (["--signature", "/nowhere/sig"], 2, "The signature /nowhere/sig cannot be read"),
            (["--signature", "GARBAGE"], 1, "This is no signature of OpenSSH"),
            (["--signature", "LONG"], 1, "too long for a signature"),
            (["--signature", "OTHER"], 1, "this receipt wants"),
            (["--sign-with", "false"], 1, "ended with status 1; nothing was signed"),
            (["--sign-with", "cat"], 1, "This is no signature of OpenSSH"),
            (["--sign-with", "sign 'x"], 2, "a quote is not closed"),
            (["--sign-with", "cat", "--signature", "GARBAGE"], 2, "not allowed with"),
            (["ffffffff"], 1, "'ffffffff' has ended here"),
        ],
    )
    def test_what_it_cannot_take_is_told(self, manage, ended, on, outside, tmp_path, words, status, sentence):
        files = {
            "GARBAGE": b"\xff hello",
            "LONG": b"x" * 100_000,
            "OTHER": sign(giving.to_sign(ended()).text(), Key.generate(), NAMESPACE),
        }
        for name, data in files.items():
            (tmp_path / name).write_bytes(data)
        named = [str(tmp_path / word) if word in files else word for word in words]
        for more in ([], ["--json"]):
            ended_with, out, err = manage("receipt", "sign", *named, *more)
            assert ended_with == status and sentence in err
            assert json.loads(out) == [] if more else not out
        assert not IssuedReceipt.objects.exists()

    def test_while_they_are_off_it_takes_none(self, manage, ended, outside):
        ended()
        status, out, err = manage("receipt", "sign", "--signature", "/nowhere/sig")
        assert status == 1 and not out and "Receipts are off" in err

    @pytest.mark.peers
    def test_a_command_signs_and_the_other_side_loads_it(self, manage, ended, on, transfer, openssh, tmp_path, now):
        path = openssh.key()
        keys.use_elsewhere(public(path).line(), "outside", by="ada", now=now)
        ended(bundle=transfer.bundle_id, transfer=transfer.pk, receipt_secret=transfer.receipt_secret)
        command = f"ssh-keygen -q -Y sign -n airgap-receipt -f {shlex.quote(str(path))}"
        status, _, err = manage("receipt", "sign", "--sign-with", command)
        assert status == 0, err
        keys.trust("nord", public(path).line(), by="ada", now=now)
        (tmp_path / "receipt.txt").write_text(manage("receipt", "show")[1])
        status, out, _ = manage("receipt", "load", str(tmp_path / "receipt.txt"), "--json")
        assert status == 0 and json.loads(out)[0]["signed"] is True


class TestSignedByItself:
    @pytest.mark.parametrize("option", ["--signature", "--sign-with"])
    def test_it_does_not_pass_over_what_was_asked(self, manage, ended, on, option):
        ended()
        status, out, err = manage("receipt", "sign", option, "cat")
        assert (status, out) == (2, "") and f"{option} is for a key that is kept outside" in err
        assert not IssuedReceipt.objects.exists()

    def test_after_a_rotation_show_prints_what_it_printed_until_it_is_signed_anew(self, manage, ended, on, now):
        ended()
        before = manage("receipt", "show")[1]
        keys.rotate(by="ada", now=now)
        status, out, err = manage("receipt", "show")
        assert (status, out) == (0, before) and "a former key of this side" in err and "receipt sign ab12cd34" in err
        assert manage("receipt", "sign")[0] == 0
        status, out, err = manage("receipt", "show")
        assert (status, err) == (0, "") and read(out.encode()).receipt.key_id == keys.current().fingerprint

    @pytest.mark.peers
    def test_a_real_agent_signs_when_the_file_is_asked_for(self, manage, ended, on, openssh, ssh_agent, now, settings):
        settings.AIRGAP_SSH_AUTH_SOCK = ssh_agent
        path = openssh.key("ecdsa", 256)
        load_into(ssh_agent, path)
        keys.use_elsewhere(public(path).line(), "agent", by="ada", now=now)
        ended()
        for words in (["--text"], ["--unsigned"]):
            assert manage("receipt", "show", *words)[0] == 0
        assert not IssuedReceipt.objects.exists()
        status, out, err = manage("receipt", "show")
        assert (status, err) == (0, "") and read(out.encode()).receipt.key_id == public(path).fingerprint
        assert manage("receipt", "show")[1] == out
        assert AuditEntry.objects.filter(action="receipt signed").count() == 1
        assert manage("receipt", "sign")[0] == 1
