"""Which names a snapshot gets in a bundle: its tag in the image layout, its name on a registry, its place in a cache.

All three are decided here, once, and written into bundle.json; install.sh and push.sh only obey.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from mirrors.bundle.contents import BundledSnapshot
from mirrors.trivy.cache import VEX_DEFAULT_NAME, VEX_REPOSITORIES
from mirrors.trivy.catalogue import KINDS

VEX_HUB = "vexhub"
# What present scanners read (0.69 and later); a cache has one place for checks.
DEFAULT_CHECKS_MAJOR = 2


@dataclass(frozen=True)
class Names:
    """`ref_name`: plain unique tag in index.json. `push_as`: `repository:tag` on a registry. `cache_path`: folder

    below a Trivy cache, empty if the cache has no place for it. The first two are empty for VEX, all for release files.
    """

    ref_name: str
    push_as: str
    cache_path: str


def plain(text: str) -> str:
    """A name of `[A-Za-z0-9._-]`, not empty, at most 100 characters, not starting with a dot or a dash."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).lstrip(".-")[:100] or "unnamed"


def unique(wanted: str, taken: Collection[str]) -> str:
    """`wanted`, or `wanted-2`, `wanted-3`, … if that is taken."""
    name, number = wanted, 1
    while name in taken:
        number += 1
        name = f"{wanted}-{number}"
    return name


def checks_major(version: str, tag: str) -> int:
    """Major version of a checks bundle: by its version annotation, else by its tag, else the present one."""
    for text in (version, tag):
        if found := re.match(r"v?(\d+)(\.|-|$)", text):
            return int(found.group(1))
    return DEFAULT_CHECKS_MAJOR


def name_all(snapshots: Sequence[BundledSnapshot], versions: Sequence[str]) -> list[Names]:
    """Names for each snapshot, in the order given. `versions` are the manifests' version annotations.

    Where two want the same name, the mirror named after its kind has it, else the first; the other is called by the
    name of its mirror.
    """
    refs: dict[int, str] = {}
    pushed: dict[int, str] = {}
    places: dict[int, str] = {}
    order = sorted(range(len(snapshots)), key=lambda i: (not _is_default(snapshots[i]), i))
    for i in order:
        snapshot = snapshots[i]
        if snapshot.is_release:
            places[i] = ""
            continue
        if snapshot.is_vex:
            wanted = VEX_DEFAULT_NAME if snapshot.mirror == VEX_HUB else plain(snapshot.mirror)
            places[i] = f"{VEX_REPOSITORIES}/{unique(wanted, _last_parts(places.values()))}"
            continue
        ref, tag = _ref_name(snapshot), _tag(snapshot)
        refs[i] = unique(plain(snapshot.mirror) if ref in refs.values() else ref, refs.values())
        target = f"{_repository(snapshot)}:{tag}"
        if target in pushed.values():
            target = f"mirrors/{plain(snapshot.mirror).lower()}:{tag}"
        pushed[i] = target
        slot = _slot(snapshot, versions[i])
        taken = {_slot(snapshots[j], versions[j]) for j in places}
        places[i] = KINDS[snapshot.kind].cache_directory if slot and slot not in taken else ""
    return [Names(refs.get(i, ""), pushed.get(i, ""), places[i]) for i in range(len(snapshots))]


def _is_default(snapshot: BundledSnapshot) -> bool:
    return snapshot.mirror in (snapshot.kind, f"{snapshot.kind}-{snapshot.tag}", VEX_HUB)


def _slot(snapshot: BundledSnapshot, version: str) -> str:
    """What only one snapshot can be in a cache: a database, or the checks of one major version."""
    place = KINDS[snapshot.kind].cache_directory if snapshot.kind in KINDS else ""
    return f"{place}-{checks_major(version, snapshot.tag)}" if snapshot.kind == "trivy-checks" else place


def _last_parts(places: Collection[str]) -> set[str]:
    return {place.rpartition("/")[2] for place in places if place.startswith("vex/")}


def _tag(snapshot: BundledSnapshot) -> str:
    """The tag, or for a reference by digest one made of it (as cosign and oras name them)."""
    return snapshot.tag or snapshot.manifest_digest.replace(":", "-")


def _ref_name(snapshot: BundledSnapshot) -> str:
    base = snapshot.kind if KINDS[snapshot.kind].one_layer else snapshot.mirror
    return plain(f"{plain(base)[:60]}-{snapshot.tag}" if snapshot.tag else base)


def _repository(snapshot: BundledSnapshot) -> str:
    """Trivy's own under the path of ghcr.io; anything else under its upstream path without the host."""
    if KINDS[snapshot.kind].one_layer:
        return f"aquasecurity/{snapshot.kind}"
    host, slash, path = snapshot.reference.partition("/")
    if not slash or not ({".", ":"} & set(host) or host == "localhost"):
        path = snapshot.reference
    path = re.sub(r"(@.*|:[^/]*)$", "", path)
    if re.fullmatch(r"[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*", path):
        return path
    return f"mirrors/{plain(snapshot.mirror).lower()}"
