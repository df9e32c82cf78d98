"""What somebody typed, and what Trivy would ask for it."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from mirrors.registry.references import TAG, Reference, ReferenceError, parse_host
from mirrors.trivy.catalogue import KINDS
from mirrors.trivy.vex import VexError, parse_source

# Asked for where only a host was given, in this order: as Trivy's defaults name them on GHCR and on the others.
OWNERS = ("aquasecurity", "aquasec")
REGISTRY_KINDS = ("trivy-db", "trivy-java-db", "trivy-checks")
_NAMES = (
    ("trivy-java-db", "trivy-java-db"),
    ("trivy-db", "trivy-db"),
    ("checks", "trivy-checks"),
    ("policies", "trivy-checks"),
)
_HUB = "index.docker.io"


class AddressError(ValueError):
    """The text is no address that can be examined; the message says what would be one."""


@dataclass(frozen=True)
class Target:
    """One thing to ask for. `kind` is a Trivy kind, "" where only its layer will tell, or `vex`.

    `others` are further repositories to try where the first is not there.
    """

    registry: str = ""
    repository: str = ""
    reference: str = ""
    kind: str = ""
    others: tuple[str, ...] = ()
    url: str = ""
    without_tag: bool = False

    @property
    def label(self) -> str:
        if self.url:
            return self.url
        joint = "@" if self.reference.startswith("sha256:") else ":"
        return f"{self.registry}/{self.repository}{joint}{self.reference}"


def targets_of(text: str) -> list[Target]:
    """From `host[:port]`, `host/path[:tag|@digest]`, or the http(s) address of a VEX repository."""
    text = text.strip()
    if "://" in text:
        return [_vex(text)]
    host, slash, path = text.partition("/")
    try:
        if not slash or not path:
            name, port = parse_host(host)
            registry = name if port is None else f"{name}:{port}"
            return [_default(_as_trivy(registry), kind) for kind in REGISTRY_KINDS]
        return [_named(text)]
    except ReferenceError as error:
        raise AddressError(str(error)) from None


def _vex(text: str) -> Target:
    try:
        parts = urlsplit(text)
    except ValueError:
        raise AddressError(f"{text[:80]!r} is no web address.") from None
    if parts.scheme not in ("http", "https"):
        raise AddressError("Trivy takes a VEX repository from an address that begins with https:// or http://.")
    if parts.path.rstrip("/") in ("", "/v2"):
        raise AddressError(
            "A registry is examined without https://: write its host alone, such as registry.example:5000."
        )
    try:
        source = parse_source(text)
    except VexError as error:
        raise AddressError(str(error)) from None
    if source.form not in ("base", "github"):
        raise AddressError(
            "That is an archive. Trivy takes the address of a VEX repository, whose manifest names the archive."
        )
    return Target(url=text.rstrip("/"), kind="vex")


def _default(registry: str, kind: str) -> Target:
    first, *others = (f"{owner}/{kind}" for owner in OWNERS)
    return Target(registry, first, KINDS[kind].default_tag, kind, tuple(others))


def _named(text: str) -> Target:
    """A reference as Trivy reads it: a database without a tag gets its schema's, anything else `latest`."""
    bare = "@" not in text and ":" not in text.rpartition("/")[2]
    path = text.partition("/")[2].partition("@")[0]
    repository = path.rpartition(":")[0] if TAG.fullmatch(path.rpartition(":")[2]) and ":" in path else path
    kind = next((kind for word, kind in _NAMES if word in repository.rpartition("/")[2]), "")
    tag = "latest" if kind in ("", "trivy-checks") else KINDS[kind].default_tag
    found = Reference.parse(text, default_tag=tag)
    return Target(_as_trivy(found.registry), found.repository, found.target, kind, without_tag=bare and tag == "latest")


def _as_trivy(registry: str) -> str:
    return _HUB if registry == "docker.io" else registry
