"""Destinations and rules: what may be kept, what a change does, and what the record says of it."""

import pytest

from mirrors import content, destinations, key_rotation, logins, mirroring, push_rules
from mirrors.destinations import DestinationChanged, DestinationError, UnknownDestination, Wish
from mirrors.logins import Login
from mirrors.models import AuditEntry, Destination, PushRule, PushRun
from mirrors.push_rules import PushRuleError
from mirrors.pushing.targets import DEFAULT_TARGET, TargetError, checked_extra_tags, checked_target, target_of
from mirrors.rules import RuleBroken
from tests.fakes.tls import Authority
from tests.kept import keep_build, keep_vex

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def own_data(data_dir):
    return data_dir


@pytest.fixture
def add(now):
    def it(name="plant", address="harbor.example/security", **wish):
        return destinations.add_destination(name, Wish(address=address, **wish), by="ada", now=now)

    return it


@pytest.fixture
def edit(now):
    def it(name="plant", seen=None, **wish):
        return destinations.edit_destination(name, Wish(**wish), by="ada", now=now, seen=seen)

    return it


@pytest.fixture
def mirror(make_mirror, store, now):
    mirror = make_mirror("trivy-db", label="Vulnerability DB")
    keep_build(store, mirror, now)
    return mirror


def said(action):
    return AuditEntry.objects.filter(action=action).latest("pk").detail


# Addresses


@pytest.mark.parametrize(
    ("text", "registry", "prefix"),
    [
        ("harbor.example/security", "harbor.example", "security"),
        ("Harbor.Example:8443/a/b/", "harbor.example:8443", "a/b"),
        ("registry.example:5000", "registry.example:5000", ""),
        ("docker.io/acme", "docker.io", "acme"),
        ("index.docker.io/acme", "docker.io", "acme"),
        ("[::1]:5000/x", "[::1]:5000", "x"),
    ],
)
def test_an_address_is_a_registry_and_what_repositories_begin_with(add, text, registry, prefix):
    destination = add(address=text)
    assert (destination.registry, destination.prefix) == (registry, prefix)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("https://harbor.example/x", "without https://"),
        ("robot:secret@harbor.example", "without a user"),
        ("harbor.example/Security", "lower-case"),
        ("harbor.example/db:2", "the tag belongs to each mirror's rule"),
        ("harbor.example/../etc", "cannot be the beginning"),
        ("harbor example", "is not a host name"),
        ("", "is not a host name"),
        ("harbor.example:99999", "is not between 1 and 65535"),
    ],
)
def test_an_address_that_cannot_be_is_refused_with_what_would_be_right(add, text, words):
    with pytest.raises(RuleBroken, match=words) as refused:
        add(address=text)
    assert refused.value.setting == "address" and "secret" not in str(refused.value)
    assert not Destination.objects.exists()


@pytest.mark.parametrize("name", ["", "Plant", "new", "a/b", "ä", "a" * 81, "a--b"])
def test_a_name_that_cannot_be_is_refused(add, name):
    with pytest.raises(RuleBroken):
        add(name=name)


def test_a_name_is_there_once(add):
    add()
    with pytest.raises(DestinationError, match="already a destination"):
        add()


# Secrets


def test_a_secret_is_sealed_and_stands_nowhere_else(add, edit):
    destination = add(login=logins.basic("robot", "geheim-123"))
    assert "geheim" not in destination.secret_sealed
    assert content.vault().decrypt(destination.secret_sealed) == "geheim-123"
    edit(login=logins.basic("robot", "anders-456"))
    told = " ".join(AuditEntry.objects.values_list("detail", flat=True))
    assert "geheim" not in told and "anders" not in told and "password changed" in told


def test_a_rotation_of_the_key_reaches_destinations(add, now):
    add(login=logins.basic("robot", "geheim-123"))
    before = Destination.objects.get().secret_sealed
    key_rotation.rotate(by="ada", now=now)
    after = Destination.objects.get().secret_sealed
    assert after != before and content.vault().decrypt(after) == "geheim-123"


def test_a_login_never_follows_to_another_host(add, edit):
    add(login=logins.basic("robot", "geheim-123"))
    with pytest.raises(RuleBroken, match=r"is for harbor\.example"):
        edit(address="evil.example/security")
    with pytest.raises(RuleBroken, match=r"is for harbor\.example"):
        sealed = Destination.objects.get().secret_sealed
        edit(address="evil.example/security", login=Login("basic", "robot", sealed=sealed))
    assert Destination.objects.get().registry == "harbor.example"
    edit(address="other.example/security", login=logins.NO_LOGIN)
    assert Destination.objects.get().secret_sealed == ""


def test_another_path_of_the_same_host_keeps_the_login(add, edit):
    add(login=logins.basic("robot", "geheim-123"))
    edit(address="harbor.example/other")
    assert Destination.objects.get().secret_sealed


# Changing


def test_every_change_stands_in_the_record_in_words(add, edit):
    add(login=logins.NO_LOGIN)
    assert said("destination added") == "harbor.example/security"
    pem = Authority().pem
    edit(address="harbor.example/apps", insecure=True, ca_pem=pem, proxy="http://proxy.example:3128", label="Harbor")
    told = said("destination changed")
    for words in (
        "harbor.example/security → harbor.example/apps", "unverified connections allowed", "CA changed",
        "proxy: none → http://proxy.example:3128", "label: plant → Harbor",
    ):  # fmt: skip
        assert words in told


def test_nothing_changed_says_nothing(add, edit):
    add()
    assert edit(address="harbor.example/security").changes == ()
    assert not AuditEntry.objects.filter(action="destination changed").exists()


def test_the_second_of_two_editors_is_told(add, edit):
    seen = destinations.fingerprint(add())
    edit(label="Harbor of plant 2", seen=seen)
    with pytest.raises(DestinationChanged):
        edit(label="Mine", seen=seen)


def test_a_new_address_means_that_nothing_is_there_yet(add, edit, mirror, now):
    rule = push_rules.add_rule(add(), mirror, push_rules.Wish(), by="ada", now=now)
    PushRule.objects.update(pushed_snapshot=mirror.current, pushed_digest=mirror.current.manifest_digest, failures=3)
    edit(label="Harbor")
    rule.refresh_from_db()
    assert rule.pushed_digest and rule.failures == 3
    edit(proxy="http://proxy.example:3128")
    rule.refresh_from_db()
    assert rule.pushed_digest and rule.failures == 0
    edit(address="harbor.example/other")
    rule.refresh_from_db()
    assert rule.pushed_digest == "" and rule.pushed_snapshot is None


def test_removing_takes_rules_and_history_and_tells_how_many(add, mirror, now):
    destination = add()
    rule = push_rules.add_rule(destination, mirror, push_rules.Wish(), by="ada", now=now)
    PushRun.objects.create(rule=rule, mirror=mirror, destination=destination, trigger="hand", queued_at=now)
    removal = destinations.remove_destination("plant", by="ada", now=now)
    assert (removal.rules, removal.runs) == (1, 1)
    assert not PushRun.objects.exists() and not PushRule.objects.exists()
    with pytest.raises(UnknownDestination):
        destinations.remove_destination("plant", by="ada", now=now)


def test_a_mirror_can_be_removed_with_where_it_goes(add, mirror, now):
    rule = push_rules.add_rule(add(), mirror, push_rules.Wish(), by="ada", now=now)
    PushRun.objects.create(
        rule=rule, mirror=mirror, destination=rule.destination, trigger="hand", queued_at=now, snapshot=mirror.current
    )
    assert mirroring.what_removal_means(mirror).destinations == ("plant",)
    mirroring.remove_mirror("trivy-db", by="ada", now=now)
    assert "no longer pushed to plant" in said("mirror removed")
    assert not PushRule.objects.exists() and not PushRun.objects.exists()


# Names there


@pytest.mark.parametrize(
    ("target", "tags", "repository", "all_tags"),
    [
        (DEFAULT_TARGET, "", "security/aquasecurity/trivy-db", ("2",)),
        ("trivy-db-mirror:{tag}", "latest", "security/trivy-db-mirror", ("2", "latest")),
        ("{name}:{tag}-{date}", "{tag}", "security/trivy-db", ("2-20261120T1200Z", "2")),
        ("team/{name}/x:fixed", "fixed", "security/team/trivy-db/x", ("fixed",)),
    ],
)
def test_templates_are_filled(add, mirror, target, tags, repository, all_tags):
    found = target_of(add(), checked_target(target), checked_extra_tags(tags), mirror, mirror.current)
    assert (found.repository, found.tags) == (repository, all_tags)


def test_a_version_is_made_fit_for_a_tag_and_left_out_where_there_is_none(add, mirror):
    assert target_of(add(), "db:{tag}", "v{version}", mirror, mirror.current).left_out == ("v{version}",)
    mirror.current.version = "1.2+build/7"
    assert target_of(Destination.objects.get(), "db:{version}", "", mirror, mirror.current).tags == ("1.2-build-7",)
    mirror.current.version = ""
    with pytest.raises(TargetError, match="has none"):
        target_of(Destination.objects.get(), "db:{version}", "", mirror, mirror.current)
    with pytest.raises(TargetError, match="holds nothing yet"):
        target_of(Destination.objects.get(), "db:{date}", "", mirror, None)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("db", "has no tag"),
        ("db:", "has no tag"),
        (":2", "has no tag"),
        ("DB:2", "lower-case"),
        ("../db:2", "cannot be a repository"),
        ("db:{nope}", "no placeholder {nope}"),
        ("db:a b", "cannot be a tag"),
        ("db:{repository}", "cannot be a tag"),
        ("db@sha256:1", "no path with a tag"),
        ("a" * 301, "longer than 300"),
    ],
)
def test_a_template_that_gives_no_name_is_refused(target, words):
    with pytest.raises(RuleBroken, match=words):
        checked_target(target)


@pytest.mark.parametrize("tags", ["a/b", "{repository}", "ä", "x" * 129, " ".join(f"t{n}" for n in range(21))])
def test_further_tags_that_cannot_be_are_refused(tags):
    with pytest.raises(RuleBroken):
        checked_extra_tags(tags)


# Rules


def test_a_mirror_goes_to_a_destination_once(add, mirror, now):
    destination = add()
    push_rules.add_rule(destination, mirror, push_rules.Wish(), by="ada", now=now)
    with pytest.raises(PushRuleError, match="already"):
        push_rules.add_rule(destination, mirror, push_rules.Wish(target="x:1"), by="ada", now=now)
    assert said("push rule added") == "{repository}:{tag}, after each sync"


def test_two_mirrors_never_share_a_tag(add, mirror, make_mirror, store, now):
    destination = add()
    push_rules.add_rule(destination, mirror, push_rules.Wish("db:{tag}", "latest"), by="ada", now=now)
    other = make_mirror("second", "trivy-db", served_repository="mirrors/second", served_tag="3")
    keep_build(store, other, now)
    with pytest.raises(RuleBroken, match="Vulnerability DB goes to security/db:latest there already") as refused:
        push_rules.add_rule(destination, other, push_rules.Wish("db:{tag}", "latest"), by="ada", now=now)
    assert refused.value.setting == "extra_tags"
    rule = push_rules.add_rule(destination, other, push_rules.Wish("db:{tag}"), by="ada", now=now)
    with pytest.raises(RuleBroken):
        push_rules.edit_rule(rule, push_rules.Wish(target="db:2"), by="ada", now=now)


def test_what_is_no_oci_artifact_is_refused_with_where_it_is_served(add, make_mirror, store, now):
    vex = make_mirror("vexhub", "vex", label="VEX Hub")
    keep_vex(store, vex, now)
    with pytest.raises(PushRuleError, match="VEX repository: Trivy fetches those over plain HTTP"):
        push_rules.add_rule(add(), vex, push_rules.Wish(), by="ada", now=now)
    release = make_mirror("trivy", "release", label="Trivy")
    with pytest.raises(PushRuleError, match="served here under /files/"):
        push_rules.add_rule(Destination.objects.get(), release, push_rules.Wish(), by="ada", now=now)


def test_another_name_has_still_to_be_pushed_and_by_hand_changes_nothing_there(add, mirror, now):
    rule = push_rules.add_rule(add(), mirror, push_rules.Wish(), by="ada", now=now)
    PushRule.objects.update(pushed_snapshot=mirror.current, pushed_digest="sha256:" + "0" * 64)
    rule.refresh_from_db()
    push_rules.edit_rule(rule, push_rules.Wish(automatic=False), by="ada", now=now)
    assert rule.pushed_digest and said("push rule changed") == "by hand only"
    push_rules.edit_rule(rule, push_rules.Wish(target="other:{tag}"), by="ada", now=now)
    assert rule.pushed_digest == ""


def test_a_rule_that_goes_stops_its_push(add, mirror, now):
    rule = push_rules.add_rule(add(), mirror, push_rules.Wish(), by="ada", now=now)
    run = PushRun.objects.create(rule=rule, mirror=mirror, destination=rule.destination, trigger="hand", queued_at=now)
    push_rules.remove_rule(rule, by="ada", now=now)
    run.refresh_from_db()
    assert (run.state, run.rule) == ("cancelled", None) and "removed this rule" in run.error
