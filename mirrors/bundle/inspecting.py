"""Looks into a bundle's members while they stream by: what is kept, and what databases and checks say of themselves."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, Protocol, cast

from mirrors.bundle import contents
from mirrors.bundle.parsed import ParsedBlob, ParsedBundle, ParsedSnapshot
from mirrors.trivy.archives import ArchiveError, Inflater, Member, TarParser
from mirrors.trivy.catalogue import KINDS, MIB, Kind
from mirrors.trivy.entries import MEMBER_LIMIT, Format
from mirrors.trivy.layers import LayerError, LayerFacts, LayerInspector
from mirrors.trivy.rules import RuleError
from mirrors.trivy.vex import ArchiveFacts, VexError, read_archive

# Manifests and other small documents that are held until the end, all together; as many as a sync of an image takes.
KEPT_LIMIT = 64 * MIB
SPOOLED_IN_MEMORY = 8 * MIB
KEPT_ROLES = (
    contents.MANIFEST, contents.INDEX, contents.VEX_MANIFEST, contents.CHECKSUMS, contents.SIGNATURE,
)  # fmt: skip
FAULTS = (LayerError, ArchiveError, RuleError, VexError)


@dataclass
class Findings:
    """What was seen inside: documents by digest or name, facts by layer digest or archive file."""

    documents: dict[str, bytes] = field(default_factory=dict)
    layers: dict[str, LayerFacts] = field(default_factory=dict)
    archives: dict[str, ArchiveFacts] = field(default_factory=dict)
    kept_bytes: int = 0


class Inspection(Protocol):
    """Fed with a member's bytes in order; `finish` when their digest was right, `close` in any case.

    `feed` and `finish` raise one of FAULTS.
    """

    def feed(self, chunk: bytes) -> object: ...

    def finish(self, findings: Findings) -> object: ...

    def close(self) -> object: ...


class Kept:
    """A document, held in memory."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._data = bytearray()

    def feed(self, chunk: bytes) -> None:
        self._data += chunk

    def finish(self, findings: Findings) -> None:
        if findings.kept_bytes + len(self._data) > KEPT_LIMIT:
            raise RuleError("size", f"The manifests and documents are more than {KEPT_LIMIT // MIB} MiB together.")
        findings.kept_bytes += len(self._data)
        findings.documents[self._key] = bytes(self._data)

    def close(self) -> None:
        self._data = bytearray()


class Database:
    """A database's layer: the date of the data stands inside it."""

    def __init__(self, kind: Kind, blob: ParsedBlob) -> None:
        self._digest = blob.digest
        self._inspector = LayerInspector(kind, blob.size)

    def feed(self, chunk: bytes) -> None:
        self._inspector.feed(chunk)

    def finish(self, findings: Findings) -> None:
        findings.layers[self._digest] = self._inspector.finish()

    def close(self) -> None:
        self._inspector.close()


class Checks:
    """A checks bundle: an archive with at least one check, for with none Trivy evaluates nothing."""

    def __init__(self, kind: Kind) -> None:
        self._inflater = Inflater("The checks bundle", kind.inflated_limit)
        self._parser = TarParser("The checks bundle", MEMBER_LIMIT)
        self._checks = 0

    def feed(self, chunk: bytes) -> None:
        for block in self._inflater.feed(chunk):
            for event in self._parser.feed(block):
                if isinstance(event, Member):
                    name = event.name
                    self._checks += event.kind == "file" and name.startswith("policies/") and name.endswith(".rego")
                    self._parser.skip()

    def finish(self, _: Findings) -> None:
        self._inflater.finish()
        self._parser.finish()
        if not self._checks:
            raise RuleError("contents", "The checks bundle holds no check (no policies/….rego).")

    def close(self) -> None:
        """Nothing is held."""


class VexArchive:
    """A VEX archive, which can only be read when all of it is there: beside the stream, in memory up to 8 MiB."""

    def __init__(self, blob: ParsedBlob) -> None:
        self._blob = blob
        self._file = SpooledTemporaryFile(SPOOLED_IN_MEMORY)  # noqa: SIM115 - closed by `close`

    def feed(self, chunk: bytes) -> None:
        self._file.write(chunk)

    def finish(self, findings: Findings) -> None:
        findings.archives[self._blob.file] = open_archive(cast("BinaryIO", self._file), self._blob)

    def close(self) -> None:
        self._file.close()


class StoredVexArchive:
    """A VEX archive that has a sink: it is read from there (`Sink.reading`) once it is committed."""

    def __init__(self, blob: ParsedBlob) -> None:
        self._blob = blob
        self.file: BinaryIO | None = None

    def feed(self, chunk: bytes) -> None:
        """The sink has it."""

    def finish(self, findings: Findings) -> None:
        assert self.file is not None  # noqa: S101 - given before
        findings.archives[self._blob.file] = open_archive(self.file, self._blob)

    def close(self) -> None:
        if self.file is not None:
            self.file.close()


def open_archive(file: BinaryIO, blob: ParsedBlob) -> ArchiveFacts:
    """What the archive holds; raises VexError."""
    format: Format = "zip" if blob.details["format"] == "zip" else "tar.gz"
    return read_archive(file, format, str(blob.details["subdir"]))


def plan(bundle: ParsedBundle) -> dict[str, list[tuple[ParsedSnapshot, ParsedBlob]]]:
    """For each file, which snapshots of a known kind need it as what."""
    found: dict[str, list[tuple[ParsedSnapshot, ParsedBlob]]] = {}
    for snapshot in bundle.snapshots:
        for blob in snapshot.blobs if snapshot.known else ():
            found.setdefault(blob.file, []).append((snapshot, blob))
    return found


def inspection_of(
    uses: list[tuple[ParsedSnapshot, ParsedBlob]], *, with_sink: bool, databases: bool
) -> Iterator[Inspection]:
    """Everything that must look at a file used like this; into databases only if `databases`."""
    seen: set[tuple[str, str]] = set()
    for snapshot, blob in uses:
        kind = KINDS[snapshot.kind]
        if blob.role in KEPT_ROLES and ("kept", blob.digest) not in seen:
            seen.add(("kept", blob.digest))
            yield Kept(blob.digest)
        elif blob.role == contents.VEX_ARCHIVE:
            yield StoredVexArchive(blob) if with_sink else VexArchive(blob)
        elif blob.role == contents.LAYER and blob.digest == snapshot.layer_digest and ("layer", kind.name) not in seen:
            seen.add(("layer", kind.name))
            if kind.has_metadata:
                if databases:
                    yield Database(kind, blob)
            elif kind.name == "trivy-checks":
                yield Checks(kind)
