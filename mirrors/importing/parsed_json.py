"""bundle.json's content as JSON and back: an import that waits for a decision keeps it on its row."""

from dataclasses import asdict
from datetime import datetime
from typing import Any

from mirrors.bundle.parsed import AssumedSnapshot, ParsedBlob, ParsedBundle, ParsedSnapshot

TIMES = ("created_at", "updated_at", "next_update", "published_at", "fetched_at", "confirmed_at")


def to_json(bundle: ParsedBundle) -> dict[str, Any]:
    """Without the receipt's secret, which has a column of its own."""
    found: dict[str, Any] = _timeless(asdict(bundle))
    return {**found, "receipt_secret": ""}


def from_json(values: dict[str, Any]) -> ParsedBundle:
    snapshots = tuple(_snapshot(entry) for entry in values["snapshots"])
    assumed = tuple(AssumedSnapshot(**_timed(entry)) for entry in values["assumed"])
    return ParsedBundle(**{**_timed(values), "snapshots": snapshots, "assumed": assumed})


def _snapshot(entry: dict[str, Any]) -> ParsedSnapshot:
    blobs = tuple(ParsedBlob(**blob) for blob in entry["blobs"])
    return ParsedSnapshot(**{**_timed(entry), "blobs": blobs, "repacked": tuple(entry["repacked"])})


def _timed(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: datetime.fromisoformat(value) if key in TIMES and value else value for key, value in entry.items()}


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_timeless(each) for each in value]
    return value.isoformat() if isinstance(value, datetime) else value
