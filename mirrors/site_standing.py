"""How old each database is at each site: what sites hold, gathered into facts and judged by mirrors/freshness.py with
the courier's limits, as it is judged over there. The same few queries for one site and for 500.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from django.conf import settings
from django.db.models import Count, OuterRef, Subquery

from mirrors import freshness, wording
from mirrors.clock import Reading
from mirrors.freshness import BUILT, ISOLATED, NEVER, Facts, Look, Verdict
from mirrors.models import Mirror, Site, SiteHolding, Snapshot, Transfer
from mirrors.transfers import holds
from mirrors.trivy.catalogue import KINDS

EVIDENCE = {
    Transfer.Evidence.RECEIPT: "receipt",
    Transfer.Evidence.CODE: "typed code",
    Transfer.Evidence.HAND: "by hand",
    SiteHolding.ASSUMED: "assumed",
}


@dataclass(frozen=True, slots=True)
class HoldingStanding:
    """One database at one site.

    `holding` is None for what is current here and never went there. `is_current`: it is what is current here; None if
    nothing is. `on_the_way` is what was carried after it, where receipts are expected and did not come yet.
    """

    mirror_name: str
    label: str
    holding: SiteHolding | None
    verdict: Verdict | None
    is_current: bool | None
    on_the_way: SiteHolding | None

    @property
    def evidence(self) -> str:
        return EVIDENCE.get(self.holding.evidence, "") if self.holding is not None else ""

    @property
    def is_assumed(self) -> bool:
        return self.holding is not None and self.holding.is_assumed

    @property
    def age_text(self) -> str:
        age = self.verdict.age if self.verdict is not None else None
        return "–" if age is None else wording.age_text(age)


@dataclass(frozen=True, slots=True)
class SiteStanding:
    """How one site stands: the worst of what it holds. `open_transfers` are prepared or carried."""

    site: Site
    rows: tuple[HoldingStanding, ...]
    look: Look
    last_transfer: Transfer | None
    open_transfers: int
    now: datetime

    @property
    def held(self) -> tuple[HoldingStanding, ...]:
        return tuple(row for row in self.rows if row.holding is not None)

    @property
    def oldest(self) -> HoldingStanding | None:
        """What makes it stand as it stands: the worst state, of those the oldest."""
        return max(self.held, key=_trouble, default=None)

    @property
    def is_assumed(self) -> bool:
        return any(row.is_assumed for row in self.held)

    @property
    def summary(self) -> str:
        """`4 databases, oldest 2 d`, `4 databases, oldest 31 d (assumed)`, `nothing arrived yet`."""
        oldest = self.oldest
        if oldest is None:
            return "nothing arrived yet"
        assumed = " (assumed)" if oldest.is_assumed else ""
        return f"{wording.counted(len(self.held), 'database')}, oldest {oldest.age_text}{assumed}"

    @property
    def ages(self) -> str:
        """`Vulnerability DB: 2 d, Java DB: 3 d (assumed)`; where all are assumed, `summary` says so."""
        mixed = self.is_assumed and not all(row.is_assumed for row in self.held)
        return ", ".join(
            f"{row.label}: {row.age_text}{' (assumed)' if mixed and row.is_assumed else ''}" for row in self.held
        )

    @property
    def last_arrival(self) -> datetime | None:
        return max((row.holding.since for row in self.held if row.holding is not None), default=None)


def _trouble(row: HoldingStanding) -> tuple[int, timedelta]:
    return (row.verdict.look.rank, row.verdict.age or timedelta()) if row.verdict is not None else (-1, timedelta())


def courier_interval(site: Site) -> timedelta:
    return timedelta(days=site.courier_days or settings.AIRGAP_COURIER_DAYS)


def standings(sites: Sequence[Site], reading: Reading, mirrors: Sequence[Mirror] | None = None) -> list[SiteStanding]:
    """How these sites stand, in their order; four queries, one less for whoever has all mirrors in their order."""
    holdings: dict[int, list[SiteHolding]] = {}
    for holding in SiteHolding.objects.filter(site__in=sites):
        holdings.setdefault(holding.site_id, []).append(holding)
    newest = Transfer.objects.filter(site=OuterRef("pk")).newest_first().values("pk")[:1]
    last_ids = Site.objects.filter(pk__in=[site.pk for site in sites]).values(last=Subquery(newest))
    last = {each.site_id: each for each in Transfer.objects.filter(pk__in=last_ids).select_related("bundle")}
    counts = Transfer.objects.open().filter(site__in=sites).order_by().values("site_id").annotate(count=Count("pk"))
    opened = {row["site_id"]: row["count"] for row in counts}
    if mirrors is None:
        mirrors = list(Mirror.objects.select_related("current").order_by("position", "name"))
    for mirror in mirrors:
        if mirror.current is not None:
            # The snapshot's own `mirror` would be a query for each: it is this one.
            mirror.current.mirror = mirror
    here, judge = _Here.of(mirrors), _Judge(reading)
    return [
        _standing(site, holdings.get(site.pk, []), here, last.get(site.pk), opened.get(site.pk, 0), judge)
        for site in sites
    ]


class _Here(NamedTuple):
    """What is here, by the mirror's name and in the mirrors' order; gathered once for all sites."""

    labels: dict[str, str]
    current: dict[str, Snapshot | None]
    offered: frozenset[str]

    @classmethod
    def of(cls, mirrors: Sequence[Mirror]) -> "_Here":
        return cls(
            {mirror.name: mirror.label for mirror in mirrors},
            {mirror.name: mirror.current for mirror in mirrors},
            frozenset(each.name for each in mirrors if each.current is not None and each.asset.in_everything),
        )


def _standing(
    site: Site,
    holdings: Iterable[SiteHolding],
    here: _Here,
    last: Transfer | None,
    opened: int,
    judge: "_Judge",
) -> SiteStanding:
    known = {each.mirror_name: each for each in holdings if not each.is_assumed}
    assumed = {each.mirror_name: each for each in holdings if each.is_assumed}
    labels, current, offered = here
    rows = []
    for name in [*labels, *sorted((known.keys() | assumed.keys()) - labels.keys())]:
        on_the_way = None
        if site.expects_receipts:
            holding, on_the_way = known.get(name), assumed.get(name)
        else:
            holding = assumed.get(name) or known.get(name)
        if holding is None and on_the_way is None and name not in offered:
            continue
        told = holding or on_the_way
        rows.append(
            HoldingStanding(
                mirror_name=name,
                label=labels.get(name) or (told.label if told is not None else name),
                holding=holding,
                verdict=judge(site, holding) if holding is not None else None,
                is_current=_is_current(holding, current.get(name)),
                on_the_way=on_the_way,
            )
        )
    verdicts = [row.verdict for row in rows if row.verdict is not None]
    look = max((verdict.look for verdict in verdicts), key=lambda each: each.rank, default=freshness.LOOKS[NEVER])
    return SiteStanding(site, tuple(rows), look, last, opened, judge.reading.now)


def _is_current(holding: SiteHolding | None, current: Snapshot | None) -> bool | None:
    if holding is None or current is None:
        return None
    return holds(holding, current)


class _Judge:
    """Gives verdicts as the isolated side gives them, by the courier's rhythm. Most sites hold the same: asked once."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self._given: dict[tuple[object, ...], Verdict] = {}

    def __call__(self, site: Site, holding: SiteHolding) -> Verdict:
        interval = courier_interval(site)
        key = (holding.kind, holding.label, holding.updated_at, holding.confirmed_at, holding.next_update, interval)
        if key not in self._given:
            facts = Facts(
                label=holding.label,
                kind=KINDS[holding.kind],
                side=ISOLATED,
                has_sources=False,
                expected_interval=interval,
                has_data=True,
                updated_at=holding.updated_at,
                next_update=holding.next_update,
                confirmed_at=holding.confirmed_at,
                clock_behind=self.reading.behind,
            )
            self._given[key] = freshness.judge(facts, self.reading.now)
        return self._given[key]


def worst_first(found: Iterable[SiteStanding]) -> list[SiteStanding]:
    """What needs a courier on top; a site that never got anything below what grows old there."""

    def trouble(each: SiteStanding) -> tuple[bool, int, timedelta]:
        oldest = each.oldest
        age = oldest.verdict.age if oldest is not None and oldest.verdict is not None else None
        return (oldest is not None, each.look.rank, age or timedelta())

    return sorted(found, key=trouble, reverse=True)


def headline(found: Sequence[SiteStanding]) -> str:
    """`Both sites are fresh.`, `One of three sites is stale.`, `Plant Nord is due: the Java DB there is 9 days old.`"""
    if not found:
        return "No site is known yet."
    arrived = [each for each in found if each.oldest is not None]
    troubled = [each for each in worst_first(arrived) if each.look.state != freshness.FRESH]
    if not arrived:
        return "Nothing has arrived at any site yet." if len(found) > 1 else f"{headline_of(found[0])}"
    if len(found) == 1:
        return headline_of(found[0])
    if not troubled:
        waiting = len(found) - len(arrived)
        if waiting:
            words = wording.number_word(waiting), "has" if waiting == 1 else "have"
            return wording.capitalized(f"{words[0]} of {wording.number_word(len(found))} sites {words[1]} nothing yet.")
        return "Both sites are fresh." if len(found) == 2 else f"All {wording.number_word(len(found))} sites are fresh."
    count, total = wording.number_word(len(troubled)), wording.number_word(len(found))
    start = f"{count} of {total} sites {'is' if len(troubled) == 1 else 'are'} not fresh"
    if len(troubled) == len(found):
        start = "neither site is fresh" if len(found) == 2 else f"none of {total} sites is fresh"
    return wording.capitalized(f"{start}. {headline_of(troubled[0])}")


def headline_of(found: SiteStanding) -> str:
    """One site in a sentence."""
    label, oldest = found.site.label, found.oldest
    if oldest is None or oldest.verdict is None:
        return f"Nothing has arrived at {label} yet."
    assumed = ", as far as can be assumed" if oldest.is_assumed else ""
    if found.look.state == freshness.FRESH:
        return f"{label} is fresh{assumed}."
    what, age = wording.with_article(oldest.label, start=True), oldest.verdict.age
    if age is None:
        return f"{what} at {label} is of unknown age{assumed}."
    if oldest.verdict.judged_from == BUILT:
        return f"{what} at {label} is {wording.long_age(age)} old{assumed}."
    return f"{what} at {label} was last confirmed {wording.long_age(age)} ago{assumed}."
