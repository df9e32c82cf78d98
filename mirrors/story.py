"""A run's story while it happens: progress, and one line for each thing that was tried and answered.

Lines and numbers are kept in memory and written by the run's heart, once a second, under its lease.
"""

import threading
import time
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from django.db import DatabaseError
from django.utils import timezone

from mirrors import wording
from mirrors.digests import DIGEST, short
from mirrors.leases import Lease, Pulse
from mirrors.models import Run, Step
from mirrors.registry.errors import clean
from mirrors.registry.transport import Listener

MOST_STEPS = 400
LONGEST_STEP = 4000
LONGEST_STAGE = Run._meta.get_field("stage").max_length or 80
# Seconds that a column holds; a registry may well say that it is the year 9999.
MOST_SKEW = 2**31 - 1


class Story(Pulse):
    """What a run has to tell. Safe to tell from any thread."""

    def __init__(self, lease: Lease) -> None:
        self._lease = lease
        self._lock = threading.Lock()
        self._pending: list[Step] = []
        self._told = 0
        self._rate = 0.0
        self._measured = (time.monotonic(), 0)
        self.bytes_total: int | None = None
        self.bytes_done = 0
        self.bytes_downloaded = 0
        self.requests = 0
        self.stage = ""
        self.source = ""

    def tell(self, text: str, *, level: str = Step.Level.INFO, source: str = "") -> None:
        """Add a line. Part of it may be a stranger's words, so it is made fit for every database and page."""
        text = clean(text, LONGEST_STEP)
        with self._lock:
            self._told += 1
            if self._told == MOST_STEPS:
                text = "From here on only warnings and errors are kept; there were too many lines."
            elif self._told > MOST_STEPS and level == Step.Level.INFO:
                return
            step = self._lease.model.step_model
            self._pending.append(
                step(run_id=self._lease.run_id, at=timezone.now(), level=level, source=source[:500], text=text)
            )

    def warn(self, text: str, *, source: str = "") -> None:
        self.tell(text, level=Step.Level.WARNING, source=source)

    def fail(self, text: str, *, source: str = "") -> None:
        self.tell(text, level=Step.Level.ERROR, source=source)

    def held(self, byte_count: int) -> None:
        """Bytes that are there already and count as done."""
        with self._lock:
            self.bytes_done += byte_count
            self._measured = (time.monotonic(), self.bytes_done)

    def received(self, byte_count: int) -> None:
        with self._lock:
            self.bytes_done += byte_count
            self.bytes_downloaded += byte_count

    def expect(self, byte_count: int) -> None:
        """Set how many bytes the current download is about in all; done starts at nothing."""
        with self._lock:
            self.bytes_total, self.bytes_done = byte_count, 0
            self._measured = (time.monotonic(), 0)

    # What the heart writes

    def values(self) -> dict[str, object]:
        with self._lock:
            then, before = self._measured
            seconds = time.monotonic() - then
            if seconds >= 0.5:
                speed = max(0, self.bytes_done - before) / seconds
                self._rate = speed if not self._rate else 0.6 * self._rate + 0.4 * speed
                self._measured = (time.monotonic(), self.bytes_done)
            stage = clean(self.stage, LONGEST_STAGE)
            return {**self.totals(), **self.place(), "stage": stage, "rate_bytes": int(self._rate)}

    def place(self) -> dict[str, Any]:
        """Where it is at, beside how far."""
        return {"source_reference": self.source}

    def totals(self) -> dict[str, Any]:
        return {
            "bytes_total": self.bytes_total,
            "bytes_done": self.bytes_done,
            "bytes_downloaded": self.bytes_downloaded,
            "requests": self.requests,
        }

    def flush(self) -> None:
        with self._lock:
            pending, self._pending = self._pending, []
        try:
            self._lease.model.step_model._default_manager.bulk_create(pending)
        except DatabaseError:
            # Told again at the next beat, in their order.
            with self._lock:
                self._pending = pending + self._pending
            raise


class SourceListener(Listener):
    """Hears what one source answers and passes it on to the story."""

    def __init__(self, story: Story, reference: str) -> None:
        self._story = story
        self._reference = reference
        self.clock_skew_seconds: int | None = None

    def request(self, method: str, url: str, status: int, seconds: float) -> None:
        self._story.requests += 1
        parts = urlsplit(url)
        path = DIGEST.sub(lambda found: short(found[0]) + "…", parts.path or "/")
        took = f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"
        answer = status or "no answer"
        self._story.tell(f"{method} {path} at {parts.netloc}: {answer} ({took})", source=self._reference)

    def retry(self, reason: str, attempt: int, wait_seconds: float) -> None:
        wait = wording.duration_text(wait_seconds)
        self._story.warn(f"{reason} Trying again in {wait} (try {attempt + 1}).", source=self._reference)

    def received(self, byte_count: int) -> None:
        self._story.received(byte_count)

    def clock(self, registry: str, date: datetime) -> None:
        seconds = round((date - timezone.now()).total_seconds())
        self.clock_skew_seconds = max(-MOST_SKEW, min(seconds, MOST_SKEW))
