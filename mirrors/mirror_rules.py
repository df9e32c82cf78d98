"""What an administrator may write into a mirror's settings: each rule takes text and gives the value that is kept.

A rule that refuses raises RuleBroken with a sentence that says what would be right. Rows are mirroring.py's business.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from mirrors import logins, pack_vex, wording
from mirrors.job import Refused
from mirrors.logins import NO_LOGIN, Login
from mirrors.registry.references import Reference, ReferenceError, host_of
from mirrors.rules import RuleBroken as RuleBroken
from mirrors.schedule import Schedule, ScheduleError
from mirrors.trivy import release
from mirrors.trivy.catalogue import KINDS, Kind, Limits
from mirrors.trivy.vex import VexError, is_directory, parse_source

NAME = re.compile(r"[a-z0-9]+(?:[-_][a-z0-9]+)*", re.ASCII)
PLATFORM = re.compile(r"[a-z0-9]+/[a-z0-9_]+(?:/[a-z0-9.]+)?", re.ASCII)
# `new` is the address of the form that makes a mirror.
RESERVED_NAMES = frozenset({"new"})
MOST_SOURCES = 20
MOST_KEPT = 1000
MOST_PLATFORMS = 40
LARGEST_CA = 1024 * 1024
_SECRET_QUERY = re.compile(r"[?&](?:[a-z_-]*(?:token|secret|password|signature|sig|key))=", re.IGNORECASE)


@dataclass(frozen=True)
class SourceSpec:
    """One source as it was asked for."""

    reference: str
    insecure: bool = False
    ca_pem: str = field(default="", repr=False)
    login: Login = NO_LOGIN


def checked_name(text: str) -> str:
    name = text.strip()
    if not NAME.fullmatch(name) or len(name) > 80:
        raise RuleBroken(
            "name",
            f"{name[:80]!r} cannot be a mirror's name. Use up to 80 lower-case letters and digits, "
            "joined by single '-' or '_', such as trivy-db-test.",
        )
    if name in RESERVED_NAMES:
        raise RuleBroken("name", f"A mirror cannot be called {name}; choose another name.")
    return name


def checked_kind(text: str) -> Kind:
    kind = KINDS.get(text.strip())
    if kind is None:
        raise RuleBroken("kind", f"{text[:40]!r} is no kind of asset. There are: {', '.join(KINDS)}.")
    return kind


def checked_label(text: str, name: str) -> str:
    label = " ".join(text.split()) or name
    if len(label) > 80 or not label.isprintable():
        raise RuleBroken("label", "The label is what people read on the dashboard: up to 80 printable characters.")
    return label


def checked_schedule(text: str) -> str:
    """The schedule as it is kept; empty means the kind's own rhythm."""
    if not text.strip():
        return ""
    try:
        kept = Schedule.parse(text).text
    except ScheduleError as error:
        raise RuleBroken("schedule", str(error)) from None
    if len(kept) > 80:
        raise RuleBroken("schedule", "The schedule is longer than 80 characters. Write a shorter cron line.")
    return kept


def checked_duration(text: str, setting: str) -> timedelta | None:
    """`9h`, `30m`, `7d`; None if empty."""
    if not text.strip():
        return None
    try:
        every = Schedule.parse(text).every
    except ScheduleError:
        every = None
    if every is None:
        raise RuleBroken(setting, f"{text[:40]!r} is not a duration. Write it as 90m, 9h, 7d or 1d12h.")
    return every


def checked_limits(
    own: Limits, due: timedelta | None, stale: timedelta | None, expired: timedelta | None
) -> tuple[timedelta | None, timedelta | None, timedelta | None]:
    """The limits that differ from its `own` (the kind's or the courier's; None where not), if together they grow."""
    limits = Limits(due or own.due, stale or own.stale, expired or own.expired)
    if min(limits.due, limits.stale, limits.expired) < timedelta(minutes=1):
        raise RuleBroken("due", "A limit is at least one minute.")
    if limits != own and not limits.due < limits.stale < limits.expired:
        texts = [wording.limit_text(limit) for limit in (limits.due, limits.stale, limits.expired)]
        raise RuleBroken(
            "due",
            f"The limits must grow: due after {texts[0]}, stale after {texts[1]}, expired after {texts[2]} do not. "
            "Where a field is empty, the usual limit counts.",
        )
    return (
        None if limits.due == own.due else limits.due,
        None if limits.stale == own.stale else limits.stale,
        None if limits.expired == own.expired else limits.expired,
    )


def checked_keep(keep: int | None, kind: Kind) -> int | None:
    if keep is None or keep == kind.keep:
        return None
    if not 1 <= keep <= MOST_KEPT:
        raise RuleBroken("keep", f"Between 1 and {MOST_KEPT} snapshots can be kept.")
    return keep


def checked_platforms(names: Iterable[str], kind: Kind) -> list[str]:
    if kind.transport == "release":
        return _checked_builds(names)
    platforms = sorted({name.strip().lower() for name in names if name.strip()})
    if platforms and kind.name != "oci":
        raise RuleBroken("platforms", f"Platforms are chosen of OCI images only; {kind.label} has none.")
    for platform in platforms:
        if not PLATFORM.fullmatch(platform) or len(platform) > 60:
            raise RuleBroken("platforms", f"{platform[:60]!r} is no platform. Write linux/amd64 or linux/arm/v7.")
    return platforms


def _checked_builds(names: Iterable[str]) -> list[str]:
    """Platforms of release files, in the order given, each once; the usual ones where none is named."""
    try:
        platforms = [release.parse_platform(name) for name in names if name.strip()]
    except release.ReleaseError as error:
        raise RuleBroken("platforms", str(error)) from None
    platforms = list(dict.fromkeys(platforms)) or list(release.DEFAULT_PLATFORMS)
    if len(platforms) > MOST_PLATFORMS:
        raise RuleBroken("platforms", f"At most {MOST_PLATFORMS} files of a release are mirrored.")
    return platforms


def checked_version(text: str, kind: Kind) -> str:
    """Which version of release files is mirrored; empty for every other kind."""
    if kind.transport != "release":
        if text.strip():
            raise RuleBroken("version", f"A version is chosen of release files only; {kind.label} has none.")
        return ""
    try:
        wanted = release.parse_wanted(text)
    except release.ReleaseError as error:
        raise RuleBroken("version", str(error)) from None
    if reason := kind.refused_versions.get(wanted.version):
        raise RuleBroken("version", f"Version {wanted.version} is not mirrored: {reason}. Choose another.")
    return str(wanted)


def checked_referrers(wanted: bool, kind: Kind) -> bool:
    if wanted and kind.name != "oci":
        raise RuleBroken(
            "with_referrers", f"Referrers (signatures, SBOMs) come with OCI artifacts only, not with {kind.label}."
        )
    return wanted


def checked_proxy(text: str) -> str:
    """`http://host:port`, or empty for what the environment says."""
    proxy = text.strip().rstrip("/")
    if not proxy:
        return ""
    try:
        parts = urlsplit(proxy)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname or not port or parts.path or parts.query:
        raise RuleBroken("proxy", "A proxy is written as http://host:port, such as http://proxy.example:3128.")
    if "@" in parts.netloc:
        raise RuleBroken(
            "proxy",
            "Write the proxy without user and password: this field is not encrypted. A proxy that asks for a login "
            "goes into HTTPS_PROXY in the environment of the program.",
        )
    if len(proxy) > 300 or not proxy.isprintable() or " " in proxy:
        raise RuleBroken("proxy", "The proxy's address is longer than 300 characters or has odd ones in it.")
    return proxy


def checked_ca(text: str) -> str:
    """The certificates alone, as PEM: comments, and keys that came with them by accident, are not kept."""
    if not text.strip():
        return ""
    if len(text) > LARGEST_CA:
        raise RuleBroken("ca_pem", "The CA file is larger than 1 MiB. Give only the certificates this source needs.")
    if "PRIVATE KEY" in text:
        raise RuleBroken("ca_pem", "The CA file holds a private key. Give the certificate alone.")
    try:
        certificates = x509.load_pem_x509_certificates(text.encode())
    except ValueError:
        certificates = []
    if not certificates:
        raise RuleBroken(
            "ca_pem",
            "The CA file holds no readable certificate. It must be PEM text that begins with "
            "-----BEGIN CERTIFICATE-----; a DER file is converted with: openssl x509 -inform der -in FILE.",
        )
    return "".join(certificate.public_bytes(Encoding.PEM).decode() for certificate in certificates)


def checked_reference(text: str, kind: Kind) -> str:
    """A source by its kind's rules, as it is kept: an OCI reference with its tag, or a web address."""
    reference = " ".join(text.split())
    if kind.transport in ("vex", "release"):
        kept = _checked_address(reference, kind)
    else:
        try:
            kept = str(Reference.parse(reference, default_tag=kind.default_tag or None))
        except ReferenceError as error:
            raise RuleBroken("sources", str(error)) from None
    if len(kept) > 500:
        raise RuleBroken("sources", f"{kept[:60]!r}… is longer than 500 characters.")
    return kept


def _checked_address(address: str, kind: Kind) -> str:
    try:
        if kind.transport == "release":
            release.parse_source(address)
        else:
            parse_source(address)
        parts = urlsplit(address)
    except (VexError, release.ReleaseError, ValueError) as error:
        raise RuleBroken("sources", str(error)) from None
    if "@" in parts.netloc:
        raise RuleBroken("sources", "Write the address without user and password; they have fields of their own.")
    if _SECRET_QUERY.search(address):
        raise RuleBroken(
            "sources",
            "The address holds a token in its query, which everybody who may look would see. "
            "Use a user name and password instead.",
        )
    return address


def _is_directory(reference: str, kind: Kind) -> bool:
    """Whether the source is a directory of this machine, which needs neither login nor CA. RuleBroken for one that may
    not be read."""
    if kind.transport != "vex" or not is_directory(reference):
        return False
    try:
        pack_vex.allowed_directory(parse_source(reference).url)
    except Refused as refusal:
        raise RuleBroken("sources", str(refusal)) from None
    return True


def checked_sources(specs: Iterable[SourceSpec], kind: Kind) -> list[SourceSpec]:
    """Every source by the rules, in order. Raises RuleBroken for the first that is not, and for an empty list."""
    checked: list[SourceSpec] = []
    for spec in specs:
        reference = checked_reference(spec.reference, kind)
        if any(reference == other.reference for other in checked):
            raise RuleBroken("sources", f"{reference} is named twice. Sources are asked in order, each once.")
        checked.append(
            SourceSpec(reference)
            if _is_directory(reference, kind)
            else SourceSpec(reference, spec.insecure, checked_ca(spec.ca_pem), spec.login)
        )
    if not checked:
        raise RuleBroken("sources", "A mirror needs at least one source.")
    if len(checked) > MOST_SOURCES:
        raise RuleBroken("sources", f"At most {MOST_SOURCES} sources are asked for one mirror.")
    asked = [(spec.login, host_of(spec.reference), spec.reference) for spec in checked]
    return [replace(spec, login=login) for spec, login in zip(checked, logins.checked_each(asked), strict=True)]
