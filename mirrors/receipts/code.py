"""The typed code: 35 characters that somebody reads off one screen and types at another, or says on the telephone.

Weaker evidence than a signature: whoever has the bundle has the secret that the code is made with. It tells that
somebody who had the bundle said so, and not that an instance did.

140 bits, 28 characters of Crockford's base32, in groups of four. After each group stands a check character, so that
every single wrong character and every two swapped ones within a group are found, with the group they stand in.
"""

import hashlib
import hmac
import re
from dataclasses import dataclass
from datetime import date, timedelta

from mirrors.receipts.document import FIRST_DAY, RECEIVED, REJECTED, Receipt, ReceiptError

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
GROUPS, DATA = 7, 4
CHARACTERS = GROUPS * (DATA + 1)
VERSION = 1
MAC_BITS = 64
# Version, outcome, bundle, day since FIRST_DAY, first characters of the key's fingerprint, MAC.
_FIELDS = (3, 1, 32, 16, 24, MAC_BITS)
_KEY_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
# Read alike, and so are typed for each other.
_ALIKE = str.maketrans("OIL", "011")
# Whatever is put between groups, also by word processors.
_BETWEEN = re.compile(r"[\s\-‐-―−_.]+")


class WrongCode(ReceiptError):
    """The code was mistyped; `groups` counts from 1 and says where, empty where that cannot be told."""

    def __init__(self, sentence: str, groups: tuple[int, ...] = ()) -> None:
        super().__init__(sentence)
        self.groups = groups


@dataclass(frozen=True)
class TypedCode:
    """What a code says, its check characters being right. `key` is the first four characters of a fingerprint."""

    bundle: str
    outcome: str
    date: date
    key: str
    mac: bytes

    def is_genuine(self, secret: str, site: str) -> bool:
        """Whether it was made for this site with this secret (hex)."""
        return hmac.compare_digest(self.mac, _mac(secret, self.bundle, self.outcome, self.date, self.key, site))


def make_code(receipt: Receipt, secret: str) -> str:
    """`XXXXX-XXXXX-…` for the transfer whose secret (hex) lay in the bundle. Raises ReceiptError without one."""
    key = receipt.key_id.removeprefix("SHA256:")[:4]
    mac = _mac(secret, receipt.bundle, receipt.outcome, receipt.date, key, receipt.site)
    values = (
        VERSION,
        int(receipt.outcome == RECEIVED),
        int(receipt.bundle, 16),
        (receipt.date - FIRST_DAY).days,
        _number(key, _KEY_LETTERS),
        int.from_bytes(mac, "big"),
    )
    number = 0
    for value, bits in zip(values, _FIELDS, strict=True):
        number = number << bits | value
    data = _letters(number, ALPHABET, GROUPS * DATA)
    parts = [data[at : at + DATA] for at in range(0, len(data), DATA)]
    return "-".join(part + _check(part, place) for place, part in enumerate(parts, 1))


def read_code(text: str) -> TypedCode:
    """Small letters, O for 0, I and L for 1, and any spaces or hyphens are fine. Raises ReceiptError, or WrongCode."""
    typed = _BETWEEN.sub("", text[:400]).upper().translate(_ALIKE)
    strange = next((letter for letter in typed if letter not in ALPHABET), "")
    if strange or len(typed) > CHARACTERS + 5:
        said = f"{strange!r} does not occur in one" if strange else "it is too long"
        raise WrongCode(
            f"This is no code of a receipt: {said}. A code has {GROUPS} groups of {DATA + 1} letters and digits."
        )
    if len(typed) != CHARACTERS:
        raise WrongCode(
            f"The code has {CHARACTERS} characters in {GROUPS} groups of {DATA + 1}, and {len(typed)} were typed."
        )
    groups = [typed[at : at + DATA + 1] for at in range(0, CHARACTERS, DATA + 1)]
    wrong = tuple(place for place, group in enumerate(groups, 1) if _check(group[:DATA], place) != group[DATA])
    if wrong:
        shown = ", ".join(f"{place} ({groups[place - 1]})" for place in wrong)
        raise WrongCode(f"The code was mistyped in group {shown}. Compare it with the original.", wrong)
    return _read("".join(group[:DATA] for group in groups))


def _read(data: str) -> TypedCode:
    number = _number(data, ALPHABET)
    values = []
    for bits in reversed(_FIELDS):
        values.append(number & (1 << bits) - 1)
        number >>= bits
    mac, key, day, bundle, received, version = values
    if version != VERSION:
        raise ReceiptError(f"This code is of version {version}, and this program reads {VERSION}. Bring it up to date.")
    return TypedCode(
        bundle=f"{bundle:08x}",
        outcome=RECEIVED if received else REJECTED,
        date=FIRST_DAY + timedelta(days=day),
        key=_letters(key, _KEY_LETTERS, 4),
        mac=mac.to_bytes(MAC_BITS // 8, "big"),
    )


def _mac(secret: str, bundle: str, outcome: str, day: date, key: str, site: str) -> bytes:
    try:
        raw = bytes.fromhex(secret)
    except ValueError:
        raw = b""
    if len(raw) < 16:
        raise ReceiptError("This bundle holds no secret for a typed code; take the signed receipt.")
    facts = f"airgap-receipt-code {VERSION}\n{bundle}\n{outcome}\n{day.isoformat()}\n{key}\n{site}\n"
    return hmac.digest(raw, facts.encode(), hashlib.sha256)[: MAC_BITS // 8]


def _check(data: str, place: int) -> str:
    """A weighted sum in GF(32). Weights differ, so that swapped characters show, and the place counts, so that swapped
    groups do.
    """
    total = 0
    for letter in data:
        total = _doubled(total ^ ALPHABET.index(letter))
    return ALPHABET[total ^ place]


def _doubled(value: int) -> int:
    """Times x, modulo x^5 + x^2 + 1."""
    return value << 1 if value < 16 else value << 1 ^ 0b100101


def _number(text: str, letters: str) -> int:
    number = 0
    for letter in text:
        number = number * len(letters) + letters.index(letter)
    return number


def _letters(number: int, letters: str, count: int) -> str:
    found = []
    for _ in range(count):
        number, digit = divmod(number, len(letters))
        found.append(letters[digit])
    return "".join(reversed(found))
