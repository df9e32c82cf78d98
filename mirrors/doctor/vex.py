"""A VEX repository, asked as Trivy asks it: through go-getter, with its own login, its own ETags and no challenge.

Trivy pkg/vex/repo/repo.go, pkg/downloader/download.go; hashicorp/go-getter get_http.go, decompress.go.
"""

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from urllib.parse import urlsplit

from mirrors.doctor.asking import Answer, Asker
from mirrors.doctor.findings import Finding, Level
from mirrors.registry.errors import RegistryError, status_words
from mirrors.registry.transport import Connection, Timeouts
from mirrors.stopping import StopSignal
from mirrors.trivy.catalogue import MIB
from mirrors.trivy.vex import (
    MANIFEST_LIMIT,
    SPEC_VERSION,
    Location,
    VexError,
    VexVersion,
    parse_repository,
    parse_source,
    read_archive,
)
from mirrors.wording import counted, joined, size_text, utc_text

ARCHIVE_LIMIT = 64 * MIB
MOST_LOCATIONS = 3
ETAG_FIXED = "0.73"
FATAL = "Trivy stops the whole scan, and has deleted the copy it had."
REPOSITORY_YAML = "Put username and password, or token, into repository.yaml: go-getter follows no challenge."


@dataclass(frozen=True)
class _Way:
    """How one host is asked: verified, or after its certificate was refused without a login."""

    asker: Asker
    authorization: str


class Examination:
    """One VEX repository. `met` are the hosts that answered."""

    def __init__(self, url: str, connection: Connection, stop: StopSignal, timeouts: Timeouts, now: datetime) -> None:
        self.url, self.connection, self.now = url, connection, now
        self.stop, self.timeouts = stop, timeouts
        self.askers: list[Asker] = []

    def findings(self) -> list[Finding]:
        source = parse_source(self.url)
        if source.form == "github":
            return [_github(self.url)]
        asked = f"GET {source.manifest_url}"
        found, answer = self._ask(source.manifest_url, MANIFEST_LIMIT)
        if answer is None:
            return found
        if answer.status != 200:
            return [*found, _refused("manifest", asked, answer)]
        try:
            repository = parse_repository(answer.body)
        except VexError as error:
            cure = "Correct vex-repository.json."
            return [*found, Finding("manifest", Level.STOPS, asked, str(error), FATAL, cure)]
        version = repository.version(SPEC_VERSION)
        if version is None:
            came = f"versions {joined([one.spec_version for one in repository.versions])}"
            told = f'Trivy looks for "{SPEC_VERSION}" exactly, and applies nothing of this repository.'
            return [*found, Finding("spec-version", Level.STOPS, asked, came, told, "Offer the version 0.1.")]
        came = f"the manifest of {repository.name or 'a VEX repository'}"
        told = "Trivy keeps it for ever: trivy clean --vex-repo makes it ask again."
        found.append(Finding("manifest", Level.OK, asked, came, told))
        return [*found, *_interval(asked, version), *self._locations(asked, version)]

    # Archives

    def _locations(self, asked: str, version: VexVersion) -> list[Finding]:
        if not version.locations:
            told, cure = "Trivy finds no location and stops the whole scan.", "Name an archive."
            return [Finding("locations", Level.STOPS, asked, "no location", told, cure)]
        found: list[Finding] = []
        for location in version.locations[:MOST_LOCATIONS]:
            found += self._location(location)
        if len(version.locations) > 1:
            came = counted(len(version.locations), "location")
            told = "Trivy takes the first that works; each one that does not costs a timeout."
            found.append(Finding("locations", Level.NOTE, asked, came, told))
        return found

    def _location(self, location: Location) -> list[Finding]:
        if not location.supported or not location.fetch_url.lower().startswith(("http://", "https://")) or location.git:
            told = "Trivy knows more archives and getters than the doctor; this one was not examined."
            came = location.reason or "no archive to download"
            return [Finding("archive", Level.NOTE, location.original[:200], came, told)]
        url, asked = location.fetch_url, f"GET {location.original[:200]}"
        found, answer = self._ask(url, ARCHIVE_LIMIT)
        if answer is None:
            return found
        if answer.status != 200:
            return [*found, _refused("archive", asked, answer)]
        found += self._redirects(asked, answer)
        try:
            facts = read_archive(io.BytesIO(answer.body), location.format, location.subdir)
        except VexError as error:
            cure = "Correct the archive, or the //folder in its address."
            return [*found, Finding("archive", Level.STOPS, asked, str(error), "Trivy finds no VEX in it.", cure)]
        came = f"{size_text(len(answer.body))}, {counted(facts.packages, 'package')}"
        if facts.updated_at:
            came += f", of {utc_text(facts.updated_at)}"
        found.append(Finding("archive", Level.OK, asked, came, "Trivy would take it."))
        if facts.pointers or facts.missing:
            came = f"{counted(len(facts.pointers) + len(facts.missing), 'document')} of its index cannot be read"
            told = "Trivy warns and keeps the findings of those packages."
            found.append(Finding("documents", Level.TRIPS, asked, came, told, "Publish the documents themselves."))
        return found + self._etag(url, asked, answer)

    def _etag(self, url: str, asked: str, answer: Answer) -> list[Finding]:
        etag = answer.headers.get("ETag", "")
        if not etag:
            return [Finding("etag", Level.OK, asked, "no ETag", "Every Trivy downloads it whole, and keeps it.")]
        way = self._way(url)
        try:
            again = way.asker.get(
                url,
                "GET archive",
                headers={"If-None-Match": etag},
                authorization=way.authorization,
                limit=ARCHIVE_LIMIT,
            )
        except RegistryError:
            return []
        if again.status != 304:
            return [Finding("etag", Level.NOTE, asked, "an ETag, but it is never answered with 304")]
        return [
            Finding(
                "etag",
                Level.TRIPS,
                f"{asked} with If-None-Match",
                "304",
                f"Trivy before {ETAG_FIXED} deletes its copy on that, and applies no VEX any more, without a word.",
                "Send no ETag on the archive while older Trivys are about.",
            )
        ]

    def _redirects(self, asked: str, answer: Answer) -> list[Finding]:
        others = list(dict.fromkeys(host for host in answer.hosts[1:] if host != answer.hosts[0]))
        if not others:
            return []
        found = [Finding("redirect", Level.NOTE, asked, f"the bytes come from {joined(others)}", "Trivy follows.")]
        if self.connection.username or self.connection.token:
            told = "Trivy sends the login of repository.yaml along to every host it is redirected to."
            found.append(
                Finding(
                    "login-leaks",
                    Level.TRIPS,
                    asked,
                    f"sent on to {joined(others)}",
                    told,
                    "Send the archive from the same host.",
                )
            )
        return found

    # Asking

    def _way(self, url: str) -> _Way:
        own = urlsplit(url).netloc == urlsplit(self.url).netloc
        connection = self.connection if own else self.connection.without_login()
        asker = Asker(urlsplit(url).netloc, connection, self.stop, self.timeouts)
        self.askers.append(asker)
        return _Way(asker, _authorization(connection))

    def _ask(self, url: str, limit: int) -> tuple[list[Finding], Answer | None]:
        """HEAD, which may fail, then GET. A certificate that is not trusted is told, and then passed over."""
        asked = f"GET {url}"
        try:
            return self._head_and_get(url, limit, self._way)
        except RegistryError as error:
            if error.code not in ("ca", "tls"):
                return [Finding("unreached", Level.STOPS, asked, error.what, FATAL, error.advice)], None
            refused = Finding(
                "ca" if error.code == "ca" else "certificate", Level.STOPS, asked, error.what, FATAL, _TRUST
            )
        try:
            found, answer = self._head_and_get(url, limit, self._without_trust)
        except RegistryError:
            return [refused], None
        return [refused, *found], answer

    def _without_trust(self, url: str) -> _Way:
        lenient = replace(self.connection.without_login(), insecure=True)
        asker = Asker(urlsplit(url).netloc, lenient, self.stop, self.timeouts)
        self.askers.append(asker)
        return _Way(asker, "")

    def _head_and_get(self, url: str, limit: int, way_to: Callable[[str], _Way]) -> tuple[list[Finding], Answer]:
        way = way_to(url)
        head = way.asker.get(url, "HEAD", method="HEAD", authorization=way.authorization)
        answer = way.asker.get(url, "GET", authorization=way.authorization, limit=limit)
        found = []
        if answer.status == 200 and head.status >= 400:
            came = f"HEAD is answered {status_words(head.status)}, GET 200"
            found.append(Finding("head", Level.NOTE, f"HEAD {url}", came, "Trivy does not mind: GET decides."))
        return found, answer


_TRUST = (
    "Give Trivy the CA file: SSL_CERT_FILE=FILE works everywhere; --cacert (0.68 and later) holds for scans, not for "
    "trivy vex repo download. insecure: true in repository.yaml (0.69 and later) is the last resort."
)


def _authorization(connection: Connection) -> str:
    if connection.token:
        return f"Bearer {connection.token}"
    if connection.username or connection.password:
        pair = f"{connection.username}:{connection.password}".encode()
        return "Basic " + base64.b64encode(pair).decode()
    return ""


def _github(url: str) -> Finding:
    return Finding(
        "github",
        Level.NOTE,
        url,
        "not asked",
        "Trivy reads github.com through api.github.com and raw.githubusercontent.com: four requests and two of the "
        "60 an hour that come without GITHUB_TOKEN. Airgap takes the archive instead.",
    )


def _refused(code: str, asked: str, answer: Answer) -> Finding:
    cure = REPOSITORY_YAML if answer.status in (401, 403) else "Check the address."
    return Finding(code, Level.STOPS, asked, status_words(answer.status), FATAL, cure)


def _interval(asked: str, version: VexVersion) -> list[Finding]:
    if version.update_interval:
        return []
    told = "Trivy fetches the archive at every scan."
    return [Finding("interval", Level.NOTE, asked, "no update_interval", told, "Name one, such as 24h.")]
