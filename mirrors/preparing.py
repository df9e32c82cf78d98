"""What a worker does for a bundle: the SHA-256 of its file and of its volumes, and before it, for a cache archive or
single files, what is to be sent.

Whoever works holds a claim on the row; found moved, it is lost, and nothing is written any more.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from mirrors import cache_archive, keys, retention
from mirrors.blobs import BlobStore
from mirrors.bundle.composition import Composition, Recipe
from mirrors.bundle.contents import Assumed, BundledSnapshot, Crossing
from mirrors.bundle.files import compose_files
from mirrors.bundle.volumes import VolumeSums
from mirrors.models import Bundle, BundleBlob, BundlePart
from mirrors.stopping import StopSignal

Profile, State = Bundle.Profile, Bundle.State

ASSUMED_TIMES = ("updated_at", "confirmed_at")
# A worker says this often that it is still there.
BEAT_SECONDS = 2.0


class ClaimLost(Exception):
    """Somebody else prepares this bundle now, or it is gone."""


class Work:
    """A claim on preparing one bundle: `work_started_at`, moved on by every sign of life. Found moved, it is lost."""

    def __init__(self, bundle_id: str, moment: datetime, stop: StopSignal) -> None:
        self.bundle_id, self.moment, self.stop = bundle_id, moment, stop
        self.done = 0
        self._beaten = time.monotonic()

    def progress(self, size: int) -> None:
        self.done += size
        if time.monotonic() - self._beaten >= BEAT_SECONDS:
            self._beaten = time.monotonic()
            now = timezone.now()
            self._update(work_started_at=now, bytes_done=self.done)
            self.moment = now

    def finish(self, **values: object) -> None:
        """Write the outcome and let go, if the claim is still ours."""
        self._update(work_started_at=None, **values)

    def keep(self, **values: object) -> None:
        """Write what was found so far, and go on."""
        now = timezone.now()
        self._update(work_started_at=now, **values)
        self.moment = now

    def _update(self, **values: object) -> None:
        if not Bundle.objects.kept().filter(pk=self.bundle_id, work_started_at=self.moment).update(**values):
            raise ClaimLost


def noted(crossing: Crossing | None) -> dict[str, Any]:
    """What a recipe holds until a worker makes the real one: for whom it will be."""
    if crossing is None:
        return {}
    values = asdict(crossing)
    for each in values["assumed"]:
        each.update({name: each[name] and each[name].isoformat() for name in ASSUMED_TIMES})
    return {"crossing": values}


def remembered(recipe: dict[str, Any]) -> Crossing | None:
    """The other way round."""
    if "crossing" not in recipe:
        return None
    values = dict(recipe["crossing"])
    assumed = [
        Assumed(**each | {name: each[name] and datetime.fromisoformat(each[name]) for name in ASSUMED_TIMES})
        for each in values.pop("assumed")
    ]
    return Crossing(**values, assumed=tuple(assumed))


def sum_up(bundle: Bundle, work: Work, store: BlobStore) -> None:
    """One pass for the whole file and all its volumes. Volumes chosen anew meanwhile are left for the next one."""
    sums = VolumeSums(bundle.volumes)
    if bundle.profile == Profile.CACHE:
        for piece in cache_archive.StoredFile(bundle.recipe["blob"], store).read(0, bundle.size_bytes):
            work.stop.check()
            sums.update(piece)
            work.progress(len(piece))
        sha256 = bundle.sha256
    else:
        composition = Composition(Recipe.from_dict(bundle.recipe), store)
        sha256 = composition.sha256(work.progress, work.stop, sums.update if bundle.volumes else None)
    with transaction.atomic():
        work.finish(sha256=sha256, bytes_done=bundle.size_bytes, state=State.READY, problem="")
        if Bundle.objects.filter(pk=bundle.pk, volume_size=bundle.volume_size).exists():
            for volume, own in zip(bundle.volumes, sums.hexdigests(), strict=True):
                bundle.parts.filter(kind=BundlePart.Kind.VOLUME, name=volume.name(bundle.filename)).update(sha256=own)


def settle_files(bundle: Bundle, described: Sequence[BundledSnapshot], work: Work, store: BlobStore) -> None:
    """List what is in each archive, settle the recipe and sum it; or leave it to wait for its signature."""
    signer = keys.signer()
    with store.in_use():
        recipe = compose_files(
            bundle.id,
            bundle.created_at,
            settings.VERSION,
            described,
            store,
            crossing=remembered(bundle.recipe),
            signer=signer,
            progress=work.progress,
            stop=work.stop,
        )
        composition = Composition(recipe, store)
        with transaction.atomic():
            retention.lock_references()
            BundleBlob.objects.bulk_create(BundleBlob(bundle=bundle, digest=digest) for digest in recipe.rendered)
            settled = {"recipe": recipe.as_dict(), "size_bytes": composition.size, "etag": composition.etag}
            settled["signer"] = signer.fingerprint
            if not signer.sign:
                work.finish(state=State.UNSIGNED, bytes_done=0, **settled)
                return
            work.keep(state=State.READY, **settled)
    bundle.refresh_from_db()
    work.done = 0
    sum_up(bundle, work, store)


def pack_archive(bundle: Bundle, described: Sequence[BundledSnapshot], work: Work, store: BlobStore) -> None:
    retention.require_room(bundle.size_bytes, store=store)
    with store.in_use():
        placed = cache_archive.place_all(described)
        digest, size = cache_archive.write(placed, store, bundle.created_at, progress=work.progress, stop=work.stop)
        sha256 = digest.removeprefix("sha256:")
        with transaction.atomic():
            retention.lock_references()
            work.finish(
                state=State.READY,
                recipe={"blob": digest},
                size_bytes=size,
                bytes_done=size,
                etag=f'"{sha256}"',
                sha256=sha256,
            )
            BundleBlob.objects.get_or_create(bundle=bundle, digest=digest)
