"""Receipts: what an isolated side hands back about one bundle, as a signed text, as a QR code of it, as a typed code.

README.md beside this file gives the forms.
"""

from mirrors.receipts.code import CHARACTERS, TypedCode, WrongCode, make_code, read_code
from mirrors.receipts.document import (
    LONGEST,
    NAMESPACE,
    OUTCOMES,
    Receipt,
    ReceiptError,
    SignedReceipt,
    read_signed,
    signed_text,
)
from mirrors.receipts.qr import TooLong, data_uri, svg

__all__ = [
    "CHARACTERS",
    "LONGEST",
    "NAMESPACE",
    "OUTCOMES",
    "Receipt",
    "ReceiptError",
    "SignedReceipt",
    "TooLong",
    "TypedCode",
    "WrongCode",
    "data_uri",
    "make_code",
    "read",
    "read_code",
    "read_signed",
    "signed_text",
    "svg",
]


def read(text: bytes) -> SignedReceipt | TypedCode:
    """Whichever of the two this is; nothing about it is verified yet. Raises ReceiptError.

    A signed text says in its first line what it is; anything else was typed.
    """
    if len(text) > LONGEST:
        raise ReceiptError("This is far too long for a receipt. Load the file airgap-receipt-….txt, or type the code.")
    if not text.strip():
        raise ReceiptError("There is nothing to load: choose the file of the receipt, or type its code.")
    if b"airgap-receipt" in text or b"-----" in text:
        return read_signed(text)
    return read_code(text.decode("utf-8", "replace"))
