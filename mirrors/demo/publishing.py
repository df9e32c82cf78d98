"""What the demo upstream publishes: builds in real formats, kept in a folder, the last five of each still there.

Nothing of HTTP here. The time is an argument, and a folder that already holds builds is continued.
"""

import hashlib
import json
import os
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mirrors.demo import assets, releases
from mirrors.digests import digest_of
from mirrors.trivy.catalogue import KINDS

KEEP = 5
FIRST_BUILD_AGE = timedelta(minutes=10)
VEX_ARCHIVE_PATH = "/vexhub/archive/refs/heads/main.tar.gz"
ORGANISATIONS = ("aquasec", "aquasecurity")
RELEASE_PLATFORMS = ("Linux-64bit", "Linux-ARM64", "macOS-ARM64", "windows-64bit", "Linux-64bit.deb")


@dataclass(frozen=True)
class Build:
    """One published build: what is offered (manifest, archive or checksum file), the blobs that belong to it, its date.

    Of a release `version`; its blobs are in the order of `releases.release_names`.
    """

    offered: str
    blobs: tuple[str, ...]
    updated_at: str
    version: str = ""


@dataclass
class Line:
    """One thing that is published again and again. `every` counts ticks; `tags` name it in `repository`."""

    name: str
    kind: str
    repository: str
    tags: tuple[str, ...]
    every: int
    number: int = 0
    builds: list[Build] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """How much and how often: sizes in bytes, rhythm in ticks."""

    database_bytes: int = 6_000_000
    java_bytes: int = 24_000_000
    java_every: int = 3
    other_every: int = 10
    release_bytes: int = 1_000_000


class Publisher:
    """Publishes into `directory` and answers what is there now. Safe to read from many threads."""

    def __init__(self, directory: Path, plan: Plan = Plan()) -> None:
        self.directory = directory
        self.plan = plan
        self.base_url = "http://127.0.0.1"
        self.lines = [
            Line("trivy-db", "trivy-db", "trivy-db", ("2", "latest"), 1),
            Line("trivy-java-db", "trivy-java-db", "trivy-java-db", ("1",), plan.java_every),
            Line("trivy-checks", "trivy-checks", "trivy-checks", ("2", "latest"), plan.other_every),
            Line("trivy-checks-1", "trivy-checks", "trivy-checks", ("1",), plan.other_every),
            Line("vexhub", "vex", "", (), plan.other_every),
            Line("trivy", "release", "", (), plan.other_every),
        ]
        self._ticks = 0
        self._lock = threading.Lock()
        (directory / "blobs").mkdir(parents=True, exist_ok=True)
        self._load()

    def tick(self, now: datetime) -> list[str]:
        """Publish what is due at this tick; the names. First builds are made ten minutes old."""
        published = []
        for line in self.lines:
            if not line.builds or self._ticks % line.every == 0:
                self._publish(line, now if line.number else now - FIRST_BUILD_AGE)
                published.append(line.name)
        self._ticks += 1
        self._save()
        self._sweep()
        return published

    def start(self, now: datetime) -> list[str]:
        """Make sure that something of everything is published; the names of what was new."""
        return self.tick(now) if any(not line.builds for line in self.lines) else []

    def manifest(self, name: str, reference: str) -> tuple[str, bytes] | None:
        """Digest and bytes of a manifest by tag or digest, or None."""
        for line in self._lines_of(name):
            builds = self._builds(line)
            if reference in line.tags and builds:
                return builds[-1].offered, self.blob_path(builds[-1].offered).read_bytes()
            if any(build.offered == reference for build in builds):
                return reference, self.blob_path(reference).read_bytes()
        return None

    def blob(self, name: str, digest: str) -> Path | None:
        """The file of a blob that belongs to a repository, or None."""
        for line in self._lines_of(name):
            if any(digest in build.blobs for build in self._builds(line)):
                return self.blob_path(digest)
        return None

    def tags(self, name: str) -> list[str]:
        return sorted(tag for line in self._lines_of(name) for tag in line.tags)

    def vex_archive(self) -> tuple[str, Path]:
        """Digest and file of the present VEX archive."""
        digest = self._builds(self._line("vexhub"))[-1].offered
        return digest, self.blob_path(digest)

    def latest_release(self) -> str:
        """The version of the newest release."""
        return self._builds(self._line("trivy"))[-1].version

    def release_file(self, version: str, name: str) -> tuple[str, Path] | None:
        """Digest and file of one file of a release, or None."""
        for build in self._builds(self._line("trivy")):
            files = dict(zip(releases.release_names(build.version, RELEASE_PLATFORMS), build.blobs, strict=True))
            if build.version == version and name in files:
                return files[name], self.blob_path(files[name])
        return None

    def vex_manifest(self) -> bytes:
        return assets.build_vex_manifest(self.base_url, archive=VEX_ARCHIVE_PATH.lstrip("/"))

    def blob_path(self, digest: str) -> Path:
        return self.directory / "blobs" / digest.removeprefix("sha256:")

    def _line(self, name: str) -> Line:
        return next(line for line in self.lines if line.name == name)

    def _lines_of(self, name: str) -> list[Line]:
        organisation, _, repository = name.partition("/")
        if organisation not in ORGANISATIONS or not repository:
            return []
        return [line for line in self.lines if line.repository == repository]

    def _builds(self, line: Line) -> list[Build]:
        with self._lock:
            return list(line.builds)

    def _publish(self, line: Line, updated_at: datetime) -> None:
        number = line.number + 1
        build = self._release(number, updated_at) if line.kind == "release" else self._build(line, number, updated_at)
        with self._lock:
            line.number = number
            line.builds = [*line.builds[-(KEEP - 1) :], build]

    def _release(self, number: int, updated_at: datetime) -> Build:
        """The next minor version. Later than any real one, so that nobody takes it for that."""
        version = f"100.{number}.0"
        files = releases.build_release(version, RELEASE_PLATFORMS, padding=self.plan.release_bytes)
        blobs = tuple(self._write(files[name]) for name in releases.release_names(version, RELEASE_PLATFORMS))
        return Build(blobs[0], blobs, assets.format_time(updated_at), version)

    def _build(self, line: Line, number: int, updated_at: datetime) -> Build:
        content = self._content(line, number, updated_at)
        if KINDS[line.kind].transport == "vex":
            offered = self._write(content)
            return Build(offered, (offered,), assets.format_time(updated_at))
        annotations = {}
        if line.name == "trivy-checks":
            revision = hashlib.sha256(str(number).encode()).hexdigest()[:40]
            annotations["org.opencontainers.image.revision"] = revision
            annotations["org.opencontainers.image.version"] = f"2.2.{number}"
        layer = self._write(content)
        manifest = assets.build_manifest(line.kind, content, updated_at, annotations=annotations)
        blobs = (layer, self._write(assets.EMPTY_CONFIG))
        return Build(self._write(manifest), blobs, assets.format_time(updated_at))

    def _content(self, line: Line, number: int, updated_at: datetime) -> bytes:
        seed = (line.name, number)
        if line.kind == "trivy-db":
            # Every build knows one advisory more, as real ones do.
            new = tuple(
                ("org.example:demo", f"DEMO-{at:05d}", "LOW", f"Demo advisory {at}", "< 1.0", "1.0")
                for at in range(1, number + 1)
            )
            return assets.build_trivy_db(
                updated_at, advisories=assets.ADVISORIES + new, padding=self.plan.database_bytes, seed=seed
            )
        if line.kind == "trivy-java-db":
            return assets.build_java_db(updated_at, padding=self.plan.java_bytes, seed=seed)
        if line.kind == "trivy-checks":
            return assets.build_checks(revision=f"{line.name} {number}")
        return assets.build_vex_archive(updated_at, manifest=self.vex_manifest())

    def _write(self, data: bytes) -> str:
        digest = digest_of(data)
        path = self.blob_path(digest)
        if not path.exists():
            temporary = path.with_name(f".{path.name}.{os.getpid()}")
            temporary.write_bytes(data)
            temporary.replace(path)
        return digest

    def _load(self) -> None:
        """Continue where the folder stands; whatever cannot be read or lost a blob begins anew."""
        try:
            state = json.loads((self.directory / "state.json").read_bytes())
            nothing = {"number": 0, "builds": []}
            ticks, kept = (
                int(state["ticks"]),
                {line.name: state["lines"].get(line.name, nothing) for line in self.lines},
            )
            builds = {
                name: [
                    Build(item["offered"], tuple(item["blobs"]), item["updated_at"], item.get("version", ""))
                    for item in entry["builds"]
                ]
                for name, entry in kept.items()
            }
            numbers = {name: int(entry["number"]) for name, entry in kept.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return
        self._ticks = ticks
        for line in self.lines:
            line.number = numbers[line.name]
            line.builds = [build for build in builds[line.name] if self._is_whole(build)]

    def _is_whole(self, build: Build) -> bool:
        return all(self.blob_path(digest).exists() for digest in (build.offered, *build.blobs))

    def _save(self) -> None:
        lines = {
            line.name: {
                "number": line.number,
                "builds": [
                    {
                        "offered": build.offered,
                        "blobs": build.blobs,
                        "updated_at": build.updated_at,
                        "version": build.version,
                    }
                    for build in line.builds
                ],
            }
            for line in self.lines
        }
        temporary = self.directory / ".state.json"
        temporary.write_text(json.dumps({"ticks": self._ticks, "lines": lines}, indent=1))
        temporary.replace(self.directory / "state.json")

    def _sweep(self) -> None:
        """Remove what no kept build names; who is just reading a removed file reads on."""
        named = {
            digest.removeprefix("sha256:")
            for line in self.lines
            for build in line.builds
            for digest in (build.offered, *build.blobs)
        }
        for path in (self.directory / "blobs").iterdir():
            if path.name not in named:
                path.unlink(missing_ok=True)


def utc_now() -> datetime:
    return datetime.now(UTC)
