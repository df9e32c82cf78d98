"""Instances that end with their test, and the isolated side's network."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.crossing import namespace
from tests.crossing.instance import Instance
from tests.crossing.namespace import Namespace


@pytest.fixture
def building() -> Iterator[Namespace]:
    """A network with nothing but its own loopback."""
    reason = namespace.missing()
    if reason:
        pytest.skip(reason)
    found = Namespace()
    yield found
    found.end()


@pytest.fixture
def instance(tmp_path_factory) -> Iterator[Callable[..., Instance]]:
    """instance("isolated", namespace=…, first=code, **environment) -> an Instance that is running; ended afterwards.

    `first` is Python that runs in it before its first start.
    """
    started: list[Instance] = []

    def start(side: str, *, namespace: Namespace | None = None, first: str = "", **environment: str) -> Instance:
        folder = Path(tmp_path_factory.mktemp(side))
        made = Instance(folder, side, namespace=namespace, **environment)
        started.append(made)
        if first:
            made.manage("migrate", "--verbosity", "0")
            made.python(first)
        made.start()
        return made

    yield start
    for each in started:
        each.stop()
