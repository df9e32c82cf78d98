"""The same facts as flags, as environment and as keys of trivy.yaml (Trivy pkg/flag), for the mirrors there are.

Versions are those in which each first appears in Trivy's own sources.
"""

from collections.abc import Iterator

from mirrors.snippets.instance import CA_FILE, CHECKS_NOW, Instance
from mirrors.snippets.snippet import flag, notes, quoted

QUIET = "--skip-version-check --disable-telemetry"
QUIET_NOTE = (
    "--skip-version-check and --disable-telemetry are there because Trivy asks check.trivy.dev otherwise. A Trivy "
    "before 0.63 does not ask and does not know them: it stops at a flag it does not know, so leave them out there."
)


def repository_flags(instance: Instance, *, db: bool = True, client: bool = True) -> Iterator[str]:
    """`client` False is for `trivy server`, which knows the vulnerability DB only."""
    if db and instance.db:
        yield flag("--db-repository", instance.reference(instance.db))
    if client and instance.java_db:
        yield flag("--java-db-repository", instance.reference(instance.java_db))
    if client and instance.checks:
        yield flag("--checks-bundle-repository", instance.reference(instance.checks))


def connection_flags(instance: Instance) -> Iterator[str]:
    if instance.ca_path:
        yield f"--cacert {CA_FILE}"
    if instance.insecure:
        yield "--insecure"


def client_flags(instance: Instance, *, db: bool = True, vex: bool = True) -> Iterator[str]:
    """Everything a scanning Trivy is told."""
    yield from repository_flags(instance, db=db)
    if vex and instance.vex:
        yield "--vex repo"
    yield from connection_flags(instance)
    yield QUIET


def skip_flags(instance: Instance) -> Iterator[str]:
    """For scanning from a filled cache. Each is fatal or useless where its folder is not filled, so only those held."""
    if instance.db:
        yield "--skip-db-update"
    if instance.java_db:
        yield "--skip-java-db-update"
    if instance.checks:
        yield "--skip-check-update"
    if instance.vex:
        yield "--vex repo --skip-vex-repo-update"
    yield "--offline-scan"
    yield QUIET


def environment(instance: Instance, *, vex: bool = True) -> Iterator[tuple[str, str]]:
    if instance.db:
        yield "TRIVY_DB_REPOSITORY", instance.reference(instance.db)
    if instance.java_db:
        yield "TRIVY_JAVA_DB_REPOSITORY", instance.reference(instance.java_db)
    if instance.checks:
        yield "TRIVY_CHECKS_BUNDLE_REPOSITORY", instance.reference(instance.checks)
    if vex and instance.vex:
        yield "TRIVY_VEX", "repo"
    if instance.insecure:
        yield "TRIVY_INSECURE", "true"
    yield "TRIVY_SKIP_VERSION_CHECK", "true"
    yield "TRIVY_DISABLE_TELEMETRY", "true"


def configuration(instance: Instance) -> str:
    """trivy.yaml."""
    lines: list[str] = []
    if instance.db or instance.java_db:
        lines.append("db:")
        if instance.db:
            lines += ["  repository:", f"    - {quoted(instance.reference(instance.db))}"]
        if instance.java_db:
            lines += ["  java-repository:", f"    - {quoted(instance.reference(instance.java_db))}"]
    if instance.checks:
        lines += ["misconfiguration:", f"  checks-bundle-repository: {quoted(instance.reference(instance.checks))}"]
    return "\n".join([*lines, *_configured_rest(instance)])


def mirrors_configuration(instance: Instance) -> str:
    """trivy.yaml with both hosts that Trivy's defaults name."""
    lines = ["registry:", "  mirrors:"]
    for host in ("mirror.gcr.io", "ghcr.io"):
        lines += [f"    {host}:", f"      - {quoted(instance.registry)}"]
    return "\n".join([*lines, *_configured_rest(instance)])


def _configured_rest(instance: Instance) -> Iterator[str]:
    if instance.vex:
        yield from ("vulnerability:", "  vex:", "    - repo")
    yield from ("scan:", "  skip-version-check: true", "  disable-telemetry: true")
    if instance.ca_path:
        yield f"cacert: {CA_FILE}"
    if instance.insecure:
        yield "insecure: true"


def checks_note(instance: Instance) -> str:
    """Which Trivy takes which checks, as far as they are mirrored here."""
    checks, before = instance.checks, instance.checks_before
    if checks is None:
        return ""
    if checks.major != CHECKS_NOW:
        return (
            f"Only the checks with the tag {checks.tag} are mirrored here; they are for Trivy 0.56 to 0.68 and for the "
            "Operator. Trivy 0.69 and later take the tag 2: with these, the ids of checks are the old ones, and ids in "
            "ignore files do not match."
        )
    if before:
        return f"Trivy 0.56 to 0.68 take the older checks: {instance.reference(before)}."
    return "Trivy 0.56 to 0.68 want the checks with the tag 1, which are not mirrored here."


def left_out_note(instance: Instance) -> str:
    missing = [name for name in instance.missing if name != "VEX repository"]
    if not missing:
        return ""
    return f"Not mirrored here, so its line is left out and Trivy asks the internet for it: {', '.join(missing)}."


def common_notes(instance: Instance) -> tuple[str, ...]:
    return notes(left_out_note(instance), checks_note(instance))
