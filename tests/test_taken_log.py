"""nginx's log of the files it sent: what was completed counts, once, across restarts and rotations."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mirrors import consumers, reading, taken_log
from mirrors.consumers import Note
from mirrors.models import LogPlace, Taking
from tests.kept import keep_build

NGINX = Path(__file__).parent.parent / "deploy" / "nginx.conf"


@pytest.fixture(autouse=True)
def nothing_pending():
    consumers._tally.take()
    reading.forget()
    yield
    consumers._tally.take()


@pytest.fixture
def vulns(make_mirror, store, now):
    mirror = make_mirror("trivy-db")
    keep_build(store, mirror, now - timedelta(hours=3))
    return mirror


@pytest.fixture
def line(vulns, now):
    """line(address=…) is one line of the log, of a whole download unless told otherwise."""

    def made(**fields) -> bytes:
        said = {
            "time": now.isoformat(),
            "note": Note(vulns.pk, vulns.current_id, 100, "anonymous", "").text(),
            "status": "200",
            "completed": "OK",
            "bytes": "100",
            "content_range": "",
            "address": "10.1.2.3",
            "agent": "trivy/0.74.0",
            **fields,
        }
        return json.dumps(said).encode() + b"\n"

    return made


@pytest.fixture
def log(tmp_path) -> Path:
    path = tmp_path / "airgap-taken.log"
    path.touch()
    return path


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def test_the_fields_are_those_that_our_nginx_writes():
    (format_text,) = re.findall(r"log_format airgap_taken escape=json(.*?);", NGINX.read_text(), re.DOTALL)
    keys = set(re.findall(r'"(\w+)":', format_text))
    assert set(taken_log.FIELDS) <= keys


def test_a_completed_download_counts_once(log, line, now, vulns):
    append(log, line())
    assert taken_log.read(log, now) == 1
    assert taken_log.read(log, now) == 0
    row = Taking.objects.get()
    assert (row.mirror, row.snapshot, row.taken_at, row.count) == (vulns, vulns.current, now, 1)
    assert row.consumer.agent == "trivy/0.74.0"


@pytest.mark.parametrize(
    ("fields", "counts"),
    [
        ({"status": "206", "content_range": "bytes 50-99/100"}, True),
        ({"status": "206", "content_range": "bytes 0-49/100"}, False),
        ({"status": "206", "content_range": "nonsense"}, False),
        ({"status": "304"}, False),
        ({"status": "200", "completed": ""}, False),
        ({"note": ""}, False),
        ({"note": "1 2 3 root x"}, False),
        ({"time": "yesterday"}, False),
        ({"time": "2026-11-20T12:00:00"}, False),
        ({"agent": 5}, False),
    ],
)
def test_what_counts_is_what_was_sent_to_its_end(line, now, fields, counts):
    assert (taken_log.parse(line(**fields), now) is not None) == counts


@pytest.mark.parametrize(
    "text", [b"", b"\n", b"{}\n", b"[]\n", b'"x"\n', b"\xff\xfe\n", b"[" * 20_000 + b"\n", b"null\n"]
)
def test_an_odd_line_is_passed_over(log, line, now, text):
    append(log, text + line())
    assert taken_log.read(log, now) <= 1
    append(log, line(address="10.1.2.4"))
    assert taken_log.read(log, now) == 1


def test_a_line_that_is_still_being_written_waits(log, line, now):
    whole = line()
    append(log, whole[:40])
    assert taken_log.read(log, now) == 0
    append(log, whole[40:])
    assert taken_log.read(log, now) == 1


def test_the_rest_of_a_rotated_log_is_read_first(log, line, now):
    append(log, line())
    taken_log.read(log, now)
    append(log, line(address="10.1.2.4"))
    log.rename(log.with_name(f"{log.name}.1"))
    append(log, line(address="10.1.2.5"))
    assert taken_log.read(log, now) == 2
    assert Taking.objects.count() == 3


def test_a_log_that_was_emptied_in_place_begins_anew(log, line, now):
    append(log, line() + line())
    taken_log.read(log, now)
    log.write_bytes(line(address="10.1.2.4"))
    assert taken_log.read(log, now) == 1


def test_one_pass_reads_no_more_than_so_much(log, line, now, monkeypatch):
    monkeypatch.setattr(taken_log, "MOST_AT_ONCE", len(line()))
    append(log, line() + line() + line())
    assert [taken_log.read(log, now) for _ in range(4)] == [1, 1, 1, 0]


def test_a_clock_ahead_of_ours_makes_nobody_newer_than_now(line, now):
    sent = taken_log.parse(line(time=(now + timedelta(days=9)).isoformat()), now)
    assert sent is not None and sent.at == now


def test_what_cannot_be_read_is_remembered_until_it_can(log, line, now):
    log.write_bytes(line())
    hidden = log.rename(log.with_name("hidden"))
    log.mkdir()
    for at in (now, now + timedelta(minutes=1)):
        with pytest.raises(taken_log.LogError, match=r"Is a directory\. Let the user who runs the worker read it"):
            taken_log.read(log, at)
    place = taken_log.trouble(log, now + timedelta(minutes=2))
    assert (place.failing_since, place.tried_at) == (now, now + timedelta(minutes=1))
    assert taken_log.trouble(log, now + timedelta(hours=1)) is None, "no worker has tried lately"
    log.rmdir()
    hidden.rename(log)
    assert taken_log.read(log, now + timedelta(minutes=2)) == 1
    assert taken_log.trouble(log, now + timedelta(minutes=2)) is None


def test_one_host_that_reads_it_is_enough(log, now, db):
    LogPlace.objects.create(host="elsewhere", path=str(log), tried_at=now, problem="not here", failing_since=now)
    assert taken_log.trouble(log, now).host == "elsewhere"
    taken_log.read(log, now)
    assert taken_log.trouble(log, now) is None


def test_a_log_that_is_not_there_is_named(tmp_path, now, db):
    with pytest.raises(taken_log.LogError, match=r"AIRGAP_TAKEN_LOG, .*missing\.log, cannot be read"):
        taken_log.read(tmp_path / "missing.log", now)
    assert LogPlace.objects.get().offset == 0


def test_times_are_read_with_their_zone(line):
    sent = taken_log.parse(line(time="2026-11-20T14:00:00+02:00"), datetime(2026, 11, 21, tzinfo=UTC))
    assert sent is not None and sent.at == datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
