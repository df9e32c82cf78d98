"""One address, from its first question to its last; each target by itself, so that no fault hides another's."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

from mirrors.doctor import artifact, layer, vex
from mirrors.doctor.addresses import Target
from mirrors.doctor.asking import PATIENCE
from mirrors.doctor.findings import UNASKED, Finding, Level, Report
from mirrors.doctor.login import log_in
from mirrors.doctor.reach import Line, judge_ping, reach
from mirrors.registry.errors import Hop
from mirrors.registry.transport import Connection, Timeouts
from mirrors.stopping import Stopped, StopSignal
from mirrors.trivy.catalogue import MIB

SMALL = 8 * MIB
EVERYTHING = 1 << 50


@dataclass(frozen=True)
class Options:
    """`connection` is how a Trivy there would ask: its CA, its login. Layers of up to `whole_up_to` bytes are read
    whole, of larger ones only the beginning."""

    connection: Connection = field(default_factory=Connection)
    whole_up_to: int = SMALL
    timeouts: Timeouts = PATIENCE


def examine(
    targets: Iterable[Target], options: Options, *, now: datetime, stop: StopSignal | None = None
) -> Iterator[Report]:
    """A report for each target, as soon as it is there. When `stop` is set, those left say that they were not asked."""
    stop = stop or StopSignal()
    told: set[Finding] = set()
    for target in targets:
        met: list[Hop] = []
        findings: list[Finding] = []
        try:
            stop.check()
            work = _vex if target.url else _registry
            for finding in work(target, options, now, stop, met):
                # What holds for the whole host is said once.
                if finding not in told or finding.level == Level.STOPS:
                    findings.append(finding)
                told.add(finding)
        except Stopped as stopped:
            came = f"not asked any more: {stopped}"
            findings.append(Finding(UNASKED, Level.NOTE, target.label, came, "", "Ask for less at once, or again."))
        yield Report(target.label, tuple(findings), tuple(dict.fromkeys(hop.host for hop in met)))


def _vex(target: Target, options: Options, now: datetime, stop: StopSignal, met: list[Hop]) -> Iterator[Finding]:
    examination = vex.Examination(target.url, options.connection, stop, options.timeouts, now)
    try:
        yield from examination.findings()
    finally:
        for asker in examination.askers:
            met += asker.met
            asker.close()


def _registry(target: Target, options: Options, now: datetime, stop: StopSignal, met: list[Hop]) -> Iterator[Finding]:
    found, line = reach(target.registry, options.connection, stop, options.timeouts, now)
    yield from found
    if line is None:
        return
    try:
        yield from _at(line, target, options, now)
    finally:
        met += line.asker.met
        line.asker.close()


def _at(line: Line, target: Target, options: Options, now: datetime) -> Iterator[Finding]:
    ping = judge_ping(line)
    if ping is not None:
        yield ping
        if ping.level == Level.STOPS:
            return
    logins: dict[str, str | None] = {}
    said: list[Finding] = []

    def authorize(repository: str) -> str | None:
        if repository not in logins:
            findings, logins[repository] = log_in(line, repository, options.connection)
            said.extend(findings if not said else ())
        return logins[repository]

    findings, held = artifact.find(line, target, authorize)
    yield from said
    yield from findings
    if held is None:
        if logins.get(target.repository) is not None:
            yield artifact.examine_failure(line, target.repository, logins[target.repository] or "")
        return
    authorization = logins[held.repository] or ""
    yield from layer.examine(line, held, authorization, whole_up_to=options.whole_up_to, now=now)
    yield artifact.examine_failure(line, held.repository, authorization)
    if line.ping.status == 200:
        yield artifact.examine_stranger(line, held)
    if held.kind.name == "trivy-checks" and target.reference != "latest":
        yield artifact.examine_latest(line, held, authorization)
