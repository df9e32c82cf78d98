"""Adding, changing and removing sites: the isolated networks that bundles are carried to. What goes there and what
arrived is said by transfers (transfers.py), how old it is there by site_standing.py.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import Q

from mirrors import mirror_rules, record, wording
from mirrors.mirroring import KEEP, Keep
from mirrors.models import Site, Transfer
from mirrors.rules import RuleBroken

CODE = re.compile(r"[A-Z0-9](?:-?[A-Z0-9]){0,11}")
MOST_COURIER_DAYS = 365
LONGEST_NOTES = 2000


class SiteError(Exception):
    """The change cannot be made to what is there now; the sentence says why, and what would help."""


class UnknownSite(SiteError):
    def __init__(self, name: str) -> None:
        super().__init__(f"There is no site called {name[:80]!r}. `site list` shows those there are.")


class SiteChanged(SiteError):
    def __init__(self, name: str) -> None:
        super().__init__(
            f"Somebody else changed {name} while this form was open. Look at what it says now, and save again."
        )


@dataclass(frozen=True)
class Wish:
    """Settings of a site as they are asked for; KEEP leaves one as it is. `courier_days` None takes the instance's."""

    label: str | Keep = KEEP
    code: str | Keep = KEEP
    receipts: str | Keep = KEEP
    courier_days: int | Keep | None = KEEP
    notes: str | Keep = KEEP


def find(name: str) -> Site:
    """The site of this name, or else of this code. Raises UnknownSite."""
    found = {site.name: site for site in Site.objects.filter(Q(name=name) | Q(code=name.upper()))}
    if not found:
        raise UnknownSite(name)
    return found.get(name) or next(iter(found.values()))


def fingerprint(site: Site) -> str:
    """Changes with every setting a form shows, so that an edit can say which state it began from."""
    shown = [site.label, site.code, site.receipts, site.courier_days, site.notes]
    return hashlib.sha256(json.dumps(shown).encode()).hexdigest()[:20]


# Rules


def checked_name(text: str) -> str:
    name = text.strip()
    if not mirror_rules.NAME.fullmatch(name) or len(name) > 80 or name in mirror_rules.RESERVED_NAMES:
        raise RuleBroken(
            "name",
            f"{name[:80]!r} cannot be a site's name. Use up to 80 lower-case letters and digits, joined by single "
            "'-' or '_', such as plant-nord.",
        )
    return name


def checked_code(text: str) -> str:
    code = text.strip().upper()
    if not CODE.fullmatch(code) or len(code) > 12:
        raise RuleBroken(
            "code",
            f"{text.strip()[:40]!r} cannot be a site's code. Use up to 12 letters and digits, joined by single '-', "
            "such as NORD-2.",
        )
    return code


def suggested_code(name: str) -> str:
    """`PLANT-NORD` of plant-nord; what is too long is cut."""
    return re.sub(r"[^A-Z0-9]+", "-", name.upper())[:12].strip("-")


def _checked(wish: Wish, site: Site) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if not isinstance(wish.label, Keep):
        values["label"] = mirror_rules.checked_label(wish.label, site.name)
    if not isinstance(wish.code, Keep):
        values["code"] = checked_code(wish.code)
    if not isinstance(wish.receipts, Keep):
        if wish.receipts not in Site.Receipts.values:
            raise RuleBroken("receipts", "Receipts are either expected or none.")
        values["receipts"] = wish.receipts
    if not isinstance(wish.courier_days, Keep):
        if wish.courier_days is not None and not 1 <= wish.courier_days <= MOST_COURIER_DAYS:
            raise RuleBroken("courier_days", f"A courier goes every 1 to {MOST_COURIER_DAYS} days.")
        values["courier_days"] = wish.courier_days
    if not isinstance(wish.notes, Keep):
        if len(wish.notes) > LONGEST_NOTES:
            raise RuleBroken("notes", f"Notes have at most {LONGEST_NOTES} characters.")
        values["notes"] = wish.notes.strip()
    return values


# Changing


def add_site(name: str, wish: Wish, *, by: str, now: datetime, address: str = "") -> Site:
    """A new site, to which nothing was carried yet. Raises RuleBroken, or SiteError if name or code are taken."""
    name = checked_name(name)
    site = Site(name=name, label=name, code="", created_at=now)
    for column, value in _checked(wish, site).items():
        setattr(site, column, value)
    site.code = site.code or checked_code(suggested_code(name))
    try:
        with transaction.atomic():
            _refuse_taken(site)
            _refuse_awaited(site)
            site.save(force_insert=True)
            record.write(by, "site added", name, f"code {site.code}, receipts {site.receipts}", address, at=now)
    except IntegrityError:
        raise SiteError(f"There is already a site called {name} or {site.code}. Choose another name.") from None
    return site


def _refuse_taken(site: Site) -> None:
    others = Site.objects.exclude(pk=site.pk)
    if others.filter(name=site.name).exists():
        raise SiteError(f"There is already a site called {site.name}. Choose another name.")
    taken = others.filter(code=site.code).first()
    if taken is not None:
        raise SiteError(f"The code {site.code} is that of {taken.label}. Choose another code.")


def _refuse_awaited(site: Site) -> None:
    awaited = Transfer.objects.open().exclude(site=site.pk).filter(site_code=site.code).select_related("site").first()
    if awaited is not None:
        raise SiteError(
            f"Receipts for {awaited.site.label} may still come under its former code {site.code}: transfer "
            f"{awaited.pk} is open. Choose another code, or wait until it is closed."
        )


def edit_site(
    name: str, wish: Wish, *, by: str, now: datetime, address: str = "", seen: str | None = None
) -> tuple[Site, tuple[str, ...]]:
    """Change what `wish` names; the site, and what changed in words. `seen` is the fingerprint the editor started from.

    Raises RuleBroken, UnknownSite, SiteChanged, or SiteError if the code is taken.
    """
    try:
        with transaction.atomic():
            site = _locked(name)
            if seen is not None and seen != fingerprint(site):
                raise SiteChanged(name)
            values = _checked(wish, site)
            changes, code = _told(site, values), site.code
            for column, value in values.items():
                setattr(site, column, value)
            if changes:
                _refuse_taken(site)
                if site.code != code:
                    _refuse_awaited(site)
                site.save()
                record.write(by, "site changed", name, "; ".join(changes), address, at=now)
    except IntegrityError:
        raise SiteError("The code is that of another site. Choose another code.") from None
    return site, tuple(changes)


def _told(site: Site, values: dict[str, Any]) -> list[str]:
    changes = []
    for column, noun in (("label", "label"), ("code", "code"), ("receipts", "receipts"), ("courier_days", "courier")):
        if column in values and values[column] != getattr(site, column):
            before, after = getattr(site, column), values[column]
            days = " days" if column == "courier_days" else ""
            words = [f"{each}{days}" if each else "as everywhere" for each in (before, after)]
            changes.append(f"{noun}: {words[0]} → {words[1]}")
    if "notes" in values and values["notes"] != site.notes:
        changes.append("notes changed")
    return changes


# Removing


@dataclass(frozen=True)
class Removal:
    """What goes with a site."""

    transfers: int
    open: int
    holdings: int


def what_removal_means(site: Site) -> Removal:
    known = site.holdings.values("mirror_name").distinct().count()
    return Removal(site.transfers.count(), site.transfers.open().count(), known)


def remove_site(name: str, *, by: str, now: datetime, address: str = "") -> Removal:
    """Remove a site with its transfers. Bundles made for it stay until their time is up; over there nothing changes."""
    with transaction.atomic():
        site = _locked(name)
        removal = what_removal_means(site)
        detail = f"code {site.code}; with {wording.counted(removal.transfers, 'transfer')}"
        record.write(by, "site removed", name, detail, address, at=now)
        site.delete()
    return removal


def _locked(name: str) -> Site:
    site = Site.objects.select_for_update(no_key=True).filter(name=name).first()
    if site is None:
        raise UnknownSite(name)
    return site
