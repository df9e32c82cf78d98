"""Mirrors that hold something, destinations to push it to, and a push made in this process."""

import json
from datetime import UTC, datetime

import pytest

from mirrors import content, destinations, logins, push_rules
from mirrors.digests import digest_of
from mirrors.models import Destination, PushRule, PushRun, SnapshotBlob
from mirrors.pushing import perform as pushing
from mirrors.pushing.asking import request_push
from mirrors.registry.transport import Timeouts
from tests.fakes.push_registry import PushRegistry
from tests.kept import keep, keep_build

Role = SnapshotBlob.Role
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
BUILT = datetime(2026, 11, 20, 6, 31, tzinfo=UTC)


@pytest.fixture(autouse=True)
def patience(monkeypatch, data_dir):
    """Quick to try again; the rules about waiting are tested in tests/registry."""
    quick = Timeouts(connect=10, read=10, slow_seconds=30, attempts=2, source_seconds=60, longest_retry_after=1)
    monkeypatch.setattr("mirrors.pushing.connecting.TIMEOUTS", quick)


@pytest.fixture
def make_destination(db, data_dir):
    """make_destination("plant", "127.0.0.1:5000/security", login=("robot", "…"), ca_pem=…) -> Destination"""

    def make(name="plant", address="127.0.0.1:1", *, login=None, insecure=True, **wish) -> Destination:
        asked = logins.basic(*login) if login else logins.NO_LOGIN
        wish = destinations.Wish(address=address, label=name.title(), login=asked, insecure=insecure, **wish)
        return destinations.add_destination(name, wish, by="ada", now=datetime.now(UTC))

    return make


@pytest.fixture
def make_rule(db):
    """make_rule(mirror, destination, target="db:{tag}") -> PushRule"""

    def make(mirror, destination, **wish) -> PushRule:
        return push_rules.add_rule(destination, mirror, push_rules.Wish(**wish), by="ada", now=datetime.now(UTC))

    return make


@pytest.fixture
def push_now(data_dir):
    """push_now(rule) -> the ended run; its heart does not beat, so everything is written at the end."""

    def push(rule, trigger="sync", **options) -> PushRun:
        rule = PushRule.objects.for_pages().get(pk=rule.pk)
        run, _ = request_push(rule, trigger=trigger, by="otto", now=datetime.now(UTC))
        assert pushing.perform(run.pk, heart=False, store=content.store(), **options)
        return PushRun.objects.select_related("mirror", "destination", "rule", "snapshot").get(pk=run.pk)

    return push


@pytest.fixture
def fake():
    with PushRegistry() as registry:
        yield registry


@pytest.fixture
def database(make_mirror, store):
    """A vulnerability DB that holds one build."""
    mirror = make_mirror("trivy-db", label="Vulnerability DB")
    keep_build(store, mirror, BUILT, padding=50_000)
    return mirror


@pytest.fixture
def destination(make_destination, fake):
    return make_destination("plant", f"{fake.host}/security")


@pytest.fixture
def rule(make_rule, database, destination):
    return make_rule(database, destination, target="db:{tag}")


@pytest.fixture
def image(make_mirror, store):
    """An index of two platforms, and a signature that refers to it: (mirror, index, signature)."""
    mirror = make_mirror("tool", "oci", label="Tool", served_repository="mirrors/tool", served_tag="1")
    config, blobs, entries = b"{}", [], []
    for architecture in ("amd64", "arm64"):
        layer = architecture.encode() * 100_000
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": {"mediaType": "application/x-config", "digest": digest_of(config), "size": 2},
                "layers": [{"mediaType": "application/x", "digest": digest_of(layer), "size": len(layer)}],
            }
        ).encode()
        blobs += [(Role.MANIFEST, manifest, OCI_MANIFEST, "", {}), (Role.LAYER, layer, "application/x", "", {})]
        entries.append(
            {
                "mediaType": OCI_MANIFEST,
                "digest": digest_of(manifest),
                "size": len(manifest),
                "platform": {"os": "linux", "architecture": architecture},
            }
        )
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).encode()
    signature = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": "application/x-signature",
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest_of(config), "size": 2},
            "layers": [],
            "subject": {"mediaType": OCI_INDEX, "digest": digest_of(index), "size": len(index)},
        }
    ).encode()
    everything = [
        (Role.INDEX, index, OCI_INDEX, "", {}),
        *blobs,
        (Role.CONFIG, config, "application/x-config", "", {}),
        (Role.MANIFEST, signature, OCI_MANIFEST, "", {"subject": digest_of(index)}),
    ]
    keep(
        store, mirror, everything, fetched=BUILT, identity=digest_of(index), manifest_digest=digest_of(index),
        media_type=OCI_INDEX, tag="1", source_reference="quay.io/x/tool:1",
    )  # fmt: skip
    return mirror, index, signature
