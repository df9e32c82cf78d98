"""`manage.py token add|list|revoke`: the tokens that scanners read with, for scripts."""

from datetime import timedelta
from typing import Any

from django.core.management.base import CommandParser
from django.utils import timezone

from mirrors import access_tokens, reading, wording
from mirrors.access_tokens import AccessError, NameTaken, UnknownToken
from mirrors.management.commanding import FAILED, WRONG_USAGE, PlainCommand, Problem
from mirrors.models import AccessToken


class Command(PlainCommand):
    help = "Make, list and revoke access tokens, which read what scanners fetch and do nothing else."

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="add|list|revoke")
        adding = actions.add_parser("add", help="make a token and print it, once")
        adding.add_argument("name", metavar="NAME")
        adding.add_argument("--days", type=int, metavar="N", help="it expires after so many days; else never")
        listing = actions.add_parser("list", help="which tokens there are, and when each was last used")
        listing.add_argument("--all", action="store_true", help="also those that were revoked")
        revoking = actions.add_parser("revoke", help="let a token read no more")
        revoking.add_argument("names", nargs="+", metavar="NAME")
        for each in (adding, listing, revoking):
            each.add_argument("--json", action="store_true", help="print one list of objects on standard output")

    def run(self, *, action: str, **options: Any) -> int:
        return int(getattr(self, f"do_{action}")(**options))

    def do_add(self, *, name: str, days: int | None, json: bool, **_: Any) -> int:
        now = timezone.now()
        life = None if days is None else timedelta(days=min(max(days, 0), access_tokens.LONGEST_LIFE.days + 1))
        try:
            token, secret = access_tokens.add_token(name, life=life, by=self.who(), now=now)
        except AccessError as error:
            raise Problem(str(error), FAILED if isinstance(error, NameTaken) else WRONG_USAGE) from None
        if json:
            self.print_json([described(token) | {"token": secret}])
            return 0
        self.stderr.write(f"The access token {token.name}, which is shown now and never again:")
        self.stdout.write(secret)
        return 0

    def do_list(self, *, all: bool, json: bool, **_: Any) -> int:
        now = timezone.now()
        tokens = [*access_tokens.standing_tokens(), *(access_tokens.revoked_tokens() if all else ())]
        if json:
            self.print_json(described(token) for token in tokens)
            return 0
        if not tokens:
            self.stderr.write("There is no access token. Make one: manage.py token add NAME.")
        for token in tokens:
            used = f"last used {wording.ago_text(token.last_used_at, now)}" if token.last_used_at else "never used"
            until = f"expires {wording.utc_text(token.expires_at)}" if token.expires_at else "does not expire"
            self.stdout.write(f"{token.state(now):8} {token.name}  ({used}; {until})")
        if not reading.login_required():
            self.stderr.write("Anybody may read at present, with or without one.")
        return 0

    def do_revoke(self, *, names: list[str], json: bool, **_: Any) -> int:
        revoked, status = [], 0
        for name in dict.fromkeys(names):
            try:
                revoked.append(access_tokens.revoke_token(name, by=self.who(), now=timezone.now()))
            except UnknownToken as error:
                self.stderr.write(str(error))
                status = FAILED
        if json:
            self.print_json(described(token) for token in revoked)
        else:
            for token in revoked:
                self.stdout.write(f"Revoked {token.name}. It reads no more, within seconds.")
        return status


def described(token: AccessToken) -> dict[str, object]:
    return {
        "name": token.name,
        "state": token.state(timezone.now()),
        "created_at": token.created_at,
        "created_by": token.created_by,
        "last_used_at": token.last_used_at,
        "expires_at": token.expires_at,
        "revoked_at": token.revoked_at,
    }
