"""`manage.py receipt show|load|on|off`: receipts made on the isolated side, and loaded on the connected one."""

import sys
from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser
from django.utils import timezone

from mirrors.management.commanding import WRONG_USAGE, PlainCommand, Problem
from mirrors.models import Receipt
from mirrors.receipting import giving, loading
from mirrors.receipting.giving import NoReceipt
from mirrors.receipting.loading import ReceiptRefused
from mirrors.receipts import LONGEST


class Command(PlainCommand):
    help = "Make the receipt of a bundle that was imported here, or load one of a bundle that was made here."
    expected = (NoReceipt, ReceiptRefused)

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="show|load|on|off")
        showing = actions.add_parser("show", help="the receipt of a bundle, on standard output")
        showing.add_argument("bundle", nargs="?", default="", metavar="BUNDLE", help="its id; else the latest import")
        showing.add_argument("--text", action="store_true", help="the code to type, instead of the signed file")
        loading = actions.add_parser("load", help="load a signed file or a typed code")
        loading.add_argument("file", metavar="FILE", help="- for standard input")
        switching_on = actions.add_parser("on", help="let receipts leave this side")
        switching_off = actions.add_parser("off", help="let no receipt leave this side")
        for each in (showing, loading, switching_on, switching_off):
            each.add_argument("--json", action="store_true", help="print one list of objects on standard output")

    def run(self, *, action: str, **options: Any) -> int:
        return int(getattr(self, f"do_{action}")(**options))

    def do_show(self, *, bundle: str, text: bool, json: bool, **_: Any) -> int:
        given = giving.make(giving.import_of(bundle), by=self.who(), now=timezone.now())
        if json:
            facts = given.receipt
            self.print_json(
                [
                    {
                        "bundle": facts.bundle,
                        "outcome": facts.outcome,
                        "date": facts.date.isoformat(),
                        "key": facts.key_id,
                        "site": facts.site,
                        "text": given.text.decode("ascii") if given.text else None,
                        "code": given.code or None,
                    }
                ]
            )
            return 0
        if text and not given.code:
            raise Problem(given.uncoded)
        if not text and given.text is None:
            raise Problem(f"{given.unsigned} The typed code does without: receipt show --text.")
        self.stdout.write(given.code if text else (given.text or b"").decode("ascii"), ending="\n" if text else "")
        return 0

    def do_load(self, *, file: str, json: bool, **_: Any) -> int:
        receipt = loading.load(_content(file), way=Receipt.Way.FILE, by=self.who(), now=timezone.now())
        if json:
            self.print_json([described(receipt)])
        else:
            self.stdout.write(loading.sentence(receipt))
        return 0

    def do_on(self, *, json: bool, **_: Any) -> int:
        return self._switch(True, json)

    def do_off(self, *, json: bool, **_: Any) -> int:
        return self._switch(False, json)

    def _switch(self, on: bool, json: bool) -> int:
        changed = giving.switch(on, by=self.who(), now=timezone.now())
        if json:
            self.print_json([{"receipts": on, "changed": changed}])
        elif on:
            self.stdout.write(f"Receipts are on. They hold {giving.NO_OTHER_WORD}.")
        else:
            self.stdout.write("Receipts are off.")
        return 0


def _content(path: str) -> bytes:
    """As much of the file as is needed to see that it is too long."""
    if path == "-":
        try:
            return sys.stdin.read(LONGEST + 1).encode("utf-8", "surrogateescape")
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
