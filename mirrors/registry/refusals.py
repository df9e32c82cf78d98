"""What a registry's refusal of a push means, and what to do about it: the same RegistryError with the right advice."""

import re

from mirrors.registry.errors import RegistryError
from mirrors.registry.products import ADVICE, Advice

# What is said of sources, as it is said of destinations.
_WORDS = (
    ("The fault is on its side; it is tried again at the next sync.", "The fault is on its side; push again later."),
    ("It is tried again at the next sync.", "Push again later; what is there already is not sent twice."),
    ("Sync less often, give this source a login, or put another source first.", "Push again later, or less often."),
    ("allow it for this source with --insecure if it must be", "mark this destination as insecure if it must be"),
    ("allow that for this source with --insecure", "mark this destination as insecure"),
    ("Give its CA file with --ca, if you", "Give this destination its CA file if you"),
    ("Check the address of this source: repository and tag, or URL.", "Check host and path of this destination."),
    ("this source", "this destination"),
)
_READ_ONLY = re.compile(r"read[ -]?only|readonly|maintenance mode|proxy cache|pull.through", re.I)
_FULL = re.compile(r"no space left|insufficient storage|disk (?:is )?full|upper limit|quota|storage limit", re.I)
_FIXED = re.compile(r"immutab|already exists|cannot be overwritten|overwrite|redeploy|tag_invalid", re.I)
_TYPES = re.compile(
    r"media ?type|artifact ?type|manifest invalid|manifest_invalid|config|schema|unsupported|not supported", re.I
)
_SENT_MISSING = re.compile(r"blob_unknown|manifest_blob_unknown|blob unknown", re.I)


def refined(
    error: RegistryError, *, product: str, repository: str, shown: str, has_login: bool, tagging: bool = False
) -> RegistryError:
    """The error with code and advice for someone who pushes.

    `product` is a key of ADVICE, `shown` how the request was authorized ("", Basic, or Bearer by a token that a token
    server gave), `tagging` whether a manifest was being pushed. What happened stays as it was said.
    """
    for old, new in _WORDS:
        error.advice = error.advice.replace(old, new).strip()
    error.what = error.what.replace("of this source", "of this destination")
    if error.status is None or error.code in ("digest", "damaged", "size"):
        return error
    code, temporary, advice = _judge(error, ADVICE[product], repository, shown, has_login, tagging)
    if advice:
        error.code, error.temporary, error.advice = code, temporary, advice
    return error


_Judged = tuple[str, bool, str]


def _judge(
    error: RegistryError, product: Advice, repository: str, shown: str, has_login: bool, tagging: bool
) -> _Judged:
    status, said = error.status or 0, error.detail
    if status == 407 or error.operation == "login":
        return "", False, ""
    if status == 507 or (_FULL.search(said) and status not in (401, 404, 429)):
        return (
            "full",
            False,
            "It has no room left, or this project's quota is used up: remove old tags there and let it collect "
            "garbage, or raise the limit.",
        )
    if _READ_ONLY.search(said) or (status == 405 and error.operation == "start upload"):
        return "read-only", False, f"This place takes no uploads. {product.switch}"
    if status == 401 or (status in (400, 403) and error.operation == "GET token"):
        return _login(error, product, repository, shown, has_login)
    if status == 413:
        return (
            "too-large",
            False,
            "A proxy in front of it allows no larger request, not even 1 MB: raise nginx's client_max_body_size (0 for "
            "no limit) or the like, or the registry's own limit.",
        )
    if tagging and _FIXED.search(said) and status in (400, 403, 409, 412):
        return (
            "forbidden",
            False,
            "This tag may not be moved to other content: allow that for this repository (tag immutability, redeploy), "
            "or push under tags that change, with a date in them.",
        )
    if tagging and _SENT_MISSING.search(said):
        return (
            "server",
            True,
            "It does not find what it took a moment ago: its storage, or several of it side by side, are not in step.",
        )
    if status in (403, 451):
        return "forbidden", False, f"{product.right}"
    if status in (404, 410):
        return "not-found", False, product.place
    if tagging and (status in (405, 406, 415, 422) or (status == 400 and (_TYPES.search(said) or not said))):
        return "unsupported", False, product.artifacts
    if status == 400 and re.search("size", said, re.I):
        return "size", False, "Something between here and there cuts or changes what is sent: look for a proxy."
    if status == 400 and re.search("digest", said, re.I):
        return "digest", False, "What arrived is not what was sent: look for a proxy that changes contents."
    return "", False, ""


def _login(error: RegistryError, product: Advice, repository: str, shown: str, has_login: bool) -> _Judged:
    if not has_login:
        return "auth", False, "It asks for a login: give this destination a user name and password, or a token."
    if error.operation == "GET token" or shown != "Bearer":
        wrong = "Check the user name and password (or token) of this destination."
        may = "" if error.operation == "GET token" else f" If they are right: {product.right}"
        return "auth", False, wrong + may
    return (
        "forbidden",
        False,
        f"The login itself worked, but it does not include the right to push to {repository}. {product.right}",
    )
