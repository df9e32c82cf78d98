"""Sends a bundle: the bytes of its tar, or of any part of it, put together from stored blobs while they are read.

The recipe fixes every byte, so the size is known before the first one and a download can be resumed after any
restart or upgrade. What is found missing or damaged on the way ends the sending with an error; nothing is padded.
"""

import bisect
import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mirrors.blobs import STAMP_NS, BlobStore, StoreError
from mirrors.bundle import tar
from mirrors.bundle.contents import BundleError
from mirrors.digests import DigestError, parse_digest, short
from mirrors.stopping import StopSignal
from mirrors.trivy.catalogue import MIB

FORMAT = 1


@dataclass(frozen=True)
class Member:
    """One file of the tar. `name` is relative to the top folder."""

    name: str
    size: int
    digest: str
    mode: int = 0o644


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the bytes of a bundle.

    `mtime` is in seconds since 1970; `rendered` names the blobs that were made for this bundle and that no snapshot
    holds: whoever keeps the recipe must keep these. `flat` (the files profile): the members stand in no folder.
    """

    format: int
    folder: str
    mtime: int
    members: tuple[Member, ...]
    rendered: tuple[str, ...] = ()
    flat: bool = False

    def as_dict(self) -> dict[str, Any]:
        """The recipe as JSON-able values."""
        values: dict[str, Any] = {
            "format": self.format,
            "folder": self.folder,
            "mtime": self.mtime,
            "members": [[member.name, member.size, member.digest, member.mode] for member in self.members],
            "rendered": list(self.rendered),
        }
        # Recipes that were kept before there was a flat form keep their entity tag.
        return values | {"flat": True} if self.flat else values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Recipe":
        """The other way round. Raises BundleError for a recipe of another format or none at all."""
        found = values.get("format")
        if found != FORMAT:
            raise BundleError(f"This bundle's recipe has format {found}; this version of Airgap knows format {FORMAT}.")
        try:
            members = tuple(
                Member(str(name), int(size), parse_digest(digest), int(mode))
                for name, size, digest, mode in values["members"]
            )
            rendered = tuple(parse_digest(digest) for digest in values.get("rendered", ()))
            flat = values.get("flat") is True
            return cls(FORMAT, str(values["folder"]), int(values["mtime"]), members, rendered, flat)
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError("This bundle's recipe cannot be read. Make a new bundle.") from error

    def path_of(self, member: "Member") -> str:
        """The member's name in the tar."""
        return member.name if self.flat else f"{self.folder}/{member.name}"

    @property
    def digests(self) -> frozenset[str]:
        """Every blob the bundle needs."""
        return frozenset(member.digest for member in self.members)


@dataclass(frozen=True)
class _Segment:
    """A run of the tar's bytes: either written here (`data`) or a member's blob."""

    start: int
    size: int
    data: bytes = b""
    member: Member | None = None


class Composition:
    """A recipe's bytes. Cheap to make; safe to use from several threads."""

    def __init__(self, recipe: Recipe, store: BlobStore) -> None:
        self.recipe = recipe
        self.store = store
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        last = self._segments[-1]
        return last.start + last.size

    @property
    def etag(self) -> str:
        """A strong, quoted entity tag: the same for the same bytes."""
        canonical = json.dumps(self.recipe.as_dict(), sort_keys=True, separators=(",", ":"))
        return f'"{hashlib.sha256(canonical.encode()).hexdigest()}"'

    @property
    def filename(self) -> str:
        return f"{self.recipe.folder}.tar"

    def problems(self) -> list[str]:
        """A sentence for each member that is missing or has another size; asks only for sizes, so it is quick."""
        found = []
        for member in self.recipe.members:
            try:
                size = self.store.size(member.digest)
            except StoreError as error:
                found.append(f"{member.name}: {error}")
            else:
                if size != member.size:
                    found.append(f"{member.name} has {size} bytes in the store instead of {member.size}.")
        return found

    def read(self, start: int = 0, stop: int | None = None, chunk: int = MIB) -> Iterator[bytes]:
        """The bytes from `start` up to, not including, `stop`, in pieces of at most `chunk` bytes.

        A member that is missing or not what its digest says raises BundleError before its last bytes are handed out.
        Blobs that nobody wrote to since they were verified (`BlobStore.is_pristine`) are not hashed again.
        """
        end = self.size if stop is None else stop
        if not 0 <= start <= end <= self.size:
            raise BundleError(f"Bytes {start} to {end} were asked of a bundle of {self.size} bytes.")
        return self._read(start, end, chunk)

    def span_of(self, member: Member) -> tuple[int, int]:
        """Where the member's own bytes are: from the first up to, not including, the second."""
        found = next((segment for segment in self._segments if segment.member == member), None)
        return (found.start, found.start + found.size) if found else (0, 0)

    def sha256(
        self,
        progress: Callable[[int], object] | None = None,
        stop: StopSignal | None = None,
        also: Callable[[bytes], object] | None = None,
    ) -> str:
        """SHA-256 of the whole file, 64 hex digits. Every member is verified on the way: BundleError.

        `progress` is told the size of each piece, `also` gets the piece; Stopped is raised when `stop` is set.
        """
        running = hashlib.sha256()
        for segment in self._segments:
            pieces = iter([segment.data]) if segment.member is None else self._hashed(segment.member, MIB)
            for piece in pieces:
                running.update(piece)
                if also is not None:
                    also(piece)
                if stop is not None:
                    stop.check()
                if progress is not None:
                    progress(len(piece))
        return running.hexdigest()

    def _read(self, start: int, end: int, chunk: int) -> Iterator[bytes]:
        index = bisect.bisect_right(self._starts, start) - 1
        for segment in self._segments[max(index, 0) :]:
            if segment.start >= end:
                return
            first, last = max(start - segment.start, 0), min(end - segment.start, segment.size)
            if first >= last:
                continue
            if segment.member is None:
                yield segment.data[first:last]
            else:
                yield from self._member(segment.member, first, last, chunk)

    def _member(self, member: Member, first: int, last: int, chunk: int) -> Iterator[bytes]:
        if self.store.is_pristine(member.digest, member.size):
            yield from self._trusted(member, first, last, chunk)
        elif (first, last) == (0, member.size):
            yield from self._hashed(member, chunk)
        else:
            # A part says nothing about the whole: verify it before any byte of it leaves.
            with self._lock:
                good = self.store.is_pristine(member.digest, member.size) or self.store.verify(member.digest) == "ok"
            if not good:
                raise _damaged(member)
            yield from self._trusted(member, first, last, chunk)

    def _trusted(self, member: Member, first: int, last: int, chunk: int) -> Iterator[bytes]:
        """Bytes of a blob verified before, as long as nobody writes to it meanwhile."""
        with _Opened(self.store, member) as file:
            before = file.changed_at
            while first < last:
                piece = file.read(min(chunk, last - first), first)
                first += len(piece)
                # The stamp means that somebody verified it meanwhile, which is no harm.
                if first >= last and file.changed_at not in (before, STAMP_NS):
                    raise _damaged(member)
                yield piece

    def _hashed(self, member: Member, chunk: int) -> Iterator[bytes]:
        """All bytes of a blob, hashed on the way; the last piece comes only when the hash is right."""
        running, offset = hashlib.sha256(), 0
        with _Opened(self.store, member) as file:
            while offset < member.size:
                piece = file.read(min(chunk, member.size - offset), offset)
                running.update(piece)
                offset += len(piece)
                if offset == member.size and "sha256:" + running.hexdigest() != member.digest:
                    raise _damaged(member)
                yield piece

    @cached_property
    def _segments(self) -> list[_Segment]:
        segments: list[_Segment] = []
        position, written = 0, b""

        def flush() -> None:
            nonlocal position, written
            if written:
                segments.append(_Segment(position, len(written), data=written))
                position, written = position + len(written), b""

        for member in self.recipe.members:
            written += tar.header(self.recipe.path_of(member), member.size, member.mode, self.recipe.mtime)
            if member.size:
                flush()
                segments.append(_Segment(position, member.size, member=member))
                position += member.size
            written += tar.padding(member.size)
        written += tar.END
        flush()
        return segments

    @cached_property
    def _starts(self) -> list[int]:
        return [segment.start for segment in self._segments]


class _Opened:
    """A member's blob, open for positioned reads; the system's errors become BundleError."""

    def __init__(self, store: BlobStore, member: Member) -> None:
        self._member = member
        try:
            self._descriptor = os.open(store.path(member.digest), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise BundleError(
                f"{member.name} is missing from the content store, so this bundle cannot be sent. "
                "Run the store check; it fetches missing content again."
            ) from None
        except (OSError, DigestError) as error:
            raise BundleError(f"{member.name} cannot be read from the content store: {error}.") from error

    def __enter__(self) -> "_Opened":
        try:
            if os.fstat(self._descriptor).st_size != self._member.size:
                raise _damaged(self._member)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            os.close(self._descriptor)

    @property
    def changed_at(self) -> int:
        """Time of last change, in nanoseconds since 1970."""
        return os.fstat(self._descriptor).st_mtime_ns

    def read(self, count: int, offset: int) -> bytes:
        """At least one byte from `offset`."""
        try:
            piece = os.pread(self._descriptor, count, offset)
        except OSError as error:
            raise BundleError(f"{self._member.name} cannot be read from the content store: {error}.") from error
        if not piece:
            raise _damaged(self._member)
        return piece


def _damaged(member: Member) -> BundleError:
    return BundleError(
        f"{member.name} (blob {short(member.digest)}) is damaged in the content store, so this bundle cannot be sent. "
        "Run the store check; it fetches the blob again."
    )
