"""Receipts whose signature does not come by itself, and what stays of one that was signed."""

import pytest

from mirrors import keys
from mirrors.models import AuditEntry, IssuedReceipt
from mirrors.receipting import giving, issuing, loading, signing
from mirrors.receipting.giving import NoReceipt, ReceiptsAreOff
from mirrors.receipting.loading import ReceiptRefused
from mirrors.receipting.signing import NotTaken
from mirrors.receipts import NAMESPACE, read, read_code
from mirrors.signing import Key, sign
from tests.receipting.test_giving import make, own_data

__all__ = ["own_data"]
pytestmark = pytest.mark.django_db
OUTSIDE = Key.generate()


@pytest.fixture
def outside(data_dir, db, now):
    return keys.use_elsewhere(OUTSIDE.public_line(), "outside", by="ada", now=now)


@pytest.fixture
def run(ended, on, outside):
    return ended()


def signature_for(run, key=OUTSIDE, namespace=NAMESPACE) -> bytes:
    return sign(giving.to_sign(run).text(), key, namespace)


def attach(run, signature, now):
    return signing.attach(run, signature, by="otto", now=now, address="10.0.0.7")


def in_an_agent(now, settings):
    """A key in an agent that is away."""
    settings.AIRGAP_SSH_AUTH_SOCK = "/nowhere/agent"
    keys.SigningKey.objects.current().update(retired_at=now)
    return keys.SigningKey.objects.create(
        kept="agent", public_line=OUTSIDE.public_line(), fingerprint=OUTSIDE.fingerprint, created_at=now
    )


class TestAwaited:
    def test_until_it_is_signed_there_is_the_code(self, run, now):
        given = make(run, now)
        assert given.text is None and given.waits and "kept outside: a person signs there" in given.unsigned
        assert read_code(given.code).bundle == run.bundle

    def test_without_a_secret_it_waits_with_nothing_to_give(self, ended, on, outside, now):
        given = make(ended(receipt_secret=""), now)
        assert given.waits and given.text is None and not given.code

    def test_the_right_signature_makes_the_signed_file(self, run, now):
        signature = signature_for(run)
        attach(run, signature, now)
        given = make(run, now)
        assert given.text == given.receipt.text() + signature
        assert not given.waits and not given.unsigned and not given.outdated
        entry = AuditEntry.objects.get(action="receipt signed")
        assert (entry.actor, entry.subject, entry.detail) == ("otto", "ab12cd34", OUTSIDE.fingerprint)
        assert entry.address == "10.0.0.7"

    def test_line_ends_of_a_browser_are_no_harm(self, run, now):
        signature = signature_for(run)
        attach(run, signature.replace(b"\n", b"\r\n"), now)
        assert make(run, now).text.endswith(signature)

    @pytest.mark.parametrize(
        ("make_signature", "sentence"),
        [
            (lambda run, other: b"hello", "This is no signature of OpenSSH"),
            (lambda run, other: b"x" * 40_000, "too long for a signature"),
            (
                lambda run, other: signature_for(other),
                "did not sign these bytes. Sign airgap-receipt-ab12cd34-facts.txt",
            ),
            (lambda run, other: signature_for(run, namespace="airgap-bundle"), "was made for 'airgap-bundle' and not"),
            (lambda run, other: signature_for(run, Key.generate()), f"; this receipt wants {OUTSIDE.fingerprint}."),
        ],
        ids=["garbage", "long", "of another receipt", "for bundles", "by another key"],
    )
    def test_a_wrong_one_is_refused_and_nothing_changes(self, run, ended, now, make_signature, sentence):
        before = make(run, now)
        with pytest.raises(NotTaken) as caught:
            attach(run, make_signature(run, ended(bundle="00000002")), now)
        assert sentence in str(caught.value)
        assert make(run, now) == before and not IssuedReceipt.objects.exists()
        assert not AuditEntry.objects.filter(action="receipt signed").exists()

    def test_a_second_one_is_refused(self, run, now):
        attach(run, signature_for(run), now)
        with pytest.raises(NotTaken, match=r"does not wait for a signature: SHA256:.* has signed it"):
            attach(run, signature_for(run), now)

    def test_of_two_at_once_the_first_counts(self, run, now):
        facts = giving.to_sign(run)
        first = issuing.keep(run, facts, signature_for(run), by="otto", now=now)
        assert issuing.keep(run, facts, b"another", by="ida", now=now) == first
        assert first.signed_by == "otto" and AuditEntry.objects.filter(action="receipt signed").count() == 1

    def test_while_receipts_are_off_none_is_taken(self, run, now):
        signature = signature_for(run)
        giving.switch(False, by="ada", now=now)
        with pytest.raises(ReceiptsAreOff):
            attach(run, signature, now)

    def test_an_import_without_a_receipt_takes_none(self, ended, run, now):
        with pytest.raises(NoReceipt, match="Import it again"):
            attach(ended(state="lost", bundle="00000002"), signature_for(run), now)

    def test_the_instance_does_not_sign_with_a_key_that_it_lacks(self, run, now):
        with pytest.raises(NotTaken, match="is kept outside: somebody signs there"):
            signing.sign(run, by="otto", now=now)


class TestAnotherKeyMeanwhile:
    def test_a_signature_by_the_one_before_is_refused_and_says_so(self, run, now):
        late = signature_for(run)
        second = Key.generate()
        keys.use_elsewhere(second.public_line(), "outside", by="ada", now=now)
        with pytest.raises(NotTaken) as caught:
            attach(run, late, now)
        assert f"It is signed with {OUTSIDE.fingerprint}; this receipt wants {second.fingerprint}." in str(caught.value)
        assert "was replaced on 2026-11-20" in str(caught.value) and "facts.txt again" in str(caught.value)
        assert not IssuedReceipt.objects.exists()
        attach(run, signature_for(run, second), now)
        assert make(run, now).receipt.key_id == second.fingerprint

    def test_a_key_of_our_own_signs_at_once(self, run, now):
        late = signature_for(run)
        keys.rotate(by="ada", now=now)
        with pytest.raises(NotTaken, match="is kept in this instance: nobody brings its signatures"):
            attach(run, late, now)
        given = make(run, now)
        assert read(given.text).receipt.key_id == keys.current().fingerprint and not given.outdated


class TestIssued:
    def test_it_stays_what_it_was_after_a_rotation(self, run, now):
        attach(run, signature_for(run), now)
        before = make(run, now)
        keys.rotate(by="ada", now=now)
        after = make(run, now)
        assert (after.text, after.code, after.receipt) == (before.text, before.code, before.receipt)
        assert f"The key is {keys.current().fingerprint} now" in after.outdated

    def test_one_by_our_own_key_stays_too(self, ended, on, now):
        run = ended()
        before = make(run, now)
        keys.use_elsewhere(OUTSIDE.public_line(), "outside", by="ada", now=now)
        after = make(run, now)
        assert after.text == before.text and after.outdated and not after.waits
        assert not AuditEntry.objects.filter(action="receipt signed").exists()

    def test_signed_anew_there_are_two_and_the_newer_is_given_out(self, run, now):
        attach(run, signature_for(run), now)
        first = make(run, now).text
        keys.rotate(by="ada", now=now)
        signing.sign(run, by="otto", now=now)
        given = make(run, now)
        assert given.receipt.key_id == keys.current().fingerprint and not given.outdated
        assert [row.text for row in run.receipts.all()] == [given.text.decode(), first.decode()]
        with pytest.raises(NotTaken, match="does not wait"):
            signing.sign(run, by="otto", now=now)

    def test_the_key_of_before_used_again_has_its_receipt_already(self, run, now):
        attach(run, signature_for(run), now)
        first = make(run, now).text
        keys.rotate(by="ada", now=now)
        signing.sign(run, by="otto", now=now)
        keys.use_elsewhere(OUTSIDE.public_line(), "outside", by="ada", now=now)
        assert make(run, now).text == first

    def test_another_site_code_changes_none_and_asks(self, run, now, settings):
        attach(run, signature_for(run), now)
        settings.AIRGAP_SITE_CODE = "SUED"
        given = make(run, now)
        assert given.receipt.site == "NORD-2" and "This side is called SUED now" in given.outdated
        attach(run, signature_for(run), now)
        assert make(run, now).receipt.site == "SUED" and not make(run, now).outdated


class TestInAnAgent:
    def test_looking_does_not_ask_it(self, ended, on, now, settings):
        key = in_an_agent(now, settings)
        given = make(ended(), now)
        assert given.waits and given.text is None and given.code
        assert given.unsigned == (
            f"Its key {key.fingerprint} is kept in an ssh-agent: it signs when somebody here wants it to."
        )

    def test_one_that_is_away_signs_nothing(self, ended, on, now, settings):
        in_an_agent(now, settings)
        run = ended()
        with pytest.raises(NotTaken, match=r"The ssh-agent at /nowhere/agent cannot be used: .* Nothing was signed"):
            signing.sign(run, by="otto", now=now)
        given = giving.make(run, by="otto", now=now, ask_agent=True)
        assert given.waits and "cannot be used" in given.unsigned and not IssuedReceipt.objects.exists()

    def test_a_brought_signature_is_not_wanted(self, ended, on, now, settings):
        in_an_agent(now, settings)
        run = ended()
        with pytest.raises(NotTaken, match="is kept in an ssh-agent: nobody brings"):
            attach(run, signature_for(run), now)


def test_the_other_side_loads_it_like_any_other(ended, on, transfer, now):
    keys.use_elsewhere(OUTSIDE.public_line(), "outside", by="ada", now=now)
    run = ended(bundle=transfer.bundle_id, transfer=transfer.pk, receipt_secret=transfer.receipt_secret)
    attach(run, signature_for(run), now)
    text = make(run, now).text
    with pytest.raises(ReceiptRefused):
        loading.load(text, by="ida", now=now)
    keys.trust("nord", OUTSIDE.public_line(), by="ada", now=now)
    receipt = loading.load(text, by="ida", now=now)
    assert receipt.is_signed and receipt.key_name == "nord" and receipt.transfer.evidence == "receipt"
