"""Imports: asked for, decided, given up. `IMPORTS` is their life; one runs at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Q

from mirrors import content, record, wording
from mirrors.blobs import BlobStore
from mirrors.importing import parsed_json, staging
from mirrors.importing.finding import Candidate
from mirrors.importing.report import SIGNATURE, Report
from mirrors.importing.switching import CannotSwitch, carry_out
from mirrors.leases import MOST_LOSSES, SILENT_AFTER, Life, is_gone, worker_name
from mirrors.models import Import, ImportBlob, Run, Step, Upload
from mirrors.registry.errors import clean

MOST_OPEN = 50

Origin = Import.Origin
State = Run.State


class ImportRefused(Exception):
    """It cannot be imported, or decided so; the sentence says why."""


@dataclass(frozen=True)
class Wishes:
    """How it is to be imported. `allowed_by` and `reason` say who allowed what is usually refused, and why."""

    at_once: bool = False
    switch_older: bool = False
    allow_unsigned: bool = False
    allow_other_site: bool = False
    allowed_by: str = ""
    reason: str = ""


def refuse_on_the_connected_side() -> None:
    if settings.AIRGAP_SIDE == "connected":
        raise ImportRefused(
            "This is the connected side: it fetches from sources and imports nothing (AIRGAP_SIDE is connected)."
        )


def request_import(
    candidate: Candidate, *, origin: str, by: str, now: datetime, wishes: Wishes | None = None, address: str = ""
) -> Import:
    """A queued import of these files. Raises ImportRefused."""
    return _request(candidate.name, files_of(candidate), (), origin, by, now, wishes or Wishes(), address)


def files_of(candidate: Candidate) -> list[dict[str, Any]]:
    """Where they lie and what is known of them, for the row."""
    return [
        {
            "name": part.name,
            "path": str(part.path.resolve()),
            "size": part.size,
            "modified": wording.rfc3339(part.modified),
        }
        for part in candidate.parts
    ]


def request_import_of_uploads(
    uploads: Sequence[Upload], name: str, *, by: str, now: datetime, wishes: Wishes | None = None, address: str = ""
) -> Import:
    """A queued import of complete uploads, in the order of their volumes; the list of these is not among its files.

    Raises ImportRefused.
    """
    files = [
        {"name": upload.name.rpartition("/")[2], "upload": upload.pk, "size": upload.size_bytes}
        for upload in uploads
        if not upload.is_list
    ]
    return _request(name, files, uploads, Origin.UPLOAD, by, now, wishes or Wishes(), address)


def _request(
    name: str,
    files: list[dict[str, Any]],
    uploads: Sequence[Upload],
    origin: str,
    by: str,
    now: datetime,
    wishes: Wishes,
    address: str,
    losses: int = 0,
) -> Import:
    refuse_on_the_connected_side()
    with transaction.atomic():
        if Import.objects.open().count() >= MOST_OPEN:
            raise ImportRefused(f"{MOST_OPEN} imports are open already. Decide or stop some of them first.")
        run = Import.objects.create(
            origin=origin,
            name=clean(name, 200),
            files=files,
            size_bytes=sum(file["size"] for file in files),
            requested_by=by[:150],
            queued_at=now,
            losses=losses,
            at_once=wishes.at_once,
            switch_older=wishes.switch_older,
            allow_unsigned=wishes.allow_unsigned,
            allow_other_site=wishes.allow_other_site,
            allowed_by=wishes.allowed_by[:150],
            allowed_reason=clean(wishes.reason, 200),
        )
        pks = [upload.pk for upload in uploads]
        if Upload.objects.filter(pk__in=pks, run=None).update(run=run) != len(pks):
            raise ImportRefused("One of the files is being imported already, or was removed. Look at the list again.")
        allowed = ("unsigned or by an unknown key", run.allow_unsigned), ("for another site", run.allow_other_site)
        what = [word for word, said in allowed if said]
        if what:
            reason = f": {run.allowed_reason}" if run.allowed_reason else ""
            record.write(
                wishes.allowed_by or by, "import allowed", name, f"{wording.joined(what)}{reason}", address, at=now
            )
    return run


def again(run: Import, *, by: str, now: datetime, wishes: Wishes, address: str = "", losses: int = 0) -> Import:
    """A new import of the same files, with other wishes. Raises ImportRefused where they are no longer here."""
    with transaction.atomic():
        locked = Import.objects.select_for_update().get(pk=run.pk)
        if locked.is_open:
            raise ImportRefused("This import is still under way.")
        uploads = list(Upload.objects.filter(run=locked))
        if not {file["upload"] for file in locked.files if "upload" in file} <= {upload.pk for upload in uploads}:
            raise ImportRefused("The uploaded files were removed already. Upload them again.")
        Upload.objects.filter(run=locked).update(run=None)
        # No command waits for this one, so a worker makes it.
        origin = Origin.DIRECTORY if locked.origin == Origin.COMMAND else locked.origin
        return _request(locked.name, locked.files, uploads, origin, by, now, wishes, address, losses)


def successor(run: Import) -> Import | None:
    """The import that was begun in place of a lost one."""
    if run.state != State.LOST:
        return None
    later = Import.objects.filter(pk__gt=run.pk, name=run.name, origin=run.origin, losses=run.losses + 1)
    return later.order_by("pk").first()


def allow(run: Import, *, by: str, now: datetime, reason: str, address: str = "") -> Import:
    """What an administrator does with an import that was refused for its signature or its site: once more, allowed."""
    report = Report.from_dict(run.report)
    if not report.may_be_allowed:
        raise ImportRefused("This import was refused for what nobody can allow: its bytes or its signature are wrong.")
    if not reason.strip():
        raise ImportRefused("Say why it is allowed; the reason stands in the record.")
    unsigned = run.allow_unsigned or report.refusal == SIGNATURE
    wishes = Wishes(
        switch_older=run.switch_older,
        allow_unsigned=unsigned,
        allow_other_site=run.allow_other_site or report.refusal != SIGNATURE,
        allowed_by=by,
        reason=reason,
    )
    return again(run, by=by, now=now, wishes=wishes, address=address)


# Deciding


def decide(
    run: Import,
    *,
    switch_older: bool,
    by: str,
    now: datetime,
    address: str = "",
    store: BlobStore | None = None,
) -> Import:
    """Switch everything that was verified, or nothing. Raises ImportRefused."""
    store = store or content.store()
    with store.in_use(), transaction.atomic():
        locked = Import.objects.select_for_update().get(pk=run.pk)
        if not locked.is_waiting:
            raise ImportRefused("This import was decided already; look at its page.")
        if missing := _missing(locked, store):
            raise ImportRefused(
                f"{wording.counted(missing, 'file')} of this bundle are no longer whole in the store. Discard this "
                "import and import the bundle again."
            )
        _finish(locked, switch_older=switch_older, by=by, now=now, address=address)
    return locked


def _missing(run: Import, store: BlobStore) -> int:
    bundle = parsed_json.from_json(run.parsed)
    sizes = {blob.digest: blob.size for snapshot in bundle.snapshots for blob in snapshot.blobs}
    return sum(1 for digest, size in sizes.items() if not (store.has(digest) and store.size(digest) == size))


def _finish(run: Import, *, switch_older: bool, by: str, now: datetime, address: str) -> None:
    bundle = parsed_json.from_json(run.parsed)
    try:
        plan, changed = carry_out(run, bundle, fingerprint=run.fingerprint, switch_older=switch_older, by=by, now=now)
    except CannotSwitch as trouble:
        raise ImportRefused(str(trouble)) from trouble
    report = Report.from_dict(run.report)
    report.snapshots = [decision.report() for decision in plan.decisions]
    for values in ending(run, report, changed=changed, by=by, now=now, address=address), {"switch_older": switch_older}:
        for column, value in values.items():
            setattr(run, column, value)
    run.state, run.finished_at, run.decided_by = run.state, now, by[:150]
    run.save()
    ImportBlob.objects.filter(run=run).delete()
    run.step_model.objects.create(run=run, at=now, level=Step.Level.INFO, text=run.note)


def ending(run: Import, report: Report, *, changed: bool, by: str, now: datetime, address: str = "") -> dict[str, Any]:
    """How an import that was carried out ends: column values. Writes its line in the record; the caller holds the
    transaction."""
    signed = report.signed_by or f"{report.signature} {report.fingerprint}".strip()
    record.write(by, "bundle imported", report.bundle, f"{signed}; {report.sentence(done=True)}", address, at=now)
    return {
        "state": State.SUCCEEDED if changed else State.UNCHANGED,
        "note": report.ending(changed=changed),
        "report": report.as_dict(),
        "parsed": {},
        "expires_at": None,
    }


# Living


class Imports(Life[Import]):
    model = Import
    stopped = "import stopped"

    def lock_subject(self, run_id: int) -> None:
        """An import is about no row but its own."""

    def remember(self, run: Import, *, now: datetime, retry_at: datetime | None = None) -> None:
        """Let go of what only an open import needs. What was uploaded stays if it can be of use to a second try."""
        if run.is_open:
            return
        ImportBlob.objects.filter(run=run).delete()
        if run.parsed:
            Import.objects.filter(pk=run.pk).update(parsed={})

    def ask_again(self, run: Import, *, now: datetime) -> Import | None:
        wishes = Wishes(
            run.at_once, run.switch_older, run.allow_unsigned, run.allow_other_site, run.allowed_by, run.allowed_reason
        )
        if run.origin == Origin.COMMAND:
            # Whoever typed it may type it again; the path may be one that only they can read.
            return None
        try:
            return again(run, by=run.requested_by, now=now, wishes=wishes, losses=run.losses + 1)
        except ImportRefused:
            return None

    def sequel(self, run: Import) -> str:
        if run.origin == Origin.COMMAND:
            return "Nothing was switched. Type the command again, or verify it again here."
        again = super().sequel(run)
        return f"Nothing was switched. {again if run.losses + 1 >= MOST_LOSSES else 'The import is begun again.'}"

    def close_lost(self, now: datetime) -> list[Import]:
        """Also those by command whose command ended before their turn came: nobody else makes them."""
        silent = Q(heartbeat_at__lt=now - SILENT_AFTER) | Q(heartbeat_at=None, queued_at__lt=now - SILENT_AFTER)
        typed = Import.objects.all().queued().filter(origin=Origin.COMMAND)
        gone = [run.pk for run in typed if is_gone(run.worker)]
        for run in typed.filter(silent | Q(pk__in=gone)):
            self.stop(run, by="", now=now, reason="The command ended before its turn came; nothing was switched.")
        return super().close_lost(now)

    def wait_here(self, run: Import, *, now: datetime) -> None:
        """Say that a queued import is still wanted by the command in this process."""
        Import.objects.all().queued().filter(pk=run.pk).update(worker=worker_name(), heartbeat_at=now)

    def named(self, run: Import) -> str:
        return run.name

    def related(self) -> Any:
        return Import.objects.all()

    def claimable(self) -> Any:
        return Import.objects.all().claimable()


IMPORTS = Imports()


def stop(run: Import, *, by: str, now: datetime) -> bool:
    """Stop one that runs, or discard one that waits. Files that were uploaded for it can be imported again."""
    waits = run.is_waiting
    reason = f"Discarded by {by}; nothing was switched." if waits else f"Stopped by {by}; nothing was switched."
    if not IMPORTS.stop(run, by=by, now=now, reason=reason):
        return False
    if waits:
        Import.objects.filter(pk=run.pk).update(decided_by=by[:150])
        staging.remove_of(run)
    else:
        Upload.objects.filter(run=run).update(run=None)
    return True


def discard(run: Import) -> None:
    """Remove what was uploaded for an import that has ended, also if it waits for a damaged volume to come again."""
    if not run.is_open:
        staging.remove_of(run)
        for upload in staging.kept_of(run):
            staging.remove(upload)


def expire(now: datetime) -> int:
    """Give up imports that nobody decided in time, and uploads nobody came back for; how many."""
    count = 0
    for run in Import.objects.all().waiting().filter(expires_at__lte=now):
        days = settings.AIRGAP_STAGING_DAYS
        reason = f"Nobody decided within {wording.counted(days, 'day')}; nothing was switched."
        count += IMPORTS.stop(run, by="", now=now, reason=reason)
    return count + staging.expire(now)


def expires_at(now: datetime) -> datetime:
    return now + timedelta(days=settings.AIRGAP_STAGING_DAYS)
