"""Whose bundles are taken: those of trusted keys; others only if an administrator allows it; wrong ones never."""

import pytest

from mirrors import keys
from mirrors.importing import asking, perform
from mirrors.importing.asking import ImportRefused, Wishes, request_import
from mirrors.importing.finding import at_paths
from mirrors.importing.report import Report
from mirrors.importing.switching import keep_facts
from mirrors.models import Snapshot
from tests.carrying import UNSIGNED

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("isolated")]
PLAIN = Wishes(at_once=True)


@pytest.fixture
def trusted(store, now):
    """The connected side's key, trusted here."""
    return keys.trust("north", keys.own_key().public_line("north"), by="ada", now=now)


def report_of(run):
    return Report.from_dict(run.report)


def test_a_trusted_key_is_all_it_takes(carrier, take, trusted):
    run = take(carrier.bundle(), wishes=PLAIN)
    assert run.state == "succeeded"
    assert (run.signed_by, run.fingerprint) == ("north", trusted.fingerprint)
    assert report_of(run).signature == "trusted"


def test_an_unknown_key_is_refused_with_its_fingerprint_and_may_be_allowed(carrier, take, store, now):
    path = carrier.bundle()
    run = take(path, wishes=PLAIN)
    assert run.state == "failed"
    assert keys.own_key().fingerprint in run.error
    assert report_of(run).refusal == "signature"
    assert not list(store.digests())
    assert take(path, wishes=UNSIGNED).state == "succeeded"


def test_trusting_the_key_afterwards_lets_the_same_files_in(carrier, take, store, now):
    run = take(carrier.bundle(), wishes=PLAIN)
    keys.trust("north", keys.own_key().public_line("north"), by="ada", now=now)
    again = asking.again(run, by="otto", now=now, wishes=PLAIN)
    asking.IMPORTS.claim(again.pk, now=now)
    assert again.files == run.files


def test_a_revoked_key_is_refused_whatever_is_allowed(carrier, take, trusted, now):
    path = carrier.bundle()
    keys.revoke("north", by="ada", now=now)
    run = take(path, wishes=UNSIGNED)
    assert run.state == "failed"
    assert "revoked" in run.error
    assert not Snapshot.objects.exists()
    with pytest.raises(ImportRefused, match="nobody can allow"):
        asking.allow(run, by="ada", now=now, reason="please")


def test_a_key_revoked_while_its_bundle_waits_is_not_switched_to(carrier, take, trusted, store, now):
    run = take(carrier.bundle(), wishes=Wishes())
    keys.revoke("north", by="ada", now=now)
    with pytest.raises(ImportRefused, match=r"revoked by ada .* discard it"):
        asking.decide(run, switch_older=True, by="otto", now=now, store=store)
    assert not Snapshot.objects.exists()
    keys.trust("north-again", keys.own_key().public_line("north"), again=True, by="ada", now=now)
    assert asking.decide(run, switch_older=False, by="otto", now=now, store=store).state == "succeeded"


def test_a_key_revoked_while_its_bundle_is_read_is_not_switched_to(carrier, trusted, store, now, monkeypatch):
    run = request_import(at_paths([carrier.bundle()]), origin="directory", by="otto", now=now, wishes=PLAIN)
    monkeypatch.setattr(
        perform, "keep_facts", lambda *args: keys.revoke("north", by="ada", now=now) and keep_facts(*args)
    )
    perform.perform(run.pk, store=store, heart=False)
    run.refresh_from_db()
    assert run.state == "failed"
    assert "was revoked by ada" in run.error
    assert not Snapshot.objects.exists()


def test_a_signature_of_something_else_is_refused_whatever_is_allowed(carrier, take, trusted, now):
    one, other = carrier.bundle(), carrier.bundle({"trivy-java-db": 3})
    begin, end = b"-----BEGIN SSH SIGNATURE-----\n", b"-----END SSH SIGNATURE-----\n"
    data, stolen = one.read_bytes(), other.read_bytes()
    at, until = data.index(begin), data.index(end)
    there = stolen.index(begin)
    one.write_bytes(data[:at] + stolen[there : there + until - at] + data[until:])
    run = take(one, wishes=UNSIGNED)
    assert run.state == "failed"
    assert "signature is wrong" in run.error
    with pytest.raises(ImportRefused, match="nobody can allow"):
        asking.allow(run, by="ada", now=now, reason="please")


def test_a_byte_of_bundle_json_that_was_lost_on_the_way_asks_for_another_copy(carrier, take, trusted):
    path = carrier.bundle()
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"program": "airgap', b'"program": "airgaq', 1))
    run = take(path, wishes=PLAIN)
    assert run.state == "failed"
    assert report_of(run).signature == "trusted"
    assert report_of(run).wants_another_copy
