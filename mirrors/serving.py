"""What is served under /v2/: which repository and tag or digest is which blob. Rows are looked up, no file is touched.

A repository is one or more mirrors that share its name. Its tags, where two could mean different things the first
counts: a mirror's own tag; `latest`, the highest one that holds something; the schema of a database, by which Trivy
asks; `TAG-20261120T0631Z` for every kept snapshot whose content has a date; upstream's version, as upstream tags it
(2.2.0, 2.2, 2). A digest is answered where a kept snapshot of the repository names it, so what was current stays
pullable until retention removes it.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from django.db.models import F, QuerySet

from mirrors import served_names
from mirrors.models import Mirror, Snapshot, SnapshotBlob
from mirrors.registry.references import TAG
from mirrors.trivy.catalogue import KINDS

Role = SnapshotBlob.Role
MANIFESTS, BLOBS = (Role.MANIFEST, Role.INDEX), (Role.CONFIG, Role.LAYER)
LATEST = "latest"
_VERSION = re.compile(r"(?P<minor>(?P<major>\d+)\.\d+)\.\d+", re.ASCII)


class Shelf(NamedTuple):
    """One mirror of a repository."""

    mirror_id: int
    tag: str
    current_id: int | None
    kind: str


@dataclass(frozen=True)
class Repository:
    """A repository that somebody asked for, under the name it is kept by."""

    name: str
    shelves: tuple[Shelf, ...]

    @property
    def latest(self) -> Shelf | None:
        """The mirror `latest` stands for."""
        holding = [shelf for shelf in self.shelves if shelf.current_id is not None]
        return max(holding, key=lambda shelf: _height(shelf.tag), default=None)

    @property
    def tagged(self) -> dict[str, Shelf]:
        """The tags of what mirrors hold now. One that holds nothing yet keeps its tag from meaning anything else."""
        schemas = {str(KINDS[shelf.kind].schema): shelf for shelf in reversed(self.shelves) if KINDS[shelf.kind].schema}
        latest = {LATEST: self.latest} if self.latest is not None else {}
        return schemas | latest | {shelf.tag: shelf for shelf in self.shelves}


class Held(NamedTuple):
    """One blob as a kept snapshot names it."""

    digest: str
    size: int
    media_type: str
    mirror_id: int
    snapshot_id: int
    role: str


# For other pages


def names_of(mirror: Mirror) -> tuple[str, ...]:
    """The repository names that answer for it, the usual one first; none for kinds that are not served here."""
    return served_names.both(mirror.served_repository) if mirror.served_repository else ()


def tags_of(mirror: Mirror) -> tuple[str, ...]:
    """The tags that answer with its content now: its own, `latest`, versions, dates from the newest on."""
    repository = find(mirror.served_repository)
    if repository is None:
        return ()
    own = set(mirror.snapshots.values_list("pk", flat=True))
    tags = [tag for tag, snapshot_id in _tagged(repository).items() if snapshot_id in own]
    dated = sorted((tag for tag in tags if is_dated(tag)), reverse=True)
    first = [tag for tag in (mirror.served_tag, LATEST) if tag in tags]
    rest = sorted((tag for tag in tags if tag not in (*first, *dated)), key=_height, reverse=True)
    return (*dict.fromkeys(first), *rest, *dated)


# Looking up


def find(name: str) -> Repository | None:
    """The repository that answers to this name. One query, and none for what cannot be a name."""
    if not served_names.is_repository(name):
        return None
    kept = served_names.canonical(name)
    rows = Mirror.objects.filter(served_repository=kept).order_by("position", "name")
    shelves = tuple(Shelf(*row) for row in rows.values_list("pk", "served_tag", "current_id", "kind"))
    return Repository(kept, shelves) if shelves else None


def manifest_tagged(repository: Repository, tag: str) -> Held | None:
    """The manifest or index that this tag stands for now."""
    snapshot_id = _snapshot_tagged(repository, tag)
    if snapshot_id is None:
        return None
    top = SnapshotBlob.objects.filter(snapshot_id=snapshot_id, digest=F("snapshot__manifest_digest"))
    return _first(top.filter(role__in=MANIFESTS))


def manifest(repository: Repository, digest: str) -> Held | None:
    """A manifest or index of a kept snapshot, also one that another one names."""
    return _first(_rows(repository, MANIFESTS).filter(digest=digest))


def blob(repository: Repository, digest: str) -> Held | None:
    """A config or layer of a kept snapshot."""
    return _first(_rows(repository, BLOBS).filter(digest=digest))


def referrers(repository: Repository, digest: str) -> list[Held]:
    """The manifests that were mirrored as referring to this one, by digest."""
    # Upstream's databases have none, and asking takes a look at every manifest.
    others = tuple(shelf for shelf in repository.shelves if shelf.kind == "oci")
    if not others:
        return []
    rows = _rows(Repository(repository.name, others), MANIFESTS).filter(details__subject=digest)
    return sorted({held.digest: held for held in _held(rows)}.values())


def tags(repository: Repository) -> list[str]:
    """Every tag that answers, in ASCII order."""
    return sorted(_tagged(repository))


def catalog() -> list[str]:
    """The repositories that hold something, each by the name it is kept by, in ASCII order."""
    named = Mirror.objects.exclude(served_repository="").exclude(current=None)
    return sorted(set(named.values_list("served_repository", flat=True)))


# Inside


def _rows(repository: Repository, roles: Iterable[str]) -> QuerySet[SnapshotBlob]:
    mirrors = [shelf.mirror_id for shelf in repository.shelves]
    rows = SnapshotBlob.objects.filter(snapshot__mirror_id__in=mirrors, role__in=roles)
    return rows.order_by("-snapshot_id", "position")


def _held(rows: QuerySet[SnapshotBlob]) -> list[Held]:
    columns = ("digest", "size_bytes", "media_type", "snapshot__mirror_id", "snapshot_id", "role")
    return [Held(*row) for row in rows.values_list(*columns)]


def _first(rows: QuerySet[SnapshotBlob]) -> Held | None:
    return next(iter(_held(rows[:1])), None)


def _snapshot_tagged(repository: Repository, tag: str) -> int | None:
    # What nearly everybody asks for needs no look at the snapshots.
    shelf = repository.tagged.get(tag)
    return shelf.current_id if shelf is not None else _tagged(repository).get(tag)


def _tagged(repository: Repository) -> dict[str, int]:
    """Every tag of the repository and the snapshot it stands for. What is put in later counts more."""
    moving = repository.tagged
    current = {shelf.current_id for shelf in repository.shelves}
    rows = Snapshot.objects.filter(mirror_id__in=[shelf.mirror_id for shelf in repository.shelves])
    kept = list(rows.order_by("fetched_at", "pk").values_list("pk", "mirror_id", "updated_at", "version"))
    found: dict[str, int] = {}
    # Of several with one version, what is current counts, else the newest.
    for pk, _, _, version in sorted(kept, key=lambda row: (_height(row[3]), row[0] in current)):
        if (match := _VERSION.fullmatch(version)) is not None:
            found[match["major"]] = found[match["minor"]] = pk
    for pk, _, _, version in sorted(kept, key=lambda row: row[0] in current):
        found[version] = pk
    prefixes = {shelf.mirror_id: tag for tag, shelf in moving.items() if tag != LATEST}
    # From the newest to the oldest: should two be of one minute, its tag stays where it was.
    for pk, mirror_id, updated_at, _ in reversed(kept):
        if updated_at is not None:
            found[dated_tag(prefixes.get(mirror_id, LATEST), updated_at)] = pk
    found |= {tag: shelf.current_id for tag, shelf in moving.items() if shelf.current_id is not None}
    empty = {tag for tag, shelf in moving.items() if shelf.current_id is None}
    return {tag: pk for tag, pk in found.items() if TAG.fullmatch(tag) and tag not in empty}


def dated_tag(tag: str, updated_at: datetime) -> str:
    """`2-20261120T0631Z`: the tag of the content of that minute."""
    moment = updated_at.astimezone(UTC)
    return f"{tag}-{moment.year:04d}{moment:%m%dT%H%MZ}"


def is_dated(tag: str) -> bool:
    """Whether the tag is one of a kept snapshot's date."""
    return re.search(r"-\d{8}T\d{4}Z\Z", tag, re.ASCII) is not None


def _height(tag: str) -> list[tuple[int, int, str]]:
    """For comparing tags as versions: 10 is higher than 9, 1.2.0 than 1.2.0-rc1, and any number than a word."""
    parts = re.findall(r"\d+|[A-Za-z]+", tag, re.ASCII)
    numbered = [(1, int(part), "") if part.isdigit() else (-1, 0, part) for part in parts]
    return [*numbered, (0, 0, "")]
