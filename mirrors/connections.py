"""How this instance reaches a source: built from its row, and tried out without touching what is held.

A test fetches the manifest and one byte of a layer through its redirect, because the classic fault is a registry that
answers while the host it sends blobs from is blocked.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar
from urllib.parse import quote, urlsplit

from django.conf import settings

from mirrors import content, logins, pack_vex, wording
from mirrors.digests import DigestError, short
from mirrors.git import GitAddress, GitError, Remote
from mirrors.git.addresses import SOURCE_PREFIX
from mirrors.job import Refused
from mirrors.models import Mirror, Source
from mirrors.registry.client import RegistryClient
from mirrors.registry.errors import Hop, RegistryError
from mirrors.registry.http import probe_url, read_pointer, read_url
from mirrors.registry.manifests import Manifest, ManifestError
from mirrors.registry.references import Reference, ReferenceError
from mirrors.registry.transport import Connection, Listener, Timeouts
from mirrors.secrets import SecretError
from mirrors.stopping import Stopped, StopSignal
from mirrors.trivy import release
from mirrors.trivy.release import ReleaseError, ReleaseSource
from mirrors.trivy.rules import RuleError, check_manifest
from mirrors.trivy.vex import MANIFEST_LIMIT, VexError, parse_repository, parse_source

Place = TypeVar("Place")
Found = TypeVar("Found")

# A person waits for the answer.
TEST_TIMEOUTS = Timeouts(connect=5, read=8, attempts=2, source_seconds=25, longest_retry_after=2)
AT_ONCE = 4
MOST_ARCHIVES = 5

# Hosts that a source sends its bytes from, or asks for a login at, as their operators document them: Trivy's
# docs/guide/advanced/air-gap.md, Docker's allow-list page (docker/docs), and what was seen.
DOCUMENTED_HOSTS: dict[str, tuple[str, ...]] = {
    "ghcr.io": ("pkg-containers.githubusercontent.com",),
    "mirror.gcr.io": ("googlecode.l.googleusercontent.com",),
    "registry-1.docker.io": (
        "auth.docker.io",
        "production.cloudflare.docker.com",
        "production.cloudfront.docker.com",
        "docker-images-prod.6aa30f8b08e16409b46e0173d6de2f56.r2.cloudflarestorage.com",
    ),
    "github.com": ("codeload.github.com",),
}
# Where GitHub sends release files from, which are no archives of its code: today's host, and the one before 2025.
RELEASE_HOSTS: dict[str, tuple[str, ...]] = {
    "github.com": ("release-assets.githubusercontent.com", "objects.githubusercontent.com"),
}
_UNREACHED = frozenset({"dns", "refused", "timeout", "stalled", "proxy", "tls", "ca"})
_FAULTS = (
    RegistryError, ManifestError, RuleError, ReferenceError, DigestError, VexError, GitError, ReleaseError, Refused,
    SecretError, Stopped,
)  # fmt: skip


class OutboundRefused(Exception):
    """This instance asks nobody outside."""

    def __init__(self) -> None:
        super().__init__(
            "This is an isolated instance: it makes no request to the outside, so there is nothing to test."
        )


@dataclass(frozen=True)
class SourceReport:
    """How asking one source went. `hops` are the hosts that answered, in the order met, each once.

    `failed_host` is the one that did not, `advice` what to ask for; both empty when `ok`. `offers` is what was found.
    `transport` is that of the mirror's kind.
    """

    mirror: str
    reference: str
    ok: bool
    hops: tuple[Hop, ...] = ()
    offers: str = ""
    error: str = ""
    failed_host: str = ""
    advice: str = ""
    seconds: float = 0.0
    transport: str = "oci"


@dataclass(frozen=True)
class Gate:
    """One line of the firewall allow-list: `host` with its port, and what is known of it."""

    host: str
    remark: str = ""


# Building


def connection_for(source: Source, mirror: Mirror) -> Connection:
    """The source's connection settings with its login readable. Raises SecretError when the key is missing."""
    plain = Connection(insecure=source.insecure, ca_pem=source.ca_pem, proxy=mirror.proxy)
    return logins.onto(plain, source, source.host, content.vault())


def for_url(connection: Connection, reference: str, url: str) -> Connection:
    """A VEX source's connection as it holds for `url`, which its manifest may name on any host.

    The proxy holds for all, CA and leniency for the source's own host, the login for that host's very port and scheme.
    """
    own, asked = urlsplit(reference.removeprefix(SOURCE_PREFIX)), urlsplit(url)
    if asked.hostname != own.hostname:
        return Connection(proxy=connection.proxy)
    if (asked.scheme, asked.netloc) != (own.scheme, own.netloc):
        return connection.without_login()
    return connection


def first_found(places: Iterable[Place], fetch: Callable[[Place], Found], reference: str) -> Found:
    """What `fetch` makes of the first of a VEX source's places that exists. RegistryError where none does."""
    refusal: RegistryError | None = None
    for place in places:
        try:
            return fetch(place)
        except RegistryError as error:
            if error.code != "not-found":
                raise
            refusal = refusal or error
    raise refusal or VexError("source", f"{reference} names no archive.")


@contextmanager
def naming_version(version: str, *, is_latest: bool) -> Iterator[None]:
    """While a version's checksum file is asked for: a 404 then says first of all that the version is not there."""
    try:
        yield
    except RegistryError as error:
        if error.code == "not-found":
            error.advice = (
                f"It calls {version} its latest version, but has no checksum file of it. Try again later, or check the "
                "address of this source."
                if is_latest
                else f"This source has no version {version}. Check the version that this mirror pins, then the address "
                "of this source."
            )
        raise


def latest_version(
    place: ReleaseSource,
    connection: Connection,
    *,
    stop: StopSignal,
    listener: Listener | None = None,
    timeouts: Timeouts | None = None,
) -> tuple[str, tuple[Hop, ...]]:
    """What a source of release files calls its latest version, by a redirect to it or in the body, and who was asked.

    Raises ReleaseError where the answer names none, RegistryError.
    """
    pointer = read_pointer(
        place.latest_url,
        connection,
        lambda target: release.version_in_address(target) is not None,
        stop=stop,
        listener=listener,
        timeouts=timeouts,
        limit=release.ANSWER_LIMIT,
    )
    found = release.version_in_address(pointer.target) or release.version_in_answer(pointer.body)
    if found is None:
        raise ReleaseError(
            "version",
            f"{place.latest_url} does not say which version is the latest: it should redirect to an address with the "
            "version in it, or answer with the version as text or JSON. Pin a version, or name another address with "
            "#latest=https://… behind the source.",
        )
    return found, pointer.hops


def reference_of(source: Source, mirror: Mirror) -> Reference:
    """The OCI reference of a source; without a tag it has the kind's own."""
    return Reference.parse(source.reference, default_tag=mirror.asset.default_tag or None)


def client_for(
    source: Source,
    mirror: Mirror,
    *,
    stop: StopSignal,
    listener: Listener | None = None,
    timeouts: Timeouts | None = None,
) -> RegistryClient:
    """A client for an OCI source that starts with what was remembered of the registry (`source.memory`)."""
    return RegistryClient(
        reference_of(source, mirror).registry,
        connection_for(source, mirror),
        stop=stop,
        listener=listener,
        timeouts=timeouts or Timeouts(),
        memory=dict(source.memory),
    )


# Trying out


def try_mirror(
    mirror: Mirror, *, stop: StopSignal | None = None, timeouts: Timeouts = TEST_TIMEOUTS
) -> list[SourceReport]:
    """Ask every source of a mirror, a few at once; their reports in the order of the sources.

    Writes no row and no blob. Raises OutboundRefused on the isolated side.
    """
    if settings.AIRGAP_SIDE == "isolated":
        raise OutboundRefused
    stop = stop or StopSignal()
    trials = [_Trial(mirror, source, stop, timeouts) for source in mirror.sources.order_by("position")]
    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        return list(pool.map(_Trial.report, trials))


class _Trial:
    """One source being asked. Reads its row and password before a thread takes over."""

    def __init__(self, mirror: Mirror, source: Source, stop: StopSignal, timeouts: Timeouts) -> None:
        self.mirror_name, self.kind = mirror.name, mirror.asset
        self.platforms, self.version = [str(name) for name in mirror.platforms], mirror.version
        self.reference = source.reference
        self.stop, self.timeouts = stop, timeouts
        self.hops: list[Hop] = []
        self.connection: Connection | None = None
        self.trouble: SecretError | None = None
        try:
            self.connection = connection_for(source, mirror)
        except SecretError as error:
            self.trouble = error

    def report(self) -> SourceReport:
        began = time.monotonic()
        try:
            offers = self._ask()
        except _FAULTS as error:
            return self._failed(error, time.monotonic() - began)
        return SourceReport(
            self.mirror_name,
            self.reference,
            True,
            _each_once(self.hops),
            offers=offers,
            seconds=time.monotonic() - began,
            transport=self.kind.transport,
        )

    def _failed(self, error: Exception, seconds: float) -> SourceReport:
        host = advice = ""
        if isinstance(error, RegistryError):
            self.hops += error.hops
            host, advice = error.host, _advice(error, self.hops, self.kind.transport)
        return SourceReport(
            self.mirror_name,
            self.reference,
            False,
            _each_once(self.hops),
            error=str(error),
            failed_host=host,
            advice=advice,
            seconds=seconds,
            transport=self.kind.transport,
        )

    def _ask(self) -> str:
        if self.connection is None:
            raise self.trouble or SecretError("The stored password cannot be read.")
        if self.kind.transport == "vex":
            return self._ask_vex(self.connection)
        if self.kind.transport == "release":
            return self._ask_release(self.connection)
        return self._ask_registry(self.connection)

    # OCI

    def _ask_registry(self, connection: Connection) -> str:
        reference = Reference.parse(self.reference, default_tag=self.kind.default_tag or None)
        client = RegistryClient(reference.registry, connection, stop=self.stop, timeouts=self.timeouts)
        try:
            manifest = self._manifest(client, reference)
            found = f"manifest {short(manifest.digest)}"
            if self.kind.one_layer:
                check_manifest(self.kind, manifest)
            if manifest.is_index:
                found = f"index {short(manifest.digest)} of {wording.counted(len(manifest.manifests), 'manifest')}"
                manifest = self._manifest(client, self._child(reference, manifest))
            blob = next(iter(manifest.layers), None) or manifest.config
            if blob is None:
                return found
            self.hops += client.probe_layer(reference.repository, blob)
            return f"{found}, layer of {wording.size_text(blob.size)}"
        finally:
            client.session.close()

    def _manifest(self, client: RegistryClient, reference: Reference) -> Manifest:
        manifest = client.fetch_manifest(reference)
        # Hosts met on the way to a manifest, its login server above all, stand in the client's exchange only.
        self.hops += client.hops
        return manifest

    def _child(self, reference: Reference, index: Manifest) -> Reference:
        """One manifest of an index: of a chosen platform if there is one, else the first."""
        for child in index.manifests:
            if child.platform_name in self.platforms:
                return reference.at(child.digest)
        if not index.manifests:
            raise ManifestError("malformed", "The index names no manifest.")
        return reference.at(index.manifests[0].digest)

    # VEX

    def _ask_vex(self, connection: Connection) -> str:
        place = parse_source(self.reference)
        if place.git is not None:
            return self._ask_git(place.git, connection)
        if place.form == "directory":
            count = pack_vex.look_at(place.url, place.subdir)
            return f"directory of a VEX repository, {wording.counted(count, 'package')}"
        if place.form != "base":
            return self._ask_archive([location.fetch_url for location in place.candidates], connection)
        raw, answer = read_url(
            place.manifest_url,
            self._for_url(connection, place.manifest_url),
            stop=self.stop,
            timeouts=self.timeouts,
            limit=MANIFEST_LIMIT,
        )
        self.hops += answer.hops
        repository = parse_repository(raw)
        found = [each for version in repository.versions for each in version.locations if each.supported]
        urls = [location.fetch_url for location in found if location.git is None]
        addresses = [location.git for location in found if location.git is not None]
        if not found:
            raise VexError("manifest", "The repository's manifest names no archive that can be mirrored.")
        for url in list(dict.fromkeys(urls))[:MOST_ARCHIVES]:
            self.hops += self._probe(url, connection)
        for address in list(dict.fromkeys(addresses))[:MOST_ARCHIVES]:
            self._ask_git(address, connection)
        archives = wording.counted(len({*urls, *addresses}), "archive")
        return f"manifest of {repository.name or 'a VEX repository'}, {archives}"

    def _ask_git(self, address: GitAddress, connection: Connection) -> str:
        """Where its branch stands; the commit is fetched at a sync."""
        remote = Remote(address, self._for_url(connection, address.url), stop=self.stop, timeouts=self.timeouts)
        try:
            head = remote.head()
            self.hops += remote.hops
        finally:
            remote.close()
        return f"git repository, {head.ref} at {head.commit[:12]}"

    # Release files

    def _ask_release(self, connection: Connection) -> str:
        place, wanted = release.parse_source(self.reference), release.parse_wanted(self.version)
        version = wanted.version
        if wanted.is_latest:
            own = self._for_url(connection, place.latest_url)
            version, hops = latest_version(place, own, stop=self.stop, timeouts=self.timeouts)
            self.hops += hops
        if reason := self.kind.refused_versions.get(version):
            raise ReleaseError("version", f"Version {version} is not mirrored: {reason}.")
        name = place.checksums_name(version)
        url = place.address(version, name)
        with naming_version(version, is_latest=wanted.is_latest):
            raw, answer = read_url(
                url,
                self._for_url(connection, url),
                stop=self.stop,
                timeouts=self.timeouts,
                limit=release.CHECKSUMS_LIMIT,
            )
        self.hops += answer.hops
        names = [place.file_name(version, platform) for platform in self.platforms]
        chosen = list(release.chosen(release.parse_checksums(raw, name), names, name))
        for file in chosen[:1]:
            self.hops += self._probe(place.address(version, quote(file)), connection)
        return f"version {version}, {wording.counted(len(chosen), 'file')} with checksums"

    def _ask_archive(self, urls: Sequence[str], connection: Connection) -> str:
        """The first candidate that exists; the manifest lies inside and is read at a sync."""

        def probe(url: str) -> str:
            self.hops += self._probe(url, connection)
            return f"archive {urlsplit(url).path.rpartition('/')[2]}"

        return first_found(urls, probe, self.reference)

    def _probe(self, url: str, connection: Connection) -> list[Hop]:
        return probe_url(url, self._for_url(connection, url), stop=self.stop, timeouts=self.timeouts)

    def _for_url(self, connection: Connection, url: str) -> Connection:
        return for_url(connection, self.reference, url)


# Advice and the allow-list


def _each_once(hops: Iterable[Hop]) -> tuple[Hop, ...]:
    """Each host once, where it was first met, with what it answered last."""
    met: dict[tuple[str, str], Hop] = {}
    for hop in hops:
        first = met.setdefault((hop.scheme, hop.host), hop)
        met[(hop.scheme, hop.host)] = replace(first, status=hop.status)
    return tuple(met.values())


def documented_hosts(host: str, transport: str) -> tuple[str, ...]:
    """From where `host` is known to send what this transport fetches."""
    return (RELEASE_HOSTS if transport == "release" else DOCUMENTED_HOSTS).get(host, ())


def _advice(error: RegistryError, hops: Sequence[Hop], transport: str = "oci") -> str:
    """What to ask the firewall's people for, where a host did not answer at all."""
    if error.code not in _UNREACHED:
        return ""
    answered = [hop.host for hop in hops if hop.host != error.host]
    if answered:
        return (
            f"{answered[0]} answers, but sends us on to {error.host}, which does not: "
            f"ask for {with_port(error.host)} in the firewall, too."
        )
    others = documented_hosts(error.host, transport)
    if others:
        return f"It also sends its data from {wording.joined(others)}: ask for {_all_of(others)} at the same time."
    return ""


def _all_of(hosts: Sequence[str]) -> str:
    return "that host" if len(hosts) == 1 else "those hosts"


def with_port(host: str, scheme: str = "https") -> str:
    """`ghcr.io:443`; a port that is written already stays."""
    has_port = host.rpartition("]")[2].rpartition(":")[1] == ":"
    return host if has_port else f"{host}:{80 if scheme == 'http' else 443}"


def allow_list(reports: Iterable[SourceReport]) -> list[Gate]:
    """What a firewall must let through for these sources: hosts met, hosts that did not answer, and documented ones."""
    gates: dict[str, str] = {}
    others: dict[str, str] = {}
    for report in reports:
        hosts = [with_port(hop.host, hop.scheme) for hop in report.hops]
        for home in dict.fromkeys([*hosts, with_port(report.failed_host)] if report.failed_host else hosts):
            for host in documented_hosts(home.removesuffix(":443"), report.transport):
                others.setdefault(with_port(host), f"documented for {home.removesuffix(':443')}, not met now")
        for hop in report.hops:
            gates[with_port(hop.host, hop.scheme)] = f"through the proxy {hop.proxy}" if hop.proxy else ""
        if report.failed_host and not any(hop.host == report.failed_host for hop in report.hops):
            gates.setdefault(with_port(report.failed_host), "did not answer")
    for host, remark in others.items():
        gates.setdefault(host, remark)
    return [Gate(host, remark) for host, remark in sorted(gates.items())]
