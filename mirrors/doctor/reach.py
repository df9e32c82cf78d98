"""The first steps of a Trivy at a registry: which scheme, whose certificate, and what GET /v2/ says.

Trivy tries TLS first, and plain HTTP only where the name allows it. Where it would stop, the doctor goes on without
verification, so that one fault does not hide the next; no login is sent there.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from mirrors.doctor.asking import Answer, Asker
from mirrors.doctor.findings import Finding, Level
from mirrors.doctor.rules import RETRIED, after
from mirrors.registry.errors import RegistryError, status_words
from mirrors.registry.faults import NO_TLS
from mirrors.registry.transport import Connection, Timeouts
from mirrors.stopping import StopSignal
from mirrors.trivy.hosts import is_registry_name, speaks_plain_http
from mirrors.wording import utc_text

SOON = timedelta(days=21)
TRUST = "Give Trivy the CA file: SSL_CERT_FILE=FILE (any version) or --cacert FILE (0.68 and later)."


@dataclass(frozen=True)
class Line:
    """How the registry is spoken to. `trusted`: a login may be sent. `ping` is its answer to GET /v2/."""

    asker: Asker
    registry: str
    scheme: str
    trusted: bool
    ping: Answer

    def url(self, path: str) -> str:
        return f"{self.scheme}://{self.registry}{path}"


def reach(
    registry: str, connection: Connection, stop: StopSignal, timeouts: Timeouts, now: datetime
) -> tuple[list[Finding], Line | None]:
    """None where nobody answered."""
    findings = [_bare_name(registry)] if not is_registry_name(registry) else []
    strict = Asker(registry, replace(connection, insecure=False), stop, timeouts)
    try:
        ping = strict.get(f"https://{registry}/v2/", "GET /v2/")
    except RegistryError as error:
        strict.close()
        more, line = _without_trust(registry, connection, error, stop, timeouts)
        return findings + more, line
    findings.append(_certificate(registry, connection, ping, stop, timeouts, now))
    return findings, Line(strict, registry, "https", True, ping)


def _bare_name(registry: str) -> Finding:
    return Finding(
        "name",
        Level.STOPS,
        f"the name {registry}",
        "it has no dot and no port",
        f"Trivy takes {registry}/… for a folder on Docker Hub and asks there.",
        f"Write the port: {registry}:443.",
    )


def _certificate(
    registry: str, connection: Connection, ping: Answer, stop: StopSignal, timeouts: Timeouts, now: datetime
) -> Finding:
    """TLS worked. Was it the given CA that made it work, and for how long will it?"""
    hop = ping.hops[0]
    said = f"TLS; its certificate is by {hop.issuer or 'an unnamed authority'}"
    if hop.not_after:
        said += f", valid until {utc_text(hop.not_after)}"
    asked = f"https://{registry}"
    if hop.not_after and hop.not_after - now < SOON:
        return Finding(
            "certificate", Level.TRIPS, asked, said, "Every Trivy stops when it has expired.", "Renew the certificate."
        )
    if connection.ca_pem and not _system_trusts(registry, stop, timeouts):
        return Finding("ca", Level.NOTE, asked, f"{said}; trusted with the CA that was given", TRUST)
    return Finding(
        "tls", Level.OK, asked, said, "Every Trivy takes it that trusts the same authorities as this machine."
    )


def _system_trusts(registry: str, stop: StopSignal, timeouts: Timeouts) -> bool:
    asker = Asker(registry, Connection(), stop, timeouts)
    try:
        asker.get(f"https://{registry}/v2/", "GET /v2/")
    except RegistryError as error:
        return error.code != "ca"
    else:
        return True
    finally:
        asker.close()


def _without_trust(
    registry: str, connection: Connection, refusal: RegistryError, stop: StopSignal, timeouts: Timeouts
) -> tuple[list[Finding], Line | None]:
    """TLS did not work. Say what Trivy does, and find out whether anybody is there at all."""
    asked = f"https://{registry}/v2/"
    if refusal.code in ("dns", "proxy"):
        return [_unreached(asked, refusal)], None
    lenient = Asker(registry, replace(connection.without_login(), insecure=True), stop, timeouts)
    if refusal.code in ("ca", "tls") and refusal.detail != NO_TLS:
        try:
            return [_untrusted(asked, refusal)], Line(lenient, registry, "https", False, lenient.get(asked, "GET /v2/"))
        except RegistryError:
            pass
    plain = f"http://{registry}/v2/"
    try:
        ping = lenient.get(plain, "GET /v2/")
    except RegistryError:
        lenient.close()
        return [_unreached(asked, refusal)], None
    return [_plain(registry, plain)], Line(lenient, registry, "http", speaks_plain_http(registry), ping)


def _unreached(asked: str, refusal: RegistryError) -> Finding:
    return Finding(
        "unreached",
        Level.STOPS,
        f"GET {asked}",
        refusal.what,
        "Trivy stops, and does not ask a next repository of its list: this is no answer of a registry.",
        refusal.advice,
    )


def _untrusted(asked: str, refusal: RegistryError) -> Finding:
    unknown = refusal.code == "ca"
    return Finding(
        "ca" if unknown else "certificate",
        Level.STOPS,
        f"GET {asked}",
        refusal.what,
        "Every Trivy stops here unless it is told whom to trust. What follows was asked without verification, and no "
        "login was sent.",
        TRUST if unknown else refusal.advice,
    )


def _plain(registry: str, asked: str) -> Finding:
    if speaks_plain_http(registry):
        return Finding(
            "plain-http",
            Level.NOTE,
            f"GET {asked}",
            "it speaks plain HTTP",
            "Trivy takes that, because this is loopback or a private address. By any other name it would refuse.",
            "Give it a certificate all the same: on the way anybody could change what scanners get.",
        )
    return Finding(
        "plain-http",
        Level.STOPS,
        f"GET {asked}",
        "it speaks plain HTTP",
        "Trivy refuses plain HTTP at any name and at addresses that are neither loopback nor private. With "
        "--insecure it would take it, and every other certificate of the same run unchecked.",
        "Give it a certificate, or put a server with one in front.",
    )


def judge_ping(line: Line) -> Finding | None:
    """None where a login is asked for: that is the next step's to judge."""
    ping, asked = line.ping, f"GET {line.url('/v2/')}"
    if ping.status == 200:
        return Finding("ping", Level.OK, asked, "200", "Trivy goes on without a login.")
    if ping.status == 401:
        return None
    came = status_words(ping.status)
    if ping.codes:
        came += f", code {', '.join(ping.codes)}"
    again = " It may have been a bad moment." if ping.status in RETRIED else ""
    return Finding(
        "ping",
        Level.STOPS,
        asked,
        came,
        f"Trivy takes 200 or 401 here and nothing else. {after(ping.status, ping.codes)}",
        f"Check that this is a registry and that nothing in front of it keeps /v2/ to itself.{again}",
    )
