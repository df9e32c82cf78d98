"""`manage.py receipt load`: what a site says about a bundle that was made here."""

import sys
from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser
from django.utils import timezone

from mirrors.management.commanding import WRONG_USAGE, PlainCommand, Problem
from mirrors.models import Receipt
from mirrors.receipting import loading
from mirrors.receipting.loading import ReceiptRefused
from mirrors.receipts import LONGEST


class Command(PlainCommand):
    help = "Load the receipt of a bundle that was made here."
    expected = (ReceiptRefused,)

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="load")
        loading = actions.add_parser("load", help="load a signed file or a typed code")
        loading.add_argument("file", metavar="FILE", help="- for standard input")
        loading.add_argument("--json", action="store_true", help="print one list of objects on standard output")

    def run(self, *, action: str, **options: Any) -> int:
        return int(getattr(self, f"do_{action}")(**options))

    def do_load(self, *, file: str, json: bool, **_: Any) -> int:
        receipt = loading.load(_content(file), way=Receipt.Way.FILE, by=self.who(), now=timezone.now())
        if json:
            self.print_json([described(receipt)])
        else:
            self.stdout.write(loading.sentence(receipt))
        return 0


def _content(path: str) -> bytes:
    """As much of the file as is needed to see that it is too long."""
    if path == "-":
        try:
            return sys.stdin.read(LONGEST + 1).encode()
        except UnicodeDecodeError:
            raise Problem("What came on standard input is no receipt.") from None
    try:
        with Path(path).open("rb") as file:
            return file.read(LONGEST + 1)
    except OSError as error:
        raise Problem(f"The receipt {path} cannot be read: {error.strerror}.", WRONG_USAGE) from None


def described(receipt: Receipt) -> dict[str, object]:
    return {
        "bundle": receipt.bundle,
        "site": receipt.transfer.site.name,
        "code": receipt.site,
        "outcome": receipt.outcome,
        "date": receipt.date.isoformat(),
        "evidence": receipt.way,
        "signed": receipt.is_signed,
        "key": receipt.key,
        "loaded_at": receipt.loaded_at,
    }
