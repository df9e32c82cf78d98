"""Celery tasks: shells that load, call one operation and end. The rows are the truth; a task only wakes somebody up.

Long work takes a slot of this process and never a thread that the tick needs: with no slot free a message is dropped,
and whoever gets free takes the oldest row that waits.
"""

import logging
import threading

from celery import Task, shared_task
from celery.signals import worker_shutting_down
from django.conf import settings
from django.db import transaction
from django.utils import timezone
from kombu.exceptions import OperationalError

from mirrors import exporting, retention, runs, scrubbing, sync, taken_log, work_here
from mirrors.importing import asking as imports
from mirrors.importing import dropping, looking
from mirrors.importing import perform as importing
from mirrors.importing.finding import FindingError
from mirrors.models import Import, PushRun, SyncRun
from mirrors.pushing import asking as pushes
from mirrors.pushing import perform as pushing

logger = logging.getLogger(__name__)

_syncs = threading.BoundedSemaphore(settings.AIRGAP_WORKERS)
_taken_log = threading.BoundedSemaphore(1)
_pushes = threading.BoundedSemaphore(settings.AIRGAP_PUSHES)
_imports = threading.BoundedSemaphore(1)
_drop = threading.BoundedSemaphore(1)
_bundles = threading.BoundedSemaphore(1)
_looking = threading.BoundedSemaphore(1)


def send(task: Task, *args: object) -> bool:
    """Send a message; a broker that is away is no error, because the next tick sends again what waits."""
    try:
        task.apply_async(args=args, expires=600, retry=False)
    except (OperationalError, OSError) as error:
        logger.warning("The broker cannot be reached (%s); %s was not sent.", type(error).__name__, task.name)
        return False
    return True


def send_run(run: SyncRun) -> None:
    """Wake a worker for a queued run once its row is committed."""
    transaction.on_commit(lambda: send(sync_mirror, run.pk))


def send_push(run: PushRun) -> None:
    """Wake a worker for a queued push once its row is committed."""
    transaction.on_commit(lambda: send(push_mirror, run.pk))


def send_import(run: Import) -> None:
    """Wake a worker for a queued import once its row is committed."""
    transaction.on_commit(lambda: send(import_bundle, run.pk))


def send_bundle(bundle_id: str) -> None:
    transaction.on_commit(lambda: send(prepare_bundle, bundle_id))


@shared_task(name="mirrors.sync_mirror")
def sync_mirror(run_id: int) -> None:
    if not _syncs.acquire(blocking=False):
        return
    try:
        waiting: int | None = run_id
        while waiting is not None:
            sync.perform(waiting)
            waiting = runs.oldest_queued()
    finally:
        _syncs.release()


@shared_task(name="mirrors.push_mirror")
def push_mirror(run_id: int) -> None:
    """One push, and then whatever waits for a destination that nothing is being pushed to."""
    if not _pushes.acquire(blocking=False):
        return
    try:
        waiting: int | None = run_id
        while waiting is not None:
            pushing.perform(waiting)
            waiting = pushes.PUSHES.oldest_queued()
    finally:
        _pushes.release()


@shared_task(name="mirrors.import_bundle")
def import_bundle(run_id: int) -> None:
    """One import, and then whatever waits: they are made one after the other."""
    if not _imports.acquire(blocking=False):
        return
    try:
        waiting: int | None = run_id
        while waiting is not None:
            importing.perform(waiting)
            waiting = imports.IMPORTS.oldest_queued()
    finally:
        _imports.release()


@shared_task(name="mirrors.tick")
def tick() -> None:
    """Every few seconds: close what is lost, open what is due, send what waits."""
    now = timezone.now()
    runs.close_lost(now)
    runs.open_due(now)
    for run in runs.unsent(now):
        send(sync_mirror, run.pk)
    pushes.PUSHES.close_lost(now)
    pushes.open_due(now)
    for push in pushes.PUSHES.unsent(now):
        send(push_mirror, push.pk)
    imports.IMPORTS.close_lost(now)
    for bundle in imports.IMPORTS.unsent(now):
        send(import_bundle, bundle.pk)


@shared_task(name="mirrors.housekeeping")
def housekeeping() -> None:
    imports.expire(timezone.now())
    retention.prune(timezone.now())


@shared_task(name="mirrors.taken_log")
def read_taken_log() -> None:
    """What nginx sent for us, where it sends our files."""
    if settings.AIRGAP_TAKEN_LOG is None or not _taken_log.acquire(blocking=False):
        return
    try:
        taken_log.read(settings.AIRGAP_TAKEN_LOG, timezone.now())
    except taken_log.LogError as error:
        logger.warning("%s", error)
    finally:
        _taken_log.release()


@shared_task(name="mirrors.drop_folder")
def look_at_drop_folder() -> None:
    """What was copied to the drop folder. A medium that hangs holds up this task only."""
    if not _drop.acquire(blocking=False):
        return
    try:
        for run in dropping.look(timezone.now()):
            send_import(run)
    except FindingError as error:
        logger.warning("%s", error)
    finally:
        _drop.release()


@shared_task(name="mirrors.look_into_databases")
def look_into_databases() -> None:
    """Those that an import took on their signer's word."""
    if not _looking.acquire(blocking=False):
        return
    try:
        looking.look()
    finally:
        _looking.release()


@shared_task(name="mirrors.unprepared_bundles")
def unprepared_bundles() -> None:
    """Bundles whose message was lost, or whose worker went away."""
    for bundle_id in exporting.unprepared(timezone.now()):
        send(prepare_bundle, bundle_id)


@shared_task(name="mirrors.prepare_bundle")
def prepare_bundle(bundle_id: str) -> None:
    if not _bundles.acquire(blocking=False):
        return
    seen: set[str] = set()
    try:
        waiting = [bundle_id]
        while waiting and not work_here.is_shutting_down():
            seen.add(waiting[0])
            exporting.prepare(waiting[0])
            waiting = [other for other in exporting.unprepared(timezone.now()) if other not in seen]
    finally:
        _bundles.release()


@shared_task(name="mirrors.scrub")
def scrub(by: str = "") -> None:
    for run in scrubbing.scrub(by=by):
        send(sync_mirror, run.pk)


@worker_shutting_down.connect
def let_go(**_: object) -> None:
    """A warm shutdown waits for running tasks; a download of an hour must not make it wait that long."""
    work_here.stop_all_here()
