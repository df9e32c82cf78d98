"""The store check: every blob against its name, every row against its blob, and what is bad fetched again.

One check runs at a time. How far it is, and what the last one found, stands in `scrub.json` in the data directory:
it is about the files there, and it must be readable when the database is not.
"""

import fcntl
import json
import logging
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from mirrors import content, exporting, mirroring, record, retention, runs, wording, work_here
from mirrors.blobs import BlobStore, StoreError
from mirrors.bundle.composition import Recipe
from mirrors.bundle.contents import BundleError
from mirrors.digests import short
from mirrors.models import Bundle, BundleBlob, ImportedSnapshot, Mirror, Snapshot, SnapshotBlob, SyncRun
from mirrors.stopping import Stopped, StopSignal

logger = logging.getLogger(__name__)

WRITE_EVERY_SECONDS = 2.0
MOST_NAMED = 50
QUEUED, RUNNING, DONE, STOPPED, FAILED = "queued", "running", "done", "stopped", "failed"


@dataclass
class Check:
    """One check of the store: `state` is queued, running, done, stopped or failed; the lists hold sentences."""

    state: str = QUEUED
    by: str = ""
    asked_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    files: int = 0
    files_total: int = 0
    bytes_done: int = 0
    bytes_total: int = 0
    damaged: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    strays: list[str] = field(default_factory=list)
    actions: list[str] = field(default_factory=list)
    loose: int = 0
    loose_bytes: int = 0
    error: str = ""
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def is_open(self) -> bool:
        return self.state in (QUEUED, RUNNING)

    @property
    def is_clean(self) -> bool:
        return self.state == DONE and not (self.damaged or self.missing or self.strays)

    @property
    def rate_bytes(self) -> float:
        """Bytes a second since it began; 0 while that cannot be told."""
        seconds = (timezone.now() - self.started_at).total_seconds() if self.started_at else 0
        return self.bytes_done / seconds if seconds > 1 else 0.0

    def headline(self) -> str:
        """What it found, or how it stands, in one sentence."""
        if self.state == QUEUED:
            return "The check of the store waits for a worker."
        if self.state == RUNNING:
            if not self.files_total:
                return "Counting what is there."
            return f"Checking file {min(self.files + 1, self.files_total):,} of {self.files_total:,}."
        if self.state == FAILED:
            return "The last check of the store could not be finished."
        if self.state == STOPPED:
            return "The last check of the store was interrupted."
        faults = [
            f"{self._count(name):,} {word}"
            for name, word in (("damaged", "damaged"), ("missing", "missing"), ("strays", "out of place"))
            if self._count(name)
        ]
        if not faults:
            if not self.files:
                return "The store is empty, so nothing in it is wrong."
            return f"All {wording.counted(self.files, 'file')} in the store are what their names say."
        return f"Of {wording.counted(self.files, 'file')} in the store, {wording.joined(faults)}."

    def _count(self, name: str) -> int:
        return self.counts.get(name, len(getattr(self, name)))


# What the page and the command read


def last_check() -> Check | None:
    """The check under way or the last one; None before the first. One whose process went away is `stopped`."""
    try:
        values = json.loads(_state_file().read_text())
    except (OSError, ValueError):
        return None
    known = {entry.name for entry in fields(Check)}
    check = Check(**{name: value for name, value in values.items() if name in known})
    for name in ("asked_at", "started_at", "finished_at"):
        text = getattr(check, name)
        setattr(check, name, datetime.fromisoformat(text) if text else None)
    if check.state == RUNNING and not _is_running():
        check.state = STOPPED
    return check


def ask(*, by: str, now: datetime, address: str = "") -> bool:
    """Note that a check is wanted, before a worker is woken. False when one is under way."""
    if _is_running():
        return False
    _save(Check(by=by, asked_at=now))
    record.write(by, "store check asked for", address=address, at=now)
    return True


def withdraw(problem: str, *, by: str, now: datetime) -> None:
    """The check that was asked for will not come; the sentence says why."""
    _save(Check(FAILED, by, finished_at=now, error=problem))


# The check


def scrub(*, by: str = "", store: BlobStore | None = None, stop: StopSignal | None = None) -> list[SyncRun]:
    """Check everything, set damaged files aside, and ask for what can be fetched again: the runs to be sent.

    1. Every blob against its name. 2. Files that have no business there. 3. Every row against its blob.
    4. Mirrors whose current content is affected get a repair run, older snapshots that cannot be had again are
    removed, bundles are marked. Nothing is done while another check runs.
    """
    store, stop = store or content.store(), stop or StopSignal()
    with _only_one() as alone:
        if not alone:
            logger.info("A check of the store is under way already")
            return []
        asked = last_check()
        check = Check(RUNNING, by, asked.asked_at if asked and asked.state == QUEUED else None, timezone.now())
        with work_here.entered(stop):
            return _Scrub(check, store, stop).make()


class _Scrub:
    def __init__(self, check: Check, store: BlobStore, stop: StopSignal) -> None:
        self.check, self.store, self.stop = check, store, stop
        self.bad: set[str] = set()
        self._saved = 0.0

    def make(self) -> list[SyncRun]:
        found: list[SyncRun] = []
        _save(self.check)
        try:
            self._read_files()
            self._find_strays()
            self._compare_rows()
            found = self._mend()
            self.check.state = DONE
        except Stopped:
            self.check.state = STOPPED
        except StoreError as error:
            self.check.state, self.check.error = FAILED, str(error)
        except Exception:  # the page must not say "checking" for ever; the fault itself goes on to the worker
            self.check.state = FAILED
            self.check.error = "A fault in Airgap itself ended the check. The worker's log has the details."
            raise
        finally:
            self.check.finished_at = timezone.now()
            _save(self.check)
        return found

    def _read_files(self) -> None:
        files = list(self.store.digests())
        self.check.files_total, self.check.bytes_total = len(files), sum(size for _, size in files)
        for batch in retention.batches(files, 200):
            named = retention.referenced(digest for digest, _ in batch)
            for digest, size in batch:
                self.stop.check()
                if digest not in named:
                    self.check.loose, self.check.loose_bytes = self.check.loose + 1, self.check.loose_bytes + size
                if self.store.verify(digest, stop=self.stop, progress=self._progress) == "damaged":
                    self.store.quarantine(digest)
                    self.bad.add(digest)
                    self.check.damaged.append(
                        f"{short(digest)} ({wording.size_text(size)}) is not what its name says; set aside."
                    )
                self.check.files += 1

    def _progress(self, size: int) -> None:
        self.check.bytes_done += size
        if time.monotonic() - self._saved >= WRITE_EVERY_SECONDS:
            self._saved = time.monotonic()
            _save(self.check)

    def _find_strays(self) -> None:
        """Files below blobs/ under a name that is no digest, or in another digest's folder."""
        root = self.store.root / "blobs"
        for path in sorted(root.rglob("*")) if root.is_dir() else []:
            if not path.is_dir() and not self._is_blob(path):
                self.check.strays.append(f"{path.relative_to(self.store.root)} does not belong into the store.")

    def _is_blob(self, path: Path) -> bool:
        try:
            return self.store.path(f"sha256:{path.name}") == path
        except ValueError:
            return False

    def _compare_rows(self) -> None:
        sizes = dict(SnapshotBlob.objects.order_by().values_list("digest", "size_bytes").distinct())
        rendered = BundleBlob.objects.filter(bundle__expired_at=None).order_by().values_list("digest", flat=True)
        for digest in sorted(sizes.keys() | set(rendered.distinct())):
            self.stop.check()
            if digest in self.bad:
                continue
            try:
                size = self.store.size(digest)
            except StoreError as error:
                if error.code != "missing":
                    raise
                # Pruned since the rows were read, row and file: nothing is missing then.
                if retention.referenced([digest]):
                    self.bad.add(digest)
                    self.check.missing.append(f"{short(digest)} is not in the store.")
                continue
            if size != sizes.get(digest, size):
                self.bad.add(digest)
                self.check.damaged.append(f"{short(digest)} has {size} bytes; its row says {sizes[digest]}.")

    # Consequences

    def _mend(self) -> list[SyncRun]:
        if not self.bad:
            return []
        affected = Snapshot.objects.filter(blobs__digest__in=self.bad).distinct().select_related("mirror")
        snapshots = list(affected.prefetch_related("blobs"))
        current = [snapshot for snapshot in snapshots if snapshot.is_current]
        found = [run for snapshot in current if (run := self._repair(snapshot.mirror)) is not None]
        fetched_again = {blob.digest for snapshot in current for blob in snapshot.blobs.all()}
        for snapshot in snapshots:
            wanting = {blob.digest for blob in snapshot.blobs.all()} & self.bad
            if not snapshot.is_current and not wanting <= fetched_again:
                self._give_up(snapshot)
        self._mark_bundles()
        return found

    def _repair(self, mirror: Mirror) -> SyncRun | None:
        if mirroring.comes_in_bundles(mirror):
            came = ImportedSnapshot.objects.filter(snapshot=mirror.current).order_by("pk").last()
            which = f"the bundle {came.run.bundle} again, which brought it," if came is not None else "its bundle again"
            self.check.actions.append(f"{mirror.label}: what is current is damaged. Import {which} or a newer one.")
            return None
        try:
            run, created = runs.request_sync(
                mirror, trigger=SyncRun.Trigger.REPAIR, by=self.check.by, now=timezone.now()
            )
        except runs.RunError as error:
            self.check.actions.append(
                f"{mirror.label}: what is current is damaged and cannot be fetched again. {error}"
            )
            return None
        self.check.actions.append(f"{mirror.label}: what is current is damaged; it is fetched again in run {run.pk}.")
        return run if created else None

    def _give_up(self, snapshot: Snapshot) -> None:
        """An older build is no longer offered by anybody: without its bytes the row would only promise too much."""
        when = f" of {wording.utc_text(snapshot.updated_at)}" if snapshot.updated_at else ""
        with transaction.atomic():
            retention.lock_references()
            gone = Snapshot.objects.filter(pk=snapshot.pk).exclude(mirror__current_id=snapshot.pk).delete()[0]
        if gone:
            pinned = "pinned " if snapshot.pinned else ""
            sentence = f"{snapshot.mirror.label}: the {pinned}older build {short(snapshot.digest)}{when} was removed."
            self.check.actions.append(f"{sentence} {self._why(snapshot.mirror)}")
            record.write(self.check.by or "system", "damaged snapshot removed", snapshot.mirror.name, sentence)

    @staticmethod
    def _why(mirror: Mirror) -> str:
        if mirroring.comes_in_bundles(mirror):
            return "The bundle that brought it would bring it back."
        return "No source offers it any more."

    def _mark_bundles(self) -> None:
        for bundle in Bundle.objects.kept().filter(state=Bundle.State.READY):
            if not (_digests_of(bundle) & self.bad):
                continue
            own = set(bundle.rendered.values_list("digest", flat=True)) & self.bad
            advice = "Make a new bundle." if own else "It can be sent again once its parts are here again."
            if exporting.mark_damaged(bundle.pk, f"The store check found parts of it missing or damaged. {advice}"):
                self.check.actions.append(f"{bundle.filename} cannot be sent. {advice}")


def _digests_of(bundle: Bundle) -> set[str]:
    if bundle.profile == Bundle.Profile.CACHE:
        return {str(bundle.recipe.get("blob", ""))}
    with suppress(BundleError):
        return set(Recipe.from_dict(bundle.recipe).digests)
    return set()


# The state file


def _state_file() -> Path:
    return Path(settings.AIRGAP_DATA_DIR) / "scrub.json"


def _save(check: Check) -> None:
    """Replace the state file in one step; lists are cut to what a person reads."""
    values: dict[str, Any] = asdict(check)
    for name, value in values.items():
        if isinstance(value, datetime):
            values[name] = value.isoformat()
        elif isinstance(value, list):
            values["counts"][name] = len(value)
            if len(value) > MOST_NAMED:
                values[name] = [*value[:MOST_NAMED], f"… and {len(value) - MOST_NAMED:,} more."]
    path = _state_file()
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_text(json.dumps(values, indent=1))
        aside.replace(path)
    except OSError as error:
        # On a full disk or a store that is read-only the check goes on; only its page stays behind.
        logger.warning("How far the check of the store is cannot be written to %s: %s", path, error.strerror)


@contextmanager
def _only_one() -> Iterator[bool]:
    """True for the one process that may check now. The lock goes with the process, however that ends."""
    with _lock_file().open("a") as file:
        alone = _locked(file, fcntl.LOCK_EX)
        for _ in range(20):
            if alone:
                break
            # Whoever holds it may only be looking whether a check is running.
            time.sleep(0.05)
            alone = _locked(file, fcntl.LOCK_EX)
        yield alone


def _locked(file: IO[str], how: int) -> bool:
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_running() -> bool:
    with _lock_file().open("a") as file:
        return not _locked(file, fcntl.LOCK_SH)


def _lock_file() -> Path:
    path = _state_file().with_name("scrub.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def sentences(check: Check) -> Iterable[str]:
    """Everything a check found and did, one sentence each."""
    yield from (*check.damaged, *check.missing, *check.strays, *check.actions)
    if check.loose:
        yield (
            f"{wording.counted(check.loose, 'file')} ({wording.size_text(check.loose_bytes)}) that nothing refers to "
            "will be cleared away by itself."
        )
    if check.error:
        yield check.error
