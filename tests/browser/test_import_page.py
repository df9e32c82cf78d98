"""Dropping a bundle on the page: volumes in any order, a broken connection, a reload, the report, the switch."""

import base64
import json

import pytest
from playwright.sync_api import Page, expect

from mirrors import keys
from mirrors.importing import staging
from mirrors.importing.perform import perform
from mirrors.models import Import, Mirror, Role, Upload, User
from tests.carrying import flip, list_of, single_files_of, volumes_of

pytestmark = [
    pytest.mark.long,
    pytest.mark.browser,
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("isolated"),
]

DROP = """([files]) => {
  const carried = new DataTransfer();
  for (const [name, text] of files) {
    const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
    carried.items.add(new File([bytes], name, { lastModified: 1 }));
  }
  document.getElementById("drop").dispatchEvent(new DragEvent("drop", { dataTransfer: carried, bubbles: true }));
}"""


@pytest.fixture
def operator(transactional_db):
    return User.objects.create_user("otto", password="correct horse otto", role=Role.OPERATOR)


@pytest.fixture(autouse=True)
def no_broker(monkeypatch):
    monkeypatch.setattr("mirrors.tasks.send_import", lambda run: None)


def drop(page: Page, *paths) -> None:
    page.evaluate(DROP, [[[path.name, base64.b64encode(path.read_bytes()).decode()] for path in paths]])


def test_two_volumes_are_dropped_verified_and_switched_to(open_page, operator, carrier, store, now):
    keys.trust("north", keys.own_key().public_line("north"), by="ada", now=now)
    first, second = volumes_of(carrier.bundle({"trivy-db": 5, "vexhub": 30}, padding=100_000), 2)
    page = open_page(operator)
    page.goto("/import/")
    drop(page, second, first)
    page.wait_for_url("**/import/*/")
    run = Import.objects.get()
    assert [file["name"] for file in run.files] == [first.name, second.name]
    expect(page.get_by_role("heading", level=1)).to_contain_text("waits.")
    perform(run.pk, store=store, heart=False)
    expect(page.get_by_role("heading", level=1)).to_contain_text("is verified.")
    expect(page.get_by_text("A new mirror, trivy-db")).to_be_visible()
    assert not Mirror.objects.exists()
    page.get_by_role("button", name="Switch", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("is in.")
    assert Mirror.objects.exclude(current=None).count() == 2
    assert list(staging.folder().iterdir()) == []


def test_an_upload_goes_on_after_a_reload(open_page, operator, carrier, store):
    first, second = volumes_of(carrier.bundle(padding=100_000), 2)
    page = open_page(operator)
    page.goto("/import/")
    page.route(
        "**/import/uploads/*", lambda route: route.abort() if route.request.method == "PATCH" else route.fallback()
    )
    drop(page, first)
    expect(page.locator("#sending li")).to_have_count(1)
    # A function that is waited for would be evaluated by the page, which its policy forbids.
    while page.evaluate("Object.keys(localStorage).length") != 1:
        page.wait_for_timeout(50)
    page.on("dialog", lambda dialog: dialog.accept())
    page.reload()
    page.unroute("**/import/uploads/*")
    drop(page, first)
    expect(page.locator("#sending")).to_contain_text("volume 2 of 2 is missing")
    assert Upload.objects.get().is_complete
    drop(page, second)
    page.wait_for_url("**/import/*/")
    open_page.complaints.clear()


def test_what_came_whole_is_not_sent_again_after_a_reload(open_page, operator, carrier, store):
    first, second = volumes_of(carrier.bundle(padding=100_000), 2)
    page = open_page(operator)
    page.goto("/import/")
    drop(page, first)
    expect(page.locator("#sending")).to_contain_text("volume 2 of 2 is missing")
    page.reload()
    begun = []
    page.on("request", lambda request: begun.append(request.url) if request.method == "POST" else None)
    drop(page, second, first)
    page.wait_for_url("**/import/*/")
    assert len([url for url in begun if url.endswith("/import/uploads/")]) == 1
    assert Upload.objects.count() == 2
    assert page.evaluate("Object.keys(localStorage).length") == 0


def test_of_a_damaged_bundle_only_the_damaged_volume_is_sent_again(open_page, operator, carrier, store):
    paths = volumes_of(carrier.bundle(padding=200_000), 3)
    listed, good = list_of(paths), paths[1].read_bytes()
    flip(paths[1])
    page = open_page(operator)
    page.goto("/import/")
    drop(page, *paths, listed)
    page.wait_for_url("**/import/*/")
    first = Import.objects.get()
    Import.objects.filter(pk=first.pk).update(allow_unsigned=True)
    perform(first.pk, store=store, heart=False)
    expect(page.get_by_text(f"Volume 2 of 3 is damaged: {paths[1].name}").first).to_be_visible()
    expect(page.locator("#kept")).to_contain_text("Only volume 2 of 3 must be sent again.")
    page.get_by_role("link", name="Send it again").click()
    expect(page.get_by_text("volume 2 of 3 is missing")).to_be_visible()
    page.set_viewport_size({"width": 390, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") == 390

    # All of them, as somebody drops them who has not read that: what is here and whole stays where it is.
    paths[1].write_bytes(good)
    begun = []
    page.on("request", lambda request: begun.append(request.url) if request.method == "POST" else None)
    drop(page, *paths)
    page.wait_for_url("**/import/*/")
    assert len([url for url in begun if url.endswith("/import/uploads/")]) == 1
    again = Import.objects.latest("pk")
    assert again.pk != first.pk
    Import.objects.filter(pk=again.pk).update(allow_unsigned=True, at_once=True)
    perform(again.pk, store=store, heart=False)
    expect(page.get_by_role("heading", level=1)).to_contain_text("is in.")
    assert list(staging.folder().iterdir()) == []


def test_without_a_list_the_same_name_and_date_is_still_another_copy(open_page, operator, carrier, store):
    first, second = volumes_of(carrier.bundle(padding=100_000), 2)
    good = second.read_bytes()
    flip(second)
    page = open_page(operator)
    page.goto("/import/")
    page.route("**/import/uploads/start", lambda route: route.abort())
    drop(page, first, second)
    expect(page.locator("#sending")).to_contain_text("begin the import below")
    page.unroute("**/import/uploads/start")
    page.reload()
    page.get_by_role("button", name="Import", exact=True).click()
    page.wait_for_url("**/import/*/")
    assert page.evaluate("Object.keys(localStorage).length") == 2, "the page remembers both as sent"
    run = Import.objects.get()
    Import.objects.filter(pk=run.pk).update(allow_unsigned=True)
    perform(run.pk, store=store, heart=False)
    expect(page.locator("#kept")).to_contain_text("All 2 volumes are kept.")
    second.write_bytes(good)
    page.goto("/import/")
    drop(page, second)
    page.wait_for_url("**/import/*/")
    again = Import.objects.latest("pk")
    Import.objects.filter(pk=again.pk).update(allow_unsigned=True, at_once=True)
    perform(again.pk, store=store, heart=False)
    expect(page.get_by_role("heading", level=1)).to_contain_text("is in.")
    open_page.complaints.clear()


def test_single_files_that_belong_together_are_one_import(open_page, operator, carrier, store, tmp_path):
    folder = tmp_path / "singles"
    folder.mkdir()
    files = single_files_of(carrier.bundle({"trivy-db": 5, "vexhub": 30}, profile="files"), folder)
    page = open_page(operator)
    page.goto("/import/")
    drop(page, *[file for file in files if file.name != "README.txt"])
    expect(page.locator("#sending")).to_contain_text("README.txt is missing")
    page.reload()
    expect(page.get_by_text("single files")).to_have_count(2)
    drop(page, *files[::-1])
    page.wait_for_url("**/import/*/")
    run = Import.objects.get()
    bundle = json.loads((folder / "bundle.json").read_text())["bundle"]
    assert run.name == f"airgap-files-{bundle}", "two such bundles are not taken for one"
    assert {file["name"] for file in run.files} == {file.name for file in files}
    Import.objects.filter(pk=run.pk).update(allow_unsigned=True, at_once=True)
    perform(run.pk, store=store, heart=False)
    assert Mirror.objects.exclude(current=None).count() == 2


def test_a_file_without_room_is_refused_once_and_in_one_sentence(open_page, operator, carrier, store, settings):
    settings.AIRGAP_RESERVE_MB = store.free_bytes() // 2**20 + 1_000_000
    page = open_page(operator)
    page.goto("/import/")
    drop(page, carrier.bundle())
    expect(page.locator("#sending .failed")).to_contain_text("There is no room for")
    expect(page.locator("#sending .notice")).to_have_count(0)
    assert not Upload.objects.exists()
    open_page.complaints.clear()


def test_a_disk_that_is_full_for_a_while_is_said_and_the_upload_goes_on(open_page, operator, carrier, store):
    page = open_page(operator)
    page.goto("/import/")
    full = [True]

    def answer(route):
        if route.request.method == "PATCH" and full[0]:
            route.fulfill(status=507, body="The disk is full. Make room, then let the upload go on.\n")
        else:
            route.fallback()

    page.route("**/import/uploads/*", answer)
    drop(page, carrier.bundle())
    expect(page.locator("#sending .said")).to_contain_text("The disk is full. Make room")
    full[0] = False
    page.wait_for_url("**/import/*/")
    open_page.complaints.clear()


def test_a_server_that_cannot_say_how_much_is_here_does_not_make_it_begin_anew(open_page, operator, carrier, store):
    """As behind a proxy while the program starts again, or on a disk without one free byte."""
    page = open_page(operator)
    page.goto("/import/")
    begun, troubles = [], ["PATCH", "HEAD", "HEAD"]

    def answer(route):
        if troubles and route.request.method == troubles[0]:
            troubles.pop(0)
            route.fulfill(status=502, body="<html>Bad Gateway</html>")
        else:
            route.fallback()

    page.route("**/import/uploads/*", answer)
    page.on("request", lambda asked: asked.url.endswith("/import/uploads/") and begun.append(asked.method))
    drop(page, carrier.bundle())
    page.wait_for_url("**/import/*/")
    assert (begun, troubles) == (["POST"], [])
    open_page.complaints.clear()


def test_what_is_here_is_gone_on_with_after_the_session_ended(open_page, operator, carrier, store):
    page, path = open_page(operator), carrier.bundle()
    page.goto("/import/")
    refuse = {"PATCH": 403, "HEAD": 401}

    def answer(route):
        status = refuse.get(route.request.method)
        route.fulfill(status=status, body="") if status else route.fallback()

    page.route("**/import/uploads/*", answer)
    drop(page, path)
    expect(page.locator("#sending .failed")).to_have_count(1)
    drop(page, path)
    expect(page.locator("#sending .failed .said")).to_contain_text("Your session has ended. Sign in again")
    refuse.clear()
    drop(page, path)
    page.wait_for_url("**/import/*/")
    assert Upload.objects.count() == 1
    open_page.complaints.clear()


def test_what_is_no_bundle_is_said_at_once(open_page, operator, store, tmp_path):
    notes = tmp_path / "notes.txt"
    notes.write_text("x")
    page = open_page(operator)
    page.goto("/import/")
    drop(page, notes)
    expect(page.locator("#sending li.failed")).to_contain_text("is not called like a bundle")


def test_without_javascript_it_says_what_to_do(open_page, operator, store):
    page = open_page(operator, java_script_enabled=False)
    page.goto("/import/")
    expect(page.get_by_text("Uploading needs JavaScript")).to_be_visible()
    expect(page.locator("#files")).to_be_hidden()
