"""Reads `metadata.json` of a Trivy database: schema version and the three times.

The file comes from a stranger: bounded, strict, and every way to be wrong has its sentence. What the keys mean stands
in aquasecurity/trivy-db pkg/metadata/metadata.go and trivy-java-db pkg/db/metadata.go.
"""

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from mirrors.trivy.catalogue import Kind

METADATA_LIMIT = 64 * 1024
RFC3339 = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,30}))?(?:Z|([+-])(\d\d):(\d\d))", re.ASCII)


class MetadataError(Exception):
    """`metadata.json` is not what a build carries."""


@dataclass(frozen=True)
class Metadata:
    """Times are aware UTC; `next_update` and `downloaded_at` are None where the file has none or Go's zero time."""

    version: int
    updated_at: datetime
    next_update: datetime | None
    downloaded_at: datetime | None


def parse_metadata(raw: bytes, kind: Kind) -> Metadata:
    """The facts in `raw`, which must be of the schema that `kind` names. MetadataError otherwise."""
    if len(raw) > METADATA_LIMIT:
        raise MetadataError(f"metadata.json is {len(raw)} bytes; a real one has about 140. The build is damaged.")
    document = _parse_object(raw)
    version = document.get("Version", 0)
    if not isinstance(version, int) or isinstance(version, bool):
        raise MetadataError(f"metadata.json has the Version {_shown(version)}, which is not a number.")
    if version != kind.schema:
        advice = "Trivy with that schema needs another tag." if version > kind.schema else "It is an outdated build."
        raise MetadataError(
            f"metadata.json says schema version {version}; a {kind.label} under tag {kind.default_tag} has "
            f"version {kind.schema}. {advice}"
        )
    updated_at = _time(document, "UpdatedAt")
    if updated_at is None:
        raise MetadataError("metadata.json does not say when the build was made (UpdatedAt is missing or zero).")
    return Metadata(version, updated_at, _time(document, "NextUpdate"), _time(document, "DownloadedAt"))


def parse_time(text: str) -> datetime:
    """RFC 3339 with any number of fractional digits, as UTC; what is finer than a microsecond is cut off.

    MetadataError for anything else. Go's zero time comes back as year 1.
    """
    match = RFC3339.fullmatch(text)
    if match is None:
        raise MetadataError(f"{text[:60]!r} is not an RFC 3339 time.")
    year, month, day, hour, minute, second, fraction, sign, off_hours, off_minutes = match.groups()
    zone: timezone = UTC
    try:
        if sign:
            if int(off_hours) > 23 or int(off_minutes) > 59:
                raise ValueError("offset out of range")
            offset = timedelta(hours=int(off_hours), minutes=int(off_minutes))
            zone = timezone(-offset if sign == "-" else offset)
        microsecond = int((fraction or "0")[:6].ljust(6, "0"))
        moment = datetime(int(year), int(month), int(day), int(hour), int(minute), int(second), microsecond, zone)
        return moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise MetadataError(f"{text[:60]!r} is not an RFC 3339 time ({error}).") from error


def is_zero(moment: datetime) -> bool:
    """Whether a time is Go's zero value, which its JSON writes as 0001-01-01T00:00:00Z."""
    return moment.year == 1


def _parse_object(raw: bytes) -> dict[str, Any]:
    try:
        document = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise MetadataError(f"metadata.json is not JSON: it begins with {raw[:40]!r}.") from error
    if not isinstance(document, dict):
        raise MetadataError(f"metadata.json holds {_shown(document)} instead of an object.")
    return document


def _time(document: dict[str, Any], key: str) -> datetime | None:
    value = document.get(key)
    if value is None:
        return None
    if not isinstance(value, str):
        raise MetadataError(f"metadata.json has the {key} {_shown(value)}, which is not a time.")
    try:
        moment = parse_time(value)
    except MetadataError as error:
        raise MetadataError(f"metadata.json has a wrong {key}: {error}") from error
    return None if is_zero(moment) else moment


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "…"
