"""What has to run inside a Django process of a bench instance: memory of a sync, a long history, the dashboard's time.

    python -m tests.bench.inside growth NAME | history MIRRORS RUNS | dashboard TIMES | prepared

Prints one JSON object. The settings are production's; only the data directory is the bench's.
"""

import json
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path

import django

django.setup()

from django.db import connection  # noqa: E402
from django.test import Client  # noqa: E402
from django.test.utils import CaptureQueriesContext  # noqa: E402
from django.utils import timezone  # noqa: E402

from mirrors import syncing_here, tasks  # noqa: E402, F401 - tasks: a worker has loaded all of it
from mirrors.digests import digest_of  # noqa: E402
from mirrors.models import Bundle, Mirror, RunStep, Snapshot, SnapshotBlob, Source, SyncRun, User  # noqa: E402

BATCH = 5000
KINDS = ("trivy-db", "trivy-java-db", "trivy-checks", "vex", "oci")
HOSTS = ("mirror.gcr.io", "ghcr.io", "public.ecr.aws", "docker.io")


def growth(name: str) -> dict[str, float]:
    """How far above its memory at the start this process gets during a sync, in MiB."""
    mirror = Mirror.objects.get(name=name)
    before = _memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far (proc(5))
    report = syncing_here.sync_here(mirror, by="bench")
    if not report.is_good:
        raise SystemExit(report.sentence)
    return {"growth": (_memory("VmHWM") - before) / 1024, "before": before / 1024}


def _memory(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


def history(mirrors: str, runs: str) -> dict[str, int]:
    """Mirrors in every state, and runs over the last years: three lines of story for each of the newest tenth."""
    now = timezone.now()
    made = [_mirror(number, now) for number in range(int(mirrors))]
    total = int(runs)
    step = timedelta(days=1500) / total
    for first in range(0, total, BATCH):
        SyncRun.objects.bulk_create(
            _run(made[number % len(made)], number, now - step * (total - number))
            for number in range(first, min(first + BATCH, total))
        )
    newest = list(SyncRun.objects.order_by("-pk").values_list("pk", "finished_at")[: total // 10])
    for first in range(0, len(newest), BATCH):
        RunStep.objects.bulk_create(
            RunStep(run_id=pk, at=at, text=f"HEAD /v2/path/manifests/2 at mirror.gcr.io: 200 (0.1{line} s)")
            for pk, at in newest[first : first + BATCH]
            for line in range(3)
        )
    last_of = dict(SyncRun.objects.order_by("pk").values_list("mirror_id", "pk"))
    for mirror in made:
        mirror.last_run_id = last_of.get(mirror.pk)
        mirror.save()
    connection.cursor().execute("ANALYZE")
    return {"mirrors": Mirror.objects.count(), "runs": SyncRun.objects.count(), "steps": RunStep.objects.count()}


def _mirror(number: int, now: datetime) -> Mirror:
    failing = number % 7 == 3
    mirror = Mirror.objects.create(
        name=f"mirror-{number}",
        label=f"Database {number}",
        kind=KINDS[number % len(KINDS)],
        position=number,
        created_at=now - timedelta(days=1500),
        next_sync_at=now + timedelta(minutes=number + 5),
        last_attempt_at=now - timedelta(minutes=20),
        last_success_at=now - timedelta(minutes=20),
        last_error="ghcr.io answered 503 (unavailable) to HEAD manifest. It is asked again in 5 minutes."
        if failing
        else "",
        failures=3 if failing else 0,
        failing_since=now - timedelta(hours=2) if failing else None,
    )
    Source.objects.bulk_create(
        Source(
            mirror=mirror,
            position=position,
            reference=f"{host}/aquasecurity/database-{number}:2",
            answered_at=now - timedelta(minutes=20),
            asked_at=now - timedelta(minutes=20),
            error="It answered 503." if failing and not position else "",
            updated_at=now - timedelta(hours=3),
        )
        for position, host in enumerate(HOSTS)
    )
    for age in range(8):
        snapshot = _snapshot(mirror, number, age, now - timedelta(hours=2 + 6 * age + 30 * (number % 11 == 5)))
    first = mirror.snapshots.order_by("-fetched_at").first()
    mirror.current = first or snapshot
    mirror.save()
    return mirror


def _snapshot(mirror: Mirror, number: int, age: int, at: datetime) -> Snapshot:
    digest = digest_of(f"{number} {age}".encode())
    snapshot = Snapshot.objects.create(
        mirror=mirror,
        identity=digest,
        manifest_digest=digest,
        layer_digest=digest_of(digest.encode()),
        source_reference=f"mirror.gcr.io/aquasecurity/database-{number}:2",
        size_bytes=110_000_000,
        updated_at=at,
        next_update=at + timedelta(hours=24),
        published_at=at,
        fetched_at=at + timedelta(hours=1),
        confirmed_at=at + timedelta(hours=1, minutes=30),
    )
    SnapshotBlob.objects.bulk_create(
        SnapshotBlob(snapshot=snapshot, position=position, digest=name, size_bytes=size, role=role)
        for position, (name, size, role) in enumerate(
            [(digest, 700, "manifest"), (digest_of(b"{}"), 2, "config"), (snapshot.layer_digest, 110_000_000, "layer")]
        )
    )
    return snapshot


def _run(mirror: Mirror, number: int, at: datetime) -> SyncRun:
    state = ("unchanged", "unchanged", "succeeded", "unchanged", "failed")[number % 5]
    return SyncRun(
        mirror=mirror,
        state=state,
        trigger="schedule",
        settings_version=1,
        lease=f"{number:032x}",
        worker="worker:1:1",
        queued_at=at,
        started_at=at,
        heartbeat_at=at,
        finished_at=at + timedelta(seconds=2),
        source_reference="mirror.gcr.io/aquasecurity/database:2",
        requests=3,
        error="mirror.gcr.io answered 503 (unavailable) to HEAD manifest." if state == "failed" else "",
        note="Nothing new." if state == "unchanged" else "",
        snapshot=mirror.current,
    )


def dashboard(times: str) -> dict[str, object]:
    """Queries of one look at the dashboard, and the milliseconds of many, without the web server around it."""
    client = Client()
    client.force_login(User.objects.get(username="admin"))
    client.get("/")
    with CaptureQueriesContext(connection) as captured:
        answer = client.get("/")
    queries = len(captured)  # now: the next request forgets them
    if answer.status_code != 200:
        raise SystemExit(f"The dashboard answered {answer.status_code}.")
    milliseconds = []
    for _ in range(int(times)):
        began = time.perf_counter()
        client.get("/")
        milliseconds.append((time.perf_counter() - began) * 1000)
    return {"queries": queries, "milliseconds": milliseconds, "bytes": len(answer.content)}


def prepared() -> dict[str, bool]:
    """Waits until workers have computed the sum of every bundle."""
    while Bundle.objects.kept().filter(sha256="").exists():
        time.sleep(0.2)
    return {"prepared": True}


COMMANDS = {"growth": growth, "history": history, "dashboard": dashboard, "prepared": prepared}

if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    print(json.dumps(COMMANDS[name](*arguments)))  # noqa: T201
