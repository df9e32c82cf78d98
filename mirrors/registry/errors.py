"""The one error of this package, its wording, and what may stand in it.

A message is one or two plain sentences: who answered what to which operation, and what to do next. URLs lose their
query (signed CDN links), text from servers loses control characters and length.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

# Lone surrogates too: JSON may name them, and no database takes them.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]+")

STATUS_WORDS = {
    400: "bad request",
    401: "login required",
    403: "forbidden",
    404: "not found",
    405: "method not allowed",
    407: "proxy login required",
    408: "request timeout",
    409: "conflict",
    410: "gone",
    412: "precondition failed",
    413: "request too large",
    415: "unsupported media type",
    416: "range not satisfiable",
    429: "too many requests",
    451: "unavailable for legal reasons",
    500: "server error",
    501: "not implemented",
    502: "bad gateway",
    503: "service unavailable",
    504: "gateway timeout",
    507: "insufficient storage",
}

CODES = frozenset(
    {
        "dns",
        "refused",
        "tls",
        "ca",
        "timeout",
        "stalled",
        "slow",
        "truncated",
        "digest",
        "size",
        "auth",
        "forbidden",
        "not-found",
        "rate-limited",
        "server",
        "redirect",
        "too-large",
        "malformed",
        "proxy",
        "unsupported",
        "read-only",
        "full",
        "damaged",
    }
)


@dataclass(frozen=True)
class Hop:
    """One host met on the way. `address` is the peer's IP (the proxy's, where one is used), `proxy` host:port or "",
    `issuer` and `not_after` of its certificate, `status` what it answered (None: it did not)."""

    host: str
    address: str
    proxy: str
    issuer: str
    not_after: datetime | None
    status: int | None
    scheme: str


class RegistryError(Exception):
    """Something asked of a registry (or of another web server) did not work.

    registry     whom we asked, as the operator wrote it
    host         who failed: the registry itself, its token server or a redirect's target
    operation    what was asked, such as "GET blob"
    status       the HTTP status, if one came
    temporary    whether trying again later may help
    code         one of CODES
    advice       the next step, a sentence
    retry_after  seconds the server asked us to wait, if it did
    detail       the server's own words, cleaned, or ""
    hops         the hosts that had answered before
    attempts     how often it was tried
    """

    def __init__(
        self,
        code: str,
        what: str,
        *,
        registry: str,
        operation: str,
        host: str = "",
        status: int | None = None,
        temporary: bool = False,
        advice: str = "",
        retry_after: float | None = None,
        detail: str = "",
    ) -> None:
        super().__init__(what)
        self.code = code
        self.what = what
        self.registry = registry
        self.operation = operation
        self.host = host or registry
        self.status = status
        self.temporary = temporary
        self.advice = advice
        self.retry_after = retry_after
        self.detail = detail
        self.hops: tuple[Hop, ...] = ()
        self.attempts = 1

    def __str__(self) -> str:
        tried = f" ({self.attempts} attempts)" if self.attempts > 1 else ""
        return f"{self.what}{tried}. {self.advice}".strip()


def clean(text: str, limit: int = 200) -> str:
    """Text from a stranger, fit for a log line or a page: one line, no control characters, bounded."""
    flat = " ".join(_CONTROL.sub(" ", text[: limit * 4]).split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"


def redact_url(url: str) -> str:
    """The URL without user, query and fragment."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return clean(url.partition("?")[0].rpartition("@")[2], 120)
    host = parts.netloc.rpartition("@")[2]
    return clean(f"{parts.scheme}://{host}{parts.path}" if host else parts.path, 300)


def status_words(status: int) -> str:
    words = STATUS_WORDS.get(status)
    return f"{status} ({words})" if words else str(status)


def answered(
    *, registry: str, who: str, host: str, operation: str, status: int, detail: str, retry_after: float | None
) -> RegistryError:
    """The error for an HTTP status that is no success. `who` is the subject of the sentence."""
    code, temporary, advice = _judge(status, retry_after)
    said = f", saying {detail!r}" if detail else ""
    return RegistryError(
        code,
        f"{who} answered {status_words(status)} to {operation}{said}",
        registry=registry,
        operation=operation,
        host=host,
        status=status,
        temporary=temporary,
        advice=advice,
        retry_after=retry_after,
        detail=detail,
    )


def _judge(status: int, retry_after: float | None) -> tuple[str, bool, str]:
    """code, temporary, advice."""
    if status == 401:
        return "auth", False, "Check the user name and password (or token) of this source, and that it exists."
    if status in (403, 451):
        return "forbidden", False, "Check that this source may be read with these credentials, or without any."
    if status in (404, 410):
        return "not-found", False, "Check the address of this source: repository and tag, or URL."
    if status == 407:
        return "proxy", False, "Check the user name and password of the proxy."
    if status == 408:
        return "timeout", True, "It is tried again at the next sync."
    if status == 429:
        wait = f"It asks us to wait {_duration(retry_after)}. " if retry_after else ""
        return "rate-limited", True, f"{wait}Sync less often, give this source a login, or put another source first."
    if status == 501 or 400 <= status < 500:
        return "unsupported", False, "Check that this address is a registry and speaks the OCI distribution API."
    if status >= 500:
        return "server", True, "The fault is on its side; it is tried again at the next sync."
    if 300 <= status < 400:
        return "redirect", False, "Check the address of this source."
    return "malformed", False, "Check that this address is a registry."


def _duration(seconds: float | None) -> str:
    whole = int(seconds or 0)
    if whole < 120:
        return f"{whole} s"
    return f"{whole // 60} min" if whole < 7200 else f"{whole // 3600} h"
