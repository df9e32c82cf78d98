"""What the doctor says."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum


class Level(StrEnum):
    """`stops`: some Trivy fails here. `trips`: it works, but not as people expect, or not for all of them."""

    OK = "ok"
    NOTE = "note"
    TRIPS = "trips"
    STOPS = "stops"


UNASKED = "unasked"
_ORDER = (Level.OK, Level.NOTE, Level.TRIPS, Level.STOPS)


@dataclass(frozen=True)
class Finding:
    """`code` is stable, for scripts. `asked` is what was asked, `came` what was answered, `trivy` what a Trivy makes of
    it (and which), `cure` the next step, "" where there is nothing to do."""

    code: str
    level: Level
    asked: str
    came: str
    trivy: str = ""
    cure: str = ""


@dataclass(frozen=True)
class Report:
    """One address. `hosts` are those that were met, `host:port`, for the firewall."""

    address: str
    findings: tuple[Finding, ...]
    hosts: tuple[str, ...] = field(default=())

    @property
    def worst(self) -> Level:
        return worst_of(self.findings)

    @property
    def stops(self) -> bool:
        return self.worst == Level.STOPS

    @property
    def is_complete(self) -> bool:
        """False where the time was up before everything was asked."""
        return all(finding.code != UNASKED for finding in self.findings)


def worst_of(findings: Iterable[Finding]) -> Level:
    return max((finding.level for finding in findings), key=_ORDER.index, default=Level.OK)
