"""A fake upstream, and a mirror of it that is synced in this process."""

import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from mirrors import content, exporting, runs, sync
from mirrors.blobs import StoreError
from mirrors.bundle import BundleError, Composition, compose
from mirrors.bundle.reader import read_bundle
from mirrors.demo import assets
from mirrors.models import Mirror, Snapshot, SyncRun
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


@pytest.fixture(autouse=True)
def carried(sync_now):
    """Whatever these tests leave as current can be bundled, and the reader gives the same rows of it again."""
    yield
    for mirror in Mirror.objects.exclude(current=None).select_related("current"):
        if mirror.current is not None and (raw := bundle_of(mirror.current)):
            compare(mirror.current, raw)


def bundle_of(snapshot: Snapshot) -> bytes:
    """The bundle of it; empty where a test has spoilt the store or holds what must not leave."""
    store = content.store()
    try:
        described = exporting.describe([snapshot])
        recipe = compose("k3j9x2a1", datetime.now(UTC), "0.1.0", described, store)
        return b"".join(Composition(recipe, store).read())
    except (BundleError, StoreError, exporting.ExportError):
        return b""


def compare(snapshot: Snapshot, raw: bytes) -> None:
    (parsed,) = read_bundle(io.BytesIO(raw), check_signature=lambda _sums, _signature: "nobody").bundle.snapshots
    assert [(b.role, b.digest, b.size, b.media_type, b.name, b.details) for b in parsed.blobs] == [
        (b.role, b.digest, b.size_bytes, b.media_type, b.name, b.details) for b in snapshot.blobs.all()
    ]
    for key in ("manifest_digest", "layer_digest", "artifact_type", "tag", "version", "tls_verified", "updated_at",
                "next_update", "published_at", "fetched_at", "confirmed_at", "item_count"):  # fmt: skip
        assert getattr(parsed, key) == getattr(snapshot, key), key
    assert parsed.content_media_type == snapshot.media_type
