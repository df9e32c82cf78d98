"""Celery tasks: shells that load, call one operation and end. The rows are the truth; a task only wakes somebody up."""

import logging

from celery import Task, shared_task
from django.db import transaction
from django.utils import timezone
from kombu.exceptions import OperationalError

from mirrors import exporting, retention, runs, scrubbing, sync
from mirrors.models import SyncRun

logger = logging.getLogger(__name__)


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


def send_bundle(bundle_id: str) -> None:
    transaction.on_commit(lambda: send(prepare_bundle, bundle_id))


@shared_task(name="mirrors.sync_mirror")
def sync_mirror(run_id: int) -> None:
    sync.perform(run_id)


@shared_task(name="mirrors.tick")
def tick() -> None:
    """Every few seconds: close what is lost, open what is due, send what waits."""
    now = timezone.now()
    runs.close_lost(now)
    runs.open_due(now)
    for run in runs.unsent(now):
        send(sync_mirror, run.pk)


@shared_task(name="mirrors.housekeeping")
def housekeeping() -> None:
    retention.prune(timezone.now())


@shared_task(name="mirrors.unprepared_bundles")
def unprepared_bundles() -> None:
    """Bundles whose message was lost, or whose worker went away."""
    for bundle_id in exporting.unprepared(timezone.now()):
        send(prepare_bundle, bundle_id)


@shared_task(name="mirrors.prepare_bundle")
def prepare_bundle(bundle_id: str) -> None:
    exporting.prepare(bundle_id)


@shared_task(name="mirrors.scrub")
def scrub(by: str = "") -> None:
    for run in scrubbing.scrub(by=by):
        send(sync_mirror, run.pk)
