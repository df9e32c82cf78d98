"""The dashboard's rows: one standing turned into the words and shapes its template prints.

Everything is put into words here, once, so that the template of 200 rows has nothing left to compute.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from html import escape as escaped
from typing import NamedTuple

from django.conf import settings
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.safestring import SafeString

from mirrors import digests, plot, wording
from mirrors.freshness import BUILT
from mirrors.models import Import, Mirror, PushRun, Snapshot, SyncRun, User
from mirrors.pushing import standing as pushing
from mirrors.registry.references import host_of
from mirrors.standing import Brought, Standing
from mirrors.templatetags.wording import time_element
from mirrors.trivy.catalogue import Limits

WAITING_LONG = timedelta(seconds=20)
NOTABLE = timedelta(seconds=0.05)


@lru_cache(maxsize=4096)
def escape(text: str) -> SafeString:
    """As Django's, without its detour for lazy texts. Kept, because most texts are the same at the next look."""
    return SafeString(escaped(text))


@dataclass(frozen=True, slots=True)
class Moving:
    """An open run in a line: `value` of `maximum` bytes, or None for a bar that only says that something moves."""

    text: str
    value: int | None
    maximum: int
    stop_url: str
    run_url: str


class Row(NamedTuple):
    """One database as the dashboard shows it; every text is escaped and ready to print."""

    name: SafeString
    label: SafeString
    state: SafeString
    word: SafeString
    age: SafeString
    about: SafeString
    rhythm: SafeString
    ruler: SafeString
    ruler_text: SafeString
    hops: SafeString
    lead: SafeString
    detail: SafeString
    url: SafeString
    poll_url: SafeString
    sync_url: SafeString
    run_url: str
    current_id: int | None
    may_sync: bool
    may_export: bool
    pushed: SafeString
    moving: Moving | None
    ended: str
    ended_state: str
    ended_url: str


@lru_cache(maxsize=16)
def _pattern(name: str, *arguments: str | int) -> str:
    return reverse(f"mirrors:{name}", args=arguments)


def mirror_url(view: str, name: str) -> str:
    """As `reverse`, for a view that takes a mirror's name (a slug, so it needs no quoting)."""
    return _pattern(view, "_name_").replace("_name_", name)


def run_url(view: str, pk: int) -> str:
    return _pattern(view, 777000777).replace("777000777", str(pk))


def drawn_rows(standings: Iterable[Standing], now: datetime, user: User) -> SafeString:
    """The rows a person sees, "" if there are none; what they may not do is not offered."""
    may_operate = user.may_operate
    return SafeString("".join([drawn(row_of(standing, now, may_operate)) for standing in standings]))


@lru_cache(maxsize=1024)
def drawn(row: Row) -> SafeString:
    """The row in HTML. Kept: most rows read the same at the next look, and drawing takes longer than judging."""
    # A template looks for a key first; with the tuple itself, every look-up would begin with an exception.
    return render_to_string("dashboard/_row.html", {"row": row._asdict()})


def row_of(standing: Standing, now: datetime, may_operate: bool) -> Row:
    mirror, verdict, current, run = standing.mirror, standing.verdict, standing.current, standing.open_run
    ended = standing.last_run if run is None else None
    return Row(
        name=SafeString(mirror.name),
        label=escape(mirror.label),
        state=SafeString(verdict.state),
        word=SafeString(verdict.look.word),
        age=SafeString("–" if verdict.age is None else escape(wording.age_text(verdict.age))),
        about=about(mirror, current, standing),
        rhythm=_rhythm(standing, now),
        ruler=_ruler(standing, now),
        ruler_text=_ruler_text(verdict.limits, _whole_minutes(verdict.age), verdict.judged_from, mirror.asset.rhythm),
        hops=_hops(standing, now),
        lead=escape(verdict.lead),
        detail=escape("The first sync is under way." if run is not None and current is None else verdict.detail),
        url=SafeString(mirror_url("mirror-detail", mirror.name)),
        poll_url=SafeString(f"{_pattern('dashboard')}?row={mirror.name}"),
        sync_url=SafeString(mirror_url("mirror-sync", mirror.name)),
        run_url=run_url("run-detail", mirror.last_run_id) if mirror.last_run_id is not None and mirror.failures else "",
        current_id=mirror.current_id,
        may_sync=may_operate and mirror.enabled and settings.AIRGAP_SIDE != "isolated",
        may_export=may_operate and current is not None,
        pushed=_push_trouble(standing, now),
        moving=moving(run, now) if run is not None else None,
        ended=ended_text(ended) if ended is not None else "",
        ended_state=ended.state if ended is not None else "",
        ended_url=run_url("run-detail", ended.pk) if ended is not None else "",
    )


def moving(run: SyncRun | PushRun | Import, now: datetime) -> Moving:
    """Bytes, speed and time left of an open run; its stage while there are no bytes to count."""
    total, done = run.bytes_total or 0, run.bytes_done
    door = "run" if run.kind == "sync" else run.kind
    urls = {"stop_url": run_url(f"{door}-stop", run.pk), "run_url": run_url(f"{door}-detail", run.pk)}
    if run.state == SyncRun.State.QUEUED:
        waited = now - run.queued_at
        text = "waiting for a worker"
        if waited > WAITING_LONG:
            text = f"waiting for a worker since {wording.duration_text(waited)}; is one running?"
        return Moving(text, None, 0, **urls)
    if total and done < total:
        parts = [wording.progress_text(done, total)]
        if run.rate_bytes:
            parts += [wording.rate_text(run.rate_bytes), wording.time_left(done, total, run.rate_bytes)]
        return Moving(" · ".join(part for part in parts if part), done, total, **urls)
    return Moving(run.stage or "starting", total if total else None, total, **urls)


def ended_text(run: SyncRun) -> str:
    """How a run that just ended went, in a line."""
    # "in 0.0 s" says nothing.
    took = f" in {wording.duration_text(run.duration)}" if run.duration and run.duration >= NOTABLE else ""
    if run.state == SyncRun.State.SUCCEEDED:
        return f"{wording.size_text(run.bytes_downloaded)}{took}. {run.note}".strip()
    if run.state == SyncRun.State.UNCHANGED:
        return f"{run.note or 'Nothing new.'}{took and f' Checked{took}.'}"
    return wording.first_sentence(run.error) + "."


def asset_name(reference: str, tag: str) -> str:
    """`trivy-db:2` of `mirror.gcr.io/aquasec/trivy-db:2`; a missing tag is the kind's own."""
    last = reference.rstrip("/").rsplit("/", 1)[-1]
    name, at, digest = last.partition("@")
    if at:
        return f"{name}@{digests.short(digest)}"
    return last if ":" in last or not tag else f"{last}:{tag}"


def about(mirror: Mirror, current: Snapshot | None, standing: Standing) -> SafeString:
    """`trivy-db:2 · 108 MiB · aa74085c73`, for VEX the number of packages in front, and what is special about it."""
    asset = mirror.asset
    parts = []
    if asset.transport == "vex":
        if current is not None and current.item_count is not None:
            parts.append(wording.counted(current.item_count, "package"))
        elif standing.sources:
            parts.append(escape(standing.sources[0].host))
    elif asset.transport == "release":
        if current is not None:
            parts.append(escape(current.version))
            if current.item_count is not None:
                parts.append(wording.counted(current.item_count, "file"))
        elif standing.sources:
            parts.append(escape(standing.sources[0].host))
    else:
        reference = (
            current.source_reference if current is not None else next((s.reference for s in standing.sources), "")
        )
        if reference:
            parts.append(escape(asset_name(reference, asset.default_tag)))
    if current is not None:
        parts.append(wording.size_text(current.size_bytes))
        parts.append(f"<code>{digests.short(current.digest)}</code>")
    return SafeString(" · ".join(parts) or escape(asset.label))


def _rhythm(standing: Standing, now: datetime) -> SafeString:
    """`synced 12 min ago, next in 48 min`; `imported 2 d ago, next expected in 5 d`."""
    mirror, by_courier = standing.mirror, standing.by_courier
    parts = []
    if by_courier:
        if standing.brought is not None:
            at = standing.brought.at
            parts.append(f"imported {_moment(at, f'{wording.age_text(now - at)} ago')}")
    elif mirror.last_attempt_at is not None:
        # A run that was stopped or lost is no failure, and no sync either.
        verb = "synced" if mirror.last_success_at == mirror.last_attempt_at else "tried"
        parts.append(
            f"{verb} {_moment(mirror.last_attempt_at, f'{wording.age_text(now - mirror.last_attempt_at)} ago')}"
        )
    if by_courier:
        expected = standing.verdict.next_at
        if expected is not None:
            parts.append(_moment(expected, _expected(expected - now)))
    elif not mirror.enabled:
        parts.append("switched off")
    elif mirror.next_sync_at is None:
        parts.append("by hand only")
    elif settings.AIRGAP_SCHEDULE:
        parts.append(_moment(mirror.next_sync_at, _wait(mirror.next_sync_at - now)))
    if mirror.is_held:
        parts.insert(0, "held")
    return SafeString(", ".join(parts))


def _wait(wait: timedelta) -> str:
    """`next in 12 min`, rounded up to the minute as in the sentences; `due now` below half a minute."""
    if wait < timedelta(seconds=30):
        return "due now"
    return f"next in {wording.age_text(-(-wait // wording.MINUTE) * wording.MINUTE)}"


def _expected(wait: timedelta) -> str:
    """When the next bundle should come, or that it should be here by now."""
    if wait < -timedelta(hours=12):
        return f"next expected {wording.age_text(-wait)} ago"
    hours = -(-wait // timedelta(hours=1))
    return f"next expected in {wording.age_text(timedelta(hours=hours))}" if hours > 1 else "next expected now"


def _moment(moment: datetime, text: str, *, is_clock: bool = False) -> str:
    return str(time_element(moment, text, is_clock=is_clock))


def _hops(standing: Standing, now: datetime) -> SafeString:
    """The way of this build: built (or confirmed), pulled, exported; or fetched on the other side, and imported."""
    current, verdict = standing.current, standing.verdict
    if current is None:
        return SafeString("")
    hops = []
    if verdict.judged_from == BUILT:
        if current.updated_at is not None:
            hops.append(
                ("built", _moment(current.updated_at, wording.short_utc(current.updated_at, now), is_clock=True))
            )
    else:
        age = now - current.confirmed_at
        hops.append(("confirmed", _moment(current.confirmed_at, f"{wording.age_text(age)} ago")))
    host = escape(host_of(current.source_reference))
    pulled = _moment(current.fetched_at, _clock(current.fetched_at, now), is_clock=True)
    hops.append(("fetched" if standing.brought else "pulled", f"{pulled} from {host}"))
    if standing.brought is not None:
        hops.append(("imported", _imported(standing.brought, now)))
    exported = standing.last_export_at
    hops.append(("exported", _moment(exported, _clock(exported, now), is_clock=True) if exported else "not yet"))
    if pushed := _pushed(standing, now):
        hops.append(("pushed", pushed))
    if arrival := standing.at_sites:
        where = escape(arrival.label) if arrival.sites == 1 else wording.counted(arrival.sites, "site")
        hops.append(("at", f"{where}, {_moment(arrival.last_at, f'{wording.age_text(now - arrival.last_at)} ago')}"))
    return SafeString("".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in hops))


def _imported(brought: Brought, now: datetime) -> str:
    """`30 Nov 14:05 with bundle …, signed by Head office`, leading to the import."""
    when = _moment(brought.at, _clock(brought.at, now), is_clock=True)
    signed = f", signed by {escape(brought.signed_by)}" if brought.signed_by else ""
    return f'{when} with <a href="{run_url("import-detail", brought.run_id)}">{escape(brought.bundle)}</a>{signed}'


def _pushed(standing: Standing, now: datetime) -> str:
    """Where this build is, besides here: `to Harbor, 3 h ago`; "" while there is nothing to say."""
    level = [push.rule for push in standing.pushes if push.state == pushing.LEVEL and push.rule.pushed_at is not None]
    if level:
        last = max(rule.pushed_at for rule in level if rule.pushed_at is not None)
        names = [rule.destination.label for rule in level]
        where = escape(wording.joined(names) if len(names) < 3 else wording.counted(len(names), "destination"))
        return f"to {where}, {_moment(last, f'{wording.age_text(now - last)} ago')}"
    under_way = next((push for push in standing.pushes if push.open_run is not None), None)
    if under_way is not None:
        return f"to {escape(under_way.rule.destination.label)}: {under_way.word}"
    return "not yet" if standing.pushes else ""


def _push_trouble(standing: Standing, now: datetime) -> SafeString:
    """What is the matter with a push, in a line; "" while all is well or under way."""
    troubled = [push for push in standing.pushes if push.state == pushing.FAILING]
    if not troubled:
        return SafeString("")
    first = troubled[0].rule
    since = f" for {wording.age_text(now - first.failing_since)}" if first.failing_since is not None else ""
    more = f" So do {len(troubled) - 1} more." if len(troubled) > 1 else ""
    then = ""
    if first.next_try_at is not None and settings.AIRGAP_SCHEDULE:
        then = f" {wording.plan_text('Next try', first.next_try_at, now)}."
    said = f"Pushing to {first.destination.label} has failed{since}."
    link = f' <a href="{run_url("push-detail", first.last_run_id)}">Read the last push</a>' if first.last_run_id else ""
    why = escape(f"{wording.first_sentence(first.last_error)}.{then}{more}")
    return SafeString(f"<strong>{escape(said)}</strong> {why}{link}")


def _clock(moment: datetime, now: datetime) -> str:
    return wording.short_utc(moment, now).removesuffix(" UTC")


def _whole_minutes(age: timedelta | None) -> int | None:
    """Ages that look the same are the same key: pictures and their words are drawn once a minute at most."""
    return None if age is None else age // wording.MINUTE


@lru_cache(maxsize=4096)
def _ruler_text(limits: Limits, minutes: int | None, judged_from: str, rhythm: str) -> SafeString:
    age = None if minutes is None else timedelta(minutes=minutes)
    return SafeString(plot.ruler_text(limits, age, judged_from, rhythm))


def _ruler(standing: Standing, now: datetime) -> SafeString:
    verdict, current = standing.verdict, standing.current
    labelled = verdict.judged_from == BUILT or current is None
    drawing = ruler_drawing(verdict.limits, _whole_minutes(verdict.age), labelled)
    if current is None or labelled:
        return drawing
    return SafeString(f'{drawing}<span class="note">{escape(_note(standing, current, now))}</span>')


def _note(standing: Standing, current: Snapshot, now: datetime) -> str:
    """Under the ruler of what is judged by confirmation: whether upstream still has it, and its content's own date."""
    now_known = standing.verdict.is_fresh and not standing.by_courier  # whoever has no way there cannot know
    words = "is what upstream has" if now_known else "was what upstream had when last confirmed"
    date = current.updated_at or current.published_at
    if current.version:
        return f"{words}: version {current.version}" + (f" of {wording.short_utc(date, now)}" if date else "")
    if date is None:
        return words
    what = "content of" if standing.mirror.asset.transport == "vex" else "published"
    return f"{words}; {what} {wording.short_utc(date, now)}"


@lru_cache(maxsize=4096)
def ruler_drawing(limits: Limits, minutes: int | None, labelled: bool) -> SafeString:
    """The ruler as SVG. Positions are percentages, so that it stretches and its letters do not."""
    shape = plot.ruler(limits, None if minutes is None else timedelta(minutes=minutes))
    scale = 100 / shape.width
    parts = ['<svg aria-hidden="true" focusable="false">']
    for place, segment in enumerate(shape.segments):
        x = segment.x * scale
        parts.append(f'<rect class="{segment.state}" x="{x:g}%" y="6" width="{segment.width * scale:g}%" height="6"/>')
        if place:
            parts.append(f'<rect class="tick" x="{x:g}%" y="6" width="1" height="9"/>')
    if labelled:
        parts += [f'<text x="{mark.percent:g}%" y="31">{mark.text}</text>' for mark in shape.marks]
    if shape.marker is not None:
        x = (shape.marker + plot.MARKER_WIDTH / 2) * scale
        where = f'x="{x:.2f}%" y="0" width="4" height="18"'
        parts.append(f'<rect class="marker" {where} rx="2" transform="translate(-2 0)"/>')
    return SafeString("".join(parts) + "</svg>")
