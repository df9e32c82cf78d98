"""What programs fetch without a session: another method than GET or HEAD gets 405 with Allow, never a page."""

import pytest
from django.test import Client

from mirrors import reading
from mirrors.models import Serving

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("data_dir")]
ADDRESSES = (
    "/vex/vexhub/.well-known/vex-repository.json",
    "/vex/vexhub/main.tar.gz",
    "/files/",
    "/files/trivy/",
    "/files/trivy/latest",
    "/files/trivy/0.74.0/",
    "/files/trivy/0.74.0/trivy_0.74.0_Linux-64bit.tar.gz",
)


@pytest.fixture
def program():
    return Client(enforce_csrf_checks=True)


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
def test_it_refuses_to_be_written_to(program, address, method):
    answer = getattr(program, method)(address)
    assert answer.status_code == 405
    assert answer["Allow"] == "GET, HEAD"


def test_where_a_login_is_required_that_is_asked_for_first(program):
    Serving.objects.update_or_create(pk=1, defaults={"login_required": True})
    reading.forget()
    answer = program.post("/files/")
    assert answer.status_code == 401
    assert answer["WWW-Authenticate"].startswith("Basic")
    reading.forget()
