"""Reads a database layer while it streams by: one pass, in a thread of its own, in bounded memory.

Upstream packs `metadata.json` last, so the age of a build stands at the end of a gigabyte and is read on the way
past, never by a second pass. The thread only ever waits for bytes, so it can always be ended.
"""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Self

from mirrors.trivy.archives import ArchiveError, Inflater, Member, TarParser
from mirrors.trivy.catalogue import Kind
from mirrors.trivy.metadata import METADATA_LIMIT, Metadata, MetadataError, parse_metadata

QUEUE_LIMIT = 4 * 1024 * 1024
SLICE = 1024 * 1024
MEMBER_LIMIT = 10_000
NAMES_KEPT = 100


class LayerError(Exception):
    """A database layer is not what Trivy could use. `code`: one of ArchiveError's, or metadata, missing, duplicate,
    member, or internal."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class LayerFacts:
    """What a layer holds. `names` are its members in order, the first hundred."""

    version: int
    updated_at: datetime
    next_update: datetime | None
    inflated_bytes: int
    database_bytes: int
    names: tuple[str, ...]


class LayerInspector:
    """Feed it every compressed byte in order from the first, then `finish` for the facts or `close` to give up.

    `feed` waits only while 4 MiB are queued, and raises LayerError as soon as the thread has found one.
    """

    def __init__(self, kind: Kind, compressed_size: int | None = None) -> None:
        if not kind.has_metadata:
            raise ValueError(f"A {kind.label} has no metadata.json to read.")
        self._reading = _Reading(kind)
        self._size = compressed_size
        self._fed = 0
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._ended = False
        self._abandoned = False
        self._error: Exception | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=f"inspect {kind.name}", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def fed(self) -> int:
        """Compressed bytes taken so far."""
        return self._fed

    def feed(self, chunk: bytes | bytearray | memoryview) -> None:
        """Queue the next compressed bytes (copied if they are not immutable). LayerError if the layer is bad."""
        if isinstance(chunk, bytes) and len(chunk) <= SLICE:
            self._put(chunk)
            return
        view = memoryview(chunk)
        for start in range(0, len(view), SLICE):
            self._put(bytes(view[start : start + SLICE]))

    def finish(self) -> LayerFacts:
        """Wait for the thread to read the last byte; the facts, or LayerError. Ends the thread in any case."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._thread.join()
        self._raise_error()
        if self._abandoned:
            raise LayerError("internal", "The reading of this layer was given up.")
        if self._size is not None and self._fed != self._size:
            raise LayerError("truncated", f"{self._fed} of the layer's {self._size} bytes were read.")
        return self._reading.facts()

    def close(self) -> None:
        """Give up: drop what is queued and end the thread. Does nothing after `finish`."""
        with self._changed:
            self._abandoned = True
            self._drop_queue()
            self._changed.notify_all()
        self._thread.join()

    def _put(self, chunk: bytes) -> None:
        with self._changed:
            while self._queued and self._queued + len(chunk) > QUEUE_LIMIT and not self._stopped():
                self._changed.wait()
            self._raise_error()
            if self._abandoned or self._ended:
                raise LayerError("internal", "Bytes were fed to a layer whose reading had ended.")
            self._fed += len(chunk)
            self._queue.append(chunk)
            self._queued += len(chunk)
            self._changed.notify_all()

    def _stopped(self) -> bool:
        return self._abandoned or self._error is not None

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _drop_queue(self) -> None:
        self._queue.clear()
        self._queued = 0

    def _take(self) -> bytes | None:
        with self._changed:
            while not self._queue and not self._ended and not self._abandoned:
                self._changed.wait()
            if self._abandoned or not self._queue:
                return None
            chunk = self._queue.popleft()
            self._queued -= len(chunk)
            self._changed.notify_all()
            return chunk

    def _run(self) -> None:
        try:
            while (chunk := self._take()) is not None:
                self._reading.feed(chunk, self._is_abandoned)
            if not self._abandoned:
                self._reading.finish()
        except (ArchiveError, LayerError) as error:
            self._fail(error if isinstance(error, LayerError) else LayerError(error.code, str(error)))
        except Exception as error:  # noqa: BLE001 - a thread has no caller; whoever feeds it gets the error
            failure = LayerError("internal", f"Reading the layer failed: {type(error).__name__}: {error}")
            failure.__cause__ = error
            self._fail(failure)

    def _is_abandoned(self) -> bool:
        return self._abandoned

    def _fail(self, error: LayerError) -> None:
        with self._changed:
            self._error = error
            self._drop_queue()
            self._changed.notify_all()


class _Reading:
    """What the thread knows: the inflated tar so far. No locks in here."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.inflater = Inflater("The layer", kind.inflated_limit)
        self.parser = TarParser("The layer", MEMBER_LIMIT)
        self.names: list[str] = []
        self.database_bytes: int | None = None
        self.metadata: Metadata | None = None
        self._raw: bytearray | None = None  # metadata.json while it comes in
        self._raw_size = 0

    def feed(self, chunk: bytes, abandoned: Callable[[], bool]) -> None:
        for block in self.inflater.feed(chunk):
            for event in self.parser.feed(block):
                if isinstance(event, Member):
                    self._begin(event)
                elif self._raw is not None:
                    self._raw += event
                    if len(self._raw) == self._raw_size:
                        self._read_metadata(bytes(self._raw))
            if abandoned():
                return

    def finish(self) -> None:
        self.inflater.finish()
        self.parser.finish()
        if self.metadata is None:
            raise LayerError("missing", f"The layer has no metadata.json; it holds {self._listing()}.")
        if self.database_bytes is None:
            raise LayerError("missing", f"The layer has no {self.kind.database_file}; it holds {self._listing()}.")

    def facts(self) -> LayerFacts:
        metadata, size = self.metadata, self.database_bytes
        assert metadata is not None and size is not None  # noqa: S101 - finish() made sure
        return LayerFacts(
            metadata.version,
            metadata.updated_at,
            metadata.next_update,
            self.inflater.inflated,
            size,
            tuple(self.names),
        )

    def _begin(self, member: Member) -> None:
        if len(self.names) < NAMES_KEPT:
            self.names.append(member.name)
        if member.kind in ("link", "other"):
            raise LayerError("member", f"The layer holds {member.name[:80]!r}, which is neither file nor directory.")
        if member.name == self.kind.database_file:
            if self.database_bytes is not None:
                raise LayerError("duplicate", f"The layer holds {member.name} twice.")
            if member.kind != "file" or member.size == 0:
                raise LayerError("member", f"The layer's {member.name} is empty or not a regular file.")
            self.database_bytes = member.size
        if member.name == "metadata.json":
            self._begin_metadata(member)
        else:
            self.parser.skip()

    def _begin_metadata(self, member: Member) -> None:
        if self._raw_size:
            raise LayerError("duplicate", "The layer holds metadata.json twice.")
        if member.kind != "file" or member.size == 0:
            raise LayerError("metadata", "The layer's metadata.json is empty or not a regular file.")
        if member.size > METADATA_LIMIT:
            raise LayerError("metadata", f"The layer's metadata.json is {member.size} bytes; a real one has about 140.")
        self._raw, self._raw_size = bytearray(), member.size

    def _read_metadata(self, raw: bytes) -> None:
        self._raw = None
        try:
            self.metadata = parse_metadata(raw, self.kind)
        except MetadataError as error:
            raise LayerError("metadata", f"The layer's {error}") from error

    def _listing(self) -> str:
        shown = ", ".join(name[:60] for name in self.names[:5])
        return shown + (" and more" if len(self.names) > 5 else "")
