"""What a door that sends kept bytes says of who took them: to ourselves, or by way of nginx's log."""

from collections.abc import Callable
from typing import TypedDict

from django.http import HttpRequest
from django.utils import timezone

from mirrors import consumers
from mirrors.consumers import Who
from mirrors.reading import ANONYMOUS
from mirrors.views.access import address_of


class Telling(TypedDict):
    """Arguments of `send_blob`."""

    on_taken: Callable[[], None]
    taken_note: str


def who_asks(request: HttpRequest) -> Who:
    reader = getattr(request, "reader", ANONYMOUS)
    return Who(address_of(request), reader.kind, reader.name, request.headers.get("User-Agent", ""))


def telling(request: HttpRequest, *, mirror_id: int, snapshot_id: int, size: int) -> Telling:
    """For a blob whose last byte means that this snapshot was taken: a layer, an archive, a file."""
    who = who_asks(request)

    def taken() -> None:
        consumers.note_taken(who, mirror_id=mirror_id, snapshot_id=snapshot_id, size=size, at=timezone.now())

    note = consumers.Note(mirror_id, snapshot_id, size, who.reader_kind, who.reader_name)
    return {"on_taken": taken, "taken_note": note.text()}


def asked(request: HttpRequest, *, mirror_id: int, digest: str) -> None:
    """A manifest is given out."""
    consumers.note_asked(who_asks(request), mirror_id=mirror_id, digest=digest, at=timezone.now())
