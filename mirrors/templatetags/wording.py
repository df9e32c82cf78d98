"""Filters and tags that write ages, sizes and times the way mirrors/wording.py does: `{% load wording %}`."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from html import escape
from typing import Any

from django import template
from django.utils import timezone
from django.utils.safestring import SafeString

from mirrors import digests, wording

register = template.Library()


def _now(context: dict[str, Any]) -> datetime:
    """The page's own `now`, so that everything on it is told from one moment."""
    now = context.get("now")
    return now if isinstance(now, datetime) else timezone.now()


@register.filter
def age(value: timedelta | None) -> str:
    """`4 d`; empty for None."""
    return "" if value is None else wording.age_text(value)


@register.filter
def size(value: int | None) -> str:
    """`108 MiB`; empty for None."""
    return "" if value is None else wording.size_text(value)


@register.filter
def rate(value: float | None) -> str:
    """`2.1 MB/s`; empty for None or nothing."""
    return wording.rate_text(value) if value else ""


@register.filter
def duration(value: timedelta | float | None) -> str:
    """`3 min 20 s`; empty for None."""
    return "" if value is None else wording.duration_text(value)


@register.filter
def utc(value: datetime | None) -> str:
    """`2026-11-20 06:31 UTC`; empty for None."""
    return "" if value is None else wording.utc_text(value)


@register.filter
def ago(value: datetime | None, now: datetime | None = None) -> str:
    """`5 hours ago`; empty for None."""
    return "" if value is None else wording.ago_text(value, now or timezone.now())


@register.filter
def until(value: datetime | None, now: datetime | None = None) -> str:
    """`in 12 minutes`; empty for None."""
    return "" if value is None else wording.in_text(value, now or timezone.now())


@register.filter
def short(value: str | None) -> str:
    """The first ten hex digits of a digest."""
    return digests.short(value) if value else ""


@register.filter
def counted(value: int, noun: str) -> str:
    """`6 attempts`."""
    return wording.counted(value, noun)


def time_element(moment: datetime, text: str, *, is_clock: bool = False) -> SafeString:
    """The text, with the absolute UTC time for machines, in the tooltip and in print.

    In print a clock time gives way to it, a relative time is followed by it.
    """
    clock = ' class="clock"' if is_clock else ""
    return SafeString(f"<time{clock} {_time_attributes(moment)}>{escape(text)}</time>")


@lru_cache(maxsize=8192)
def _time_attributes(moment: datetime) -> str:
    """Kept, because a page of 200 rows has a thousand of them and they are the same at the next look."""
    moment = moment.astimezone(UTC)
    return f'datetime="{moment:%Y-%m-%dT%H:%M:%SZ}" title="{wording.utc_text(moment)}"'


@register.simple_tag(takes_context=True)
def when(context: dict[str, Any], moment: datetime | None, missing: str = "") -> str | SafeString:
    """`5 hours ago` or `in 12 minutes`, the UTC time in the tooltip; `missing` for None."""
    if moment is None:
        return missing
    now = _now(context)
    text = wording.in_text(moment, now) if moment > now else wording.ago_text(moment, now)
    return time_element(moment, text)


@register.simple_tag(takes_context=True)
def plan(context: dict[str, Any], what: str, moment: datetime) -> SafeString:
    """`Next sync in 12 minutes`, `The next sync is due now`; the UTC time in the tooltip."""
    return time_element(moment, wording.plan_text(what, moment, _now(context)))


@register.simple_tag(takes_context=True)
def at(context: dict[str, Any], moment: datetime | None, missing: str = "") -> str | SafeString:
    """`06:31 UTC`, `Mon 01:14 UTC` or `10 Mar`, the full UTC time in the tooltip; `missing` for None."""
    if moment is None:
        return missing
    return time_element(moment, wording.short_utc(moment, _now(context)), is_clock=True)
