"""For `trivy server`: what the server is told, what its clients are told, and Trivy's own Helm chart.

The server takes no --skip-version-check, and no flag about Java, checks or VEX: those databases are the clients'
(Trivy pkg/commands/app.go NewServerCommand).
"""

from collections.abc import Iterator

from mirrors.snippets import options
from mirrors.snippets.command_line import NEEDS_FLAGS, login, trust
from mirrors.snippets.instance import Instance
from mirrors.snippets.snippet import IMAGE, Snippet, command, notes, quoted

CACHE = "/var/lib/trivy"


def snippets(instance: Instance) -> Iterator[Snippet]:
    yield from trust(instance)
    yield from login(instance)
    yield serving(instance)
    yield client(instance)
    yield filled(instance)
    if instance.db:
        yield chart(instance)


def serving(instance: Instance) -> Snippet:
    return Snippet(
        "server",
        "On the server",
        command(
            "trivy server --listen 0.0.0.0:4954",
            [*options.repository_flags(instance, client=False), *options.connection_flags(instance)],
        ),
        "sh",
        needs="any Trivy; --cacert needs 0.68" if instance.ca_path else "any Trivy",
        warnings=instance.warnings,
        notes=(
            "trivy server stops at --skip-version-check, --disable-telemetry, --java-db-repository and the flags about "
            "checks and VEX: it has the vulnerability DB only. It looks hourly whether a newer one is due, and takes "
            "it without a restart.",
        ),
    )


def client(instance: Instance) -> Snippet:
    return Snippet(
        "server-client",
        "On each client",
        command("trivy image --server http://TRIVY-SERVER:4954", options.client_flags(instance, db=False), IMAGE),
        "sh",
        needs=NEEDS_FLAGS,
        warnings=instance.warnings,
        notes=notes(
            "Java DB, checks and VEX are the client's own: it fetches them itself, into its own cache.",
            options.QUIET_NOTE,
            *options.common_notes(instance),
        ),
    )


def filled(instance: Instance) -> Snippet:
    return Snippet(
        "server-filled",
        "With a cache that is filled from outside",
        f"trivy server --listen 0.0.0.0:4954 --cache-dir {CACHE} --skip-db-update\n"
        "# after every fill:\n"
        "systemctl restart trivy-server",
        "sh",
        needs="any Trivy",
        notes=(
            "A running server keeps the old database open after its file was replaced, while its /version already "
            "tells the new date. So restart it after each fill; the name of your unit may differ. How to fill a "
            "cache stands under By hand.",
        ),
    )


def chart(instance: Instance) -> Snippet:
    database = instance.db
    lines = ["trivy:", f"  dbRepository: {quoted(instance.reference(database))}" if database else ""]
    if instance.ca_path:
        lines.append("  sslCertDir: /etc/airgap-ca")
    if instance.login_required:
        lines += ['  registryUsername: "airgap"', '  registryPassword: "AIRGAP_TOKEN"']
    if instance.insecure:
        lines += ["  extraEnvVars:", '    TRIVY_INSECURE: "true"']
    return Snippet(
        "server-chart",
        "Trivy's Helm chart",
        "\n".join(lines),
        "yaml",
        file="values.yaml",
        needs="chart 0.26",
        warnings=instance.warnings,
        notes=notes(
            "sslCertDir is a folder on the node with the CA file in it; the chart mounts it."
            if instance.ca_path
            else "",
        ),
    )
