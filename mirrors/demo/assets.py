"""Builds small assets in Trivy's real formats: databases, checks, VEX archives, and the manifests around them.

Used by the demo upstream and by tests. The defaults are a few kilobytes and the same arguments give the same bytes;
`padding` adds incompressible bytes where size is wanted.
"""

import gzip
import io
import json
import random
import sqlite3
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from mirrors.demo.bolt import Tree, write_bolt
from mirrors.digests import digest_of
from mirrors.trivy.catalogue import KINDS

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
EMPTY_CONFIG = b"{}"
ARTIFACT_TYPES = {
    "trivy-db": "application/vnd.aquasec.trivy.config.v1+json",
    "trivy-java-db": "application/vnd.aquasec.trivy.config.v1+json",
    "trivy-checks": "application/vnd.cncf.openpolicyagent.config.v1+json",
}
# How far ahead the builders put NextUpdate (trivy-db Makefile; trivy-java-db pkg/builder/builder.go).
NEXT_UPDATE = {"trivy-db": timedelta(hours=24), "trivy-java-db": timedelta(hours=72)}
ZERO_TIME = "0001-01-01T00:00:00Z"

MAVEN = "maven::GitHub Security Advisory Maven"
MAVEN_SOURCE = {
    "ID": "ghsa",
    "Name": "GitHub Security Advisory Maven",
    "URL": "https://github.com/advisories?query=type%3Areviewed+ecosystem%3Amaven",
}

SEVERITIES = ("UNKNOWN", "LOW", "MEDIUM", "HIGH", "CRITICAL")

# Package, vulnerability, severity, title, vulnerable and patched versions: public facts about old advisories.
ADVISORIES: tuple[tuple[str, str, str, str, str, str], ...] = (
    (
        "com.fasterxml.jackson.core:jackson-databind",
        "CVE-2021-20190",
        "HIGH",
        "jackson-databind: mishandles the interaction between serialization gadgets and typing",
        "< 2.9.10.7",
        "2.9.10.7",
    ),
    (
        "com.fasterxml.jackson.core:jackson-databind",
        "CVE-2020-9548",
        "CRITICAL",
        "jackson-databind: Serialization gadgets in anteros-core",
        ">= 2.0.0, <= 2.9.10.3",
        "2.9.10.4",
    ),
    (
        "org.apache.logging.log4j:log4j-core",
        "CVE-2021-44228",
        "CRITICAL",
        "log4j-core: Remote code execution when an attacker controls log messages",
        ">= 2.13.0, < 2.15.0",
        "2.15.0",
    ),
    (
        "org.springframework:spring-beans",
        "CVE-2022-22965",
        "CRITICAL",
        "spring-framework: RCE via data binding on JDK 9+",
        "< 5.2.20.RELEASE",
        "5.2.20.RELEASE",
    ),
)

# Group, artifact, version, SHA-1 of the jar.
ARTIFACTS: tuple[tuple[str, str, str, str], ...] = (
    ("com.fasterxml.jackson.core", "jackson-databind", "2.9.10.1", "80812ad2436cdd34e09efbc708f100fb311c3d19"),
)

CHECK = """\
# METADATA
# title: {title}
# description: {description}
# scope: package
# schemas:
# - input: schema["dockerfile"]
# custom:
#   id: {id}
#   avd_id: AVD-{id}
#   severity: {severity}
#   short_code: {short_code}
#   recommended_action: {action}
#   input:
#     selector:
#     - type: dockerfile
package builtin.dockerfile.{package}

import rego.v1

{rule}
"""
CHECKS: dict[str, str] = {
    "policies/docker/policies/add_instead_of_copy.rego": CHECK.format(
        title="ADD instead of COPY",
        description="COPY does what it says; ADD also unpacks and fetches.",
        id="DS-0005",
        severity="LOW",
        short_code="use-copy-over-add",
        action="Use COPY",
        package="DS005",
        rule="""deny contains res if {
\tsome stage in input.Stages
\tsome instruction in stage.Commands
\tinstruction.Cmd == "add"
\tres := result.new("Consider using 'COPY' instead of 'ADD'", instruction)
}""",
    ),
    "policies/docker/policies/maintainer_is_deprecated.rego": CHECK.format(
        title="Deprecated MAINTAINER used",
        description="MAINTAINER has been deprecated since Docker 1.13.0.",
        id="DS-0022",
        severity="HIGH",
        short_code="no-maintainer",
        action="Use LABEL instead of MAINTAINER",
        package="DS022",
        rule="""deny contains res if {
\tsome stage in input.Stages
\tsome instruction in stage.Commands
\tinstruction.Cmd == "maintainer"
\tres := result.new("MAINTAINER should not be used", instruction)
}""",
    ),
}


def format_time(moment: datetime) -> str:
    """RFC 3339 in UTC as Go writes it: trailing zeros of the fraction trimmed, `Z`."""
    moment = moment.astimezone(UTC)
    fraction = f".{moment.microsecond:06d}".rstrip("0").rstrip(".")
    return moment.strftime("%Y-%m-%dT%H:%M:%S") + fraction + "Z"


def noise(count: int, seed: object) -> bytes:
    """`count` bytes that do not compress, the same for the same seed."""
    return random.Random(str(seed)).randbytes(count)  # noqa: S311 - filler, not a secret


def build_tar(members: Iterable[tuple[str, bytes]], *, mtime: int = 0) -> bytes:
    """A pax tar of regular files (a name that ends in `/` is a directory), in the order given."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.mtime = mtime
            if name.endswith("/"):
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(info)
            else:
                info.size, info.mode = len(data), 0o644
                tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def build_layer(members: Iterable[tuple[str, bytes]], *, level: int = 6, mtime: int = 0) -> bytes:
    """A tar.gz of the members in the order given; deterministic."""
    return gzip.compress(build_tar(members, mtime=mtime), compresslevel=level, mtime=0)


def build_metadata(version: int, updated_at: datetime | str, next_update: datetime | str) -> bytes:
    """`metadata.json` as the builders write it: one object and a newline, keys in their order."""
    built, upcoming = (value if isinstance(value, str) else format_time(value) for value in (updated_at, next_update))
    document = {"Version": version, "NextUpdate": upcoming, "UpdatedAt": built, "DownloadedAt": ZERO_TIME}
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"


def build_trivy_db(
    updated_at: datetime,
    *,
    next_update: datetime | None = None,
    version: int = 2,
    advisories: Sequence[tuple[str, str, str, str, str, str]] = ADVISORIES,
    padding: int = 0,
    seed: object = "",
    metadata: bytes | None = None,
    metadata_first: bool = False,
) -> bytes:
    """The layer of a `trivy-db`: a tar.gz with `trivy.db` and, last as upstream packs it, `metadata.json`."""
    next_update = next_update or updated_at + NEXT_UPDATE["trivy-db"]
    metadata = build_metadata(version, updated_at, next_update) if metadata is None else metadata
    return _database_layer("trivy.db", trivy_db_file(advisories, padding, seed), metadata, metadata_first, padding)


def build_java_db(
    updated_at: datetime,
    *,
    next_update: datetime | None = None,
    version: int = 1,
    artifacts: Sequence[tuple[str, str, str, str]] = ARTIFACTS,
    padding: int = 0,
    seed: object = "",
    metadata: bytes | None = None,
    metadata_first: bool = False,
) -> bytes:
    """The layer of a `trivy-java-db`: a tar.gz with `trivy-java.db` and, last, `metadata.json`."""
    next_update = next_update or updated_at + NEXT_UPDATE["trivy-java-db"]
    metadata = build_metadata(version, updated_at, next_update) if metadata is None else metadata
    return _database_layer("trivy-java.db", java_db_file(artifacts, padding, seed), metadata, metadata_first, padding)


def _database_layer(name: str, database: bytes, metadata: bytes, metadata_first: bool, padding: int) -> bytes:
    members = [(name, database), ("metadata.json", metadata)]
    if metadata_first:
        members.reverse()
    # Level 1 where the bytes do not compress anyway: a demo build should not cost a core for seconds.
    return build_layer(members, level=1 if padding else 6)


def trivy_db_file(
    advisories: Sequence[tuple[str, str, str, str, str, str]] = ADVISORIES, padding: int = 0, seed: object = ""
) -> bytes:
    """`trivy.db`: bbolt, schema 2 (buckets as aquasecurity/trivy-db pkg/db writes them)."""
    packages: dict[bytes, dict[bytes, bytes]] = {}
    vulnerabilities: dict[bytes, bytes] = {}
    for package, vulnerability, severity, title, vulnerable, patched in advisories:
        advisory = {"PatchedVersions": [patched], "VulnerableVersions": [vulnerable]}
        packages.setdefault(package.encode(), {})[vulnerability.encode()] = _json(advisory)
        vulnerabilities[vulnerability.encode()] = _json(
            {
                "Title": title,
                "Description": title,
                "Severity": severity,
                "VendorSeverity": {"ghsa": SEVERITIES.index(severity)},
            }
        )
    tree: dict[bytes, bytes | Tree] = {
        b"data-source": {MAVEN.encode(): _json(MAVEN_SOURCE)},
        MAVEN.encode(): packages,
        b"vulnerability": vulnerabilities,
    }
    if padding:
        chunk = 64 * 1024
        tree[b"zz-demo-padding"] = {
            b"%08d" % at: noise(min(chunk, padding - at), (seed, at)) for at in range(0, padding, chunk)
        }
    return write_bolt(tree)


def java_db_file(
    artifacts: Sequence[tuple[str, str, str, str]] = ARTIFACTS, padding: int = 0, seed: object = ""
) -> bytes:
    """`trivy-java.db`: SQLite, schema 1 (tables as aquasecurity/trivy-java-db pkg/db creates them)."""
    database = sqlite3.connect(":memory:")
    try:
        database.executescript(
            """
            CREATE TABLE artifacts(id INTEGER PRIMARY KEY, group_id TEXT, artifact_id TEXT);
            CREATE TABLE indices(artifact_id INTEGER, version TEXT, sha1 BLOB, archive_type TEXT,
                foreign key (artifact_id) references artifacts(id));
            CREATE UNIQUE INDEX artifacts_idx ON artifacts(artifact_id, group_id);
            CREATE INDEX indices_artifact_idx ON indices(artifact_id);
            CREATE UNIQUE INDEX indices_sha1_idx ON indices(sha1);
            """
        )
        for group, artifact, version, sha1 in artifacts:
            database.execute("INSERT OR IGNORE INTO artifacts(group_id, artifact_id) VALUES (?, ?)", (group, artifact))
            database.execute(
                "INSERT INTO indices SELECT id, ?, ?, 'jar' FROM artifacts WHERE group_id = ? AND artifact_id = ?",
                (version, bytes.fromhex(sha1), group, artifact),
            )
        if padding:
            database.execute("CREATE TABLE demo_padding(data BLOB)")
            chunk = 256 * 1024
            for at in range(0, padding, chunk):
                database.execute("INSERT INTO demo_padding VALUES (?)", (noise(min(chunk, padding - at), (seed, at)),))
        database.commit()
        return database.serialize()
    finally:
        database.close()


def build_checks(*, revision: str = "", checks: Mapping[str, str] = CHECKS) -> bytes:
    """The layer of a `trivy-checks` bundle; `revision` only makes one build differ from the next."""
    members = [(name, text.encode()) for name, text in checks.items()]
    compliance = {"spec": {"id": "demo-1.0", "title": "Demo", "description": revision or "none", "version": "1.0"}}
    members.append(("specs/compliance/demo-1.0.yaml", _json(compliance)))
    members.append(("commands/config/demo.yaml", b"- name: demo\n"))
    return build_layer(members)


def build_vex_archive(
    updated_at: datetime,
    *,
    base_url: str = "https://vex.example",
    top: str = "vexhub-main",
    packages: Sequence[str] = ("pkg:golang/github.com/aquasecurity/trivy", "pkg:npm/left-pad"),
    pointers: Sequence[str] = (),
    manifest: bytes | None = None,
    index: bytes | None = None,
) -> bytes:
    """A VEX Hub archive (tar.gz as a Git host serves it, everything under `top`).

    `pointers` are packages whose document is a git+LFS pointer; `manifest` and `index` replace the files themselves.
    """
    entries, documents = [], []
    for package in (*packages, *pointers):
        location = "pkg/" + package.removeprefix("pkg:") + "/demo.openvex.json"
        entries.append({"id": package, "location": location})
        documents.append((location, LFS_POINTER if package in pointers else _openvex(package, updated_at)))
    index_json = {"updated_at": format_time(updated_at), "packages": entries}
    members: list[tuple[str, bytes]] = [
        (f"{top}/", b""),
        (f"{top}/index.json", _json(index_json, indent=3) if index is None else index),
        *((f"{top}/{location}", document) for location, document in documents),
        (f"{top}/vex-repository.json", build_vex_manifest(base_url, top=top) if manifest is None else manifest),
    ]
    return build_layer(members, mtime=int(updated_at.timestamp()))


LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 4096\n"


def build_vex_manifest(base_url: str, *, top: str = "vexhub-main", archive: str = "vexhub.tar.gz") -> bytes:
    """`vex-repository.json` of a repository whose archive is `base_url/archive`."""
    version = {
        "spec_version": "0.1",
        "locations": [{"url": f"{base_url}/{archive}//{top}"}],
        "update_interval": "24h",
        "repository_specific": {"demo": True},
    }
    return _json({"name": "Demo VEX Hub", "description": "A small VEX repository", "versions": [version]}, indent=2)


def _openvex(package: str, moment: datetime) -> bytes:
    statement = {
        "vulnerability": {"name": "CVE-2024-0001"},
        "products": [{"@id": package, "identifiers": {"purl": package}}],
        "status": "not_affected",
        "justification": "vulnerable_code_not_in_execute_path",
    }
    document = {
        "@context": "https://openvex.dev/ns/v0.2.0",
        "@id": f"demo:{package}",
        "author": "Demo",
        "timestamp": format_time(moment),
        "version": 1,
        "statements": [statement],
    }
    return _json(document, indent=2)


def build_manifest(
    kind: str, layer: bytes, created: datetime, *, annotations: Mapping[str, str] | None = None
) -> bytes:
    """The manifest `oras push --artifact-type` makes of one layer: empty config inlined, title, creation second."""
    return manifest_around(kind, digest_of(layer), len(layer), created, annotations=annotations)


def manifest_around(
    kind: str, layer_digest: str, size: int, created: datetime, *, annotations: Mapping[str, str] | None = None
) -> bytes:
    """As `build_manifest`, for a layer known by digest and size."""
    entry = KINDS[kind]
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": ARTIFACT_TYPES[kind],
        "config": {"mediaType": EMPTY_TYPE, "digest": digest_of(EMPTY_CONFIG), "size": 2, "data": "e30="},
        "layers": [
            {
                "mediaType": entry.layer_media_type,
                "digest": layer_digest,
                "size": size,
                "annotations": {"org.opencontainers.image.title": entry.title},
            }
        ],
        "annotations": {
            "org.opencontainers.image.created": created.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            **(annotations or {}),
        },
    }
    return _json(document)


def _json(document: Any, indent: int | None = None) -> bytes:
    separators = (",", ":") if indent is None else None
    return json.dumps(document, indent=indent, separators=separators).encode()
