"""What a new instance begins with, and that it begins once."""

import os
from datetime import timedelta

import pytest

from mirrors import mirroring, people
from mirrors.first_start import demo_source, first_start
from mirrors.models import Mirror, Role, Source, User
from mirrors.trivy.catalogue import DEFAULT_MIRRORS

DEFAULTS = ["trivy-db", "trivy-java-db", "trivy-checks", "trivy-checks-1", "vexhub"]


@pytest.fixture(autouse=True)
def own_data(data_dir, db, settings):
    settings.AIRGAP_ADMIN_PASSWORD = ""


def names():
    return list(Mirror.objects.for_pages().values_list("name", flat=True))


def test_the_first_start_makes_an_administrator_with_a_random_password_in_a_file_of_ours(now):
    begun = first_start(now=now)
    admin = User.objects.get()
    assert begun.created and admin.username == "admin" and admin.role == Role.ADMINISTRATOR
    assert admin.must_change_password and admin.check_password(begun.password)
    assert begun.admin_password_file.read_text() == begun.password + "\n"
    assert begun.admin_password_file.stat().st_mode & 0o777 == 0o600
    assert [name for name in os.listdir(begun.admin_password_file.parent) if "password" in name] == ["admin-password"]


def test_a_password_given_in_the_environment_is_used_and_need_not_be_changed(now, settings):
    settings.AIRGAP_ADMIN_PASSWORD = "from-outside"
    begun = first_start(now=now)
    admin = User.objects.get()
    assert begun.created and begun.password is None and begun.admin_password_file is None
    assert admin.check_password("from-outside") and not admin.must_change_password
    assert not people.first_password_file().exists()


def test_the_connected_side_begins_with_the_default_mirrors_a_few_seconds_apart(now):
    first_start(now=now)
    assert names() == DEFAULTS
    due = [mirror.next_sync_at for mirror in Mirror.objects.for_pages()]
    assert due == sorted(set(due)) and due[0] == now and due[-1] < now + timedelta(minutes=1)
    checks = Mirror.objects.get(name="trivy-checks-1")
    assert checks.kind == "trivy-checks" and checks.sources.first().reference == "mirror.gcr.io/aquasec/trivy-checks:1"
    assert checks.schedule == "" and not checks.sources.filter(insecure=True).exists()


def test_the_isolated_side_begins_with_no_mirror(now, settings):
    settings.AIRGAP_SIDE = "isolated"
    assert first_start(now=now).created
    assert names() == []


def test_an_instance_that_is_both_begins_with_mirrors(now, settings):
    settings.AIRGAP_SIDE = "both"
    first_start(now=now)
    assert names() == DEFAULTS


def test_a_second_start_changes_nothing_and_brings_no_removed_mirror_back(now):
    first = first_start(now=now)
    mirroring.remove_mirror("trivy-java-db", by="ada", now=now)
    mirroring.edit_mirror("vexhub", mirroring.Settings(schedule="1d"), by="ada", now=now)
    again = first_start(now=now)
    assert not again.created and again.password is None
    assert again.admin_password_file == first.admin_password_file
    assert names() == ["trivy-db", "trivy-checks", "trivy-checks-1", "vexhub"]
    assert Mirror.objects.get(name="vexhub").schedule == "1d"
    assert User.objects.count() == 1


def test_of_two_that_start_at_once_one_makes_the_administrator(now, monkeypatch):
    """The loser finds nobody at first, and then a name that is taken."""
    first_start(now=now)
    before = people.first_password_file().read_text()
    monkeypatch.setattr(User.objects, "exists", lambda: False, raising=False)
    again = first_start(now=now)
    assert not again.created and User.objects.filter(username="admin").count() == 1
    assert people.first_password_file().read_text() == before
    assert names() == DEFAULTS


def test_a_start_that_fails_half_way_leaves_nothing_behind(now, monkeypatch):
    monkeypatch.setattr(
        "mirrors.first_start._write_password", lambda *_: (_ for _ in ()).throw(OSError(30, "read-only"))
    )
    with pytest.raises(OSError):
        first_start(now=now)
    assert not User.objects.exists() and not Mirror.objects.exists()


def test_the_file_is_no_longer_named_once_the_password_was_changed(now):
    first_start(now=now)
    people.change_own_password(User.objects.get(), "a long enough one", now=now)
    assert first_start(now=now).admin_password_file is None


def test_the_demo_points_at_its_upstream_with_a_pace_that_can_be_watched(now):
    first_start(now=now, demo_upstream="127.0.0.1:5555")
    assert list(Source.objects.order_by("mirror__position").values_list("reference", "insecure")) == [
        ("127.0.0.1:5555/aquasecurity/trivy-db:2", True),
        ("127.0.0.1:5555/aquasecurity/trivy-java-db:1", True),
        ("127.0.0.1:5555/aquasecurity/trivy-checks:2", True),
        ("127.0.0.1:5555/aquasecurity/trivy-checks:1", True),
        ("http://127.0.0.1:5555", True),
        ("http://127.0.0.1:5555/trivy/v{version}/", True),
    ]
    for mirror in Mirror.objects.all():
        assert mirror.schedule in ("1m", "2m", "3m", "5m")
        assert timedelta(minutes=3) < mirror.limits.due < mirror.limits.stale < mirror.limits.expired


def test_the_demo_follows_its_upstream_to_another_port(now):
    first_start(now=now, demo_upstream="127.0.0.1:5555")
    own = mirroring.Settings(kind="oci", sources=[mirroring.SourceSpec("registry.example/x:1")])
    mirroring.add_mirror("own", own, by="ada", now=now)
    later = now + timedelta(hours=1)
    first_start(now=later, demo_upstream="127.0.0.1:6666")
    references = list(Source.objects.values_list("reference", flat=True))
    assert all("127.0.0.1:6666" in reference for reference in references if "example" not in reference)
    assert "registry.example/x:1" in references
    moved, own_one = Mirror.objects.get(name="vexhub"), Mirror.objects.get(name="own")
    assert moved.settings_version == 2 and moved.next_sync_at == later
    assert own_one.settings_version == 1


def test_every_default_mirror_has_a_place_in_the_demo():
    for default in DEFAULT_MIRRORS:
        assert "127.0.0.1:1" in demo_source(default, "127.0.0.1:1")
