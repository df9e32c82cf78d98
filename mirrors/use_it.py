"""This instance as scanners see it: the description snippets are written for, and what a firewall must let through.

Only what is mirrored here is described. The address is AIRGAP_BASE_URL, else the one the page was opened by.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from django.conf import settings

from mirrors import authority, connections, serving, serving_files
from mirrors.git.addresses import is_git_source
from mirrors.models import Destination, Mirror, PushRule, Serving, Snapshot, SnapshotBlob, Source
from mirrors.registry.references import Reference, ReferenceError, api_host, host_of
from mirrors.snippets import Artifact, Instance, ReleaseFile, VexRepository
from mirrors.trivy.release import LATEST
from mirrors.trivy.vex import SPEC_VERSION

TRIVY_KINDS = ("trivy-db", "trivy-java-db", "trivy-checks")
CA_PATH = "/use-it/ca.pem"
# Addresses to listen on, which nobody can ask.
_NOWHERE = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104
_DATED = re.compile(r"-\d{8}T\d{4}Z$")
_HTTP = re.compile(r"(?:git\+)?http://", re.IGNORECASE)
_PLAIN_FOLDER = re.compile(r"[A-Za-z0-9._/-]+")


def bare_instance(scheme: str, host: str) -> Instance:
    """Where this instance answers whom it was asked by at this scheme and host[:port], and on what terms."""
    scheme, host = address(scheme, host)
    return Instance(
        scheme,
        host,
        ca_path=CA_PATH if scheme == "https" and authority.certificates() else "",
        login_required=Serving.now().login_required,
    )


def instance_for(scheme: str, host: str) -> Instance:
    """The instance, as somebody sees it who opened a page of it at this scheme and host[:port]."""
    mirrors = list(Mirror.objects.filter(kind__in=(*TRIVY_KINDS, "vex")).select_related("current"))
    sizes = _sizes([mirror.current for mirror in mirrors if mirror.current])
    return replace(
        bare_instance(scheme, host),
        artifacts=tuple(_artifacts([mirror for mirror in mirrors if mirror.kind != "vex"], sizes)),
        vex=tuple(_vex([mirror for mirror in mirrors if mirror.kind == "vex"])),
        releases=tuple(_releases()),
        courier_days=settings.AIRGAP_COURIER_DAYS if settings.AIRGAP_SIDE == "isolated" else None,
    )


def destinations() -> list[Destination]:
    """The registries that something of Trivy's was pushed to."""
    pushed = PushRule.objects.filter(mirror__kind__in=TRIVY_KINDS).exclude(pushed_reference="")
    return list(Destination.objects.filter(rules__in=pushed).distinct().order_by("label", "name"))


def at_destination(destination: Destination, here: Instance) -> Instance:
    """What scanners find in a registry that we push to. VEX still comes from here."""
    rules = PushRule.objects.filter(destination=destination, mirror__kind__in=TRIVY_KINDS).exclude(pushed_reference="")
    rules = rules.select_related("mirror", "pushed_snapshot").order_by("mirror__position", "mirror__name")
    held = list(rules)
    sizes = _sizes([rule.pushed_snapshot for rule in held if rule.pushed_snapshot])
    return replace(
        here,
        scheme="http" if destination.memory.get("scheme") == "http" else "https",
        host=destination.registry,
        artifacts=tuple(_pushed(held, sizes)),
        releases=(),
        ca_path="",
        login_required=False,
        elsewhere=destination.label,
        vex_base=here.base_url,
        vex_login_required=here.login_required,
    )


def _pushed(rules: Iterable[PushRule], sizes: dict[int, int]) -> Iterable[Artifact]:
    for rule in rules:
        try:
            found = Reference.parse(rule.pushed_reference)
        except ReferenceError:
            continue
        if found.tag:
            size = sizes.get(rule.pushed_snapshot_id) if rule.pushed_snapshot_id else None
            yield Artifact(rule.mirror.kind, rule.mirror.label, found.repository, found.tag, size=size)


def address(scheme: str, host: str) -> tuple[str, str]:
    """Scheme and host[:port] for scanners: AIRGAP_BASE_URL's where it is set; never one that cannot be asked."""
    base = urlsplit(settings.AIRGAP_BASE_URL)
    if base.hostname:
        scheme, host = base.scheme, base.netloc.rpartition("@")[2]
    name, colon, port = host.rpartition(":")
    if not colon or not port.isdigit() or name.endswith(":"):
        name, port = host, ""
    name = _NOWHERE.get(name, name)
    return scheme, f"{name}:{port}" if port else name


def _artifacts(mirrors: list[Mirror], sizes: dict[int, int]) -> Iterable[Artifact]:
    """The first of a kind comes first, which is the one that snippets name; only its dated tags are looked up."""
    dated_for: set[str] = set()
    for mirror in mirrors:
        names = serving.names_of(mirror)
        if not names:
            continue
        dated: tuple[str, ...] = ()
        if mirror.kind == "trivy-db" and mirror.kind not in dated_for:
            dated_for.add(mirror.kind)
            dated = tuple(tag for tag in serving.tags_of(mirror) if _DATED.search(tag))
        yield Artifact(
            mirror.kind,
            mirror.label,
            names[0],
            mirror.served_tag,
            names[1:],
            dated,
            sizes.get(mirror.current_id) if mirror.current_id else None,
        )


def _vex(mirrors: list[Mirror]) -> Iterable[VexRepository]:
    current = [mirror.current_id for mirror in mirrors if mirror.current_id]
    archives: dict[int, SnapshotBlob] = {}
    rows = SnapshotBlob.objects.filter(snapshot_id__in=current, role=SnapshotBlob.Role.VEX_ARCHIVE)
    for row in rows.order_by("snapshot_id", "-position"):
        if row.details.get("spec_version") == SPEC_VERSION:
            archives[row.snapshot_id] = row
    for mirror in mirrors:
        blob = archives.get(mirror.current_id) if mirror.current_id else None
        if blob is None:
            yield VexRepository(mirror.name, mirror.label)
            continue
        served, _, inner = str(blob.details.get("served", "")).partition("//")
        folder = inner or str(blob.details.get("subdir") or "")
        plain = not folder or _PLAIN_FOLDER.fullmatch(folder)
        yield VexRepository(mirror.name, mirror.label, served if plain else "", folder, blob.size_bytes)


def _releases() -> Iterable[ReleaseFile]:
    """The first archive that tar unpacks of each mirrored release; what was refused is in none."""
    for mirror in serving_files.mirrors_with_files()[:1]:
        release = serving_files.release_named(mirror, LATEST)
        if release is None:
            continue
        archive = next((blob.name for blob in release.programs if blob.name.endswith(".tar.gz")), "")
        if archive and release.checksums:
            yield ReleaseFile(mirror.label, f"/files/{mirror.name}/{release.version}/", archive, release.checksums)


def _sizes(snapshots: list[Snapshot]) -> dict[int, int]:
    """What a pull of each transfers: its layers."""
    sizes: dict[int, int] = {}
    rows = SnapshotBlob.objects.filter(snapshot__in=snapshots, role=SnapshotBlob.Role.LAYER)
    for snapshot_id, size in rows.values_list("snapshot_id", "size_bytes"):
        sizes[snapshot_id] = sizes.get(snapshot_id, 0) + size
    return sizes


# The firewall


@dataclass(frozen=True)
class Gate:
    """One line of the allow-list: `host:port`, for which mirrors (labels), and whether it is only documented."""

    host: str
    mirrors: tuple[str, ...]
    remark: str = ""


def own_registries() -> list[Gate]:
    """Registries that we push to: they are asked from either side, and may lie behind a firewall, too."""
    wanted: dict[str, list[str]] = {}
    for destination in Destination.objects.filter(enabled=True).order_by("label", "name"):
        scheme = "http" if destination.memory.get("scheme") == "http" else "https"
        wanted.setdefault(connections.with_port(destination.registry, scheme), []).append(destination.label)
    return [Gate(host, tuple(labels)) for host, labels in sorted(wanted.items())]


def gates() -> list[Gate]:
    """Every host that the sources of enabled mirrors need, with those their operators document beside them."""
    wanted: dict[str, dict[str, None]] = {}
    remarks: dict[str, str] = {}
    for source in Source.objects.filter(mirror__enabled=True).select_related("mirror"):
        reference, label = source.reference, source.mirror.label
        host = api_host(host_of(reference))
        if reference.lower().startswith(("/", "file:")):
            # A directory of this machine.
            continue
        gate = connections.with_port(host, "http" if _HTTP.match(reference) else "https")
        wanted.setdefault(gate, {})[label] = None
        if is_git_source(reference):
            continue
        for other in connections.documented_hosts(host, source.mirror.asset.transport):
            beside = connections.with_port(other)
            wanted.setdefault(beside, {})[label] = None
            remarks[beside] = f"where {host} sends its data from, or asks for a login at"
    return [Gate(host, tuple(labels), remarks.get(host, "")) for host, labels in sorted(wanted.items())]
