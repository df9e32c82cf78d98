"""The doctor's page."""

import threading
from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from mirrors import checkup
from mirrors.models import AuditEntry
from mirrors.reading import forget
from tests.doctor.conftest import push
from tests.fakes.registry import FakeRegistry
from tests.kept import keep_build, keep_vex

pytestmark = pytest.mark.django_db
PAGE = reverse("mirrors:doctor")


@pytest.fixture
def fake():
    with FakeRegistry() as registry:
        yield registry


def test_it_names_what_a_trivy_would_trip_over(as_operator, fake):
    push(fake, layers=[(b"a", "application/x-tar", "db.tar.gz")])
    answer = as_operator.post(PAGE, {"address": f"{fake.host}/aquasecurity/trivy-db:2"})
    text = answer.content.decode()
    assert answer.status_code == 200
    assert "A Trivy there would stop: one thing." in text
    assert '<span class="finding stops">stops</span>' in text
    assert "unacceptable media type" in text
    assert f"<code>{fake.host}</code>" in text


def test_a_sound_registry_is_told_in_one_sentence(as_operator, fake):
    push(fake)
    text = as_operator.post(PAGE, {"address": f"{fake.host}/aquasecurity/trivy-db:2"}).content.decode()
    assert "A Trivy there would get what it needs." in text


def test_who_asked_about_what_is_on_record_and_nothing_secret(as_operator, fake):
    push(fake)
    sent = {"address": f"{fake.host}/aquasecurity/trivy-db:2", "username": "u", "password": "very secret"}
    text = as_operator.post(PAGE, sent).content.decode()
    assert "very secret" not in text
    entry = AuditEntry.objects.get(action="registry examined")
    assert (entry.actor, entry.subject) == ("otto", f"{fake.host}/aquasecurity/trivy-db:2")
    assert "secret" not in entry.detail


def test_nothing_of_a_strangers_answer_is_shown(as_operator, fake):
    push(fake)
    secret = b'{"errors":[{"code":"NO<b>","message":"inner secrets"}],"key":"inner secrets"}'
    for status in (404, 200):
        fake.fault("/manifests/", status=status, body=secret, times=None, headers={"X-Inner": "inner secrets"})
        text = as_operator.post(PAGE, {"address": f"{fake.host}/aquasecurity/trivy-db:2"}).content.decode()
        assert "inner secrets" not in text and "NO<b>" not in text and "NO&lt;b&gt;" not in text
        fake.faults.clear()


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        ({"address": "a b"}, "is not a host name"),
        ({"address": "https://registry.example"}, "without https://"),
        ({"address": ""}, "Nothing that Trivy pulls is mirrored here yet"),
        ({"address": "r.example", "ca_pem": "no certificate"}, "no readable certificate"),
        ({"address": "r.example", "ca_pem": "-----BEGIN PRIVATE KEY-----"}, "holds a private key"),
        ({"address": "r.example", "username": "u"}, "needs its password"),
        ({"address": "r.example", "username": "u", "password": "a\x01b"}, "control characters"),
        ({"address": "x" * 700}, "at most 600 characters"),
    ],
)
def test_what_cannot_be_examined_is_said_beside_its_field(as_operator, sent, told):
    answer = as_operator.post(PAGE, sent)
    assert answer.status_code == 422
    assert told in answer.content.decode()
    assert not AuditEntry.objects.filter(action="registry examined").exists()


def test_htmx_gets_the_lower_part_alone(as_operator, fake):
    push(fake)
    text = as_operator.post(PAGE, {"address": fake.host}, headers={"HX-Request": "true"}).content.decode()
    assert text.startswith('<div id="doctor">') and "<html" not in text


def test_the_time_it_may_take_ends(as_operator, fake, monkeypatch):
    fake.fault("/v2/", stall=True, times=None)
    monkeypatch.setattr(checkup, "PAGE_SECONDS", 0.2)
    text = as_operator.post(PAGE, {"address": fake.host}).content.decode()
    assert "Not everything was asked." in text
    assert "it took longer than 0 seconds" in text
    assert not [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]


def test_an_address_may_come_with_the_link(as_operator):
    assert 'value="r.example:5000"' in as_operator.get(PAGE, {"address": "r.example:5000"}).content.decode()


def test_it_is_not_asked_by_looking(as_operator, fake):
    as_operator.get(PAGE, {"address": fake.host})
    assert fake.count() == 0


def test_viewers_may_not_send_it_and_do_not_find_it(as_viewer):
    assert as_viewer.get(PAGE).status_code == 403
    assert as_viewer.post(PAGE, {"address": "r.example"}).status_code == 403
    assert PAGE not in as_viewer.get(reverse("mirrors:use-it")).content.decode()


def test_operators_find_it_beside_the_snippets(as_operator):
    assert f'href="{PAGE}"' in as_operator.get(reverse("mirrors:use-it")).content.decode()
    assert f'<a href="{PAGE}" aria-current="page">Doctor</a>' in as_operator.get(PAGE).content.decode()


def test_it_needs_a_login(client):
    assert client.get(PAGE).url.startswith(reverse("mirrors:login"))
    assert client.post(PAGE, {"address": "r.example"}).url.startswith(reverse("mirrors:login"))


@pytest.mark.django_db(transaction=True)
def test_this_instance_is_in_order(as_operator, live_server, settings, store, make_mirror):
    """The whole of it: what we serve, asked by Trivy's rules."""
    settings.AIRGAP_BASE_URL = live_server.url
    forget()
    built = timezone.now().replace(microsecond=0) - timedelta(hours=1)
    for name in ("trivy-db", "trivy-java-db", "trivy-checks"):
        keep_build(store, make_mirror(name, sources=[f"ghcr.io/aquasecurity/{name}"]), built)
    keep_vex(store, make_mirror("vexhub", kind="vex", sources=["https://vex.example"]), built)
    text = as_operator.post(PAGE, {"address": ""}).content.decode()
    assert "A Trivy there would get what it needs." in text
    assert text.count('class="report"') == 4
    assert "finding stops" not in text and "finding trips" not in text
    assert "/vex/vexhub" in text
