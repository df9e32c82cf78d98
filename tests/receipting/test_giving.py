"""Making receipts: off until an administrator turns them on, and nothing in them but five facts."""

from datetime import UTC, datetime, timedelta

import pytest

from mirrors import keys
from mirrors.models import AuditEntry, Import
from mirrors.receipting import giving, loading
from mirrors.receipting.giving import NoReceipt, ReceiptsAreOff
from mirrors.receipts import NAMESPACE, read, read_code
from tests.receipting.conftest import SECRET

pytestmark = pytest.mark.django_db
DAMAGED = "layer.tar.gz is damaged: its bytes are not those that SHA256SUMS lists. Copy the bundle again."
REFUSED = {"state": "failed", "report": {"refusal": "signature", "signature": "unsigned"}}


@pytest.fixture(autouse=True)
def own_data(data_dir, settings):
    settings.AIRGAP_SIDE, settings.AIRGAP_SITE_CODE = "isolated", ""


def make(run, now, by="otto"):
    return giving.make(run, by=by, now=now)


def test_it_is_off_until_an_administrator_turns_it_on(ended, now):
    with pytest.raises(ReceiptsAreOff, match="carry information out"):
        make(ended(), now)
    assert not AuditEntry.objects.filter(action="signing key made").exists()


def test_turning_it_on_and_off_is_recorded_once_each(now):
    assert giving.switch(True, by="ada", now=now) and not giving.switch(True, by="ada", now=now)
    assert giving.switch(False, by="ada", now=now)
    assert not giving.is_on()
    actions = [(entry.action, entry.actor) for entry in AuditEntry.objects.order_by("pk")]
    assert actions == [("receipts turned on", "ada"), ("receipts turned off", "ada")]


def test_the_receipt_of_a_bundle_that_is_in(ended, on, now):
    given = make(ended(), now)
    found = read(given.text)
    assert found.receipt == given.receipt
    signed = keys.check_signature(found.receipt.text(), found.signature, NAMESPACE)
    assert signed.fingerprint == given.receipt.key_id == keys.current().fingerprint
    assert (given.receipt.outcome, given.receipt.site, str(given.receipt.date)) == ("received", "NORD-2", "2026-11-20")
    assert read_code(given.code).is_genuine(SECRET, "NORD-2")


def test_what_one_side_makes_the_other_loads(ended, on, transfer, now):
    run = ended(bundle=transfer.bundle_id, transfer=transfer.pk, receipt_secret=transfer.receipt_secret)
    keys.trust("nord", keys.current().public_line, by="ada", now=now)
    given = make(run, now)
    assert loading.load(given.code.encode(), by="ida", now=now).key_name == "nord"
    assert loading.load(given.text, by="ida", now=now).transfer.evidence == "receipt"


def test_nothing_else_is_in_it(ended, on, now):
    given = make(ended(), now)
    assert given.text.count(b"\n") == given.receipt.text().count(b"\n") + 6
    assert len(given.receipt.text().splitlines()) == 6


def test_it_is_the_same_each_time(ended, on, now):
    run = ended()
    assert make(run, now).text == make(run, now + timedelta(days=3)).text


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({"state": "unchanged"}, "received"),
        ({"state": "cancelled", "decided_by": "otto"}, "rejected"),
        ({"state": "failed", "report": {"refusal": "signature", "signature": "unsigned"}}, "rejected"),
        ({"state": "failed", "report": {"refusal": "site", "signature": "trusted"}}, "rejected"),
        ({"state": "failed", "report": {"refusal": "content", "problems": ["It has another kind."]}}, "rejected"),
        ({"state": "failed", "report": {"refusal": "content", "problems": [DAMAGED], "signature": "wrong signature"}},
         "rejected"),
        ({"state": "failed", "report": {"refusal": "content", "problems": [DAMAGED], "signature": "unsigned"}},
         "rejected"),
    ],
)  # fmt: skip
def test_what_it_says_of_other_ends(ended, on, now, changes, outcome):
    run = ended(**changes)
    assert giving.why_none(run) == ""
    assert make(run, now).receipt.outcome == outcome


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"report": {"refusal": "room", "problems": ["There is no room."]}}, "lack of room"),
        ({"bundle": "", "report": {"refusal": "room"}}, "lack of room"),
        ({"report": {"refusal": "fault", "problems": ["The bundle cannot be read."]}}, "a medium that cannot be read"),
        ({"bundle": "", "report": {"refusal": "fault"}}, "a medium that cannot be read"),
        ({"report": {"refusal": "content", "problems": [DAMAGED], "signature": "trusted"}}, "copy of the bundle is da"),
        ({"report": {"refusal": "content", "problems": [DAMAGED], "signature": "unsigned"}, "allow_unsigned": True},
         "copy of the bundle is damaged"),
        ({"report": {}}, "Import it again"),
        ({"state": "cancelled"}, "Nobody decided"),
    ],
)  # fmt: skip
def test_what_can_be_tried_again_is_not_rejected(ended, on, now, changes, said):
    run = ended(**{"state": "failed", **changes})
    assert said in giving.why_none(run)
    with pytest.raises(NoReceipt, match=said):
        make(run, now)


def test_while_another_import_of_the_bundle_is_under_way_none_is_rejected(ended, on, now):
    refused = ended(**REFUSED)
    again = ended(state="queued", finished_at=None, bundle="", site="", transfer="")
    with pytest.raises(NoReceipt, match=f"under way, number {again.pk}"):
        make(refused, now)
    Import.objects.filter(pk=again.pk).update(state="waiting", bundle=refused.bundle, name="the other drive's.tar")
    with pytest.raises(NoReceipt, match=f"under way, number {again.pk}"):
        make(refused, now)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"state": "running", "finished_at": None}, "has not ended"),
        ({"state": "lost"}, "Import it again"),
        ({"state": "failed", "bundle": ""}, "which bundle"),
        ({"site": "", "transfer": ""}, "no certain site"),
        ({"bundle": "nonsense"}, "8 hexadecimal digits"),
        ({"site": "Plant Nord!"}, "site's code"),
        ({"finished_at": datetime(1970, 1, 1, tzinfo=UTC)}, "clock"),
    ],
)
def test_of_some_imports_there_is_none(ended, on, now, changes, said):
    with pytest.raises(NoReceipt, match=said):
        make(ended(**changes), now)


def test_a_failed_try_of_a_bundle_that_came_in_says_nothing(ended, on, now):
    failed, good = ended(**REFUSED), ended()
    with pytest.raises(NoReceipt, match=f"number {good.pk}"):
        make(failed, now)
    assert giving.import_of("ab12cd34") == good


def test_without_a_name_the_latest_import_is_meant(ended, now):
    ended(bundle="00000001")
    latest = ended(bundle="00000002", finished_at=now + timedelta(hours=1))
    ended(bundle="", state="failed", finished_at=now + timedelta(hours=2))
    assert giving.import_of() == latest
    with pytest.raises(NoReceipt, match="'ffffffff'"):
        giving.import_of("ffffffff")


def test_the_sites_own_code_counts_more_than_the_bundles(ended, on, now, settings):
    settings.AIRGAP_SITE_CODE = "sued"
    assert make(ended(), now).receipt.site == "SUED"


def test_without_a_secret_there_is_the_signed_text(ended, on, now):
    given = make(ended(receipt_secret=""), now)
    assert given.text and not given.code and "no secret" in given.uncoded


def test_each_person_who_makes_one_is_in_the_record_once(ended, on, now):
    run = ended()
    for by in ("otto", "otto", "ida"):
        make(run, now, by)
    entries = AuditEntry.objects.filter(action="receipt made")
    assert sorted(entry.actor for entry in entries) == ["ida", "otto"]
    assert all(SECRET not in entry.detail for entry in entries)
