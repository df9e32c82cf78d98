"""What a consumer's last pull says of it: when it has to ask again, and from when on it is late.

A scanner that holds data rightly does not ask before its time; only silence beyond that and beyond its own habit means
something. Facts on Trivy: pkg/db/db.go, pkg/javadb/client.go, pkg/policy/policy.go and pkg/vex/repo/repo.go.
"""

import ipaddress
from dataclasses import dataclass
from datetime import datetime, timedelta

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)

WAITING, EXPECTED, LATE, UNKNOWN = "waiting", "expected", "late", "unknown"
STATES = {
    WAITING: "what it holds is good until later; it has no reason to ask",
    EXPECTED: "may ask at any time from now on",
    LATE: "should have asked by its own habit, and did not",
    UNKNOWN: "nothing says when it has to ask again",
}

# Trivy does not look again before so long after a download, whatever NextUpdate says (trivy-db; trivy-java-db), and
# with no NextUpdate at all: so long after it last asked (checks; VEX with the usual update_interval).
_REST = {"trivy-db": HOUR, "trivy-java-db": DAY, "trivy-checks": DAY, "vex": DAY}
# Before two pulls have shown a habit: the scanner that runs once a day.
HABIT_AT_FIRST = DAY
# A new gap counts for a third, so that a changed habit shows after a few pulls and one odd night does not.
_WEIGHT = 1 / 3
# Shorter gaps are tries of one and the same pull.
SAME_PULL = timedelta(minutes=10)


@dataclass(frozen=True)
class Held:
    """What a consumer is known to hold of one database.

    `taken_at`: the last byte of it left then. `asked_at`: it last asked what is current. `usual`: its habit, the time
    between two pulls, None before the second.
    """

    kind: str
    taken_at: datetime
    asked_at: datetime | None = None
    next_update: datetime | None = None
    usual: timedelta | None = None


def asks_again_at(held: Held) -> datetime | None:
    """From when on a healthy Trivy asks again; None for a kind that no rule of Trivy's covers."""
    rest = _REST.get(held.kind)
    if rest is None:
        return None
    if held.next_update is not None:
        return max(held.next_update, held.taken_at + rest)
    return max(held.taken_at, held.asked_at or held.taken_at) + rest


def late_from(held: Held) -> datetime | None:
    """When it has also let its own usual interval pass."""
    again = asks_again_at(held)
    return None if again is None else again + (held.usual or HABIT_AT_FIRST)


def state_of(held: Held, now: datetime) -> str:
    """One of STATES."""
    again, late = asks_again_at(held), late_from(held)
    if again is None or late is None:
        return UNKNOWN
    if now < again:
        return WAITING
    return EXPECTED if now < late else LATE


def habit(usual: timedelta | None, before: datetime | None, taken_at: datetime) -> timedelta | None:
    """The usual interval after one more pull at `taken_at`, the last one having been at `before`."""
    if before is None or taken_at - before < SAME_PULL:
        return usual
    gap = taken_at - before
    return gap if usual is None else usual + (gap - usual) * _WEIGHT


def repeats_every(kind: str) -> timedelta | None:
    """How often a client downloads the same build again once its NextUpdate has passed; None where it does not.

    Trivy compares no digest of a database: it fetches the whole layer, at most hourly (Java: daily).
    """
    return {"trivy-db": HOUR, "trivy-java-db": DAY}.get(kind)


def bytes_per_hour(kind: str, clients: int, size: int) -> int:
    """The most that `clients` download in an hour while the build they are offered is past its NextUpdate."""
    every = repeats_every(kind)
    return 0 if every is None else int(clients * size * (HOUR / every))


def product_of(agent: str) -> str:
    """The program a User-Agent names, without its version: `trivy` of `trivy/0.74.0`; "" for none."""
    return agent.strip().split("/", 1)[0].split(" ", 1)[0][:60].lower()


def blurred(address: str) -> str:
    """An address as it is kept when addresses are made anonymous: its network, IPv4 /24 or IPv6 /48."""
    try:
        prefix = 24 if ipaddress.ip_address(address).version == 4 else 48
        return str(ipaddress.ip_network(f"{address}/{prefix}", strict=False))
    except ValueError:
        return ""
