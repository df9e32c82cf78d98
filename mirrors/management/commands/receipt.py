"""`manage.py receipt show|sign|load|on|off`: receipts made on the isolated side, and loaded on the connected one."""

import sys
from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser
from django.utils import timezone

from mirrors import keys
from mirrors.management.commanding import WRONG_USAGE, PlainCommand, Problem
from mirrors.management.signed_elsewhere import signed_by_command
from mirrors.models import Receipt, SigningKey
from mirrors.receipting import giving, loading, signing
from mirrors.receipting.giving import Given, NoReceipt
from mirrors.receipting.loading import ReceiptRefused
from mirrors.receipting.signing import NotTaken
from mirrors.receipts import LONGEST, NAMESPACE
from mirrors.receipts import Receipt as Facts


class Command(PlainCommand):
    help = "Make the receipt of a bundle that was imported here, or load one of a bundle that was made here."
    expected = (NoReceipt, NotTaken, ReceiptRefused)

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="show|sign|load|on|off")
        showing = actions.add_parser("show", help="the receipt of a bundle, on standard output")
        showing.add_argument("bundle", nargs="?", default="", metavar="BUNDLE", help="its id; else the latest import")
        forms = showing.add_mutually_exclusive_group()
        forms.add_argument("--text", action="store_true", help="the code to type, instead of the signed file")
        forms.add_argument("--unsigned", action="store_true", help="the lines to be signed, for a key kept outside")
        signing = actions.add_parser("sign", help="take the signature of a key kept outside, or ask the ssh-agent")
        signing.add_argument("bundle", nargs="?", default="", metavar="BUNDLE", help="its id; else the latest import")
        elsewhere = signing.add_mutually_exclusive_group()
        elsewhere.add_argument(
            "--signature", metavar="FILE", help="what ssh-keygen -Y sign wrote; - for standard input"
        )
        elsewhere.add_argument(
            "--sign-with",
            metavar="CMD",
            help="a command that reads what show --unsigned prints and writes its signature",
        )
        loading = actions.add_parser("load", help="load a signed file or a typed code")
        loading.add_argument("file", metavar="FILE", help="- for standard input")
        switching_on = actions.add_parser("on", help="let receipts leave this side")
        switching_off = actions.add_parser("off", help="let no receipt leave this side")
        for each in (showing, signing, loading, switching_on, switching_off):
            each.add_argument("--json", action="store_true", help="print one list of objects on standard output")

    def run(self, *, action: str, **options: Any) -> int:
        return int(getattr(self, f"do_{action}")(**options))

    def do_show(self, *, bundle: str, text: bool, unsigned: bool, json: bool, **_: Any) -> int:
        run, by, now = giving.import_of(bundle), self.who(), timezone.now()
        if unsigned and not json:
            facts = giving.to_sign(run)
            giving.record_given(facts, by=by, now=now)
            self.stdout.write(facts.text().decode("ascii"), ending="")
            return 0
        given = giving.make(run, by=by, now=now, ask_agent=not text and not unsigned)
        if given.outdated:
            self.stderr.write(f"{given.outdated} (manage.py receipt sign {given.receipt.bundle})")
        if json:
            self.print_json([as_json(given, giving.to_sign(run).text() if unsigned or given.waits else b"")])
            return 0
        if text and not given.code:
            raise Problem(given.uncoded)
        if not text and given.text is None:
            raise Problem(without_signature(given))
        self.stdout.write(given.code if text else (given.text or b"").decode("ascii"), ending="\n" if text else "")
        return 0

    def do_sign(self, *, bundle: str, signature: str | None, sign_with: str | None, json: bool, **_: Any) -> int:
        if (signature is not None or sign_with is not None) and not keys.is_outside():
            asked = "--signature" if signature is not None else "--sign-with"
            raise Problem(
                f"{asked} is for a key that is kept outside, and this side signs by itself. Leave it away.", WRONG_USAGE
            )
        run, by = giving.import_of(bundle), self.who()
        facts = signing.awaited(run)
        if not keys.is_outside():
            signing.sign(run, by=by, now=timezone.now())
        else:
            brought = self.brought(facts, signature, sign_with)
            signing.attach(run, brought, by=by, now=timezone.now())
        given = giving.make(run, by=by, now=timezone.now())
        if json:
            self.print_json([as_json(given, b"")])
        else:
            shown = f"manage.py receipt show {facts.bundle}"
            self.stdout.write(f"The receipt of bundle {facts.bundle} is signed with {facts.key_id}: {shown}.")
        return 0

    def brought(self, facts: Facts, signature: str | None, sign_with: str | None) -> bytes:
        if signature is not None:
            return _content(signature, "signature")
        if sign_with is None:
            raise Problem(
                f"The key {facts.key_id} is kept outside, so that somebody has to sign. Give --signature FILE, or "
                f"--sign-with 'ssh-keygen -Y sign -f KEY -n {NAMESPACE}', or bring it on the receipt's page."
            )
        giving.record_given(facts, by=self.who(), now=timezone.now())
        return signed_by_command(sign_with, facts.text())

    def do_load(self, *, file: str, json: bool, **_: Any) -> int:
        receipt = loading.load(_content(file, "receipt"), way=Receipt.Way.FILE, by=self.who(), now=timezone.now())
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


def _content(path: str, what: str) -> bytes:
    """As much of the file as is needed to see that it is too long."""
    if path == "-":
        try:
            return sys.stdin.read(LONGEST + 1).encode("utf-8", "surrogateescape")
        except UnicodeDecodeError:
            raise Problem(f"What came on standard input is no {what}.") from None
    try:
        with Path(path).open("rb") as file:
            return file.read(LONGEST + 1)
    except OSError as error:
        raise Problem(f"The {what} {path} cannot be read: {error.strerror}.", WRONG_USAGE) from None


def without_signature(given: Given) -> str:
    """What to do, where there is no signed file."""
    bundle = given.receipt.bundle
    by_a_person = (
        f" Sign what receipt show {bundle} --unsigned prints, with -n {NAMESPACE}, and bring that: "
        f"receipt sign {bundle} --signature FILE."
    )
    how = by_a_person if given.kept == SigningKey.Kept.OUTSIDE else ""
    code = " The typed code does without: receipt show --text." if given.code else ""
    return f"{given.unsigned}{how}{code}"


def as_json(given: Given, to_sign: bytes) -> dict[str, object]:
    facts = given.receipt
    return {
        "bundle": facts.bundle,
        "outcome": facts.outcome,
        "date": facts.date.isoformat(),
        "key": facts.key_id,
        "site": facts.site,
        "text": given.text.decode("ascii") if given.text else None,
        "code": given.code or None,
        "to_sign": to_sign.decode("ascii") or None,
    }


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
