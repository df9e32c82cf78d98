"""A bundle that comes in: everything is switched or nothing, and whatever arrives in whatever order is explained."""

import tarfile
from datetime import timedelta

import pytest
from django.utils import timezone

from mirrors import retention
from mirrors.bundle.contents import Assumed, Crossing
from mirrors.importing import asking, finding, perform
from mirrors.importing.asking import ImportRefused, Wishes
from mirrors.importing.report import Report
from mirrors.models import AuditEntry, Import, ImportBlob, ImportedSnapshot, LayerFacts, Mirror, Snapshot
from mirrors.receipting import giving
from mirrors.receipting.giving import NoReceipt
from tests.bundle.carried import flattened
from tests.carrying import UNSIGNED, volumes_of
from tests.kept import keep_build

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("isolated")]
HOUR = timedelta(hours=1)
LATER = timedelta(days=4000)
ALL = {"trivy-db": 5, "trivy-java-db": 12, "trivy-checks": 900, "vexhub": 30}


def report_of(run):
    return Report.from_dict(run.report)


def test_it_makes_the_mirrors_and_switches_all_of_them(carrier, take, store, now):
    run = take(carrier.bundle(ALL))
    assert report_of(run).problems == []
    assert all(each.new_mirror for each in report_of(run).snapshots)
    assert {mirror.name for mirror in Mirror.objects.all()} == set(ALL)
    for mirror in Mirror.objects.select_related("current"):
        assert mirror.current is not None
        assert mirror.schedule == "manual"
        assert not mirror.sources.exists()
        assert all(store.has(blob.digest) for blob in mirror.current.blobs.all())
    db = Mirror.objects.get(name="trivy-db")
    assert (db.served_repository, db.served_tag) == ("aquasecurity/trivy-db", "2")
    assert db.current.updated_at == now - 5 * HOUR
    assert db.current.confirmed_at == now - 4 * HOUR
    assert AuditEntry.objects.filter(action="bundle imported").count() == 1
    assert set(ImportedSnapshot.objects.values_list("outcome", flat=True)) == {"switched"}


def test_a_layer_that_an_import_read_is_never_inflated_again(carrier, take, now, monkeypatch):
    path = carrier.bundle(ALL)
    waiting = take(path, wishes=Wishes(allow_unsigned=True))
    assert waiting.is_waiting
    facts = LayerFacts.objects.get(kind="trivy-db")
    assert (facts.schema, facts.updated_at) == (2, now - 5 * HOUR)
    assert facts.size_bytes > 0 and facts.inflated_bytes > 0
    assert set(LayerFacts.objects.values_list("kind", flat=True)) == {"trivy-db", "trivy-java-db"}

    def refuse(*_args, **_kwargs):
        raise AssertionError("inflated twice")

    monkeypatch.setattr("mirrors.bundle.inspecting.LayerInspector", refuse)
    assert take(path).state == "succeeded"
    assert Snapshot.objects.get(mirror__name="trivy-db").layer_digest == facts.layer_digest
    assert LayerFacts.objects.count() == 2


def test_facts_of_another_kind_do_not_spare_looking(carrier, take):
    path = carrier.bundle()
    take(path)
    LayerFacts.objects.update(kind="trivy-java-db", schema=77)
    assert take(path).state == "unchanged"


def test_a_refused_bundle_leaves_no_facts(carrier, take):
    assert take(carrier.bundle(), wishes=Wishes(at_once=True)).state == "failed"
    assert not LayerFacts.objects.exists()


def test_the_same_again_changes_nothing(carrier, take):
    path = carrier.bundle(ALL)
    take(path)
    before = list(Snapshot.objects.values())
    again = take(path)
    assert again.state == "unchanged"
    assert again.note == "Everything in this bundle was here already; nothing changed."
    assert list(Snapshot.objects.values()) == before
    assert again.new_bytes == 0


def test_an_older_bundle_is_kept_and_not_switched_to(carrier, take):
    older, newer = carrier.bundle({"trivy-db": 30}), carrier.bundle({"trivy-db": 5})
    take(newer)
    current = Mirror.objects.get().current
    run = take(older)
    assert Mirror.objects.get().current == current
    assert Snapshot.objects.count() == 2
    assert [s.outcome for s in report_of(run).snapshots] == ["older"]
    assert "kept as a snapshot, not switched, unless you say so" in report_of(run).snapshots[0].sentence


def test_an_older_bundle_that_comes_again_is_called_older_again(carrier, take):
    """Out of order and twice: it changes nothing, and nobody is to think that it is what is served."""
    older, newer = carrier.bundle({"trivy-db": 30, "vexhub": 40}), carrier.bundle({"trivy-db": 5, "vexhub": 4})
    for path in (older, newer):
        take(path)
    again = take(older)
    assert again.state == "unchanged"
    assert again.note.startswith("Everything in this bundle was here already; nothing changed. ")
    assert again.note.endswith(": older than what is served: kept, not switched.")
    assert [snapshot.outcome for snapshot in report_of(again).snapshots] == ["older", "older"]
    assert all(
        snapshot.sentence.startswith("Older than what is served (")
        and snapshot.sentence.endswith("a snapshot of it is kept already, not switched, unless you say so.")
        for snapshot in report_of(again).snapshots
    )


def test_nor_is_what_is_held_called_served_when_it_comes_again(carrier, take, now):
    take(carrier.bundle({"trivy-db": 5}))
    Mirror.objects.update(held_at=now)
    newer = carrier.bundle({"trivy-db": 2})
    take(newer)
    again = take(newer)
    assert (again.state, "held here: kept, not switched" in again.note) == ("unchanged", True)


def test_an_older_bundle_is_switched_to_if_somebody_says_so(carrier, take, now):
    older, newer = carrier.bundle({"trivy-db": 30}), carrier.bundle({"trivy-db": 5})
    take(newer)
    take(older, wishes=Wishes(at_once=True, allow_unsigned=True, switch_older=True))
    assert Mirror.objects.get().current.updated_at == now - 30 * HOUR


def test_what_was_kept_as_older_survives_the_next_pruning(carrier, take, now, store, settings):
    older, newer = carrier.bundle({"trivy-db": 30}), carrier.bundle({"trivy-db": 5})
    take(newer)
    Mirror.objects.update(keep=1)
    take(older)
    retention.prune(now + HOUR, store)
    assert Snapshot.objects.count() == 2


def test_data_judged_by_its_confirmation_goes_backwards_only_if_somebody_says_so(carrier, take):
    older, newer = carrier.bundle({"vexhub": 90}), carrier.bundle({"vexhub": 30})
    take(newer)
    run = take(older)
    assert [s.outcome for s in report_of(run).snapshots] == ["older"]
    assert "last seen at its source" in report_of(run).snapshots[0].sentence


def test_a_newer_confirmation_of_the_same_content_moves_forward_and_never_back(carrier, take, now):
    path = carrier.bundle({"vexhub": 30})
    take(path)
    late = now + HOUR
    Snapshot.objects.update(confirmed_at=late)
    take(path)
    assert Snapshot.objects.get().confirmed_at == late
    Snapshot.objects.update(confirmed_at=now - 100 * HOUR)
    run = take(path)
    assert Snapshot.objects.get().confirmed_at == now - 29 * HOUR
    assert run.state == "succeeded"


def test_the_same_layer_under_another_manifest_is_the_same_content(carrier, take):
    path = carrier.bundle()
    take(path)
    Snapshot.objects.update(manifest_digest="sha256:" + "1" * 64, identity="sha256:" + "1" * 64)
    run = take(path)
    assert [s.outcome for s in report_of(run).snapshots] == ["confirmed"]
    assert Snapshot.objects.count() == 1


def test_a_held_mirror_is_not_switched(carrier, take, now):
    take(carrier.bundle({"trivy-db": 30}))
    mirror = Mirror.objects.get()
    mirror.hold(now, "bad build")
    run = take(carrier.bundle({"trivy-db": 5}))
    assert [s.outcome for s in report_of(run).snapshots] == ["held"]
    assert Mirror.objects.get().current_id == mirror.current_id
    assert Snapshot.objects.count() == 2


def test_the_same_name_with_another_kind_is_a_problem_and_nothing_is_switched(carrier, take, make_mirror):
    path = carrier.bundle({"trivy-db": 5, "trivy-java-db": 5})
    make_mirror("trivy-db", "oci", served_repository="mirrors/trivy-db")
    run = take(path)
    assert run.state == "failed"
    assert "the mirror of that name here is an OCI artifact" in run.error
    assert not Snapshot.objects.exists()
    assert not Mirror.objects.filter(name="trivy-java-db").exists()


def crossing(*assumed):
    return Crossing("ALPHA", "Alpha", "t1234567", "5e" * 16, assumed=assumed)


def test_a_bundle_for_another_site_is_refused_unless_allowed(carrier, take, settings, now):
    settings.AIRGAP_SITE_CODE = "BETA"
    assert take(carrier.bundle({"vexhub": 30})).state == "succeeded", "it is for no certain site"
    run = take(carrier.bundle(crossing=crossing()))
    assert run.state == "failed"
    assert "prepared for the site ALPHA, and this is BETA" in run.error
    assert report_of(run).may_be_allowed
    allowed = asking.allow(run, by="ada", now=now, reason="theirs burnt down")
    assert allowed.allow_other_site


def test_a_bundle_for_this_site_keeps_what_the_receipt_needs(carrier, take, settings):
    settings.AIRGAP_SITE_CODE = "alpha"
    run = take(carrier.bundle(crossing=crossing()))
    assert run.state == "succeeded"
    assert (run.site, run.transfer, run.receipt_secret) == ("ALPHA", "t1234567", "5e" * 16)
    assert "5e5e5e" not in str(run.report)


def test_a_bundle_that_is_refused_has_a_receipt_that_says_so(carrier, take):
    unsigned = take(carrier.bundle(crossing=crossing()), wishes=Wishes(at_once=True))
    assert report_of(unsigned).refusal == "signature"
    receipt = giving.receipt_of(unsigned)
    assert (receipt.bundle, receipt.outcome, receipt.site) == (unsigned.bundle, "rejected", "ALPHA")
    assert unsigned.receipt_secret == "5e" * 16


def flipped(path, place):
    """One bit of one byte, this far from the end."""
    data = bytearray(path.read_bytes())
    data[-place] ^= 1
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("place", [1, 513, 1000, 1025, 3000])
def test_a_damaged_copy_has_no_receipt_for_a_whole_one_may_follow(carrier, take, place):
    run = take(flipped(carrier.bundle(crossing=crossing()), place))
    assert (run.state, report_of(run).refusal, run.site) == ("failed", "content", "ALPHA")
    with pytest.raises(NoReceipt, match="copy of the bundle is damaged"):
        giving.receipt_of(run)


def test_neither_has_a_copy_that_broke_off(carrier, take):
    path = carrier.bundle(crossing=crossing())
    path.write_bytes(path.read_bytes()[:-512])
    with pytest.raises(NoReceipt, match="copy of the bundle is damaged"):
        giving.receipt_of(take(path))


def test_neither_has_one_that_found_no_room(carrier, take, settings, store):
    settings.AIRGAP_RESERVE_MB = store.free_bytes() // 2**20 + 1
    run = take(carrier.bundle(crossing=crossing(), padding=300_000))
    assert report_of(run).refusal == "room"
    with pytest.raises(NoReceipt, match="lack of room"):
        giving.receipt_of(run)


def test_neither_has_one_that_cannot_be_read(carrier, take, tmp_path, now):
    path = carrier.bundle(crossing=crossing())
    run = asking.request_import(finding.at_paths([path]), origin="directory", by="otto", now=now, wishes=UNSIGNED)
    path.unlink()
    perform.perform(run.pk, heart=False)
    run.refresh_from_db()
    assert report_of(run).refusal == "fault"
    with pytest.raises(NoReceipt, match="cannot be read"):
        giving.receipt_of(run)


def test_what_was_discarded_is_rejected_and_what_nobody_decided_is_not(carrier, take, now):
    path = carrier.bundle(crossing=crossing())
    wishes = Wishes(allow_unsigned=True)
    given_up = take(path, wishes=wishes)
    asking.expire(now + LATER)
    given_up.refresh_from_db()
    with pytest.raises(NoReceipt, match="Nobody decided"):
        giving.receipt_of(given_up)
    discarded = take(path, wishes=wishes)
    asking.stop(discarded, by="otto", now=now)
    discarded.refresh_from_db()
    assert giving.receipt_of(discarded).outcome == "rejected"


def left_out(snapshot, confirmed):
    return Assumed(
        snapshot.mirror.name,
        snapshot.mirror.label,
        snapshot.mirror.kind,
        snapshot.manifest_digest,
        snapshot.layer_digest,
        snapshot.updated_at,
        confirmed,
    )


def test_what_was_left_out_and_is_here_is_confirmed(carrier, take, now):
    take(carrier.bundle({"vexhub": 30}))
    held = Snapshot.objects.get()
    run = take(carrier.bundle({"trivy-db": 5}, crossing=crossing(left_out(held, now - HOUR))))
    assert run.state == "succeeded"
    assert report_of(run).warnings == []
    assert report_of(run).left_out[0].endswith("): is here.")
    held.refresh_from_db()
    assert held.confirmed_at == now - HOUR


def test_a_missing_base_is_explained_and_the_rest_is_switched_to(carrier, take, now):
    take(carrier.bundle({"vexhub": 30}))
    held = Snapshot.objects.select_related("mirror").get()
    assumed = left_out(held, now)
    Mirror.objects.update(current=None)
    Mirror.objects.all().delete()
    run = take(carrier.bundle({"trivy-db": 5}, crossing=crossing(assumed)))
    assert run.state == "succeeded"
    assert Mirror.objects.get().current is not None
    assert "It is not here." in report_of(run).warnings[0]
    assert "full bundle" in report_of(run).warnings[0]


def test_volumes_in_any_order_are_one_bundle(carrier, take):
    first, second, third = volumes_of(carrier.bundle(padding=200_000), 3)
    run = take(third, first, second)
    assert run.state == "succeeded"
    assert [file["name"] for file in run.files] == [first.name, second.name, third.name]


def test_a_damaged_bundle_switches_nothing_and_what_was_taken_goes_with_pruning(carrier, take, store, now):
    path = carrier.bundle(ALL)
    data = bytearray(path.read_bytes())
    data[-3000] ^= 1
    path.write_bytes(data)
    run = take(path)
    assert run.state == "failed"
    assert report_of(run).refusal == "content"
    assert not Mirror.objects.exists()
    assert list(store.digests())
    retention.prune(now + timedelta(days=4000), store)
    assert not list(store.digests())


def test_unsigned_is_refused_before_anything_is_taken(carrier, take, store):
    run = take(carrier.bundle(), wishes=Wishes(at_once=True))
    assert run.state == "failed"
    assert report_of(run).refusal == "signature"
    assert report_of(run).may_be_allowed
    assert not list(store.digests())


def test_an_administrator_may_allow_unsigned_once_and_that_is_recorded(carrier, take, store, now):
    run = take(carrier.bundle(), wishes=Wishes())
    with pytest.raises(ImportRefused, match="Say why"):
        asking.allow(run, by="ada", now=now, reason=" ")
    allowed = asking.allow(run, by="ada", now=now, reason="compared the sums by telephone")
    assert (allowed.allow_unsigned, allowed.allowed_by) == (True, "ada")
    entry = AuditEntry.objects.get(action="import allowed")
    assert "compared the sums by telephone" in entry.detail
    from mirrors.importing.perform import perform

    perform(allowed.pk, store=store, heart=False)
    allowed.refresh_from_db()
    assert allowed.is_waiting


def test_what_is_wrong_in_its_bytes_nobody_can_allow(carrier, take, now):
    path = carrier.bundle()
    path.write_bytes(path.read_bytes()[:-2000])
    run = take(path)
    with pytest.raises(ImportRefused, match="nobody can allow"):
        asking.allow(run, by="ada", now=now, reason="please")


# Deciding


@pytest.fixture
def waiting(carrier, take):
    return take(carrier.bundle(ALL), wishes=Wishes(allow_unsigned=True))


def test_it_waits_with_a_report_and_nothing_switched(waiting, store, now):
    assert waiting.is_waiting
    assert len(report_of(waiting).snapshots) == 4
    assert not Mirror.objects.exists()
    assert ImportBlob.objects.count() > 4


def test_what_waits_is_not_pruned(waiting, store, now):
    held = set(store.digests())
    retention.prune(now + timedelta(days=1), store)
    assert set(store.digests()) == held


def test_a_decision_switches_everything(waiting, store, now):
    asking.decide(waiting, switch_older=False, by="ada", now=now, store=store)
    waiting.refresh_from_db()
    assert (waiting.state, waiting.decided_by, waiting.parsed) == ("succeeded", "ada", {})
    assert Mirror.objects.exclude(current=None).count() == 4
    assert not ImportBlob.objects.exists()
    with pytest.raises(ImportRefused, match="decided already"):
        asking.decide(waiting, switch_older=False, by="ada", now=now, store=store)


def test_a_file_that_got_lost_meanwhile_is_found_before_the_switch(waiting, store, now):
    store.remove(next(iter(store.digests()))[0])
    with pytest.raises(ImportRefused, match="no longer whole"):
        asking.decide(waiting, switch_older=False, by="ada", now=now, store=store)
    assert not Mirror.objects.exists()


def test_what_changed_since_the_report_is_decided_anew(waiting, store, now, make_mirror):
    newer = keep_build(store, make_mirror("trivy-db"), now - HOUR)
    asking.decide(waiting, switch_older=False, by="ada", now=now, store=store)
    assert Mirror.objects.get(name="trivy-db").current == newer


def test_discarding_switches_nothing_and_lets_go(waiting, store, now):
    assert asking.stop(waiting, by="otto", now=now)
    waiting.refresh_from_db()
    assert waiting.state == "cancelled"
    assert not ImportBlob.objects.exists()
    retention.prune(now + timedelta(days=4000), store)
    assert not list(store.digests())


def test_what_nobody_decides_is_given_up_in_time(waiting, now):
    assert asking.expire(waiting.expires_at - HOUR) == 0
    assert asking.expire(waiting.expires_at + HOUR) == 1
    assert Import.objects.get().state == "cancelled"


def test_setting_a_clock_right_that_was_years_behind_gives_nothing_up(carrier, take, now, monkeypatch):
    path = carrier.bundle()
    behind = now - timedelta(days=3 * 365)
    with monkeypatch.context() as patch:
        patch.setattr(perform.timezone, "now", lambda: behind)
        waiting = take(path, wishes=UNSIGNED)
    assert waiting.state == "waiting", "a bundle from far ahead is left to a person"
    assert asking.expire(now) == 0
    assert asking.expire(waiting.expires_at) == 1


def test_on_the_connected_side_nothing_is_imported(carrier, take, settings):
    path = carrier.bundle()
    settings.AIRGAP_SIDE = "connected"
    with pytest.raises(ImportRefused, match="connected side"):
        take(path, wishes=UNSIGNED)


def test_single_files_in_a_folder_are_a_bundle_too(carrier, take, tmp_path):
    """The files profile, for gateways that inspect what passes."""
    folder = tmp_path / "single"
    folder.mkdir()
    with tarfile.open(carrier.bundle(ALL, profile="data")) as tar:
        members = [(member.name.partition("/")[2], tar.extractfile(member).read()) for member in tar]
    for name, data in flattened(members):
        if name != "SHA256SUMS.sig":
            (folder / name).write_bytes(data)
    run = take(folder)
    assert report_of(run).problems == []
    assert run.name == "single"
    assert Mirror.objects.exclude(current=None).count() == 4


def test_a_bundle_dated_days_ahead_waits_for_a_person_even_if_it_was_to_be_switched_at_once(carrier, take):
    run = take(carrier.bundle(ALL, made=timezone.now().replace(microsecond=0) + timedelta(days=400)))
    assert run.state == "waiting"
    assert not Mirror.objects.exclude(current=None).exists()
    (warning,) = report_of(run).warnings
    assert warning.endswith("If this clock is right, discard the bundle: its date would count here from then on.")


def test_a_bundle_dated_a_little_ahead_is_taken_with_a_warning(carrier, take):
    run = take(carrier.bundle(ALL, made=timezone.now().replace(microsecond=0) + timedelta(hours=5)))
    assert run.state == "succeeded"
    (warning,) = report_of(run).warnings
    assert warning.endswith("Set the clock; until then nothing is called fresh.")
