"""Databases whose dates were taken on a trusted signer's word are looked into afterwards, and what they say counts."""

from datetime import timedelta

import pytest

from mirrors import content, keys
from mirrors.demo import assets
from mirrors.importing import looking, verifying
from mirrors.importing.asking import Wishes
from mirrors.importing.report import Report
from mirrors.models import AuditEntry, Import, ImportStep, LayerFacts, Mirror, Snapshot
from mirrors.stopping import StopSignal
from tests import carrying
from tests.carrying import UNSIGNED
from tests.kept import keep_build

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("isolated")]
PLAIN = Wishes(at_once=True)
HOUR = timedelta(hours=1)


@pytest.fixture
def trusted(store, now):
    """The connected side's key, trusted here."""
    keys.trust("north", keys.own_key().public_line("north"), by="ada", now=now)


@pytest.fixture
def word_is_taken(trusted, monkeypatch):
    """Every database is large enough for the signer's word to be taken."""
    monkeypatch.setattr(verifying, "LOOKED_INTO", 0)


@pytest.fixture
def lying(monkeypatch):
    """Bundles say their databases were built two hours later than the databases themselves say."""

    def keep(*args, **kwargs):
        snapshot = keep_build(*args, **kwargs)
        snapshot.updated_at += 2 * HOUR
        snapshot.next_update += 2 * HOUR
        snapshot.save()
        return snapshot

    monkeypatch.setattr(carrying, "keep_build", keep)


def warnings_of(run):
    return Report.from_dict(Import.objects.get(pk=run.pk).report).warnings


def test_a_large_database_of_a_trusted_signer_is_switched_to_before_it_is_looked_into(
    carrier, take, store, now, word_is_taken
):
    run = take(carrier.bundle({"trivy-java-db": 12, "trivy-checks": 900}), wishes=PLAIN)
    assert run.state == "succeeded"
    assert not LayerFacts.objects.exists()
    steps = ImportStep.objects.filter(run=run, text__contains="was built is what north signed")
    assert "trivy-java-db" in steps.get().text
    assert [kind.name for _, kind in looking.owed()] == ["trivy-java-db"]
    assert looking.look(store=store) == 0
    snapshot = Snapshot.objects.get(mirror__name="trivy-java-db")
    assert snapshot.updated_at == LayerFacts.objects.get(pk=snapshot.layer_digest).updated_at == now - 12 * HOUR
    assert looking.owed() == []
    assert warnings_of(run) == []


def test_a_date_that_the_database_does_not_confirm_is_set_right_and_told(
    carrier, take, store, now, word_is_taken, lying
):
    run = take(carrier.bundle(), wishes=PLAIN)
    assert Snapshot.objects.get().updated_at == now - 3 * HOUR
    assert looking.look(store=store) == 1
    snapshot = Snapshot.objects.get()
    assert snapshot.updated_at == now - 5 * HOUR
    assert snapshot.next_update == now - 5 * HOUR + assets.NEXT_UPDATE["trivy-db"]
    assert "The date was set right" in warnings_of(run)[0]
    assert AuditEntry.objects.get(action=looking.CORRECTED).subject == snapshot.layer_digest
    assert looking.look(store=store) == 0
    assert len(warnings_of(run)) == 1


def test_a_date_in_the_future_is_told_but_not_taken_over(carrier, take, store, now, word_is_taken, monkeypatch):
    def keep(*args, **kwargs):
        snapshot = keep_build(*args, **kwargs)
        Snapshot.objects.filter(pk=snapshot.pk).update(updated_at=now - 5 * HOUR, fetched_at=now, confirmed_at=now)
        snapshot.refresh_from_db()
        return snapshot

    monkeypatch.setattr(carrying, "keep_build", keep)
    run = take(carrier.bundle({"trivy-db": -24 * 300}), wishes=PLAIN)
    assert run.state == "succeeded", run.error
    assert looking.look(store=store) == 1
    assert Snapshot.objects.get().updated_at == now - 5 * HOUR
    assert "in the future, so the bundle's date stays" in warnings_of(run)[0]


def test_what_is_no_database_is_told_once_and_not_looked_into_again(carrier, take, store, word_is_taken, monkeypatch):
    monkeypatch.setattr(assets, "build_trivy_db", lambda *_, **__: b"no archive at all")
    run = take(carrier.bundle(), wishes=PLAIN)
    assert run.state == "succeeded"
    assert looking.look(store=store) == 1
    assert (
        "The layer is not gzip: it begins with 'no archive at al'. Trivy cannot use it, although its bundle"
        in warnings_of(run)[0]
    )
    assert AuditEntry.objects.filter(action=looking.UNUSABLE).count() == 1
    assert looking.owed() == []
    assert looking.look(store=store) == 0


@pytest.mark.parametrize("size", [0, verifying.LOOKED_INTO])
def test_without_a_trusted_key_every_database_is_looked_into_first(carrier, take, monkeypatch, lying, size):
    monkeypatch.setattr(verifying, "LOOKED_INTO", size)
    run = take(carrier.bundle(), wishes=UNSIGNED)
    assert run.state == "failed"
    assert "the data itself says" in run.error
    assert not Snapshot.objects.exists()


def test_a_trusted_key_does_not_spare_looking_into_a_small_database(carrier, take, trusted, lying):
    run = take(carrier.bundle(), wishes=PLAIN)
    assert run.state == "failed"
    assert "the data itself says" in run.error


def test_a_database_that_is_missing_is_left_to_the_store_check(carrier, take, store, word_is_taken):
    take(carrier.bundle(), wishes=PLAIN)
    digest = Snapshot.objects.get().layer_digest
    path = store.path(digest)
    data = path.read_bytes()
    path.unlink()
    assert looking.look(store=store) == 0
    assert [owed for owed, _ in looking.owed()] == [digest]
    path.write_bytes(data)
    looking.look(store=store)
    assert looking.owed() == []


def test_a_stop_ends_it_and_it_is_owed_still(carrier, take, store, word_is_taken):
    take(carrier.bundle(), wishes=PLAIN)
    stop = StopSignal()
    stop.set("shutdown")
    assert looking.look(store=store, stop=stop) == 0
    assert len(looking.owed()) == 1
    assert not LayerFacts.objects.exists()


def test_what_is_served_comes_first(carrier, take, store, word_is_taken):
    newer, older = carrier.bundle({"trivy-db": 5}), carrier.bundle({"trivy-db": 30})
    take(newer, wishes=PLAIN)
    take(older, wishes=PLAIN)
    first, second = looking.owed()
    assert first[0] == Mirror.objects.get().current.layer_digest != second[0]


def test_the_worker_looks_by_itself(carrier, take, store, word_is_taken):
    from mirrors import tasks

    assert content.store().root == store.root
    take(carrier.bundle(), wishes=PLAIN)
    tasks.look_into_databases()
    assert looking.owed() == []
