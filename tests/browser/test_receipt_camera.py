"""The live camera on the page Load a receipt: Chromium sees a film that we draw. However it ends, the camera is off."""

from pathlib import Path

import pytest
import segno
from django.utils import timezone
from playwright.sync_api import Page, expect

from mirrors.models import Receipt, Transfer
from tests.receipting.conftest import code, fact, nord, prepare, signed, their_key, transfer, trusted

__all__ = ["code", "fact", "nord", "prepare", "signed", "their_key", "transfer", "trusted"]

pytestmark = [pytest.mark.browser, pytest.mark.long, pytest.mark.django_db(transaction=True)]
ALLOWED, FAKE = "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"
WIDTH, HEIGHT, MODULE = 1280, 720, 7
# What the page was given, so that a test sees it go off also when the page has let go of it.
WATCH = """(() => {
  window.given = [];
  const devices = navigator.mediaDevices;
  if (!devices) return;
  const own = devices.getUserMedia.bind(devices);
  devices.getUserMedia = async (wish) => {
    const stream = await own(wish);
    if (window.held) await window.held;
    window.given.push(...stream.getTracks());
    return stream;
  };
})();"""


@pytest.fixture
def now():
    return timezone.now().replace(microsecond=0)


def film(target: Path, text: bytes | None) -> Path:
    """Two frames of a grey desk with a QR code of the text on it, as YUV4MPEG2, which Chromium shows for ever."""
    luma = [bytearray([140]) * WIDTH for _ in range(HEIGHT)]
    if text is not None:
        rows = segno.make_qr(text, error="m", mode="byte", boost_error=False).matrix
        side = (len(rows) + 8) * MODULE
        assert side <= HEIGHT
        left, top = (WIDTH - side) // 2, (HEIGHT - side) // 2
        for y in range(side):
            line = bytearray()
            for x in range(side):
                row, column = y // MODULE - 4, x // MODULE - 4
                inside = 0 <= row < len(rows) and 0 <= column < len(rows)
                line.append(40 if inside and rows[row][column] else 215)
            luma[top + y][left : left + side] = line
    frame = b"FRAME\n" + b"".join(luma) + bytes([128]) * (WIDTH * HEIGHT // 2)
    target.write_bytes(f"YUV4MPEG2 W{WIDTH} H{HEIGHT} F10:1 Ip A1:1 C420jpeg\n".encode() + frame * 2)
    return target


@pytest.fixture
def before(launch, open_page, operator, tmp_path):
    """before(b"text") -> the page in a browser whose camera sees a QR code of it; None: a desk."""
    browsers = []

    def opened(text: bytes | None) -> Page:
        flags = ALLOWED, FAKE, f"--use-file-for-fake-video-capture={film(tmp_path / 'film.y4m', text)}"
        browsers.append(launch(*flags))
        return loading(open_page(operator, browsers[-1]))

    yield opened
    for browser in browsers:
        browser.close()


def loading(page: Page) -> Page:
    page.add_init_script(WATCH)
    page.goto("/receipts/load")
    return page


def lights(page: Page) -> list[str]:
    return page.evaluate("window.given.map(track => track.readyState)")


def camera(page: Page):
    return page.locator("#receipt-camera")


def said(page: Page):
    return page.locator("#receipt-said")


def test_it_reads_the_qr_code_before_it_and_goes_off(before, signed, trusted, transfer):
    page = before(signed())
    camera(page).click()
    expect(said(page)).to_contain_text("The QR code was read. Load it now.")
    assert lights(page) == ["ended"]
    expect(page.locator("#receipt-video")).to_be_hidden()
    expect(camera(page)).to_have_text("Use the camera of this device")
    page.get_by_role("button", name="Load", exact=True).click()
    expect(page.get_by_text("was received at Plant Nord")).to_be_visible()
    assert Receipt.objects.get().way == "qr"
    assert Transfer.objects.get(pk=transfer.pk).state == "received"


def test_another_qr_code_is_named_and_the_camera_looks_on(before):
    page = before(b"https://example.org/menu")
    camera(page).click()
    expect(said(page)).to_contain_text("it is not one of a receipt")
    assert lights(page) == ["live"]
    expect(page.locator("#receipt-video")).to_be_visible()


def test_it_goes_off_when_it_is_stopped_and_can_be_used_again(before):
    page = before(None)
    for count in (1, 2):
        camera(page).click()
        expect(said(page)).to_contain_text("Hold the QR code so that it fills the picture.")
        assert lights(page)[count - 1] == "live"
        camera(page).click()
        expect(said(page)).to_contain_text("The camera is off.")
        assert lights(page) == ["ended"] * count
        expect(page.locator("#receipt-video")).to_be_hidden()


@pytest.mark.parametrize(
    "leave",
    [
        "dispatchEvent(new PageTransitionEvent('pagehide', {persisted: true}))",
        "Object.defineProperty(document, 'hidden', {value: 1}), document.dispatchEvent(new Event('visibilitychange'))",
    ],
)
def test_it_goes_off_when_the_page_is_left(before, leave):
    page = before(None)
    camera(page).click()
    expect(page.locator("#receipt-video")).to_be_visible()
    page.evaluate(leave)
    assert lights(page) == ["ended"]
    expect(camera(page)).to_have_text("Use the camera of this device")


def test_a_camera_that_is_given_too_late_goes_off_at_once(before):
    """Whoever is asked may take a while, and stop or leave meanwhile."""
    page = before(None)
    page.evaluate("() => { window.held = new Promise(given => { window.give = given; }); }")
    camera(page).click()
    expect(camera(page)).to_have_text("Stop the camera")
    camera(page).click()
    expect(said(page)).to_contain_text("The camera is off.")
    page.evaluate("window.give()")
    while not lights(page):
        page.wait_for_timeout(20)
    # What the page does with it happens before its next task.
    page.evaluate("() => new Promise(done => setTimeout(done))")
    assert lights(page) == ["ended"]
    expect(page.locator("#receipt-video")).to_be_hidden()
    expect(said(page)).to_contain_text("The camera is off.")


def test_a_camera_that_is_taken_away_is_said(before):
    page = before(None)
    camera(page).click()
    expect(page.locator("#receipt-video")).to_be_visible()
    page.evaluate("window.given[0].dispatchEvent(new Event('ended'))")
    expect(said(page)).to_contain_text("The camera went away")
    assert lights(page) == ["ended"]


def test_a_refusal_says_where_to_allow_it(launch, open_page, operator, data_dir):
    page = loading(open_page(operator, launch(FAKE)))
    camera(page).click()
    expect(said(page)).to_contain_text("not allowed to use the camera")
    expect(said(page)).to_contain_text("type the code")
    expect(camera(page)).to_have_text("Use the camera of this device")


def test_a_machine_without_a_camera_says_so(launch, open_page, operator, data_dir):
    browser = launch(ALLOWED, FAKE + "=device-count=0")
    page = loading(open_page(operator, browser))
    camera(page).click()
    expect(said(page)).to_contain_text("has no camera")
    expect(camera(page)).to_have_text("Use the camera of this device")


@pytest.mark.parametrize("name", ["NotReadableError", "AbortError", "SomethingNew"])
def test_a_camera_that_does_not_start_says_what_to_try(open_page, operator, data_dir, name):
    page = open_page(operator)
    page.goto("/receipts/load")
    page.evaluate(
        "name => { navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('', name); } }", name
    )
    camera(page).click()
    expect(said(page)).to_contain_text("does not start; another program may be using it")


def test_without_tls_it_is_said_why_there_is_no_camera(launch, open_page, operator, live_server, settings):
    settings.ALLOWED_HOSTS = ["*"]
    browser = launch("--host-resolver-rules=MAP airgap.test 127.0.0.1")
    page = open_page(operator, browser, live_server.url.replace("localhost", "airgap.test"))
    page.goto("/receipts/load")
    assert page.evaluate("window.isSecureContext") is False
    expect(camera(page)).to_be_hidden()
    expect(page.get_by_text("Browsers give the camera to no page without TLS")).to_be_visible()
    expect(page.get_by_label("Or a photo of the QR code")).to_be_visible()
    # Chromium complains of Django's Cross-Origin-Opener-Policy, which counts for nothing without TLS.
    open_page.complaints.clear()


def test_no_other_page_may_use_it(before, open_page):
    page = before(None)
    page.goto("/sites/")
    name = page.evaluate("navigator.mediaDevices.getUserMedia({video: true}).then(() => 'given', error => error.name)")
    assert name == "NotAllowedError"
    assert open_page.complaints == ["Permissions policy violation: camera is not allowed in this document."]
    open_page.complaints.clear()
