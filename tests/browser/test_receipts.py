"""Load a receipt in a real browser: the vendored decoder reads the QR code that we draw, also from a photo of it."""

import base64

import pytest
from django.utils import timezone
from playwright.sync_api import expect

from mirrors import keys
from mirrors.models import Receipt, Transfer
from mirrors.receipting import giving
from mirrors.receipts import NAMESPACE, svg
from mirrors.signing import Key, sign
from tests.receipting.conftest import code, ended, fact, nord, prepare, signed, their_key, transfer, trusted

__all__ = ["code", "ended", "fact", "nord", "prepare", "signed", "their_key", "transfer", "trusted"]

pytestmark = [pytest.mark.browser, pytest.mark.long, pytest.mark.django_db(transaction=True)]
# A drawing as a camera sees it: turned, slanted, grey on grey, blurred, amid other things.
PHOTO = """async (drawing) => {
  const image = new Image();
  image.src = drawing;
  await image.decode();
  const canvas = document.createElement("canvas");
  canvas.width = 1600; canvas.height = 1200;
  const paper = canvas.getContext("2d");
  paper.fillStyle = "#8d8a84"; paper.fillRect(0, 0, 1600, 1200);
  paper.filter = "blur(0.8px) brightness(85%) contrast(75%)";
  paper.setTransform(1, 0.09, -0.12, 0.94, 420, 120);
  paper.drawImage(image, 0, 0, 900, 900);
  return canvas.toDataURL("image/jpeg", 0.8).split(",")[1];
}"""


@pytest.fixture
def now():
    return timezone.now().replace(microsecond=0)


def drawing(text):
    return "data:image/svg+xml;base64," + base64.b64encode(svg(text).encode()).decode()


def test_a_photo_of_the_qr_code_fills_the_form_and_loads(open_page, operator, signed, trusted, transfer):
    page = open_page(operator)
    page.goto("/receipts/load")
    photo = base64.b64decode(page.evaluate(PHOTO, drawing(signed())))
    page.get_by_label("Or a photo of the QR code").set_input_files(
        [{"name": "photo.jpg", "mimeType": "image/jpeg", "buffer": photo}]
    )
    expect(page.get_by_text("The QR code was read.")).to_be_visible()
    page.get_by_role("button", name="Load", exact=True).click()
    expect(page.get_by_text("was received at Plant Nord")).to_be_visible()
    assert Receipt.objects.get().way == "qr"
    assert Transfer.objects.get(pk=transfer.pk).state == "received"


def test_a_picture_without_one_says_what_to_try(open_page, operator, data_dir):
    page = open_page(operator)
    page.goto("/receipts/load")
    blank = base64.b64decode(page.evaluate(PHOTO, "data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg'/>"))
    photo = page.get_by_label("Or a photo of the QR code")
    photo.set_input_files([{"name": "photo.jpg", "mimeType": "image/jpeg", "buffer": blank}])
    expect(page.get_by_text("No QR code was found.")).to_be_visible()
    photo.set_input_files([{"name": "photo.jpg", "mimeType": "image/jpeg", "buffer": b"not a picture"}])
    expect(page.get_by_text("This is no picture that the browser can read.")).to_be_visible()


def test_a_code_is_enough_without_javascript(open_page, operator, code, transfer):
    page = open_page(operator, java_script_enabled=False)
    page.goto("/receipts/load")
    expect(page.get_by_label("Or a photo of the QR code")).to_be_hidden()
    page.get_by_label("Code, or the text of the receipt").fill(code().decode().lower())
    page.get_by_role("button", name="Load", exact=True).click()
    expect(page.get_by_text("weaker evidence").first).to_be_visible()


def test_nothing_scrolls_sideways_on_a_phone(open_page, operator, data_dir):
    page = open_page(operator, viewport={"width": 390, "height": 800})
    page.goto("/receipts/load")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_signature_is_brought_from_elsewhere_on_a_phone(open_page, operator, ended, data_dir, settings, now):
    settings.AIRGAP_SIDE = "isolated"
    giving.switch(True, by="ada", now=now)
    outside = Key.generate()
    keys.use_elsewhere(outside.public_line(), "outside", by="ada", now=now)
    page = open_page(operator, viewport={"width": 390, "height": 800})
    page.goto(f"/import/{ended().pk}/receipt/")
    page.get_by_role("link", name="Bring its signature").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    with page.expect_download() as download:
        page.get_by_role("link", name="Download these six lines").click()
    assert download.value.suggested_filename == "airgap-receipt-ab12cd34-facts.txt"
    signature = sign(download.value.path().read_bytes(), outside, NAMESPACE)
    page.get_by_label("Or the file airgap-receipt-ab12cd34-facts.txt.sig").set_input_files(
        [{"name": "x.sig", "mimeType": "application/octet-stream", "buffer": signature}]
    )
    page.get_by_role("button", name="Take this signature").click()
    expect(page.get_by_alt_text("QR code of the signed receipt")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
