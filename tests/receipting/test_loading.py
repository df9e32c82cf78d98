"""Loading receipts: what is believed, what it changes, and every way in which one is refused."""

import importlib
from datetime import timedelta

import pytest
from django.apps import apps

from mirrors import keys, sites, transfers
from mirrors.models import AuditEntry, Receipt, Transfer
from mirrors.receipting.loading import LoadedBefore, ReceiptRefused, load, sentence
from mirrors.receipts import NAMESPACE, signed_text
from mirrors.signing import Key, sign
from mirrors.sites import Wish

pytestmark = pytest.mark.django_db
DAY = timedelta(days=1)


@pytest.fixture
def bring(now):
    def bring(text, *, at=now, **options):
        return load(text, by="otto", now=at, address="192.0.2.7", **options)

    return bring


@pytest.fixture
def refused(bring, transfer):
    """refused(text) -> the sentence; nothing may have changed, and the record says so."""

    def refused(text, **options):
        before = Transfer.objects.get(pk=transfer.pk)
        rows, entries = Receipt.objects.count(), AuditEntry.objects.filter(action="receipt refused").count()
        with pytest.raises(ReceiptRefused) as caught:
            bring(text, **options)
        after = Transfer.objects.get(pk=transfer.pk)
        assert (after.state, after.evidence, after.closed_at) == (before.state, before.evidence, before.closed_at)
        assert Receipt.objects.count() == rows
        assert AuditEntry.objects.filter(action="receipt refused").count() == entries + 1
        return str(caught.value)

    return refused


def test_a_signed_receipt_closes_the_transfer_and_says_what_the_site_holds(bring, signed, trusted, transfer, now):
    receipt = bring(signed(), way="file")
    assert (receipt.way, receipt.key_name, receipt.outcome) == ("file", "nord", "received")
    found = Transfer.objects.get(pk=transfer.pk)
    assert (found.state, found.evidence, found.receipt_key) == ("received", "receipt", trusted.fingerprint)
    assert found.closed_by_name == "otto"
    assert [row.mirror_name for row in transfer.site.holdings.filter(is_assumed=False)] == ["trivy-db"]
    assert AuditEntry.objects.filter(action="transfer received", actor="otto", address="192.0.2.7").exists()
    assert "Plant Nord" in sentence(receipt) and "key nord" in sentence(receipt)


def test_a_typed_code_closes_it_too_and_is_called_weaker(bring, code, transfer):
    receipt = bring(code().lower().replace(b"-", b" "))
    assert (receipt.way, receipt.key, receipt.is_signed) == ("code", "", False)
    assert Transfer.objects.get(pk=transfer.pk).evidence == "code"
    assert "weaker evidence" in sentence(receipt)


def test_a_code_names_the_trusted_key_that_it_begins_like(bring, code, trusted):
    assert bring(code()).key_name == "nord"


def test_a_rejected_bundle_is_not_held(bring, signed, trusted, transfer):
    receipt = bring(signed(outcome="rejected"))
    assert Transfer.objects.get(pk=transfer.pk).state == "rejected"
    assert not transfer.site.holdings.exists()
    assert "sends it again" in sentence(receipt)


def test_what_was_read_from_a_picture_is_called_so(bring, signed, trusted):
    assert bring(signed(), way="qr").way == "qr"


def test_a_code_is_called_one_however_it_came(bring, code):
    assert bring(code(), way="file").way == "code"


def test_an_unknown_way_is_text(bring, signed, trusted):
    assert bring(signed(), way="<script>").way == "text"


def test_a_replayed_receipt_changes_nothing_and_says_when_it_was_loaded(bring, refused, signed, trusted, now):
    bring(signed())
    said = refused(signed().replace(b"\n", b"\r\n"), at=now + DAY)
    assert "was loaded already" in said and "2026-11-20 12:00 UTC by otto" in said


def test_a_replayed_code_changes_nothing_either(bring, refused, code):
    bring(code())
    assert "was loaded already" in refused(code().lower())


def test_a_signed_receipt_outweighs_a_code(bring, signed, code, trusted, transfer):
    bring(code())
    bring(signed())
    assert Transfer.objects.get(pk=transfer.pk).evidence == "receipt"


def test_a_code_changes_nothing_after_the_signed_receipt(bring, refused, signed, code, trusted):
    bring(signed())
    assert "changes nothing" in refused(code())


def test_a_late_refusal_does_not_take_back_what_was_received(bring, refused, signed, trusted, now):
    bring(signed())
    assert "changes nothing" in refused(signed(outcome="rejected", date=now.date() + DAY))


def test_what_was_refused_at_first_and_taken_in_later_is_received(bring, signed, trusted, transfer):
    bring(signed(outcome="rejected"))
    bring(signed())
    assert Transfer.objects.get(pk=transfer.pk).state == "received"


def test_it_refuses_a_receipt_of_another_site(refused, signed, code, trusted, now):
    sites.add_site("sued", Wish(label="Sued", code="SUED"), by="ada", now=now)
    assert "comes from site 'SUED'" in refused(signed(site="SUED"))
    assert "was not made with the bundle" in refused(code(site="SUED"))


@pytest.mark.parametrize("called", ["NORD-2", "NEW"])
@pytest.mark.parametrize("form", ["signed", "code"])
def test_receipts_under_way_count_after_the_sites_code_was_changed(
    bring, signed, code, trusted, transfer, now, form, called
):
    sites.edit_site("plant-nord", Wish(code="NEW"), by="ada", now=now)
    receipt = bring({"signed": signed, "code": code}[form](site=called))
    assert (receipt.site, receipt.outcome) == (called, "received")
    assert Transfer.objects.get(pk=transfer.pk).state == "received"


def test_a_former_code_is_kept_free_while_a_receipt_may_come_under_it(bring, signed, trusted, transfer, now):
    sites.edit_site("plant-nord", Wish(code="NEW"), by="ada", now=now)
    with pytest.raises(sites.SiteError, match=f"former code NORD-2: transfer {transfer.pk} is open"):
        sites.add_site("other", Wish(code="NORD-2"), by="ada", now=now)
    sites.edit_site("plant-nord", Wish(code="NORD-2"), by="ada", now=now)
    sites.edit_site("plant-nord", Wish(code="NEW"), by="ada", now=now)
    bring(signed())
    sites.add_site("other", Wish(code="NORD-2"), by="ada", now=now)


def test_a_code_that_another_site_has_by_now_is_that_sites(refused, signed, code, trusted, transfer, now):
    sites.edit_site("plant-nord", Wish(code="NEW"), by="ada", now=now)
    transfers.mark_received(transfer.pk, by="otto", now=now)
    sites.add_site("other", Wish(code="NORD-2"), by="ada", now=now)
    assert "comes from site 'NORD-2'" in refused(signed())
    assert "the site's code over there is NEW." in refused(code())


def test_transfers_of_before_keep_the_code_there_is(transfer):
    Transfer.objects.update(site_code="")
    importlib.import_module("mirrors.migrations.0018_keep_site_codes_with_transfers").keep_codes(apps, None)
    assert Transfer.objects.get().site_code == "NORD-2"


def test_it_refuses_a_receipt_for_a_bundle_that_never_left_here(refused, signed, code, trusted):
    for text in (signed(bundle="00000000"), code(bundle="00000000")):
        assert "'00000000', which was not made here for a site" in refused(text)


def test_it_refuses_a_code_made_with_another_secret(refused, code):
    assert "was not made with the bundle" in refused(code(secret="ab" * 16))


def test_it_refuses_a_code_where_the_bundle_has_no_secret(refused, code, transfer):
    text = code()
    Transfer.objects.update(receipt_secret="")
    assert "holds no secret" in refused(text)


def test_it_names_the_group_that_was_mistyped(refused, code):
    groups = code().decode().split("-")
    groups[2] = groups[2][1] + groups[2][0] + groups[2][2:] if groups[2][0] != groups[2][1] else "00000"
    assert "mistyped in group 3" in refused("-".join(groups).encode())


def test_it_refuses_an_unknown_key_and_says_where_it_is_trusted(refused, signed, their_key):
    said = refused(signed())
    assert their_key.fingerprint in said and "Settings → Keys" in said


def test_it_refuses_a_revoked_key_in_every_form(refused, signed, code, trusted, now):
    keys.revoke("nord", by="ada", now=now)
    assert "revoked" in refused(signed())
    assert "revoked" in refused(code())


def test_it_refuses_a_signature_of_other_facts(refused, signed, trusted):
    assert "is not believed" in refused(signed().replace(b"outcome received", b"outcome rejected"))


def test_it_refuses_a_signature_that_was_made_for_something_else(refused, fact, their_key, trusted):
    receipt = fact()
    assert "airgap-bundle" in refused(signed_text(receipt, sign(receipt.text(), their_key)))


def test_it_refuses_a_receipt_that_names_another_key_than_its_own(refused, fact, their_key, trusted):
    receipt = fact(key_id=Key.generate().fingerprint)
    assert "signed with another" in refused(signed_text(receipt, sign(receipt.text(), their_key, NAMESPACE)))


def test_it_refuses_a_date_that_cannot_be_and_says_what_to_do(refused, signed, code, trusted, now):
    for days in (-400, -3, 3, 4000):
        for text in (signed(date=now.date() + days * DAY), code(date=now.date() + days * DAY)):
            said = refused(text)
            assert "One of the two clocks is wrong" in said and "by hand" in said


@pytest.mark.parametrize("days", [-2, 2])
def test_clocks_may_differ_by_a_day_or_two(bring, signed, trusted, now, days):
    assert bring(signed(date=now.date() + days * DAY)).outcome == "received"


@pytest.mark.parametrize(
    "text", [b"", b"\0" * 50, b"hello", b"-----BEGIN", b"x" * 100_000, "ÄÖÜ".encode(), b"\xff" * 35]
)
def test_it_refuses_rubbish_with_a_sentence(refused, text):
    assert refused(text).endswith(".")


def test_two_that_load_the_same_at_once_get_one_row(bring, signed, trusted, monkeypatch):
    bring(signed())
    monkeypatch.setattr("mirrors.receipting.loading._require_new", _once())
    with pytest.raises(LoadedBefore):
        bring(signed())
    assert Receipt.objects.count() == 1


def _once():
    """As if the other's row were not there yet at the first look."""
    from mirrors.receipting import loading

    asked, really = [], loading._require_new

    def look(row):
        asked.append(row)
        if len(asked) > 1:
            really(row)

    return look


def test_the_secret_stands_in_no_row_record_or_sentence(bring, refused, code, transfer):
    refused(code(secret="ab" * 16))
    bring(code())
    for entry in AuditEntry.objects.all():
        assert transfer.receipt_secret not in f"{entry.subject}{entry.detail}"
