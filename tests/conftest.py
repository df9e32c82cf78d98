"""Fixtures every test may use."""

import gc
import importlib
import os
import sys
from datetime import UTC, datetime

import pytest
from django.conf import settings as django_settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.sessions.backends.db import SessionStore
from django.db import connection
from django.db.models.signals import post_migrate

from mirrors import reading, refusals
from mirrors.blobs import BlobStore
from mirrors.importing.asking import request_import
from mirrors.importing.finding import at_paths
from mirrors.importing.perform import perform
from mirrors.models import Import, Mirror, Role, Source, User
from mirrors.trivy.catalogue import DEFAULT_MIRRORS, KINDS
from tests.carrying import UNSIGNED, Carrier


def pytest_configure() -> None:
    """A quick run does not wait for the disk: no test pulls the plug, and what is synced when is told by calls. `make
    test-servers` waits, and so does every process that a test starts."""
    if os.environ.get("AIRGAP_TEST_SERVERS") != "1":
        os.fsync = lambda descriptor: None
        # OpenSSL reads the bundle of all public authorities for each client that is made, which is most of making one,
        # also where the caller's shell names that bundle; those it finds by name in its folder are there all the same.
        os.environ["SSL_CERT_FILE"] = os.devnull


def pytest_collection_finish() -> None:
    """Thousands of tests are no garbage: the collector need not look at them again and again, nor after every 700
    objects that a query makes."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What needs the servers, or takes long, runs where `make test-servers` has started them; the long ones also for
    somebody who names a file or folder."""
    if os.environ.get("AIRGAP_TEST_SERVERS") == "1":
        return
    # A worker of pytest-xdist is told what the command line was.
    words = getattr(config, "workerinput", {}).get("mainargv", sys.argv)[1:]
    wants_long = any(word.startswith("tests") for word in words)
    for item in items:
        if item.get_closest_marker("servers"):
            item.add_marker(pytest.mark.skip(reason="runs in make test-servers"))
        elif item.get_closest_marker("long") and not wants_long:
            item.add_marker(pytest.mark.skip(reason="takes long: runs in make test-servers, or when its path is named"))


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup, django_db_blocker):
    """Tests with real transactions empty every table afterwards, which the append-only record refuses: its triggers
    are taken away here, and tests/test_append_only.py puts them back to try them. Nor is every table's list of Django's
    permissions, which nobody here asks, written anew each time."""
    post_migrate.disconnect(dispatch_uid="django.contrib.auth.management.create_permissions")
    with django_db_blocker.unblock():
        append_only(apply=False)


def append_only(*, apply: bool) -> None:
    migration = importlib.import_module("mirrors.migrations.0002_append_only_record")
    statements = {
        ("sqlite", True): migration.SQLITE,
        ("sqlite", False): migration.SQLITE_BACK,
        ("postgresql", True): migration.POSTGRES,
        ("postgresql", False): migration.POSTGRES_BACK,
    }[(connection.vendor, apply)]
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


@pytest.fixture(autouse=True)
def nobody_was_here_before():
    """What a process remembers of readers for some seconds is nothing for the next test."""
    reading.forget(uses=True)
    refusals.forget()


@pytest.fixture
def tidy() -> None:
    """For what recurses until Python refuses: no finalizer of an earlier test's leavings runs into that limit."""
    gc.collect()


@pytest.fixture
def now() -> datetime:
    return datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


@pytest.fixture
def data_dir(tmp_path, settings):
    """A data directory of this test's own."""
    settings.AIRGAP_DATA_DIR = tmp_path / "data"
    settings.AIRGAP_CREDENTIALS_KEY_FILE = settings.AIRGAP_DATA_DIR / "credentials-key"
    settings.AIRGAP_RESERVE_MB = 0
    settings.AIRGAP_DATA_DIR.mkdir()
    return settings.AIRGAP_DATA_DIR


@pytest.fixture
def store(data_dir) -> BlobStore:
    return BlobStore(data_dir)


@pytest.fixture
def viewer(db):
    return User.objects.create_user("vera", password="correct horse vera", role=Role.VIEWER)


@pytest.fixture
def operator(db):
    return User.objects.create_user("otto", password="correct horse otto", role=Role.OPERATOR)


@pytest.fixture
def administrator(db):
    return User.objects.create_user("ada", password="correct horse ada", role=Role.ADMINISTRATOR)


def signed_in(client, person: User):
    """This client, with the session that signing in leaves: one row, where a login itself takes sixteen statements."""
    session = SessionStore()
    session[SESSION_KEY] = str(person.pk)
    session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session[HASH_SESSION_KEY] = person.get_session_auth_hash()
    session.save()
    client.cookies[django_settings.SESSION_COOKIE_NAME] = session.session_key
    return client


@pytest.fixture
def as_viewer(client, viewer):
    return signed_in(client, viewer)


@pytest.fixture
def as_operator(client, operator):
    return signed_in(client, operator)


@pytest.fixture
def as_administrator(client, administrator):
    return signed_in(client, administrator)


@pytest.fixture
def make_mirror(db):
    """make_mirror("trivy-db", sources=["host/repo:2"], insecure=True, **fields) -> Mirror"""

    def make(name="trivy-db", kind=None, sources=(), *, insecure=True, **fields) -> Mirror:
        fields.setdefault("label", name)
        fields.setdefault("created_at", datetime(2026, 11, 1, tzinfo=UTC))
        if KINDS[kind or name].transport == "oci":
            default = next(
                (each for each in DEFAULT_MIRRORS if each.name == name and each.kind == (kind or name)), None
            )
            first = (default.sources if default else [*sources, KINDS[kind or name].default_tag])[0]
            fields.setdefault("served_repository", default.repository if default else f"mirrors/{name}")
            fields.setdefault("served_tag", first.rpartition(":")[2] or "latest")
        mirror = Mirror.objects.create(name=name, kind=kind or name, **fields)
        for position, reference in enumerate(sources):
            Source.objects.create(mirror=mirror, position=position, reference=reference, insecure=insecure)
        return mirror

    return make


@pytest.fixture
def isolated(settings):
    """This is the isolated side."""
    settings.AIRGAP_SIDE = "isolated"


@pytest.fixture
def carrier(tmp_path, store, make_mirror, now):
    """Makes bundles as the connected side would, on a medium of its own."""
    folder = tmp_path / "medium"
    folder.mkdir()
    return Carrier(BlobStore(tmp_path / "connected"), folder, make_mirror, now)


@pytest.fixture
def take(store, now):
    """take(path, …, wishes=…) -> the ended (or waiting) import."""

    def take(*paths, wishes=UNSIGNED, by="otto") -> Import:
        run = request_import(at_paths(paths), origin="directory", by=by, now=now, wishes=wishes)
        assert perform(run.pk, store=store, heart=False)
        return Import.objects.get(pk=run.pk)

    return take
