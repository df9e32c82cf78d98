"""`manage.py freshness`: keys, exit statuses, and no way to mistake a failure for fresh."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from django.db import DatabaseError

from mirrors import clock
from mirrors.management.commands.freshness import Command
from mirrors.models import Snapshot

KEYS = {
    "mirror", "kind", "state", "cause", "sentence", "updated_at", "next_update", "confirmed_at", "checked_at", "digest",
    "layer_digest",
}  # fmt: skip


@pytest.fixture
def freshness(capsys, monkeypatch):
    """freshness("trivy-db", "--json") -> (exit status, stdout, stderr), as from a shell."""
    # A command closes its connections when it ends; here that would end the test's transaction.
    monkeypatch.setattr("django.core.management.base.connections.close_all", lambda: None)

    def call(*arguments):
        command = Command()
        try:
            command.run_from_argv(["manage.py", "freshness", *arguments])
            status = 0
        except SystemExit as ended:
            status = ended.code
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return status, out, err

    return call


@pytest.fixture
def holding(make_mirror):
    """A mirror whose data was built `age` ago."""

    def make(name, age, kind="trivy-db", **fields):
        now = datetime.now(UTC)
        mirror = make_mirror(name, kind=kind, sources=["ghcr.io/x/y:2"], **fields)
        mirror.switch_to(
            Snapshot.objects.create(
                mirror=mirror,
                identity="sha256:" + "a" * 64,
                manifest_digest="sha256:" + "b" * 64,
                layer_digest="sha256:" + "c" * 64,
                source_reference="ghcr.io/x/y:2",
                size_bytes=1,
                updated_at=now - age,
                fetched_at=now - age,
                confirmed_at=now - age,
            )
        )
        return mirror

    return make


@pytest.mark.parametrize(
    ("age", "state", "expected"), [(1, "fresh", 0), (10, "due", 1), (30, "stale", 2), (200, "expired", 2)]
)
def test_the_exit_status_is_the_worst_state(freshness, holding, age, state, expected):
    holding("good", timedelta(hours=1))
    holding("other", timedelta(hours=age))
    status, out, _ = freshness("--json")
    assert status == expected
    assert [row["state"] for row in json.loads(out)] == ["fresh", state]


def test_never_synced_is_status_2(freshness, make_mirror):
    make_mirror("trivy-db", sources=["ghcr.io/x/y:2"])
    status, out, _ = freshness("trivy-db", "--json")
    assert status == 2
    row = json.loads(out)[0]
    assert (row["state"], row["digest"], row["updated_at"], row["layer_digest"]) == ("never", None, None, None)


def test_it_prints_the_promised_keys(freshness, holding):
    mirror = holding("trivy-db", timedelta(hours=1))
    Snapshot.objects.update(updated_at=datetime(2020, 1, 1, 6, 31, tzinfo=UTC))
    status, out, _ = freshness("--json")
    row = json.loads(out)[0]
    assert status == 2
    assert set(row) >= KEYS
    assert row["mirror"] == mirror.name
    assert row["updated_at"] == "2020-01-01T06:31:00Z"
    assert row["confirmed_at"].endswith("Z")
    assert (row["next_update"], row["checked_at"]) == (None, None)
    assert row["digest"] == "sha256:" + "b" * 64
    assert row["layer_digest"] == "sha256:" + "c" * 64


def test_the_digest_of_vex_is_its_archive(freshness, holding):
    holding("vexhub", timedelta(hours=1), kind="vex")
    row = json.loads(freshness("--json")[1])[0]
    assert row["digest"] == row["layer_digest"] == "sha256:" + "c" * 64


def test_it_answers_in_the_order_named(freshness, holding):
    for name in ("alpha", "beta", "gamma"):
        holding(name, timedelta(hours=1))
    _, out, _ = freshness("gamma", "alpha", "--json")
    assert [row["mirror"] for row in json.loads(out)] == ["gamma", "alpha"]


def test_it_speaks_to_people_in_sentences(freshness, holding):
    holding("trivy-db", timedelta(hours=5), label="Vulnerability DB")
    status, out, _ = freshness()
    assert status == 0
    assert out.startswith("fresh    trivy-db     5 h  The Vulnerability DB was built 5 hours ago.")


def test_an_unknown_name_is_status_3_and_the_rest_is_still_told(freshness, holding):
    holding("trivy-db", timedelta(hours=1))
    status, out, err = freshness("trivy-db", "nope", "--json")
    assert status == 3
    assert [row["mirror"] for row in json.loads(out)] == ["trivy-db"]
    assert "There is no mirror named nope." in err


@pytest.mark.parametrize("arguments", [("--wrong",), ("--verbosity", "many")])
def test_wrong_usage_is_status_3(freshness, db, arguments):
    status, out, err = freshness(*arguments, "--json")
    assert (status, json.loads(out)) == (3, [])
    assert "error:" in err


def test_help_is_status_0(freshness):
    status, out, _ = freshness("--help")
    assert status == 0
    assert "3 could not tell" in " ".join(out.split())


@pytest.mark.parametrize("fault", [DatabaseError("connection refused\nis it up?"), RuntimeError(), OSError("disk")])
def test_any_fault_is_status_3_in_a_sentence(freshness, monkeypatch, fault):
    def broken():
        raise fault

    monkeypatch.setattr(clock, "trusted_now", broken)
    status, out, err = freshness("--json")
    assert (status, json.loads(out)) == (3, [])
    assert len(err.strip().splitlines()) == 1
    assert "Could not tell" in err


def test_a_database_on_a_full_disk_is_said_to_want_room(freshness, monkeypatch):
    def broken():
        raise DatabaseError("disk I/O error")

    monkeypatch.setattr(clock, "trusted_now", broken)
    assert "whether there is room left" in freshness()[2]


def test_without_any_mirror_nothing_is_fresh(freshness, db):
    status, out, err = freshness("--json")
    assert (status, json.loads(out)) == (3, [])
    assert "no mirrors" in err


def test_a_mirror_switched_off_before_it_held_anything_is_judged_only_by_name(freshness, holding, make_mirror):
    holding("trivy-db", timedelta(hours=1))
    make_mirror("spare", kind="oci", enabled=False)
    assert freshness("--json")[0] == 0
    assert freshness("spare", "--json")[0] == 2


def test_a_clock_that_is_behind_is_told(freshness, holding):
    holding("trivy-db", timedelta(hours=-2))
    status, out, err = freshness("--json")
    assert status == 1
    assert "clock" in err
    assert json.loads(out)[0]["state"] == "due"
