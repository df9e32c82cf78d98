"""Keys in OpenSSH's forms: read exactly, or refused with a sentence."""

import base64

import pytest

from mirrors.signing import Key, KeyRefused, PublicKey
from mirrors.signing.wire import Reader, WireError, mpint, string
from tests.signing.conftest import needs_openssh

pytestmark = pytest.mark.peers
KINDS = [("ed25519", 0), ("ecdsa", 256), ("ecdsa", 384), ("ecdsa", 521), ("rsa", 2048)]


@needs_openssh
@pytest.mark.parametrize(("kind", "bits"), KINDS)
def test_it_reads_what_ssh_keygen_writes_and_gives_it_the_same_fingerprint(openssh, kind, bits):
    path = openssh.key(kind, bits)
    line = path.with_suffix(".pub").read_text().strip()
    key = PublicKey.from_text(line + "\n")
    assert key.line() == line
    assert key.comment == "of a person"
    assert key.fingerprint in openssh.run("-l", "-f", path).stdout.decode().split()


@needs_openssh
def test_ssh_keygen_reads_our_key_and_finds_the_same_public_one(openssh):
    key = Key.generate()
    path = openssh.root / "ours"
    path.write_text(key.private_openssh())
    path.chmod(0o600)
    assert openssh.run("-y", "-f", path).stdout.decode().split()[:2] == key.public_line().split()


@needs_openssh
def test_ssh_keygen_opens_our_key_with_the_passphrase_only(openssh):
    key = Key.generate()
    path = openssh.root / "ours"
    path.write_text(key.private_openssh("correct horse"))
    path.chmod(0o600)
    assert openssh.run("-y", "-P", "wrong", "-f", path).returncode != 0
    assert openssh.run("-y", "-P", "correct horse", "-f", path).stdout.decode().split()[:2] == key.public.line().split()
    assert Key.from_openssh(path.read_text(), "correct horse").public == key.public


@needs_openssh
def test_we_read_the_private_keys_of_ssh_keygen(openssh):
    path = openssh.key(passphrase="correct horse")
    with pytest.raises(KeyRefused, match="or the passphrase is another one"):
        Key.from_openssh(path.read_text())
    key = Key.from_openssh(path.read_text(), "correct horse")
    assert key.public_line("of a person") == path.with_suffix(".pub").read_text().strip()
    with pytest.raises(KeyRefused, match="An Ed25519 key is wanted"):
        Key.from_openssh(openssh.key("ecdsa", name="other").read_text())


def test_it_reads_an_allowed_signers_line_too():
    key = Key.generate().public
    assert PublicKey.from_text(f"# of plant 7\n\n{key.allowed_signers('airgap', 'airgap-bundle')}\r\n") == key
    assert PublicKey.from_text(f"airgap {key.line()}") == key


def test_letters_that_move_a_cursor_do_not_become_part_of_a_name():
    assert PublicKey.from_text(f"{Key.generate().public.base} a\x1b[2Jb").comment == "a[2Jb"


ONE = Key.generate().public.base
CERTIFICATE = string(b"ssh-ed25519-cert-v01@openssh.com") + string(b"x")


REFUSED = [
    ("", "One public key is wanted"),
    (f"{ONE}\n{Key.generate().public.base}", "One public key is wanted"),
    (Key.generate().private_openssh(), "This is a private key, which must stay where it is."),
    ("hello", "This is no public key of OpenSSH"),
    ("ssh-ed25519", "This is no public key of OpenSSH"),
    ("ssh-ed25519 " + "A" * 9000, "too long"),
    (f"airgap cert-authority {ONE}", "The option cert-authority in this line is not understood"),
    (f'airgap namespaces="x",valid-before="2020" {ONE}', "is not understood"),
    (ONE[:-1], "is not whole"),
    (ONE + "=", "is not whole"),
    (ONE.replace("ssh-ed25519", "ssh-rsa"), "is not whole"),
    ("ssh-dss " + base64.b64encode(string(b"ssh-dss")).decode(), "Keys of the kind ssh-dss are not taken"),
    (f"ssh-ed25519 {base64.b64encode(CERTIFICATE).decode()}", "are not taken, only Ed25519"),
    ("ssh-ed25519 " + base64.b64encode(string(b"ssh-ed25519") + string(b"x" * 31)).decode(), "is spoilt"),
    ("ssh-ed25519 " + base64.b64encode(string(b"ssh-ed25519") + string(b"x" * 32) + b"y").decode(), "is spoilt"),
    ("ssh-rsa " + base64.b64encode(string(b"ssh-rsa") + mpint(65537) + mpint(3)).decode(), "."),
    ("ssh-ed25519 AAAA", "in no form of OpenSSH"),
]


# Keys differ each time, so they cannot name the tests.
@pytest.mark.parametrize(("text", "sentence"), REFUSED, ids=map(str, range(len(REFUSED))))
def test_it_refuses_what_is_no_single_good_public_key(text, sentence):
    with pytest.raises(KeyRefused) as caught:
        PublicKey.from_text(text)
    assert sentence in str(caught.value)


@needs_openssh
def test_it_refuses_a_weak_rsa_key(openssh):
    path = openssh.key("rsa", 1024)
    with pytest.raises(KeyRefused, match="This RSA key has 1024 bits; 2048 to 16384 are taken"):
        PublicKey.from_text(path.with_suffix(".pub").read_text())


def test_a_private_key_is_never_shown_by_accident():
    assert "PRIVATE" not in repr(Key.generate())


@pytest.mark.parametrize("number", [0, 1, 127, 128, 255, 256, 2**521 - 1])
def test_numbers_have_one_form(number):
    assert Reader(mpint(number)).mpint() == number
    with pytest.raises(WireError):
        Reader(string(b"\0" + mpint(number)[4:])).mpint()


def test_nothing_is_read_past_the_end():
    for data in (b"", b"\0\0\0", string(b"abc")[:-1], b"\xff\xff\xff\xffabc"):
        with pytest.raises(WireError):
            Reader(data).string()
    with pytest.raises(WireError):
        Reader(b"x").end()
    with pytest.raises(WireError):
        Reader(string(b"a\nb")).text()
