"""Typed readers of environment variables: a wrong value stops the start and says which variable and why."""

import os
import secrets
from pathlib import Path
from typing import Any

import dj_database_url
from django.core.exceptions import ImproperlyConfigured

KEPT = 60  # seconds that a thread keeps its connection to the database


def text(name: str, default: str = "") -> str:
    return os.environ.get(name, "").strip() or default


def choice(name: str, default: str, allowed: tuple[str, ...]) -> str:
    value = text(name, default).lower()
    if value not in allowed:
        raise ImproperlyConfigured(f"{name} is {value!r}; it must be one of: {', '.join(allowed)}.")
    return value


def file(name: str) -> Path | None:
    """A file that is named, whether it exists or not. Relative to where the program was started."""
    value = text(name)
    return Path(value).expanduser().absolute() if value else None


def number(name: str, default: int, *, least: int = 0) -> int:
    value = text(name, str(default))
    try:
        result = int(value)
    except ValueError:
        raise ImproperlyConfigured(f"{name} is {value!r}; it must be a whole number.") from None
    if result < least:
        raise ImproperlyConfigured(f"{name} is {result}; it must be at least {least}.")
    return result


def bind(name: str, default: str) -> tuple[str, int]:
    """A `host:port` pair; an IPv6 host stands in brackets."""
    value = text(name, default)
    host, colon, port = value.rpartition(":")
    if not colon or not port.isdigit() or not 0 < int(port) < 65536 or not host:
        raise ImproperlyConfigured(f"{name} is {value!r}; it must be host:port, such as 127.0.0.1:8000.")
    return host, int(port)


def database(name: str, default: Path) -> dict[str, Any]:
    """Django's settings of a database: SQLite in `default`, or the PostgreSQL (or SQLite) that the URL names.

    Connections are kept, those to SQLite too: each new one reads the whole schema and its pages anew, which a fifth of
    a large dashboard's time went to.
    """
    value = text(name)
    if not value:
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": str(default), "CONN_MAX_AGE": KEPT}
    try:
        found = dict(dj_database_url.parse(value, conn_max_age=KEPT, conn_health_checks=True))
    except ValueError:
        found = {}
    if found.get("ENGINE") not in ("django.db.backends.postgresql", "django.db.backends.sqlite3"):
        # The value may hold a password, so it is not shown.
        raise ImproperlyConfigured(
            f"{name} is not understood; it must look like postgres://user:password@host:5432/name, "
            "with special characters in the password percent-encoded."
        )
    return found


def kept_secret(path: Path) -> str:
    """The secret in a 0600 file under the data directory, made at first need."""
    try:
        if path.exists():
            return path.read_text().strip()
        # Often the first to need the data directory; what will lie in it is nobody else's business.
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = secrets.token_urlsafe(50)
        # Written aside and linked into place: of two processes that start together, one wins and both read its secret.
        aside = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(fresh + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(aside, path)
        except FileExistsError:
            pass
        finally:
            aside.unlink()
        return path.read_text().strip()
    except OSError as error:
        raise ImproperlyConfigured(
            f"The data directory {path.parent} cannot be written ({error.strerror}). "
            "Make it writable for this user, or set AIRGAP_DATA_DIR to a directory that is."
        ) from None
