"""The page on which a receipt is loaded."""

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from mirrors.models import Receipt, Transfer
from tests.receipting.conftest import code, fact, nord, prepare, signed, their_key, transfer, trusted

__all__ = ["code", "fact", "nord", "prepare", "signed", "their_key", "transfer", "trusted"]

pytestmark = pytest.mark.django_db
PAGE = "/receipts/load"


@pytest.fixture
def now():
    return timezone.now().replace(microsecond=0)


def test_it_is_for_operators(client, viewer, operator, data_dir):
    assert client.get(PAGE).status_code == 302
    client.force_login(viewer)
    assert client.get(PAGE).status_code == client.post(PAGE, {"text": "x"}).status_code == 403
    client.force_login(operator)
    assert client.get(PAGE).status_code == 200


def test_it_alone_may_use_the_camera(as_operator, data_dir):
    allowed = "camera=(self), microphone=(), geolocation=()"
    assert as_operator.get(PAGE)["Permissions-Policy"] == allowed
    assert as_operator.post(PAGE, {"text": "x"})["Permissions-Policy"] == allowed
    assert as_operator.get("/sites/")["Permissions-Policy"] == "camera=(), microphone=(), geolocation=()"


def test_an_empty_page_says_where_receipts_come_from(as_operator, data_dir):
    text = as_operator.get(PAGE).text
    assert "Here will stand every receipt that was loaded." in text
    assert "marked by hand" in text


def test_a_typed_code_leads_to_the_transfer(as_operator, code, transfer):
    answer = as_operator.post(PAGE, {"text": code().decode().lower()}, follow=True)
    assert answer.redirect_chain[-1][0] == f"/transfers/{transfer.pk}/"
    assert "Bundle" in answer.text and "weaker evidence" in answer.text
    assert Transfer.objects.get(pk=transfer.pk).state == "received"


def test_pasted_text_with_the_line_ends_of_a_browser(as_operator, signed, trusted):
    pasted = signed().decode().replace("\n", "\r\n")
    assert as_operator.post(PAGE, {"text": pasted, "way": "qr"}).status_code == 302
    assert Receipt.objects.get().way == "qr"


def test_a_file_works_without_javascript(as_operator, signed, trusted):
    file = SimpleUploadedFile("airgap-receipt.txt", signed(), "text/plain")
    assert as_operator.post(PAGE, {"text": "", "file": file}).status_code == 302
    assert Receipt.objects.get().way == "file"
    text = as_operator.get(PAGE).text
    assert "signed file" in text and "signed with nord" in text and "Plant Nord" in text


def test_what_is_refused_stays_in_the_form_with_the_reason(as_operator, signed):
    answer = as_operator.post(PAGE, {"text": "7ARJA-XXXXX"})
    assert answer.status_code == 422
    assert "10 were typed" in answer.text and "7ARJA-XXXXX" in answer.text


def test_nothing_and_too_much_are_refused(as_operator, data_dir):
    for sent, said in (({"text": " "}, "Type the code"), ({"text": "x" * 20_000}, "at most")):
        answer = as_operator.post(PAGE, sent)
        assert answer.status_code == 422 and said in answer.text
    both = {"text": "x", "file": SimpleUploadedFile("x", b"x")}
    assert "not both" in as_operator.post(PAGE, both).text
    large = {"file": SimpleUploadedFile("x", b"x" * 300_000)}
    assert as_operator.post(PAGE, large).status_code == 413


def test_the_form_is_protected(operator, data_dir):
    from django.test import Client

    client = Client(enforce_csrf_checks=True)
    client.force_login(operator, backend="django.contrib.auth.backends.ModelBackend")
    assert client.post(PAGE, {"text": "x"}).status_code == 403


def test_the_page_asks_as_often_for_many_receipts_as_for_few(as_operator, transfer, now):
    def count():
        with CaptureQueriesContext(
            connection,
        ) as asked:
            as_operator.get(PAGE)
        return len(asked)

    def add(number):
        Receipt.objects.create(
            transfer=transfer, digest=f"sha256:{number:064}", way="qr", bundle=transfer.bundle_id, site="NORD-2",
            outcome="received", date=now.date(), loaded_at=now, loaded_by="otto",
        )  # fmt: skip

    add(1)
    few = count()
    for number in range(2, 12):
        add(number)
    assert count() == few
