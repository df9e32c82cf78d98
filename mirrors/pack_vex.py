"""VEX archives that we make ourselves: of one commit of a git repository, or of a directory of this machine.

Both have one top folder, as GitHub's archives have, and the same content always gives the same bytes. Of a directory
only what its index names is read, so that nothing else of this machine can get out that way.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from django.conf import settings

from mirrors import wording
from mirrors.blobs.writing import IncomingBlob
from mirrors.bundle.packing import LONG_AGO, packed
from mirrors.digests import short
from mirrors.git import Bounds, GitAddress, Head, Pack, Remote, Tree
from mirrors.job import Job, Refused
from mirrors.registry.transport import Connection
from mirrors.story import SourceListener
from mirrors.trivy.vex import (
    INDEX_FILE,
    INDEX_LIMIT,
    MANIFEST_LIMIT,
    REPOSITORY_FILE,
    SPEC_VERSION,
    parse_repository,
    read_index,
)

BOUNDS = Bounds()
NAMED_AT_MOST = 20
_PLACE = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW


@dataclass(frozen=True)
class PackedVex:
    """An archive in the store; `top` is the folder of the index in it."""

    digest: str
    size: int
    top: str


def top_folder(manifest: bytes | None, otherwise: str) -> str:
    """The folder that the manifest's own first location names, so that its address needs none but ours; else
    `otherwise`. Raises VexError for a manifest that is none."""
    version = parse_repository(manifest).version(SPEC_VERSION) if manifest is not None else None
    named = version.locations[0].subdir if version and version.locations else ""
    plain = named and len(named) <= 100 and not set(named) & set("*?[]{}\\") and named.isprintable()
    return named if plain else otherwise


# Git


class GitSource:
    """A git repository being asked. `known` is what was kept of the last time: commit, digest and top folder."""

    def __init__(
        self, job: Job, address: GitAddress, connection: Connection, listener: SourceListener, known: dict[str, str]
    ) -> None:
        self.job, self.address, self.known, self.listener = job, address, known, listener
        self._remote = Remote(address, connection, stop=job.stop, listener=listener, timeouts=job.timeouts)

    def packed(self, *, as_source: bool) -> PackedVex:
        """The archive of what the branch names now, from the store where it is there already.

        `as_source`: the repository's own manifest, which must be there, says what the top folder is called.
        """
        with closing(self._remote):
            head = self._remote.head()
            kept = self._kept(head)
            if kept is None:
                kept = self._fetched(head, as_source=as_source)
        self.known = {"etag": head.commit, "digest": kept.digest, "top": kept.top}
        return kept

    def _kept(self, head: Head) -> PackedVex | None:
        digest, top = self.known.get("digest", ""), self.known.get("top", "")
        if self.known.get("etag") != head.commit or not top or not digest or not self.job.store.is_pristine(digest):
            return None
        return PackedVex(digest, self.job.store.size(digest), top)

    def _fetched(self, head: Head, *, as_source: bool) -> PackedVex:
        job = self.job
        job.story.stage = f"downloading from {self._host}"
        before = job.story.bytes_downloaded
        with job.store.incoming(BOUNDS.pack_bytes) as received:
            self._remote.fetch(head.commit, received, BOUNDS.pack_bytes)
            job.story.stage = "packing"
            job.require_room(received.offset)
            with received.reading() as file, closing(Pack(file, BOUNDS, job.stop.check)) as pack:
                kept = self._pack(Tree(pack, head.commit, self.address.subdir), head, as_source=as_source)
        count = wording.size_text(job.story.bytes_downloaded - before)
        job.story.tell(f"Received {count}: commit {head.commit[:12]} of {head.ref}, packed as {short(kept.digest)}.")
        return kept

    def _pack(self, tree: Tree, head: Head, *, as_source: bool) -> PackedVex:
        file = tree.find(REPOSITORY_FILE)
        if as_source and (file is None or file.size > MANIFEST_LIMIT):
            where = f"the folder {self.address.subdir} of " if self.address.subdir else ""
            raise Refused(f"There is no {REPOSITORY_FILE} in {where}the git repository, so it is not a VEX repository.")
        manifest = tree.read(file) if as_source and file is not None else None
        top = top_folder(manifest, f"{self.address.name}-{head.ref}".replace("/", "-"))
        if tree.left_out:
            _warn_left_out(self.job, tree.left_out, "Links and submodules of the git repository are not followed")
        files = ((f"{top}/{each.path}", tree.read(each)) for each in tree.files)
        return _written(self.job, files, tree.committed_at, top)

    @property
    def _host(self) -> str:
        return self.address.url.partition("://")[2].partition("/")[0]


# Directories


def allowed_directory(path: str) -> Path:
    """Where the directory really is. Raises Refused where it may not be read: what is ours, and what is outside
    AIRGAP_VEX_DIRECTORIES where that is set."""
    place = Path(path).resolve()
    own = Path(settings.AIRGAP_DATA_DIR).resolve()
    if place == own or own in place.parents or place in own.parents:
        raise Refused(f"{path} holds this instance's own data, or is part of it; copy the VEX repository elsewhere.")
    roots = [Path(root).resolve() for root in settings.AIRGAP_VEX_DIRECTORIES]
    if roots and not any(place == root or root in place.parents for root in roots):
        raise Refused(
            f"{path} is outside the directories that VEX repositories may be read from "
            f"({', '.join(map(str, roots))}). Whoever runs this instance can add it to AIRGAP_VEX_DIRECTORIES."
        )
    return place


def look_at(path: str, subdir: str) -> int:
    """How many packages the index of a directory names; for a test of the source. Raises Refused or VexError."""
    with closing(_Folder(allowed_directory(path), subdir)) as folder:
        top_folder(folder.needed(REPOSITORY_FILE, MANIFEST_LIMIT), "-")
        return len(read_index(folder.needed(INDEX_FILE, INDEX_LIMIT))[1])


def packed_directory(job: Job, path: str, subdir: str) -> PackedVex:
    """The archive of a directory: its manifest, its index, and the documents that the index names.

    Raises Refused where something is missing, or changed while it was read; VexError for an index that is none.
    """
    place = allowed_directory(path)
    job.story.stage = "reading"
    with closing(_Folder(place, subdir)) as folder:
        manifest = folder.needed(REPOSITORY_FILE, MANIFEST_LIMIT)
        index = folder.needed(INDEX_FILE, INDEX_LIMIT)
        _, locations = read_index(index)
        if len(locations) > BOUNDS.entries:
            raise Refused(f"The {INDEX_FILE} in {path} names more than {BOUNDS.entries:,} documents.")
        top = top_folder(manifest, place.name)
        wanted = sorted({INDEX_FILE, REPOSITORY_FILE, *locations}, key=str.encode)
        own = {INDEX_FILE: index, REPOSITORY_FILE: manifest}
        # Asked once more after the last file: a copy under way changes these two, too.
        made = _written(job, chain(folder.files(wanted, own, top), folder.unchanged(own)), LONG_AGO, top)
        if folder.links:
            _warn_left_out(job, folder.links, "Symbolic links in the directory are not followed")
    job.story.tell(f"Read {path}: packed as {short(made.digest)}.")
    return made


class _Folder:
    """One directory, read without ever leaving it: no link is followed, at no step of a path."""

    def __init__(self, place: Path, subdir: str) -> None:
        self.place = place / subdir if subdir else place
        self.links: list[str] = []
        self._bytes = 0
        try:
            self._root = os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
        except OSError as error:
            raise Refused(
                f"The directory {place} cannot be read: {os.strerror(error.errno or 0)}. Check that it is mounted, and "
                "that the user who runs Airgap may read it."
            ) from None
        for part in filter(None, subdir.split("/")):
            child = self._open(self._root, part, os.O_DIRECTORY)
            os.close(self._root)
            self._root = -1 if child is None else child
            if child is None:
                raise Refused(f"There is no directory {subdir} in {place}.")

    def close(self) -> None:
        if self._root >= 0:
            os.close(self._root)

    def needed(self, name: str, limit: int) -> bytes:
        content = self.read(name, limit)
        if content is None:
            raise Refused(
                f"There is no {name} in {self.place}. If it is still being copied, wait until that has ended; if "
                "not, it is not the folder of a VEX repository."
            )
        return content

    def files(self, wanted: list[str], own: dict[str, bytes], top: str) -> Iterator[tuple[str, bytes]]:
        """(path in the archive, content) of what is there; `own` was read before."""
        for path in wanted:
            content = own[path] if path in own else self.read(path, BOUNDS.object_bytes)
            if content is not None:
                yield f"{top}/{path}", content

    def unchanged(self, own: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
        """Nothing more to pack; Refused where these files are no longer what they were."""
        for name, content in own.items():
            if self.read(name, max(INDEX_LIMIT, MANIFEST_LIMIT)) != content:
                raise self._changed(name)
        yield from ()

    def read(self, path: str, limit: int) -> bytes | None:
        """A regular file, None where there is none. Refused for one that is too large or changes meanwhile."""
        *folders, name = path.split("/")
        at = os.dup(self._root)
        try:
            for part in folders:
                child = self._open(at, part, os.O_DIRECTORY, path)
                if child is None:
                    return None
                os.close(at)
                at = child
            file = self._open(at, name, os.O_NONBLOCK, path)
        finally:
            os.close(at)
        return None if file is None else self._content(file, path, limit)

    def _open(self, at: int, name: str, how: int, path: str = "") -> int | None:
        try:
            return os.open(name, _PLACE | how, dir_fd=at)
        except (FileNotFoundError, NotADirectoryError):
            with suppress(OSError):
                if stat.S_ISLNK(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode):
                    self.links.append(path or name)
            return None
        except OSError as error:
            if error.errno == errno.ELOOP:  # a symbolic link
                self.links.append(path or name)
                return None
            raise Refused(f"{self.place / (path or name)} cannot be read: {os.strerror(error.errno or 0)}.") from None

    def _content(self, file: int, path: str, limit: int) -> bytes | None:
        before = os.fstat(file)
        if not stat.S_ISREG(before.st_mode):
            os.close(file)
            return None
        with os.fdopen(file, "rb") as opened:
            self._bytes += before.st_size
            if before.st_size > limit or self._bytes > BOUNDS.tree_bytes:
                raise Refused(
                    f"{self.place / path} is larger than is taken ({wording.size_text(limit)} for this file)."
                )
            try:
                content = opened.read(limit + 1)
            except OSError as error:
                raise Refused(f"{self.place / path} cannot be read: {os.strerror(error.errno or 0)}.") from None
            after = os.fstat(file)
        if len(content) != before.st_size or (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
            raise self._changed(path)
        return content

    def _changed(self, path: str) -> Refused:
        return Refused(
            f"{self.place / path} changed while it was read. Nothing was taken; it is read again at the next sync, or "
            "sync it by hand when the copying has ended."
        )


# Both


def _written(job: Job, files: Iterator[tuple[str, bytes]], modified_at: int, top: str) -> PackedVex:
    with job.store.incoming(job.kind.layer_limit) as archive:
        _write(job, files, modified_at, archive)
        job.require_room(archive.offset)
        digest, size = archive.commit()
    return PackedVex(digest, size, top)


def _write(job: Job, files: Iterator[tuple[str, bytes]], modified_at: int, archive: IncomingBlob) -> None:
    def watched() -> Iterator[tuple[str, bytes]]:
        for each in files:
            job.stop.check()
            yield each

    for piece in packed(watched(), modified_at):
        archive.write(piece)


def _warn_left_out(job: Job, paths: list[str], why: str) -> None:
    named = ", ".join(paths[:NAMED_AT_MOST])
    more = f" and {len(paths) - NAMED_AT_MOST} more" if len(paths) > NAMED_AT_MOST else ""
    job.story.warn(f"{why}; left out: {named}{more}.")
