"""`manage.py signing_key show|list|trust|revoke|rotate|use|export`: our key, and those of others that are trusted."""

import getpass
import sys
from typing import Any

from django.core.management.base import CommandParser
from django.utils import timezone

from mirrors import keys, wording
from mirrors.keys import KeysError, Taken, UnknownName, WasRevoked
from mirrors.management.commanding import (
    FAILED,
    WRONG_USAGE,
    PlainCommand,
    Problem,
    password_from_stdin,
    read_text,
)
from mirrors.models import SigningKey, TrustedKey
from mirrors.signing.keys import LONGEST_LINE

# Refused as things stand; everything else that is wrong with what was given is wrong usage.
REFUSED = (Taken, WasRevoked, UnknownName)


class Command(PlainCommand):
    help = "Show the key that signs bundles, replace it, and say whose keys are trusted here."
    expected = (KeysError,)

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(
            dest="action", required=True, metavar="show|list|trust|revoke|rotate|use|export"
        )
        showing = actions.add_parser("show", help="the public key that signs bundles, in one line")
        showing.add_argument(
            "--allowed-signers", action="store_true", help="as the line that ssh-keygen -Y verify -f and --key want"
        )
        listing = actions.add_parser("list", help="whose keys are trusted here")
        listing.add_argument("--all", action="store_true", help="also those that were revoked")
        trusting = actions.add_parser("trust", help="believe what this key signs")
        trusting.add_argument("name", metavar="NAME")
        trusting.add_argument(
            "file", metavar="FILE", help="a .pub or allowed-signers file with one key; - for standard input"
        )
        trusting.add_argument("--note", default="", help="where it came from, for the list")
        trusting.add_argument("--again", action="store_true", help="although it was revoked here before")
        revoking = actions.add_parser("revoke", help="refuse what this key signs and signed")
        revoking.add_argument("names", nargs="+", metavar="NAME")
        rotating = actions.add_parser("rotate", help="sign with a new key, and destroy the one before")
        using = actions.add_parser("use", help="sign with a key whose private part is kept elsewhere")
        using.add_argument("file", metavar="FILE", help="its public key; - for standard input")
        using.add_argument(
            "--agent", action="store_true", help="the ssh-agent of AIRGAP_SSH_AUTH_SOCK signs; else a person does"
        )
        exporting = actions.add_parser("export", help="the private key, encrypted with a passphrase, for a backup")
        exporting.add_argument("--passphrase-stdin", action="store_true", help="it is one line on standard input")
        for each in (showing, listing, trusting, revoking, rotating, using):
            each.add_argument("--json", action="store_true", help="print one list of objects on standard output")

    def run(self, *, action: str, **options: Any) -> int:
        return int(getattr(self, f"do_{action}")(**options))

    def do_show(self, *, allowed_signers: bool, json: bool, **_: Any) -> int:
        key = keys.current()
        if json:
            self.print_json([of_signing(key)])
        else:
            self.stdout.write(keys.allowed_signers(key) if allowed_signers else key.public_line)
        return 0

    def do_list(self, *, all: bool, json: bool, **_: Any) -> int:
        found = [*keys.trusted(), *(keys.revoked() if all else ())]
        if json:
            self.print_json(of_trusted(key) for key in found)
            return 0
        if not found:
            self.stderr.write("No key is trusted here. Trust one: manage.py signing_key trust NAME FILE.")
        for key in found:
            state = f"revoked {wording.utc_text(key.revoked_at)} by {key.revoked_by}" if key.revoked_at else "trusted"
            note = f"; {key.note}" if key.note else ""
            added = f"added {wording.utc_text(key.added_at)} by {key.added_by}"
            self.stdout.write(f"{key.fingerprint}  {key.name}  ({state}; {added}{note})")
        return 0

    def do_trust(self, *, name: str, file: str, note: str, again: bool, json: bool, **_: Any) -> int:
        try:
            key = keys.trust(name, public_text(file), note=note, again=again, by=self.who(), now=timezone.now())
        except KeysError as error:
            more = " (--again)" if isinstance(error, WasRevoked) else ""
            raise Problem(f"{error}{more}", FAILED if isinstance(error, REFUSED) else WRONG_USAGE) from None
        if json:
            self.print_json([of_trusted(key)])
        else:
            self.stdout.write(f"{key.name} is trusted: {key.fingerprint}. Compare that with what its owner says.")
        return 0

    def do_revoke(self, *, names: list[str], json: bool, **_: Any) -> int:
        revoked, status = [], 0
        for name in dict.fromkeys(names):
            try:
                revoked.append(keys.revoke(name, by=self.who(), now=timezone.now()))
            except UnknownName as error:
                self.stderr.write(str(error))
                status = FAILED
        if json:
            self.print_json(of_trusted(key) for key in revoked)
        else:
            for key in revoked:
                self.stdout.write(f"Revoked {key.name}. What {key.fingerprint} signed is refused from now on.")
        return status

    def do_rotate(self, *, json: bool, **_: Any) -> int:
        return self.changed(keys.rotate(by=self.who(), now=timezone.now()), json)

    def do_use(self, *, file: str, agent: bool, json: bool, **_: Any) -> int:
        kept = SigningKey.Kept.AGENT if agent else SigningKey.Kept.OUTSIDE
        try:
            key = keys.use_elsewhere(public_text(file), kept, by=self.who(), now=timezone.now())
        except KeysError as error:
            raise Problem(str(error), WRONG_USAGE if error.setting == "key" else FAILED) from None
        return self.changed(key, json)

    def changed(self, key: SigningKey, json: bool) -> int:
        if json:
            self.print_json([of_signing(key)])
            return 0
        self.stderr.write(
            f"Bundles are signed with {key.fingerprint} from now on, which is kept {key.get_kept_display()}."
        )
        self.stderr.write("Give its public line to everybody who takes them, before the next one crosses:")
        self.stdout.write(key.public_line)
        return 0

    def do_export(self, *, passphrase_stdin: bool, **_: Any) -> int:
        if passphrase_stdin:
            passphrase = password_from_stdin("passphrase")
        elif sys.stdin.isatty():
            passphrase = getpass.getpass("Passphrase for the exported key: ")
            if getpass.getpass("Again: ") != passphrase:
                raise Problem("These are two different passphrases.", WRONG_USAGE)
        else:
            raise Problem("Give a passphrase: --passphrase-stdin.", WRONG_USAGE)
        self.stdout.write(keys.export_private(passphrase, by=self.who(), now=timezone.now()), ending="")
        return 0


def public_text(file: str) -> str:
    if file == "-":
        return sys.stdin.read(2 * LONGEST_LINE)
    return read_text(file, "public key", 2 * LONGEST_LINE)


def of_signing(key: SigningKey) -> dict[str, object]:
    return {
        "fingerprint": key.fingerprint,
        "kept": key.kept,
        "public_key": key.public_line,
        "allowed_signers": keys.allowed_signers(key),
        "created_at": key.created_at,
    }


def of_trusted(key: TrustedKey) -> dict[str, object]:
    return {
        "name": key.name,
        "fingerprint": key.fingerprint,
        "state": "revoked" if key.revoked_at else "trusted",
        "public_key": key.public_line,
        "note": key.note,
        "added_at": key.added_at,
        "added_by": key.added_by,
        "revoked_at": key.revoked_at,
        "revoked_by": key.revoked_by or None,
    }
