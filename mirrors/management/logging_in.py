"""The options with which a command is given a login, of a source or of a destination."""

from argparse import ArgumentParser
from typing import Any

from mirrors import logins
from mirrors.logins import NO_LOGIN, Login
from mirrors.management.commanding import WRONG_USAGE, Problem, password_from_stdin, read_text
from mirrors.models import LoginKind


def add_login_options(parser: ArgumentParser, whose: str = "the sources'") -> None:
    parser.add_argument("--username", metavar="U", help=f"log in as; goes to no host but {whose}")
    parser.add_argument(
        "--password-stdin", action="store_true", help="read the password, one line, from standard input"
    )
    parser.add_argument(
        "--token-stdin", action="store_true", help="log in with a token (Bearer): one line on standard input"
    )
    parser.add_argument(
        "--docker-config", metavar="FILE", help="take the login for that host from a file that `docker login` made"
    )


def has_login(options: dict[str, Any]) -> bool:
    return bool(options["username"] or options["token_stdin"] or options["docker_config"])


def check_login_options(options: dict[str, Any]) -> None:
    """Problem for what does not go together; reads nothing yet."""
    if options["password_stdin"] != bool(options["username"]):
        raise Problem("--username and --password-stdin go together.", WRONG_USAGE)
    if sum(map(bool, (options["username"], options["token_stdin"], options["docker_config"]))) > 1:
        raise Problem("Give one login: --username, --token-stdin or --docker-config.", WRONG_USAGE)


def login_from(options: dict[str, Any]) -> Login:
    """The login that was asked for, not yet checked. Problem where it cannot be read."""
    if options["token_stdin"]:
        return Login(LoginKind.TOKEN, secret=password_from_stdin("token"))
    if options["docker_config"]:
        text = read_text(options["docker_config"], "docker config file", logins.LARGEST_CONFIG)
        return Login(LoginKind.DOCKER, secret=text.encode("latin-1").decode("utf-8", "replace"))
    return logins.basic(options["username"], password_from_stdin()) if options["username"] else NO_LOGIN
