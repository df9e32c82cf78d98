"""The instance as a scanner sees it: where it answers, and what it has."""

from collections.abc import Iterator
from dataclasses import dataclass

from mirrors.snippets.reach import Reach, reach_elsewhere, reach_of
from mirrors.trivy.catalogue import KINDS
from mirrors.trivy.hosts import registry_name, speaks_plain_http

CA_FILE = "airgap-ca.pem"
# What Trivy 0.56 to 0.68 ask for, and later ones (pkg/policy/policy.go of each).
CHECKS_NOW, CHECKS_BEFORE = "2", "1"
INSECURE_WARNING = (
    "Carries --insecure (or its like), because {subject} speaks plain HTTP by a name. It also switches off the check "
    "of every other certificate in the same run. Give {subject} a certificate, and it goes away."
)


@dataclass(frozen=True)
class Artifact:
    """One OCI mirror as clients name it.

    `repository` is its canonical name, `others` those that answer beside it. `tag` is the one clients ask for, `dated`
    the tags of kept snapshots, newest first. `size` is what a pull transfers (bytes), None while nothing is held.
    """

    kind: str
    label: str
    repository: str
    tag: str
    others: tuple[str, ...] = ()
    dated: tuple[str, ...] = ()
    size: int | None = None

    @property
    def major(self) -> str:
        """`2` of the tags 2, 2.2 and 2.2.0."""
        return self.tag.partition(".")[0]

    @property
    def is_upstreams(self) -> bool:
        """Whether upstream's own names lead here, so that replacing the host is enough."""
        tags = (CHECKS_NOW, CHECKS_BEFORE) if self.kind == "trivy-checks" else (KINDS[self.kind].default_tag,)
        return self.repository == f"aquasecurity/{self.kind}" and self.tag in tags


@dataclass(frozen=True)
class VexRepository:
    """One VEX mirror: `name` is the last part of its URL; `archive` and `folder` as its manifest names them now."""

    name: str
    label: str
    archive: str = ""
    folder: str = ""
    size: int | None = None


@dataclass(frozen=True)
class ReleaseFile:
    """One file of a mirrored release: `path` is its folder below the instance, `checksums` the file beside it."""

    label: str
    path: str
    file: str
    checksums: str


@dataclass(frozen=True)
class Instance:
    """`host` is host[:port] as scanners reach it, `ca_path` where the CA can be fetched ("" if there is none to fetch).

    `courier_days` is set where data comes with bundles only: how many days apart. `elsewhere` names a registry that we
    push to, whose `host` and `artifacts` these are then; VEX still comes from us, at `vex_base` and by our rules.
    """

    scheme: str
    host: str
    artifacts: tuple[Artifact, ...] = ()
    vex: tuple[VexRepository, ...] = ()
    releases: tuple[ReleaseFile, ...] = ()
    ca_path: str = ""
    login_required: bool = False
    courier_days: int | None = None
    elsewhere: str = ""
    vex_base: str = ""
    vex_login_required: bool = False

    @property
    def subject(self) -> str:
        """What speaks there, in a sentence."""
        return self.elsewhere or "this instance"

    @property
    def registry(self) -> str:
        """The host as it stands in a reference."""
        return registry_name(self.host, self.scheme)

    @property
    def base_url(self) -> str:
        return f"{self.scheme}://{self.host}"

    @property
    def ca_url(self) -> str:
        return f"{self.base_url}{self.ca_path}" if self.ca_path else ""

    @property
    def insecure(self) -> bool:
        """Whether Trivy must be told to accept plain HTTP here."""
        return self.scheme == "http" and not speaks_plain_http(self.registry)

    @property
    def reach(self) -> Reach:
        if self.elsewhere:
            return reach_elsewhere(self.scheme, self.registry)
        return reach_of(self.scheme, self.registry, private_ca=bool(self.ca_path))

    def all_of(self, kind: str) -> Iterator[Artifact]:
        """Those that Trivy's own names lead to come first."""
        found = [artifact for artifact in self.artifacts if artifact.kind == kind]
        return iter(sorted(found, key=lambda artifact: not artifact.is_upstreams))

    @property
    def db(self) -> Artifact | None:
        return next(self.all_of("trivy-db"), None)

    @property
    def java_db(self) -> Artifact | None:
        return next(self.all_of("trivy-java-db"), None)

    @property
    def checks(self) -> Artifact | None:
        """The checks of today's Trivy; where they are not mirrored, whichever are."""
        found = sorted(self.all_of("trivy-checks"), key=lambda artifact: artifact.major != CHECKS_NOW)
        return found[0] if found else None

    @property
    def checks_before(self) -> Artifact | None:
        """Those of Trivy 0.56 to 0.68 and of the Operator."""
        return next((artifact for artifact in self.all_of("trivy-checks") if artifact.major == CHECKS_BEFORE), None)

    @property
    def has_anything(self) -> bool:
        return bool(self.db or self.java_db or self.checks or self.vex)

    @property
    def missing(self) -> tuple[str, ...]:
        """What Trivy would also ask for and is not mirrored here; its lines are left out of every snippet."""
        held = (
            (self.db, "vulnerability DB"),
            (self.java_db, "Java DB"),
            (self.checks, "checks bundle"),
            (self.vex, "VEX repository"),
        )
        return tuple(name for what, name in held if not what)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Beside every snippet in which --insecure stands."""
        return (INSECURE_WARNING.format(subject=self.subject),) if self.insecure else ()

    def reference(self, artifact: Artifact, tag: str | None = None) -> str:
        """`host/repository:tag`."""
        return f"{self.registry}/{artifact.repository}:{tag or artifact.tag}"

    def vex_url(self, repository: VexRepository) -> str:
        return f"{self.vex_base or self.base_url}/vex/{repository.name}"
