"""A mirror of release files as people set it up: in forms, on the command line, tried out, and chosen for a bundle."""

import json

import pytest
from django.urls import reverse

from mirrors import connections, exporting, mirroring, standing
from mirrors.clock import trusted_now
from mirrors.mirror_rules import RuleBroken, SourceSpec
from mirrors.mirroring import Settings
from mirrors.models import Bundle, Mirror
from tests.kept import keep_build, keep_release
from tests.operations.test_sync_release import publish
from tests.test_connections import QUICK, cdn, fake, hosts  # noqa: F401
from tests.test_mirror_command import manage  # noqa: F401
from tests.views.test_settings import NEW, fields

GITHUB = "https://github.com/aquasecurity/trivy"
TEMPLATE = "https://host.example/trivy/v{version}/"
pytestmark = pytest.mark.usefixtures("data_dir", "db")


def add(now, **changes):
    wish = Settings(**{"kind": "release", "sources": [SourceSpec(GITHUB)], **changes})
    return mirroring.add_mirror("trivy", wish, by="ada", now=now)


def test_a_new_one_follows_the_latest_for_the_usual_platforms(now):
    mirror = add(now)
    assert (mirror.version, mirror.platforms) == ("latest", ["Linux-64bit", "Linux-ARM64"])
    assert mirror.sources.get().reference == GITHUB


def test_version_and_platforms_are_kept_in_their_own_spelling(now):
    mirror = add(now, version="v0.74.0", platforms=["windows-64BIT", "linux-64bit.rpm", "Linux-64bit.rpm"])
    assert (mirror.version, mirror.platforms) == ("0.74.0", ["windows-64bit", "Linux-64bit.rpm"])


@pytest.mark.parametrize(
    ("changes", "setting", "said"),
    [
        ({"version": "newest"}, "version", "no version"),
        ({"version": "0.69.4"}, "version", "GHSA-69fq-xp46-6x23"),
        ({"platforms": ["linux/amd64"]}, "platforms", "no platform of a release file"),
        ({"platforms": [f"p{n}" for n in range(41)]}, "platforms", "At most 40"),
        ({"sources": [SourceSpec("https://host/trivy/")]}, "sources", "needs {version}"),
        ({"sources": [SourceSpec("ghcr.io/aquasecurity/trivy:1")]}, "sources", "https:// and a host"),
        ({"sources": [SourceSpec("https://u:p@host/v{version}/")]}, "sources", "without user and password"),
        ({"with_referrers": True}, "with_referrers", "OCI artifacts only"),
    ],
)
def test_what_cannot_be_kept_is_refused_at_its_setting(now, changes, setting, said):
    with pytest.raises(RuleBroken, match=said) as broken:
        add(now, **changes)
    assert broken.value.setting == setting


def test_other_kinds_have_no_version(now):
    with pytest.raises(RuleBroken, match="of release files only"):
        add(now, kind="trivy-db", sources=[SourceSpec("ghcr.io/x/y:2")], version="1.2.3")


def test_a_kind_that_changes_leaves_version_and_platforms_behind(now):
    add(now, version="0.74.0")
    wish = Settings(kind="oci", sources=[SourceSpec("ghcr.io/x/y:2")])
    mirroring.edit_mirror("trivy", wish, by="ada", now=now)
    mirror = mirroring.find("trivy")
    assert (mirror.version, mirror.platforms) == ("", [])
    wish = Settings(kind="release", sources=[SourceSpec(TEMPLATE)])
    mirroring.edit_mirror("trivy", wish, by="ada", now=now)
    assert mirroring.find("trivy").version == "latest"


def test_another_version_makes_it_due_at_once_and_is_recorded(now):
    add(now)
    edited = mirroring.edit_mirror("trivy", Settings(version="0.74.0"), by="ada", now=now)
    assert edited.fetches_anew and edited.changes == ("version: latest → 0.74.0",)


# The form


def test_the_form_comes_filled_and_can_be_sent_as_it_is(as_administrator):
    page = as_administrator.get(NEW, {"kind": "release"})
    form = page.context["form"]
    assert form["sources"].value() == GITHUB and form["name"].value() == "trivy"
    assert (form["version"].value(), form["platforms"].value()) == ("latest", "Linux-64bit Linux-ARM64")
    assert "with_referrers" not in form.fields and "releases/latest" in page.text
    assert as_administrator.post(NEW, fields(form) | {"kind": "release"}).status_code == 302
    mirror = Mirror.objects.get()
    assert (mirror.label, mirror.version) == ("Trivy release", "latest")


def test_an_unchanged_form_changes_nothing_and_a_changed_version_does(as_administrator, now):
    add(now)
    address = reverse("mirrors:mirror-edit", args=["trivy"])
    sent = fields(as_administrator.get(address).context["form"])
    assert "Nothing was changed" in as_administrator.post(address, sent, follow=True).text
    as_administrator.post(address, sent | {"version": "0.74.0", "platforms": "macOS-ARM64, Linux-64bit.deb"})
    mirror = mirroring.find("trivy")
    assert (mirror.version, mirror.platforms) == ("0.74.0", ["macOS-ARM64", "Linux-64bit.deb"])
    answer = as_administrator.post(address, sent | {"version": "0.69.4", "seen": ""})
    assert answer.status_code == 422 and "published by attackers" in answer.text


def test_it_is_offered_among_the_kinds_and_is_no_default_mirror(as_administrator):
    assert "?kind=release" in as_administrator.get(NEW).text
    from mirrors.trivy.catalogue import DEFAULT_MIRRORS

    assert all(mirror.kind != "release" for mirror in DEFAULT_MIRRORS)


# The command line


def test_the_command_sets_version_and_platforms(manage):  # noqa: F811
    words = ("--kind", "release", "--source", TEMPLATE, "--version", "0.74.0", "--platform", "Linux-64bit.deb")
    assert manage("mirror", "add", "trivy", *words)[0] == 0
    status, out, _ = manage("mirror", "edit", "trivy", "--version", "latest")
    assert status == 0 and "version: 0.74.0 → latest" in out
    (listed,) = json.loads(manage("mirror", "list", "--json")[1])
    assert (listed["version"], listed["platforms"]) == ("latest", ["Linux-64bit.deb"])
    assert "latest" in manage("mirror", "list")[1]
    status, _, err = manage("mirror", "edit", "trivy", "--version", "0.69.5")
    assert status == 2 and "published by attackers" in err


# Trying out


def mirror_of(make_mirror, fake, **options):  # noqa: F811
    options = {"version": "latest", "platforms": ["Linux-64bit"], **options}
    return make_mirror("trivy", "release", sources=[fake.url("/trivy/v{version}/")], **options)


def test_a_trial_asks_for_the_version_the_checksum_file_and_one_byte(fake, cdn, make_mirror):  # noqa: F811
    files = publish(fake)
    name = "trivy_0.74.0_Linux-64bit.tar.gz"
    cdn.put_file("/cdn/" + name, files[name])
    fake.fault(f"/{name}", redirect=cdn.url("/cdn/" + name), times=None)
    (report,) = connections.try_mirror(mirror_of(make_mirror, fake), timeouts=QUICK)
    assert report.ok and report.offers == "version 0.74.0, 1 file with checksums"
    assert hosts(report) == [fake.host, cdn.host]
    assert cdn.requests[-1].headers["Range"] == "bytes=0-0"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"version": "0.75.0"}, "not found"),
        ({"platforms": ["plan9"]}, "no line for trivy_0.74.0_plan9.tar.gz"),
        ({"version": "0.69.4"}, "GHSA-69fq-xp46-6x23"),
    ],
)
def test_a_trial_that_fails_says_what_a_sync_would(fake, make_mirror, options, said):  # noqa: F811
    publish(fake)
    (report,) = connections.try_mirror(mirror_of(make_mirror, fake, **options), timeouts=QUICK)
    assert not report.ok and said in report.error


def test_the_allow_list_names_where_github_sends_release_files_from():
    hop = connections.Hop("github.com", "10.0.0.1", "", "", None, 302, "https")
    files = connections.SourceReport("trivy", GITHUB, True, (hop,), transport="release")
    vex = connections.SourceReport("vexhub", "https://github.com/aquasecurity/vexhub", True, (hop,), transport="vex")
    named = {gate.host for gate in connections.allow_list([files])}
    assert "release-assets.githubusercontent.com:443" in named and "codeload.github.com:443" not in named
    assert {gate.host for gate in connections.allow_list([vex])} == {"github.com:443", "codeload.github.com:443"}


# Bundles


@pytest.fixture
def held(store, make_mirror, now):
    mirror = make_mirror("trivy", "release", label="Trivy release", version="latest", position=900)
    return [keep_build(store, make_mirror("trivy-db"), now, padding=1000), keep_release(store, mirror, now)]


def test_everything_current_leaves_release_files_out_and_their_name_brings_them_in(held, store, now):
    assert [s.mirror.name for s in exporting.current_snapshots()] == ["trivy-db"]
    chosen = exporting.current_snapshots(["trivy-db", "trivy"])
    bundle = exporting.create_bundle(chosen, profile="full", now=now, by="otto", store=store)
    names = [member[0] for member in bundle.recipe["members"]]
    assert "files/trivy/0.74.0/trivy_0.74.0_checksums.txt" in names
    # The dashboard's button weighs what it makes.
    assert standing.overview(trusted_now()).export_bytes == held[0].size_bytes


def test_what_turned_out_malicious_is_not_exported(held, now):
    held[1].mirror.snapshots.update(version="0.69.4")
    with pytest.raises(exporting.ExportError, match=r"0\.69\.4 is not exported.*GHSA"):
        exporting.create_bundle(exporting.current_snapshots(["trivy"]), profile="full", now=now, by="otto")


def test_the_bundles_page_offers_them_unchosen(as_operator, held, monkeypatch):
    monkeypatch.setattr("mirrors.tasks.send", lambda task, *args: None)
    choices = as_operator.get(reverse("mirrors:bundles")).context["choices"]
    assert {choice.mirror.name: choice.chosen for choice in choices} == {"trivy-db": True, "trivy": False}
    as_operator.post(reverse("mirrors:bundle-create"), {"mirror": ["trivy"], "profile": "data"})
    page = as_operator.get(reverse("mirrors:bundle-detail", args=[Bundle.objects.get().pk])).text
    assert "Release files lie under <code>files/</code>" in page


def test_a_cache_archive_has_no_place_for_them(held, store, now):
    with pytest.raises(exporting.ExportError, match="has a place in a Trivy cache"):
        exporting.create_bundle([held[1]], profile="cache", now=now, by="otto", store=store)


def test_the_pages_say_the_version(as_viewer, held):
    assert "version 0.74.0" in as_viewer.get(reverse("mirrors:dashboard")).text
