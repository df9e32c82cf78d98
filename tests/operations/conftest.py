"""A fake upstream, and a mirror of it that is synced in this process."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from mirrors import content, runs, sync
from mirrors.demo import assets
from mirrors.models import SyncRun
from mirrors.registry.transport import Timeouts
from mirrors.trivy.catalogue import KINDS
from tests.fakes.registry import FakeRegistry

DB = KINDS["trivy-db"]
REPOSITORY = "aquasecurity/trivy-db"


@pytest.fixture
def fake():
    with FakeRegistry() as registry:
        yield registry


@pytest.fixture
def other():
    with FakeRegistry() as registry:
        yield registry


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """Quick to try again, but patient with a busy machine; the rules about waiting are tested in tests/registry."""
    quick = Timeouts(connect=10, read=10, slow_seconds=30, attempts=2, source_seconds=60, longest_retry_after=1)
    monkeypatch.setattr("mirrors.job.TIMEOUTS", replace(quick, backoff=0.01))


@pytest.fixture
def impatience(monkeypatch, patience):
    """For a server that never goes on: as long as a test can afford to wait for it."""
    monkeypatch.setattr("mirrors.job.TIMEOUTS", Timeouts(read=0.3, attempts=2, source_seconds=3, backoff=0.01))


def hours_ago(hours: float) -> datetime:
    return (datetime.now(UTC) - timedelta(hours=hours)).replace(microsecond=0)


@pytest.fixture
def push_db():
    """push_db(fake, built=datetime, **build options) -> manifest digest; pushed a minute after it was built."""

    def push(fake: FakeRegistry, built: datetime, *, repository=REPOSITORY, tag="2", layer=None, **options) -> str:
        annotations = options.pop("annotations", None)
        change = options.pop("change", None)
        layer = layer if layer is not None else assets.build_trivy_db(built, **options)
        return fake.push(
            repository,
            tag,
            [(layer, DB.layer_media_type, DB.title)],
            created=built + timedelta(minutes=1),
            annotations=annotations,
            change=change,
        )

    return push


@pytest.fixture
def sync_now(data_dir):
    """sync_now(mirror) -> the ended run; its heart does not beat, so everything is written at the end."""

    def run_it(mirror, trigger="hand", **options) -> SyncRun:
        mirror.refresh_from_db()
        run, _ = runs.request_sync(mirror, trigger=trigger, by="otto", now=datetime.now(UTC))
        assert sync.perform(run.pk, heart=False, store=content.store(), **options)
        run.refresh_from_db()
        mirror.refresh_from_db()
        return run

    return run_it
