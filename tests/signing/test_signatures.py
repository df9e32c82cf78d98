"""Signatures: what ssh-keygen makes is taken and the other way round; whatever differs by one bit is not."""

import base64
import hashlib
import itertools
import random
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mirrors.signing import (
    BUNDLE,
    LONGEST,
    Key,
    MalformedSignature,
    PublicKey,
    SignatureError,
    UnknownKey,
    WrongSignature,
    check,
    sign,
    tidied,
    verify,
)
from mirrors.signing.wire import string
from tests.signing.conftest import needs_openssh

pytestmark = pytest.mark.peers
SUMS = b"0" * 64 + b"  README.txt\n"
KEY = Key.generate()
HASHES = ["sha512", "sha256"]


def signers(key: PublicKey) -> str:
    return key.allowed_signers("airgap", BUNDLE)


def public(path: Path) -> PublicKey:
    return PublicKey.from_text(path.with_suffix(".pub").read_text())


@needs_openssh
@pytest.mark.parametrize("data", [b"", SUMS, bytes(100_000)])
def test_ssh_keygen_verifies_ours(openssh, data):
    signature = sign(data, KEY)
    assert openssh.verifies(data, signature, signers(KEY.public))
    assert not openssh.verifies(data + b"x", signature, signers(KEY.public))
    assert not openssh.verifies(data, signature, signers(Key.generate().public))


@needs_openssh
def test_both_write_the_same_bytes(openssh):
    path = openssh.root / "ours"
    path.write_text(KEY.private_openssh())
    path.chmod(0o600)
    assert openssh.sign(path, SUMS) == sign(SUMS, KEY)


@needs_openssh
@pytest.mark.parametrize(
    ("kind", "bits", "hash"),
    [
        *itertools.product(["ed25519"], [0], HASHES),
        *itertools.product(["ecdsa"], [256, 384, 521], HASHES),
        ("rsa", 2048, "sha256"),
        ("rsa", 2056, "sha512"),
        # To make such a key takes long.
        pytest.param("rsa", 2048, "sha512", marks=pytest.mark.long),
        pytest.param("rsa", 2056, "sha256", marks=pytest.mark.long),
    ],
)
def test_we_verify_those_of_ssh_keygen(openssh, kind, bits, hash):
    path = openssh.key(kind, bits)
    signature = openssh.sign(path, SUMS, BUNDLE, "-O", f"hashalg={hash}")
    assert verify(SUMS, signature, [KEY.public, public(path)]) == public(path)
    with pytest.raises(WrongSignature):
        verify(SUMS + b"x", signature, [public(path)])


def in_a_token(private: Ed25519PrivateKey, *, flags: int = 1, application: bytes = b"ssh:") -> Key:
    """A key as FIDO tokens hold it, which none is needed for here."""
    raw = private.public_key().public_bytes_raw()

    class Token(Key):
        def __init__(self) -> None:
            kind = b"sk-ssh-ed25519@openssh.com"
            self.public = PublicKey.from_blob(string(kind) + string(raw) + string(application))

        def signed(self, message: bytes) -> bytes:
            seen = bytes([flags]) + (7).to_bytes(4, "big")
            shown = hashlib.sha256(application).digest() + seen + hashlib.sha256(message).digest()
            return string(self.public.kind.encode()) + string(private.sign(shown)) + seen

    return Token()


@needs_openssh
def test_keys_in_tokens_are_verified_as_ssh_keygen_does(openssh):
    token = in_a_token(Ed25519PrivateKey.generate())
    signature = sign(SUMS, token)
    assert openssh.verifies(SUMS, signature, signers(token.public))
    assert verify(SUMS, signature, [token.public]) == token.public
    with pytest.raises(WrongSignature):
        check(SUMS + b"x", signature)


def test_a_token_that_nobody_touched_signs_nothing():
    with pytest.raises(WrongSignature):
        check(SUMS, sign(SUMS, in_a_token(Ed25519PrivateKey.generate(), flags=0)))


def test_the_same_key_signs_the_same_bytes_the_same_way():
    assert sign(SUMS, KEY) == sign(SUMS, KEY)


def test_a_key_that_is_not_allowed_is_named():
    with pytest.raises(UnknownKey) as caught:
        verify(SUMS, sign(SUMS, KEY), [Key.generate().public])
    assert caught.value.key == KEY.public
    assert str(caught.value) == (f"It is signed with the key {KEY.fingerprint}, which is not among the trusted ones.")


def test_a_signature_for_something_else_is_none_of_a_bundle():
    with pytest.raises(WrongSignature, match="was made for 'file' and not for 'airgap-bundle'"):
        check(SUMS, sign(SUMS, KEY, "file"))
    assert check(SUMS, sign(SUMS, KEY, "file"), "file") == KEY.public


def test_a_wrong_signature_says_whom_it_names():
    with pytest.raises(WrongSignature) as caught:
        check(b"other", sign(SUMS, KEY))
    assert caught.value.key == KEY.public
    assert "which it names, did not sign these bytes" in str(caught.value)


def test_every_flipped_bit_is_refused():
    good = sign(SUMS, KEY)
    for at in range(len(good)):
        for bit in range(8):
            bad = bytearray(good)
            bad[at] ^= 1 << bit
            with pytest.raises(SignatureError):
                verify(SUMS, bytes(bad), [KEY.public])


@needs_openssh
def test_every_flipped_bit_of_an_ecdsa_signature_is_refused(openssh):
    path = openssh.key("ecdsa")
    good = openssh.sign(path, SUMS)
    for at in range(len(good)):
        bad = bytearray(good)
        bad[at] ^= 1 << (at % 8)
        with pytest.raises(SignatureError):
            verify(SUMS, bytes(bad), [public(path)])


def test_truncated_or_longer_ones_are_refused():
    good = sign(SUMS, KEY)
    for at in range(len(good)):
        with pytest.raises(MalformedSignature):
            check(SUMS, good[:at])
    for bad in (good + b"\n", b"\n" + good, good + good, good.replace(b"\n", b"\r\n"), good + b"x" * LONGEST):
        with pytest.raises(MalformedSignature):
            check(SUMS, bad)


@pytest.mark.parametrize("namespace", ["a", "ab", "abc"])
def test_bits_that_base64_leaves_over_are_looked_at_too(namespace):
    good = sign(SUMS, KEY, namespace)
    for at in range(len(good) - 40, len(good)):
        for bit in range(8):
            bad = bytearray(good)
            bad[at] ^= 1 << bit
            with pytest.raises(SignatureError):
                check(SUMS, bytes(bad), namespace)


@pytest.mark.parametrize("columns", [60, 64, 76, 1000])
def test_lines_of_another_length_are_refused_unless_tidied(columns):
    good = sign(SUMS, KEY)
    first, *lines, last = good.splitlines()
    text = b"".join(lines)
    other = b"\n".join([first, *(text[at : at + columns] for at in range(0, len(text), columns)), last, b""])
    with pytest.raises(MalformedSignature, match="not written as ssh-keygen writes it"):
        check(SUMS, other)
    assert tidied(other) == good


def blob_of(armored: bytes) -> bytes:
    return base64.b64decode(b"".join(armored.splitlines()[1:-1]))


def armored(blob: bytes) -> bytes:
    text = base64.b64encode(blob)
    lines = [text[at : at + 70] for at in range(0, len(text), 70)]
    return b"\n".join([b"-----BEGIN SSH SIGNATURE-----", *lines, b"-----END SSH SIGNATURE-----\n"])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda blob: b"X" + blob[1:], "it does not begin as one"),
        (lambda blob: blob[:9] + b"\2" + blob[10:], "it has version 2, and 1 is known"),
        (lambda blob: blob + b"\0", "something follows its end"),
        (lambda blob: blob.replace(string(b"") + string(b"sha512"), string(b"x") + string(b"sha512")), "reserved"),
        (lambda blob: blob.replace(b"sha512", b"sha384"), "the hash sha384 is not known"),
        (lambda blob: blob.replace(b"ssh-ed25519", b"ssh-ed25518", 1), "names no key that is taken"),
        (lambda blob: blob[:6] + bytes(4), "it has version 0"),
        (lambda blob: blob[:10] + b"\xff\xff\xff\xff" + blob[14:], "it ends too early"),
    ],
)
def test_it_says_what_is_wrong_with_the_form(change, sentence):
    with pytest.raises(MalformedSignature) as caught:
        check(SUMS, armored(change(blob_of(sign(SUMS, KEY)))))
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(b"\n", b"\r\n"),
        lambda text: b"\n  " + text.rstrip() + b"\n\n",
        lambda text: text.replace(b"\n", b" \n "),
        lambda text: text[:60] + b"\n" + text[60:],
    ],
)
def test_what_a_browser_or_mail_did_to_it_is_undone(change):
    good = sign(SUMS, KEY)
    assert tidied(change(good)) == good


@pytest.mark.parametrize(
    "text",
    [b"", b"x", b"x" * 20_000, sign(SUMS, KEY)[:-3], b"x" + sign(SUMS, KEY), sign(SUMS, KEY).replace(b"U", b"?")],
    ids=["nothing", "a letter", "too long", "cut off", "preceded", "other letters"],
)
def test_what_is_no_signature_is_not_tidied(text):
    with pytest.raises(MalformedSignature):
        tidied(text)


@pytest.mark.parametrize("seed", range(50))
def test_any_bytes_are_refused_with_a_sentence(seed):
    chance = random.Random(seed)
    blob = chance.randbytes(chance.randrange(400))
    for data in (blob, armored(blob), armored(b"SSHSIG\0\0\0\1" + blob)):
        with pytest.raises(SignatureError):
            check(SUMS, data)
