"""What an administrator types into the page of one mirror."""

import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from django import forms
from django.conf import settings

from mirrors import mirror_rules as rules
from mirrors import mirroring, wording
from mirrors.forms.login import LOGIN_FIELDS, LoginPart
from mirrors.logins import NO_LOGIN, Login
from mirrors.mirror_rules import RuleBroken, SourceSpec
from mirrors.models import Mirror
from mirrors.registry.references import host_of
from mirrors.schedule import Schedule
from mirrors.trivy.catalogue import SUGGESTED_MIRRORS, Kind
from mirrors.trivy.release import DEFAULT_PLATFORMS, LATEST, PLATFORMS
from mirrors.trivy.vex import is_directory

HERE, FIRST = ".", "-"

# What is asked of a source, and by whom; an isolated instance asks nobody.
FETCHING = frozenset(
    {"sources", "schedule", "proxy", "hold_for", "insecure", "ca_pem", "version", "platforms", "with_referrers"}
    | LOGIN_FIELDS
)
FOLDED = frozenset(
    {"proxy", "hold_for", "insecure", "ca_pem", "due", "stale", "expired", "keep", "platforms", "with_referrers"}
    | LOGIN_FIELDS
)


class MirrorForm(LoginPart):
    """Settings of one mirror, new or there already. `specs` and `wish` give what the operation takes.

    Sources stand one a line. What is set under *Connection* holds for the sources at `hold_for`, or for all of them if
    that is empty; sources elsewhere keep what they have.
    """

    name = forms.CharField(
        max_length=80,
        help_text="For commands and addresses: lower-case letters, digits, - and _. It cannot be changed later.",
        widget=forms.TextInput(attrs={"autocapitalize": "none", "spellcheck": "false"}),
    )
    label = forms.CharField(max_length=80, required=False, help_text="What people read on the dashboard.")
    sources = forms.CharField(
        strip=True,
        max_length=12_000,
        widget=forms.Textarea(attrs={"rows": 5, "spellcheck": "false", "class": "mono", "wrap": "off"}),
    )
    schedule = forms.CharField(max_length=200, required=False, widget=forms.TextInput(attrs={"spellcheck": "false"}))
    after = forms.ChoiceField(label="Place in lists", initial=HERE)
    served_as = forms.CharField(
        label="Served as",
        max_length=400,
        required=False,
        widget=forms.TextInput(attrs={"spellcheck": "false", "autocapitalize": "none"}),
    )

    proxy = forms.CharField(
        max_length=300,
        required=False,
        help_text="http://host:port, for every source of this mirror. Empty: HTTPS_PROXY of the environment, if set.",
        widget=forms.TextInput(attrs={"spellcheck": "false"}),
    )
    hold_for = forms.CharField(
        label="The following hold for the host",
        max_length=260,
        required=False,
        help_text="As it stands in the source, with its port. Empty: for every source above.",
        widget=forms.TextInput(attrs={"spellcheck": "false"}),
    )
    insecure = forms.BooleanField(
        label="Take plain HTTP or a certificate nobody vouches for",
        required=False,
        help_text="Whoever sits on the way could then give you something else. Bundles say that TLS was not verified.",
    )
    ca_pem = forms.CharField(
        label="Certificates to trust beside the system's",
        required=False,
        max_length=rules.LARGEST_CA,
        help_text="PEM text, as for a company's own authority or a proxy that opens TLS.",
        widget=forms.Textarea(
            attrs={"rows": 4, "spellcheck": "false", "class": "mono", "placeholder": "-----BEGIN CERTIFICATE-----"}
        ),
    )
    due = forms.CharField(label="Due after", max_length=40, required=False)
    stale = forms.CharField(label="Stale after", max_length=40, required=False)
    expired = forms.CharField(label="Expired after", max_length=40, required=False)
    keep = forms.IntegerField(
        label="Snapshots kept",
        required=False,
        min_value=1,
        max_value=rules.MOST_KEPT,
        help_text="Beside those that are pinned or in a bundle.",
    )
    platforms = forms.CharField(
        max_length=600,
        required=False,
        help_text="Of an image for several: linux/amd64 linux/arm64. Empty: all.",
        widget=forms.TextInput(attrs={"spellcheck": "false"}),
    )
    version = forms.CharField(
        max_length=120,
        required=False,
        help_text=(
            "latest follows new releases, 0.74.0 stays at that one. 0.74.0@sha256:… takes that version with one "
            "certain checksum file only: so a release that upstream replaced is accepted on purpose."
        ),
        widget=forms.TextInput(attrs={"spellcheck": "false", "autocapitalize": "none"}),
    )
    with_referrers = forms.BooleanField(
        label="Signatures, SBOMs and attestations too",
        required=False,
        help_text="Whatever the registry lists as referring to it.",
    )
    seen = forms.CharField(required=False, widget=forms.HiddenInput, max_length=40)

    def __init__(self, data: Any = None, *, kind: Kind, mirror: Mirror | None = None) -> None:
        self.kind, self.mirror = kind, mirror
        self.present = mirroring.specs_of(mirror) if mirror else []
        super().__init__(data, initial=self._initial())
        self._word_for_kind()
        others = [
            other for other in Mirror.objects.order_by("position", "name") if mirror is None or other.pk != mirror.pk
        ]
        names = [(other.name, f"behind {other.label}") for other in others if other != mirror]
        self.fields["after"].choices = [(HERE, "where it is" if mirror else "last"), (FIRST, "first"), *names]  # type: ignore[attr-defined]
        if mirror is not None:
            del self.fields["name"]
        if kind.name != "oci":
            del self.fields["with_referrers"]
        if kind.transport != "oci":
            del self.fields["served_as"]
        if kind.transport != "release":
            del self.fields["version"]
        if kind.name not in ("oci", "release"):
            del self.fields["platforms"]
        self.offer_logins(next((spec.login for spec in self.present if spec.login.is_set), NO_LOGIN))
        # What bundles brought needs no source, here or in a chain of enclaves.
        self.fields["sources"].required = mirror is None or bool(self.present)
        if settings.AIRGAP_SIDE == "isolated":
            for field in FETCHING & self.fields.keys():
                del self.fields[field]

    @property
    def fetches(self) -> bool:
        """Whether the form asks where from and how often."""
        return "sources" in self.fields

    @property
    def advanced_open(self) -> bool:
        """Whether the folded part holds an error."""
        return bool(self.errors.keys() & FOLDED)

    def _word_for_kind(self) -> None:
        kind = self.kind
        if kind.transport == "vex":
            sources = (
                "One a line, asked in order: a base address (https://host/path), https://github.com/OWNER/REPO, an "
                "archive (https://….tar.gz//folder), git (git+https://host/path.git@branch), or a directory (file:///path)."
            )
        elif kind.transport == "release":
            sources = (
                "One a line, asked in order: https://github.com/OWNER/REPO, or a folder such as "
                "https://host/trivy/v{version}/ with files named as Trivy's, or with names of your own: "
                "…/trivy-{version}-{platform}.tar.gz. The latest version is asked at …/releases/latest, else at latest "
                "beside the versions (a redirect to the version, or text or JSON that names it); another address for "
                "that follows as #latest=https://…"
            )
            self.fields[
                "platforms"
            ].help_text = (
                f"As in the files' names: {', '.join(PLATFORMS)}. With .deb or .rpm at the end, the Linux package."
            )
        else:
            tag = f"Without a tag, :{kind.default_tag} is taken." if kind.default_tag else "A tag or digest is needed."
            sources = f"One a line, asked in order until one answers: host/path:tag, without https://. {tag}"
        self.fields["sources"].help_text = sources
        self.fields["served_as"].help_text = (
            "What scanners ask this instance for: repository or repository:tag. "
            f"Empty: mirrors/{self.mirror.name if self.mirror else 'NAME'}; without a tag, that of the first source."
            + (" After a change, scanners that ask by the old name get 404." if self.mirror else "")
        )
        own = wording.every_text(kind.check_every)
        schedule = self.fields["schedule"]
        schedule.help_text = (
            f'Empty: {own}. Or 90m, 6h, 1d; five cron fields in UTC, such as "30 5 * * *" for every day at 05:30; '
            "or manual."
        )
        schedule.widget.attrs["placeholder"] = compact(kind.check_every)
        usual = mirroring.usual_limits(self.mirror, kind)
        for limit in ("due", "stale", "expired"):
            self.fields[limit].widget.attrs["placeholder"] = compact(getattr(usual, limit))
        self.fields["keep"].widget.attrs["placeholder"] = str(kind.keep)

    def _initial(self) -> dict[str, Any]:
        mirror = self.mirror
        if mirror is None:
            suggested = next((each for each in SUGGESTED_MIRRORS if each.kind == self.kind.name), None)
            sources = "\n".join(mirroring.default_sources(self.kind.name))
            if suggested is None:
                return {"sources": sources, "label": self.kind.label}
            usual = {"platforms": " ".join(DEFAULT_PLATFORMS), "version": LATEST}
            return {"sources": sources, "label": suggested.label, "name": suggested.name, **usual}
        host, model = held_for(self.present)
        limits = {part: getattr(mirror, f"{part}_seconds") for part in ("due", "stale", "expired")}
        return {
            "label": mirror.label,
            "sources": "\n".join(spec.reference for spec in self.present),
            "schedule": mirror.schedule,
            "proxy": mirror.proxy,
            "hold_for": host,
            "insecure": model.insecure,
            "ca_pem": model.ca_pem,
            "username": model.login.username,
            "keep": mirror.keep,
            "platforms": " ".join(mirror.platforms),
            "with_referrers": mirror.with_referrers,
            "served_as": served_text(mirror),
            "version": mirror.version,
            "seen": mirroring.fingerprint(mirror),
            **{part: compact(timedelta(seconds=value)) if value else "" for part, value in limits.items()},
        }

    # What the operation takes

    def wish(self) -> mirroring.Settings:
        """Raises RuleBroken where the text cannot be taken apart; the operation checks the rest."""
        said = self.cleaned_data
        asked: dict[str, Any] = {
            "label": said["label"] or (self.mirror.name if self.mirror else said["name"]),
            "keep": said["keep"],
            "due": rules.checked_duration(said["due"], "due"),
            "stale": rules.checked_duration(said["stale"], "stale"),
            "expired": rules.checked_duration(said["expired"], "expired"),
        }
        if self.fetches:
            asked |= {"schedule": said["schedule"], "proxy": said["proxy"]}
        if self.fetches and (self.present or said["sources"].strip()):
            asked["sources"] = self.specs()
        if self.mirror is None:
            asked["kind"] = self.kind.name
        if said["after"] != HERE:
            asked["after"] = None if said["after"] == FIRST else said["after"]
        if "platforms" in self.fields:
            asked["platforms"] = re.split(r"[\s,]+", said["platforms"])
        if "with_referrers" in self.fields:
            asked["with_referrers"] = said["with_referrers"]
        if "served_as" in self.fields:
            asked["served_as"] = said["served_as"]
        if "version" in self.fields:
            asked["version"] = said["version"]
        return mirroring.Settings(**asked)

    def specs(self) -> list[SourceSpec]:
        """The sources with the connection settings that hold for them."""
        lines = [line.strip() for line in self.cleaned_data["sources"].splitlines() if line.strip()]
        references = [rules.checked_reference(line, self.kind) for line in lines]
        wanted = self.cleaned_data["hold_for"].strip().lower()
        hosts = list(dict.fromkeys(host_of(reference) for reference in references if not is_directory(reference)))
        if wanted and wanted not in hosts:
            raise RuleBroken("hold_for", f"None of the sources is at {wanted[:80]!r}. There are: {', '.join(hosts)}.")
        if self.sets_login and not wanted and len(hosts) > 1:
            raise RuleBroken(
                "hold_for", f"Say which host this login is for; otherwise it would go to {wording.joined(hosts)}."
            )
        present = {spec.reference: spec for spec in self.present}
        return [
            self._spec(reference, present, covered=not wanted or host_of(reference) == wanted)
            for reference in references
        ]

    def _spec(self, reference: str, present: dict[str, SourceSpec], *, covered: bool) -> SourceSpec:
        before = present.get(reference, SourceSpec(reference))
        if not covered:
            return before
        said = self.cleaned_data
        stored = self._stored(reference)
        # A further repository on a host that we log in at already is logged in at, too.
        login = self.asked_login(before.login if reference in present else stored, stored)
        return SourceSpec(reference, said["insecure"], rules.checked_ca(said["ca_pem"]), login)

    def _stored(self, reference: str) -> Login:
        """A login that is kept for this source's host."""
        there = (spec.login for spec in self.present if host_of(spec.reference) == host_of(reference))
        return next((login for login in there if login.is_set), NO_LOGIN)


def served_text(mirror: Mirror) -> str:
    """Under which name it is served, as it is typed: the tag only where it is not its source's."""
    tag = "" if mirror.served_tag_follows else f":{mirror.served_tag}"
    return f"{mirror.served_repository}{tag}"


def held_for(specs: Sequence[SourceSpec]) -> tuple[str, SourceSpec]:
    """The host whose connection settings a form shows, and a source that has them; "" where they hold for all."""
    special = [spec for spec in specs if spec.insecure or spec.ca_pem or spec.login.is_set]
    if not special:
        return "", SourceSpec("")
    model = special[0]
    alike = [(spec.insecure, spec.ca_pem, spec.login.kind, spec.login.username) for spec in specs]
    hosts = {host_of(spec.reference) for spec in specs}
    if len(hosts) > 1 and all(settings == alike[0] for settings in alike):
        return "", model
    return host_of(model.reference), model


def compact(duration: timedelta) -> str:
    """`9h`, `1d12h`, as it is typed."""
    minutes = int(duration.total_seconds()) // 60
    parts = ((minutes // 1440, "d"), (minutes // 60 % 24, "h"), (minutes % 60, "m"))
    return "".join(f"{count}{unit}" for count, unit in parts if count) or "1m"


def rhythm(mirror: Mirror) -> str:
    """How often a mirror is synced, in words."""
    return Schedule.parse(mirror.schedule_text).sentence()
