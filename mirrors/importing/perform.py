"""One import: claim it, read the bundle once, and either end with a report of what is wrong, or wait for a decision, or
switch at once. Whatever is killed on the way, nothing was switched: the switch is one transaction, the last thing."""

import logging
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any

from django.db import transaction
from django.utils import timezone

from mirrors import content, leases, retention, wording, work_here
from mirrors.blobs import BlobStore, StoreError
from mirrors.bundle.joining import VolumeFile
from mirrors.bundle.parsed import ParsedBundle
from mirrors.importing import asking, finding, parsed_json, staging
from mirrors.importing.asking import IMPORTS
from mirrors.importing.finding import FindingError, volume
from mirrors.importing.planning import FAR_AHEAD
from mirrors.importing.report import CONTENT, FAULT, ROOM, Report
from mirrors.importing.switching import CannotSwitch, carry_out, keep_facts
from mirrors.importing.verifying import Allowed, Verified, verify
from mirrors.leases import Heart, Lease, LeaseLost, work_key
from mirrors.models import Import, ImportBlob, Run
from mirrors.stopping import Stopped, StopSignal
from mirrors.story import Story

logger = logging.getLogger(__name__)

State = Run.State


class ImportStory(Story):
    """Told while a bundle is read. `bytes_done` counts the bundle's bytes; `new_bytes` those the store lacked."""

    new_bytes = 0

    def read_to(self, position: int, member: str) -> None:
        self.bytes_done = position
        self.stage = f"verifying {member}"

    def place(self) -> dict[str, Any]:
        return {}

    def totals(self) -> dict[str, Any]:
        return {"bytes_total": self.bytes_total, "bytes_done": self.bytes_done, "new_bytes": self.new_bytes}


def perform(run_id: int, *, stop: StopSignal | None = None, store: BlobStore | None = None, heart: bool = True) -> bool:
    """Make a queued import. False when somebody else has it, it is closed, or another one is running."""
    lease = IMPORTS.claim(run_id, now=timezone.now())
    if lease is None:
        return False
    stop = stop or StopSignal()
    story = ImportStory(lease)
    beating = Heart(lease, stop, story) if heart else nullcontext()
    try:
        with work_here.entered(stop, work_key(Import, run_id)), beating:
            _make(lease, story, stop, store or content.store())
    except LeaseLost:
        logger.info("Import %s was closed by somebody else; nothing was switched", run_id)
        return True
    story.flush()
    return True


def _make(lease: Lease, story: ImportStory, stop: StopSignal, store: BlobStore) -> None:
    run = Import.objects.get(pk=lease.run_id)
    try:
        # Until rows name what was taken, the pruner stays away.
        with store.in_use():
            verified = _verify(run, story, stop, store)
            stop.check()
            _conclude(lease, run, story, verified)
    except Stopped:
        if stop.reason == work_here.SHUTDOWN:
            story.warn("The worker is shut down; the import begins again when one starts.")
            IMPORTS.put_back(lease)
        elif stop.reason != leases.CLOSED:
            IMPORTS.stop(run, by=stop.reason, now=timezone.now())
    except retention.NoRoomError as trouble:
        _fail(lease, story, Report(refusal=ROOM, problems=[str(trouble)]))
    except StoreError as trouble:
        if trouble.code != "full":
            _fail(lease, story, Report(refusal=FAULT, problems=[str(trouble)]))
            return
        sentence = (
            f"The disk became full while this was read; nothing was switched. Make room where {store.root} lies, then "
            "begin it again: what is whole by now is not written again."
        )
        _fail(lease, story, Report(refusal=ROOM, problems=[sentence]))
    except (FindingError, CannotSwitch) as trouble:
        _fail(lease, story, Report(refusal=FAULT, problems=[str(trouble)]))
    except LeaseLost:
        raise
    except Exception as fault:
        if stop.is_set():
            logger.info("Import %s ended while it was being stopped", lease.run_id, exc_info=True)
            return
        sentence = (
            f"A fault in Airgap itself ended this import ({type(fault).__name__}); nothing was switched. The worker's "
            "log has the details."
        )
        _fail(lease, story, Report(refusal=FAULT, problems=[sentence]))
        raise
    if not Import.objects.open().filter(pk=run.pk).exclude(state=Import.WAITING).exists():
        _clear_up(run.pk)


def files_of(run: Import) -> list[VolumeFile]:
    """What is read, with the sizes that were seen."""
    return [
        volume(file["name"], staging.path_of(file["upload"]) if "upload" in file else Path(file["path"]), file["size"])
        for file in run.files
    ]


def list_of(run: Import) -> VolumeFile | None:
    """The list of checksums that was uploaded with its volumes, or lies beside them."""
    if run.origin != Import.Origin.UPLOAD:
        return finding.list_beside([Path(file["path"]) for file in run.files])
    found = next((upload for upload in run.uploads.all() if upload.is_list), None)
    return volume(found.name, staging.path_of(found.pk), found.size_bytes) if found is not None else None


def _verify(run: Import, story: ImportStory, stop: StopSignal, store: BlobStore) -> Verified:
    noun = "volumes" if finding.number_of(run.files[0]["name"]) else "files"
    count = f" in {len(run.files)} {noun}" if len(run.files) > 1 else ""
    story.tell(f"Reading {run.name}, {wording.size_text(run.size_bytes)}{count}.")
    story.expect(run.size_bytes)

    def starting(new_bytes: int) -> None:
        story.tell(f"{wording.size_text(new_bytes)} of it are new here." if new_bytes else "The store has all of it.")

    allowed = Allowed(run.allow_unsigned, run.allow_other_site, run.switch_older)
    verified = verify(
        files_of(run),
        now=timezone.now(),
        allowed=allowed,
        store=store,
        stop=stop,
        progress=story.read_to,
        starting=starting,
        listed=list_of(run),
    )
    story.new_bytes = verified.report.new_bytes
    _tell(story, verified.report)
    if verified.unread:
        story.tell(
            f"When {wording.joined(verified.unread)} was built is what {verified.report.signed_by} signed; the "
            "database is looked into soon after it is here."
        )
    return verified


def _tell(story: ImportStory, report: Report) -> None:
    if report.signed_by:
        story.tell(f"Signed by {report.signed_by} ({report.fingerprint}).")
    elif report.signature and not report.problems:
        story.warn(f"The signature is not one that is trusted here ({report.signature}); it was allowed.")
    for problem in report.problems:
        story.fail(problem)
    for warning in report.warnings:
        story.warn(warning)
    if not report.problems:
        story.tell(f"Every byte was verified in {wording.duration_text(report.seconds)}.")


def _conclude(lease: Lease, run: Import, story: ImportStory, verified: Verified) -> None:
    """End with what is wrong, or switch, or leave it to somebody."""
    report, bundle = verified.report, verified.bundle
    about = _about(report, verified)
    if bundle is None:
        with transaction.atomic():
            _fail(lease, story, report, about)
            gone = staging.let_go(run, report.damaged, now=timezone.now()) if report.may_be_mended else []
        staging.unlink(gone)
        return
    now = timezone.now()
    if not run.at_once or bundle.created_at > now + FAR_AHEAD:
        _wait(lease, story, verified, bundle, about, now=now)
        return
    with transaction.atomic():
        keep_facts(bundle, verified.facts, now)
        plan, changed = carry_out(
            run,
            bundle,
            fingerprint=report.fingerprint,
            switch_older=run.switch_older,
            by=run.requested_by,
            now=now,
        )
        report.snapshots = [decision.report() for decision in plan.decisions]
        values = asking.ending(run, report, changed=changed, by=run.requested_by, now=now)
        story.tell(values["note"])
        about |= {**values, **story.totals(), "decided_by": run.requested_by, "rate_bytes": 0}
        IMPORTS.close(lease, now=now, **about)


def _about(report: Report, verified: Verified) -> dict[str, Any]:
    """What is known of the bundle, for the row. What was refused has its transfer too: its receipt says `rejected`."""
    bundle = verified.said
    return {
        "bundle": report.bundle,
        "bundle_created_at": bundle.created_at if bundle is not None else None,
        "sums_digest": verified.sums_digest,
        "signed_by": report.signed_by,
        "fingerprint": report.fingerprint,
        "site": report.site,
        "transfer": bundle.transfer[:40] if bundle is not None else "",
        "receipt_secret": bundle.receipt_secret if bundle is not None else "",
        "report": report.as_dict(),
    }


def _wait(
    lease: Lease, story: ImportStory, verified: Verified, bundle: ParsedBundle, about: dict[str, Any], *, now: datetime
) -> None:
    """Everything is right and in the store, held there by rows of this import, until somebody decides."""
    digests = {blob.digest for snapshot in bundle.snapshots for blob in snapshot.blobs}
    story.tell("Nothing is switched yet; it waits for somebody's decision.")
    with transaction.atomic():
        retention.lock_references()
        keep_facts(bundle, verified.facts, now)
        ImportBlob.objects.bulk_create(ImportBlob(run_id=lease.run_id, digest=digest) for digest in sorted(digests))
        written = lease.write(
            state=Import.WAITING,
            lease="",
            worker="",
            stage="",
            rate_bytes=0,
            parsed=parsed_json.to_json(bundle),
            # Where this clock is behind, setting it right must not count as days in which nobody decided.
            expires_at=asking.expires_at(max(now, bundle.created_at)),
            **story.totals(),
            **about,
        )
        if not written:
            raise LeaseLost


def _fail(lease: Lease, story: ImportStory, report: Report, about: dict[str, Any] | None = None) -> None:
    more = len(report.problems) - 1
    error = report.problems[0] + (f" And {wording.counted(more, 'further problem')}." if more else "")
    if about is None:
        story.fail(report.problems[0])
    values = {**(about or {}), "report": report.as_dict(), **story.totals(), "rate_bytes": 0}
    IMPORTS.close(lease, State.FAILED, now=timezone.now(), error=error, **values)


def _clear_up(run_id: int) -> None:
    """Remove what was uploaded for this import, unless a second try could use it."""
    run = Import.objects.get(pk=run_id)
    useful = Report.from_dict(run.report).refusal not in ("", CONTENT)
    if run.is_waiting or run.is_success or (run.state == State.FAILED and not useful):
        staging.remove_of(run)
