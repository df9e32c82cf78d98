"""The manifest: found, parsed, and held against what Trivy demands of its own artifacts."""

from collections.abc import Callable
from dataclasses import dataclass

from mirrors.digests import short
from mirrors.doctor.addresses import Target
from mirrors.doctor.asking import Answer
from mirrors.doctor.findings import Finding, Level
from mirrors.doctor.reach import Line
from mirrors.doctor.rules import ACCEPT, after
from mirrors.registry.errors import RegistryError, clean, status_words
from mirrors.registry.manifests import Descriptor, Manifest, ManifestError, kind_of, parse_manifest, plain_type
from mirrors.trivy.catalogue import KINDS, Kind
from mirrors.trivy.rules import RuleError, check_manifest
from mirrors.wording import size_text

# Made up, and of nobody: registries must pass over it where no login is needed.
STRANGER = "Basic YWlyZ2FwLWRvY3RvcjpuZWl0aGVyLWxvZ2luLW5vci1wYXNzd29yZA=="
NOTHING = "airgap-doctor-asks-for-nothing"
# registry.mirrors sends every missing image here first.
SLOW_SECONDS = 3.0
# What Trivy says where a rule of rules.py is broken (pkg/oci/artifact.go).
TRIVYS_WORDS = {
    "layers": "Trivy stops: OCI artifact must be a single layer.",
    "media-type": "Trivy stops: unacceptable media type.",
    "index": "Trivy looks for linux/amd64 inside the index, and finds no artifact of its own there.",
    "title": "Trivy stops, or does not unpack the layer and then misses its metadata.json.",
    "size": "Trivy has no such limit, but nothing of this kind was ever so large.",
}


@dataclass(frozen=True)
class Held:
    """A manifest that Trivy would take, where it was found, and its layer."""

    repository: str
    manifest: Manifest
    layer: Descriptor
    kind: Kind


def ask_manifest(line: Line, repository: str, reference: str, authorization: str) -> Answer:
    url = line.url(f"/v2/{repository}/manifests/{reference}")
    return line.asker.get(url, "GET manifest", headers={"Accept": ACCEPT}, authorization=authorization)


def find(line: Line, target: Target, authorize: Callable[[str], str | None]) -> tuple[list[Finding], Held | None]:
    """Ask for the manifest, by each of the target's names until one is there.

    `authorize` gives the Authorization for a repository, None where there is none to get.
    """
    asked, refused = "", None
    for repository in (target.repository, *target.others):
        asked = f"GET {line.url(f'/v2/{repository}/manifests/{target.reference}')}"
        authorization = authorize(repository)
        if authorization is None:
            continue
        try:
            answer = ask_manifest(line, repository, target.reference, authorization)
        except RegistryError as error:
            return [Finding("manifest", Level.STOPS, asked, error.what, "Trivy stops here.", error.advice)], None
        if answer.status == 200:
            return _judge(asked, repository, target, answer)
        refused = refused or _refused(asked, target, answer)
    return [refused] if refused else [], None


def _refused(asked: str, target: Target, answer: Answer) -> Finding:
    came = status_words(answer.status) + (f", code {', '.join(answer.codes)}" if answer.codes else "")
    if target.kind == "trivy-checks":
        told = "Trivy falls back to the checks inside it, with one ERROR line, and scans on."
    else:
        told = after(answer.status, answer.codes)
    tagless = " Without a tag Trivy asks for latest: name the tag." if target.without_tag else ""
    cure = {
        401: "Give a login that may read this repository.",
        403: "Allow this reader to read this repository.",
        404: f"Check repository and tag.{tagless}",
    }.get(answer.status, "Look at the registry's own log.")
    return Finding("manifest", Level.STOPS, asked, came, told, cure)


def _judge(asked: str, repository: str, target: Target, answer: Answer) -> tuple[list[Finding], Held | None]:
    stated = plain_type(answer.headers.get("Content-Type", ""))
    try:
        manifest = parse_manifest(answer.body, "" if kind_of(stated) == "" else stated)
    except ManifestError as error:
        cure = "Look what really answers here; a proxy or a login page may be in between."
        return [Finding("manifest", Level.STOPS, asked, str(error), "Trivy stops here.", cure)], None
    findings = [
        Finding("manifest", Level.OK, asked, f"manifest {short(manifest.digest)}, {size_text(len(answer.body))}"),
        *_headers(asked, stated, manifest, answer),
    ]
    kind = KINDS.get(target.kind) or _kind_by_layer(manifest)
    if kind is None:
        types = ", ".join(sorted({clean(layer.media_type, 80) for layer in manifest.layers})) or "an index"
        findings.append(
            Finding("kind", Level.STOPS, asked, f"its layers are {types}", "Trivy has no use for that as a database.")
        )
        return findings, None
    try:
        layer = check_manifest(kind, manifest)
    except RuleError as error:
        level = Level.NOTE if error.code == "size" else Level.STOPS
        cure = "Copy it with a tool that changes nothing (oras, skopeo, crane, regctl), or let Airgap push it."
        findings.append(Finding(error.code, level, asked, str(error), TRIVYS_WORDS.get(error.code, ""), cure))
        return findings, None
    findings.append(
        Finding(
            "rules", Level.OK, asked, f"one layer of {size_text(layer.size)}, {layer.title}", f"It is a {kind.label}."
        )
    )
    return findings, Held(repository, manifest, layer, kind)


def _headers(asked: str, stated: str, manifest: Manifest, answer: Answer) -> list[Finding]:
    """What Trivy passes over, and others do not."""
    found = []
    if not kind_of(stated):
        came = f"Content-Type {clean(stated, 80) or 'is missing'}"
        told = "Trivy only warns; oras and crane refuse it."
        found.append(Finding("content-type", Level.NOTE, asked, came, told, "Send the manifest's own media type."))
    digest = answer.headers.get("Docker-Content-Digest", "")
    if digest and digest != manifest.digest:
        came = "Docker-Content-Digest names another digest than its bytes have"
        told = "Trivy does not look; every tool that copies refuses it."
        found.append(
            Finding("digest-header", Level.TRIPS, asked, came, told, "Something changes manifests on the way.")
        )
    elif not digest:
        came, told = "Docker-Content-Digest is missing", "Trivy does not need it; oras, crane and regctl do."
        found.append(Finding("digest-header", Level.NOTE, asked, came, told))
    if manifest.config is not None and manifest.config.size == 0:
        came, told = "its config has no bytes", "Trivy does not fetch it; oras copy fails on it."
        found.append(Finding("config", Level.NOTE, asked, came, told, "Push it with a config of two bytes, {}."))
    return found


def _kind_by_layer(manifest: Manifest) -> Kind | None:
    types = {layer.media_type for layer in manifest.layers}
    return next((kind for kind in KINDS.values() if kind.layer_media_type in types and kind.one_layer), None)


# What happens when something is not there


def examine_failure(line: Line, repository: str, authorization: str) -> Finding:
    """Ask for a tag that nobody has: what the answer makes of Trivy's list of repositories."""
    asked = f"GET {line.url(f'/v2/{repository}/manifests/{NOTHING}')}, which nobody has"
    try:
        answer = ask_manifest(line, repository, NOTHING, authorization)
    except RegistryError as error:
        return Finding("missing-tag", Level.TRIPS, asked, error.what, "Trivy stops here.", error.advice)
    came = status_words(answer.status) + (f", code {', '.join(answer.codes)}" if answer.codes else "")
    if answer.status == 200:
        return Finding(
            "missing-tag",
            Level.TRIPS,
            asked,
            "200, although there is no such tag",
            "Trivy takes whatever is sent for any name, and never learns that something is missing.",
            "Look what stands in front of the registry.",
        )
    told = after(answer.status, answer.codes)
    if answer.seconds > SLOW_SECONDS:
        waited = f"{answer.seconds:.0f} s"
        told += f" The answer took {waited}; with registry.mirrors every image of a rerouted host waits so long."
        return Finding("missing-tag", Level.TRIPS, asked, came, told, "Answer what is not there at once.")
    level = Level.OK if answer.status == 404 else Level.NOTE
    return Finding("missing-tag", level, asked, came, told)


def examine_stranger(line: Line, held: Held) -> Finding:
    """Trivy sends TRIVY_USERNAME to every registry, Harbor's adapter the robot account of the scanned image."""
    where = line.url(f"/v2/{held.repository}/manifests/sha256:{short(held.manifest.digest)}…")
    asked = f"GET {where} with a login of somewhere else"
    try:
        answer = ask_manifest(line, held.repository, held.manifest.digest, STRANGER)
    except RegistryError as error:
        return Finding("stranger", Level.NOTE, asked, error.what)
    if answer.status == 200:
        return Finding("stranger", Level.OK, asked, "200", "A login that is meant for another registry does no harm.")
    return Finding(
        "stranger",
        Level.TRIPS,
        asked,
        status_words(answer.status),
        "Where TRIVY_USERNAME or TRIVY_REGISTRY_TOKEN is set, and in Harbor's scanner, Trivy sends that to every "
        "registry, this one too, and is refused although reading needs no login.",
        "Make the registry pass over logins it does not know, or give Trivy a docker config instead.",
    )


def examine_latest(line: Line, held: Held, authorization: str) -> Finding:
    """What a reference without a tag leads to, for checks."""
    asked = f"GET {line.url(f'/v2/{held.repository}/manifests/latest')}"
    try:
        answer = ask_manifest(line, held.repository, "latest", authorization)
    except RegistryError as error:
        return Finding("latest", Level.NOTE, asked, error.what)
    if answer.status == 200:
        return Finding("latest", Level.OK, asked, "200", "--checks-bundle-repository without a tag finds something.")
    return Finding(
        "latest",
        Level.NOTE,
        asked,
        status_words(answer.status),
        "--checks-bundle-repository without a tag asks for latest. Trivy then falls back to the checks inside it, "
        "with one ERROR line, and scans on.",
        "Name the tag in every command, or push latest as well.",
    )
