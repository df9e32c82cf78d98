"""What consumers hold, and what they will download: the figures and sentences of the Consumers page."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Count, Max, Min, Q

from mirrors import consumption, wording
from mirrors.models import Consumer, Mirror, Taking


@dataclass(frozen=True)
class Database:
    """One mirror as its consumers hold it. `oldest`: the date of the oldest data that one of them which is not late may
    still hold. `scanners`: those that are Trivy and not late; `per_hour`: the most bytes they ask for in an hour while
    the build on offer is past its NextUpdate, 0 where they do not ask again and again."""

    mirror: Mirror
    consumers: int
    late: int
    scanners: int
    oldest: datetime | None
    last_taken_at: datetime
    per_hour: int
    size: int
    next_update: datetime | None

    def load(self, now: datetime) -> str:
        """What its consumers download together, in a sentence; "" where there is nothing to warn of."""
        every = consumption.repeats_every(self.mirror.kind)
        if every is None or not self.scanners or self.next_update is None:
            return ""
        each = wording.size_text(self.size)
        sums = f"up to {wording.size_text(self.per_hour)} an hour, {wording.rate_text(self.per_hour / 3600)}"
        one = self.scanners == 1
        subject = "the one Trivy" if one else f"each of the {self.scanners:,} Trivys"
        pace = "up to once an hour" if every == consumption.HOUR else "every day"
        again = f"downloads {each} again {pace}"
        if self.next_update <= now:
            past = wording.ago_text(self.next_update, now)
            return f"Its NextUpdate passed {past}: until a newer build comes, {subject} here {again} ({sums})."
        when = wording.utc_text(self.next_update)
        return f"If no newer build has come by {when}, {subject} here {again} ({sums})."


@dataclass(frozen=True)
class Demand:
    """All of it. `late` counts consumers that are late with at least one database."""

    consumers: int
    late: int
    databases: tuple[Database, ...]

    def headline(self) -> str:
        if not self.consumers:
            return "Nobody has taken anything from here yet."
        who = wording.number_word(self.consumers) + (" consumer takes" if self.consumers == 1 else " consumers take")
        if not self.late:
            tail = "it is not late" if self.consumers == 1 else "none is late"
        elif self.late == self.consumers:
            tail = "it is late" if self.consumers == 1 else "all are late"
        else:
            tail = f"{wording.number_word(self.late)} {'is' if self.late == 1 else 'are'} late"
        return wording.capitalized(f"{who} data from here; {tail}.")


def of_all(now: datetime) -> Demand:
    """Three queries, however many consumers there are."""
    late = Q(late_at__lte=now)
    trivy = Q(consumer__product="trivy") & ~late
    rows = Taking.objects.order_by().values("mirror_id")
    sums = rows.annotate(
        consumers=Count("pk"),
        late=Count("pk", filter=late),
        scanners=Count("pk", filter=trivy),
        oldest=Min("updated_at", filter=~late),
        last=Max("taken_at"),
    )
    by_mirror = {row["mirror_id"]: row for row in sums}
    mirrors = Mirror.objects.filter(pk__in=by_mirror).select_related("current").order_by("position", "name")
    whole = Consumer.objects.aggregate(
        count=Count("pk", distinct=True), late=Count("pk", filter=Q(takings__late_at__lte=now), distinct=True)
    )
    return Demand(whole["count"], whole["late"], tuple(_database(mirror, by_mirror[mirror.pk]) for mirror in mirrors))


def takers_of(mirror: Mirror, now: datetime) -> str:
    """`41 consumers, three of them late`; "" where nobody took it. One query."""
    late = Count("pk", filter=Q(late_at__lte=now))
    sums = Taking.objects.filter(mirror=mirror).aggregate(count=Count("pk"), late=late)
    if not sums["count"]:
        return ""
    many = wording.counted(sums["count"], "consumer")
    if not sums["late"]:
        return many
    if sums["late"] == sums["count"]:
        return f"{many}, late" if sums["count"] == 1 else f"{many}, all of them late"
    return f"{many}, {wording.number_word(sums['late'])} of them late"


def _database(mirror: Mirror, sums: Mapping[str, Any]) -> Database:
    current = mirror.current
    size = current.size_bytes if current else 0
    return Database(
        mirror=mirror,
        consumers=sums["consumers"],
        late=sums["late"],
        scanners=sums["scanners"],
        oldest=sums["oldest"],
        last_taken_at=sums["last"],
        per_hour=consumption.bytes_per_hour(mirror.kind, sums["scanners"], size),
        size=size,
        next_update=current.next_update if current else None,
    )
