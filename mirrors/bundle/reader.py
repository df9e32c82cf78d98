"""Reads a bundle in one pass and believes nothing: either every byte is as the format says, or it is refused.

What is wrong with the tar itself ends the reading; what is wrong with the content of a member is told, and the reading
goes on, so that a report names everything at once. No blob is taken before the signature was accepted, and none after
the first problem.
"""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from mirrors.bundle import inspecting
from mirrors.bundle.agreement import agree
from mirrors.bundle.compose import SCRIPTS as SCRIPTS_FOLDER
from mirrors.bundle.compose import folder_name
from mirrors.bundle.composition import Member
from mirrors.bundle.contents import LAYER
from mirrors.bundle.inspecting import FAULTS, Findings, Inspection, StoredVexArchive
from mirrors.bundle.membership import (
    BUNDLE,
    DOCUMENTS,
    INDEX,
    LAYOUT,
    SCRIPTS,
    SIGNATURE,
    SUMS,
    Membership,
    membership,
    mode_of,
)  # fmt: skip
from mirrors.bundle.parsed import (
    BundleReadError,
    CheckSignature,
    Contents,
    OnBlob,
    ParsedBlob,
    ParsedBundle,
    ParsedSnapshot,
    SignatureRefused,
    Sink,
)  # fmt: skip
from mirrors.bundle.parsing import FILES, parse_bundle, parse_sums
from mirrors.bundle.tar_reading import Readable, StructureError, TarReader
from mirrors.digests import DigestError, digest_of
from mirrors.stopping import StopSignal
from mirrors.trivy.layers import LayerFacts

MOST_PROBLEMS = 100
FactsOf = Callable[[str, str], LayerFacts | None]
# Whether a database of so many bytes need not be looked into, given what `check_signature` returned.
Vouches = Callable[[object, int], bool]
Uses = list[tuple[ParsedSnapshot, ParsedBlob]]


def read_bundle(
    stream: Readable,
    *,
    check_signature: CheckSignature,
    on_blob: OnBlob | None = None,
    total_size: int | None = None,
    facts_of: FactsOf | None = None,
    vouches: Vouches | None = None,
    progress: Callable[[int, str], object] | None = None,
    stop: StopSignal | None = None,
) -> Contents:
    """Everything about the bundle in `stream`, whose blobs went where `on_blob` said.

    1. bundle.json and SHA256SUMS are read and compared; `check_signature(sums, signature or None)` decides whether
    they are believed: it raises SignatureRefused if not. Before that no blob is taken.
    2. Every blob named in bundle.json is offered once to `on_blob`: it answers with a sink, or None for one that is
    only to be verified (a dry run, or what the store has already). Once a problem is known no more is offered.
    3. What is in the blobs is compared with what bundle.json says of them. `facts_of(layer digest, kind)` spares
    looking into a layer that was read before, and `vouches(signed by, bytes)` looking into a database of which the
    signer's word is taken.

    `total_size` (bytes, if known) finds a cut-off file before it is read. `progress(bytes so far, member)`.
    Raises BundleReadError with all problems, StoreError as the sinks do, Stopped.
    """
    return _Reading(TarReader(stream, progress, stop), check_signature, on_blob, facts_of, vouches, total_size).run()


@dataclass
class _Reading:
    tar: TarReader
    check_signature: CheckSignature
    on_blob: OnBlob | None
    facts_of: FactsOf | None
    vouches: Vouches | None
    total_size: int | None
    problems: list[str] = field(default_factory=list)
    more_problems: int = 0
    bundle: ParsedBundle | None = None
    signed_by: object = None
    accepted: bool = False
    sums_digest: str = ""
    members: list[Member] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    findings: Findings = field(default_factory=Findings)
    uses: dict[str, Uses] = field(default_factory=dict)
    places: Membership | None = None
    offered: set[str] = field(default_factory=set)

    def run(self) -> Contents:
        try:
            self._read()
        except StructureError as error:
            self.tell(str(error))
        if self.more_problems:
            self.problems.append(f"And {self.more_problems:,} further problems.")
        contents = Contents(
            self.bundle,
            self.tar.folder,
            tuple(self.members),
            self.tar.position,
            self.sums_digest,
            self.signed_by,
            tuple(self.taken),
            tuple(self.notes),
            dict(self.findings.layers),
        )
        if self.problems:
            raise BundleReadError(self.problems, contents)
        return contents

    def tell(self, problem: str) -> None:
        if problem in self.problems:
            return
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(problem)
        else:
            self.more_problems += 1

    def _read(self) -> None:
        raw = self._document(BUNDLE)
        self.bundle = parse_bundle(raw, self.tell)
        raw_sums = self._document(SUMS)
        sums = parse_sums(raw_sums)
        self.sums_digest = digest_of(raw_sums)
        if sums[0] != (BUNDLE, digest_of(raw)):
            self.tell(
                "SHA256SUMS does not begin with bundle.json and its digest: one of them was changed. "
                "Copy the bundle again."
            )
        rest = sums[1:]
        if not rest:
            raise StructureError("SHA256SUMS lists nothing but bundle.json.")
        name, size = self.tar.begin((SIGNATURE, 0o644), (rest[0][0], mode_of(rest[0][0])))
        signature = None
        if name == SIGNATURE:
            signature = self._body(SIGNATURE, size)
        self._check_signature(raw_sums, signature)
        if self.bundle is not None:
            self._compare(self.bundle, sums)
        for i, (listed, digest) in enumerate(rest):
            if i or signature is not None:
                _, size = self.tar.begin((listed, mode_of(listed)))
            self._member(Member(listed, size, digest, mode_of(listed)))
        self.tar.end()
        if self.bundle is not None and self.accepted:
            inlined = self.places.inlined if self.places else frozenset[str]()
            self.bundle = agree(self.bundle, self.findings, inlined, self.tell)
            self._note_scripts(self.bundle)

    def _document(self, name: str) -> bytes:
        _, size = self.tar.begin((name, 0o644))
        return self._body(name, size)

    def _body(self, name: str, size: int) -> bytes:
        """A document that is read whole, whose digest is not in SHA256SUMS or not known yet."""
        if size > DOCUMENTS[name]:
            raise StructureError(f"{name} has {size:,} bytes; at most {DOCUMENTS[name]:,} are read.")
        data = b"".join(self.tar.body(name, size))
        self.members.append(Member(name, size, digest_of(data)))
        return data

    def _check_signature(self, sums: bytes, signature: bytes | None) -> None:
        try:
            self.signed_by = self.check_signature(sums, signature)
            self.accepted = True
        except SignatureRefused as error:
            self.tell(str(error))

    def _compare(self, bundle: ParsedBundle, sums: list[tuple[str, str]]) -> None:
        """What the papers say of each other, and of the tar, before any blob is read."""
        if self.tar.flat != (bundle.profile == FILES):
            self.tell("bundle.json and the tar differ about whether the members stand in a folder.")
        elif not self.tar.flat and self.tar.folder != folder_name(bundle.id, bundle.created_at):
            self.tell(f"The folder {self.tar.folder} is not called after the bundle's id and time.")
        if self.tar.mtime != int(bundle.created_at.timestamp()):
            self.tell("The members' time is not when the bundle was created.")
        self.places, problems = membership(bundle, sums)
        for problem in problems:
            self.tell(problem)
        self.uses = inspecting.plan(bundle)
        least = self.tar.position + sum(blob.size for blob in self.places.blobs.values())
        if self.total_size is not None and self.total_size < least:
            raise StructureError(
                f"The file has {self.total_size:,} bytes, but its members need more than {least:,}: it was not copied "
                "completely. Copy the bundle again."
            )
        for snapshot in bundle.snapshots:
            if not snapshot.known:
                self.notes.append(
                    f"{snapshot.label} is of the kind {snapshot.kind}, which this version of Airgap does not know; it "
                    "is left alone."
                )

    def _member(self, member: Member) -> None:
        """One listed member: its bytes hashed, looked into, and taken if somebody wants them."""
        name = member.name
        limit = self.places.limit(name) if self.places else DOCUMENTS.get(name)
        uses = self.uses.get(name, [])
        if uses and member.size != uses[0][1].size:
            self.tell(f"{name} has {member.size:,} bytes, but bundle.json says {uses[0][1].size:,}.")
        elif limit is not None and member.size > limit:
            raise StructureError(f"{name} has {member.size:,} bytes; at most {limit:,} are taken.")
        self.members.append(member)
        sink = self._sink(member) if uses else None
        inspections = self._inspections(member, uses, sink)
        try:
            self._stream(member, sink, inspections)
        except BaseException:
            if sink is not None:
                sink.discard()
            raise
        finally:
            for inspection in inspections:
                inspection.close()

    def _stream(self, member: Member, sink: Sink | None, inspections: list[Inspection]) -> None:
        running, before = hashlib.sha256(), len(self.problems)
        looking = list(inspections)
        for piece in self.tar.body(member.name, member.size):
            if sink is not None:
                sink.write(piece)
            else:
                running.update(piece)
            for inspection in list(looking):
                try:
                    inspection.feed(piece)
                except FAULTS as error:
                    self.tell(f"{member.name}: {error}")
                    looking.remove(inspection)
        if sink is None and f"sha256:{running.hexdigest()}" != member.digest:
            self._tell_damage(member, before)
            return
        if sink is not None:
            try:
                sink.commit()
            except DigestError:
                sink.discard()
                self._tell_damage(member, before)
                return
            self.taken.append(member.digest)
        for inspection in looking:
            if isinstance(inspection, StoredVexArchive) and sink is not None:
                inspection.file = sink.reading()
            try:
                inspection.finish(self.findings)
            except FAULTS as error:
                self.tell(f"{member.name}: {error}")

    def _tell_damage(self, member: Member, before: int) -> None:
        """Damaged bytes explain whatever was found inside them."""
        del self.problems[before:]
        self.tell(f"{member.name} is damaged: its bytes are not those that SHA256SUMS lists. Copy the bundle again.")

    def _sink(self, member: Member) -> Sink | None:
        wanted = self.on_blob is not None and self.accepted and not self.problems
        if not wanted or member.digest in self.offered or self.on_blob is None:
            return None
        self.offered.add(member.digest)
        return self.on_blob(member)

    def _inspections(self, member: Member, uses: Uses, sink: Sink | None) -> list[Inspection]:
        """Nothing is looked into on behalf of somebody whose signature was not accepted."""
        if not self.accepted or (uses and member.size != uses[0][1].size):
            return []
        if member.name in (LAYOUT, INDEX):
            return [inspecting.Kept(member.name)]
        if member.name in SCRIPTS:
            return [inspecting.Kept(member.name)]
        kinds = {snapshot.kind for snapshot, blob in uses if blob.role == LAYER}
        # What was read as a database of one kind says nothing of another.
        known = self.facts_of(member.digest, kinds.pop()) if self.facts_of and len(kinds) == 1 else None
        if known is not None:
            self.findings.layers[member.digest] = known
        spared = known is not None or (self.vouches is not None and self.vouches(self.signed_by, member.size))
        return list(inspecting.inspection_of(uses, with_sink=sink is not None, databases=not spared))

    def _note_scripts(self, bundle: ParsedBundle) -> None:
        for name in SCRIPTS if bundle.scripts else ():
            own: bytes | None = None
            with suppress(OSError):
                own = (SCRIPTS_FOLDER / name).read_bytes()
            if own is not None and self.findings.documents.get(name) != own:
                self.notes.append(
                    f"{name} is not the one that this version of Airgap writes ({bundle.program} made the bundle). "
                    "Compare its SHA-256 with the list of released scripts before anybody runs it."
                )
