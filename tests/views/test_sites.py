"""The pages of sites: the list, one of them, its form, a transfer, and what other pages say of sites."""

import csv
import io
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from mirrors import exporting, sites, transfers
from mirrors.models import Bundle, Site, Transfer
from mirrors.sites import Wish
from tests.kept import keep_build, keep_vex

pytestmark = pytest.mark.django_db
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
LIST, NEW = "/sites/", "/sites/new"
PAGE = "/sites/plant-nord/"
PREPARE, EDIT, DELETE = PAGE + "prepare", PAGE + "edit", PAGE + "delete"


@pytest.fixture(autouse=True)
def sent(monkeypatch, data_dir):
    woken = []
    monkeypatch.setattr("mirrors.tasks.send", lambda task, *args: woken.append((task.name, *args)))
    return woken


@pytest.fixture
def today():
    return timezone.now().replace(microsecond=0)


@pytest.fixture
def held(store, make_mirror, today):
    return [
        keep_build(store, make_mirror("trivy-db", label="Vulnerability DB"), today - 5 * HOUR),
        keep_vex(store, make_mirror("vexhub", "vex", label="VEX Hub", position=200), today - 30 * HOUR),
    ]


@pytest.fixture
def nord(db, today):
    return sites.add_site("plant-nord", Wish(label="Plant Nord", code="NORD"), by="ada", now=today)


@pytest.fixture
def transfer(nord, held, today):
    return transfers.prepare(nord, held, by="otto", now=today - DAY, reference="Form 4711")


def url(name, transfer):
    return reverse(f"mirrors:transfer-{name}", args=[transfer.pk])


def text(response) -> str:
    return " ".join(response.content.decode().split())


# The list


def test_an_empty_page_says_what_it_will_show_and_the_first_step(client, administrator, viewer):
    client.force_login(administrator)
    page = text(client.get(LIST))
    assert "No site is known yet." in page
    assert f'<a href="{NEW}">Add the first one</a>' in page
    client.force_login(viewer)
    page = text(client.get(LIST))
    assert "An administrator adds them" in page
    assert NEW not in page


def test_it_shows_each_database_of_each_site_with_its_age_and_state(as_viewer, transfer):
    transfers.mark_received(transfer.pk, by="otto", now=timezone.now())
    page = text(as_viewer.get(LIST))
    assert "Plant Nord is fresh." in page
    assert 'Vulnerability DB <strong>5 h</strong> <span class="state fresh small">fresh</span>' in page
    assert "marked by hand" in page
    assert "Form 4711" in page


def test_what_is_assumed_is_called_so(as_viewer, transfer):
    sites.edit_site("plant-nord", Wish(receipts="none"), by="ada", now=timezone.now())
    transfers.mark_carried(transfer.pk, by="otto", now=timezone.now())
    page = text(as_viewer.get(LIST))
    assert "Plant Nord is fresh, as far as can be assumed." in page
    assert '<span class="muted small">assumed</span>' in page
    assert "no receipts" in page


def test_it_is_there_as_csv(as_viewer, transfer, today):
    sites.add_site("empty", Wish(label="=1+1"), by="ada", now=today)
    transfers.mark_received(transfer.pk, by="otto", now=today)
    answer = as_viewer.get("/sites.csv")
    rows = list(csv.DictReader(io.StringIO(b"".join(answer.streaming_content).decode())))
    assert [(row["site"], row["mirror"], row["state"], row["evidence"]) for row in rows] == [
        ("empty", "", "never", ""),
        ("plant-nord", "trivy-db", "fresh", "hand"),
        ("plant-nord", "vexhub", "fresh", "hand"),
    ]
    assert rows[0]["label"] == "'=1+1"
    assert rows[1]["is_current"] == "True"
    assert transfer.receipt_secret not in str(rows)


def test_many_sites_come_in_pages_the_worst_first(as_viewer, held, nord, today, monkeypatch):
    monkeypatch.setattr("mirrors.views.sites.SITES_A_PAGE", 2)
    for number in range(4):
        sites.add_site(f"site-{number}", Wish(), by="ada", now=today)
    row = transfers.prepare(nord, held, by="otto", now=today)
    transfers.mark_received(row.pk, by="otto", now=today - DAY)
    seen = []
    for number in (1, 2, 3):
        page = as_viewer.get(LIST, {"page": number})
        seen += [row["standing"].site.name for row in page.context["rows"]]
        assert f"Page {number} of 3" in text(page)
    assert len(set(seen)) == 5 and seen[0] == "plant-nord"
    assert '<a href="?page=2" rel="prev">' in text(page)
    assert len(as_viewer.get(LIST, {"page": "no"}).context["rows"]) == 2


@pytest.mark.parametrize("path", [LIST, PAGE, "/sites.csv", "/", "/bundles/"])
def test_the_number_of_queries_does_not_grow_with_sites(as_operator, held, nord, today, path):
    counts = []
    for number in range(2):
        for each in range(4):
            site = sites.add_site(f"site-{number}-{each}", Wish(), by="ada", now=today)
            row = transfers.prepare(site, held, by="otto", now=today)
            transfers.mark_received(row.pk, by="otto", now=today)
            for_nord = transfers.prepare(nord, held, by="otto", now=today)
            transfers.mark_carried(for_nord.pk, by="otto", now=today)
        with CaptureQueriesContext(
            connection,
        ) as captured:
            answer = as_operator.get(path)
            if answer.streaming:
                b"".join(answer.streaming_content)
        counts.append(len(captured))
    assert counts[0] == counts[1]
    assert counts[0] < 40


def test_every_page_needs_a_login(client, transfer):
    for path in (LIST, PAGE, NEW, EDIT, DELETE, "/sites.csv", url("detail", transfer)):
        assert client.get(path).status_code == 302


# One site


def test_a_site_says_how_old_each_database_is_and_by_what_that_is_known(as_viewer, transfer):
    transfers.mark_received(transfer.pk, by="otto", now=timezone.now())
    page = text(as_viewer.get(PAGE))
    assert "Receipts come back from there. A courier is expected every 7 days" in page
    assert f'<a href="{url("detail", transfer)}">by hand</a>' in page
    assert "the same as here" in page
    assert "marked by hand by otto" in page
    assert "Export" not in page
    assert "Mark" not in page


def test_what_arrived_is_not_said_to_be_served(as_viewer, transfer):
    transfers.mark_received(transfer.pk, by="otto", now=timezone.now())
    for path in (f"/sites/{transfer.site.name}/", url("detail", transfer)):
        assert "Whether it is served is decided over there" in text(as_viewer.get(path))
    assert "whether it is served or not" in text(as_viewer.get("/sites/"))


def test_it_offers_what_the_site_lacks_and_everything_with_their_sizes(as_operator, transfer, store, held, today):
    page = text(as_operator.get(PAGE))
    assert "Export everything · " in page
    assert "Export what it lacks" not in page
    assert "It lacks Vulnerability DB and VEX Hub." in page
    transfers.mark_received(transfer.pk, by="otto", now=today)
    page = text(as_operator.get(PAGE))
    assert "It holds everything that is current here; there is nothing to send." in page
    assert "Export everything · " in page
    newer = keep_build(store, held[0].mirror, today - HOUR)
    page = text(as_operator.get(PAGE))
    assert "Export what it lacks · " in page
    assert "It lacks Vulnerability DB; what it is known to hold is left out." in page
    assert "newer here" in page
    answer = as_operator.post(PREPARE, {"what": "lacks"})
    made = Transfer.objects.newest_first().first()
    assert (answer.status_code, answer["Location"]) == (303, f"/bundles/{made.bundle_id}/download")
    assert [row.snapshot_id for row in made.bundle.contents.all()] == [newer.pk]
    assert [each["mirror"] for each in made.left_out] == ["vexhub"]


def test_the_full_bundle_is_one_click_away(as_operator, transfer, today, sent, django_capture_on_commit_callbacks):
    transfers.mark_received(transfer.pk, by="otto", now=today)
    with django_capture_on_commit_callbacks(execute=True):
        answer = as_operator.post(PREPARE, {"what": "full"})
    made = Transfer.objects.newest_first().first()
    assert answer.status_code == 303
    assert made.bundle.contents.count() == 2
    assert made.left_out == []
    assert sent[-1][-1] == made.bundle_id


def test_nothing_to_send_is_a_sentence_and_no_bundle(as_operator, transfer, today):
    transfers.mark_received(transfer.pk, by="otto", now=today)
    page = text(as_operator.post(PREPARE, {"what": "lacks"}, follow=True))
    assert "Plant Nord holds everything that is current here; there is nothing to send." in page
    assert Bundle.objects.count() == 1
    assert "Say what is to be sent" in text(as_operator.post(PREPARE, {"what": "x"}, follow=True))


def test_relying_on_what_was_carried_is_a_choice_of_its_own(as_operator, transfer, store, held, today):
    transfers.mark_carried(transfer.pk, by="otto", now=today)
    page = text(as_operator.get(PAGE))
    assert "2 databases of these were carried there as they are, without a confirmation." in page
    assert "Relying on that, nothing is missing." in page
    keep_build(store, held[0].mirror, today - HOUR)
    page = text(as_operator.get(PAGE))
    assert "1 database of these was carried there as it is, without a confirmation." in page
    assert "Rely on that · " in page
    as_operator.post(PREPARE, {"what": "uncarried"})
    made = Transfer.objects.newest_first().first()
    assert [row.mirror_name for row in made.bundle.contents.all()] == ["trivy-db"]


def test_while_nothing_is_here_there_is_nothing_to_offer(as_operator, nord):
    page = text(as_operator.get(PAGE))
    assert "There is nothing to export yet" in page
    assert 'name="what"' not in page


def test_it_stays_current_and_says_nothing_while_nothing_changes(as_operator, transfer):
    page = as_operator.get(PAGE).content.decode()
    again = page.split('id="live" hx-get="')[1].split('"')[0].replace("&amp;", "&")
    assert as_operator.get(again, headers={"HX-Request": "true"}).status_code == 204
    transfers.mark_carried(transfer.pk, by="otto", now=timezone.now())
    assert "carried" in as_operator.get(again, headers={"HX-Request": "true"}).content.decode()


@pytest.mark.parametrize("name", ["carried", "received", "rejected", "take_back"])
def test_marks_are_posted_by_operators(client, operator, viewer, transfer, name):
    path = url(name.replace("_", "-"), transfer)
    client.force_login(operator)
    assert client.get(path).status_code == 405
    client.force_login(viewer)
    assert client.post(path).status_code == 403
    assert client.post(PREPARE, {"what": "full"}).status_code == 403
    transfer.refresh_from_db()
    assert transfer.state == "prepared"


def test_a_transfer_goes_its_way_on_its_page(as_operator, transfer):
    page = text(as_operator.get(url("detail", transfer)))
    assert "Prepared for Plant Nord, not carried yet." in page
    assert "Mark as carried" in page
    page = text(as_operator.post(url("carried", transfer), {"reference": "Form 12"}, follow=True))
    assert "On its way to Plant Nord." in page
    assert "Form 12" in page
    page = text(as_operator.post(url("received", transfer), follow=True))
    assert "Received at Plant Nord, marked by hand." in page
    assert "as far as somebody here says" in page
    page = text(as_operator.post(url("take-back", transfer), follow=True))
    assert "On its way to Plant Nord." in page
    page = text(as_operator.post(url("rejected", transfer), {"reason": "the disc was lost"}, follow=True))
    assert "Not taken in at Plant Nord, marked by hand." in page
    assert "the disc was lost" in page


def test_a_mark_from_the_sites_page_goes_back_there_and_keeps_the_reference(as_operator, transfer):
    answer = as_operator.post(url("carried", transfer), {"back": "site"})
    assert answer["Location"] == PAGE
    transfer.refresh_from_db()
    assert (transfer.state, transfer.reference) == ("carried", "Form 4711")


def test_a_refusal_says_why_and_keeps_what_was_typed(as_operator, transfer):
    answer = as_operator.post(url("rejected", transfer), {"reason": " "})
    assert answer.status_code == 422
    assert "Say why, in a few words" in text(answer)
    answer = as_operator.post(url("carried", transfer), {"reference": "x" * 201})
    assert answer.status_code == 422
    assert "x" * 201 in text(answer)
    transfers.mark_received(transfer.pk, by="otto", now=timezone.now())
    answer = as_operator.post(url("received", transfer))
    assert answer.status_code == 422
    assert "was received already" in text(answer)


def test_no_page_shows_the_secret(as_administrator, transfer):
    for path in (LIST, PAGE, EDIT, url("detail", transfer), f"/bundles/{transfer.bundle_id}/", "/bundles/", "/"):
        assert transfer.receipt_secret not in text(as_administrator.get(path))


def test_a_viewer_sees_a_transfer_without_what_may_not_be_done(as_viewer, transfer):
    page = text(as_viewer.get(url("detail", transfer)))
    assert "Prepared for Plant Nord" in page
    assert "Mark as" not in page
    assert "Download ·" not in page


# Settings


def test_an_administrator_adds_a_site(as_administrator):
    assert as_administrator.get(NEW).status_code == 200
    sent = {"name": "lab-7", "label": "Lab 7", "code": "", "receipts": "none", "courier_days": "14", "notes": "disc"}
    answer = as_administrator.post(NEW, sent)
    assert answer["Location"] == "/sites/lab-7/"
    site = Site.objects.get()
    assert (site.code, site.receipts, site.courier_days) == ("LAB-7", "none", 14)
    assert "disc" in text(as_administrator.get("/sites/lab-7/"))


def test_a_form_says_what_is_wrong_where_it_is_wrong(as_administrator, nord):
    sent = {"name": "Plant", "label": "", "code": "NORD", "receipts": "expected", "courier_days": ""}
    answer = as_administrator.post(NEW, sent)
    assert answer.status_code == 422
    assert "cannot be a site&#x27;s name" in text(answer)
    answer = as_administrator.post(NEW, {**sent, "name": "other"})
    assert "that of Plant Nord" in text(answer)
    assert answer.status_code == 422


def test_an_edit_is_saved_and_another_editor_noticed(as_administrator, nord):
    page = as_administrator.get(EDIT).content.decode()
    seen = page.split('name="seen" value="')[1].split('"')[0]
    sent = {"label": "Nord", "code": "NORD", "receipts": "expected", "courier_days": "", "notes": "", "seen": seen}
    assert as_administrator.post(EDIT, sent)["Location"] == PAGE
    answer = as_administrator.post(EDIT, {**sent, "label": "North"})
    assert answer.status_code == 422
    assert "Somebody else changed plant-nord" in text(answer)


def test_removing_asks_first(as_administrator, transfer):
    page = text(as_administrator.get(DELETE))
    assert "Remove Plant Nord?" in page
    assert "1 transfer" in page
    assert Site.objects.exists()
    assert as_administrator.post(DELETE)["Location"] == LIST
    assert not Site.objects.exists()


@pytest.mark.parametrize("path", [NEW, EDIT, DELETE])
def test_operators_change_no_site(as_operator, nord, path):
    assert as_operator.get(path).status_code == 403
    assert as_operator.post(path).status_code == 403


# Other pages


def test_a_bundle_is_made_for_a_site_and_says_so(as_operator, held, nord):
    page = text(as_operator.get("/bundles/?site=plant-nord"))
    assert '<option value="plant-nord" selected>Plant Nord (NORD)</option>' in page
    assert '<details id="choose" open>' in page
    sent = {"mirror": ["trivy-db"], "profile": "data", "site": "plant-nord", "reference": "Form 9"}
    assert as_operator.post("/bundles/create", sent).status_code == 303
    made = Transfer.objects.get()
    assert (made.reference, made.bundle.profile, made.site) == ("Form 9", "data", nord)
    page = text(as_operator.get(f"/bundles/{made.bundle_id}/"))
    assert '<a href="/sites/plant-nord/">Plant Nord</a>' in page
    assert "Form 9" in page
    assert "for Plant Nord, prepared" in text(as_operator.get("/bundles/"))


def test_a_bundle_of_what_a_site_lacks_of_a_choice(as_operator, transfer, store, held, today):
    transfers.mark_received(transfer.pk, by="otto", now=today)
    sent = {"mirror": ["trivy-db", "vexhub"], "profile": "full", "site": "plant-nord", "missing": "1"}
    answer = as_operator.post("/bundles/create", sent)
    assert answer.status_code == 422
    assert "there is nothing to send" in text(answer)
    keep_build(store, held[0].mirror, today - HOUR)
    assert as_operator.post("/bundles/create", sent).status_code == 303
    made = Transfer.objects.newest_first().first()
    assert [row.mirror_name for row in made.bundle.contents.all()] == ["trivy-db"]


def test_a_site_that_is_gone_is_told(as_operator, held):
    answer = as_operator.post("/bundles/create", {"all": "1", "site": "gone"})
    assert answer.status_code == 422
    assert "This site was removed meanwhile." in text(answer)


def test_the_dashboard_shows_how_old_it_is_over_there(as_viewer, transfer, today):
    transfers.mark_received(transfer.pk, by="otto", now=today)
    page = text(as_viewer.get("/"))
    assert "Over there" in page
    said = "2 databases, oldest 29 h<br>Vulnerability DB: 5 h, VEX Hub: 29 h"
    assert f'<a href="/sites/plant-nord/">Plant Nord</a><br><span class="about">{said}</span>' in page
    assert "<dt>at</dt><dd>Plant Nord, " in page


def test_a_dashboard_without_sites_says_nothing_of_them(as_viewer, held):
    assert "Over there" not in text(as_viewer.get("/"))


def test_a_databases_page_says_where_it_is(as_viewer, transfer, store, held, today):
    transfers.mark_received(transfer.pk, by="otto", now=today)
    page = text(as_viewer.get("/databases/trivy-db/"))
    assert '<dt>at</dt><dd><a href="/sites/plant-nord/">Plant Nord</a>' in page
    keep_build(store, held[0].mirror, today - HOUR)
    page = text(as_viewer.get("/databases/trivy-db/"))
    assert 'Plant Nord</a> <span class="muted">that of <time' in page


def test_the_isolated_side_shows_sites_to_those_who_carry_on(client, operator, viewer, settings, held, today):
    settings.AIRGAP_SIDE = "isolated"
    client.force_login(viewer)
    assert 'href="/sites/"' not in text(client.get("/history/"))
    client.force_login(operator)
    assert 'href="/sites/"' in text(client.get("/history/"))
    sites.add_site("beyond", Wish(), by="ada", now=today)
    client.force_login(viewer)
    assert 'href="/sites/"' in text(client.get("/history/"))


def test_a_bundle_for_a_site_that_expired_keeps_its_transfer(as_viewer, transfer, today):
    exporting.delete_bundle(transfer.bundle, by="otto", now=today)
    page = text(as_viewer.get(url("detail", transfer)))
    assert "Vulnerability DB and VEX Hub" in page
    assert "Download ·" not in page


def test_deleting_a_bundle_that_was_made_for_a_site_says_so(as_operator, transfer):
    page = text(as_operator.get(f"/bundles/{transfer.bundle_id}/delete"))
    assert 'It was made for <a href="/sites/plant-nord/">Plant Nord</a>' in page
    assert "stays as it is (prepared)" in page
