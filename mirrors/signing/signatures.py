"""Detached signatures in OpenSSH's form (its PROTOCOL.sshsig): made, and read so that no byte of one can be changed.

`ssh-keygen` also takes other line ends, line lengths and a reserved field that holds something. Here a signature has
one form, the one that `ssh-keygen -Y sign` writes: whatever differs from it, by a single bit, is refused.
"""

import base64
import binascii
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from mirrors.signing.keys import KeyRefused, PublicKey
from mirrors.signing.wire import Reader, WireError, string

BUNDLE = "airgap-bundle"
KIT = "airgap-kit"
BEGIN, END = b"-----BEGIN SSH SIGNATURE-----\n", b"-----END SSH SIGNATURE-----\n"
MAGIC, VERSION, COLUMNS = b"SSHSIG", 1, 70
HASHES: dict[str, Callable[[bytes], "hashlib._Hash"]] = {"sha512": hashlib.sha512, "sha256": hashlib.sha256}
# A signature by an RSA key of 16384 bits, the longest there is, takes 5.7 KB.
LONGEST = 8192


class SignatureError(Exception):
    """A signature is not good; the sentence says why. `key` is who it claims to be by, if that could be read."""

    def __init__(self, sentence: str, key: PublicKey | None = None) -> None:
        super().__init__(sentence)
        self.key = key


class MalformedSignature(SignatureError):
    """These bytes are no signature."""


class WrongSignature(SignatureError):
    """It is of other bytes, for another purpose, or not by the key it names."""


class UnknownKey(SignatureError):
    """It is right, and by none of the keys that are allowed."""


class Signer(Protocol):
    """What can sign: a Key, or a key in an agent."""

    @property
    def public(self) -> PublicKey: ...
    def signed(self, message: bytes) -> bytes: ...


@dataclass(frozen=True)
class _Signature:
    key: PublicKey
    namespace: str
    hash: str
    raw: bytes


def sign(data: bytes, signer: Signer, namespace: str = BUNDLE) -> bytes:
    """The armored signature of `data`; an Ed25519 key always gives the same one."""
    raw = signer.signed(_signed_text(namespace, "sha512", data))
    return _armored(_Signature(signer.public, namespace, "sha512", raw))


def verify(data: bytes, signature: bytes, allowed: Sequence[PublicKey], namespace: str = BUNDLE) -> PublicKey:
    """Which of the allowed keys signed `data`. Raises SignatureError: one of the three above."""
    key = check(data, signature, namespace)
    for each in allowed:
        if each == key:
            return each
    raise UnknownKey(f"It is signed with the key {key.fingerprint}, which is not among the trusted ones.", key)


def check(data: bytes, signature: bytes, namespace: str = BUNDLE) -> PublicKey:
    """The key that signed `data`, whoever's it is. Raises MalformedSignature or WrongSignature."""
    found = _read(signature)
    if found.namespace != namespace:
        shown = found.namespace[:60]
        raise WrongSignature(f"The signature was made for {shown!r} and not for {namespace!r}.", found.key)
    if not found.key.has_signed(found.raw, _signed_text(namespace, found.hash, data)):
        raise WrongSignature(
            f"The signature is not right: {found.key.fingerprint}, which it names, did not sign these bytes.", found.key
        )
    return found.key


def tidied(text: bytes) -> bytes:
    """A signature that came through a browser, a mail or another program, in the one form that is taken here.

    Only white space may differ. Raises MalformedSignature.
    """
    if len(text) > 2 * LONGEST:
        raise MalformedSignature("This is too long for a signature.")
    begin, end, text = BEGIN.strip(), END.strip(), text.strip()
    if not text.startswith(begin) or not text.endswith(end):
        raise MalformedSignature(
            "This is no signature of OpenSSH: it begins with -----BEGIN SSH SIGNATURE----- and ends with the line that "
            "says END. Take the whole file that ssh-keygen -Y sign wrote."
        )
    armored = _wrapped(b"".join(text[len(begin) : -len(end)].split()))
    _read(armored)
    return armored


def _signed_text(namespace: str, hash: str, data: bytes) -> bytes:
    digest = HASHES[hash](data).digest()
    return MAGIC + string(namespace.encode()) + string(b"") + string(hash.encode()) + string(digest)


def _armored(signature: _Signature) -> bytes:
    blob = b"".join(
        (
            MAGIC,
            VERSION.to_bytes(4, "big"),
            string(signature.key.blob),
            string(signature.namespace.encode()),
            string(b""),
            string(signature.hash.encode()),
            string(signature.raw),
        )
    )
    return _wrapped(base64.b64encode(blob))


def _wrapped(letters: bytes) -> bytes:
    lines = (letters[at : at + COLUMNS] + b"\n" for at in range(0, len(letters), COLUMNS))
    return BEGIN + b"".join(lines) + END


def _read(armored: bytes) -> _Signature:
    if len(armored) > LONGEST:
        raise MalformedSignature("The signature is too long for one.")
    try:
        if not armored.startswith(BEGIN) or not armored.endswith(END):
            raise WireError("its first or last line is another")
        letters = b"".join(armored[len(BEGIN) : -len(END)].split(b"\n"))
        signature = _parsed(base64.b64decode(letters, validate=True))
        if _armored(signature) != armored:
            raise WireError("it is not written as ssh-keygen writes it")
    except KeyRefused as error:
        raise MalformedSignature(f"The signature names no key that is taken. {error}") from None
    except (WireError, binascii.Error) as error:
        raise MalformedSignature(f"The signature is not one of OpenSSH, or damaged: {error}.") from None
    return signature


def _parsed(blob: bytes) -> _Signature:
    reader = Reader(blob)
    if reader.take(len(MAGIC)) != MAGIC:
        raise WireError("it does not begin as one")
    if (version := reader.uint32()) != VERSION:
        raise WireError(f"it has version {version}, and {VERSION} is known")
    key = PublicKey.from_blob(reader.string())
    namespace = reader.text()
    if reader.string():
        raise WireError("its reserved part holds something")
    hash = reader.text()
    if hash not in HASHES:
        raise WireError(f"the hash {hash[:20]} is not known")
    raw = reader.string()
    reader.end()
    return _Signature(key, namespace, hash, raw)
