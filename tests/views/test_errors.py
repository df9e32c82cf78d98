"""Pages for when something goes wrong, in words and without a traceback."""

import re
from pathlib import Path

import pytest
from django.conf import settings
from django.core.files.uploadedfile import SimpleUploadedFile
from django.template.loader import render_to_string
from django.test import Client
from django.urls import reverse

pytestmark = pytest.mark.django_db
TEMPLATES = Path(settings.BASE_DIR) / "templates"


def test_a_role_that_does_not_allow_it_is_told_who_can_help(as_viewer, make_mirror):
    make_mirror("trivy-db")
    response = as_viewer.post(reverse("mirrors:mirror-sync", args=["trivy-db"]))
    assert response.status_code == 403
    assert "Your role does not allow this." in response.content.decode()
    assert "Only operators and administrators may do this." in response.content.decode()


def test_an_unknown_address_is_told_in_our_own_words(client):
    response = client.get("/nowhere")
    assert response.status_code == 404
    assert "There is nothing here." in response.content.decode()


def test_an_old_form_is_told_that_nothing_was_changed(operator):
    client = Client(enforce_csrf_checks=True)
    client.force_login(operator, backend="django.contrib.auth.backends.ModelBackend")
    response = client.post(reverse("mirrors:logout"))
    assert response.status_code == 403
    assert "Nothing was changed." in response.content.decode()


@pytest.mark.parametrize("path", ["/?row=a%00b", "/history/?database=a%00b", "/history.csv?who=%00", "/a%00b"])
def test_a_nul_in_an_address_is_refused_before_a_database_does(as_viewer, path):
    answer = as_viewer.get(path)
    assert answer.status_code == 400 and "NUL" in answer.content.decode()


def test_a_strangers_file_is_not_kept_while_nobody_wants_one(client, monkeypatch):
    monkeypatch.setattr(
        "django.core.files.temp.NamedTemporaryFile", lambda *_, **__: pytest.fail("the file is written to disk")
    )
    large = SimpleUploadedFile("large", b"x" * 3_000_000)
    response = client.post(reverse("mirrors:login"), {"username": "ada", "password": "x", "file": large})
    assert response.status_code == 422


def test_a_fault_of_our_own_needs_no_database_and_no_context():
    assert "Something broke on our side." in render_to_string("500.html")


def test_no_template_has_inline_script_or_style():
    faults = [
        f"{path.name}: {found.group(0)}"
        for path in TEMPLATES.rglob("*.html")
        for found in re.finditer(r'\sstyle="|<style|<script(?! src=)|\son[a-z]+="|https?://', path.read_text())
    ]
    assert faults == []


@pytest.mark.parametrize(
    ("path", "status"),
    [("/", 200), ("/history.csv", 200), ("/nowhere", 404), ("/settings/people/", 403), ("/logout/", 405),
     ("/?a=%00", 400), ("/vex/none/.well-known/vex-repository.json", 404), ("/healthz", 503)],
)  # fmt: skip
def test_every_answer_forbids_what_comes_from_elsewhere(as_viewer, path, status, monkeypatch):
    monkeypatch.setattr("mirrors.health.faults", lambda: ["broker"])
    response = as_viewer.get(path)
    assert response.status_code == status
    rules = dict(rule.split(" ", 1) for rule in response["Content-Security-Policy"].split("; "))
    # Scripts, styles, fonts and connections fall back to the default: nothing may loosen them.
    assert rules == {
        "default-src": "'self'", "base-uri": "'none'", "form-action": "'self'", "frame-ancestors": "'none'",
        "object-src": "'none'", "img-src": "'self' data:",
    }  # fmt: skip
    assert response["Permissions-Policy"] == "camera=(), microphone=(), geolocation=()"


def test_the_login_page_has_the_same_policy(client):
    assert client.get(reverse("mirrors:login"))["Content-Security-Policy"].startswith("default-src 'self';")
