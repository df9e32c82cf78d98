"""The layer: its headers, where it really comes from, and how old what is in it is.

Read whole only if it is small or somebody asked for it; then its digest is checked and its metadata.json read.
Otherwise only its first bytes are, and its age is told from the manifest: pushed, not built.
"""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta

from requests import Response

from mirrors.digests import DigestError, Verifier, short
from mirrors.doctor.artifact import Held
from mirrors.doctor.asking import BODY_LIMIT, Answer
from mirrors.doctor.findings import Finding, Level
from mirrors.doctor.reach import Line
from mirrors.doctor.rules import SSRF_SINCE, after, refused_redirect
from mirrors.registry.errors import RegistryError, status_words
from mirrors.registry.exchange import content_length
from mirrors.trivy.catalogue import MIB
from mirrors.trivy.layers import LayerError, LayerFacts, LayerInspector
from mirrors.trivy.rules import RuleError, check_checks_bundle
from mirrors.wording import age_text, joined, size_text, utc_text

GZIP = b"\x1f\x8b"
_OPERATION = "GET layer"
# Trivy's default --timeout holds for the whole command.
TRIVY_TIMEOUT = timedelta(minutes=5)
LARGE = 200 * MIB
AHEAD = timedelta(minutes=10)


@dataclass(frozen=True)
class Read:
    """What came of the layer. `facts` where it was read whole and is a database."""

    answer: Answer
    stated: int | None
    first: bytes
    whole: bool = False
    facts: LayerFacts | None = None
    fault: str = ""


def examine(line: Line, held: Held, authorization: str, *, whole_up_to: int, now: datetime) -> list[Finding]:
    url = line.url(f"/v2/{held.repository}/blobs/{held.layer.digest}")
    asked = f"GET {line.url(f'/v2/{held.repository}/blobs/sha256:{short(held.layer.digest)}…')}"
    whole = held.layer.size <= whole_up_to
    try:
        read = line.asker.persist(lambda: _read(line, held, url, authorization, whole))
    except RegistryError as error:
        return [Finding("layer", Level.STOPS, asked, error.what, _after_break(error), error.advice)]
    if read.answer.status != 200:
        came = status_words(read.answer.status)
        came += f", code {', '.join(read.answer.codes)}" if read.answer.codes else ""
        cure = "The manifest is there and its layer is not: push it again."
        return [Finding("layer", Level.STOPS, asked, came, after(read.answer.status, read.answer.codes), cure)]
    found = [*_ways(asked, read.answer), *_contents(asked, held, read)]
    if not any(finding.level == Level.STOPS for finding in found):
        found += age(asked, held, read, now)
    return found


def _after_break(error: RegistryError) -> str:
    if error.code == "redirect":
        return f"Trivy {SSRF_SINCE} and later refuse to follow to a private address."
    return "Trivy stops; what it had before stays. The next run begins at the first byte again."


def _read(line: Line, held: Held, url: str, authorization: str, whole: bool) -> Read:
    asker = line.asker
    with asker.opened(url, _OPERATION, authorization=authorization) as response:
        status = response.status_code
        if status != 200:
            body = asker.exchange.drain(response)
            return Read(Answer(status, response.headers, body, tuple(asker.exchange.hops), 0.0), None, b"")
        answer = Answer(status, response.headers, b"", tuple(asker.exchange.hops), 0.0)
        stated = content_length(response)
        if stated is not None and stated != held.layer.size:
            return Read(answer, stated, b"")
        if whole:
            return _read_whole(line, held, response, answer, stated)
        first = next(iter(asker.exchange.stream(response, _OPERATION)), b"")
        return Read(answer, stated, first[:BODY_LIMIT])


def _read_whole(line: Line, held: Held, response: Response, answer: Answer, stated: int | None) -> Read:
    verifier = Verifier(held.layer.digest, held.layer.size)
    first, facts = b"", None
    try:
        with ExitStack() as stack:
            inspector = stack.enter_context(LayerInspector(held.kind)) if held.kind.has_metadata else None
            bundle = None if inspector else stack.enter_context(tempfile.TemporaryFile())
            for chunk in _chunks(line, response):
                first = first or chunk[:2]
                verifier.update(chunk)
                if inspector:
                    inspector.feed(chunk)
                elif bundle:
                    bundle.write(chunk)
            verifier.finish()
            if inspector:
                facts = inspector.finish()
            elif bundle:
                bundle.seek(0)
                check_checks_bundle(bundle)
    except (DigestError, LayerError, RuleError) as error:
        return Read(answer, stated, first, whole=True, fault=str(error))
    return Read(answer, stated, first, whole=True, facts=facts)


def _chunks(line: Line, response: Response) -> Iterator[bytes]:
    for chunk in line.asker.exchange.stream(response, _OPERATION):
        line.asker.exchange.received(len(chunk))
        yield chunk


def _ways(asked: str, answer: Answer) -> list[Finding]:
    """Where the bytes really come from."""
    refused = refused_redirect(answer.hosts)
    if refused:
        return [
            Finding(
                "redirect",
                Level.STOPS,
                asked,
                f"it is sent on to the private address {refused}",
                f"Trivy {SSRF_SINCE} and later refuse to follow; earlier ones did.",
                "Let the registry send blobs itself, or redirect to a name.",
            )
        ]
    others = list(dict.fromkeys(host for host in answer.hosts[1:] if host != answer.hosts[0]))
    if not others:
        return []
    told = "Trivy follows. The firewall must let scanners through to it as well."
    found = [Finding("redirect", Level.NOTE, asked, f"the bytes come from {joined(others)}", told)]
    if any(hop.scheme == "http" for hop in answer.hops) and answer.hops[0].scheme == "https":
        told = "Trivy follows from TLS to plain HTTP, too; the digest still protects what it gets."
        found.append(Finding("redirect-http", Level.NOTE, asked, "it is sent on to plain HTTP", told))
    return found


def _contents(asked: str, held: Held, read: Read) -> list[Finding]:
    size = held.layer.size
    if read.stated is not None and read.stated != size:
        came = f"Content-Length {read.stated}, while the manifest says {size}"
        return [
            Finding("layer-size", Level.STOPS, asked, came, "Trivy stops here.", "Push it again; the blob is damaged.")
        ]
    if read.fault:
        told = "Trivy stops, or finds nothing it can use in it."
        return [Finding("layer-contents", Level.STOPS, asked, read.fault, told, "Push it again from a sound copy.")]
    if read.first and not read.first.startswith(GZIP):
        came = "its bytes are not gzip, although its title says so"
        return [Finding("layer-contents", Level.STOPS, asked, came, "Trivy cannot unpack it.", "Push it again.")]
    came = (
        f"{size_text(size)}, read whole and as its digest says" if read.whole else f"{size_text(size)}, its beginning"
    )
    told = "Trivy would take it."
    if size > LARGE:
        rate = size / TRIVY_TIMEOUT.total_seconds() / 1e6
        told += f" Within its default --timeout of 5 minutes it needs {rate:.1f} MB/s for that alone."
    return [Finding("layer", Level.OK, asked, came, told)]


def age(asked: str, held: Held, read: Read, now: datetime) -> list[Finding]:
    facts = read.facts
    moment = facts.updated_at if facts else held.manifest.created
    if moment is None:
        return [Finding("age", Level.NOTE, asked, "neither built nor pushed at a time that it tells")]
    if facts:
        word = "built"
    elif held.kind.has_metadata:
        word = "pushed (when it was built stands inside the layer, which was not read)"
    else:
        word = "published"
    came = f"{word} {utc_text(moment)}, {age_text(now - moment)} ago"
    if moment - now > AHEAD:
        told = "Trivy believes it: a NextUpdate ahead of its time keeps scanners from asking again."
        return [Finding("age", Level.TRIPS, asked, came, told, "Check the clocks here and there.")]
    found = []
    if facts and facts.next_update and facts.next_update < now:
        every = "hour" if held.kind.name == "trivy-db" else "day"
        told = (
            f"Its NextUpdate has passed: every scanner downloads it again, up to once an {every}."
            if every == "hour"
            else ("Its NextUpdate has passed: every scanner downloads it again, up to once a day.")
        )
        found.append(
            Finding(
                "next-update",
                Level.TRIPS,
                asked,
                f"NextUpdate {utc_text(facts.next_update)}",
                told,
                "Bring a newer build, or scan with the skip flags.",
            )
        )
    return [_aged(asked, held, came, now - moment), *found]


def _aged(asked: str, held: Held, came: str, old: timedelta) -> Finding:
    limits = held.kind.limits
    if held.kind.judged_by != "updated_at" or old < limits.due:
        return Finding("age", Level.OK, asked, came)
    told = "With skip flags no Trivy ever says how old it is; without them it is just downloaded again."
    if old < limits.stale:
        return Finding("age", Level.NOTE, asked, came, f"A newer build should be there. {told}")
    cure = "Find out why nothing newer came."
    return Finding("age", Level.TRIPS, asked, came, told, cure)
