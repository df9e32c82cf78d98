"""`vex-repository.json`: read strictly, and rewritten so that its archives come from us.

Rewriting works on the generic JSON, so that whatever we do not know is kept where it stands. What Trivy itself reads
of the manifest stands in its pkg/vex/repo/repo.go; clients keep the first manifest they get for ever, so the
addresses in it must not change with the content.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from mirrors.trivy.vex.sources import Location, VexError, parse_location

REPOSITORY_FILE = "vex-repository.json"
MANIFEST_LIMIT = 1024 * 1024
DEPTH_LIMIT = 40
ENTRIES_LIMIT = 100
SPEC_VERSION = "0.1"  # the only one Trivy looks for
# A hundred years: with it and a cache.json Trivy never asks anybody for a newer archive.
OFFLINE_INTERVAL = "876000h"
DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:h|m|s|ms|us|µs|ns))+|0", re.ASCII)
PLAIN_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.-]{0,30}", re.ASCII)


@dataclass(frozen=True)
class VexVersion:
    spec_version: str
    locations: tuple[Location, ...]
    update_interval: str


@dataclass(frozen=True)
class VexRepository:
    name: str
    description: str
    versions: tuple[VexVersion, ...]

    def version(self, spec_version: str = SPEC_VERSION) -> VexVersion | None:
        return next((version for version in self.versions if version.spec_version == spec_version), None)


def parse_repository(raw: bytes) -> VexRepository:
    """What the manifest says. VexError (`manifest`) with the place and the fault; Trivy itself would just fail."""
    document = _load(raw)
    versions = tuple(
        _version(version, f"versions[{index}]") for index, version in enumerate(_list(document, "versions", ""))
    )
    names = [version.spec_version for version in versions]
    if not versions:
        _refuse("has no versions, so it names no archive")
    if len(set(names)) < len(names):
        _refuse("names a spec_version twice")
    return VexRepository(_words(document.get("name")), _words(document.get("description")), versions)


def served_name(spec_version: str, location_index: int, location: Location) -> str:
    """The file name we serve an archive under, such as `v0.1-0.tar.gz`: made of places only, never of content."""
    return f"v{spec_version}-{location_index}.{location.format}"


def rewrite_manifest(raw: bytes, base_url: str, served: Mapping[str, str]) -> bytes:
    """The manifest with the addresses in `served` (original address to our file name) below `base_url`.

    Folders inside the archives are kept (a file name with a `//folder` of its own replaces it: an archive that did not
    come from that address), and so are unknown keys and every order. In a version of which we serve
    something, the addresses we do not serve are dropped: inside they would only time out. A version of which we
    serve nothing stays as it is. VexError if `raw` is no manifest.
    """
    document = _load_whole(raw)
    for version in _list(document, "versions", ""):
        rewritten = []
        for location in version["locations"]:
            name = served.get(location["url"])
            if name is not None:
                subdir = parse_location(location["url"]).subdir if "//" not in name else ""
                address = f"{base_url.rstrip('/')}/{name}" + (f"//{subdir}" if subdir else "")
                rewritten.append({**location, "url": address})
        if rewritten:
            version["locations"] = rewritten
    return _dump(document)


def offline_manifest(raw: bytes) -> bytes:
    """The manifest for a filled cache: every update_interval a hundred years. VexError if `raw` is no manifest."""
    document = _load_whole(raw)
    for version in _list(document, "versions", ""):
        version["update_interval"] = OFFLINE_INTERVAL
    return _dump(document)


def _load_whole(raw: bytes) -> dict[str, Any]:
    parse_repository(raw)
    return _load(raw)


def _version(version: Any, where: str) -> VexVersion:
    if not isinstance(version, dict):
        _refuse(f"has {_shown(version)} at {where} instead of an object")
    spec_version = version.get("spec_version")
    if not isinstance(spec_version, str) or not PLAIN_VERSION.fullmatch(spec_version) or ".." in spec_version:
        _refuse(f"has the spec_version {_shown(spec_version)} at {where}")
    interval = version.get("update_interval", "")
    if isinstance(interval, (int, float)) and not isinstance(interval, bool):
        interval = f"{int(interval)}ns"  # Trivy takes a bare number as nanoseconds
    if not isinstance(interval, str) or (interval and not DURATION.fullmatch(interval)):
        _refuse(f"has the update_interval {_shown(interval)} at {where}; expected one such as 24h")
    locations = []
    for index, location in enumerate(_list(version, "locations", where + ".")):
        place = f"{where}.locations[{index}]"
        if not isinstance(location, dict):
            _refuse(f'has {_shown(location)} at {place} instead of an object with a "url"')
        url = location.get("url")
        if not isinstance(url, str):
            _refuse(f"has no address (url) at {place}")
        locations.append(parse_location(url))
    return VexVersion(spec_version, tuple(locations), interval)


def _load(raw: bytes) -> dict[str, Any]:
    if len(raw) > MANIFEST_LIMIT:
        _refuse(f"is larger than {MANIFEST_LIMIT // 1024} KiB")
    try:
        document = json.loads(raw.decode("utf-8-sig"), parse_constant=_constant)
    except (ValueError, RecursionError) as error:
        raise VexError(
            "manifest",
            f"{REPOSITORY_FILE} is not JSON: it begins with {raw[:40]!r}. Check that the source is a VEX repository.",
        ) from error
    if not isinstance(document, dict):
        _refuse(f"holds {_shown(document)} instead of an object")
    # Writing it again takes a stack frame a level, so what is nested absurdly deep is refused while it is read.
    if _depth_exceeds(document, DEPTH_LIMIT):
        _refuse(f"is nested deeper than {DEPTH_LIMIT} levels")
    return document


def _list(document: dict[str, Any], key: str, where: str) -> list[Any]:
    value = document.get(key)
    if value is None:
        _refuse(f"has no {where}{key}")
    if not isinstance(value, list):
        _refuse(f"has {_shown(value)} at {where}{key} instead of a list")
    if len(value) > ENTRIES_LIMIT:
        _refuse(f"has more than {ENTRIES_LIMIT} entries at {where}{key}")
    return value


def _depth_exceeds(document: Any, limit: int) -> bool:
    level: list[Any] = [document]
    for _ in range(limit):
        level = [child for node in level for child in _children(node)]
        if not level:
            return False
    return True


def _children(node: Any) -> Iterator[Any]:
    values = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return (value for value in values if isinstance(value, (dict, list)))


def _dump(document: dict[str, Any]) -> bytes:
    return json.dumps(document, indent=2).encode() + b"\n"


def _constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _words(value: Any) -> str:
    return value[:1000] if isinstance(value, str) else ""


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:80] + "…"


def _refuse(fault: str) -> NoReturn:
    raise VexError("manifest", f"{REPOSITORY_FILE} {fault}.")
