"""Bundles in parts: cut into volumes for a medium, or as single files; which parts were taken, and writing them out.

A part is a byte range of what the whole bundle is. It counts as exported when the last of its parts was sent whole.
"""

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from django.db import transaction

from mirrors import exporting, record, wording
from mirrors.blobs import BlobStore
from mirrors.bundle.composition import Composition, Member, Recipe
from mirrors.bundle.contents import BundleError
from mirrors.bundle.volumes import (
    JOIN_ENDING,
    LIST_ENDING,
    Part,
    Volume,
    VolumeError,
    VolumeSums,
    checksum_list,
    cut,
    join_text,
)
from mirrors.exporting import ExportError
from mirrors.models import Bundle, BundlePart

Kind = BundlePart.Kind


class NoSuchPart(ExportError):
    """The bundle has no part of that number or name."""


@dataclass(frozen=True)
class Sendable:
    """A part and what it is called."""

    kind: BundlePart.Kind
    name: str
    part: Part


@dataclass(frozen=True)
class Shown:
    """A part as a page lists it. `sha256` is empty until it is known, `row` None until somebody took it."""

    name: str
    size: int
    sha256: str
    number: int
    row: BundlePart | None

    @property
    def taken(self) -> bool:
        return self.row is not None and self.row.times > 0


# Choosing


def choose(
    bundle: Bundle, volume_size: int, *, by: str, now: datetime, address: str = "", even_one: bool = False
) -> None:
    """Cut the bundle into volumes of that many bytes, or with 0 leave it one file again. Raises ExportError.

    Once a volume was taken the choice stays: others would not fit to it. `even_one`: also where one holds it all.
    """
    with transaction.atomic():
        bundle = Bundle.objects.select_for_update().get(pk=bundle.pk)
        if not bundle.is_ready:
            raise ExportError(f"{bundle.filename} cannot be cut now: it is not ready to be sent.")
        if bundle.volume_size == volume_size:
            return
        if bundle.parts.filter(kind=Kind.VOLUME, times__gt=0).exists():
            raise ExportError(
                "A volume of this bundle was taken already, and volumes of another size would not fit to it. "
                "Make a new bundle to cut it differently."
            )
        try:
            volumes = cut(bundle.size_bytes, volume_size) if volume_size else ()
        except VolumeError as error:
            raise ExportError(str(error)) from error
        if len(volumes) == 1 and not even_one:
            raise ExportError(f"The bundle has {wording.size_text(bundle.size_bytes)}, so it fits without being cut.")
        bundle.parts.filter(kind=Kind.VOLUME).delete()
        BundlePart.objects.bulk_create(
            BundlePart(bundle=bundle, kind=Kind.VOLUME, name=volume.name(bundle.filename)) for volume in volumes
        )
        bundle.volume_size = volume_size
        bundle.save(update_fields=["volume_size"])
        detail = f"{len(volumes)} volumes of {volume_size} bytes" if volumes else "one file"
        record.write(by, "bundle cut", bundle.filename, detail, address, at=now)


# What there is


def volumes_shown(bundle: Bundle) -> list[Shown]:
    """Expects `parts` prefetched."""
    rows = {row.name: row for row in bundle.parts.all() if row.kind == Kind.VOLUME}
    shown = []
    for volume in bundle.volumes:
        row = rows.get(volume.name(bundle.filename))
        shown.append(Shown(volume.name(bundle.filename), volume.size, row.sha256 if row else "", volume.number, row))
    return shown


def files_shown(bundle: Bundle) -> list[Shown]:
    """The single files, in their order. Expects `parts` prefetched."""
    rows = {row.name: row for row in bundle.parts.all() if row.kind == Kind.FILE}
    return [
        Shown(member.name, member.size, member.digest.removeprefix("sha256:"), number, rows.get(member.name))
        for number, member in enumerate(_members(bundle), 1)
    ]


def _members(bundle: Bundle) -> tuple[Member, ...]:
    if bundle.profile != Bundle.Profile.FILES or not bundle.is_ready:
        return ()
    try:
        return Recipe.from_dict(bundle.recipe).members
    except BundleError:
        return ()


def volume_to_send(bundle: Bundle, number: int, store: BlobStore | None = None) -> Sendable:
    """Raises NoSuchPart, and ExportError when the bundle cannot be sent."""
    whole = exporting.checked_file_of(bundle, store)
    if not 1 <= number <= len(bundle.volumes):
        raise NoSuchPart(f"{bundle.filename} has no volume {number}.")
    volume = bundle.volumes[number - 1]
    etag = f'{whole.etag[:-1]}-{volume.start}-{volume.stop}"'
    return Sendable(Kind.VOLUME, volume.name(bundle.filename), Part(whole, volume.start, volume.stop, etag))


def file_to_send(bundle: Bundle, name: str, store: BlobStore | None = None) -> Sendable:
    """Raises NoSuchPart, and ExportError when the bundle cannot be sent."""
    whole = exporting.checked_file_of(bundle, store)
    member = next((member for member in _members(bundle) if member.name == name), None)
    if member is None or not isinstance(whole, Composition):
        raise NoSuchPart(f"{bundle.filename} has no single file of that name.")
    return Sendable(Kind.FILE, name, Part(whole, *whole.span_of(member), f'"{member.digest.removeprefix("sha256:")}"'))


def papers(bundle: Bundle) -> dict[str, bytes]:
    """The list of checksums and the courier's text, by name. Raises ExportError until all sums are known."""
    shown = volumes_shown(bundle)
    if not shown:
        raise NoSuchPart(f"{bundle.filename} is one file, not cut into volumes.")
    if not bundle.sha256 or not all(part.sha256 for part in shown):
        raise ExportError("The SHA-256 of the volumes are still being computed. Try again in a while.")
    pairs = [(volume, part.sha256) for volume, part in zip(bundle.volumes, shown, strict=True)]
    return papers_of(bundle.filename, bundle.sha256, pairs)


def papers_of(filename: str, sha256: str, volumes: list[tuple[Volume, str]]) -> dict[str, bytes]:
    return {
        filename + LIST_ENDING: checksum_list(filename, sha256, volumes),
        filename + JOIN_ENDING: join_text(filename, len(volumes)),
    }


# Taken


def record_taken(
    bundle_id: str, kind: BundlePart.Kind, names: list[str], *, by: str, now: datetime, address: str = ""
) -> bool:
    """These parts were sent to their last byte. True when with them every part was once (more): exported."""
    with transaction.atomic():
        bundle = Bundle.objects.select_for_update().get(pk=bundle_id)
        expected = [member.name for member in _members(bundle)]
        if kind == Kind.VOLUME:
            expected = [volume.name(bundle.filename) for volume in bundle.volumes]
        before = _rounds(bundle, kind, expected)
        for name in names:
            if name not in expected:
                continue
            part, _ = BundlePart.objects.get_or_create(bundle=bundle, kind=kind, name=name)
            part.times, part.taken_at, part.taken_by = part.times + 1, now, by[:150]
            part.save(update_fields=["times", "taken_at", "taken_by"])
        exported = _rounds(bundle, kind, expected) > before
        if exported:
            exporting.record_export(bundle_id, by=by, now=now, address=address)
    return exported


def _rounds(bundle: Bundle, kind: BundlePart.Kind, expected: list[str]) -> int:
    """How often the whole set was taken."""
    times = dict(BundlePart.objects.filter(bundle=bundle, kind=kind).values_list("name", "times"))
    return min((times.get(name, 0) for name in expected), default=0)


# Writing


def write_volumes(
    bundle: Bundle,
    target: Path,
    volume_size: int,
    *,
    by: str,
    now: datetime,
    progress: Callable[[int], object] = lambda size: None,
    store: BlobStore | None = None,
) -> list[tuple[Path, int, str]]:
    """Write `target`.001of004 and so on, and the list: all of them or nothing. Path, bytes and SHA-256 of each volume.

    Raises ExportError, and OSError where the disk refuses.
    """
    choose(bundle, volume_size, by=by, now=now, even_one=True)
    bundle.refresh_from_db()
    volumes = bundle.volumes
    with _Writer(target, volumes) as writer:
        sha256 = exporting.write_to(bundle, writer, progress=progress, store=store)
        sums = writer.finish(sha256)
    with transaction.atomic():
        for volume, own in zip(volumes, sums, strict=True):
            bundle.parts.filter(kind=Kind.VOLUME, name=volume.name(bundle.filename)).update(sha256=own)
    pairs = zip(volumes, sums, strict=True)
    return [(target.with_name(volume.name(target.name)), volume.size, own) for volume, own in pairs]


class _Writer:
    """Takes the file in order and writes its volumes beside `target` under other names, until all are on disk."""

    def __init__(self, target: Path, volumes: tuple[Volume, ...]) -> None:
        self._target, self._volumes = target, volumes
        self._mark = f".{secrets.token_hex(4)}.part"
        self._sums = VolumeSums(volumes)
        self._aside: dict[Path, Path] = {}
        self._renamed: list[Path] = []
        self._file: BinaryIO | None = None
        self._room, self._next = 0, 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
        if kind is not None:
            for path in (*self._aside, *self._renamed):
                path.unlink(missing_ok=True)

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            self._current().write(view[: self._room])
            step = min(self._room, len(view))
            self._room -= step
            view = view[step:]
        self._sums.update(data)

    def finish(self, sha256: str) -> list[str]:
        """Write the papers, then give everything its name, the list last: where it lies, all lies."""
        self._end()
        sums = self._sums.hexdigests()
        pairs = list(zip(self._volumes, sums, strict=True))
        for name, data in reversed(papers_of(self._target.name, sha256, pairs).items()):
            self._open(name).write(data)
            self._end()
        for aside, final in self._aside.items():
            aside.replace(final)
            self._renamed.append(final)
        return sums

    def _current(self) -> BinaryIO:
        """The volume that has room, the next one if the last is full."""
        if self._file is not None and self._room:
            return self._file
        self._end()
        volume = self._volumes[self._next]
        self._next, self._room = self._next + 1, volume.size
        return self._open(volume.name(self._target.name))

    def _open(self, name: str) -> BinaryIO:
        aside = self._target.with_name(f".{name[:200]}{self._mark}")
        self._file = aside.open("xb")
        self._aside[aside] = self._target.with_name(name)
        return self._file

    def _end(self) -> None:
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None
