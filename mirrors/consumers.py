"""Who pulls from here: counted in memory while bytes are sent, written in batches, read for the Consumers page.

A door that sent the last byte of a blob says so with `note_taken`, one that answered with a manifest with `note_asked`;
both only touch a dictionary. What is pending is lost if the process is killed: a scanner then looks a little older
than it is, never newer.
"""

import logging
import re
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from urllib.parse import quote, unquote

from django.conf import settings
from django.db import DatabaseError, close_old_connections, connection, transaction
from django.utils import timezone

from mirrors import consumption, reading, record
from mirrors.consumption import Held
from mirrors.doctor import DOCTOR
from mirrors.models import Consumer, Mirror, Serving, Snapshot, Taking
from mirrors.registry.errors import clean

logger = logging.getLogger(__name__)

# More different consumers than this between two writes are not told apart any more.
MOST_PENDING = 20_000
MOST_KEPT = 100_000
BATCH = 200
_NOTE = re.compile(r"(\d{1,18}) (\d{1,18}) (\d{1,18}) (anonymous|token|user)(?: ([!-~]{0,500}))?", re.ASCII)


@dataclass(frozen=True)
class Who:
    """A consumer as its request shows it: address, login (`anonymous`, `token` or `user`, and whose), User-Agent."""

    address: str
    reader_kind: str = "anonymous"
    reader_name: str = ""
    agent: str = ""


@dataclass(frozen=True)
class Note:
    """What a web server in front is given to log with a download, so that whoever reads its log can count it."""

    mirror_id: int
    snapshot_id: int
    size: int
    reader_kind: str
    reader_name: str

    def text(self) -> str:
        """One line of printable ASCII."""
        name = quote(self.reader_name, safe="")
        # A header's value ends before its last space.
        return f"{self.mirror_id} {self.snapshot_id} {self.size} {self.reader_kind} {name}".rstrip()

    @classmethod
    def parse(cls, text: str) -> "Note | None":
        match = _NOTE.fullmatch(text)
        if match is None:
            return None
        mirror_id, snapshot_id, size, kind, name = match.groups()
        return cls(int(mirror_id), int(snapshot_id), int(size), kind, unquote(name or ""))


@dataclass(frozen=True)
class _Key:
    address: str
    reader_kind: str
    reader_name: str
    product: str


@dataclass
class _Pulls:
    """What one consumer did with one mirror since the last write."""

    agent: str
    snapshot_id: int | None = None
    taken_at: datetime | None = None
    asked_at: datetime | None = None
    asked_digest: str = ""
    count: int = 0
    size: int = 0


@dataclass
class Tally:
    """What was noted and not written yet. Any thread may add."""

    pending: dict[tuple[_Key, int], _Pulls] = field(default_factory=dict)
    left_out: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def pulls_of(self, key: _Key, mirror_id: int, agent: str) -> _Pulls | None:
        """The entry to write into, the lock being held; None where there are too many already."""
        entry = self.pending.get((key, mirror_id))
        if entry is None:
            if len(self.pending) >= MOST_PENDING:
                self.left_out += 1
                return None
            entry = self.pending[key, mirror_id] = _Pulls(agent)
        entry.agent = agent or entry.agent
        return entry

    def take(self) -> tuple[dict[tuple[_Key, int], _Pulls], int]:
        with self.lock:
            taken, self.pending = self.pending, {}
            left_out, self.left_out = self.left_out, 0
        return taken, left_out


_tally = Tally()


# Noting, on the way of a request


def note_taken(who: Who, *, mirror_id: int, snapshot_id: int, size: int, at: datetime) -> None:
    """The last byte of a layer, archive or file of this snapshot has left."""
    _note(who, mirror_id, at, taken=(snapshot_id, size))


def note_asked(who: Who, *, mirror_id: int, digest: str, at: datetime) -> None:
    """A manifest was given out: with the digest it holds already, a consumer need not download anything."""
    _note(who, mirror_id, at, asked=digest)


def _note(who: Who, mirror_id: int, at: datetime, *, taken: tuple[int, int] | None = None, asked: str = "") -> None:
    kept = reading.serving()
    agent = clean(who.agent, 200)
    # The doctor reads what a scanner would, keeps none of it, and would be late from tomorrow on.
    if not kept.count_consumers or consumption.product_of(agent) == DOCTOR:
        return
    address = consumption.blurred(who.address) if kept.anonymise_addresses else who.address
    key = _Key(address[:64], who.reader_kind, clean(who.reader_name, 150), consumption.product_of(agent))
    with _tally.lock:
        entry = _tally.pulls_of(key, mirror_id, agent)
        if entry is None:
            return
        if taken is not None:
            entry.snapshot_id, entry.taken_at = taken[0], at
            entry.count, entry.size = entry.count + 1, entry.size + taken[1]
        else:
            entry.asked_at, entry.asked_digest = at, asked
    _writer.wake()


class _Writer:
    """Writes what is pending, some seconds after the first of it. One thread a process, there only while needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting = False

    def wake(self) -> None:
        seconds = settings.AIRGAP_CONSUMERS_WRITE_SECONDS
        if not seconds or self._waiting:
            return
        with self._lock:
            if self._waiting:
                return
            self._waiting = True
        timer = threading.Timer(seconds, self._write)
        timer.daemon = True
        timer.start()

    def _write(self) -> None:
        self._waiting = False
        try:
            close_old_connections()
            write(timezone.now())
        except DatabaseError as error:
            logger.warning("Consumers could not be written down: %s", error)
        finally:
            connection.close()


_writer = _Writer()


# Writing


def write(now: datetime) -> int:
    """Write down what was noted since the last time; how many entries. Raises DatabaseError, with nothing lost."""
    pending, left_out = _tally.take()
    if left_out:
        logger.warning("%s pulls of further consumers were not written down: too many at once.", left_out)
    if not pending:
        return 0
    entries = list(pending.items())
    try:
        for start in range(0, len(entries), BATCH):
            with transaction.atomic():
                _write_batch(entries[start : start + BATCH])
    except DatabaseError:
        _put_back(entries[start:])
        raise
    return len(entries)


def _put_back(entries: Iterable[tuple[tuple[_Key, int], _Pulls]]) -> None:
    with _tally.lock:
        for key, pulls in entries:
            if len(_tally.pending) < MOST_PENDING:
                _tally.pending.setdefault(key, pulls)


def _write_batch(entries: list[tuple[tuple[_Key, int], _Pulls]]) -> None:
    kinds = dict(Mirror.objects.filter(pk__in={pk for (_, pk), _ in entries}).values_list("pk", "kind"))
    entries = [entry for entry in entries if entry[0][1] in kinds]
    # Who only asked is no consumer yet: a first pull always ends in a download.
    known = _consumers({key: pulls for (key, _), pulls in entries})
    taken = {pulls.snapshot_id for _, pulls in entries if pulls.snapshot_id}
    # A snapshot that retention removed meanwhile says nothing any more: its pull is not counted.
    snapshots = Snapshot.objects.select_related("mirror").in_bulk(taken)
    rows = Taking.objects.select_for_update().filter(consumer__in=known.values(), mirror__in=kinds)
    present = {(row.consumer_id, row.mirror_id): row for row in rows}
    for (key, mirror_id), pulls in entries:
        consumer = known.get(key)
        if consumer is None:
            continue
        row = present.get((consumer.pk, mirror_id))
        if row is None:
            if pulls.snapshot_id not in snapshots:
                continue
            row = Taking(consumer=consumer, mirror_id=mirror_id)
        _apply(row, pulls, kinds[mirror_id], snapshots)
        row.save()


def _consumers(wanted: dict[_Key, _Pulls]) -> dict[_Key, Consumer]:
    """The rows of these consumers, those made that took something for the first time."""
    found = {
        _Key(row.address, row.reader_kind, row.reader_name, row.product): row
        for row in Consumer.objects.filter(address__in={key.address for key in wanted})
    }
    room = MOST_KEPT - Consumer.objects.count() if wanted.keys() - found.keys() else 0
    for key, pulls in wanted.items():
        seen = max(filter(None, (pulls.taken_at, pulls.asked_at)))
        row = found.get(key)
        if row is None:
            if pulls.taken_at is None or room <= 0:
                continue
            room -= 1
            row, _ = Consumer.objects.get_or_create(
                address=key.address,
                reader_kind=key.reader_kind,
                reader_name=key.reader_name,
                product=key.product,
                defaults={"first_seen_at": seen, "last_seen_at": seen},
            )
            found[key] = row
        row.agent, row.last_seen_at = pulls.agent or row.agent, max(row.last_seen_at, seen)
        row.save(update_fields=["agent", "last_seen_at"])
    return {key: found[key] for key in wanted if key in found}


def _apply(row: Taking, pulls: _Pulls, kind: str, snapshots: dict[int, Snapshot]) -> None:
    snapshot = snapshots.get(pulls.snapshot_id or 0)
    if pulls.taken_at is not None and snapshot is not None:
        before = row.taken_at if row.pk else None
        usual = consumption.habit(row.usual, before, pulls.taken_at)
        row.usual_seconds = None if usual is None else int(usual.total_seconds())
        row.snapshot, row.digest, row.taken_at, row.asked_at = snapshot, snapshot.digest, pulls.taken_at, None
        row.updated_at, row.next_update = snapshot.updated_at, snapshot.next_update
        # An image is many layers and one pull.
        again = before is not None and pulls.taken_at - before < consumption.SAME_PULL
        row.count += pulls.count if kind != "oci" else 0 if again else 1
        row.bytes_total += pulls.size
    if pulls.asked_at is not None and pulls.asked_digest == row.digest and pulls.asked_at > row.taken_at:
        row.asked_at = pulls.asked_at
    held = Held(kind, row.taken_at, row.asked_at, row.next_update, row.usual)
    row.again_at, row.late_at = consumption.asks_again_at(held), consumption.late_from(held)


# Letting go


def forget_old(now: datetime) -> int:
    """Remove what consumers took longer ago than is kept, and consumers of whom nothing is left; how many of these."""
    kept = reading.serving()
    Taking.objects.filter(taken_at__lt=now - timedelta(days=kept.consumers_days)).delete()
    return Consumer.objects.filter(takings=None).delete()[1].get("mirrors.Consumer", 0)


def forget_all() -> int:
    """Remove every consumer, as when counting is switched off or addresses are made anonymous."""
    _tally.take()
    return Consumer.objects.all().delete()[1].get("mirrors.Consumer", 0)


def change_settings(*, count: bool, anonymise: bool, days: int, by: str, now: datetime, address: str = "") -> int:
    """Keep these settings; what may no longer be kept is removed at once. How many consumers that were."""
    with transaction.atomic():
        row = Serving.locked()
        was = (row.count_consumers, row.anonymise_addresses)
        row.count_consumers, row.anonymise_addresses, row.consumers_days = count, anonymise, days
        row.save(update_fields=["count_consumers", "anonymise_addresses", "consumers_days"])
        removed = 0
        if (was[0] and not count) or (anonymise and not was[1]):
            removed = forget_all()
        detail = f"{'counted' if count else 'not counted'}, {'networks' if anonymise else 'addresses'}, {days} days"
        record.write(by, "consumers changed", "", detail, address, at=now)
    reading.forget()
    return removed
