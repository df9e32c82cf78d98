"""Looks into the databases whose dates were taken on a trusted signer's word, once their import is done.

Their bytes were verified; only what they say of themselves was not read, for a Java DB takes longer to be inflated than
to be copied. What it says counts: a date that differs is set right, and the import's report and the record tell of it.
"""

import logging
from collections.abc import Sequence
from datetime import datetime

from django.db import transaction
from django.db.models import Exists, F, OuterRef, QuerySet
from django.utils import timezone

from mirrors import content, record, wording, work_here
from mirrors.blobs import BlobStore, StoreError
from mirrors.digests import short
from mirrors.importing.planning import AHEAD
from mirrors.importing.report import Report
from mirrors.models import AuditEntry, Import, LayerFacts, Snapshot
from mirrors.stopping import Stopped, StopSignal
from mirrors.trivy import layers
from mirrors.trivy.catalogue import KINDS, Kind
from mirrors.trivy.layers import LayerError, LayerInspector

logger = logging.getLogger(__name__)

CORRECTED, UNUSABLE = "database date corrected", "database unusable"
CHUNK = 256 * 1024


def owed() -> list[tuple[str, Kind]]:
    """Layers here that nobody looked into yet, what is served first. Those found unusable are not looked into again."""
    kinds = [kind.name for kind in KINDS.values() if kind.has_metadata]
    rows = (
        Snapshot.objects.filter(mirror__kind__in=kinds)
        .exclude(layer_digest="")
        .exclude(Exists(LayerFacts.objects.filter(layer_digest=OuterRef("layer_digest"))))
        .order_by(F("replaced_at").asc(nulls_first=True), "-pk")
        .values_list("layer_digest", "mirror__kind")
    )
    found = {digest: KINDS[kind] for digest, kind in rows}
    known = AuditEntry.objects.filter(action=UNUSABLE, subject__in=list(found)) if found else ()
    for entry in known:
        found.pop(entry.subject, None)
    return list(found.items())


def look(*, store: BlobStore | None = None, stop: StopSignal | None = None) -> int:
    """Look into all that is owed; how many were not what their bundle says. What is missing is for the store check."""
    stop, store = stop or StopSignal(), store or content.store()
    wrong = 0
    with work_here.entered(stop):
        for digest, kind in owed():
            try:
                facts = _read(store, digest, kind, stop)
            except Stopped:
                return wrong
            except StoreError as error:
                logger.warning("The database %s was not looked into: %s", short(digest), error)
            except LayerError as error:
                wrong += 1
                _tell_unusable(digest, kind, str(error))
            else:
                wrong += _compare(digest, kind, facts, store.size(digest), timezone.now())
    return wrong


def _read(store: BlobStore, digest: str, kind: Kind, stop: StopSignal) -> layers.LayerFacts:
    with store.open(digest) as file, LayerInspector(kind, store.size(digest)) as inspector:
        while chunk := file.read(CHUNK):
            stop.check()
            inspector.feed(chunk)
        return inspector.finish()


def _compare(digest: str, kind: Kind, facts: layers.LayerFacts, size: int, now: datetime) -> bool:
    """Keep what was read; set right what was said otherwise. True if something was."""
    with transaction.atomic():
        LayerFacts.objects.bulk_create([LayerFacts.of(digest, kind.name, size, facts, now)], ignore_conflicts=True)
        rows = Snapshot.objects.filter(layer_digest=digest, mirror__kind=kind.name)
        wrong = list(rows.exclude(updated_at=facts.updated_at, next_update=facts.next_update))
        for snapshot in wrong:
            _correct(snapshot, kind, facts, now)
    return bool(wrong)


def _correct(snapshot: Snapshot, kind: Kind, facts: layers.LayerFacts, now: datetime) -> None:
    inside = wording.utc_text(facts.updated_at)
    said = wording.utc_text(snapshot.updated_at) if snapshot.updated_at else "no date"
    what = f"The {kind.label} {short(snapshot.digest)} says itself that it was built {inside}; its bundle said {said}."
    if facts.updated_at > now + AHEAD:
        # Taken over, it would be the newest time known, and nothing here could be fresh before then.
        what += " That is in the future, so the bundle's date stays. Ask whoever signed it, and import a newer bundle."
    else:
        snapshot.updated_at, snapshot.next_update = facts.updated_at, facts.next_update
        snapshot.save(update_fields=["updated_at", "next_update"])
        what += " The date was set right. Ask whoever signed it how that came."
    record.write("", CORRECTED, snapshot.layer_digest, what, at=now)
    _warn([snapshot], what)


def _tell_unusable(digest: str, kind: Kind, why: str) -> None:
    what = (
        f"{kind.label} {short(digest)}: {why} Trivy cannot use it, although its bundle was signed. Import a newer one."
    )
    logger.error("%s", what)
    with transaction.atomic():
        record.write("", UNUSABLE, digest, what)
        _warn(Snapshot.objects.filter(layer_digest=digest, mirror__kind=kind.name), what)


def _warn(snapshots: Sequence[Snapshot] | QuerySet[Snapshot], what: str) -> None:
    """Say it in the report of every import that brought one of them."""
    for run in Import.objects.filter(contents__snapshot__in=snapshots).distinct():
        report = Report.from_dict(run.report)
        report.warnings.append(what)
        Import.objects.filter(pk=run.pk).update(report=report.as_dict())
