"""Counting who pulls: noted in memory, written in batches, forgotten after a while."""

from datetime import timedelta

import pytest
from django.db import DatabaseError

from mirrors import consumers, demand, reading
from mirrors.consumers import Note, Who
from mirrors.doctor import DOCTOR
from mirrors.models import AuditEntry, Consumer, Serving, Taking
from mirrors.registry.transport import user_agent
from tests.kept import keep_build

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
SCANNER = Who("10.1.2.3", agent="trivy/0.74.0")


@pytest.fixture(autouse=True)
def nothing_pending():
    consumers._tally.take()
    reading.forget()
    yield
    consumers._tally.take()
    reading.forget()


@pytest.fixture
def vulns(make_mirror, store, now):
    mirror = make_mirror("trivy-db", label="Vulnerability DB")
    keep_build(store, mirror, now - 3 * HOUR)
    return mirror


@pytest.fixture
def takes(vulns):
    """takes(at, who) notes and writes down that somebody took what is current."""

    def take(at, who=SCANNER, mirror=vulns, size=None):
        consumers.note_taken(
            who, mirror_id=mirror.pk, snapshot_id=mirror.current_id, size=size or mirror.current.size_bytes, at=at
        )
        return consumers.write(at)

    return take


def test_it_writes_down_who_took_what_and_when(vulns, takes, now):
    assert takes(now) == 1
    row = Taking.objects.get()
    assert (row.consumer.address, row.consumer.product, row.consumer.agent) == ("10.1.2.3", "trivy", "trivy/0.74.0")
    assert (row.snapshot, row.digest, row.taken_at) == (vulns.current, vulns.current.manifest_digest, now)
    assert (row.updated_at, row.next_update) == (vulns.current.updated_at, vulns.current.next_update)
    assert (row.count, row.bytes_total, row.usual) == (1, vulns.current.size_bytes, None)
    assert row.again_at == vulns.current.next_update
    assert row.state(now) == "waiting"


def test_our_own_doctor_is_no_consumer(takes, now):
    takes(now, Who("127.0.0.1", agent=user_agent(DOCTOR)))
    takes(now, Who("127.0.0.1", agent=user_agent()))
    assert Consumer.objects.get().product == "airgap"


def test_noting_touches_no_database(vulns, now, django_assert_num_queries):
    reading.serving()
    with django_assert_num_queries(0):
        for _ in range(50):
            consumers.note_taken(SCANNER, mirror_id=vulns.pk, snapshot_id=vulns.current_id, size=1, at=now)
            consumers.note_asked(SCANNER, mirror_id=vulns.pk, digest="sha256:" + "0" * 64, at=now)


def test_a_newer_version_of_the_program_is_the_same_consumer(takes, now):
    takes(now)
    takes(now + DAY, Who("10.1.2.3", agent="trivy/0.75.0"))
    consumer = Consumer.objects.get()
    assert consumer.agent == "trivy/0.75.0"
    assert consumer.takings.get().count == 2
    assert consumer.takings.get().usual == DAY


def test_other_address_login_or_program_are_other_consumers(takes, now):
    for who in (
        SCANNER,
        Who("10.1.2.4", agent="trivy/0.74.0"),
        Who("10.1.2.3", "token", "ci", "trivy/0.74.0"),
        Who("10.1.2.3", agent="skopeo/1.9"),
    ):
        takes(now, who)
    assert Consumer.objects.count() == 4


def test_who_only_asked_is_no_consumer(vulns, now):
    consumers.note_asked(SCANNER, mirror_id=vulns.pk, digest=vulns.current.manifest_digest, at=now)
    consumers.write(now)
    assert not Consumer.objects.exists()


def test_asking_and_still_holding_what_is_current_counts_for_checks(make_mirror, store, takes, now):
    checks = make_mirror("trivy-checks")
    keep_build(store, checks, now - 9 * DAY)
    takes(now, mirror=checks)
    consumers.note_asked(SCANNER, mirror_id=checks.pk, digest=checks.current.manifest_digest, at=now + 2 * DAY)
    consumers.write(now + 2 * DAY)
    row = Taking.objects.get()
    assert (row.taken_at, row.asked_at, row.again_at) == (now, now + 2 * DAY, now + 3 * DAY)
    consumers.note_asked(SCANNER, mirror_id=checks.pk, digest="sha256:" + "1" * 64, at=now + 5 * DAY)
    consumers.write(now + 5 * DAY)
    row.refresh_from_db()
    assert row.asked_at == now + 2 * DAY


def test_the_layers_of_one_image_are_one_pull(make_mirror, store, takes, now):
    image = make_mirror("image", kind="oci")
    Taking.objects.all().delete()
    db = make_mirror("other", kind="trivy-db")
    snapshot = keep_build(store, db, now)
    snapshot.mirror = image
    snapshot.save()
    image.switch_to(snapshot)
    for seconds in range(5):
        takes(now + timedelta(seconds=seconds), mirror=image, size=10)
    row = Taking.objects.get()
    assert (row.count, row.bytes_total) == (1, 50)
    assert row.state(now + 900 * DAY) == "unknown"


def test_a_batch_that_cannot_be_written_is_kept_for_the_next_time(vulns, now, monkeypatch):
    consumers.note_taken(SCANNER, mirror_id=vulns.pk, snapshot_id=vulns.current_id, size=1, at=now)

    def fail(entries):
        raise DatabaseError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(consumers, "_write_batch", fail)
        with pytest.raises(DatabaseError):
            consumers.write(now)
    assert consumers.write(now) == 1
    assert Taking.objects.count() == 1


def test_memory_is_bounded_and_says_what_was_left_out(vulns, now, monkeypatch, caplog):
    monkeypatch.setattr(consumers, "MOST_PENDING", 10)
    for number in range(25):
        consumers.note_taken(Who(f"10.0.0.{number}"), mirror_id=vulns.pk, snapshot_id=vulns.current_id, size=1, at=now)
    assert consumers.write(now) == 10
    assert "15 pulls" in caplog.text


def test_a_mirror_or_snapshot_that_is_gone_is_no_fault(vulns, now):
    consumers.note_taken(SCANNER, mirror_id=vulns.pk + 1000, snapshot_id=1, size=1, at=now)
    consumers.note_taken(SCANNER, mirror_id=vulns.pk, snapshot_id=vulns.current_id + 1000, size=1, at=now)
    consumers.write(now)
    assert not Taking.objects.exists()


def test_a_hostile_user_agent_is_made_harmless(takes, now):
    takes(now, Who("10.1.2.3", agent="tri\x00vy\r\n\x1b[31m/" + "x" * 5000))
    agent = Consumer.objects.get().agent
    assert len(agent) <= 200
    assert agent.isprintable()


def test_nothing_is_noted_once_it_is_switched_off_and_what_was_known_goes(vulns, takes, now):
    takes(now)
    assert consumers.change_settings(count=False, anonymise=False, days=90, by="ada", now=now) == 1
    assert not Consumer.objects.exists()
    takes(now)
    assert not Consumer.objects.exists()
    assert AuditEntry.objects.get().action == "consumers changed"


def test_only_networks_are_kept_where_addresses_are_anonymous(vulns, takes, now):
    takes(now)
    consumers.change_settings(count=True, anonymise=True, days=90, by="ada", now=now)
    assert not Consumer.objects.exists()
    takes(now)
    takes(now, Who("10.1.2.99", agent="trivy/0.74.0"))
    assert Consumer.objects.get().address == "10.1.2.0/24"


def test_silent_consumers_are_forgotten_after_the_days_set(vulns, takes, now):
    takes(now)
    Serving.objects.update_or_create(pk=Serving.ONLY, defaults={"consumers_days": 30})
    reading.forget()
    assert consumers.forget_old(now + 30 * DAY) == 0
    assert consumers.forget_old(now + 30 * DAY + timedelta(seconds=1)) == 1
    assert not Taking.objects.exists()


def test_the_consumer_of_a_removed_snapshot_keeps_its_dates(vulns, takes, now):
    takes(now)
    built = vulns.current.updated_at
    type(vulns).objects.update(current=None)
    vulns.snapshots.all().delete()
    row = Taking.objects.get()
    assert (row.snapshot, row.updated_at) == (None, built)


@pytest.mark.parametrize("name", ["", "ci", "Ärger & co/x y"])
def test_a_note_for_a_web_servers_log_comes_back_as_it_was(name):
    note = Note(3, 14, 113_381_933, "token", name)
    assert note.text().isascii() and note.text().isprintable()
    assert Note.parse(note.text()) == note


@pytest.mark.parametrize("text", ["", "1 2 3", "1 2 3 root x", "1 2 -3 token x", "x" * 5000, '1 2 3 token "\n'])
def test_a_note_that_is_none_is_refused(text):
    assert Note.parse(text) is None


# The figures


def test_without_consumers_it_says_so(vulns, now):
    found = demand.of_all(now)
    assert found.headline() == "Nobody has taken anything from here yet."
    assert found.databases == ()


def test_the_oldest_data_of_those_that_are_not_late_is_named(vulns, store, takes, now):
    keep_build(store, vulns, now - 11 * DAY)
    takes(now - 10 * DAY, Who("10.0.0.1", agent="trivy/0.74.0"))
    keep_build(store, vulns, now - HOUR)
    takes(now, Who("10.0.0.2", agent="trivy/0.74.0"))
    takes(now, Who("10.0.0.3", agent="skopeo/1.9"))
    found = demand.of_all(now)
    (database,) = found.databases
    assert (database.consumers, database.late, database.scanners) == (3, 1, 1)
    assert database.oldest == now - HOUR
    assert found.headline() == "Three consumers take data from here; one is late."


def test_the_load_after_next_update_is_each_trivy_once_an_hour(vulns, takes, now):
    for number in range(3):
        takes(now, Who(f"10.0.0.{number}", agent="trivy/0.74.0"))
    (database,) = demand.of_all(now).databases
    assert database.per_hour == 3 * vulns.current.size_bytes
    assert database.load(now).startswith(
        "If no newer build has come by 2026-11-21 09:00 UTC, each of the 3 Trivys here"
    )
    assert database.load(now + 2 * DAY).startswith(
        "Its NextUpdate passed 27 hours ago: until a newer build comes, each"
    )


def test_the_figures_cost_the_same_queries_however_many_consumers(vulns, takes, now, django_assert_num_queries):
    for number in range(5):
        takes(now, Who(f"10.0.0.{number}", agent="trivy/0.74.0"))
    with django_assert_num_queries(3):
        demand.of_all(now)
