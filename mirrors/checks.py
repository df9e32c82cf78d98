"""System checks: settings that would hurt later are named at the start.

Ids are stable: E001 to E003 stop a start, W001 to W008 are only said. They open no connection and change nothing.
"""

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register

from airgap.running import tls
from airgap.running.preconditions import CannotStart

BROKER_SCHEMES = ("redis", "rediss", "redis+socket", "sentinel")
# SQLite's write-ahead log needs shared memory, which no network filesystem gives two hosts (sqlite.org/wal.html).
NETWORK_FILESYSTEMS = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "fuse.")
LOOPBACK = ("localhost", "127.", "[::1]", "::1")


@register()
def data_directory(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    data: Path = settings.AIRGAP_DATA_DIR
    existing = next((folder for folder in (data, *data.parents) if folder.exists()), Path("/"))
    if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK):
        return []
    return [
        Error(
            f"The data directory {data} cannot be written.",
            hint="Make it writable for this user, or set AIRGAP_DATA_DIR to a directory that is.",
            id="airgap.E001",
        )
    ]


@register()
def redis_url(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    if settings.AIRGAP_BROKER_SOCKET is not None:
        return []
    problem = broker_url_problem(settings.CELERY_BROKER_URL)
    if not problem:
        return []
    return [Error(f"REDIS_URL {problem}.", hint="It looks like redis://:password@host:6379/0.", id="airgap.E002")]


def broker_url_problem(url: str) -> str:
    """What is wrong with the URL, without showing it (it may hold a password); empty if nothing."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "has a port or host that is not one"
    if parts.scheme not in BROKER_SCHEMES:
        return f"must start with one of: {', '.join(f'{scheme}://' for scheme in BROKER_SCHEMES)}"
    if parts.scheme == "redis+socket":
        return "" if parts.path.strip("/") else "names no socket"
    if not parts.hostname or port == 0:
        return "names no host"
    if parts.scheme == "redis" and parts.path.strip("/") and not parts.path.strip("/").isdigit():
        return "must end with a database number"
    return ""


@register()
def secret_key(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    found: list[CheckMessage] = []
    if len(settings.SECRET_KEY) < 32:
        found.append(
            Warning(
                "AIRGAP_SECRET_KEY is shorter than 32 characters.",
                hint="Unset it (a random one is kept in the data directory), or use: openssl rand -base64 48",
                id="airgap.W006",
            )
        )
    for path in (settings.AIRGAP_DATA_DIR / "secret-key", settings.AIRGAP_CREDENTIALS_KEY_FILE):
        try:
            is_open = path.stat().st_mode & 0o077
        except OSError:
            continue
        if is_open:
            found.append(
                Warning(f"The key {path} can be read by other users.", hint=f"chmod 600 {path}", id="airgap.W004")
            )
    return found


@register()
def sqlite_on_network(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    database = settings.DATABASES["default"]
    if database["ENGINE"] != "django.db.backends.sqlite3":
        return []
    kind = filesystem_of(Path(database["NAME"]))
    if not kind.startswith(NETWORK_FILESYSTEMS):
        return []
    return [
        Warning(
            f"The SQLite database {database['NAME']} lies on a network filesystem ({kind}), where it can be damaged.",
            hint="Set AIRGAP_DATA_DIR to a local disk, or DATABASE_URL to a PostgreSQL server.",
            id="airgap.W001",
        )
    ]


def filesystem_of(path: Path, mounts: Path = Path("/proc/self/mounts")) -> str:
    """The type of filesystem that holds the path, such as `ext4`; empty where that cannot be told."""
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return ""
    best, kind = Path(), ""
    for line in lines:
        fields = line.split()
        if len(fields) < 3:
            continue
        # Spaces in mount points are written as \040 (fstab(5)).
        point = Path(fields[1].replace("\\040", " "))
        if path.is_relative_to(point) and len(point.parts) >= len(best.parts):
            best, kind = point, fields[2]
    return kind


@register()
def public_address(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    host, port = settings.AIRGAP_BIND
    base: str = settings.AIRGAP_BASE_URL
    found: list[CheckMessage] = []
    if not base and not host.startswith(LOOPBACK):
        found.append(
            Warning(
                f"Airgap listens on {host}:{port}, but AIRGAP_BASE_URL is not set.",
                hint="Set it to the address that scanners and browsers use, such as https://airgap.example.org.",
                id="airgap.W002",
            )
        )
    if base.startswith("https://") and settings.SECURE_PROXY_SSL_HEADER is None and not settings.AIRGAP_TLS_CERT:
        found.append(
            Warning(
                "AIRGAP_BASE_URL is https, but requests arrive here as plain HTTP.",
                hint="Behind a proxy that ends TLS and sets X-Forwarded-Proto, set AIRGAP_BEHIND_PROXY=yes.",
                id="airgap.W003",
            )
        )
    if base.startswith("http://") and settings.AIRGAP_TLS_CERT:
        found.append(
            Warning(
                "AIRGAP_BASE_URL is http, but this program speaks TLS only (AIRGAP_TLS_CERT).",
                hint="Begin it with https://, or scanners are sent where nobody answers.",
                id="airgap.W008",
            )
        )
    return found


@register()
def certificate(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """What cannot be used stops the start. A date that has passed does not: syncing goes on, and the page that says
    so can be seen."""
    path: Path | None = settings.AIRGAP_TLS_CERT
    found: list[CheckMessage] = []
    if path and settings.AIRGAP_TLS_KEY:
        try:
            tls.make_context(path, settings.AIRGAP_TLS_KEY)
        except CannotStart as problem:
            return [Error(str(problem), id="airgap.E003")]
        first, last = tls.validity(path) or (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))
        if not first <= datetime.now(UTC) <= last:
            word = "expired on" if last < datetime.now(UTC) else "is not valid before"
            day = last if last < datetime.now(UTC) else first
            found.append(
                Warning(
                    f"The certificate {path} (AIRGAP_TLS_CERT) {word} {day:%Y-%m-%d %H:%M} UTC; clients refuse it.",
                    hint="Put a valid one in its place; it is taken up without a restart.",
                    id="airgap.W007",
                )
            )
    if settings.AIRGAP_TLS_CA and tls.validity(settings.AIRGAP_TLS_CA) is None:
        found.append(
            Error(
                f"AIRGAP_TLS_CA names {settings.AIRGAP_TLS_CA}, which is no readable certificate in PEM.",
                hint="It is the authority's certificate that clients are to trust, never a key.",
                id="airgap.E003",
            )
        )
    return found


@register()
def writers_in_step(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """A shared broker makes this one of several hosts, and SQLite has room for one only."""
    is_shared = settings.AIRGAP_BROKER_SOCKET is None and "localhost" not in settings.CELERY_BROKER_URL
    is_sqlite = settings.DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3"
    if not (is_shared and is_sqlite) or "127.0.0.1" in settings.CELERY_BROKER_URL:
        return []
    return [
        Warning(
            "REDIS_URL names a server on another host, while the database is a local SQLite file.",
            hint="Workers on several hosts need DATABASE_URL as well.",
            id="airgap.W005",
        )
    ]
