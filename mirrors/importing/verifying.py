"""The one pass over a bundle: every byte is checked, new blobs go into the store, and a report of all problems results.

Nothing is switched here, and no row is written. Blobs that were taken before a problem was found are named by no row
and go with the next pruning; a second try finds those of them that are whole, and does not write them again.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

from mirrors import retention, wording
from mirrors.blobs import BlobStore
from mirrors.bundle import parsing
from mirrors.bundle.composition import Member
from mirrors.bundle.contents import BundleError
from mirrors.bundle.joining import Joined, VolumeFile, are_members, assemble, join
from mirrors.bundle.parsed import BundleReadError, Contents, ParsedBundle, Sink
from mirrors.bundle.reader import read_bundle
from mirrors.bundle.sinks import into
from mirrors.bundle.tar_reading import TarReader
from mirrors.importing.blaming import blame
from mirrors.importing.finding import FindingError
from mirrors.importing.planning import plan
from mirrors.importing.report import CONTENT, SIGNATURE, SITE, Report, moment
from mirrors.importing.switching import site_problem
from mirrors.importing.trust import Trust
from mirrors.models import LayerFacts
from mirrors.registry.errors import clean
from mirrors.signing import SignedBy
from mirrors.stopping import StopSignal
from mirrors.trivy import layers
from mirrors.trivy.catalogue import KINDS

# Databases up to this size in bytes are always looked into before they are switched to: beside hashing and writing it
# costs nothing that anybody would wait for. Only a Java DB is larger.
LOOKED_INTO = 192 * 1024 * 1024


@dataclass(frozen=True)
class Allowed:
    """What somebody may allow for one import."""

    unsigned: bool = False
    other_site: bool = False
    switch_older: bool = False


@dataclass
class Verified:
    """`bundle` is None unless all of it may be switched to; `said` is what bundle.json says, right or not; `facts` is
    what its databases say of themselves, by layer digest; `unread` names those of which the signer's word was taken.
    """

    report: Report
    bundle: ParsedBundle | None
    sums_digest: str = ""
    said: ParsedBundle | None = None
    facts: Mapping[str, layers.LayerFacts] = field(default_factory=dict)
    unread: tuple[str, ...] = ()


def verify(
    files: Sequence[VolumeFile],
    *,
    now: datetime,
    allowed: Allowed,
    store: BlobStore | None,
    stop: StopSignal | None = None,
    progress: Callable[[int, str], object] | None = None,
    starting: Callable[[int], object] = lambda new_bytes: None,
    listed: VolumeFile | None = None,
) -> Verified:
    """Read all of it. `store` None is a dry run: nothing is written. `starting` hears how many bytes are new.
    `listed` is the list of checksums that came with volumes: it is asked which of them is damaged if one is.

    With a store the caller holds `store.in_use()` until rows name the blobs. Raises FindingError, NoRoomError,
    StoreError, Stopped.
    """
    began = time.monotonic()
    report, trust = Report(size=sum(file.size for file in files)), Trust(allowed.unsigned)
    bundle = peek(files)
    if bundle is not None and store is not None:
        needed = new_bytes(bundle, store)
        retention.require_room(needed, run_id=0, store=store)
        starting(needed)
    sums_digest = ""
    contents: Contents | None
    try:
        with opened(files) as stream:
            contents = read_bundle(
                stream,
                check_signature=trust,
                on_blob=Intake(store) if store is not None else None,
                total_size=stream.size,
                facts_of=known_facts,
                vouches=vouches,
                progress=progress,
                stop=stop,
            )
    except BundleReadError as error:
        contents = error.contents
        report.problems = list(error.problems)
        report.refusal = SIGNATURE if trust.refused and len(error.problems) == 1 else CONTENT
    except OSError as error:
        which = clean(str(error.filename or "The bundle"), 120)
        raise FindingError(f"{which} cannot be read: {error.strerror}. Try another drive, or copy it again.") from error
    if trust.found is not None:
        report.signature, report.fingerprint = str(trust.found.standing), trust.found.fingerprint
        report.signed_by = trust.found.name if trust.found.is_trusted else ""
    if report.problems:
        blame(files, listed, report, progress=progress, stop=stop)
    if contents is not None:
        bundle, sums_digest = contents.bundle, contents.sums_digest
        report.new_bytes = sum(member.size for member in contents.members if member.digest in contents.taken)
        report.warnings += contents.notes
    if bundle is not None:
        _describe(report, bundle, now=now, allowed=allowed)
    report.seconds = round(time.monotonic() - began, 3)
    facts = contents.layers if contents is not None else {}
    good = bundle if report.is_good else None
    return Verified(report, good, sums_digest, bundle, facts, _unread(good, facts))


def _unread(bundle: ParsedBundle | None, facts: Mapping[str, layers.LayerFacts]) -> tuple[str, ...]:
    return tuple(
        snapshot.label
        for snapshot in (bundle.snapshots if bundle is not None else ())
        if snapshot.known and KINDS[snapshot.kind].has_metadata and snapshot.layer_digest not in facts
    )


def _describe(report: Report, bundle: ParsedBundle, *, now: datetime, allowed: Allowed) -> None:
    report.bundle, report.created_at, report.program = bundle.id, moment(bundle.created_at), bundle.program
    report.site = bundle.site
    found = plan(bundle, now=now, switch_older=allowed.switch_older)
    report.snapshots = [decision.report() for decision in found.decisions]
    report.left_out = found.left_out
    report.warnings += found.warnings
    elsewhere = site_problem(bundle)
    if elsewhere and allowed.other_site:
        report.warnings.append(f"{wording.first_sentence(elsewhere)}. It was allowed for this import.")
        elsewhere = ""
    if found.problems:
        report.refusal = CONTENT
    elif elsewhere:
        report.refusal = report.refusal or SITE
    report.problems += found.problems + ([elsewhere] if elsewhere else [])


def peek(files: Sequence[VolumeFile]) -> ParsedBundle | None:
    """bundle.json alone, to know what is coming; None where that cannot be read, which the real pass then explains."""
    with suppress(BundleError, BundleReadError, FindingError, OSError), opened(files) as stream:
        tar = TarReader(stream)
        name, size = tar.begin(("bundle.json", 0o644))
        if size <= parsing.JSON_LIMIT:
            return parsing.parse_bundle(b"".join(tar.body(name, size)), lambda problem: None)
    return None


def opened(files: Sequence[VolumeFile]) -> Joined:
    """The bundle's tar, of whatever files it came in. Raises BundleReadError before the first is opened."""
    return assemble(files) if are_members(files) else join(files)


def new_bytes(bundle: ParsedBundle, store: BlobStore) -> int:
    """How much of it the store does not have yet."""
    sizes = {blob.digest: blob.size for snapshot in bundle.snapshots for blob in snapshot.blobs}
    return sum(size for digest, size in sizes.items() if not (store.has(digest) and store.size(digest) == size))


def vouches(signed_by: object, size: int) -> bool:
    """Whether a trusted signer's word is taken for the date inside a database of so many bytes (decision 0030).

    Whoever signed read that date in these very bytes, which their digest proves; a small one is read all the same.
    """
    return size > LOOKED_INTO and isinstance(signed_by, SignedBy) and signed_by.is_trusted


def known_facts(layer_digest: str, kind: str) -> layers.LayerFacts | None:
    """What was read in this layer before, by a sync or an import."""
    row = LayerFacts.objects.filter(layer_digest=layer_digest, kind=kind).first()
    if row is None:
        return None
    return layers.LayerFacts(row.schema, row.updated_at, row.next_update, row.inflated_bytes, 0, ())


class Intake:
    """Takes the blobs that the store lacks, one at a time. Others write too, so room is looked for before each."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self._take = into(store)

    def __call__(self, member: Member) -> Sink | None:
        sink = self._take(member)
        if sink is not None:
            try:
                retention.require_room(member.size, run_id=0, store=self._store)
            except retention.NoRoomError:
                sink.discard()
                raise
        return sink
