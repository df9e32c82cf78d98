"""What a failed connection means: from the exceptions of four libraries to one RegistryError with its own sentence."""

import socket
import ssl
from collections.abc import Iterator
from http.client import BadStatusLine, HTTPException, IncompleteRead, RemoteDisconnected

from mirrors.registry.errors import RegistryError, clean

# X509_V_ERR_*: no issuer known (2, 20, 21), self-signed (18, 19).
_UNKNOWN_AUTHORITY = frozenset({2, 18, 19, 20, 21})
_EXPIRED, _NOT_YET_VALID, _WRONG_HOST, _WRONG_ADDRESS = 10, 9, 62, 64
# Only "try again" is temporary; the rest says that there is no such name.
_TRY_AGAIN = socket.EAI_AGAIN
# What `detail` says of a failed handshake, for whoever may try plain HTTP instead.
NO_TLS, HUNG_UP = "no-tls", "hung-up"
_NOT_TLS = (
    "WRONG_VERSION_NUMBER",
    "UNKNOWN_PROTOCOL",
    "HTTP_REQUEST",
    "RECORD_LAYER_FAILURE",
    "PACKET_LENGTH_TOO_LONG",
)


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error and everything inside it, outermost first."""
    queue: list[object] = [error]
    seen: set[int] = set()
    while queue and len(seen) < 50:
        item = queue.pop(0)
        if not isinstance(item, BaseException) or id(item) in seen:
            continue
        seen.add(id(item))
        yield item
        queue += [getattr(item, "reason", None), item.__cause__, item.__context__, *item.args]


def explain(
    error: BaseException, *, phase: str, proxy: str, registry: str, who: str, host: str, operation: str
) -> RegistryError:
    """The RegistryError for a request that brought no (whole) answer.

    `phase` is the wire's (dns, connect, proxy, tls, send, answer, body), `proxy` its host:port or "", `who` the
    subject.
    """
    chain = list(causes(error))
    code, what, temporary, advice, detail = _explain(chain, phase, proxy, who)
    return RegistryError(
        code,
        f"{what} ({operation})",
        registry=registry,
        operation=operation,
        host=host,
        temporary=temporary,
        advice=advice,
        detail=detail,
    )


_Said = tuple[str, str, bool, str, str]


def _explain(chain: list[BaseException], phase: str, proxy: str, who: str) -> _Said:
    timed_out = any(isinstance(item, TimeoutError) for item in chain)
    if proxy and phase in ("dns", "connect", "proxy"):
        return _proxy(chain, phase, proxy, who, timed_out)
    if phase == "dns":
        return _dns(chain, who)
    if phase == "connect":
        return _connect(chain, who, timed_out)
    if phase == "tls":
        return _tls(chain, who, timed_out)
    if phase == "send":
        advice = "It is tried again from where it got to."
        if timed_out:
            return "stalled", f"{who} took nothing of what was sent for too long", True, advice, ""
        return "truncated", f"{who} closed the connection while it was sent to", True, advice, ""
    if timed_out:
        return "stalled", f"{who} sent nothing for too long", True, "It is tried again at the next sync.", ""
    if phase == "body":
        return "truncated", f"{who} broke off in the middle", True, "What arrived is kept; it goes on from there.", ""
    if any(isinstance(item, RemoteDisconnected | ConnectionError | ssl.SSLError | IncompleteRead) for item in chain):
        return (
            "server",
            f"{who} closed the connection without an answer",
            True,
            "It is tried again at the next sync.",
            "",
        )
    if any(isinstance(item, BadStatusLine | HTTPException) for item in chain):
        advice = "Check that this address is a registry, and whether it wants https or http."
        return "malformed", f"{who} answered with something that is not HTTP", False, advice, ""
    detail = clean(str(chain[-1]), 120)
    return "malformed", f"The request to {who} could not be made", False, f"The reason given is: {detail}", detail


def _dns(chain: list[BaseException], who: str) -> _Said:
    advice = "Check the name and this machine's DNS servers; behind a proxy, set the proxy for this source."
    if any(isinstance(item, socket.gaierror) and item.errno == _TRY_AGAIN for item in chain):
        return "dns", f"The name of {who} could not be looked up: no DNS server answered", True, advice, ""
    return "dns", f"The name of {who} is not known to DNS", False, advice, ""


def _connect(chain: list[BaseException], who: str, timed_out: bool) -> _Said:
    advice = "Check that the firewall lets this machine out to it."
    if timed_out:
        return "timeout", f"Connecting to {who} took too long", True, advice, ""
    if any(isinstance(item, ConnectionRefusedError) for item in chain):
        return "refused", f"{who} refused the connection", True, f"Check host and port. {advice}", ""
    return "refused", f"{who} cannot be reached: there is no way to it", True, advice, ""


def _proxy(chain: list[BaseException], phase: str, proxy: str, who: str, timed_out: bool) -> _Said:
    advice = f"Check the proxy's address, and that it lets this machine reach {who}."
    if phase == "proxy":
        said = [clean(str(item), 100) for item in chain if str(item).startswith("Tunnel connection failed:")]
        status = said[-1].partition(":")[2].strip() if said else ""
        if status.startswith("407"):
            advice = "Check the user name and password of the proxy."
        temporary = timed_out or status[:1] in ("", "5")
        return (
            "proxy",
            f"The proxy {proxy} did not connect us to {who}{': ' + status if status else ''}",
            temporary,
            advice,
            "",
        )
    if phase == "dns":
        temporary = any(isinstance(item, socket.gaierror) and item.errno == _TRY_AGAIN for item in chain)
        return "proxy", f"The name of the proxy {proxy} could not be looked up", temporary, advice, ""
    return "proxy", f"The proxy {proxy} cannot be reached", True, advice, ""


def _tls(chain: list[BaseException], who: str, timed_out: bool) -> _Said:
    for item in chain:
        if isinstance(item, ssl.SSLCertVerificationError):
            return _certificate(item, who)
    if timed_out:
        return "timeout", f"The TLS handshake with {who} took too long", True, "It is tried again at the next sync.", ""
    plain = "If it is meant to speak plain HTTP, allow that for this source with --insecure."
    for item in chain:
        reason = str(getattr(item, "reason", "") or "")
        if isinstance(item, ssl.SSLError) and reason in _NOT_TLS:
            return "tls", f"{who} does not speak TLS", False, plain, NO_TLS
    if any(isinstance(item, ssl.SSLEOFError | ConnectionError) for item in chain):
        return "tls", f"{who} hung up during the TLS handshake", True, plain, HUNG_UP
    reason = next((clean(str(item.reason or item), 120) for item in chain if isinstance(item, ssl.SSLError)), "")
    return "tls", f"No TLS connection to {who} came about: {reason}", False, "Check its TLS settings.", reason


def _certificate(error: ssl.SSLCertVerificationError, who: str) -> _Said:
    code, message = error.verify_code, clean(error.verify_message, 120)
    if code in _UNKNOWN_AUTHORITY:
        what = f"The certificate of {who} is signed by an authority this machine does not know"
        return "ca", what, False, "Give its CA file with --ca, if you expect a private one.", message
    if code == _EXPIRED:
        return (
            "tls",
            f"The certificate of {who} has expired",
            False,
            "Check this machine's clock, then tell its owner.",
            message,
        )
    if code == _NOT_YET_VALID:
        return "tls", f"The certificate of {who} is not valid yet", False, "Check this machine's clock.", message
    if code in (_WRONG_HOST, _WRONG_ADDRESS):
        what = f"The certificate of {who} is for another name"
        return "tls", what, False, "Check the host of this source, and whether a proxy intercepts it.", message
    return "tls", f"The certificate of {who} was not accepted: {message}", False, "Check its TLS settings.", message
