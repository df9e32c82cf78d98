"""An isolated instance asks the network nothing: no request, no name looked up, whatever is clicked.

The real programs run while a bundle comes in, every page is visited and every task is sent. The interpreter itself
writes down whom they connect to and which names they ask for (recording/sitecustomize.py); a network namespace makes
sure besides.
"""

import socket
import sys
from collections.abc import Iterator

import pytest

from tests.crossing import namespace
from tests.crossing.instance import Instance, Person
from tests.crossing.namespace import Namespace

EVERY_TASK = """
import time
from airgap.celery import app
from mirrors import tasks
for task in tasks.tick, tasks.housekeeping, tasks.scrub, tasks.unprepared_bundles:
    task.delay()
with app.connection() as broker:
    for _ in range(300):
        if broker.default_channel.client.llen("celery") == 0:
            print("all taken")
            break
        time.sleep(0.1)
"""
UNIX = str(int(socket.AF_UNIX))


def outward(instance: Instance) -> list[list[str]]:
    """What it asked of anybody but its broker's socket and its own address, and the names it asked for."""
    return [call for call in instance.calls() if not _stays_here(call)]


def _stays_here(call: list[str]) -> bool:
    _, event, first, *rest = call
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        return first == UNIX or rest[-1].startswith("('127.0.0.1', ")
    # No look-up: Python asks for a number to be put into its own form.
    return event == "socket.getaddrinfo" and first == "127.0.0.1"


@pytest.fixture
def anywhere() -> Iterator[Namespace | None]:
    """The namespace where one can be made; the recording proves it without one, too."""
    made = None if namespace.missing() else Namespace()
    yield made
    if made is not None:
        made.end()


@pytest.mark.long
@pytest.mark.timeout(300)
def test_an_isolated_instance_asks_nobody_and_looks_up_no_name(instance, anywhere, carrier):
    bundle = carrier.bundle({"trivy-db": 5, "trivy-checks": 900, "vexhub": 30})
    isolated = instance("isolated", namespace=anywhere, AIRGAP_SCHEDULE="on", HTTPS_PROXY="http://proxy.example:3128")
    isolated.manage("import_bundle", str(bundle), "--allow-unsigned", "--reason", "its key is nobody's")
    person = Person(isolated)
    seen = person.visit_everything()
    assert {"/", "/history/", "/bundles/", "/consumers/", "/settings/", "/settings/store/", "/use-it/"} <= seen
    assert {"/import/", "/import/1/", "/databases/trivy-db/", "/settings/mirrors/vexhub/", "/settings/keys/"} <= seen
    assert "all taken" in isolated.python(EVERY_TASK)
    assert outward(isolated) == []
    programs = {word for call in isolated.calls() for word in ("gunicorn", "celery", "manage.py up") if word in call[0]}
    assert programs == {"gunicorn", "celery", "manage.py up"}, "something was not recorded"


def test_the_recording_notices_a_name_and_a_connection(tmp_path, anywhere):
    """The proof above is worth something only if this turns up."""
    isolated = Instance(tmp_path, "isolated", namespace=anywhere)
    isolated.run(
        sys.executable,
        "-c",
        "import socket\n"
        "for address in (('host.invalid', 443), ('127.0.0.2', 9)):\n"
        "    try: socket.create_connection(address, 1)\n"
        "    except OSError: pass",
    )
    assert {call[1] for call in outward(isolated)} == {"socket.getaddrinfo", "socket.connect"}
