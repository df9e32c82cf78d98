"""For a Trivy on the command line: trust, login, then flags, environment, trivy.yaml, VEX, own checks, a pinned day."""

import shlex
from collections.abc import Iterator

from mirrors.snippets import options
from mirrors.snippets.instance import CA_FILE, Instance
from mirrors.snippets.snippet import IMAGE, Snippet, command, flag, notes, quoted

# An access token needs no user name of its own; programs that insist on one may send any.
USER, SECRET = "airgap", "$AIRGAP_TOKEN"
NEEDS_FLAGS = "Trivy 0.63 and later"
CACERT_NOTE = (
    "--cacert needs Trivy 0.68. Before that, and for trivy vex repo download, which does not read it, set "
    "SSL_CERT_FILE."
)


def snippets(instance: Instance) -> Iterator[Snippet]:
    yield from trust(instance)
    yield from login(instance)
    yield from program(instance)
    yield flags(instance)
    yield environment(instance)
    yield configuration(instance)
    if not instance.elsewhere:
        yield mirrors(instance)
    if instance.vex:
        yield vex_repositories(instance)
    yield own_checks(instance)
    if instance.db and (instance.db.dated or not instance.elsewhere):
        yield pinned(instance)


def trust(instance: Instance) -> Iterator[Snippet]:
    """How to trust the certificate; nothing where there is no authority of our own."""
    if not instance.ca_path:
        return
    yield Snippet(
        "ca",
        "Trust this instance's certificate",
        f"curl -fsSk -o {CA_FILE} {instance.ca_url}\n"
        f"openssl x509 -in {CA_FILE} -noout -subject -enddate -fingerprint -sha256\n"
        f'export SSL_CERT_FILE="$PWD/{CA_FILE}"',
        "sh",
        needs="any Trivy",
        notes=(
            "The first line must not verify what it does not know yet (-k): compare the fingerprint with the one on "
            "this page, or take the file from here with your browser.",
            "SSL_CERT_FILE stands in for the system's own list in that process; a Trivy that also asks public hosts "
            "needs both in one file. With --cacert (0.68 and later) the system's list stays in force beside it.",
        ),
    )


def login(instance: Instance) -> Iterator[Snippet]:
    if not instance.login_required:
        return
    yield Snippet(
        "login",
        "Log in once",
        f'printf %s "{SECRET}" | trivy registry login --username {USER} --password-stdin '
        f"{' '.join([*options.connection_flags(instance), instance.registry])}",
        "sh",
        needs="Trivy 0.57 and later; before, docker login or podman login",
        warnings=instance.warnings,
        notes=(
            "Reading needs a login here. An administrator makes an access token under Settings, Access; the user name "
            "beside it does not matter.",
            "The login is kept in ~/.docker/config.json (or $DOCKER_CONFIG), which Trivy reads for this host only.",
            "Do not use TRIVY_USERNAME and TRIVY_PASSWORD for it: Trivy shows those to every registry of the run.",
        ),
    )
    yield Snippet(
        "docker-config",
        "Or write the docker config yourself",
        f'{{\n  "auths": {{\n    {quoted(instance.registry)}: {{ "auth": "BASE64" }}\n  }}\n}}',
        "json",
        file="~/.docker/config.json",
        needs="any Trivy, also oras, skopeo, crane and regctl",
        notes=(f'BASE64 is the output of: printf %s "{USER}:{SECRET}" | base64 -w0',),
    )


def program(instance: Instance) -> Iterator[Snippet]:
    """Trivy itself, where its releases are mirrored."""
    for release in instance.releases[:1]:
        curl = " ".join(["curl -fsSLO", *curl_options(instance)])
        yield Snippet(
            "program",
            "Trivy itself",
            f"{curl} {instance.base_url}{release.path}{shlex.quote(release.file)}\n"
            f"{curl} {instance.base_url}{release.path}{shlex.quote(release.checksums)}\n"
            f"grep -F {shlex.quote(release.file)} {shlex.quote(release.checksums)} | sha256sum -c -\n"
            f"tar -xzf {shlex.quote(release.file)} trivy",
            "sh",
            needs=f"what {release.label} holds now",
            notes=(f"Other versions and platforms, and the signatures, stand under {instance.base_url}/files/.",),
        )


def curl_options(instance: Instance) -> Iterator[str]:
    if instance.ca_path:
        yield f"--cacert {CA_FILE}"
    if instance.login_required:
        yield f'-u "{USER}:{SECRET}"'


def flags(instance: Instance) -> Snippet:
    return Snippet(
        "flags",
        "Flags",
        command("trivy image", options.client_flags(instance), IMAGE),
        "sh",
        needs=NEEDS_FLAGS,
        warnings=instance.warnings,
        notes=notes(
            "The same flags go with trivy fs, repo, vm, rootfs and k8s; trivy config takes those of the checks.",
            options.QUIET_NOTE,
            CACERT_NOTE if instance.ca_path else "",
            VEX_NOTE if instance.vex else "",
            *options.common_notes(instance),
            "A repository that is named replaces Trivy's own: nothing falls back to the internet. Several, separated "
            "by commas (0.56 and later), are tried in order, but the next only where the first answers 429 or 5xx, not "
            "where it is not reached.",
        ),
    )


VEX_NOTE = "--vex repo needs the repository.yaml below, and Trivy 0.54 and later."


def environment(instance: Instance) -> Snippet:
    lines = [f"export {name}={value}" for name, value in options.environment(instance)]
    if instance.ca_path:
        lines.append(f'export SSL_CERT_FILE="$PWD/{CA_FILE}"')
    return Snippet(
        "environment",
        "Environment",
        "\n".join(lines),
        "sh",
        needs="Trivy 0.56 and later; an older one ignores what it does not know",
        warnings=instance.warnings,
        notes=notes(
            "The most portable form: it reaches a Trivy inside other programs, and no version stops at an unknown one.",
            *options.common_notes(instance),
        ),
    )


def configuration(instance: Instance) -> Snippet:
    return Snippet(
        "trivy-yaml",
        "trivy.yaml, naming each database",
        options.configuration(instance),
        "yaml",
        file="trivy.yaml",
        needs="Trivy 0.56 and later",
        warnings=instance.warnings,
        notes=notes(
            CONFIG_NOTE,
            CACERT_NOTE if instance.ca_path else "",
            *options.common_notes(instance),
        ),
    )


CONFIG_NOTE = (
    "Trivy reads trivy.yaml from the directory it is started in, and no other, unless --config or TRIVY_CONFIG names "
    "it."
)


def mirrors(instance: Instance) -> Snippet:
    return Snippet(
        "registry-mirrors",
        "trivy.yaml, replacing the hosts",
        options.mirrors_configuration(instance),
        "yaml",
        file="trivy.yaml",
        needs="Trivy 0.59 and later; there is no flag and no variable for it",
        warnings=instance.warnings,
        notes=notes(
            "Trivy keeps asking for what it always asks for, but here: this instance answers to aquasec/… and to "
            "aquasecurity/… . Both hosts must be named, because Trivy's defaults name both.",
            "On any failure here Trivy goes on to the internet host itself; where there is none, that costs a timeout. "
            "Images of these two hosts that are scanned are looked for here as well, and found missing fast.",
            _elsewhere_note(instance),
            CONFIG_NOTE,
            options.left_out_note(instance),
        ),
    )


def _elsewhere_note(instance: Instance) -> str:
    """What replacing the host does not find, because it is served under another name or tag."""
    used = (instance.db, instance.java_db, instance.checks)
    elsewhere = [instance.reference(artifact) for artifact in used if artifact and not artifact.is_upstreams]
    return (
        f"This form does not find what has another name than upstream's: {', '.join(elsewhere)}." if elsewhere else ""
    )


def vex_repositories(instance: Instance) -> Snippet:
    vex_login = instance.login_required or instance.vex_login_required
    lines = ["repositories:"]
    for repository in instance.vex:
        lines += [f"  - name: {quoted(repository.name)}", f"    url: {quoted(instance.vex_url(repository))}"]
        lines.append("    enabled: true")
        if vex_login:
            lines.append("    token: AIRGAP_TOKEN")
    lines += [
        "  - name: default",
        "    url: https://github.com/aquasecurity/vexhub",
        "    enabled: false",
    ]
    first = f"{instance.vex[0].name} decides" if len(instance.vex) > 1 else ""
    return Snippet(
        "repository-yaml",
        "VEX repositories",
        "\n".join(lines),
        "yaml",
        file="~/.trivy/vex/repository.yaml",
        needs="Trivy 0.54 and later, with --vex repo",
        notes=notes(
            "The file stands in $XDG_DATA_HOME/.trivy/vex/ where that variable is set; no flag moves it.",
            "The hub that Trivy enables by itself is switched off, else every scan calls github.com.",
            f"They are asked in this order, and the first that knows a package decides: {first}." if first else "",
            "Replace AIRGAP_TOKEN by an access token; the file then wants chmod 600." if vex_login else "",
            "--cacert holds for scans, not for trivy vex repo download: set SSL_CERT_FILE for that."
            if instance.ca_path
            else "",
            "If this instance's certificate comes from an authority of your own, VEX needs SSL_CERT_FILE with it."
            if instance.vex_base.startswith("https:")
            else "",
            "Changed an address? Trivy keeps what it read once: trivy clean --vex-repo.",
        ),
    )


def own_checks(instance: Instance) -> Snippet:
    named = flag("--checks-bundle-repository", instance.reference(instance.checks)) if instance.checks else ""
    own = [named] if named else []
    return Snippet(
        "config-check",
        "Your own checks beside the official ones",
        command(
            "trivy config",
            [
                *own,
                "--config-check ./checks --check-namespaces user",
                *options.connection_flags(instance),
                options.QUIET,
            ],
            ".",
        ),
        "sh",
        needs=NEEDS_FLAGS,
        warnings=instance.warnings,
        notes=notes(
            "--config-check is for Rego files of your own, in a namespace of their own (package user.…). Do not "
            "point it at the unpacked official checks: each of them is then an error line, and an edited one does "
            "not win. Those come by repository, or lie in policy/content of the cache.",
            options.checks_note(instance),
        ),
    )


def pinned(instance: Instance) -> Snippet:
    database = instance.db
    assert database is not None, "asked for only where there is one"  # noqa: S101
    tag = database.dated[0] if database.dated else "2-20261120T0631Z"
    folder = f"~/.cache/trivy-{tag}"
    reference = instance.reference(database, tag)
    others = ", ".join(database.dated[1:6])
    return Snippet(
        "pinned",
        "A pinned day",
        command(
            "trivy image --download-db-only",
            [
                flag("--db-repository", reference),
                f"--cache-dir {folder}",
                *options.connection_flags(instance),
                options.QUIET,
            ],
        )
        + "\n"
        + command(
            "trivy image",
            ["--skip-db-update", f"--cache-dir {folder}", *options.client_flags(instance, db=False, vex=False)],
            IMAGE,
        ),
        "sh",
        needs=NEEDS_FLAGS,
        warnings=instance.warnings,
        notes=notes(
            "Trivy never compares its cache with the repository: with a newer build in the cache it would not even ask "
            "for this one. So a pinned build needs a cache directory of its own.",
            "--skip-db-update in the second line, because a build past its NextUpdate is fetched again and again.",
            f"Also kept: {others}." if others else "",
            "" if database.dated else "The tag is an example: nothing is held here yet.",
        ),
    )
