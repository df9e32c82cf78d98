"""Filling a cache directory: with Trivy itself, and with nothing but curl and tar.

The layout is Trivy's (mirrors/trivy/cache.py). What a bundle's install.sh does is more: it verifies, replaces by rename
and writes true times; so it is named first.
"""

import shlex
from collections.abc import Iterator

from mirrors.snippets import options
from mirrors.snippets.command_line import NEEDS_FLAGS, curl_options, program, trust
from mirrors.snippets.instance import CA_FILE, Instance
from mirrors.snippets.snippet import IMAGE, Snippet, command, flag, notes
from mirrors.trivy.cache import CHECKS_CONTENT
from mirrors.trivy.catalogue import KINDS

CACHE = "/var/lib/trivy"


def snippets(instance: Instance) -> Iterator[Snippet]:
    yield from trust(instance)
    yield from program(instance)
    yield from filling(instance)


def filling(instance: Instance) -> Iterator[Snippet]:
    if instance.has_anything:
        yield with_trivy(instance)
        if not instance.elsewhere:
            yield with_curl(instance)
    yield scanning(instance)
    yield checking()


def with_trivy(instance: Instance) -> Snippet:
    return Snippet(
        "fill-trivy",
        "Fill a cache with Trivy itself",
        "\n".join(["#!/bin/sh", "set -eu", f"cache=${{1:-{CACHE}}}", *_downloads(instance)]),
        "sh",
        file="fill-cache.sh",
        needs=NEEDS_FLAGS,
        warnings=instance.warnings,
        notes=notes(
            "Trivy has no flag that fetches the checks alone; looking through an empty folder does it."
            if instance.checks
            else "",
            "VEX needs the repository.yaml that stands under Command line." if instance.vex else "",
            "trivy vex repo download does not read --cacert, hence the variable."
            if instance.vex and instance.ca_path
            else "",
            "Run it as the user that scans, or give the files to that user afterwards (Harbor's adapter 10000, the "
            "Trivy and Operator servers 65534).",
        ),
    )


def _downloads(instance: Instance) -> Iterator[str]:
    rest = ['--cache-dir "$cache"', *options.connection_flags(instance), options.QUIET]
    if instance.ca_path and instance.vex:
        yield f'export SSL_CERT_FILE="$PWD/{CA_FILE}"'
    if instance.db:
        yield command(
            "trivy image --download-db-only", [flag("--db-repository", instance.reference(instance.db)), *rest]
        )
    if instance.java_db:
        yield command(
            "trivy image --download-java-db-only",
            [flag("--java-db-repository", instance.reference(instance.java_db)), *rest],
        )
    if instance.checks:
        yield "empty=$(mktemp -d)"
        checks = flag("--checks-bundle-repository", instance.reference(instance.checks))
        yield command("trivy config", [checks, *rest], '"$empty"')
        yield 'rmdir "$empty"'
    if instance.vex:
        yield 'trivy vex repo download --cache-dir "$cache"'


SCRIPT = """\
#!/bin/sh
set -eu
cache=${{1:-{cache}}}
base={base}
fetch() {{ curl -fsSL --retry 3{curl} "$@"; }}
take() {{  # URL FOLDER: unpacked beside, then exchanged
  rm -rf "$cache/$2.new" "$cache/$2.old"
  mkdir -p "$cache/$2.new"
  fetch -o "$cache/archive.tar.gz" "$1"
  [ -z "${{3:-}}" ] || echo "$3  $cache/archive.tar.gz" | sha256sum -c - >/dev/null
  tar -xzf "$cache/archive.tar.gz" -C "$cache/$2.new"
  rm "$cache/archive.tar.gz"
  if [ -e "$cache/$2" ]; then mv "$cache/$2" "$cache/$2.old"; fi
  mv "$cache/$2.new${{4:-}}" "$cache/$2"
  rm -rf "$cache/$2.new" "$cache/$2.old"
}}
layer() {{  # REPOSITORY TAG FOLDER: the one layer of a manifest
  hex=$(fetch -H "Accept: application/vnd.oci.image.manifest.v1+json" "$base/v2/$1/manifests/$2" | tr -d ' \\n\\r\\t' |
    sed 's/.*"layers":\\[{{[^]]*"digest":"sha256:\\([0-9a-f]*\\)".*/\\1/')
  take "$base/v2/$1/blobs/sha256:$hex" "$3" "$hex"
}}
"""


def with_curl(instance: Instance) -> Snippet:
    curl = "".join(f" {option}" for option in curl_options(instance))
    text = SCRIPT.format(cache=CACHE, base=shlex.quote(instance.base_url), curl=curl)
    return Snippet(
        "fill-curl",
        "Fill a cache with curl and tar only",
        "\n".join([text.rstrip("\n"), *_taken(instance)]),
        "sh",
        file="fill-cache.sh",
        needs="any Trivy, and the skip flags below",
        notes=notes(
            "Every layer's SHA-256 is compared with the manifest's; a folder is exchanged only when all of it is "
            "there.",
            "Files that lie there so have no download time in them: without --skip-db-update Trivy takes the DB for "
            "damaged and downloads it anew.",
            "A bundle does more: its install.sh verifies a signature, writes true times and needs no network."
            if not instance.login_required
            else "",
        ),
    )


def _taken(instance: Instance) -> Iterator[str]:
    for artifact in (instance.db, instance.java_db, instance.checks):
        if artifact:
            folder = CHECKS_CONTENT if artifact.kind == "trivy-checks" else KINDS[artifact.kind].cache_directory
            yield f"layer {artifact.repository} {artifact.tag} {folder}"
    for repository in instance.vex:
        if not repository.archive.endswith((".tar.gz", ".tgz")):
            continue
        place = f"vex/repositories/{repository.name}"
        inner = f" '' {shlex.quote('/' + repository.folder)}" if repository.folder else ""
        yield f'take "$base/vex/{repository.name}/{repository.archive}" {place}/0.1{inner}'
        manifest = f"$base/vex/{repository.name}/.well-known/vex-repository.json"
        yield f'fetch -o "$cache/{place}/vex-repository.json" "{manifest}"'


def scanning(instance: Instance) -> Snippet:
    return Snippet(
        "scan-filled",
        "Scan from a filled cache",
        command("trivy image", [f"--cache-dir {CACHE}", *options.skip_flags(instance)], IMAGE),
        "sh",
        needs=NEEDS_FLAGS,
        notes=notes(
            "With these flags Trivy never says how old its databases are, and never asks. The dashboard here says "
            "it, or the check below.",
            "Leave out the flag of what the cache does not hold: --skip-java-db-update without a Java DB stops the "
            "scan.",
            "After a new Java DB: trivy clean --scan-cache --cache-dir "
            f"{CACHE}, because jars that were scanned before keep what the old one said."
            if instance.java_db
            else "",
            "A running trivy server must be restarted after each fill.",
            options.QUIET_NOTE,
        ),
    )


def checking() -> Snippet:
    return Snippet(
        "check-cache",
        "See what a cache holds, and how old it is",
        f"trivy version --cache-dir {CACHE} --format json",
        "sh",
        needs="any Trivy",
        notes=("UpdatedAt of VulnerabilityDB and JavaDB is when they were built; CheckBundle shows the checks.",),
    )
