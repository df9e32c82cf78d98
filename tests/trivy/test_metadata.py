import json
from datetime import UTC, datetime

import pytest

from mirrors.trivy.catalogue import KINDS
from mirrors.trivy.metadata import METADATA_LIMIT, MetadataError, is_zero, parse_metadata, parse_time

DB = KINDS["trivy-db"]
GOOD = {
    "Version": 2,
    "NextUpdate": "2026-11-21T06:31:52.104857412Z",
    "UpdatedAt": "2026-11-20T06:31:52.1048576Z",
    "DownloadedAt": "0001-01-01T00:00:00Z",
}


def raw(**changes):
    return json.dumps({key: value for key, value in {**GOOD, **changes}.items() if value is not ...}).encode() + b"\n"


def test_it_reads_what_upstream_writes():
    metadata = parse_metadata(raw(), DB)

    assert metadata.version == 2
    assert metadata.updated_at == datetime(2026, 11, 20, 6, 31, 52, 104857, tzinfo=UTC)
    assert metadata.next_update == datetime(2026, 11, 21, 6, 31, 52, 104857, tzinfo=UTC)
    assert metadata.downloaded_at is None


@pytest.mark.parametrize(
    ("text", "microsecond"),
    [
        ("2026-11-20T06:31:52Z", 0),
        ("2026-11-20T06:31:52.1Z", 100000),
        ("2026-11-20T06:31:52.123456789Z", 123456),
        ("2026-11-20T06:31:52.9999999999999Z", 999999),
        ("2026-11-20T08:31:52.5+02:00", 500000),
        ("2026-11-20T01:01:52-05:30", 0),
    ],
)
def test_it_reads_rfc_3339_with_any_fraction_and_offset(text, microsecond):
    assert parse_time(text) == datetime(2026, 11, 20, 6, 31, 52, microsecond, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "2026-11-20",
        "2026-11-20 06:31:52Z",
        "2026-11-20T06:31:52",
        "2026-13-20T06:31:52Z",
        "2026-11-20T25:31:52Z",
        "2026-11-20T06:31:52+99:00",
        "0001-01-01T00:00:00+10:00",
        "2026-11-20T06:31:52.Z",
        "２026-11-20T06:31:52Z",
        "2026-11-20T06:31:52Z\n",
    ],
)
def test_it_refuses_other_times(text):
    with pytest.raises(MetadataError, match="not an RFC 3339 time"):
        parse_time(text)


def test_gos_zero_time_is_zero():
    assert is_zero(parse_time("0001-01-01T00:00:00Z"))


def test_a_missing_or_zero_next_update_is_none():
    assert parse_metadata(raw(NextUpdate=...), DB).next_update is None
    assert parse_metadata(raw(NextUpdate="0001-01-01T00:00:00Z"), DB).next_update is None


@pytest.mark.parametrize("updated_at", [..., None, "0001-01-01T00:00:00Z"])
def test_it_refuses_a_build_that_does_not_say_when_it_was_made(updated_at):
    with pytest.raises(MetadataError, match="does not say when the build was made"):
        parse_metadata(raw(UpdatedAt=updated_at), DB)


def test_it_refuses_a_newer_schema():
    with pytest.raises(MetadataError, match=r"schema version 3; a Vulnerability DB under tag 2 has version 2\. Trivy"):
        parse_metadata(raw(Version=3), DB)


@pytest.mark.parametrize("version", [1, ...])
def test_it_refuses_an_older_schema_or_none(version):
    with pytest.raises(MetadataError, match="outdated build"):
        parse_metadata(raw(Version=version), DB)


@pytest.mark.parametrize("version", ["2", 2.0, True, None, [2]])
def test_it_refuses_a_version_that_is_no_number(version):
    with pytest.raises(MetadataError, match="not a number"):
        parse_metadata(raw(Version=version), DB)


def test_it_refuses_a_time_of_the_wrong_type():
    with pytest.raises(MetadataError, match="UpdatedAt 1700000000, which is not a time"):
        parse_metadata(raw(UpdatedAt=1700000000), DB)
    with pytest.raises(MetadataError, match="wrong NextUpdate: 'soon' is not"):
        parse_metadata(raw(NextUpdate="soon"), DB)


@pytest.mark.parametrize(
    "data", [b"", b"<html>", b"\xff\xfe{}", b"\x00" * 100, b"[" * 60_000, b'{"Version": ' + b"9" * 5000 + b"}", b"{"]
)
def test_it_refuses_garbage(data):
    with pytest.raises(MetadataError, match=r"metadata\.json is not JSON"):
        parse_metadata(data, DB)


@pytest.mark.parametrize("data", [b"[]", b"null", b"2", b'"text"'])
def test_it_refuses_json_that_is_no_object(data):
    with pytest.raises(MetadataError, match="instead of an object"):
        parse_metadata(data, DB)


def test_it_refuses_a_huge_file_before_parsing_it():
    with pytest.raises(MetadataError, match="65537 bytes; a real one has about 140"):
        parse_metadata(b"{" + b" " * METADATA_LIMIT, DB)


def test_unknown_keys_are_no_fault():
    assert parse_metadata(raw(Comment="x"), DB).version == 2
