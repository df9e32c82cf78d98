"""Where a VEX repository is, and the go-getter addresses that its manifest gives.

An address is `[getter::]scheme://host/path.ext//subdir?query`: the query belongs to the URL although it comes after
the subdir, and `archive`, `checksum` and `filename` in it are orders to go-getter, not to the server
(hashicorp/go-getter source.go, decompress.go, checksum.go).
"""

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import SplitResult, unquote, urlsplit

from mirrors.git.addresses import GitAddress, is_git_source, parse_getter, parse_source_address
from mirrors.git.faults import GitError
from mirrors.trivy.entries import Format

ADDRESS_LIMIT = 4096
WELL_KNOWN = "/.well-known/vex-repository.json"
# Go-getter's endings, the longest first; those with a format are the ones we can mirror.
ENDINGS: tuple[tuple[str, Format | None], ...] = (
    ("tar.bz2", None), ("tar.zst", None), ("tar.gz", "tar.gz"), ("tar.xz", None), ("tbz2", None), ("tzst", None),
    ("tgz", "tar.gz"), ("txz", None), ("zip", "zip"), ("tar", None), ("bz2", None), ("zst", None), ("gz", None),
    ("xz", None),
)  # fmt: skip
ORDERS = ("archive", "checksum", "filename")
GETTER = re.compile(r"([A-Za-z0-9]+)::(.+)", re.DOTALL)
GITHUB_PATH = re.compile(r"/([A-Za-z0-9][A-Za-z0-9-]{0,38})/([A-Za-z0-9._-]{1,100}?)(?:\.git)?/?")


class VexError(Exception):
    """A VEX repository cannot be mirrored as it stands. `code`: source, manifest, archive, index, pointer, checksum."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Location:
    """One archive address. `fetch_url` is what to request; `subdir` may hold a glob; `checksum` is go-getter's, or "".

    `reason` says why a location is not `supported`. With `git`, the archive is made here of a git repository.
    """

    original: str
    fetch_url: str
    subdir: str
    format: Format
    supported: bool = True
    reason: str = ""
    checksum: str = ""
    git: GitAddress | None = None


@dataclass(frozen=True)
class VexSource:
    """Where a repository's manifest comes from.

    `base`: from `manifest_url`. `github` and `archive`: from inside the first of `candidates` that can be fetched.
    `git`: from a folder of a git repository (`git`). `directory`: from `subdir` of the directory `url` of this machine.
    """

    form: Literal["base", "github", "archive", "git", "directory"]
    url: str
    subdir: str = ""
    manifest_url: str = ""
    candidates: tuple[Location, ...] = ()
    git: GitAddress | None = None

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc


def parse_source(text: str) -> VexSource:
    """What a person gave as the source of a VEX repository. VexError (`source`) says what is wrong with it."""
    text = text.strip()
    if is_git_source(text):
        return _git_source(text)
    if is_directory(text):
        return _directory_source(text)
    parts = _split_url(text)
    if parts is None and "@" not in text:
        raise VexError(
            "source",
            f"{text[:120]!r} is not a VEX source: it needs https:// and a host, git+https://, or a directory (/…).",
        )
    if parts is None or "@" in parts.netloc:
        raise VexError("source", "A VEX source may not hold a user name or password; give them to the source instead.")
    if parts.fragment:
        raise VexError("source", f"{text[:120]!r} is not a VEX source: it has a fragment (#).")
    if parts.netloc.lower() == "github.com" and (match := GITHUB_PATH.fullmatch(parts.path)) and not parts.query:
        return _github_source(match[1], match[2])
    location = parse_location(text)
    if location.supported:
        return VexSource("archive", location.fetch_url, location.subdir, candidates=(location,))
    if "//" in parts.path or _ending(parts.path):
        raise VexError("source", f"{text[:120]!r} cannot be mirrored: {location.reason}.")
    if parts.query:
        raise VexError("source", f"{text[:120]!r} is not a VEX source: the address of a repository has no query (?).")
    if parts.netloc.lower() == "github.com":
        raise VexError("source", f"{text[:120]!r} is not a VEX source: of GitHub write https://github.com/OWNER/REPO.")
    url = text.rstrip("/").removesuffix(WELL_KNOWN)
    return VexSource("base", url, manifest_url=url + WELL_KNOWN)


def is_directory(text: str) -> bool:
    """Whether a source is meant to be a directory of this machine."""
    return text.startswith("/") or text.lower().startswith("file:")


def _git_source(text: str) -> VexSource:
    try:
        address = parse_source_address(text)
    except GitError as error:
        raise VexError("source", str(error)) from None
    return VexSource("git", address.url, address.subdir, git=address)


def _directory_source(text: str) -> VexSource:
    """`/absolute/path[//folder]`, or the same behind `file://`."""
    path = text[len("file:") :] if text.lower().startswith("file:") else text
    if path.startswith("///"):
        path = path[2:]
    path, _, subdir = path.partition("//")
    parts = [*path.split("/")[1:], *subdir.split("/")]
    if not path.startswith("/") or not path.strip("/") or ".." in parts or not text.isprintable():
        raise VexError(
            "source",
            f"{text[:120]!r} is not a directory of this machine: write file:///absolute/path, or just the path.",
        )
    return VexSource("directory", "/" + path.strip("/"), subdir.strip("/"))


def _github_source(owner: str, repository: str) -> VexSource:
    """GitHub's archives: of `main`, else of `master`. Their one top folder is named by the repository as it is now
    called, so it is found rather than guessed."""
    url = f"https://github.com/{owner}/{repository}"
    archives = tuple(f"{url}/archive/refs/heads/{branch}.tar.gz" for branch in ("main", "master"))
    candidates = tuple(Location(f"{archive}//*", archive, "*", "tar.gz") for archive in archives)
    return VexSource("github", url, "*", candidates=candidates)


def parse_location(text: str) -> Location:
    """Take a go-getter address apart. VexError (`manifest`) for one that is hostile; not supported is no error."""
    if len(text) > ADDRESS_LIMIT or not text.isprintable() or not text.strip():
        raise VexError("manifest", f"{text[:120]!r} is not an address.")
    getter = GETTER.fullmatch(text)
    if getter and getter[1].lower() == "git":
        return _git_location(text, getter[2])
    if getter and getter[1].lower() not in ("http", "https"):
        return _unsupported(text, f"the getter {getter[1]}:: is not mirrored")
    plain = getter[2] if getter else text
    url, subdir, query = _take_apart(plain)
    _check_subdir(text, subdir)
    parts = _split_url(url)
    if parts is None:
        return _unsupported(text, "only http and https addresses are mirrored")
    if "@" in parts.netloc:
        return _unsupported(text, "its address holds a user name or password")
    orders, kept = _take_orders(query)
    fetch_url = url + ("?" + kept if kept else "")
    ending = orders.get("archive") or _ending(parts.path)
    if not ending or ending.lower() in ("false", "0"):
        return _unsupported(text, "it does not end in .tar.gz or .zip, so it is no archive")
    format_ = dict(ENDINGS).get(ending)
    if format_ is None:
        return _unsupported(text, f"archives of the format {ending[:20]} are not read, only tar.gz and zip")
    return Location(text, fetch_url, subdir.strip("/"), format_, checksum=orders.get("checksum", ""))


def _git_location(text: str, plain: str) -> Location:
    """What go-getter takes from a git repository, we make an archive of."""
    try:
        address = parse_getter(plain, text)
    except GitError as error:
        return _unsupported(text, str(error).rstrip("."))
    return Location(text, address.url, address.subdir, "tar.gz", git=address)


def check_checksum(location: Location, digest: str) -> str:
    """Compare an archive's sha256 digest with the address's `checksum`.

    VexError when they differ; otherwise "" or a sentence saying that the checksum is of a kind we do not compute.
    """
    kind, _, value = location.checksum.rpartition(":")
    if not value:
        return ""
    if (kind or "sha256") == "sha256" and len(value) == 64:
        if "sha256:" + value.lower() != digest:
            raise VexError(
                "checksum", f"The archive has the digest {digest}; its address demands sha256:{value.lower()}."
            )
        return ""
    return f"The address's checksum ({location.checksum[:20]}…) was not compared; only sha256 is."


def _unsupported(text: str, reason: str) -> Location:
    return Location(text, "", "", "tar.gz", supported=False, reason=reason)


def _take_apart(text: str) -> tuple[str, str, str]:
    """URL without query, subdir, query: go-getter's SourceDirSubdir."""
    before, mark, query = text.partition("?")
    offset = before.find("://") + 3 if "://" in before else 0
    at = before.find("//", offset)
    if at < 0:
        return before, "", query if mark else ""
    return before[:at], before[at + 2 :], query if mark else ""


def _take_orders(query: str) -> tuple[dict[str, str], str]:
    """Go-getter's own parameters, and what is left of the query, in its order and encoding."""
    orders: dict[str, str] = {}
    kept = []
    for pair in query.split("&"):
        key, _, value = pair.partition("=")
        if key in ORDERS:
            orders.setdefault(key, unquote(value))
        elif pair:
            kept.append(pair)
    return orders, "&".join(kept)


def _check_subdir(text: str, subdir: str) -> None:
    if ".." in subdir.split("/") or subdir.startswith("/") or "\\" in subdir:
        raise VexError("manifest", f"The folder in the address {text[:120]!r} leaves its archive.")


def _split_url(text: str) -> SplitResult | None:
    try:
        parts = urlsplit(text)
        port_is_a_number = parts.port is None or parts.port >= 0
    except ValueError:
        return None
    if parts.scheme.lower() not in ("http", "https") or not parts.hostname or not port_is_a_number:
        return None
    return parts


def _ending(path: str) -> str:
    return next((ending for ending, _ in ENDINGS if path.lower().endswith("." + ending)), "")
