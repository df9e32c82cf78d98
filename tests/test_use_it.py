"""The description of this instance that snippets are written for."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from mirrors import use_it
from mirrors.models import Destination, PushRule, Serving
from tests.kept import keep_build, keep_release, keep_vex

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("base", "seen", "address"),
    [
        ("", ("http", "airgap.example:8000"), ("http", "airgap.example:8000")),
        ("https://mirror.example", ("http", "10.0.0.5:8000"), ("https", "mirror.example")),
        ("https://mirror.example:8443/", ("http", "10.0.0.5:8000"), ("https", "mirror.example:8443")),
        ("", ("http", "0.0.0.0:8000"), ("http", "127.0.0.1:8000")),
        ("http://0.0.0.0:8000", ("http", "10.0.0.5:8000"), ("http", "127.0.0.1:8000")),
        ("", ("http", "[::]:8000"), ("http", "[::1]:8000")),
        ("", ("https", "[fd00::1]"), ("https", "[fd00::1]")),
    ],
)
def test_the_address_is_one_that_scanners_can_ask(settings, base, seen, address):
    settings.AIRGAP_BASE_URL = base
    assert use_it.address(*seen) == address


def test_only_what_is_mirrored_here_is_described(make_mirror, store, now):
    keep_build(store, make_mirror(), now - timedelta(hours=1))
    keep_vex(store, make_mirror("vexhub", kind="vex"), now - timedelta(hours=1))
    make_mirror("nginx", kind="oci", sources=["docker.io/library/nginx:1"])
    instance = use_it.instance_for("https", "airgap.example")
    assert instance.missing == ("Java DB", "checks bundle")
    assert instance.db is not None and instance.db.repository == "aquasecurity/trivy-db"
    assert instance.db.dated == ("2-20261120T1100Z",)
    assert instance.db.size and instance.db.size > 0
    (vex,) = instance.vex
    assert (vex.name, vex.archive, vex.folder) == ("vexhub", "v0.1-0.tar.gz", "vexhub-main")


def test_what_was_never_fetched_is_described_without_a_size(make_mirror):
    make_mirror()
    instance = use_it.instance_for("https", "airgap.example")
    assert instance.db is not None and instance.db.size is None


def test_the_first_archive_of_a_mirrored_release_is_described(make_mirror, store, now):
    keep_release(store, make_mirror("trivy", kind="release", sources=["https://github.com/aquasecurity/trivy"]), now)
    (release,) = use_it.instance_for("https", "airgap.example").releases
    assert (release.path, release.file) == ("/files/trivy/0.74.0/", "trivy_0.74.0_Linux-64bit.tar.gz")
    assert release.checksums == "trivy_0.74.0_checksums.txt"


def test_the_login_of_readers_is_told(make_mirror):
    make_mirror()
    assert not use_it.instance_for("https", "airgap.example").login_required
    Serving.objects.create(pk=1, login_required=True)
    assert use_it.instance_for("https", "airgap.example").login_required


def test_the_number_of_queries_does_not_grow_with_the_mirrors(make_mirror, store, now):
    def queries():
        with CaptureQueriesContext(connection) as captured:
            use_it.instance_for("https", "airgap.example")
        return len(captured)

    keep_build(store, make_mirror(), now - timedelta(hours=1))
    keep_vex(store, make_mirror("vexhub", kind="vex"), now - timedelta(hours=1))
    before = queries()
    for number in range(5):
        mirror = make_mirror(f"other-{number}", kind="trivy-checks", served_repository=f"mirrors/other-{number}")
        keep_build(store, mirror, now - timedelta(hours=number))
        keep_vex(store, make_mirror(f"vex-{number}", kind="vex"), now - timedelta(hours=number))
    assert queries() == before


def test_the_firewall_list_names_each_host_once_with_what_is_documented_beside_it(make_mirror):
    make_mirror(sources=["ghcr.io/aquasecurity/trivy-db:2", "docker.io/aquasec/trivy-db:2"], label="Vulnerability DB")
    make_mirror("trivy-checks", sources=["ghcr.io/aquasecurity/trivy-checks:2"], label="Checks bundle")
    make_mirror("vexhub", kind="vex", sources=["http://vex.example:8080/hub"], label="VEX Hub")
    make_mirror("git", kind="vex", sources=["git+https://github.com/team/vex.git"], label="Git")
    make_mirror("folder", kind="vex", sources=["/srv/vex"], label="Folder")
    make_mirror("off", kind="trivy-db", sources=["off.example/trivy-db:2"], enabled=False)
    gates = {gate.host: gate for gate in use_it.gates()}
    assert gates["ghcr.io:443"].mirrors == ("Vulnerability DB", "Checks bundle")
    assert "ghcr.io" in gates["pkg-containers.githubusercontent.com:443"].remark
    assert "auth.docker.io:443" in gates and "registry-1.docker.io:443" in gates
    assert gates["vex.example:8080"].remark == ""
    assert gates["github.com:443"].mirrors == ("Git",)
    assert "codeload.github.com:443" not in gates
    assert not [host for host in gates if "off.example" in host or host.startswith((":", "srv", "/"))]


@pytest.fixture
def pushed(make_mirror, store, now):
    """The DB under a name of its own in a registry; checks have a rule there and were never pushed."""
    destination = Destination.objects.create(
        name="harbor", label="Harbor", registry="harbor.example", prefix="security", created_at=now
    )
    mirror = make_mirror(label="Vulnerability DB")
    PushRule.objects.create(
        mirror=mirror,
        destination=destination,
        target="db:{tag}",
        created_at=now,
        pushed_snapshot=keep_build(store, mirror, now),
        pushed_reference="harbor.example/security/db:2",
    )
    checks = make_mirror("trivy-checks")
    PushRule.objects.create(mirror=checks, destination=destination, target="checks:2", created_at=now)
    keep_vex(store, make_mirror("vexhub", kind="vex"), now)
    return destination


def test_a_registry_that_we_push_to_is_described_by_what_was_pushed_there(pushed):
    assert use_it.destinations() == [pushed]
    here = use_it.instance_for("https", "airgap.example")
    there = use_it.at_destination(pushed, here)
    assert [there.reference(artifact) for artifact in there.artifacts] == ["harbor.example/security/db:2"]
    assert there.db is not None and there.db.size
    assert there.vex_url(there.vex[0]) == "https://airgap.example/vex/vexhub"
    assert not there.insecure and there.subject == "Harbor"


def test_a_registry_that_answers_by_plain_http_is_described_so(pushed):
    pushed.memory = {"scheme": "http"}
    there = use_it.at_destination(pushed, use_it.instance_for("https", "airgap.example"))
    assert there.insecure
    assert "Give Harbor a certificate" in there.warnings[0]
