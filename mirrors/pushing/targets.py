"""Where a mirror's content goes in a destination: templates for repository and tags, and what they give.

`aquasecurity/trivy-db:{tag}` with {repository}, {name}, {tag}, {version} and {date}. A template is one repository with
one tag; further tags are a list of their own. What a placeholder stands for is made fit for a name.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC

from mirrors.models import Destination, Mirror, Snapshot
from mirrors.registry.references import REPOSITORY, TAG
from mirrors.rules import RuleBroken

PLACEHOLDERS = {
    "repository": "what the mirror is called here, such as aquasecurity/trivy-db",
    "name": "the mirror's name",
    "tag": "the mirror's tag, such as 2",
    "version": "upstream's version, where it states one",
    "date": "when the content was built or published, such as 20261120T0631Z",
}
DEFAULT_TARGET = "{repository}:{tag}"
MOST_EXTRA_TAGS = 20
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
# For trying a template out before the mirror holds anything.
_SAMPLES = {"repository": "sample/name", "name": "name", "tag": "1", "version": "1.0", "date": "20261120T0631Z"}


class TargetError(Exception):
    """The template gives no name for what the mirror holds; the sentence says why."""


@dataclass(frozen=True)
class Target:
    """`repository` as it is at the destination, prefix included; the first of `tags` is the template's own."""

    registry: str
    repository: str
    tags: tuple[str, ...]
    left_out: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.registry}/{self.repository}:{self.tags[0]}"


# Checking templates


def checked_target(text: str) -> str:
    """The template as it is kept. RuleBroken (`target`)."""
    target = text.strip().strip("/") or DEFAULT_TARGET
    if len(target) > 300:
        raise RuleBroken("target", "The path and tag are longer than 300 characters.")
    if "@" in target or "//" in target:
        raise RuleBroken("target", f"{target[:80]!r} is no path with a tag. Write it as {DEFAULT_TARGET} or team/db:2.")
    _check_placeholders(target, "target")
    path, tag = _split(target)
    if not path or not tag:
        raise RuleBroken(
            "target", f"{target[:80]!r} has no tag. Write path and tag, such as {path or 'team/db'}:{{tag}}."
        )
    sample = _filled(path, {**_SAMPLES, "date": "1"})
    if not REPOSITORY.fullmatch(sample) or len(sample) > 255:
        raise RuleBroken(
            "target",
            f"{path[:80]!r} cannot be a repository. Use lower-case letters and digits, joined by single '.', '_' or "
            "'-', in parts between slashes.",
        )
    _check_tag(tag, "target")
    return target


def checked_extra_tags(text: str) -> str:
    """Further tags, one space between two. RuleBroken (`extra_tags`)."""
    tags = list(dict.fromkeys(text.replace(",", " ").split()))
    for tag in tags:
        _check_placeholders(tag, "extra_tags")
        _check_tag(tag, "extra_tags")
    if len(tags) > MOST_EXTRA_TAGS or len(" ".join(tags)) > 600:
        raise RuleBroken("extra_tags", f"At most {MOST_EXTRA_TAGS} further tags are set.")
    return " ".join(tags)


def _check_placeholders(text: str, setting: str) -> None:
    for name in _PLACEHOLDER.findall(text):
        if name not in PLACEHOLDERS:
            known = " ".join(f"{{{each}}}" for each in PLACEHOLDERS)
            raise RuleBroken(setting, f"There is no placeholder {{{name[:30]}}}. There are: {known}.")
    if setting == "extra_tags" and "{repository}" in text:
        raise RuleBroken(setting, "A tag cannot hold {repository}: slashes are not allowed in tags.")


def _check_tag(tag: str, setting: str) -> None:
    if "{repository}" in tag or not TAG.fullmatch(_filled(tag, _SAMPLES)):
        raise RuleBroken(
            setting, f"{tag[:80]!r} cannot be a tag. Use letters, digits, '.', '_' and '-', at most 128 of them."
        )


def _split(target: str) -> tuple[str, str]:
    path, _, tag = target.rpartition(":")
    return (path, tag) if "/" not in tag else (target, "")


# Filling them


def target_of(
    destination: Destination, target: str, extra_tags: str, mirror: Mirror, snapshot: Snapshot | None
) -> Target:
    """Where this content goes. TargetError where the template needs what it does not have.

    Without a snapshot: where it would go, dates and versions left out. A further tag that cannot be filled is left out.
    """
    values = values_of(mirror, snapshot)
    path, tag = _split(target)
    lacking = [name for name in _PLACEHOLDER.findall(target) if not values.get(name)]
    if lacking:
        raise TargetError(
            f"{target} needs the {{{lacking[0]}}} of {mirror.name}, which "
            + ("holds nothing yet." if snapshot is None else "has none. Change the template.")
        )
    repository = "/".join(filter(None, (destination.prefix, _filled(path, values).lower())))
    tags, left_out = [_filled(tag, values)], []
    for extra in extra_tags.split():
        if all(values.get(name) for name in _PLACEHOLDER.findall(extra)):
            tags.append(_filled(extra, values))
        else:
            left_out.append(extra)
    for each in tags:
        if not TAG.fullmatch(each):
            raise TargetError(f"{each[:80]!r} is no tag. Change the template {target}.")
    if not REPOSITORY.fullmatch(repository) or len(repository) > 255:
        raise TargetError(f"{repository[:80]!r} is no repository. Change the template {target}.")
    return Target(destination.registry, repository, tuple(dict.fromkeys(tags)), tuple(left_out))


def values_of(mirror: Mirror, snapshot: Snapshot | None) -> dict[str, str]:
    """What the placeholders stand for; "" for what there is not."""
    repository, tag = _served(mirror, snapshot)
    date = (snapshot.updated_at or snapshot.published_at) if snapshot is not None else None
    return {
        "repository": repository,
        "name": mirror.name,
        "tag": _fit(tag),
        "version": _fit(snapshot.version) if snapshot is not None else "",
        "date": f"{date.astimezone(UTC):%Y%m%dT%H%MZ}" if date is not None else "",
    }


def _served(mirror: Mirror, snapshot: Snapshot | None) -> tuple[str, str]:
    """Repository and tag that the mirror has here."""
    return mirror.served_repository, mirror.served_tag


def _fit(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-.")[:100]


def _filled(template: str, values: Mapping[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda found: values.get(found[1], ""), template)
