"""The store's page and its check."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from mirrors import scrubbing
from mirrors.blobs import StoreError
from mirrors.models import AuditEntry
from tests.kept import keep_build

pytestmark = pytest.mark.django_db
STORE = reverse("mirrors:store")
SCRUB = reverse("mirrors:store-scrub")
HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def sent(monkeypatch):
    woken = []
    monkeypatch.setattr("mirrors.tasks.send", lambda task, *args: woken.append((task.name, *args)) or True)
    return woken


def test_an_empty_store_says_what_it_will_show(as_operator, data_dir):
    text = as_operator.get(STORE).content.decode()
    assert "The store was never checked." in text
    assert "Nothing is stored yet." in text
    assert "Check every blob now" in text


def test_operators_find_it_in_the_navigation_and_viewers_do_not(client, operator, viewer):
    for person, shown in ((operator, True), (viewer, False)):
        client.force_login(person, backend="django.contrib.auth.backends.ModelBackend")
        assert (f'<a href="{STORE}"' in client.get(reverse("mirrors:history")).content.decode()) is shown
    client.force_login(operator, backend="django.contrib.auth.backends.ModelBackend")
    assert f'<a href="{STORE}" aria-current="page">Store</a>' in client.get(STORE).content.decode()


def test_it_names_who_holds_the_space(as_operator, store, make_mirror, now):
    keep_build(store, make_mirror(label="Vulnerability DB"), now - HOUR)
    scrubbing.scrub(by="otto", store=store)
    text = as_operator.get(STORE).content.decode()
    assert "All 3 files in the store are what their names say." in text
    assert "Vulnerability DB (1 snapshot)" in text
    assert "asked for by otto" in text


def test_a_full_store_comes_first(as_operator, store, settings):
    settings.AIRGAP_RESERVE_MB = 10**9
    assert "The store is full: the next sync will be refused." in as_operator.get(STORE).content.decode()


def test_a_store_that_cannot_be_read_is_a_page_too(as_operator, store, monkeypatch):
    def refused(self):
        raise StoreError("read-only", "Measuring content failed: it may not be read.")

    monkeypatch.setattr(type(store), "free_bytes", refused)
    text = as_operator.get(STORE).content.decode()
    assert "The store cannot be read." in text
    assert "Measuring content failed" in text


def test_the_button_wakes_a_worker_and_is_on_record(as_operator, data_dir, sent):
    assert as_operator.post(SCRUB).url == STORE
    assert sent == [("mirrors.scrub", "otto")]
    assert AuditEntry.objects.filter(action="store check asked for", actor="otto").exists()
    text = as_operator.get(STORE).content.decode()
    assert "waits for a worker" in text
    assert 'hx-trigger="every 2s"' in text


def test_a_broker_that_is_away_is_said(as_operator, data_dir, monkeypatch):
    monkeypatch.setattr("mirrors.tasks.send", lambda *args: False)
    text = as_operator.post(SCRUB, follow=True).content.decode()
    assert text.count("No worker could be woken") == 1
    assert "waits for a worker" not in text and 'hx-trigger="every 2s"' not in text


def test_a_second_click_does_not_start_a_second_check(as_operator, data_dir, sent):
    with scrubbing._only_one():
        assert "A check is under way already." in as_operator.post(SCRUB, follow=True).content.decode()
    assert sent == []


def test_progress_is_polled_and_ends_by_itself(as_operator, store):
    running = scrubbing.Check(
        scrubbing.RUNNING, "otto", started_at=timezone.now(), files_total=9, bytes_total=2048, bytes_done=1024
    )
    with scrubbing._only_one():
        scrubbing._save(running)
        text = as_operator.get(STORE, headers={"HX-Request": "true"}).content.decode()
        assert "Checking file 1 of 9. 1.0 KiB of 2.0 KiB" in text
        assert "hx-trigger" in text
        assert "<html" not in text
        assert '<h1 id="store-headline" hx-swap-oob="true">The store is being checked.</h1>' in text
    assert "hx-trigger" not in as_operator.get(STORE, headers={"HX-Request": "true"}).content.decode()


def test_what_was_found_is_listed(as_operator, store, make_mirror, now):
    snapshot = keep_build(store, make_mirror(label="Vulnerability DB"), now - HOUR)
    store.remove(snapshot.layer_digest)
    scrubbing.scrub(store=store)
    text = as_operator.get(STORE).content.decode()
    assert "Of 2 files in the store, 1 missing." in text
    assert "Vulnerability DB: what is current is damaged; it is fetched again in run" in text


def test_the_number_of_queries_does_not_grow_with_mirrors(as_operator, store, make_mirror, now):
    counts = []
    for start in (0, 5):
        for index in range(start, start + 5):
            keep_build(store, make_mirror(f"m{index}", "trivy-db"), now - index * HOUR)
        with CaptureQueriesContext(connection) as queries:
            as_operator.get(STORE)
        counts.append(len(queries))
    assert counts[0] == counts[1]


def test_it_is_for_operators_and_the_check_by_post(client, as_viewer, data_dir):
    assert as_viewer.get(STORE).status_code == 403
    assert as_viewer.post(SCRUB).status_code == 403


def test_it_needs_a_login(client, db):
    assert client.get(STORE).status_code == 302
    assert client.post(SCRUB).status_code == 302


def test_the_check_is_not_started_by_a_link(as_operator, data_dir):
    assert as_operator.get(SCRUB).status_code == 405
