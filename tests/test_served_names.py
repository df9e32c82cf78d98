"""The repository and tag a mirror is served under: given, followed, changed, and never two mirrors' at once."""

import importlib

import pytest
from django.apps import apps
from django.db import IntegrityError, transaction

from mirrors import served_names
from mirrors.first_start import first_start
from mirrors.mirror_rules import RuleBroken, SourceSpec
from mirrors.mirroring import ChangedMeanwhile, Settings, add_mirror, edit_mirror, fingerprint
from mirrors.models import AuditEntry, Mirror
from tests.test_mirror_command import manage  # noqa: F401


@pytest.fixture(autouse=True)
def own_data(data_dir, db, settings):
    settings.AIRGAP_ADMIN_PASSWORD = "given from outside"


def as_served() -> dict[str, str]:
    rows = Mirror.objects.values_list("name", "served_repository", "served_tag")
    return {name: f"{repository}:{tag}" for name, repository, tag in rows}


def sources(*references):
    return [SourceSpec(reference) for reference in references]


def add(name, now, *references, kind="trivy-db", **wish) -> Mirror:
    references = references or ("one.example/trivy-db:2",)
    return add_mirror(name, Settings(kind=kind, sources=sources(*references), **wish), by="ada", now=now)


def edit(name, now, **wish):
    return edit_mirror(name, Settings(**wish), by="ada", now=now)


# Given


def test_the_default_mirrors_have_upstreams_names(now):
    first_start(now=now)
    assert as_served() == {
        "trivy-db": "aquasecurity/trivy-db:2",
        "trivy-java-db": "aquasecurity/trivy-java-db:1",
        "trivy-checks": "aquasecurity/trivy-checks:2",
        "trivy-checks-1": "aquasecurity/trivy-checks:1",
        "vexhub": ":",
    }
    assert set(Mirror.objects.values_list("served_tag_follows", flat=True)) == {True}


def test_so_have_those_of_the_demo(now):
    first_start(now=now, demo_upstream="127.0.0.1:4711")
    assert as_served()["trivy-checks-1"] == "aquasecurity/trivy-checks:1"


def test_a_mirror_that_is_added_is_served_under_its_own_name(now):
    first_start(now=now)
    add("lab", now)
    add("image", now, "one.example/team/image:1.2", kind="oci")
    add("by-digest", now, "one.example/team/image@sha256:" + "a" * 64, kind="oci")
    add("db-by-digest", now, "one.example/db@sha256:" + "a" * 64)
    add("statements", now, "https://vex.example", kind="vex")
    served = as_served()
    assert served["lab"] == "mirrors/lab:2"
    assert served["image"] == "mirrors/image:1.2"
    assert served["by-digest"] == "mirrors/by-digest:latest"
    assert served["db-by-digest"] == "mirrors/db-by-digest:2"
    assert served["statements"] == ":"


def test_a_name_can_be_given_with_or_without_a_tag(now):
    assert add("one", now, served_as="team/db").served_tag == "2"
    two = add("two", now, served_as=" team/db:stable ")
    assert (two.served_repository, two.served_tag, two.served_tag_follows) == ("team/db", "stable", False)
    assert add("three", now, served_as="").served_repository == "mirrors/three"


def test_of_upstreams_two_names_the_usual_one_is_kept(now):
    assert add("one", now, served_as="aquasec/trivy-db").served_repository == "aquasecurity/trivy-db"
    with pytest.raises(served_names.Taken) as refused:
        add("two", now, served_as="aquasec/trivy-db:2")
    assert str(refused.value) == (
        "The mirror one is served as aquasecurity/trivy-db:2 and aquasec/trivy-db:2 already. "
        "Choose another repository or tag."
    )
    assert not Mirror.objects.filter(name="two").exists()


@pytest.mark.parametrize(
    "text",
    [
        "UPPER/case", "a//b", "/", ":2", "a b", "a/../b", "a/-b", "..", "a:", "a:b:c", "a:.x", "a:" + "t" * 129,
        "a" * 201, "host.example:5000/a", "https://host/a", "a@sha256:" + "a" * 64, "ä", "a\0b", "a\nb", "x/manifests",
        "blobs/x", "x/tags/list", "referrers",
    ],
)  # fmt: skip
def test_what_cannot_be_a_name_is_refused_with_what_would_be(now, text):
    with pytest.raises(RuleBroken) as refused:
        add("one", now, served_as=text)
    assert refused.value.setting == "served_as"
    assert not Mirror.objects.exists()


def test_a_vex_repository_is_given_no_name(now):
    with pytest.raises(RuleBroken, match="is not served as a repository"):
        add("statements", now, "https://vex.example", kind="vex", served_as="team/vex")


# Changed


def test_whoever_asks_by_the_old_name_is_thought_of(now):
    add("lab", now)
    assert edit("lab", now, label="Lab").gone == ""
    told = edit("lab", now, sources=sources("one.example/trivy-db:nightly")).gone
    assert "Scanners that ask for mirrors/lab:2 do not" in told and "Tell them mirrors/lab:nightly;" in told


def test_the_tag_follows_that_of_the_first_source(now):
    add("lab", now)
    edited = edit("lab", now, sources=sources("one.example/trivy-db:nightly", "two.example/trivy-db:2"))
    assert as_served() == {"lab": "mirrors/lab:nightly"}
    assert "served tag: 2 → nightly" in edited.changes


def test_a_tag_that_was_given_stays(now):
    add("lab", now, served_as="mirrors/lab:2")
    edit("lab", now, sources=sources("one.example/trivy-db:nightly"))
    assert as_served() == {"lab": "mirrors/lab:2"}
    edit("lab", now, served_as="mirrors/lab")
    assert as_served() == {"lab": "mirrors/lab:nightly"}


def test_another_name_fetches_nothing_anew_and_stands_in_the_record(now):
    add("lab", now)
    edited = edit("lab", now, served_as="team/db:3")
    assert not edited.fetches_anew
    assert edited.changes == (
        "served as: mirrors/lab → team/db",
        "served tag: 2 → 3",
        "served tag is the source's: yes → no",
    )
    assert "served as: mirrors/lab → team/db" in AuditEntry.objects.latest("pk").detail
    edit("lab", now, served_as="")
    assert as_served() == {"lab": "mirrors/lab:2"}


def test_mirrors_may_share_a_repository_but_no_tag(now):
    first_start(now=now)
    with pytest.raises(served_names.Taken, match="The mirror trivy-checks is served as aquasecurity/trivy-checks:2"):
        edit("trivy-checks-1", now, sources=sources("one.example/trivy-checks:2"))
    with pytest.raises(served_names.Taken, match="The mirror trivy-db is served as"):
        edit("trivy-java-db", now, served_as="aquasec/trivy-db:2")
    edit("trivy-checks-1", now, sources=sources("one.example/trivy-checks:3"))
    assert as_served()["trivy-checks-1"] == "aquasecurity/trivy-checks:3"


def test_the_database_keeps_two_from_having_one_name_whoever_writes(now):
    add("one", now)
    two = add("two", now)
    two.served_repository = "mirrors/one"
    with pytest.raises(IntegrityError), transaction.atomic():
        two.save()


def test_a_kind_that_is_not_served_has_no_name_and_gets_one_with_another_kind(now):
    add("lab", now, "https://vex.example", kind="vex")
    edit("lab", now, kind="trivy-java-db", sources=sources("one.example/java"))
    assert as_served() == {"lab": "mirrors/lab:1"}
    edit("lab", now, kind="vex", sources=sources("https://vex.example"))
    assert as_served() == {"lab": ":"}


def test_who_changed_the_name_meanwhile_is_noticed(now):
    seen = fingerprint(add("lab", now))
    edit("lab", now, served_as="team/db")
    with pytest.raises(ChangedMeanwhile):
        edit_mirror("lab", Settings(label="x"), by="ben", now=now, seen=seen)


# By command


def test_it_is_a_setting_of_the_command(manage, now):  # noqa: F811
    command = ("mirror", "add", "lab", "--kind", "trivy-db", "--source", "one.example/db:2")
    assert manage(*command, "--served-as", "team/db:stable")[0] == 0
    status, out, _ = manage("mirror", "list")
    assert status == 0 and "served as team/db:stable" in out
    assert manage("mirror", "edit", "lab", "--served-as", "")[0] == 0
    _, out, _ = manage("mirror", "list", "--json")
    assert '"served_repository": "mirrors/lab"' in out and '"served_tag": "2"' in out


def test_a_name_that_is_taken_is_refused_and_one_that_cannot_be_is_wrong_usage(manage, now):  # noqa: F811
    add("lab", now)
    command = ("mirror", "add", "other", "--kind", "trivy-db", "--source", "one.example/db:2", "--served-as")
    status, _, err = manage(*command, "mirrors/lab:2")
    assert status == 1 and "The mirror lab is served as mirrors/lab:2 already." in err
    status, _, err = manage(*command, "Team/DB")
    assert status == 2 and "lower-case" in err


# Instances that were there before


def test_mirrors_that_were_there_before_get_their_names(make_mirror):
    make_mirror("trivy-db", sources=["127.0.0.1:5000/aquasec/trivy-db:2"])
    make_mirror("trivy-checks", sources=["ghcr.io/aquasecurity/trivy-checks:1@sha256:" + "a" * 64])
    make_mirror("trivy-checks-1", "trivy-checks", sources=["ghcr.io/aquasecurity/trivy-checks:1"])
    make_mirror("java", "trivy-java-db", sources=["registry.example/java@sha256:" + "a" * 64])
    make_mirror("image", "oci", sources=["registry.example:5000/team/image:1.2"])
    make_mirror("bare", "oci")
    make_mirror("vexhub", "vex", sources=["https://github.com/aquasecurity/vexhub"])
    Mirror.objects.update(served_repository="", served_tag="")

    importlib.import_module("mirrors.migrations.0007_name_served_mirrors").name_them(apps, None)

    assert as_served() == {
        "trivy-db": "aquasecurity/trivy-db:2",
        "trivy-checks": "aquasecurity/trivy-checks:1",
        # Somebody had given it the other one's tag.
        "trivy-checks-1": "mirrors/trivy-checks-1:1",
        "java": "mirrors/java:1",
        "image": "mirrors/image:1.2",
        "bare": "mirrors/bare:latest",
        "vexhub": ":",
    }
