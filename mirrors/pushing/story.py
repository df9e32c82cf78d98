"""A push's story: what a sync's tells, with bytes that go out."""

from typing import Any

from mirrors.story import SourceListener, Story


class PushStory(Story):
    """`bytes_uploaded` counts what went over the wire; `bytes_done` also what was there already."""

    bytes_uploaded = 0

    def sent(self, byte_count: int) -> None:
        with self._lock:
            self.bytes_done += byte_count
            self.bytes_uploaded += byte_count

    def place(self) -> dict[str, Any]:
        return {}

    def totals(self) -> dict[str, Any]:
        return {
            "bytes_total": self.bytes_total,
            "bytes_done": self.bytes_done,
            "bytes_uploaded": self.bytes_uploaded,
            "requests": self.requests,
        }


class DestinationListener(SourceListener):
    """Hears what a destination answers."""
