"""The receipt of an import on its page, and the switch that lets receipts leave."""

import pytest
from django.conf import settings as settings_of_files
from django.db import connection
from django.test.utils import CaptureQueriesContext

from mirrors.models import AuditEntry, Receipting
from mirrors.receipting import giving
from mirrors.receipts import read
from tests.receipting.conftest import ended, on
from tests.receipting.test_giving import REFUSED

__all__ = ["ended", "on"]

pytestmark = pytest.mark.django_db
SWITCH = "/settings/receipts/"


@pytest.fixture(autouse=True)
def own_data(data_dir, settings):
    settings.AIRGAP_SIDE, settings.AIRGAP_SITE_CODE = "isolated", ""


@pytest.fixture
def run(ended):
    return ended()


def paths(run):
    return (f"/import/{run.pk}/receipt/", f"/import/{run.pk}/receipt/file")


def test_receipts_are_for_operators_and_the_switch_for_administrators(client, viewer, operator, administrator, run, on):
    for path in (*paths(run), SWITCH):
        assert client.get(path).status_code == 302
    for person, receipts, switch in ((viewer, 403, 403), (operator, 200, 403), (administrator, 200, 200)):
        client.force_login(person, backend="django.contrib.auth.backends.ModelBackend")
        for path in paths(run):
            assert client.get(path).status_code == receipts
            assert client.post(path).status_code in (403, 405)
        assert client.get(SWITCH).status_code == switch
    client.force_login(operator, backend="django.contrib.auth.backends.ModelBackend")
    assert client.post(SWITCH, {"on": "0"}).status_code == 403
    assert giving.is_on()


def test_the_connected_side_has_neither(as_administrator, run, on, settings):
    settings.AIRGAP_SIDE = "connected"
    for path in (*paths(run), SWITCH):
        assert as_administrator.get(path).status_code == 404


def test_while_they_are_off_the_page_says_so_and_holds_nothing(as_operator, run):
    answer = as_operator.get(paths(run)[0])
    assert answer.status_code == 409
    assert "<h1>Receipts are off.</h1>" in answer.text and "BEGIN SSH SIGNATURE" not in answer.text
    assert SWITCH not in answer.text
    assert as_operator.get(paths(run)[1]).status_code == 302


def test_an_administrator_is_told_what_leaves_and_turns_it_on(as_administrator, run):
    assert SWITCH in as_administrator.get(paths(run)[0]).text
    text = as_administrator.get(SWITCH).text
    assert "No receipts leave this side." in text and "without the time" in text
    answer = as_administrator.post(SWITCH, {"on": "1"}, follow=True)
    assert "Receipts may leave this side." in answer.text
    assert Receipting.now().changed_by and AuditEntry.objects.filter(action="receipts turned on").count() == 1
    as_administrator.post(SWITCH, {"on": "0"})
    assert not giving.is_on()
    assert as_administrator.post(SWITCH, {"on": "maybe"}).status_code == 422


def test_the_page_shows_all_forms_and_no_secret(as_operator, run, on):
    answer = as_operator.get(paths(run)[0])
    given = giving.make(run, by="otto", now=run.finished_at)
    assert "Bundle ab12cd34 was received." in answer.text
    assert all(f"<code>{group}</code>" in answer.text for group in given.code.split("-"))
    assert 'src="data:image/svg+xml;base64,' in answer.text
    assert "BEGIN SSH SIGNATURE" in answer.text
    assert run.receipt_secret not in answer.text
    assert "no-store" in answer["Cache-Control"]


def test_its_print_names_neither_the_machine_nor_who_prints(as_operator, run, on):
    """The page's class hides them (static/airgap.css)."""
    assert '<div class="page leaves">' in as_operator.get(paths(run)[0]).text
    css = (settings_of_files.BASE_DIR / "static" / "airgap.css").read_text()
    # A banner above the page tells the machine's clock.
    wanted = '.leaves header.bar, .leaves footer.foot, .leaves .crumb, .leaves main > [role="alert"] { display: none; }'
    assert wanted in css.partition("/* Receipts")[2].partition("@media print")[2]


def test_the_file_is_the_receipt(as_operator, run, on):
    answer = as_operator.get(paths(run)[1])
    assert answer["Content-Disposition"] == 'attachment; filename="airgap-receipt-ab12cd34.txt"'
    assert read(answer.content).receipt.bundle == "ab12cd34"


def test_the_page_names_what_arrived_and_is_not_served(as_operator, ended, on):
    snapshots = [
        {"mirror": name, "label": name, "kind": "trivy-db", "digest": "", "outcome": outcome, "sentence": ""}
        for name, outcome in (("first", "switched"), ("second", "held"), ("third", "older"))
    ]
    answer = as_operator.get(paths(ended(report={"snapshots": snapshots}))[0])
    text = " ".join(answer.text.split())
    assert "<strong>second</strong> (held) and <strong>third</strong> (older) were not switched to" in text
    assert "first" not in text
    # What is carried out, on paper too, holds no names.
    (line,) = [line for line in answer.text.splitlines() if "second" in line]
    assert 'screen-only">It says that the bundle arrived here' in line
    assert "second" not in as_operator.get(paths(ended(report={"snapshots": snapshots}))[1]).text


def test_what_was_switched_to_needs_no_names(as_operator, run, on):
    text = as_operator.get(paths(run)[0]).text
    assert "no receipt says that.</p>" in text


def test_a_rejected_one_warns_before_it_leaves(as_operator, ended, on):
    text = as_operator.get(paths(ended(**REFUSED))[0]).text
    assert "was rejected." in text and "try the import once more" in text


def test_the_page_of_the_import_leads_to_it(as_operator, run, ended):
    refused = ended(bundle="00000001", **REFUSED)
    assert f'href="/import/{run.pk}/receipt/"' in as_operator.get(f"/import/{run.pk}/").text
    assert f'href="/import/{refused.pk}/receipt/"' in as_operator.get(f"/import/{refused.pk}/").text
    room = ended(bundle="00000002", state="failed", report={"refusal": "room", "problems": ["There is no room."]})
    for other in (room, ended(site="", transfer=""), ended(state="running", finished_at=None)):
        assert "/receipt/" not in as_operator.get(f"/import/{other.pk}/").text
    assert "none. The import ended for lack of room" in as_operator.get(f"/import/{room.pk}/").text


def test_an_import_without_one_says_why(as_operator, ended, on):
    answer = as_operator.get(paths(ended(site="", transfer=""))[0])
    assert answer.status_code == 409 and "no certain site" in answer.text


def test_an_import_that_never_was_is_not_found(as_operator, on):
    assert as_operator.get("/import/4711/receipt/").status_code == 404


def test_looking_again_asks_no_more(as_operator, run, ended, on):
    def count():
        with CaptureQueriesContext(connection) as asked:
            as_operator.get(paths(run)[0])
        return len(asked)

    count()
    few = count()
    for number in range(10):
        ended(bundle=f"0000000{number}")
    assert count() == few
