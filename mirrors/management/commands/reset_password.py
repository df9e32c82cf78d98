"""`manage.py reset_password NAME`: the way in for whoever is locked out and has the machine."""

from typing import Any

from django.core.management.base import CommandParser
from django.utils import timezone

from mirrors import people
from mirrors.management.commanding import PlainCommand, password_from_stdin


class Command(PlainCommand):
    help = "Give somebody a new password, print it, and forget their failed logins."
    expected = (people.PeopleError,)

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", metavar="NAME")
        parser.add_argument(
            "--password-stdin", action="store_true", help="take the password, one line, from standard input"
        )
        parser.add_argument(
            "--administrator", action="store_true", help="also make this person an active administrator"
        )

    def run(self, *, name: str, password_stdin: bool, administrator: bool, **_: Any) -> int:
        given = password_from_stdin() if password_stdin else ""
        password = people.reset_password(
            name, password=given, by=self.who(), now=timezone.now(), administrator=administrator
        )
        if given:
            self.stderr.write(f"The password of {name} was set.")
        else:
            self.stderr.write(f"The new password of {name}, to be changed at the next login:")
            self.stdout.write(password)
        return 0
