"""bundle.json and SHA256SUMS of a stranger's bundle, into plain values: strict, bounded, every problem a sentence.

Unknown keys are passed over: an older program reads what a newer one of the same format adds. What is known must have
its type, its length and its place.
"""

import json
import re
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any, NoReturn, TypeVar

from mirrors.bundle import contents
from mirrors.bundle.composition import FORMAT
from mirrors.bundle.parsed import AssumedSnapshot, ParsedBlob, ParsedBundle, ParsedSnapshot
from mirrors.bundle.tar_reading import StructureError
from mirrors.digests import DIGEST
from mirrors.registry.errors import clean
from mirrors.registry.manifests import MANIFEST_LIMIT
from mirrors.trivy.catalogue import GIB, KINDS, MIB, Kind
from mirrors.trivy.metadata import MetadataError, parse_time
from mirrors.trivy.release import CHECKSUMS_LIMIT, SIGNATURE_LIMIT
from mirrors.trivy.vex import MANIFEST_LIMIT as VEX_MANIFEST_LIMIT
from mirrors.wording import rfc3339

FILES = "files"  # the profile without folders
JSON_LIMIT = 8 * MIB
# Every one of them costs memory when it is parsed; 8 MiB of honest blobs have about 30,000 and 200,000.
MOST_CONTAINERS, MOST_VALUES = 100_000, 500_000
MOST_SNAPSHOTS = 500
MOST_BLOBS = 20_000  # of one snapshot, as many as a sync takes
MOST_MEMBERS = 100_000
CONFIG_LIMIT = 64 * MIB
REPACKED_LIMIT = 8 * GIB
SIGNED_LIMIT = 16 * 1024
ANYTHING = 64 * GIB

NAME = re.compile(r"[A-Za-z0-9_-]{1,80}", re.ASCII)
PLAIN = re.compile(r"[A-Za-z0-9._-]{1,100}", re.ASCII)
BUNDLE_ID = re.compile(r"[A-Za-z0-9]{4,40}", re.ASCII)
HEX = re.compile(r"[0-9a-f]{32,128}", re.ASCII)
SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(?:/[A-Za-z0-9_][A-Za-z0-9._-]*){0,5}", re.ASCII)
SUM_LINE = re.compile(rb"([0-9a-f]{64})  ([A-Za-z0-9._/-]{1,250})")

IMAGE_ROLES = (contents.MANIFEST, contents.INDEX, contents.CONFIG, contents.LAYER)
ROLES = {"oci": IMAGE_ROLES, "vex": (contents.VEX_MANIFEST,), "release": contents.RELEASE_ROLES}
LIMITS = {
    contents.MANIFEST: MANIFEST_LIMIT, contents.INDEX: MANIFEST_LIMIT, contents.CONFIG: CONFIG_LIMIT,
    contents.VEX_MANIFEST: VEX_MANIFEST_LIMIT, contents.CHECKSUMS: CHECKSUMS_LIMIT,
    contents.SIGNATURE: SIGNATURE_LIMIT,
}  # fmt: skip
ARCHIVE_FORMATS = {"tar.gz": "application/gzip", "zip": "application/zip"}

T = TypeVar("T")


class _Fault(Exception):
    """One value is not as the format says; the text says which and why."""


def parse_sums(raw: bytes) -> list[tuple[str, str]]:
    """(name, digest) of every line of SHA256SUMS, in order. StructureError unless it is as Airgap writes it."""
    if not raw.endswith(b"\n"):
        raise StructureError("SHA256SUMS is empty, or its last line is not complete.")
    if raw.count(b"\n") > MOST_MEMBERS:
        raise StructureError(f"SHA256SUMS lists more than {MOST_MEMBERS:,} files; that is no real bundle.")
    found: dict[str, str] = {}
    for number, line in enumerate(raw[:-1].split(b"\n"), start=1):
        match = SUM_LINE.fullmatch(line)
        name = match[2].decode() if match else ""
        if match is None or not SAFE.fullmatch(name):
            raise StructureError(f"Line {number} of SHA256SUMS is not as Airgap writes it: {clean(repr(line), 100)}.")
        if name in found:
            raise StructureError(f"SHA256SUMS lists {name} twice.")
        if name.startswith("SHA256SUMS"):
            raise StructureError(f"SHA256SUMS lists {name}, which it never does.")
        found[name] = f"sha256:{match[1].decode()}"
    return list(found.items())


def parse_bundle(raw: bytes, tell: Callable[[str], object]) -> ParsedBundle | None:
    """What bundle.json says; `tell` hears every problem. None where nothing of it can be used.

    Raises StructureError for a newer format, of which nothing more can be said.
    """
    try:
        document = _load(raw)
        _check_format(document)
        bundle = _Object(document, "bundle.json")
        if json.dumps(document, indent=2).encode() + b"\n" != raw:
            tell("bundle.json is not laid out as Airgap writes it (one fact a line, no key twice).")
        entries = bundle.list("snapshots", MOST_SNAPSHOTS)
        profile = bundle.text("profile", 20, PLAIN, optional=True)
        if profile not in ("", FILES):
            bundle.refuse("profile", f"is {profile}, which this version of Airgap does not know")
        read = partial(_snapshot, profile == FILES)
        snapshots = [_told(tell, read, entry, f"snapshots[{i}]") for i, entry in enumerate(entries)]
        assumed = bundle.list("assumed", 10 * MOST_SNAPSHOTS, optional=True)
        parsed = ParsedBundle(
            format=FORMAT,
            id=bundle.text("bundle", 40, BUNDLE_ID),
            created_at=bundle.time("created_at"),
            program=bundle.text("program", 100),
            scripts=bundle.flag("scripts"),
            snapshots=tuple(snapshot for snapshot in snapshots if snapshot is not None),
            profile=profile,
            site=bundle.text("site", 80, optional=True),
            transfer=bundle.text("transfer", 80, PLAIN, optional=True),
            receipt_secret=bundle.text("receipt_secret", 128, HEX, optional=True),
            assumed=tuple(_assumed(_Object(entry, f"assumed[{i}]")) for i, entry in enumerate(assumed)),
        )
    except _Fault as fault:
        tell(str(fault))
        return None
    if not entries:
        tell("bundle.json names no snapshot; a bundle holds at least one.")
    names = [snapshot.mirror for snapshot in parsed.snapshots]
    for name in sorted({name for name in names if names.count(name) > 1}):
        tell(f"bundle.json names the mirror {name} twice.")
    return parsed


def limit_of(kind: Kind | None, role: str) -> int:
    """The largest size, in bytes, a blob of this role may have."""
    return LIMITS.get(role) or (kind.layer_limit if kind else ANYTHING) or ANYTHING


def _load(raw: bytes) -> dict[str, Any]:
    if raw.count(b"{") + raw.count(b"[") > MOST_CONTAINERS or raw.count(b",") > MOST_VALUES:
        raise _Fault(f"bundle.json holds more than {MOST_CONTAINERS:,} objects or {MOST_VALUES:,} values.")
    try:
        document = json.loads(raw.decode("ascii"), parse_constant=_constant)
    except (ValueError, RecursionError):
        raise _Fault(f"bundle.json is not JSON in ASCII: it begins with {clean(repr(raw[:40]), 80)}.") from None
    if not isinstance(document, dict):
        raise _Fault("bundle.json does not hold an object.")
    return document


def _constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _check_format(document: dict[str, Any]) -> None:
    found = document.get("format")
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise _Fault(f"bundle.json does not say its format (a number from 1) but {clean(repr(found), 40)}.")
    if found > FORMAT:
        program = document.get("program")
        maker = clean(program, 60) if isinstance(program, str) and program else "a newer version of Airgap"
        raise StructureError(
            f"This bundle has format {found} and was made by {maker}; this version of Airgap reads formats up to "
            f"{FORMAT}. Upgrade this side to the version that made it, then import the bundle."
        )


def _told(tell: Callable[[str], object], make: Callable[[Any, str], T], entry: Any, where: str) -> T | None:
    try:
        return make(entry, where)
    except _Fault as fault:
        tell(str(fault))
        return None


def _snapshot(flat: bool, entry: Any, where: str) -> ParsedSnapshot:
    o = _Object(entry, where)
    mirror = o.text("mirror", 80, NAME)
    o.where = f"{where} ({mirror})"
    name = o.text("kind", 20, PLAIN)
    kind = KINDS.get(name)
    blobs = [_blob(o, kind, blob, i) for i, blob in enumerate(o.list("blobs", MOST_BLOBS))]
    archives = o.list("archives", MOST_BLOBS, optional=True)
    repacked: list[str] = []
    if kind is None or kind.transport == "vex":
        pairs = [_archive(o, blob, i) for i, blob in enumerate(archives)]
        blobs += [blob for blob, _ in pairs]
        repacked = [file for _, file in pairs if file]
    elif archives:
        raise _Fault(f"{o.where} has VEX archives, but is no VEX repository.")
    snapshot = ParsedSnapshot(
        mirror=mirror,
        label=o.text("label", 80),
        kind=name,
        reference=o.text("reference", 500, optional=True),
        tag=o.text("tag", 128, optional=True),
        version=o.text("version", 100, optional=True),
        manifest_digest=o.text("manifest_digest", 71, DIGEST),
        manifest_size=o.size("manifest_size"),
        media_type=o.text("media_type", 200),
        artifact_type=o.text("artifact_type", 200, optional=True),
        layer_digest=o.text("layer_digest", 71, DIGEST, optional=True),
        layer_size=o.size("layer_size") if o.values.get("layer_size") is not None else None,
        size=o.size("size"),
        updated_at=o.maybe_time("updated_at"),
        next_update=o.maybe_time("next_update"),
        published_at=o.maybe_time("published_at"),
        fetched_at=o.time("fetched_at"),
        confirmed_at=o.time("confirmed_at"),
        tls_verified=o.flag("tls_verified"),
        same_layer_sources=o.size("same_layer_sources", 1000),
        complete=o.flag("complete"),
        ref_name=o.text("ref_name", 120, PLAIN, optional=True),
        files_path=o.text("files_path", 250, SAFE, optional=True),
        blobs=tuple(blobs),
        repacked=tuple(repacked),
        known=kind is not None,
    )
    if kind is not None:
        _check_agreement(o, snapshot, kind, flat)
    return snapshot


def _check_agreement(o: "_Object", snapshot: ParsedSnapshot, kind: Kind, flat: bool) -> None:
    """What bundle.json says in two places must be the same."""
    if (kind.transport == "oci") != snapshot.is_image:
        o.refuse("ref_name", "does not fit its kind")
    if (kind.transport == "release" and not flat) != bool(snapshot.files_path):
        o.refuse("files_path", "does not fit its kind")
    for blob in snapshot.blobs:
        place = "" if flat else _place(blob, snapshot.files_path)
        if (flat and "/" in blob.file) or (place and place != blob.file):
            o.refuse("blobs", f"have {blob.file} elsewhere than where it belongs")
    sizes = {blob.digest: blob.size for blob in snapshot.blobs}
    if any(sizes[blob.digest] != blob.size for blob in snapshot.blobs):
        o.refuse("blobs", "give one digest two sizes")
    if sizes.get(snapshot.manifest_digest) != snapshot.manifest_size:
        o.refuse("manifest_digest", "is not among its blobs with that size")
    if snapshot.layer_digest and sizes.get(snapshot.layer_digest) != snapshot.layer_size:
        o.refuse("layer_digest", "is not among its blobs with that size")
    if snapshot.size != sum(sizes.values()):
        o.refuse("size", "is not the sum of its blobs")
    if reason := kind.refused_versions.get(snapshot.version):
        raise _Fault(f"{snapshot.label} {snapshot.version} is never taken: {reason}.")


def _place(blob: ParsedBlob, files_path: str) -> str:
    """Where the format has a blob; "" where more than one place is right."""
    if blob.role in IMAGE_ROLES:
        return f"blobs/sha256/{blob.digest[7:]}"
    if blob.role in contents.RELEASE_ROLES:
        return f"{files_path}/{blob.name}"
    return "" if blob.file.startswith("vex/") else f"vex/{blob.file}"


def _blob(parent: "_Object", kind: Kind | None, entry: Any, index: int) -> ParsedBlob:
    o = _Object(entry, f"{parent.where}.blobs[{index}]")
    role = o.text("role", 20, PLAIN)
    if kind is not None and role not in ROLES.get(kind.transport, ()):
        raise _Fault(f"{o.where} has the role {role}, which this version of Airgap does not know for a {kind.label}.")
    digest = o.text("digest", 71, DIGEST)
    file = o.text("file", 250, SAFE)
    size = o.size("size", limit_of(kind, role))
    name = o.text("name", 255, optional=True)
    return ParsedBlob(role, digest, size, o.text("media_type", 200, optional=True), name, file)


def _archive(parent: "_Object", entry: Any, index: int) -> tuple[ParsedBlob, str]:
    """The archive as a row has it, and where its repacked twin lies ("" without one)."""
    o = _Object(entry, f"{parent.where}.archives[{index}]")
    format = o.text("archive_format", 10)
    if format not in ARCHIVE_FORMATS:
        o.refuse("archive_format", "is neither tar.gz nor zip")
    file, tar_gz = o.text("file", 250, SAFE), o.text("tar_gz", 250, SAFE)
    if (file == tar_gz) != (format == "tar.gz"):
        o.refuse("tar_gz", "does not fit its format")
    details = {
        "location": o.text("location", 4096),
        "subdir": o.text("subdir", 1000, optional=True),
        "format": format,
        "spec_version": o.text("spec_version", 40),
        "served": o.text("served_name", 255, PLAIN),
    }
    digest = o.text("digest", 71, DIGEST)
    size = o.size("size", limit_of(KINDS["vex"], contents.VEX_ARCHIVE))
    name = file.rpartition("/")[2]
    blob = ParsedBlob(contents.VEX_ARCHIVE, digest, size, ARCHIVE_FORMATS[format], name, file, details)
    return blob, tar_gz if tar_gz != file else ""


def _assumed(o: "_Object") -> AssumedSnapshot:
    return AssumedSnapshot(
        o.text("mirror", 80, NAME),
        o.text("label", 80),
        o.text("kind", 20, PLAIN),
        o.text("manifest_digest", 71, DIGEST),
        o.text("layer_digest", 71, DIGEST, optional=True),
        o.maybe_time("updated_at"),
        o.maybe_time("confirmed_at"),
    )


class _Object:
    """An object of bundle.json and how to take values out of it. _Fault for every one that is not as it should be."""

    def __init__(self, values: Any, where: str) -> None:
        self.where = where
        if not isinstance(values, dict):
            raise _Fault(f"{where} in bundle.json is not an object.")
        self.values: dict[str, Any] = values

    def refuse(self, key: str, why: str) -> NoReturn:
        place = self.where if self.where == "bundle.json" else f"{self.where} in bundle.json"
        raise _Fault(f"{place}: {key} {why}.")

    def text(self, key: str, most: int, pattern: re.Pattern[str] | None = None, *, optional: bool = False) -> str:
        value = self.values.get(key)
        if value is None and optional:
            return ""
        if not isinstance(value, str) or (not value and not optional):
            self.refuse(key, "is missing" if value is None else "is not a text")
        if len(value) > most or not value.isprintable():
            self.refuse(key, f"is longer than {most} characters or holds unprintable ones")
        if pattern is not None and value and not pattern.fullmatch(value):
            self.refuse(key, f"is {clean(repr(value), 90)}, which is not allowed there")
        return value

    def size(self, key: str, most: int = 2**50) -> int:
        value = self.values.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            self.refuse(key, "is not a number from 0")
        if value > most:
            self.refuse(key, f"is {value:,}; at most {most:,} are taken")
        return value

    def flag(self, key: str) -> bool:
        value = self.values.get(key)
        if not isinstance(value, bool):
            self.refuse(key, "is neither true nor false")
        return value

    def time(self, key: str) -> datetime:
        value = self.values.get(key)
        try:
            moment = parse_time(value) if isinstance(value, str) else None
        except MetadataError:
            moment = None
        if moment is None or rfc3339(moment) != value:
            self.refuse(key, f"is {clean(repr(value), 60)}, not a time in UTC such as 2026-11-20T06:31:52Z")
        return moment

    def maybe_time(self, key: str) -> datetime | None:
        return None if self.values.get(key) is None else self.time(key)

    def list(self, key: str, most: int, *, optional: bool = False) -> list[Any]:
        value = self.values.get(key)
        if value is None and optional:
            return []
        if not isinstance(value, list):
            self.refuse(key, "is not a list")
        if len(value) > most:
            self.refuse(key, f"has {len(value):,} entries; at most {most:,} are taken")
        return value
