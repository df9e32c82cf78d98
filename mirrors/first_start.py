"""What a new instance begins with: the first administrator and, where there is internet, the usual mirrors.

The first start is the one that finds nobody: a mirror that an administrator removes stays removed.
"""

import os
import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils import timezone

from mirrors import mirroring, people, record
from mirrors.mirror_rules import SourceSpec
from mirrors.models import Mirror, Role, User
from mirrors.trivy.catalogue import DEFAULT_MIRRORS, KINDS, SUGGESTED_MIRRORS, DefaultMirror

# The first runs of the default mirrors begin this far apart.
SPREAD = timedelta(seconds=4)
BY = "first start"


@dataclass(frozen=True)
class Pace:
    """How a mirror of the demo runs: its schedule, and limits short enough to be seen passing."""

    schedule: str
    due: timedelta
    stale: timedelta
    expired: timedelta


DEMO_PACE = {
    "trivy-db": Pace("1m", timedelta(minutes=4), timedelta(minutes=15), timedelta(hours=2)),
    "trivy-java-db": Pace("2m", timedelta(minutes=8), timedelta(minutes=30), timedelta(hours=4)),
    "trivy-checks": Pace("5m", timedelta(minutes=20), timedelta(hours=1), timedelta(hours=8)),
    "vex": Pace("3m", timedelta(minutes=12), timedelta(hours=1), timedelta(hours=8)),
    "release": Pace("5m", timedelta(minutes=20), timedelta(hours=1), timedelta(hours=8)),
}
_LOOPBACK = re.compile(r"(?P<scheme>http://)?127\.0\.0\.1:\d+(?P<path>(?:/.*)?)")


@dataclass(frozen=True)
class FirstStart:
    """`created`: this call made the first administrator. `password` is the random one, said only then.

    `admin_password_file` is where it stands until it is changed, None if there is no such file (any more).
    """

    created: bool
    admin_password_file: Path | None
    password: str | None


def first_start(*, now: datetime | None = None, demo_upstream: str | None = None) -> FirstStart:
    """Make the first administrator and the default mirrors, once; of two processes that try, one does.

    `demo_upstream` is `127.0.0.1:PORT`: the mirrors are pointed there, and follow it to another port.
    """
    now = now or timezone.now()
    made = _begin(now, demo_upstream)
    if not made.created and demo_upstream:
        _move_demo(demo_upstream, now)
    return made


def _begin(now: datetime, demo_upstream: str | None) -> FirstStart:
    file = people.first_password_file()
    try:
        with transaction.atomic():
            if User.objects.exists():
                return FirstStart(False, file if file.exists() else None, None)
            given = settings.AIRGAP_ADMIN_PASSWORD
            password = given or people.random_password()
            admin = User(username=people.FIRST_ADMINISTRATOR, role=Role.ADMINISTRATOR, must_change_password=not given)
            admin.set_password(password)
            admin.save(force_insert=True)
            record.write(BY, "person added", admin.username, "as administrator", at=now)
            if settings.AIRGAP_SIDE != "isolated":
                _add_default_mirrors(now, demo_upstream)
            # Last, and inside: a file without its administrator would be worse than the other way round.
            if not given:
                _write_password(file, password)
    except IntegrityError:
        return FirstStart(False, file if file.exists() else None, None)
    return FirstStart(True, None if given else file, None if given else password)


def _add_default_mirrors(now: datetime, demo_upstream: str | None) -> None:
    # The demo also shows what one has to ask for.
    wanted = (*DEFAULT_MIRRORS, *SUGGESTED_MIRRORS) if demo_upstream else DEFAULT_MIRRORS
    for place, default in enumerate(wanted):
        if demo_upstream:
            pace = DEMO_PACE[default.kind]
            wish = mirroring.Settings(
                kind=default.kind,
                label=default.label,
                sources=[SourceSpec(demo_source(default, demo_upstream), insecure=True)],
                schedule=pace.schedule,
                due=pace.due,
                stale=pace.stale,
                expired=pace.expired,
                served_as=default.repository,
            )
        else:
            specs = [SourceSpec(reference) for reference in default.sources]
            wish = mirroring.Settings(
                kind=default.kind, label=default.label, sources=specs, served_as=default.repository
            )
        mirror = mirroring.add_mirror(default.name, wish, by=BY, now=now)
        Mirror.objects.filter(pk=mirror.pk).update(next_sync_at=now + place * SPREAD)


def demo_source(default: DefaultMirror, upstream: str) -> str:
    """Where the demo's upstream has what this default mirror wants."""
    transport = KINDS[default.kind].transport
    if transport == "vex":
        return f"http://{upstream}"
    if transport == "release":
        return f"http://{upstream}/trivy/v{{version}}/"
    # ghcr.io's names, which the demo's upstream took over.
    official = next(source for source in default.sources if source.startswith("ghcr.io/"))
    return official.replace("ghcr.io", upstream, 1)


def _move_demo(upstream: str, now: datetime) -> None:
    """The demo's upstream has another port than last time."""
    for mirror in Mirror.objects.prefetch_related("sources"):
        specs = []
        for spec in mirroring.specs_of(mirror):
            match = _LOOPBACK.fullmatch(spec.reference)
            moved = f"{match['scheme'] or ''}{upstream}{match['path']}" if match else spec.reference
            specs.append(SourceSpec(moved, spec.insecure, spec.ca_pem, spec.login))
        if [spec.reference for spec in specs] != [source.reference for source in mirror.sources.all()]:
            mirroring.edit_mirror(mirror.name, mirroring.Settings(sources=specs), by=BY, now=now)


def _write_password(file: Path, password: str) -> None:
    """Aside and renamed, readable by this user only from its first byte on."""
    aside = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w") as text:
            text.write(password + "\n")
            text.flush()
            os.fsync(text.fileno())
        aside.replace(file)
    except OSError:
        aside.unlink(missing_ok=True)
        raise
