"""A VEX repository to read, tokens to read it with, and a client that knows nobody."""

from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from mirrors import access_tokens
from tests.kept import keep_vex


@pytest.fixture
def vexhub(store, make_mirror, now):
    return keep_vex(store, make_mirror("vexhub", "vex"), now - timedelta(hours=2))


@pytest.fixture
def closed(db, django_capture_on_commit_callbacks):
    """Readers must log in."""
    with django_capture_on_commit_callbacks(execute=True):
        access_tokens.require_login(True, by="ada", now=timezone.now())


@pytest.fixture
def make_token(db):
    """make_token("ci", life=…) -> secret"""

    def make(name="ci", life=None, *, now=None) -> str:
        return access_tokens.add_token(name, life=life, by="ada", now=now or timezone.now())[1]

    return make


@pytest.fixture
def stranger() -> Client:
    return Client(enforce_csrf_checks=True)
