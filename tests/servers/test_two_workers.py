"""The promises about runs with two real workers, a stand-alone redis-server and PostgreSQL."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis
from django.conf import settings as django_settings
from django.db import connection

from airgap.celery import app
from airgap.running import programs
from airgap.running.programs import Instance
from mirrors import runs, tasks
from mirrors.models import Mirror, SyncRun
from tests.fakes.registry import FakeRegistry

pytestmark = [pytest.mark.servers, pytest.mark.django_db(transaction=True)]
State = SyncRun.State


@dataclass
class Worker:
    process: subprocess.Popen[bytes]
    log: Path


def wait_for(condition: Callable[[], object], seconds: float = 40, explain: Callable[[], str] = str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, explain()
        time.sleep(0.1)


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    with FakeRegistry() as registry:
        yield registry


@pytest.fixture
def workers(data_dir: Path, tmp_path: Path) -> Iterator[list[Worker]]:
    """Two worker processes on the test's database, an empty queue and the test's data directory."""
    redis.Redis.from_url(django_settings.CELERY_BROKER_URL).flushdb()
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "tests.worker_settings",
        "TEST_DATABASE": str(connection.settings_dict["NAME"]),
        "AIRGAP_DATA_DIR": str(data_dir),
        "AIRGAP_SECRET_KEY": django_settings.SECRET_KEY,
    }
    instance = Instance.from_settings(django_settings)
    with ExitStack() as stack:
        found = []
        for node in ("one", "two"):
            log = tmp_path / f"{node}.log"
            output = stack.enter_context(log.open("wb"))
            process = subprocess.Popen(
                programs.worker(instance, node).argv, env=environment, cwd=instance.base, stdout=output, stderr=output
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            found.append(Worker(process, log))
        wait_for(lambda: len(app.control.ping(timeout=0.5)) == 2, explain=lambda: said(found))
        yield found


def said(workers: list[Worker]) -> str:
    return "\n".join(worker.log.read_text(errors="replace")[-3000:] for worker in workers)


def push(fake: FakeRegistry, name: str, size: int) -> str:
    """An artifact of one layer; its reference."""
    layer = (name.encode() * (size // len(name) + 1))[:size]
    fake.push(f"team/{name}", "1", layers=[(layer, "application/octet-stream", f"{name}.bin")])
    return fake.reference(f"team/{name}", "1")


def ask(mirror: Mirror) -> SyncRun:
    run, created = runs.request_sync(mirror, trigger=SyncRun.Trigger.HAND, by="otto", now=datetime.now(UTC))
    assert created
    return run


def states(asked: list[SyncRun]) -> list[str]:
    return [SyncRun.objects.get(pk=run.pk).state for run in asked]


def worker_of(run: SyncRun) -> int:
    """The process id of the worker that has the run."""
    return int(SyncRun.objects.get(pk=run.pk).worker.split(":")[-2])


def test_they_share_the_runs_and_make_each_once(fake, workers, make_mirror):
    asked = []
    for number in range(10):
        fake.fault(f"/team/mirror-{number}/manifests/", times=None, delay=0.3)
        asked.append(ask(make_mirror(f"mirror-{number}", "oci", [push(fake, f"mirror-{number}", 50_000)])))
    for run in asked:
        # Twice, as after a message that only seemed lost.
        assert tasks.send(tasks.sync_mirror, run.pk)
        assert tasks.send(tasks.sync_mirror, run.pk)
    wait_for(lambda: set(states(asked)) == {State.SUCCEEDED}, explain=lambda: f"{states(asked)}\n{said(workers)}")
    assert {worker_of(run) for run in asked} == {worker.process.pid for worker in workers}
    for number in range(10):
        (digest,) = {r.path for r in fake.seen("GET", f"/team/mirror-{number}/blobs/") if "44136fa3" not in r.path}
        assert fake.count("GET", digest) == 1


def test_the_other_worker_goes_on_where_a_killed_one_stopped(fake, workers, make_mirror):
    size = 3_000_000
    mirror = make_mirror("large", "oci", [push(fake, "large", size)])
    (layer,) = [digest for digest, data in fake.blobs.items() if len(data) == size]
    fake.fault(layer, times=1, stall_after=1_000_000)
    run = ask(mirror)
    tasks.send(tasks.sync_mirror, run.pk)
    wait_for(lambda: SyncRun.objects.get(pk=run.pk).bytes_done >= 500_000, explain=lambda: said(workers))
    killed = next(worker for worker in workers if worker.process.pid == worker_of(run))
    killed.process.send_signal(signal.SIGKILL)
    killed.process.wait()
    # The scheduler's part.
    tick_until(lambda: states([run]) == [State.LOST], workers)
    tick_until(lambda: SyncRun.objects.filter(mirror=mirror, state=State.SUCCEEDED).exists(), workers)
    again = SyncRun.objects.get(mirror=mirror, state=State.SUCCEEDED)
    assert worker_of(again) != killed.process.pid
    # What was on its way to the disk at that moment may be asked for again, and nothing else.
    start = int(fake.seen("GET", layer)[-1].headers["Range"].removeprefix("bytes=").split("-")[0])
    assert 500_000 <= start <= 1_000_000
    assert again.bytes_downloaded == size - start


def test_a_message_that_the_server_lost_is_sent_again(fake, workers, make_mirror):
    mirror = make_mirror("small", "oci", [push(fake, "small", 1000)])
    run = ask(mirror)
    long_ago = datetime.now(UTC) - timedelta(minutes=1)
    SyncRun.objects.filter(pk=run.pk).update(sent_at=long_ago, queued_at=long_ago)
    tick_until(lambda: states([run]) == [State.SUCCEEDED], workers)


def test_a_worker_that_is_told_to_stop_puts_its_run_back(fake, workers, make_mirror):
    size = 3_000_000
    mirror = make_mirror("large", "oci", [push(fake, "large", size)])
    (layer,) = [digest for digest, data in fake.blobs.items() if len(data) == size]
    fake.fault(layer, times=1, stall_after=1_000_000)
    run = ask(mirror)
    tasks.send(tasks.sync_mirror, run.pk)
    wait_for(lambda: SyncRun.objects.get(pk=run.pk).bytes_done >= 500_000, explain=lambda: said(workers))
    stopped = next(worker for worker in workers if worker.process.pid == worker_of(run))
    stopped.process.terminate()
    # The supervisor would kill it after eight seconds.
    stopped.process.wait(8)
    tick_until(lambda: states([run]) == [State.SUCCEEDED], workers)
    assert worker_of(run) != stopped.process.pid


def tick_until(condition: Callable[[], object], workers: list[Worker]) -> None:
    """The scheduler's messages, once a second, until the condition holds."""

    def step() -> bool:
        if condition():
            return True
        tasks.send(tasks.tick)
        time.sleep(0.9)
        return False

    wait_for(step, 60, lambda: said(workers))
