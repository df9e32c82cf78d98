"""For GitHub and GitLab: variables that reach a Trivy in a job, and what the vendors' own wrappers do otherwise."""

from collections.abc import Iterator, Sequence

from mirrors.snippets import options
from mirrors.snippets.instance import CA_FILE, Instance
from mirrors.snippets.snippet import Snippet, notes, quoted

OWN_REGISTRY = "YOUR-REGISTRY"


def snippets(instance: Instance) -> Iterator[Snippet]:
    yield github(instance)
    yield action(instance)
    yield gitlab(instance)
    if instance.java_db:
        yield gitlab_template(instance)


def _variables(instance: Instance, indent: str) -> list[str]:
    lines = [f"{indent}{name}: {quoted(value)}" for name, value in options.environment(instance, vex=False)]
    if instance.ca_path:
        lines.append(f"{indent}SSL_CERT_FILE: /etc/ssl/{CA_FILE}")
    return lines


def _notes(instance: Instance, *more: str) -> tuple[str, ...]:
    return notes(
        *more,
        f"Put the CA file on the runner as /etc/ssl/{CA_FILE}, or change the path." if instance.ca_path else "",
        LOGIN if instance.login_required else "",
        "A job that starts with an empty cache pulls everything each time; the traffic that makes stands under Pull or "
        "fill.",
        *options.common_notes(instance),
    )


LOGIN = (
    "Reading needs a login here: give the job a docker config with the token (see Command line) as a secret file, and "
    "its folder in DOCKER_CONFIG."
)


def github(instance: Instance) -> Snippet:
    return Snippet(
        "github",
        "GitHub Actions, with a Trivy that is on the runner",
        _job(
            instance,
            ["      - run: trivy fs --scanners vuln,misconfig,secret ."],
        ),
        "yaml",
        file=".github/workflows/scan.yml",
        needs="Trivy 0.56 and later",
        warnings=instance.warnings,
        notes=_notes(
            instance, "Nothing but the checkout is fetched from outside, so a runner without internet can do it."
        ),
    )


def action(instance: Instance) -> Snippet:
    return Snippet(
        "github-action",
        "GitHub Actions, with trivy-action",
        _job(
            instance,
            [
                "      - uses: aquasecurity/trivy-action@COMMIT",
                "        with:",
                "          scan-type: fs",
                "          scan-ref: .",
                "          skip-setup-trivy: true",
                '          cache: "false"',
            ],
        ),
        "yaml",
        file=".github/workflows/scan.yml",
        needs="trivy-action 0.29 and later",
        warnings=instance.warnings,
        notes=_notes(
            instance,
            "Replace COMMIT by a full commit that you have looked at: in March 2026 the tags of this action were "
            "moved to malicious code.",
            "skip-setup-trivy because its set-up downloads Trivy from GitHub; cache off because it keeps the databases "
            "of a day in GitHub's cache.",
        ),
    )


def _job(instance: Instance, steps: Sequence[str]) -> str:
    return "\n".join(
        [
            "on: push",
            "jobs:",
            "  scan:",
            "    runs-on: self-hosted",
            "    env:",
            *_variables(instance, "      "),
            "    steps:",
            "      - uses: actions/checkout@v4",
            *steps,
        ]
    )


def gitlab(instance: Instance) -> Snippet:
    return Snippet(
        "gitlab",
        "GitLab CI, a job of your own",
        "\n".join(
            [
                "scan:",
                "  image:",
                f"    name: {OWN_REGISTRY}/aquasec/trivy:0.74.0",
                '    entrypoint: [""]',
                "  variables:",
                *_variables(instance, "    "),
                "  script:",
                "    - trivy fs --scanners vuln,misconfig,secret .",
            ]
        ),
        "yaml",
        file=".gitlab-ci.yml",
        needs="Trivy 0.56 and later",
        warnings=instance.warnings,
        notes=_notes(
            instance, f"{OWN_REGISTRY} is wherever your runners take images from; any Trivy of 0.56 or later does."
        ),
    )


def gitlab_template(instance: Instance) -> Snippet:
    java = instance.java_db
    assert java is not None, "asked for only where there is one"  # noqa: S101
    lines = [
        "include:",
        "  - template: Jobs/Container-Scanning.gitlab-ci.yml",
        "container_scanning:",
        "  variables:",
        f"    CS_TRIVY_JAVA_DB: {quoted(f'{instance.registry}/{java.repository}')}",
    ]
    if instance.insecure:
        lines.append('    TRIVY_INSECURE: "true"')
    return Snippet(
        "gitlab-template",
        "GitLab's own container scanning",
        "\n".join(lines),
        "yaml",
        file=".gitlab-ci.yml",
        needs="GitLab's container-scanning analyzer",
        warnings=instance.warnings,
        notes=notes(
            "The vulnerability DB is built into GitLab's analyzer image: to have a newer one, mirror a newer image. "
            "Only the Java DB comes from here, written without a tag.",
            "The certificate goes into the variable ADDITIONAL_CA_CERT_BUNDLE, as text." if instance.ca_path else "",
        ),
    )
