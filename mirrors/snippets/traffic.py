"""What scanners transfer in a day, pulling by themselves or from caches that are filled on a schedule.

Trivy never compares: once the copy it holds is past its NextUpdate (24 h after the build, Java DB 72 h) it takes the
whole layer again, the DB at most once an hour, the Java DB at most once a day (Trivy pkg/db, pkg/javadb).
Checks are asked for by manifest and taken only when changed; VEX archives come from here without an ETag, so whole.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from mirrors.snippets.instance import Instance

DAY = timedelta(days=1)


@dataclass(frozen=True)
class Rule:
    """How often Trivy takes one kind anew: while newer builds come, and once what is here is past its date."""

    fresh: timedelta | None
    past: timedelta | None
    when: str


RULES = {
    "trivy-db": Rule(DAY, timedelta(hours=1), "once a day"),
    "trivy-java-db": Rule(3 * DAY, DAY, "every 3 days, where jars are scanned"),
    "trivy-checks": Rule(None, None, "when changed; a small question a day"),
    "vex": Rule(DAY, DAY, "once a day"),
}


@dataclass(frozen=True)
class Load:
    """Bytes a day for one database. None where its size is not known yet.

    `pulled`: scanners that keep their cache, while builds here are newer than theirs. `stale`: the same once what is
    here is past its NextUpdate and nothing newer comes. `cacheless`: jobs that start with an empty cache. `filled`: the
    hosts that fill caches. `burst`: everybody at once, after a new build.
    """

    label: str
    size: int | None
    when: str
    pulled: int | None
    stale: int | None
    cacheless: int | None
    filled: int | None
    burst: int | None


@dataclass(frozen=True)
class Traffic:
    """`loads` and their sum, for so many scanners, jobs without a cache a day, and hosts that fill caches."""

    scanners: int
    jobs: int
    fillers: int
    loads: tuple[Load, ...]
    total: Load


def traffic(instance: Instance, *, scanners: int, jobs: int, fillers: int) -> Traffic:
    loads = tuple(_loads(instance, scanners, jobs, fillers))
    total = Load(
        "Together",
        _sum(load.size for load in loads),
        "",
        _sum(load.pulled for load in loads),
        _sum(load.stale for load in loads),
        _sum(load.cacheless for load in loads),
        _sum(load.filled for load in loads),
        _sum(load.burst for load in loads),
    )
    return Traffic(scanners, jobs, fillers, loads, total)


def _loads(instance: Instance, scanners: int, jobs: int, fillers: int) -> Iterator[Load]:
    for artifact in (instance.db, instance.java_db, instance.checks):
        if artifact:
            yield _load(artifact.label, artifact.kind, artifact.size, scanners, jobs, fillers)
    for repository in instance.vex:
        yield _load(repository.label, "vex", repository.size, scanners, jobs, fillers)


def _load(label: str, kind: str, size: int | None, scanners: int, jobs: int, fillers: int) -> Load:
    rule = RULES[kind]
    if size is None:
        return Load(label, None, rule.when, None, None, None, None, None)
    return Load(
        label,
        size,
        rule.when,
        _per_day(rule.fresh, size * scanners),
        _per_day(rule.past, size * scanners),
        size * jobs,
        size * fillers,
        size * scanners,
    )


def _per_day(every: timedelta | None, amount: int) -> int:
    return round(amount * (DAY / every)) if every else 0


def _sum(amounts: Iterator[int | None]) -> int | None:
    known = [amount for amount in amounts if amount is not None]
    return sum(known) if known else None
