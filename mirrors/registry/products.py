"""Which registry product answers, as far as can be told, and where in it a right, a place or a switch is found.

Told by its address, its token server and its headers; "" where nothing tells. Only advice depends on it, never what is
sent. Sources: the products' own documentation and, where named, issues.
"""

from dataclasses import dataclass
from urllib.parse import urlsplit

_BY_HOST = (
    (".dkr.ecr.", "ecr"),
    ("public.ecr.aws", "ecr"),
    (".azurecr.", "acr"),
    (".pkg.dev", "gar"),
    ("gcr.io", "gar"),
    ("ghcr.io", "ghcr"),
    ("quay.io", "quay"),
    ("registry.gitlab.com", "gitlab"),
    ("docker.io", "hub"),
    (".jfrog.io", "artifactory"),
    ("harbor", "harbor"),
    ("nexus", "nexus"),
    ("artifactory", "artifactory"),
)
_BY_REALM = (
    ("/service/token", "harbor"),
    ("/jwt/auth", "gitlab"),
    ("/artifactory/", "artifactory"),
    ("/v2/auth", "quay"),
    ("/v2/token", "nexus"),
    ("/oauth2/token", "acr"),
)


@dataclass(frozen=True)
class Advice:
    """Sentences for one product: what gives the right to push, where a repository has to be, what lets artifacts in
    that are no images, and what makes it read-only."""

    name: str
    right: str
    place: str
    artifacts: str
    switch: str = "Push to the registry that it copies from, or end its read-only mode."


ADVICE = {
    "": Advice(
        "",
        "Give this account the right to push there.",
        "Check the path: the project or repository may have to be made first.",
        "It must take OCI artifacts: a manifest with an empty config (application/vnd.oci.empty.v1+json) and "
        "media types of its own. Look for a newer version or a list of allowed types.",
    ),
    "harbor": Advice(
        "Harbor",
        "In Harbor, make the account a developer of the project, or use a robot account that may push.",
        "In Harbor, the first part of the path is a project, which must be made first.",
        # goharbor/harbor#10952: 2.0 is the first that takes OCI manifests; trivy-checks#270: no config of 0 bytes.
        "Harbor takes OCI artifacts from version 2.0 on, and no config of 0 bytes (as old trivy-checks have it).",
        "In Harbor, an administrator ends it at Configuration, System Settings, Repository Read Only; proxy-cache "
        "projects never take a push.",
    ),
    "artifactory": Advice(
        "Artifactory",
        "In Artifactory, a permission for the repository must include Deploy/Cache.",
        "In Artifactory, the path begins with the key of a local (or a virtual with a default local) repository, "
        "unless the host name stands for one.",
        # jfrog.com: OCI repositories since 7.75.3 (oras-www#393).
        "In Artifactory, use a repository of type OCI (from 7.75.3 on) or a Docker one with API version 2.",
        "In Artifactory, push to a local repository, or set the virtual one's default deployment repository.",
    ),
    "nexus": Advice(
        "Nexus",
        "In Nexus, the account needs nx-repository-view-docker-…-add, -edit and -read on the repository.",
        "In Nexus, a Docker repository answers on a port connector or a subdomain of its own, or by path-based "
        "routing: use that address, not the one of the web interface.",
        # NEXUS-21087: release notes of 2020.
        "Nexus takes OCI manifests from 3.23 on; update it, and use a hosted repository of format docker.",
        "In Nexus, push to a hosted repository (a group or proxy takes none) whose deployment policy allows redeploy.",
    ),
    "quay": Advice(
        "Quay",
        "In Quay, the account (or robot) needs the write permission on the repository.",
        "In Quay, the first part of the path is an organization or user, which must exist; making repositories by a "
        "push needs the right to create them.",
        # docs.redhat.com, "Configuring artifact types"; deckhouse#10672 met it with trivy-checks.
        "In Quay, config.yaml must say FEATURE_GENERAL_OCI_SUPPORT: true, and the config and layer types must stand in "
        "ALLOWED_OCI_ARTIFACT_TYPES, or IGNORE_UNKNOWN_MEDIATYPES: true.",
        "In Quay, look at the repository's state (read-only, mirror) and at REGISTRY_STATE in config.yaml.",
    ),
    "ecr": Advice(
        "ECR",
        "In ECR, the role needs ecr:BatchCheckLayerAvailability, InitiateLayerUpload, UploadLayerPart, "
        "CompleteLayerUpload and PutImage.",
        "In ECR, every repository must be made first (aws ecr create-repository), unless a creation template matches.",
        # aws/containers-roadmap#2783: manifests with a subject get 405.
        "ECR takes OCI artifacts, but has been seen to refuse manifests that refer to another (subject).",
        "In ECR, push to a private repository, not to a pull-through cache.",
    ),
    "gitlab": Advice(
        "GitLab",
        "In GitLab, use a token with write_registry (and read_registry) and the role Developer or more.",
        "In GitLab, the path is that of a project (group/project, and at most two parts more) whose container registry "
        "is switched on.",
        # gitlab-org/container-registry#1198; ocx-sh/ocx#480.
        "GitLab knows a fixed list of media types for configs and artifacts: only a newer version of it, or "
        "the setting validation.manifests of its registry, lets others in.",
        "In GitLab, an administrator ends the registry's read-only mode (storage.maintenance.readonly).",
    ),
    "acr": Advice(
        "Azure Container Registry",
        "In Azure, give the account the role AcrPush, or the token a scope map with content/write.",
        "Check the registry's name; repositories are made by the push.",
        "It takes OCI artifacts; look at its policies.",
        "Look at the locks on the repository (az acr repository update --write-enabled true).",
    ),
    "gar": Advice(
        "Google Artifact Registry",
        "In Google Cloud, give the account the role Artifact Registry Writer.",
        "The path is PROJECT/REPOSITORY/NAME, and the repository (format Docker) must be made first.",
        "It takes OCI artifacts in repositories of format Docker.",
        "Push to a standard repository, not to a remote or virtual one.",
    ),
    "ghcr": Advice(
        "GitHub's registry",
        "On GitHub, use a token with write:packages, and give it write access to the package.",
        "The path begins with a user or organization that exists.",
        "It takes OCI artifacts.",
    ),
    "hub": Advice(
        "Docker Hub",
        "On Docker Hub, use an access token with Read & Write, of an account that owns or may write the repository.",
        "The path is USER/REPOSITORY or ORGANIZATION/REPOSITORY of one that exists.",
        "It takes OCI artifacts.",
    ),
}


def product_of(host: str, realm: str = "", server: str = "", headers: tuple[str, ...] = ()) -> str:
    """A key of ADVICE. `host` is the registry's, `realm` its token server's URL, `server` and `headers` (lower-case
    names) what it answered with."""
    if "x-jfrog-version" in headers or "x-artifactory-id" in headers or "artifactory" in server.lower():
        return "artifactory"
    if server.lower().startswith("nexus"):
        return "nexus"
    name = host.lower()
    for part, product in _BY_HOST[:10]:
        if part in name:
            return product
    try:
        path = urlsplit(realm).path
    except ValueError:
        path = ""
    for part, product in _BY_REALM:
        if part in path:
            return product
    return next((product for part, product in _BY_HOST[10:] if part in name), "")
