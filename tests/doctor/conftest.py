"""A registry with everything in order, and an examination of it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from mirrors.demo import assets
from mirrors.doctor import Options, examine, targets_of
from mirrors.doctor.asking import PATIENCE
from mirrors.registry.transport import Connection
from mirrors.trivy.catalogue import KINDS
from tests.fakes.registry import FakeRegistry

NOW = datetime.now(UTC).replace(microsecond=0)
QUICK = replace(PATIENCE, connect=10, read=10, source_seconds=60)
LAYERS = {
    "trivy-db": lambda built: assets.build_trivy_db(built),
    "trivy-java-db": lambda built: assets.build_java_db(built),
    "trivy-checks": lambda built: assets.build_checks(),
}


def push(fake, kind="trivy-db", tag=None, *, repository=None, built=None, layer=None, **changed):
    """A build as upstream pushes it; `layer` replaces (bytes, media type, title)."""
    built = built or NOW - timedelta(hours=2)
    asset = KINDS[kind]
    layer = layer or (LAYERS[kind](built), asset.layer_media_type, asset.title)
    changed.setdefault("created", built)
    layers = changed.pop("layers", [layer])
    return fake.push(repository or f"aquasecurity/{kind}", tag or asset.default_tag, layers, **changed)


@pytest.fixture
def fake():
    with FakeRegistry() as registry:
        yield registry


@pytest.fixture
def secure():
    with FakeRegistry(tls=True) as registry:
        yield registry


def reports_of(address, *, whole_up_to=1 << 20, now=NOW, stop=None, **connection):
    options = Options(Connection(**connection), whole_up_to=whole_up_to, timeouts=QUICK)
    return list(examine(targets_of(address), options, now=now, stop=stop))


def findings_of(address, **options):
    """By code: the findings of every report."""
    return {finding.code: finding for report in reports_of(address, **options) for finding in report.findings}
