"""The catalogue of what can be mirrored: one entry a kind, and the mirrors a new instance starts with.

Everything that differs between kinds stands here (names, media types, rhythm, limits), so that a further Trivy kind
is one more entry. Sources of the facts: the publishing workflows of aquasecurity/trivy-db, trivy-java-db and
trivy-checks, and Trivy's own pkg/db, pkg/javadb and pkg/policy.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

MIB = 1024 * 1024
GIB = 1024 * MIB


@dataclass(frozen=True)
class Limits:
    """Ages at which data stops being fresh (contract: connected side)."""

    due: timedelta
    stale: timedelta
    expired: timedelta


@dataclass(frozen=True)
class Kind:
    """One kind of asset.

    `judged_by` is `updated_at` (the data's own build time) or `confirmed_at` (when upstream was last seen still
    offering what we hold). `transport` is `oci`, `vex` or `release`. `database_file` and `schema` are set where the
    layer is a tar whose metadata.json we read; `inflated_limit` (bytes) where we look into archives at all.
    `in_everything`: it belongs to "everything current", else it is bundled only when chosen. `refused_versions` are
    never taken, each for its reason.
    """

    name: str
    label: str
    transport: str
    judged_by: str
    check_every: timedelta
    limits: Limits
    keep: int
    rhythm: str
    default_tag: str = ""
    layer_media_type: str = ""
    title: str = ""
    database_file: str = ""
    schema: int = 0
    cache_directory: str = ""
    layer_limit: int = 64 * GIB
    inflated_limit: int = 0
    in_everything: bool = True
    refused_versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def one_layer(self) -> bool:
        """Trivy takes exactly one layer and no index for its own kinds (pkg/oci/artifact.go)."""
        return bool(self.layer_media_type)

    @property
    def has_metadata(self) -> bool:
        return bool(self.database_file)


@dataclass(frozen=True)
class DefaultMirror:
    """A mirror a new instance has. `repository` is upstream's name for it, under which it is served."""

    name: str
    kind: str
    label: str
    sources: tuple[str, ...]
    repository: str = ""


CONFIRMED = Limits(timedelta(days=2), timedelta(days=7), timedelta(days=30))

# 2026-03-19: somebody else published these under Trivy's name (CVE-2026-33634).
MALICIOUS = "it was published by attackers (GHSA-69fq-xp46-6x23)"

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            name="trivy-db",
            label="Vulnerability DB",
            transport="oci",
            judged_by="updated_at",
            check_every=timedelta(hours=1),
            limits=Limits(timedelta(hours=9), timedelta(hours=24), timedelta(days=7)),
            keep=8,
            rhythm="rebuilt every 6 hours",
            default_tag="2",
            layer_media_type="application/vnd.aquasec.trivy.db.layer.v1.tar+gzip",
            title="db.tar.gz",
            database_file="trivy.db",
            schema=2,
            cache_directory="db",
            layer_limit=4 * GIB,
            inflated_limit=16 * GIB,
        ),
        Kind(
            name="trivy-java-db",
            label="Java DB",
            transport="oci",
            judged_by="updated_at",
            check_every=timedelta(hours=2),
            limits=Limits(timedelta(hours=30), timedelta(hours=72), timedelta(days=14)),
            keep=3,
            rhythm="rebuilt daily",
            default_tag="1",
            layer_media_type="application/vnd.aquasec.trivy.javadb.layer.v1.tar+gzip",
            title="javadb.tar.gz",
            database_file="trivy-java.db",
            schema=1,
            cache_directory="java-db",
            layer_limit=8 * GIB,
            inflated_limit=32 * GIB,
        ),
        Kind(
            name="trivy-checks",
            label="Checks bundle",
            transport="oci",
            judged_by="confirmed_at",
            check_every=timedelta(hours=6),
            limits=CONFIRMED,
            keep=10,
            rhythm="published irregularly",
            default_tag="2",
            layer_media_type="application/vnd.cncf.openpolicyagent.layer.v1.tar+gzip",
            title="bundle.tar.gz",
            cache_directory="policy",
            layer_limit=256 * MIB,
            inflated_limit=1 * GIB,
        ),
        Kind(
            name="vex",
            label="VEX repository",
            transport="vex",
            judged_by="confirmed_at",
            check_every=timedelta(hours=6),
            limits=CONFIRMED,
            keep=10,
            rhythm="updated daily",
            cache_directory="vex",
            layer_limit=1 * GIB,
            inflated_limit=8 * GIB,
        ),
        Kind(
            name="oci",
            label="OCI artifact",
            transport="oci",
            judged_by="confirmed_at",
            check_every=timedelta(hours=6),
            limits=CONFIRMED,
            keep=10,
            rhythm="",
        ),
        Kind(
            name="release",
            label="Release files",
            transport="release",
            judged_by="confirmed_at",
            check_every=timedelta(hours=6),
            limits=CONFIRMED,
            keep=3,
            rhythm="released about monthly",
            layer_limit=1 * GIB,
            in_everything=False,
            refused_versions=dict.fromkeys(("0.69.4", "0.69.5", "0.69.6"), MALICIOUS),
        ),
    )
}

DEFAULT_MIRRORS: tuple[DefaultMirror, ...] = (
    DefaultMirror(
        "trivy-db",
        "trivy-db",
        "Vulnerability DB",
        (
            "mirror.gcr.io/aquasec/trivy-db:2",
            "ghcr.io/aquasecurity/trivy-db:2",
            "public.ecr.aws/aquasecurity/trivy-db:2",
            "docker.io/aquasec/trivy-db:2",
        ),
        repository="aquasecurity/trivy-db",
    ),
    DefaultMirror(
        "trivy-java-db",
        "trivy-java-db",
        "Java DB",
        (
            "mirror.gcr.io/aquasec/trivy-java-db:1",
            "ghcr.io/aquasecurity/trivy-java-db:1",
            "public.ecr.aws/aquasecurity/trivy-java-db:1",
            "docker.io/aquasec/trivy-java-db:1",
        ),
        repository="aquasecurity/trivy-java-db",
    ),
    DefaultMirror(
        "trivy-checks",
        "trivy-checks",
        "Checks bundle",
        (
            "mirror.gcr.io/aquasec/trivy-checks:2",
            "ghcr.io/aquasecurity/trivy-checks:2",
            "docker.io/aquasec/trivy-checks:2",
        ),
        repository="aquasecurity/trivy-checks",
    ),
    DefaultMirror(
        "trivy-checks-1",
        "trivy-checks",
        "Checks bundle 1",
        (
            "mirror.gcr.io/aquasec/trivy-checks:1",
            "ghcr.io/aquasecurity/trivy-checks:1",
            "docker.io/aquasec/trivy-checks:1",
        ),
        repository="aquasecurity/trivy-checks",
    ),
    DefaultMirror("vexhub", "vex", "VEX Hub", ("https://github.com/aquasecurity/vexhub",)),
)

# Not made by themselves: they fill the form of whoever adds one of their kind.
SUGGESTED_MIRRORS: tuple[DefaultMirror, ...] = (
    DefaultMirror("trivy", "release", "Trivy release", ("https://github.com/aquasecurity/trivy",)),
)
