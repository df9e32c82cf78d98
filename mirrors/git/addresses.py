"""How a git repository is written: as a source of ours, and as a go-getter address in a manifest."""

import re
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from mirrors.git.faults import GitError

SOURCE_PREFIX = "git+"
# What git check-ref-format forbids is not here; neither are names that could be taken for an option or a commit.
REF = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.+-]|/(?=[A-Za-z0-9_])){0,199}", re.ASCII)
FORM = "https://host/path.git, then @BRANCH and //folder where they are needed"


@dataclass(frozen=True)
class GitAddress:
    """`url` is the repository's (http or https), `ref` a branch ("" for its default), tag or commit, `subdir` a folder
    inside ("" for its top)."""

    url: str
    ref: str = ""
    subdir: str = ""

    @property
    def name(self) -> str:
        """The repository's own name, as it would stand in front of an archive's top folder."""
        last = urlsplit(self.url).path.rstrip("/").rpartition("/")[2].removesuffix(".git")
        return re.sub(r"[^A-Za-z0-9._-]", "-", last).strip(".-") or "repository"


def is_git_source(text: str) -> bool:
    return bool(re.match(r"(?:git\+[a-z+]*|git|ssh)://|[\w.-]+@[\w.-]+:", text, re.IGNORECASE))


def parse_source_address(text: str) -> GitAddress:
    """`git+https://host/path.git[@branch][//folder]`. GitError says what is wrong with it."""
    scheme = text.partition("://")[0].lower()
    if scheme not in ("git+https", "git+http"):
        # What stands before an @ may be a password.
        shown = repr(text[:120]) if "@" not in text.partition("://")[2].partition("/")[0] else "This"
        raise GitError(
            f"{shown} cannot be mirrored: a git repository is read over https (or http), without a key of our own. "
            f"Write git+{FORM}."
        )
    plain = text[len(SOURCE_PREFIX) :]
    start = plain.index("://") + 3
    host, slash, path = plain[start:].partition("/")
    path, _, subdir = path.partition("//")
    path, at, ref = path.partition("@")
    if "@" in host:
        raise GitError("A git source may not hold a user name or password; give them to the source instead.")
    if not slash or not path.strip("/") or (at and not ref):
        raise GitError(f"{text[:120]!r} is not a git source. Write git+{FORM}.")
    if "?" in plain or "#" in plain:
        raise GitError(f"{text[:120]!r} is not a git source: it has a query (?) or fragment (#). Write git+{FORM}.")
    return _checked(GitAddress(f"{plain[:start].lower()}{host}/{path.rstrip('/')}", ref, subdir.strip("/")), text)


def parse_getter(plain: str, text: str) -> GitAddress:
    """What stands behind `git::` in a manifest: `https://host/path//folder?ref=…`. GitError where it is not read."""
    before, _, query = plain.partition("?")
    scheme, mark, rest = before.partition("://")
    if not mark or scheme.lower() not in ("https", "http"):
        raise GitError("of git repositories only those at https addresses are mirrored")
    host_and_path, _, subdir = rest.partition("//")
    orders = parse_qs(query, keep_blank_values=True)
    if unknown := sorted(set(orders) - {"ref", "depth"}):
        raise GitError(f"the order {unknown[0][:20]!r} to git is not followed")
    if "@" in host_and_path.partition("/")[0]:
        raise GitError("its address holds a user name or password")
    address = GitAddress(
        f"{scheme.lower()}://{host_and_path.rstrip('/')}", orders.get("ref", [""])[0], subdir.strip("/")
    )
    return _checked(address, text)


def _checked(address: GitAddress, text: str) -> GitAddress:
    try:
        parts = urlsplit(address.url)
        whole = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        whole = False
    if not whole or not address.url.isprintable() or " " in address.url:
        raise GitError(f"{text[:120]!r} is not the address of a git repository.")
    if address.ref and (not REF.fullmatch(address.ref) or ".." in address.ref or address.ref.endswith((".", ".lock"))):
        raise GitError(f"{address.ref[:80]!r} is no name of a branch.")
    if "\\" in address.subdir or any(part in ("", ".", "..") for part in address.subdir.split("/") if address.subdir):
        raise GitError(f"The folder in the address {text[:120]!r} leaves its repository.")
    return address
