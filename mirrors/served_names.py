"""What a mirror is called under /v2/: a repository and a tag, which no two mirrors have in common.

Upstream's organisation has two names, `aquasec` on Docker Hub and mirror.gcr.io and `aquasecurity` on ghcr.io and ECR.
Whoever replaces only the host in a reference asks for either; both answer, and one of them is kept.
"""

from typing import Any

from mirrors.mirror_rules import RuleBroken
from mirrors.models import Mirror
from mirrors.registry.references import REPOSITORY, TAG, Reference, ReferenceError
from mirrors.trivy.catalogue import Kind

LONGEST = 200
CANONICAL, OTHER = "aquasecurity/", "aquasec/"
# With one of these as a part of its name, the address of one thing in it could be read as that of another.
RESERVED = frozenset({"manifests", "blobs", "tags", "referrers"})
SETTING = "served_as"


class Taken(RuleBroken):
    """Another mirror is served under this repository and tag."""


def canonical(repository: str) -> str:
    """The name that is kept for this one."""
    return CANONICAL + repository.removeprefix(OTHER) if repository.startswith(OTHER) else repository


def both(repository: str) -> tuple[str, ...]:
    """Every name that answers for a repository, the kept one first."""
    kept = canonical(repository)
    return (kept, OTHER + kept.removeprefix(CANONICAL)) if kept.startswith(CANONICAL) else (kept,)


def is_repository(text: str) -> bool:
    """Whether it can be a repository's name at all; asked before any look-up."""
    return len(text) <= LONGEST and REPOSITORY.fullmatch(text) is not None


def own_repository(name: str) -> str:
    """Where a mirror is served that nobody gave a name."""
    return f"mirrors/{name}"


def tag_of(reference: str, kind: Kind) -> str:
    """The tag a source is asked by; the kind's own, else `latest`, where it is asked by digest alone."""
    usual = kind.default_tag or "latest"
    try:
        return Reference.parse(reference, default_tag=usual).tag or usual
    except ReferenceError:
        return usual


def parse(text: str) -> tuple[str, str]:
    """Repository, as it is kept, and tag ("" if none is said) of `REPOSITORY[:TAG]`. Raises RuleBroken."""
    repository, colon, tag = text.strip().removeprefix("/").partition(":")
    if not is_repository(repository):
        raise RuleBroken(
            SETTING,
            f"{repository[:80]!r} cannot be a repository's name. Use lower-case letters and digits, joined by single "
            f"'-', '_', '.' or '/', up to {LONGEST} of them, without a host, such as mirrors/db or team/image:1.2.",
        )
    if reserved := RESERVED.intersection(repository.split("/")):
        raise RuleBroken(
            SETTING, f"No part of a repository's name can be {sorted(reserved)[0]!r}: it has a meaning in addresses."
        )
    if colon and not TAG.fullmatch(tag):
        raise RuleBroken(SETTING, f"{tag[:80]!r} is not a tag; expected up to 128 letters, digits, '.', '_' or '-'.")
    return canonical(repository), tag


def columns(mirror: Mirror, kind: Kind, served_as: str | None, first_source: str) -> dict[str, Any]:
    """The three columns for what is asked: `REPOSITORY[:TAG]`, "" for the mirror's own name, None for no change.

    A tag that was not said is that of the first source, and stays so. Raises RuleBroken.
    """
    if kind.transport != "oci":
        if served_as:
            raise RuleBroken(
                SETTING, f"{kind.label}: this kind is not served as a repository; it has an address of its own."
            )
        return {"served_repository": "", "served_tag": "", "served_tag_follows": True}
    if served_as is None and mirror.served_repository:
        repository, tag = mirror.served_repository, "" if mirror.served_tag_follows else mirror.served_tag
    else:
        repository, tag = parse(served_as) if served_as else (own_repository(mirror.name), "")
    kept = tag or tag_of(first_source, kind)
    _refuse_taken(mirror, repository, kept, said=bool(tag))
    return {"served_repository": repository, "served_tag": kept, "served_tag_follows": not tag}


def gone(mirror: Mirror, values: dict[str, Any]) -> str:
    """What becomes of scanners that ask by the name a mirror has, once it has these columns; "" where it stays."""
    before = (mirror.served_repository, mirror.served_tag)
    after = tuple(
        values.get(column, old) for column, old in zip(("served_repository", "served_tag"), before, strict=True)
    )
    if before == after or not mirror.served_repository:
        return ""
    told = f" Tell them {':'.join(after)}; the page Use it has the new lines." if after[0] else ""
    return f"Scanners that ask for {':'.join(before)} do not find this mirror there any more.{told}"


def _refuse_taken(mirror: Mirror, repository: str, tag: str, *, said: bool) -> None:
    other = Mirror.objects.filter(served_repository=repository, served_tag=tag).exclude(pk=mirror.pk).first()
    if other is None:
        return
    names = " and ".join(f"{name}:{tag}" for name in both(repository))
    hint = "Choose another repository or tag" if said else "Say another one with its tag, such as"
    example = "" if said else f" {repository}:{tag}-{mirror.name}"[:160]
    raise Taken(SETTING, f"The mirror {other.name} is served as {names} already. {hint}{example}.")
