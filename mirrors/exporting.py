"""Export: bundles made from snapshots, their bytes on the way out, and who took them.

A bundle is a recipe and holds what it is made of: from the transaction that creates it until it expires, retention
leaves its snapshots and blobs alone. Its order of locks is retention's.
"""

import hashlib
import logging
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Protocol

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from mirrors import cache_archive, content, keys, preparing, record, retention, wording, work_here
from mirrors.blobs import BlobStore, StoreError
from mirrors.bundle.compose import compose
from mirrors.bundle.composition import Composition, Recipe
from mirrors.bundle.contents import BundledBlob, BundledSnapshot, BundleError, Crossing
from mirrors.bundle.files import files_folder_name
from mirrors.keys import KeysError
from mirrors.models import Bundle, BundleBlob, BundlePart, BundleSnapshot, Export, Mirror, Snapshot, Transfer
from mirrors.preparing import ClaimLost, Work
from mirrors.stopping import Stopped, StopSignal
from mirrors.trivy.cache import CacheError
from mirrors.trivy.vex import is_directory

logger = logging.getLogger(__name__)

Profile, State = Bundle.Profile, Bundle.State
# Their content has to be read before they are what they will be, so they are not made while a person waits.
BY_A_WORKER = (Profile.CACHE, Profile.FILES)

# A worker that prepares a bundle is taken for dead after this long a silence.
SILENT_AFTER = timedelta(seconds=90)
# A second click within this time gets the bundle of the first.
SAME_WITHIN = timedelta(minutes=5)


class ExportError(Exception):
    """A bundle cannot be made or sent; the sentence says why and what to do."""


class Output(Protocol):
    """Where a bundle is written to."""

    def write(self, data: bytes, /) -> object: ...


class File(Protocol):
    """What can be sent: a bundle composed on the way, or a finished archive."""

    @property
    def size(self) -> int: ...
    @property
    def etag(self) -> str: ...
    def problems(self) -> list[str]: ...
    def read(self, start: int, stop: int) -> Iterator[bytes]: ...


# Choosing


def current_snapshots(names: Sequence[str] = ()) -> list[Snapshot]:
    """The current snapshots of the named mirrors in that order, or everything current, which leaves release files out.

    Raises ExportError.
    """
    mirrors = Mirror.objects.select_related("current").order_by("position", "name")
    if not names:
        everything = [mirror for mirror in mirrors if mirror.asset.in_everything]
        snapshots = [mirror.current for mirror in everything if mirror.current is not None]
        if not snapshots:
            first = "Import a bundle first." if settings.AIRGAP_SIDE == "isolated" else "Sync one first."
            raise ExportError(f"There is nothing to export yet: no database holds anything. {first}")
        return snapshots
    named = {mirror.name: mirror for mirror in mirrors if mirror.name in names}
    chosen: list[Snapshot] = []
    for name in dict.fromkeys(names):
        if name not in named:
            raise ExportError(f"There is no mirror called {name}.")
        current = named[name].current
        if current is None:
            raise ExportError(f"{name} has nothing to export yet: it was never synced. Sync it first.")
        chosen.append(current)
    return chosen


def describe(snapshots: Sequence[Snapshot]) -> list[BundledSnapshot]:
    """The rows as the plain values that bundles are made of, in the same number of queries for any number of them."""
    rows = Snapshot.objects.filter(pk__in=[snapshot.pk for snapshot in snapshots])
    found = {row.pk: row for row in rows.select_related("mirror").prefetch_related("blobs", "mirror__sources")}
    gone = [snapshot for snapshot in snapshots if snapshot.pk not in found]
    if gone:
        raise ExportError("A snapshot was removed while the bundle was being made. Try again.")
    return [_described(found[snapshot.pk]) for snapshot in snapshots]


def _told_outside(reference: str) -> str:
    """A source as it is named to whoever gets the bundle: without query (it may hold a token) and fragment (a host of
    our own), and of a directory only its last part, for the path says how things are called here."""
    if is_directory(reference):
        return "file:" + reference.rstrip("/").rpartition("/")[2]
    return reference.partition("?")[0].partition("#")[0]


def _described(snapshot: Snapshot) -> BundledSnapshot:
    mirror, blobs = snapshot.mirror, list(snapshot.blobs.all())
    own = next((blob for blob in blobs if blob.digest == snapshot.manifest_digest), None)
    if own is None:
        raise ExportError(f"The rows of {mirror.label} name no manifest. Sync it again, then export.")
    if reason := mirror.asset.refused_versions.get(snapshot.version):
        raise ExportError(f"{mirror.label} {snapshot.version} is not exported: {reason}. Sync it, then export.")
    others = [
        source
        for source in mirror.sources.all()
        if source.reference != snapshot.source_reference and source.layer_digest == snapshot.layer_digest
    ]
    return BundledSnapshot(
        mirror=mirror.name,
        label=mirror.label,
        kind=mirror.kind,
        tag=snapshot.tag,
        reference=_told_outside(snapshot.source_reference),
        manifest_digest=snapshot.manifest_digest,
        manifest_size=own.size_bytes,
        manifest_media_type=own.media_type,
        layer_digest=snapshot.layer_digest,
        updated_at=snapshot.updated_at,
        next_update=snapshot.next_update,
        published_at=snapshot.published_at,
        fetched_at=snapshot.fetched_at,
        confirmed_at=snapshot.confirmed_at,
        tls_verified=snapshot.tls_verified,
        same_layer_sources=len(others) if snapshot.layer_digest else 0,
        version=snapshot.version,
        artifact_type=snapshot.artifact_type,
        blobs=tuple(
            BundledBlob(blob.digest, blob.size_bytes, blob.media_type, blob.role, blob.name, blob.details)
            for blob in blobs
        ),
    )


# Making


def create_bundle(
    snapshots: Sequence[Snapshot],
    *,
    profile: str,
    now: datetime,
    by: str,
    address: str = "",
    store: BlobStore | None = None,
    reuse: bool = False,
    crossing: Crossing | None = None,
    on_created: Callable[[Bundle], object] = lambda bundle: None,
) -> Bundle:
    """A bundle of these snapshots, one of each mirror. Reads no layer, so it takes milliseconds.

    1. Hold the store, so that nothing is pruned meanwhile. 2. Render the small documents. 3. In one transaction: look
    again whether the snapshots exist, and write the rows that protect them.

    A cache archive and single files are left `preparing` for a worker, and a bundle whose key is kept outside waits,
    `unsigned`. With `reuse`, a bundle of the same that this person just made is returned instead. `crossing` says for
    which site it is; `on_created` is called in the transaction. Raises ExportError.
    """
    store = store or content.store()
    site = crossing.site if crossing is not None else None
    with store.in_use():
        described = describe(snapshots)
        if profile == Profile.CACHE:
            described = _for_cache(described)
            snapshots = [snapshot for snapshot in snapshots if snapshot.mirror.name in {d.mirror for d in described}]
        if reuse and (same := _just_made(snapshots, profile, site, by, now)) is not None:
            return same
        bundle = Bundle(
            id=secrets.token_hex(4),
            profile=profile,
            created_at=now,
            created_by_name=by[:150],
            expires_at=now + timedelta(days=settings.AIRGAP_BUNDLE_DAYS),
        )
        recipe = _settle(bundle, described, store, crossing)
        with transaction.atomic():
            retention.lock_references()
            present = Snapshot.objects.select_for_update().filter(pk__in=[snapshot.pk for snapshot in snapshots])
            if len(present) != len(snapshots):
                raise ExportError("A snapshot was removed while the bundle was being made. Try again.")
            if reuse and (same := _just_made(snapshots, profile, site, by, now)) is not None:
                return same
            bundle.save(force_insert=True)
            _write_rows(bundle, snapshots, recipe)
            record.write(by, "bundle created", bundle.filename, _contents_text(described), address, at=now)
            on_created(bundle)
    return bundle


def _for_cache(described: list[BundledSnapshot]) -> list[BundledSnapshot]:
    placed = [place.snapshot for place in cache_archive.place_all(described)]
    if not placed:
        raise ExportError("None of this has a place in a Trivy cache. Make a transfer bundle of it instead.")
    return placed


def _settle(
    bundle: Bundle, described: list[BundledSnapshot], store: BlobStore, crossing: Crossing | None
) -> Recipe | None:
    """Decide name, size and state; render what a composed bundle needs."""
    if bundle.profile in BY_A_WORKER:
        for snapshot in described:
            _require_present(snapshot, store)
        bundle.state = State.PREPARING
        bundle.filename = f"airgap-cache-{bundle.created_at:%Y%m%dT%H%M%SZ}-{bundle.id}.tar.gz"
        if bundle.profile == Profile.FILES:
            bundle.filename = f"{files_folder_name(bundle.id, bundle.created_at)}.tar"
            bundle.recipe = preparing.noted(crossing)
        # What it will be is known when it is made; until then about what is in it, packed once already.
        bundle.size_bytes = sum(snapshot.size for snapshot in described)
        return None
    scripts = bundle.profile == Profile.FULL
    try:
        about = (bundle.id, bundle.created_at, settings.VERSION)
        signer = keys.signer()
        recipe = compose(*about, described, store, scripts=scripts, crossing=crossing, signer=signer)
    except (BundleError, StoreError, KeysError) as error:
        raise ExportError(str(error)) from error
    composition = Composition(recipe, store)
    bundle.state, bundle.signer = State.READY if signer.sign else State.UNSIGNED, signer.fingerprint
    bundle.filename, bundle.size_bytes, bundle.etag = composition.filename, composition.size, composition.etag
    bundle.recipe = recipe.as_dict()
    return recipe


def _require_present(snapshot: BundledSnapshot, store: BlobStore) -> None:
    try:
        for blob in snapshot.blobs:
            store.size(blob.digest)
    except StoreError as error:
        raise ExportError(f"{snapshot.label} cannot be exported. {error}") from error


def _write_rows(bundle: Bundle, snapshots: Sequence[Snapshot], recipe: Recipe | None) -> None:
    BundleSnapshot.objects.bulk_create(
        BundleSnapshot(
            bundle=bundle,
            snapshot=snapshot,
            mirror_name=snapshot.mirror.name,
            label=snapshot.mirror.label,
            digest=snapshot.digest,
            updated_at=snapshot.updated_at,
            size_bytes=snapshot.size_bytes,
            kind=snapshot.mirror.kind,
            identity=snapshot.identity,
            next_update=snapshot.next_update,
            confirmed_at=snapshot.confirmed_at,
        )
        for snapshot in snapshots
    )
    if recipe is not None:
        BundleBlob.objects.bulk_create(BundleBlob(bundle=bundle, digest=digest) for digest in recipe.rendered)


def _just_made(snapshots: Sequence[Snapshot], profile: str, site: str | None, by: str, now: datetime) -> Bundle | None:
    """What this person made of the same for the same site a moment ago: a second click, not a second wish."""
    wanted = {snapshot.pk for snapshot in snapshots}
    recent = Bundle.objects.kept().filter(
        profile=profile,
        created_by_name=by[:150],
        created_at__gt=now - SAME_WITHIN,
        state__in=[State.READY, State.UNSIGNED, State.PREPARING],
    )
    if site is None:
        recent = recent.filter(transfer=None)
    else:
        recent = recent.filter(transfer__site__code=site, transfer__state=Transfer.State.PREPARED)
    for bundle in recent.prefetch_related("contents"):
        if {row.snapshot_id for row in bundle.contents.all()} == wanted:
            return bundle
    return None


def _contents_text(described: Iterable[BundledSnapshot]) -> str:
    return ", ".join(
        f"{snapshot.mirror} {(snapshot.layer_digest or snapshot.manifest_digest)[:17]}" for snapshot in described
    )


def delete_bundle(bundle: Bundle, *, by: str, now: datetime, address: str = "") -> bool:
    """Give a bundle up before its time. The row with its contents and exports stays; the space comes back soon."""
    with transaction.atomic():
        retention.lock_references()
        if not retention.forget_bundle(bundle, now):
            return False
        sentence = f"Deleted by {by} on {wording.utc_text(now)}."
        Bundle.objects.filter(pk=bundle.pk).update(expires_at=now, problem=sentence)
        record.write(by, "bundle deleted", bundle.filename, "", address, at=now)
    return True


# Sending


def file_of(bundle: Bundle, store: BlobStore | None = None) -> File:
    """What is sent for this bundle. Raises ExportError with the reason why there is nothing to send."""
    store = store or content.store()
    if bundle.expired_at is not None:
        raise ExportError(f"{bundle.filename} is no longer kept. Make a new bundle of what is current.")
    if bundle.state == State.PREPARING:
        raise ExportError(f"{bundle.filename} is still being prepared. Its page says how far it is.")
    if bundle.state == State.UNSIGNED:
        raise ExportError(f"{bundle.filename} waits for its signature. Its page takes it.")
    if bundle.state != State.READY:
        raise ExportError(f"{bundle.filename} cannot be sent. {bundle.problem}")
    try:
        if bundle.profile == Profile.CACHE:
            return cache_archive.StoredFile(bundle.recipe["blob"], store)
        return Composition(Recipe.from_dict(bundle.recipe), store)
    except BundleError as error:
        raise ExportError(str(error)) from error


def checked_file_of(bundle: Bundle, store: BlobStore | None = None) -> File:
    """As `file_of`, after asking for every part's size: what is missing is found before the first byte, not after."""
    file = file_of(bundle, store)
    problems = file.problems()
    if not problems and file.size != bundle.size_bytes:
        problems = [f"The file would have {file.size} bytes instead of {bundle.size_bytes}. Make a new bundle."]
    if problems:
        mark_damaged(bundle.pk, problems[0])
        raise ExportError(f"{bundle.filename} cannot be sent. {problems[0]}")
    return file


def mark_damaged(bundle_id: str, problem: str) -> bool:
    """A part was found missing or damaged. Nothing more is sent of this bundle until a store check finds it whole."""
    found = Bundle.objects.kept().filter(pk=bundle_id, state=State.READY)
    marked = found.update(state=State.DAMAGED, problem=problem, work_started_at=None)
    if marked:
        logger.error("Bundle %s is damaged: %s", bundle_id, problem)
    return bool(marked)


def record_export(bundle_id: str, *, by: str, now: datetime, address: str = "") -> None:
    """The last byte was sent: that is what "exported" means."""
    with transaction.atomic():
        bundle = Bundle.objects.get(pk=bundle_id)
        Export.objects.create(bundle=bundle, at=now, by=by[:150], address=address[:64])
        Bundle.objects.filter(pk=bundle_id, first_exported_at=None).update(first_exported_at=now)
        detail = f"{wording.size_text(bundle.size_bytes)}" + (f", sha256 {bundle.sha256}" if bundle.sha256 else "")
        record.write(by, "bundle exported", bundle.filename, detail, address, at=now)


def write_to(
    bundle: Bundle,
    output: Output,
    *,
    progress: Callable[[int], object] = lambda size: None,
    store: BlobStore | None = None,
) -> str:
    """Write the whole file and return its SHA-256 (64 hex digits), computed on the way and kept. Raises ExportError."""
    file = checked_file_of(bundle, store)
    running = hashlib.sha256()
    try:
        for chunk in file.read(0, file.size):
            output.write(chunk)
            running.update(chunk)
            progress(len(chunk))
    except BundleError as error:
        mark_damaged(bundle.pk, str(error))
        raise ExportError(f"{bundle.filename} cannot be sent. {error}") from error
    sha256 = running.hexdigest()
    Bundle.objects.filter(pk=bundle.pk, sha256="").update(sha256=sha256, work_started_at=None)
    bundle.sha256 = sha256
    return sha256


# Preparing


def waiting() -> QuerySet[Bundle]:
    """Bundles whose file, or the sum of it or of its volumes, a worker has still to make."""
    unsummed = BundlePart.objects.filter(bundle=OuterRef("pk"), kind=BundlePart.Kind.VOLUME, sha256="")
    kept = Bundle.objects.kept().filter(state__in=[State.PREPARING, State.READY])
    return kept.filter(Q(sha256="") | Exists(unsummed))


def unprepared(now: datetime, store: BlobStore | None = None) -> list[str]:
    """Ids of bundles that need a worker: never begun, begun by one that went silent, or damaged and whole again."""
    ids = list(_idle(waiting(), now).order_by("created_at").values_list("pk", flat=True))
    store = store or content.store()
    return ids + [bundle.pk for bundle in _idle(_composed_damaged(), now) if _looks_whole(bundle, store)]


def _idle(bundles: QuerySet[Bundle], now: datetime) -> QuerySet[Bundle]:
    return bundles.filter(Q(work_started_at=None) | Q(work_started_at__lt=now - SILENT_AFTER))


def _composed_damaged() -> QuerySet[Bundle]:
    """A part of it was fetched again since, perhaps. A cache archive is not made again: its sum may differ."""
    return Bundle.objects.kept().filter(state=State.DAMAGED).exclude(profile=Profile.CACHE)


def _looks_whole(bundle: Bundle, store: BlobStore) -> bool:
    try:
        return not Composition(Recipe.from_dict(bundle.recipe), store).problems()
    except BundleError:
        return False


def prepare(bundle_id: str, *, store: BlobStore | None = None, stop: StopSignal | None = None) -> bool:
    """What a worker does for a bundle: SHA-256 of the file and of its volumes, and before it, for a cache archive or
    single files, what is to be sent.

    False when there is nothing to do or somebody else does it. However it ends, the bundle's row says so.
    """
    store, stop = store or content.store(), stop or StopSignal()
    now = timezone.now()
    wanted = _idle(waiting() | _composed_damaged(), now)
    found = Bundle.objects.filter(pk__in=wanted.filter(pk=bundle_id).values("pk"))
    if not _idle(found, now).update(work_started_at=now, bytes_done=0):
        return False
    work = Work(bundle_id, now, stop)
    try:
        with work_here.entered(stop):
            _prepare(Bundle.objects.get(pk=bundle_id), work, store)
    except ClaimLost:
        logger.info("Bundle %s is prepared by somebody else, or gone", bundle_id)
        return False
    return True


def _prepare(bundle: Bundle, work: Work, store: BlobStore) -> None:
    try:
        if bundle.state == State.PREPARING:
            make = preparing.pack_archive if bundle.profile == Profile.CACHE else preparing.settle_files
            make(bundle, describe([row.snapshot for row in bundle.contents.all() if row.snapshot]), work, store)
        else:
            preparing.sum_up(bundle, work, store)
    except Stopped:
        work.finish()
    except (BundleError, CacheError, StoreError, ExportError, KeysError, retention.NoRoomError) as error:
        state = State.FAILED if bundle.state == State.PREPARING else State.DAMAGED
        logger.error("Preparing bundle %s failed: %s", bundle.pk, error)
        work.finish(state=state, problem=str(error))
        _set_aside_damaged(bundle, store)


def _set_aside_damaged(bundle: Bundle, store: BlobStore) -> None:
    """Move damaged parts out of the way: the next sync then fetches them again, and the bundle can be whole again."""
    with suppress(BundleError):
        for digest in Recipe.from_dict(bundle.recipe).digests:
            if store.verify(digest) == "damaged":
                store.quarantine(digest)
