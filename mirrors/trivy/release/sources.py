"""Where release files are: the address an administrator writes, and the addresses and names that follow from it.

    https://github.com/OWNER/REPO                                   the releases of a GitHub repository
    https://host/path/v{version}/                                   a folder of any host, files named as Trivy's
    https://host/path/v{version}/trivy_{version}_{platform}         the same with file names of one's own
    …#latest=https://host/latest.txt                                where to ask which version is the latest

Names by goreleaser.yml of aquasecurity/trivy: `trivy_0.74.0_Linux-64bit.tar.gz`, `.zip` for Windows, `.deb` and `.rpm`
for Linux, and `trivy_0.74.0_checksums.txt` beside them.
"""

import re
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from mirrors.trivy.release.errors import ReleaseError

ADDRESS_LIMIT = 500
GITHUB_PATH = re.compile(r"/([A-Za-z0-9][A-Za-z0-9-]{0,38})/([A-Za-z0-9._-]{1,100}?)(?:\.git)?/?")
PLATFORM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,40}(?:\.[a-z0-9]{1,10}){0,2}", re.ASCII)
PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}", re.ASCII)
FILE_PATTERN = re.compile(r"((?:[A-Za-z0-9._-]|\{version\})*)\{platform\}((?:\.[a-z0-9]{1,10}){0,2})", re.ASCII)
LATEST_MARK = "latest="

# Of the archives Trivy publishes; Linux ones also as .deb and .rpm.
PLATFORMS = (
    "Linux-64bit", "Linux-ARM64", "Linux-32bit", "Linux-ARM", "Linux-PPC64LE", "Linux-s390x", "macOS-64bit",
    "macOS-ARM64", "windows-64bit", "FreeBSD-64bit",
)  # fmt: skip
PACKAGES = (".deb", ".rpm")
DEFAULT_PLATFORMS = ("Linux-64bit", "Linux-ARM64")
_KNOWN = {name.lower(): name for name in PLATFORMS}


@dataclass(frozen=True)
class ReleaseSource:
    """`folder` has `{version}` in it and ends with a slash, `pattern` is a file name with `{version}` and `{platform}`.

    `ending` follows the platform where that brings none; "" is Trivy's own. `latest_url` says which version is newest.
    """

    folder: str
    pattern: str
    ending: str
    latest_url: str

    @property
    def host(self) -> str:
        return urlsplit(self.folder).netloc

    def file_name(self, version: str, platform: str) -> str:
        name, dot, own = platform.partition(".")
        ending = f".{own}" if dot else self.ending or (".zip" if name.lower().startswith("windows") else ".tar.gz")
        return self.pattern.replace("{version}", version).replace("{platform}", name) + ending

    def checksums_name(self, version: str) -> str:
        """What stands before the platform, and `checksums.txt` (goreleaser's own name for it)."""
        return self.pattern.partition("{platform}")[0].replace("{version}", version) + "checksums.txt"

    def address(self, version: str, file: str) -> str:
        return self.folder.replace("{version}", version) + file


def parse_source(text: str) -> ReleaseSource:
    """What a person gave as the source of release files. ReleaseError (`source`) says what is wrong with it."""
    text = text.strip()
    address, mark, fragment = text.partition("#")
    parts = _split(address)
    if mark and not (fragment.startswith(LATEST_MARK) and _split(fragment.removeprefix(LATEST_MARK))):
        raise _wrong(text, "after # only latest=https://… may stand")
    if parts.query or len(text) > ADDRESS_LIMIT:
        raise _wrong(text, "it has a query (?) in it or is too long")
    latest = fragment.removeprefix(LATEST_MARK)
    github = GITHUB_PATH.fullmatch(parts.path) if parts.netloc.lower() == "github.com" else None
    if github and "{" not in address:
        base = f"https://github.com/{github[1]}/{github[2]}/releases"
        pattern = f"{github[2]}_{{version}}_{{platform}}"
        return ReleaseSource(f"{base}/download/v{{version}}/", pattern, "", latest or f"{base}/latest")
    return _template(text, address, parts, latest)


def _template(text: str, address: str, parts: SplitResult, latest: str) -> ReleaseSource:
    folder, _, file = address.rpartition("/")
    match = FILE_PATTERN.fullmatch(file or "trivy_{version}_{platform}")
    if match is None:
        raise _wrong(text, "after the last slash a file name with {platform} stands, or nothing")
    above = folder.removeprefix(f"{parts.scheme}://{parts.netloc}")
    if "{version}" not in f"{above}{file}" or re.search(r"[{}]", above.replace("{version}", "")):
        raise _wrong(text, "its path needs {version} where the version stands, and no other braces")
    if "{" in parts.netloc:
        raise _wrong(text, "the host is written out, without {version}")
    return ReleaseSource(
        f"{folder}/",
        f"{match[1]}{{platform}}",
        match[2],
        latest or _latest_of(f"{parts.scheme}://{parts.netloc}", above),
    )


def _latest_of(host: str, above: str) -> str:
    """`…/releases/latest` where the layout is GitHub's, which Gitea and Forgejo have too; else beside the versions."""
    before = above.partition("{version}")[0].rpartition("/")[0] if "{version}" in above else above
    if before.endswith("/releases/download"):
        before = before.removesuffix("/download")
    return f"{host}{before}/latest"


def _split(address: str) -> SplitResult:
    try:
        parts = urlsplit(address)
        named = bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        parts, named = urlsplit(""), False
    if not named or parts.scheme not in ("http", "https") or not address.isprintable() or " " in address:
        raise _wrong(address, "it needs https:// and a host")
    if "@" in parts.netloc:
        raise ReleaseError("source", "Write the address without user and password; they have fields of their own.")
    return parts


def _wrong(text: str, why: str) -> ReleaseError:
    return ReleaseError(
        "source",
        f"{text[:160]!r} is no source of release files: {why}. Write https://github.com/aquasecurity/trivy, or an "
        "address such as https://host/trivy/v{version}/.",
    )


def parse_platform(text: str) -> str:
    """A platform as in Trivy's file names, known ones in their own spelling. Raises ReleaseError (`platform`)."""
    name = text.strip()
    if not PLATFORM.fullmatch(name):
        raise ReleaseError(
            "platform",
            f"{name[:60]!r} is no platform of a release file. Write it as in the file's name: "
            f"{', '.join(PLATFORMS[:4])}, windows-64bit; with .deb or .rpm for a package.",
        )
    plain, dot, ending = name.partition(".")
    return _KNOWN.get(plain.lower(), plain) + dot + ending
