"""Sites and transfers: what is sent, what is known to have arrived, and what a site holds by that."""

import io
import json
import tarfile
from datetime import timedelta

import pytest

from mirrors import exporting, site_standing, sites, transfers
from mirrors.clock import Reading
from mirrors.exporting import ExportError
from mirrors.models import AuditEntry, Bundle, Site, SiteHolding, Transfer
from mirrors.rules import RuleBroken
from mirrors.sites import SiteChanged, SiteError, UnknownSite, Wish
from mirrors.transfers import NothingMissing, ReceiptFacts, ReceiptRefused, TransferError
from tests.kept import keep_build, keep_vex

pytestmark = pytest.mark.django_db
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
WHO = {"by": "otto"}


@pytest.fixture
def mirrors(make_mirror):
    return {
        "trivy-db": make_mirror("trivy-db", label="Vulnerability DB", position=1),
        "trivy-java-db": make_mirror("trivy-java-db", label="Java DB", position=2),
        "vexhub": make_mirror("vexhub", "vex", label="VEX Hub", position=3),
    }


@pytest.fixture
def held(store, mirrors, now):
    return {
        "trivy-db": keep_build(store, mirrors["trivy-db"], now - 5 * HOUR),
        "trivy-java-db": keep_build(store, mirrors["trivy-java-db"], now - 12 * HOUR),
        "vexhub": keep_vex(store, mirrors["vexhub"], now - 30 * HOUR),
    }


@pytest.fixture
def nord(db, now):
    return sites.add_site("plant-nord", Wish(label="Plant Nord", code="nord-2"), by="ada", now=now)


@pytest.fixture
def aurora(db, now):
    return sites.add_site("aurora", Wish(label="MS Aurora", receipts="none"), by="ada", now=now)


def send(site, now, store, *names, **options):
    return transfers.prepare(site, exporting.current_snapshots(names), now=now, store=store, **WHO, **options)


def receipt(transfer, at, **changes):
    facts = {
        "bundle_id": transfer.bundle_id,
        "site_code": transfer.site.code,
        "outcome": "received",
        "at": at,
        "key": "SHA256:abc",
        "evidence": "receipt",
    }
    return ReceiptFacts(**{**facts, **changes})


def names_of(snapshots):
    return [snapshot.mirror.name for snapshot in snapshots]


def holdings(site):
    return {(row.mirror_name, "assumed" if row.is_assumed else "known"): row.transfer_id for row in site.holdings.all()}


def inside(bundle, store):
    """Names and bytes of a bundle's members, without the top folder."""
    file = exporting.file_of(bundle, store)
    with tarfile.open(fileobj=io.BytesIO(b"".join(file.read(0, file.size)))) as tar:
        return {member.name.partition("/")[2]: tar.extractfile(member).read() for member in tar}


# Sites


def test_a_site_gets_a_code_from_its_name(now):
    assert sites.add_site("plant-nord-long", Wish(), **WHO, now=now).code == "PLANT-NORD-L"
    assert sites.add_site("lab_7", Wish(), **WHO, now=now).code == "LAB-7"
    assert AuditEntry.objects.filter(action="site added").count() == 2


@pytest.mark.parametrize(
    ("name", "wish", "setting"),
    [
        ("Plant Nord", Wish(), "name"),
        ("new", Wish(), "name"),
        ("x", Wish(code="much too long a code"), "code"),
        ("x", Wish(code="a_b"), "code"),
        ("x", Wish(receipts="perhaps"), "receipts"),
        ("x", Wish(courier_days=0), "courier_days"),
        ("x", Wish(notes="n" * 2001), "notes"),
    ],
)
def test_it_refuses_settings_that_cannot_be(now, name, wish, setting):
    with pytest.raises(RuleBroken) as refused:
        sites.add_site(name, wish, **WHO, now=now)
    assert refused.value.setting == setting


def test_names_and_codes_are_given_once(nord, now):
    with pytest.raises(SiteError, match="already a site called plant-nord"):
        sites.add_site("plant-nord", Wish(code="X"), **WHO, now=now)
    with pytest.raises(SiteError, match="that of Plant Nord"):
        sites.add_site("other", Wish(code="NORD-2"), **WHO, now=now)
    other = sites.add_site("other", Wish(), **WHO, now=now)
    with pytest.raises(SiteError, match="that of Plant Nord"):
        sites.edit_site(other.name, Wish(code="nord-2"), **WHO, now=now)


def test_an_edit_says_what_changed_and_notices_another_editor(nord, now):
    seen = sites.fingerprint(nord)
    _, changes = sites.edit_site("plant-nord", Wish(courier_days=14, notes="Form 12"), **WHO, now=now, seen=seen)
    assert changes == ("courier: as everywhere → 14 days", "notes changed")
    with pytest.raises(SiteChanged):
        sites.edit_site("plant-nord", Wish(courier_days=3), **WHO, now=now, seen=seen)
    assert sites.edit_site("plant-nord", Wish(courier_days=14), **WHO, now=now)[1] == ()


def test_a_site_is_found_by_name_or_code(nord):
    assert sites.find("plant-nord") == sites.find("nord-2") == nord
    with pytest.raises(UnknownSite):
        sites.find("elsewhere")


def test_removing_a_site_takes_its_transfers_and_leaves_its_bundles(nord, held, store, now):
    transfer = send(nord, now, store)
    assert sites.remove_site("plant-nord", **WHO, now=now).open == 1
    assert not Transfer.objects.exists()
    assert Bundle.objects.get(pk=transfer.bundle_id).is_ready


# What a bundle for a site says


def test_a_bundle_for_a_site_names_it_and_carries_a_secret_of_its_own(nord, held, store, now):
    one = send(nord, now, store, reference="Form 4711")
    other = send(nord, now + HOUR, store)
    members = inside(one.bundle, store)
    told = json.loads(members["bundle.json"])
    assert (told["site"], told["transfer"], told["assumed"]) == ("NORD-2", one.pk, [])
    assert told["receipt_secret"] == one.receipt_secret
    assert len(bytes.fromhex(one.receipt_secret)) >= 16
    assert one.receipt_secret != other.receipt_secret
    sheet = members["README.txt"].decode()
    for line in ("For       Plant Nord (NORD-2)", f"Transfer  {one.pk}", "Reference Form 4711"):
        assert line in sheet
    assert one.receipt_secret not in sheet
    assert "LEFT OUT" not in sheet


def test_a_bundle_for_nobody_says_nothing_of_sites(held, store, now):
    bundle = exporting.create_bundle(list(held.values()), profile="full", now=now, by="otto", store=store)
    told = json.loads(inside(bundle, store)["bundle.json"])
    assert not {"site", "transfer", "receipt_secret", "assumed"} & told.keys()


def test_the_secret_is_in_no_record(nord, held, store, now):
    transfer = send(nord, now, store)
    transfers.mark_carried(transfer.pk, **WHO, now=now)
    transfers.apply_receipt(receipt(transfer, now + DAY), **WHO, now=now + DAY)
    assert not AuditEntry.objects.filter(detail__contains=transfer.receipt_secret).exists()


def test_an_archive_has_no_place_for_a_secret(nord, held, store, now):
    transfer = send(nord, now, store, profile="cache")
    assert transfer.receipt_secret == ""


def test_a_second_click_gets_the_bundle_of_the_first_and_never_that_of_a_site(nord, aurora, held, store, now):
    first = send(nord, now, store, reuse=True)
    assert send(nord, now, store, reuse=True).pk == first.pk
    assert send(aurora, now, store, reuse=True).bundle_id != first.bundle_id
    snapshots = list(held.values())
    general = exporting.create_bundle(snapshots, profile="full", now=now, by="otto", store=store, reuse=True)
    assert not Transfer.objects.filter(bundle=general).exists()
    transfers.mark_rejected(first.pk, reason="the disc was lost", **WHO, now=now)
    assert send(nord, now, store, reuse=True).pk != first.pk


# What a site lacks


def test_a_site_lacks_everything_until_a_receipt_says_otherwise(nord, held, store, now):
    transfer = send(nord, now, store)
    transfers.mark_carried(transfer.pk, **WHO, now=now)
    lacks = transfers.missing(nord)
    assert names_of(lacks.send) == names_of(lacks.unsure) == list(held)
    transfers.apply_receipt(receipt(transfer, now + DAY), **WHO, now=now + DAY)
    lacks = transfers.missing(nord)
    assert (lacks.send, names_of(lacks.left_out)) == ((), list(held))
    with pytest.raises(NothingMissing, match="Plant Nord holds everything that is current here"):
        transfers.prepare(nord, lacks.send, left_out=lacks.left_out, **WHO, now=now)
    assert Bundle.objects.count() == 1


def test_only_what_is_new_is_sent_and_the_rest_named(nord, held, mirrors, store, now):
    first = send(nord, now, store)
    transfers.mark_received(first.pk, **WHO, now=now + HOUR)
    keep_build(store, mirrors["trivy-db"], now + HOUR)
    lacks = transfers.missing(nord)
    assert names_of(lacks.send) == ["trivy-db"]
    second = transfers.prepare(nord, lacks.send, left_out=lacks.left_out, **WHO, now=now + 2 * HOUR, store=store)
    members = inside(second.bundle, store)
    told = json.loads(members["bundle.json"])
    assert [each["mirror"] for each in told["snapshots"]] == ["trivy-db"]
    assert [(each["mirror"], each["kind"]) for each in told["assumed"]] == [
        ("trivy-java-db", "trivy-java-db"),
        ("vexhub", "vex"),
    ]
    java, vex = told["assumed"]
    assert java["manifest_digest"] == held["trivy-java-db"].manifest_digest
    assert vex["layer_digest"] == held["vexhub"].digest
    assert java["updated_at"] == "2026-11-20T00:00:00Z"
    sheet = members["README.txt"].decode()
    assert "LEFT OUT" in sheet
    assert held["vexhub"].digest in sheet
    assert "ask for the full bundle" in sheet
    assert not any(held["trivy-java-db"].layer_digest[7:] in name for name in members)


def test_what_was_only_carried_is_relied_on_when_told_so(aurora, held, store, now):
    transfer = send(aurora, now, store)
    assert names_of(transfers.missing(aurora, trust_assumed=True).send) == list(held)
    transfers.mark_carried(transfer.pk, **WHO, now=now)
    assert names_of(transfers.missing(aurora).send) == list(held)
    assert transfers.missing(aurora, trust_assumed=True).send == ()


def test_a_lost_disc_costs_one_export_and_no_history(nord, held, mirrors, store, now):
    first = send(nord, now, store)
    transfers.apply_receipt(receipt(first, now + HOUR), **WHO, now=now + HOUR)
    newer = keep_build(store, mirrors["trivy-db"], now + HOUR)
    lost = send(nord, now + 2 * HOUR, store, "trivy-db")
    transfers.mark_carried(lost.pk, **WHO, now=now + 2 * HOUR)
    transfers.mark_rejected(lost.pk, reason="the disc was lost", **WHO, now=now + DAY)
    assert transfers.missing(nord).send == (newer,)
    assert holdings(nord) == dict.fromkeys([(name, "known") for name in held], first.pk)


def test_a_rebuilt_snapshot_of_the_same_content_is_not_missing(nord, held, store, now):
    transfer = send(nord, now, store)
    transfers.mark_received(transfer.pk, **WHO, now=now)
    SiteHolding.objects.update(snapshot=None)
    assert transfers.missing(nord).send == ()


# On the way


def test_a_transfer_is_carried_and_received_with_who_and_when(nord, held, store, now):
    transfer = send(nord, now, store)
    transfers.mark_carried(transfer.pk, reference="  Form 4711,\n disc 2 ", by="otto", now=now + HOUR)
    transfers.mark_received(transfer.bundle_id, by="ada", now=now + DAY)
    transfer.refresh_from_db()
    assert (transfer.state, transfer.reference, transfer.evidence) == ("received", "Form 4711, disc 2", "hand")
    assert (transfer.carried_by_name, transfer.carried_at) == ("otto", now + HOUR)
    assert (transfer.closed_by_name, transfer.closed_at) == ("ada", now + DAY)
    assert list(AuditEntry.objects.order_by("pk").values_list("action", flat=True))[-3:] == [
        "transfer prepared",
        "transfer carried",
        "transfer received",
    ]


def test_a_reference_can_be_set_right_after_it_was_carried(nord, held, store, now):
    transfer = send(nord, now, store)
    transfers.mark_carried(transfer.pk, by="otto", now=now)
    transfers.mark_carried(transfer.pk, reference="Form 2", by="ada", now=now + DAY)
    transfer.refresh_from_db()
    assert (transfer.reference, transfer.carried_by_name, transfer.carried_at) == ("Form 2", "otto", now)


def test_a_rejection_says_why(nord, held, store, now):
    transfer = send(nord, now, store)
    with pytest.raises(TransferError, match="Say why"):
        transfers.mark_rejected(transfer.pk, reason="  ", **WHO, now=now)
    transfers.mark_rejected(transfer.pk, reason="refused by the office", **WHO, now=now)
    with pytest.raises(TransferError, match="rejected already"):
        transfers.mark_received(transfer.pk, **WHO, now=now)


def test_marks_by_hand_are_taken_back_step_by_step(nord, held, store, now):
    transfer = send(nord, now, store)
    transfers.mark_carried(transfer.pk, **WHO, now=now)
    transfers.mark_received(transfer.pk, **WHO, now=now)
    assert nord.holdings.filter(is_assumed=False).count() == 3
    assert transfers.take_back(transfer.pk, **WHO, now=now).state == "carried"
    assert nord.holdings.filter(is_assumed=False).count() == 0
    assert transfers.take_back(transfer.pk, **WHO, now=now).state == "prepared"
    assert not nord.holdings.exists()
    with pytest.raises(TransferError, match="nothing to take back"):
        transfers.take_back(transfer.pk, **WHO, now=now)


def test_what_is_known_is_what_the_newest_bundle_brought_whatever_arrived_first(nord, held, mirrors, store, now):
    older = send(nord, now, store)
    keep_build(store, mirrors["trivy-db"], now + HOUR)
    newer = send(nord, now + HOUR, store, "trivy-db")
    transfers.mark_received(newer.pk, **WHO, now=now + 2 * HOUR)
    transfers.mark_received(older.pk, **WHO, now=now + 3 * HOUR)
    found = holdings(nord)
    assert found["trivy-db", "known"] == newer.pk
    assert found["vexhub", "known"] == older.pk


def test_a_later_arrival_replaces_what_was_assumed_before_it(nord, held, store, now):
    older = send(nord, now, store)
    newer = send(nord, now + HOUR, store)
    transfers.mark_carried(older.pk, **WHO, now=now)
    assert len(holdings(nord)) == 3
    transfers.mark_received(newer.pk, **WHO, now=now + HOUR)
    assert {kind for _, kind in holdings(nord)} == {"known"}


# Receipts


def test_a_receipt_closes_the_transfer_and_updates_what_the_site_holds(nord, held, store, now):
    transfer = send(nord, now, store)
    transfers.apply_receipt(receipt(transfer, now + HOUR), **WHO, now=now + DAY)
    transfer.refresh_from_db()
    assert (transfer.state, transfer.evidence, transfer.receipt_key) == ("received", "receipt", "SHA256:abc")
    assert {row.evidence for row in nord.holdings.all()} == {"receipt"}
    assert {row.since for row in nord.holdings.all()} == {now + HOUR}


def test_a_receipt_dated_before_the_bundle_or_in_the_future_counts_from_when_it_was_loaded(nord, held, store, now):
    for at in (now - DAY, now + 900 * DAY):
        transfer = send(nord, now, store)
        transfers.apply_receipt(receipt(transfer, at), **WHO, now=now + DAY)
        transfer.refresh_from_db()
        assert transfer.arrived_at == now + DAY


def test_a_replayed_receipt_is_refused(nord, held, store, now):
    transfer = send(nord, now, store)
    transfers.apply_receipt(receipt(transfer, now + HOUR), **WHO, now=now + HOUR)
    with pytest.raises(ReceiptRefused, match="changes nothing"):
        transfers.apply_receipt(receipt(transfer, now + HOUR), **WHO, now=now + DAY)
    with pytest.raises(ReceiptRefused, match="changes nothing"):
        transfers.apply_receipt(receipt(transfer, now + DAY, outcome="rejected"), **WHO, now=now + DAY)
    transfer.refresh_from_db()
    assert (transfer.state, transfer.closed_at) == ("received", now + HOUR)


def test_a_receipt_of_another_site_or_bundle_is_refused(nord, aurora, held, store, now):
    transfer = send(nord, now, store)
    with pytest.raises(ReceiptRefused, match="made for NORD-2"):
        transfers.apply_receipt(receipt(transfer, now, site_code="AURORA"), **WHO, now=now)
    with pytest.raises(ReceiptRefused, match="was not made here"):
        transfers.apply_receipt(receipt(transfer, now, bundle_id="ffffffff"), **WHO, now=now)
    with pytest.raises(ReceiptRefused, match="cannot say"):
        transfers.apply_receipt(receipt(transfer, now, outcome="lost"), **WHO, now=now)
    transfer.refresh_from_db()
    assert transfer.state == "prepared"


def test_a_receipt_outweighs_a_mark_by_hand_and_a_signed_one_a_typed_code(nord, held, store, now):
    transfer = send(nord, now, store)
    transfers.mark_received(transfer.pk, **WHO, now=now)
    transfers.apply_receipt(receipt(transfer, now, outcome="rejected", evidence="code", key=""), **WHO, now=now)
    assert not nord.holdings.exists()
    transfers.apply_receipt(receipt(transfer, now + HOUR, evidence="code", key=""), **WHO, now=now + HOUR)
    assert {row.evidence for row in nord.holdings.all()} == {"code"}
    transfers.apply_receipt(receipt(transfer, now + HOUR), **WHO, now=now + 2 * HOUR)
    assert {row.evidence for row in nord.holdings.all()} == {"receipt"}
    with pytest.raises(TransferError, match="nobody here can take back"):
        transfers.take_back(transfer.pk, **WHO, now=now)


# How old it is there


def standing_of(site, now):
    return site_standing.standings([site], Reading(now, behind=False))[0]


def test_age_over_there_is_judged_by_the_couriers_rhythm(nord, held, store, now):
    transfers.mark_received(send(nord, now, store, "trivy-db").pk, **WHO, now=now)
    built = now - 5 * HOUR
    states = {
        8 * DAY: "fresh",
        8 * DAY + HOUR: "due",
        14 * DAY + HOUR: "stale",
        30 * DAY + HOUR: "expired",
    }
    for age, state in states.items():
        assert standing_of(nord, built + age).look.state == state
    sites.edit_site("plant-nord", Wish(courier_days=1), **WHO, now=now)
    assert standing_of(Site.objects.get(), built + 3 * DAY).look.state == "stale"


def test_what_is_confirmed_counts_from_the_confirmation_that_was_carried(nord, held, mirrors, store, now):
    transfers.mark_received(send(nord, now, store).pk, **WHO, now=now)
    vex = next(row for row in standing_of(nord, now + 10 * DAY).rows if row.mirror_name == "vexhub")
    assert vex.verdict.judged_at == held["vexhub"].confirmed_at
    # It is unchanged and confirmed here again; the next bundle leaves it out, and by that the site learns of it.
    held["vexhub"].confirmed_at = now + 9 * DAY
    held["vexhub"].save()
    keep_build(store, mirrors["trivy-db"], now + 9 * DAY)
    lacks = transfers.missing(nord)
    second = transfers.prepare(nord, lacks.send, left_out=lacks.left_out, **WHO, now=now + 9 * DAY, store=store)
    transfers.mark_carried(second.pk, **WHO, now=now + 9 * DAY)
    assert standing_of(nord, now + 10 * DAY).oldest.mirror_name == "vexhub"
    transfers.apply_receipt(receipt(second, now + 10 * DAY), **WHO, now=now + 10 * DAY)
    vex = next(row for row in standing_of(nord, now + 10 * DAY).rows if row.mirror_name == "vexhub")
    assert vex.verdict.judged_at == now + 9 * DAY


def test_with_no_receipts_its_age_is_what_was_last_carried_and_said_to_be_assumed(aurora, held, mirrors, store, now):
    transfer = send(aurora, now, store)
    assert standing_of(aurora, now).summary == "nothing arrived yet"
    transfers.mark_carried(transfer.pk, **WHO, now=now)
    found = standing_of(aurora, now + 31 * DAY)
    assert found.look.state == "expired"
    assert found.is_assumed
    assert found.summary == "3 databases, oldest 32 d (assumed)"
    assert site_standing.headline_of(found) == (
        "VEX Hub at MS Aurora was last confirmed 32 days ago, as far as can be assumed."
    )


def test_with_receipts_expected_what_was_carried_is_on_the_way_and_not_there(nord, held, store, now):
    transfers.mark_carried(send(nord, now, store).pk, **WHO, now=now)
    found = standing_of(nord, now)
    assert found.look.state == "never"
    assert all(row.on_the_way and not row.holding for row in found.rows)


def test_a_clock_that_is_behind_calls_nothing_fresh(nord, held, store, now):
    transfers.mark_received(send(nord, now, store).pk, **WHO, now=now)
    assert site_standing.standings([nord], Reading(now, behind=True))[0].look.state == "due"


def test_a_mirror_removed_here_is_still_there(nord, held, mirrors, store, now):
    transfers.mark_received(send(nord, now, store).pk, **WHO, now=now)
    mirrors["vexhub"].delete()
    row = next(row for row in standing_of(nord, now).rows if row.mirror_name == "vexhub")
    assert (row.label, row.is_current) == ("VEX Hub", None)


def test_what_never_went_there_is_shown_and_not_counted(nord, held, store, now):
    transfers.mark_received(send(nord, now, store, "trivy-db").pk, **WHO, now=now)
    found = standing_of(nord, now)
    assert [row.mirror_name for row in found.held] == ["trivy-db"]
    assert [row.mirror_name for row in found.rows] == list(held)
    assert found.look.state == "fresh"


def test_the_sentence_about_all_sites(nord, aurora, held, store, now):
    def said(at):
        return site_standing.headline(site_standing.standings([nord, aurora], Reading(at, behind=False)))

    assert site_standing.headline([]) == "No site is known yet."
    assert said(now) == "Nothing has arrived at any site yet."
    transfers.mark_received(send(nord, now, store).pk, **WHO, now=now)
    assert said(now) == "One of two sites has nothing yet."
    transfers.mark_carried(send(aurora, now, store).pk, **WHO, now=now)
    assert said(now) == "Both sites are fresh."
    transfers.mark_received(send(nord, now + 9 * DAY, store, "trivy-db").pk, **WHO, now=now)
    assert said(now + 9 * DAY).startswith("Neither site is fresh. ")


def test_the_number_of_queries_does_not_grow_with_sites(held, store, now, django_assert_num_queries):
    for number in range(12):
        site = sites.add_site(f"site-{number}", Wish(), **WHO, now=now)
        if number % 2:
            transfers.mark_received(send(site, now, store).pk, **WHO, now=now)
    every = list(Site.objects.in_order())
    with django_assert_num_queries(4):
        assert len(site_standing.standings(every, Reading(now, behind=False))) == 12
    with django_assert_num_queries(4):
        site_standing.standings(every[:1], Reading(now, behind=False))


def test_nothing_here_means_nothing_to_send(nord, data_dir, now):
    with pytest.raises(ExportError, match="nothing to export yet"):
        transfers.missing(nord)


def test_what_is_assumed_is_marked_where_it_stands_beside_what_is_known(aurora, held, store, now):
    transfers.mark_carried(send(aurora, now, store).pk, **WHO, now=now)
    assert standing_of(aurora, now).ages == "Vulnerability DB: 5 h, Java DB: 12 h, VEX Hub: 29 h"
    transfers.mark_received(send(aurora, now + HOUR, store, "trivy-db").pk, **WHO, now=now + HOUR)
    assert standing_of(aurora, now).ages == "Vulnerability DB: 5 h, Java DB: 12 h (assumed), VEX Hub: 29 h (assumed)"


@pytest.mark.django_db(transaction=True)
def test_a_site_that_is_removed_meanwhile_gets_nothing(nord, held, store, now):
    Site.objects.filter(pk=nord.pk).delete()
    with pytest.raises(TransferError, match="removed meanwhile"):
        send(nord, now, store)
    assert not Bundle.objects.exists()
