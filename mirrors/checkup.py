"""A check-up: the doctor sent to an address, by somebody, within a time. It may be sent to inner addresses on purpose.

Registries are inner, so nothing keeps an operator from asking one; who asked what stands in the record. Only what a
registry is asked comes back, never the body of an answer.
"""

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime

from mirrors import authority, record
from mirrors.doctor import AddressError, Options, Report, Target, examine, targets_of
from mirrors.doctor.findings import UNASKED, Finding, Level
from mirrors.snippets import Instance
from mirrors.stopping import StopSignal
from mirrors.wording import number_word

# A person waits for the page.
PAGE_SECONDS = 25.0
HEADLINES = {
    Level.OK: "A Trivy there would trip over nothing.",
    Level.NOTE: "A Trivy there would get what it needs.",
}


def targets_for(text: str, here: Instance) -> list[Target]:
    """What to ask for: of the address given, or of this instance where it is empty. Raises AddressError."""
    if text.strip():
        return targets_of(text)
    own = [
        Target(here.registry, artifact.repository, artifact.tag, artifact.kind)
        for artifact in dict.fromkeys((here.db, here.java_db, here.checks, here.checks_before))
        if artifact
    ]
    own += [Target(url=here.vex_url(repository), kind="vex") for repository in here.vex]
    if not own:
        raise AddressError("Nothing that Trivy pulls is mirrored here yet. Give the address of another registry.")
    return own


def with_own_authority(options: Options, text: str) -> Options:
    """Scanners of this instance are told to trust its authority; so is the doctor when it looks here."""
    if text.strip() or options.connection.ca_pem:
        return options
    return replace(options, connection=replace(options.connection, ca_pem=authority.pem().decode()))


def examined(
    text: str, targets: Iterable[Target], options: Options, *, by: str, now: datetime, seconds: float, address: str = ""
) -> list[Report]:
    """The reports, and a line in the record. What is not asked within so many seconds is not asked any more."""
    record.write(by, "registry examined", text.strip() or "this instance", address=address, at=now)
    stop = StopSignal()
    with _ended_after(seconds, stop):
        return list(examine(targets, with_own_authority(options, text), now=now, stop=stop))


@contextmanager
def _ended_after(seconds: float, stop: StopSignal) -> Iterator[None]:
    timer = threading.Timer(seconds, stop.set, args=(f"it took longer than {seconds:.0f} seconds",))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def headline(reports: Iterable[Report]) -> str:
    """The worst, in a sentence."""
    findings = [finding for report in reports for finding in report.findings]
    stops = [finding for finding in findings if finding.level == Level.STOPS]
    trips = [finding for finding in findings if finding.level == Level.TRIPS]
    if stops:
        return f"A Trivy there would stop: {_counted_faults(stops)}."
    if trips:
        return f"A Trivy there would work, with {_counted_faults(trips)} to know of."
    if any(finding.code == UNASKED for finding in findings):
        return "Not everything was asked."
    return HEADLINES[Level.NOTE if any(finding.level == Level.NOTE for finding in findings) else Level.OK]


def _counted_faults(findings: list[Finding]) -> str:
    count = len({(finding.code, finding.came) for finding in findings})
    return f"{number_word(count)} {'thing' if count == 1 else 'things'}"


def allow_list(reports: Iterable[Report]) -> list[str]:
    """Every host that was met, each once."""
    return list(dict.fromkeys(host for report in reports for host in report.hosts))
