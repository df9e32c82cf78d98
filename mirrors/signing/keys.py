"""Keys in OpenSSH's forms: public ones of every kind that can sign, and the Ed25519 key that an instance makes itself.

Sources: RFC 4253 section 6.6, RFC 5656, RFC 8332, RFC 8709, OpenSSH's PROTOCOL.u2f and PROTOCOL.key.
"""

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass, field
from functools import cached_property

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
    load_ssh_public_key,
)

from mirrors.signing.wire import Reader, WireError, string

ED25519, RSA, SK_ED25519 = "ssh-ed25519", "ssh-rsa", "sk-ssh-ed25519@openssh.com"
# Names of curves, and the hash that goes with each (RFC 5656, section 6.2.1).
CURVES: dict[str, hashes.HashAlgorithm] = {
    "ecdsa-sha2-nistp256": hashes.SHA256(),
    "ecdsa-sha2-nistp384": hashes.SHA384(),
    "ecdsa-sha2-nistp521": hashes.SHA512(),
}
RSA_HASHES: dict[str, hashes.HashAlgorithm] = {"rsa-sha2-256": hashes.SHA256(), "rsa-sha2-512": hashes.SHA512()}
KINDS = (ED25519, SK_ED25519, *CURVES, RSA)
# What OpenSSH's own tools make at least and at most.
RSA_BITS = range(2048, 16385)
LONGEST_LINE = 8192
USER_PRESENT = 1
_OPTIONS = re.compile(r'namespaces="[^"\n]*"', re.IGNORECASE)
_PEM = "PRIVATE KEY-----"


class KeyRefused(ValueError):
    """A text holds no key that can be taken; the sentence says why."""


@dataclass(frozen=True)
class PublicKey:
    """`kind` is the name OpenSSH has for it, `blob` its wire form. Equal if both are; the comment is not part of it."""

    kind: str
    blob: bytes
    comment: str = field(default="", compare=False)

    @classmethod
    def from_text(cls, text: str) -> "PublicKey":
        """The one key in a `.pub` or an allowed-signers file. Blank lines and those with # are left out.

        Raises KeyRefused for none, several, other kinds, certificates, and lines that restrict a key in ways that are
        not looked at here.
        """
        if _PEM in text:
            raise KeyRefused("This is a private key, which must stay where it is. Give the public one (….pub).")
        lines = [line.strip() for line in text.splitlines()]
        lines = [line for line in lines if line and not line.startswith("#")]
        if len(lines) != 1:
            raise KeyRefused("One public key is wanted, a line such as: ssh-ed25519 AAAA… name.")
        return cls._from_line(lines[0])

    @classmethod
    def _from_line(cls, line: str) -> "PublicKey":
        if len(line) > LONGEST_LINE:
            raise KeyRefused(f"This line is too long for a public key (over {LONGEST_LINE} characters).")
        words = line.split()
        at = next((i for i, word in enumerate(words[:3]) if re.match(r"(ssh|ecdsa|sk)-", word)), -1)
        if at < 0 or at + 1 >= len(words):
            raise KeyRefused("This is no public key of OpenSSH, a line such as: ssh-ed25519 AAAA… name.")
        if at == 2 and not _OPTIONS.fullmatch(words[1]):
            raise KeyRefused(f"The option {words[1][:60]} in this line is not understood. Give the key alone.")
        comment = " ".join(words[at + 2 :])
        try:
            blob = base64.b64decode(words[at + 1], validate=True)
        except (binascii.Error, ValueError):
            raise KeyRefused("The key in this line is not whole. Copy the line again.") from None
        key = cls.from_blob(blob, comment="".join(letter for letter in comment if letter.isprintable())[:100])
        if key.kind != words[at] or base64.b64encode(blob).decode() != words[at + 1]:
            raise KeyRefused("The key in this line is not whole. Copy the line again.")
        return key

    @classmethod
    def from_blob(cls, blob: bytes, comment: str = "") -> "PublicKey":
        """Raises KeyRefused for kinds not known, weak ones, and any other way to write a key than OpenSSH's."""
        try:
            kind = Reader(blob).text()
        except WireError:
            raise KeyRefused("This key is in no form of OpenSSH.") from None
        if kind not in KINDS:
            shown = kind[:60]
            raise KeyRefused(f"Keys of the kind {shown} are not taken, only Ed25519, RSA, ECDSA and sk-ssh-ed25519.")
        key = cls(kind, blob, comment)
        try:
            loaded = key._loaded
            if kind == SK_ED25519:
                key._application  # noqa: B018 - read to be refused here, not later
            elif _wire_form(loaded) != blob:
                raise WireError("it is not written as OpenSSH writes it")
        except (ValueError, UnsupportedAlgorithm):
            raise KeyRefused(f"This {kind} key is spoilt. Copy it again.") from None
        if isinstance(loaded, rsa.RSAPublicKey) and loaded.key_size not in RSA_BITS:
            raise KeyRefused(f"This RSA key has {loaded.key_size} bits; {RSA_BITS[0]} to {RSA_BITS[-1]} are taken.")
        return key

    @property
    def fingerprint(self) -> str:
        """As `ssh-keygen -l` prints it."""
        digest = base64.b64encode(hashlib.sha256(self.blob).digest()).decode()
        return "SHA256:" + digest.rstrip("=")

    @property
    def base(self) -> str:
        """Kind and key, without a comment."""
        return f"{self.kind} {base64.b64encode(self.blob).decode()}"

    def line(self, comment: str | None = None) -> str:
        """One line as in a `.pub` file, without its end."""
        return f"{self.base} {self.comment if comment is None else comment}".rstrip()

    def allowed_signers(self, who: str, namespace: str) -> str:
        """A line as `ssh-keygen -Y verify -f` wants it, without its end."""
        return f'{who} namespaces="{namespace}" {self.line()}'

    def has_signed(self, signature: bytes, message: bytes) -> bool:
        """Whether `signature` (its algorithm and bytes, in wire form) is this key's of `message`."""
        try:
            reader = Reader(signature)
            algorithm, raw = reader.text(), reader.string()
            if self.kind == SK_ED25519:
                flags, counter = reader.take(1), reader.take(4)
                message = self._shown_to_the_token(message, flags, counter)
                if not flags[0] & USER_PRESENT:
                    return False
            reader.end()
            self._verify(algorithm, raw, message)
        except (ValueError, InvalidSignature):
            return False
        return True

    def _verify(self, algorithm: str, raw: bytes, message: bytes) -> None:
        key = self._loaded
        if isinstance(key, rsa.RSAPublicKey):
            if algorithm not in RSA_HASHES or len(raw) != (key.key_size + 7) // 8:
                raise InvalidSignature
            key.verify(raw, message, padding.PKCS1v15(), RSA_HASHES[algorithm])
            return
        if algorithm != self.kind:
            raise InvalidSignature
        if isinstance(key, ec.EllipticCurvePublicKey):
            numbers = Reader(raw)
            r, s = numbers.mpint(), numbers.mpint()
            numbers.end()
            key.verify(encode_dss_signature(r, s), message, ec.ECDSA(CURVES[self.kind]))
            return
        key.verify(raw, message)

    @cached_property
    def _loaded(self) -> "ed25519.Ed25519PublicKey | rsa.RSAPublicKey | ec.EllipticCurvePublicKey":
        if self.kind == SK_ED25519:
            reader = Reader(self.blob)
            reader.string()
            return ed25519.Ed25519PublicKey.from_public_bytes(reader.string())
        loaded = load_ssh_public_key(self.base.encode("ascii"))
        if not isinstance(loaded, ed25519.Ed25519PublicKey | rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
            raise WireError("it is of another kind")
        return loaded

    @cached_property
    def _application(self) -> bytes:
        """What a hardware token was told that the key is for."""
        reader = Reader(self.blob)
        reader.string(), reader.string()
        application = reader.string()
        reader.end()
        return application

    def _shown_to_the_token(self, message: bytes, flags: bytes, counter: bytes) -> bytes:
        return hashlib.sha256(self._application).digest() + flags + counter + hashlib.sha256(message).digest()


class Key:
    """An Ed25519 key of our own."""

    def __init__(self, private: ed25519.Ed25519PrivateKey) -> None:
        self._private = private
        self.public = PublicKey(ED25519, _wire_form(private.public_key()))

    @classmethod
    def generate(cls) -> "Key":
        return cls(ed25519.Ed25519PrivateKey.generate())

    @classmethod
    def from_openssh(cls, text: str, passphrase: str = "") -> "Key":
        """From what `private_openssh` or `ssh-keygen -t ed25519` wrote. Raises KeyRefused."""
        try:
            private = load_ssh_private_key(text.encode(), passphrase.encode() or None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise KeyRefused("This is no private key of OpenSSH, or the passphrase is another one.") from None
        if not isinstance(private, ed25519.Ed25519PrivateKey):
            raise KeyRefused("An Ed25519 key is wanted: ssh-keygen -t ed25519.")
        return cls(private)

    def private_openssh(self, passphrase: str = "") -> str:
        """A private-key file, encrypted if there is a passphrase."""
        lock = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
        return self._private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, lock).decode("ascii")

    def public_line(self, comment: str = "") -> str:
        return self.public.line(comment)

    @property
    def fingerprint(self) -> str:
        return self.public.fingerprint

    def signed(self, message: bytes) -> bytes:
        """The signature of these very bytes, with its algorithm, in wire form."""
        return string(ED25519.encode()) + string(self._private.sign(message))


def _wire_form(key: "ed25519.Ed25519PublicKey | rsa.RSAPublicKey | ec.EllipticCurvePublicKey") -> bytes:
    return base64.b64decode(key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).split()[1])
