"""How we connect: what an administrator set for a source, the limits on waiting, and the session that obeys both.

Nothing is taken from the surroundings but the usual proxy variables, which we read ourselves: requests with
`trust_env` lets ~/.netrc replace a token, the environment's proxy beat ours and REQUESTS_CA_BUNDLE beat ours.
"""

import base64
import functools
import ipaddress
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies_environment

import certifi
import requests

from mirrors.registry.errors import RegistryError
from mirrors.registry.wire import WatchedAdapter, WatchedSSLContext, Wire
from mirrors.stopping import StopSignal

CHANGELOG = Path(__file__).resolve().parents[2] / "CHANGELOG.md"


@dataclass(frozen=True)
class Connection:
    """How to reach one source. `insecure`: plain HTTP or an unverified certificate is taken. `ca_pem`: certificates
    trusted beside the system's. `proxy`: `http://[user:password@]host:port`, or "" for the environment's.
    `username`/`password`, or `token` (sent as `Bearer` as it is), or `identity_token` (a refresh token that a
    registry's token server takes in place of a password)."""

    insecure: bool = False
    ca_pem: str = field(default="", repr=False)
    proxy: str = field(default="", repr=False)
    username: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)

    def without_login(self) -> "Connection":
        """The same way, as nobody."""
        return replace(self, username="", password="", token="", identity_token="")

    def basic(self) -> str:
        """The Authorization of HTTP Basic (RFC 7617), "" where there is no user name."""
        if not self.username:
            return ""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()

    def secrets(self) -> list[str]:
        """What must never stand in a text."""
        try:
            proxy_password = urlsplit(self.proxy).password or ""
        except ValueError:
            proxy_password = ""
        basic = self.basic().removeprefix("Basic ") if self.password else ""
        secrets = (self.password, self.token, self.identity_token, proxy_password, basic)
        return [secret for secret in secrets if len(secret) >= 4]


@dataclass(frozen=True)
class Timeouts:
    """Patience, in seconds.

    connect              to look a name up, connect, and shake hands (each)
    read                 without a byte, in either direction
    store                for the answer to bytes that were sent whole: a registry hashes and moves them first
    slow_bytes_per_second, slow_seconds   less than this averaged over so long is a failure
    attempts             per request; an attempt that made good progress resets the count
    source_seconds       without good progress, all attempts together
    longest_retry_after  is waited out; a longer Retry-After ends the request
    backoff              first pause between attempts; it doubles
    """

    connect: float = 10
    read: float = 20
    store: float = 300
    slow_bytes_per_second: float = 10_000
    slow_seconds: float = 60
    attempts: int = 4
    source_seconds: float = 120
    longest_retry_after: float = 30
    backoff: float = 0.5


class Listener:
    """Is told what happens; override what you need. Called in the thread that does the work."""

    def request(self, method: str, url: str, status: int, seconds: float) -> None:
        """A request was sent and answered with `status` (0: no answer came). `url` has no query and no user."""

    def retry(self, reason: str, attempt: int, wait_seconds: float) -> None:
        """Attempt number `attempt` failed for `reason`; the next one starts after `wait_seconds`."""

    def received(self, byte_count: int) -> None:
        """So many bytes of a blob or archive arrived."""

    def sent(self, byte_count: int) -> None:
        """So many bytes of a blob or manifest left, those sent again included."""

    def clock(self, registry: str, date: datetime) -> None:
        """The registry's own clock (Date header) said this."""


class Session(requests.Session):
    """requests without its surroundings: no environment, no cookies, and no redirects behind our back."""

    wire: Wire

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """None: even with `allow_redirects=False`, requests reads a redirect's whole body, however long it is."""
        return None


@functools.cache
def user_agent(program: str = "airgap") -> str:
    """`airgap/VERSION`, the version as CHANGELOG.md names it, so that registries can tell who asks."""
    try:
        with CHANGELOG.open(encoding="utf-8") as lines:
            versions = (re.match(r"## ([0-9][0-9A-Za-z.+-]*)", line) for line in lines)
            return next((f"{program}/{found[1]}" for found in versions if found), program)
    except OSError:
        return program


def new_session(connection: Connection, *, stop: StopSignal | None = None) -> Session:
    """A session under this connection's rules. RegistryError (`ca`) where its CA text is no PEM."""
    wire = Wire(stop or StopSignal())
    session = Session()
    session.wire = wire
    session.trust_env = False
    session.headers.clear()
    session.headers.update({"User-Agent": user_agent(), "Accept-Encoding": "identity", "Accept": "*/*"})
    # Harbor and others take a cookie as the sign of a browser and then ask for CSRF tokens.
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    adapter = WatchedAdapter(wire, _context(connection, wire))
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


def _context(connection: Connection, wire: Wire) -> WatchedSSLContext:
    context = WatchedSSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.wire = wire
    # Python says so by itself, but not as Debian builds it.
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if connection.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    context.load_default_certs()
    if not _system_has_authorities():
        context.load_verify_locations(certifi.where())
    # Python 3.13 turned these on and off by default; private CAs and pinned server certificates need them so.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if connection.ca_pem.strip():
        load_ca(context, connection.ca_pem)
    return context


def load_ca(context: ssl.SSLContext, pem: str) -> None:
    """Trust these certificates too. RegistryError (`ca`) where the text is no PEM."""
    try:
        context.load_verify_locations(cadata=pem)
    except (ssl.SSLError, ValueError, TypeError) as error:
        raise RegistryError(
            "ca",
            "The CA file of this source holds no certificate in PEM form",
            registry="",
            operation="load CA",
            advice="Give a text file that contains -----BEGIN CERTIFICATE----- lines.",
        ) from error


def _system_has_authorities() -> bool:
    """Whether OpenSSL's own places hold anything; on a machine without ca-certificates, certifi steps in."""
    paths = ssl.get_default_verify_paths()
    if paths.cafile and Path(paths.cafile).is_file():
        return True
    return bool(paths.capath) and any(Path(paths.capath).glob("*.0"))


def proxy_for(url: str, connection: Connection, environ: Mapping[str, str] | None = None) -> str:
    """The proxy for this URL, or "". The connection's own wins; else HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY."""
    if connection.proxy:
        return connection.proxy if "://" in connection.proxy else f"http://{connection.proxy}"
    proxies = getproxies_environment() if environ is None else _proxies(environ)
    parts = urlsplit(url)
    proxy = proxies.get(parts.scheme) or proxies.get("all") or ""
    if not proxy or _excepted(parts.hostname or "", parts.port, proxies.get("no", "")):
        return ""
    return proxy if "://" in proxy else f"http://{proxy}"


def _proxies(environ: Mapping[str, str]) -> dict[str, str]:
    lower = {name.lower(): value for name, value in environ.items() if value}
    return {name.removesuffix("_proxy"): value for name, value in lower.items() if name.endswith("_proxy")}


def _excepted(host: str, port: int | None, exceptions: str) -> bool:
    """Whether NO_PROXY names this host: `*`, names with or without a leading dot, host:port, addresses and networks."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    for entry in exceptions.replace(",", " ").split():
        entry = entry.lower()
        if entry == "*" or entry in (host, f"{host}:{port}", f"[{host}]"):
            return True
        if address is not None:
            try:
                if address in ipaddress.ip_network(entry, strict=False):
                    return True
            except ValueError:
                continue
        elif host.endswith("." + entry.removeprefix("*").removeprefix(".")):
            return True
    return False


def proxy_label(proxy: str) -> str:
    """`host:port` of a proxy's URL, without its user and password."""
    if not proxy:
        return ""
    try:
        parts = urlsplit(proxy)
        return f"{parts.hostname or '?'}:{parts.port}" if parts.port else parts.hostname or "?"
    except ValueError:
        return "?"
