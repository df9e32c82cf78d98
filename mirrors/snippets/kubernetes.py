"""For the Trivy Operator's Helm chart (aquasecurity/trivy-operator deploy/helm/values.yaml, chart 0.34.0).

Its jobs get a trivy.yaml (`trivy.configFile`), the only way to silence version check and telemetry there. It has one
repository for each database and no list, and asks for the checks with the tag 1 unless told.
"""

from collections.abc import Iterator

from mirrors.snippets import options
from mirrors.snippets.instance import Instance
from mirrors.snippets.snippet import Snippet, notes, quoted


def snippets(instance: Instance) -> Iterator[Snippet]:
    if instance.db or instance.java_db or instance.checks:
        yield operator(instance)
    if instance.ca_path:
        yield certificate(instance)


def operator(instance: Instance) -> Snippet:
    return Snippet(
        "operator",
        "Values of the Trivy Operator",
        "\n".join([*_trivy(instance), *_policies(instance), *_server(instance)]),
        "yaml",
        file="values.yaml",
        needs="chart 0.34 (Operator 0.32)",
        warnings=_warnings(instance),
        notes=notes(
            "configFile hands the jobs a trivy.yaml; without it each scan calls check.trivy.dev.",
            _checks_note(instance),
            "If the checks cannot be fetched, the Operator says so only in its debug log, and reports no "
            "misconfigurations. Look whether ConfigAuditReports appear.",
            "Images of its own (Trivy, node-collector) come from trivy.image and nodeCollector; those are for your own "
            "registry.",
            "Replace AIRGAP_TOKEN by an access token; an init container logs in with it."
            if instance.login_required
            else "",
            options.left_out_note(instance),
        ),
    )


def _trivy(instance: Instance) -> Iterator[str]:
    yield "trivy:"
    if instance.db:
        yield f"  dbRegistry: {quoted(instance.registry)}"
        yield f"  dbRepository: {quoted(instance.db.repository)}"
    if instance.java_db:
        yield f"  javaDbRegistry: {quoted(instance.registry)}"
        yield f"  javaDbRepository: {quoted(instance.java_db.repository)}"
    if instance.login_required:
        yield '  dbRepositoryUsername: "airgap"'
        yield '  dbRepositoryPassword: "AIRGAP_TOKEN"'
    if instance.insecure:
        yield '  dbRepositoryInsecure: "true"'
    if instance.ca_path:
        yield "  sslCertDir: /etc/ssl/certs"
    yield from (
        "  configFile:",
        "    scan:",
        "      skip-version-check: true",
        "      disable-telemetry: true",
    )


def _policies(instance: Instance) -> Iterator[str]:
    checks = instance.checks_before or instance.checks
    if checks is None:
        return
    yield "policiesBundle:"
    yield f"  registry: {quoted(instance.registry)}"
    yield f"  repository: {quoted(checks.repository)}"
    yield f"  tag: {quoted(checks.tag)}"
    if instance.login_required:
        yield '  registryUser: "airgap"'
        yield '  registryPassword: "AIRGAP_TOKEN"'
    if instance.insecure:
        yield "  insecure: true"


def _server(instance: Instance) -> Iterator[str]:
    if instance.insecure:
        yield from ("operator:", "  builtInServerRegistryInsecure: true")


def _checks_note(instance: Instance) -> str:
    if instance.checks is None:
        return ""
    if instance.checks_before:
        return "The Operator's own default is the tag 1 of the checks, so that is what stands here."
    return (
        f"The Operator's own default is the tag 1 of the checks, which is not mirrored here; {instance.checks.tag} "
        "stands here instead. It may not know all of it: mirror the tag 1 as well."
    )


def _warnings(instance: Instance) -> tuple[str, ...]:
    if not instance.insecure:
        return ()
    return (
        "Carries dbRepositoryInsecure, insecure and builtInServerRegistryInsecure, because "
        f"{instance.subject} speaks plain HTTP by a name. They switch off the check of certificates for images that "
        f"are scanned, too. Give {instance.subject} a certificate, and they go away.",
    )


def certificate(instance: Instance) -> Snippet:
    return Snippet(
        "operator-ca",
        "Trust this instance's certificate",
        "# on every node, or by your node configuration\n"
        f"curl -fsSk -o /usr/local/share/ca-certificates/airgap.crt {instance.ca_url}\n"
        "update-ca-certificates",
        "sh",
        needs="Debian and Ubuntu nodes; others have update-ca-trust",
        notes=(
            "sslCertDir is a folder on the node, mounted into the jobs and the built-in server. The Operator itself, "
            "which fetches the checks, is not covered by it: mount the file into its pod with volumes and "
            "volumeMounts, at /etc/ssl/certs/airgap.crt.",
        ),
    )
