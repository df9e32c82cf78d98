"""For Harbor's scanner: harbor.yml, its Helm chart, and the adapter's own environment.

Keys from goharbor/harbor make/harbor.yml.tmpl, harbor-helm values.yaml and harbor-scanner-trivy pkg/etc/config.go. The
adapter hands its whole environment on to Trivy, so TRIVY_… variables reach it where the chart lets one set any.
"""

from collections.abc import Iterator

from mirrors.snippets import options
from mirrors.snippets.instance import CA_FILE, Instance
from mirrors.snippets.snippet import Snippet, notes, quoted


def snippets(instance: Instance) -> Iterator[Snippet]:
    if not (instance.db or instance.java_db):
        return
    yield configuration(instance)
    yield chart(instance)
    yield adapter(instance)


def _common(instance: Instance) -> tuple[str, ...]:
    return notes(
        "Harbor sends the robot account of the scanned project to every registry that Trivy asks, this one included; "
        "here it is ignored, as long as reading needs no login."
        if not instance.login_required
        else "Harbor sends the robot account of the scanned project to every registry that Trivy asks; reading needs a "
        "login here, so such a scan is refused. Allow reading without a login, or fill the adapter's cache (By hand).",
        options.left_out_note(instance),
        "A scan has 5 minutes for everything, the first Java DB included: raise the timeout on a slow line. Harbor's "
        "job ends at 30 minutes.",
    )


def configuration(instance: Instance) -> Snippet:
    lines = ["trivy:", "  skip_update: false", "  skip_java_db_update: false"]
    if instance.db:
        lines.append(f"  db_repository: {quoted(instance.reference(instance.db))}")
    if instance.java_db:
        lines.append(f"  java_db_repository: {quoted(instance.reference(instance.java_db))}")
    lines += ["  offline_scan: true", f"  insecure: {'true' if instance.insecure else 'false'}", "  timeout: 10m0s"]
    return Snippet(
        "harbor-yml",
        "harbor.yml",
        "\n".join(lines),
        "yaml",
        file="harbor.yml",
        needs="Harbor 2.15 and later; before, the adapter's environment",
        warnings=_warnings(instance),
        notes=notes(
            "Run ./prepare and start Harbor again after the change.",
            "Trivy's version check and telemetry cannot be switched off here: prepare writes the adapter's environment "
            "anew. Without internet they fail quickly and change nothing; or add the two variables to the adapter in a "
            "docker-compose.override.yml.",
            f"Put {CA_FILE} into the folder of trusted certificates that prepare fills (common/config/shared/"
            "trust-certificates); the adapter takes .crt, .ca, .ca-bundle and .pem files from it at its start."
            if instance.ca_path
            else "",
            *_common(instance),
        ),
    )


def chart(instance: Instance) -> Snippet:
    lines = ["trivy:"]
    if instance.db:
        lines += ["  dbRepository:", f"    - {quoted(instance.reference(instance.db))}"]
    if instance.java_db:
        lines += ["  javaDBRepository:", f"    - {quoted(instance.reference(instance.java_db))}"]
    lines += ["  offlineScan: true", f"  insecure: {'true' if instance.insecure else 'false'}", "  timeout: 10m0s"]
    lines.append("  extraEnvVars:")
    for name in ("TRIVY_SKIP_VERSION_CHECK", "TRIVY_DISABLE_TELEMETRY"):
        lines += [f"    - name: {name}", '      value: "true"']
    if instance.ca_path:
        lines.append("caBundleSecretName: airgap-ca")
    return Snippet(
        "harbor-helm",
        "Harbor's Helm chart",
        "\n".join(lines),
        "yaml",
        file="values.yaml",
        needs="chart 1.18 and later",
        warnings=_warnings(instance),
        notes=notes(
            f"kubectl create secret generic airgap-ca --from-file=ca.crt={CA_FILE}" if instance.ca_path else "",
            *_common(instance),
        ),
    )


def adapter(instance: Instance) -> Snippet:
    pairs = []
    if instance.db:
        pairs.append(("SCANNER_TRIVY_DB_REPOSITORY", instance.reference(instance.db)))
    if instance.java_db:
        pairs.append(("SCANNER_TRIVY_JAVA_DB_REPOSITORY", instance.reference(instance.java_db)))
    pairs += [("SCANNER_TRIVY_OFFLINE_SCAN", "true"), ("SCANNER_TRIVY_TIMEOUT", "10m0s")]
    if instance.vex:
        pairs.append(("SCANNER_TRIVY_VEX_SOURCE", "repo"))
    if instance.insecure:
        pairs.append(("SCANNER_TRIVY_INSECURE", "true"))
    pairs += [("TRIVY_SKIP_VERSION_CHECK", "true"), ("TRIVY_DISABLE_TELEMETRY", "true")]
    return Snippet(
        "harbor-adapter",
        "The adapter's environment",
        "\n".join(f"{name}={value}" for name, value in pairs),
        "env",
        needs="harbor-scanner-trivy 0.34.2 and later" if instance.vex else "harbor-scanner-trivy 0.32 and later",
        warnings=_warnings(instance),
        notes=notes(
            "Its cache is /home/scanner/.cache/trivy, and it runs as the user 10000: files put there must be "
            "readable for that user.",
            "For VEX, repository.yaml must lie in /home/scanner/.trivy/vex/." if instance.vex else "",
            *_common(instance),
        ),
    )


def _warnings(instance: Instance) -> tuple[str, ...]:
    if not instance.insecure:
        return ()
    return (
        f"Carries insecure: true, because {instance.subject} speaks plain HTTP by a name. It also switches off the "
        f"check of Harbor's own certificate when images are scanned. Give {instance.subject} a certificate, and it "
        "goes away.",
    )
