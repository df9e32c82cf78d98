"""The signed text: five facts, one a line in fixed order, and under them a signature as OpenSSH makes it.

There is one way to write a receipt. What differs from it by more than white space at line ends is refused.
"""

import re
from dataclasses import dataclass
from datetime import date

from mirrors.signing import SignatureError, tidied

NAMESPACE = "airgap-receipt"
FORMAT = 1
RECEIVED, REJECTED = "received", "rejected"
OUTCOMES = (RECEIVED, REJECTED)
# A signature by the longest RSA key takes 8 KB, all else 200 bytes.
LONGEST = 16_384
# Days that the typed code can say as well.
FIRST_DAY, LAST_DAY = date(2020, 1, 1), date(2199, 6, 6)

BUNDLE = re.compile(r"[0-9a-f]{8}")
SITE = re.compile(r"[A-Z0-9](?:-?[A-Z0-9]){0,11}")
KEY = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")
_BEGIN = b"-----BEGIN SSH SIGNATURE-----"
_LINES = re.compile(
    r"airgap-receipt (?P<format>[0-9]{1,4})\n"
    r"bundle (?P<bundle>[!-~]{1,40})\n"
    r"outcome (?P<outcome>[a-z]{1,20})\n"
    r"date (?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2})\n"
    r"key (?P<key>[!-~]{1,80})\n"
    r"site (?P<site>[!-~]{1,40})\n"
)
_NOT_ONE = (
    "This is not the text of a receipt. It begins with the line 'airgap-receipt 1' and ends with that of END SSH "
    "SIGNATURE; load the file as it came, or paste all of it."
)


class ReceiptError(Exception):
    """This is no receipt, or none that can be made; `str()` is a sentence."""


@dataclass(frozen=True)
class Receipt:
    """All that leaves the house. `key_id` is the fingerprint of the key that signs. Raises ReceiptError."""

    bundle: str
    outcome: str
    date: date
    key_id: str
    site: str

    def __post_init__(self) -> None:
        if not BUNDLE.fullmatch(self.bundle):
            raise ReceiptError(f"A receipt cannot name the bundle {self.bundle[:40]!r}: an id is 8 hexadecimal digits.")
        if self.outcome not in OUTCOMES:
            raise ReceiptError(f"A receipt cannot say {self.outcome[:20]!r}, only received or rejected.")
        if not FIRST_DAY <= self.date <= LAST_DAY:
            raise ReceiptError(f"A receipt cannot be of {self.date}. Is the clock right over there?")
        if not KEY.fullmatch(self.key_id):
            raise ReceiptError(f"{self.key_id[:60]!r} is not the fingerprint of a key (SHA256:…).")
        if not SITE.fullmatch(self.site):
            raise ReceiptError(
                f"{self.site[:40]!r} cannot be a site's code in a receipt: up to 12 capitals and digits, joined by "
                "single '-'."
            )

    def text(self) -> bytes:
        """What is signed."""
        return (
            f"airgap-receipt {FORMAT}\nbundle {self.bundle}\noutcome {self.outcome}\ndate {self.date.isoformat()}\n"
            f"key {self.key_id}\nsite {self.site}\n"
        ).encode("ascii")

    @property
    def filename(self) -> str:
        return f"airgap-receipt-{self.bundle}.txt"

    @property
    def facts_filename(self) -> str:
        """Of `text()`, for whoever signs it elsewhere."""
        return f"airgap-receipt-{self.bundle}-facts.txt"


@dataclass(frozen=True)
class SignedReceipt:
    """A receipt and the signature that came with it, which nobody has looked at yet."""

    receipt: Receipt
    signature: bytes


def signed_text(receipt: Receipt, signature: bytes) -> bytes:
    """The file: the signed lines and the armored signature."""
    return receipt.text() + signature


def read_signed(text: bytes) -> SignedReceipt:
    """Raises ReceiptError for whatever `signed_text` does not write."""
    if len(text) > LONGEST:
        raise ReceiptError("This is far too long for a receipt.")
    head, begin, rest = text.partition(_BEGIN)
    try:
        lines = "".join(f"{line.strip()}\n" for line in head.decode("ascii").strip().splitlines())
    except UnicodeDecodeError:
        raise ReceiptError(_NOT_ONE) from None
    if not begin or not (found := _LINES.fullmatch(lines)):
        raise ReceiptError(_NOT_ONE)
    if found["format"] != str(FORMAT):
        raise ReceiptError(
            f"This receipt has format {found['format']}, and this version reads {FORMAT}. Bring this side up to date."
        )
    try:
        day = date.fromisoformat(found["date"])
    except ValueError:
        raise ReceiptError(f"There is no day {found['date']}.") from None
    try:
        signature = tidied(begin + rest)
    except SignatureError as error:
        raise ReceiptError(f"The receipt's signature cannot be read. {error}") from None
    return SignedReceipt(Receipt(found["bundle"], found["outcome"], day, found["key"], found["site"]), signature)
