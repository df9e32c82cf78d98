"""Imports in the history, among syncs: what each filter lets through, pages through both tables, bounded queries."""

import csv
import io
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from mirrors.models import Import, ImportedSnapshot, SyncRun
from mirrors.views import history

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("isolated", "data_dir")]
URL = reverse("mirrors:history")


@pytest.fixture
def mirror(make_mirror):
    return make_mirror("trivy-db", label="Vulnerability DB")


@pytest.fixture
def make_import(mirror):
    def make(state="succeeded", *, of=None, at=None, origin="drop", by="drop folder") -> Import:
        at = at or timezone.now() - timedelta(minutes=5)
        end = None if state in ("queued", "running", "waiting") else at + timedelta(seconds=8)
        run = Import.objects.create(
            state=state, queued_at=at, started_at=at, finished_at=end, origin=origin, name="a.tar", requested_by=by
        )
        if of is not None:
            ImportedSnapshot.objects.create(
                run=run, mirror=of, mirror_name=of.name, label=of.label, kind=of.kind, outcome="switched"
            )
        return run

    return make


def listed(response) -> list[tuple[str, int]]:
    return [(run.kind, run.pk) for run in response.context["runs"]]


def test_every_filter_works_on_imports(as_viewer, make_import, mirror):
    at = timezone.now() - timedelta(minutes=9)
    sync = SyncRun.objects.create(
        mirror=mirror, state="succeeded", trigger="command", settings_version=1, queued_at=at, finished_at=at
    )
    done = make_import(of=mirror, origin="upload", by="otto")
    failed = make_import("failed")
    waits = make_import("waiting")
    typed = make_import(origin="command", at=timezone.now() - timedelta(days=3))

    def ids(**asked):
        return {pk for kind, pk in listed(as_viewer.get(URL, asked)) if kind == "import"}

    assert ids(kind="import") == ids() == {run.pk for run in (done, failed, waits, typed)}
    assert ids(outcome="failed") == {failed.pk}
    assert ids(outcome="open") == {waits.pk}
    assert ids(who="otto") == ids(who="upload") == ids(database="trivy-db") == {done.pk}
    assert ids(who="schedule") == ids(destination="harbor") == ids(kind="sync") == set()
    assert listed(as_viewer.get(URL, {"who": "command"})) == [("sync", sync.pk), ("import", typed.pk)]
    assert typed.pk not in ids(day=f"{timezone.now():%Y-%m-%d}")
    page = as_viewer.get(URL, {"kind": "import"}).content.decode()
    assert f'href="/import/{done.pk}/"' in page


def test_pages_go_on_through_both_tables(as_viewer, make_import, mirror, monkeypatch):
    monkeypatch.setattr(history, "PAGE", 2)
    began = timezone.now() - timedelta(hours=1)
    for number in range(3):
        at = began + timedelta(minutes=number * 2)
        SyncRun.objects.create(
            mirror=mirror, state="failed", trigger="hand", settings_version=1, queued_at=at, finished_at=at
        )
        make_import(at=at + timedelta(minutes=1))
    page, seen = as_viewer.get(URL), []
    while True:
        seen += [run.queued_at for run in page.context["runs"]]
        if not page.context["older"]:
            break
        page = as_viewer.get(page.context["older"])
    assert len(seen) == 6
    assert seen == sorted(seen, reverse=True)


def test_the_number_of_queries_does_not_grow(as_viewer, make_import, mirror, django_assert_max_num_queries):
    for _ in range(12):
        make_import(of=mirror)
    with django_assert_max_num_queries(10):
        assert len(listed(as_viewer.get(URL))) == 12


def csv_of(client):
    answer = client.get(reverse("mirrors:history-csv"), {"kind": "import", "outcome": "all"})
    return list(csv.DictReader(io.StringIO(b"".join(answer.streaming_content).decode())))


def test_the_csv_says_which_mirrors_an_import_brought(as_viewer, make_import, mirror, make_mirror):
    java = make_mirror("trivy-java-db")
    run, refused = make_import(of=mirror), make_import("failed")
    for outcome, name in (("older", java.name), ("left", "not ours")):
        ImportedSnapshot.objects.create(
            run=run, mirror=java, mirror_name=name, label=name, kind="trivy-java-db", outcome=outcome
        )
    rows = {int(row["run"]): row["mirror"] for row in csv_of(as_viewer)}
    assert rows == {run.pk: "trivy-db trivy-java-db", refused.pk: ""}


def test_the_csv_asks_no_more_for_more_imports(as_viewer, make_import, mirror):
    def queries():
        with CaptureQueriesContext(connection) as asked:
            csv_of(as_viewer)
        return len(asked)

    make_import(of=mirror)
    one = queries()
    for _ in range(9):
        make_import(of=mirror)
    assert queries() == one
