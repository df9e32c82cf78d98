"""`manage.py rotate_credentials_key`: a new key for the stored passwords, tokens and docker configs."""

from typing import Any

from django.core.management.base import CommandParser
from django.utils import timezone

from mirrors import key_rotation, wording
from mirrors.management.commanding import FAILED, PlainCommand
from mirrors.secrets import SecretError


class Command(PlainCommand):
    help = "Put a new key in the key file, seal every stored secret with it, and drop the old key."
    expected = (SecretError,)

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--check", action="store_true", help="change nothing; list what cannot be decrypted with the present keys"
        )
        parser.add_argument(
            "--keep-old", action="store_true", help="leave the old keys in the file; the next call drops them"
        )
        parser.add_argument(
            "--leave-unreadable", action="store_true", help="go on although some secrets cannot be decrypted"
        )

    def run(self, *, check: bool, keep_old: bool, leave_unreadable: bool, **_: Any) -> int:
        if check:
            return self.check_only()
        done = key_rotation.rotate(
            by=self.who(),
            now=timezone.now(),
            keep_old=keep_old,
            leave_unreadable=leave_unreadable,
            tell=self.stderr.write,
        )
        if done is None:
            self.stdout.write("No secret is stored, so there is no key to rotate.")
            return 0
        if done.resumed:
            self.stdout.write("The key file held more than one key: the rotation that began before was finished.")
        self.stdout.write(f"{wording.capitalized(wording.counted(done.resealed, 'secret'))} sealed with the new key.")
        if done.kept_keys:
            kept = wording.capitalized(wording.counted(done.kept_keys, "old key"))
            self.stdout.write(f"{kept} kept in the file. Run this again to drop what is old.")
        elif done.dropped_keys:
            self.stdout.write(f"{wording.capitalized(wording.counted(done.dropped_keys, 'old key'))} dropped.")
        for place in done.unreadable:
            self.stderr.write(f"Left as it was, it cannot be decrypted: {place}. Enter it again.")
        return 0

    def check_only(self) -> int:
        places = list(key_rotation.unreadable())
        for place in places:
            self.stdout.write(f"cannot be decrypted: {place}")
        if places:
            self.stderr.write("Put the key back that they were saved with, or enter them again.")
            return FAILED
        self.stdout.write("Every stored secret can be decrypted.")
        return 0
