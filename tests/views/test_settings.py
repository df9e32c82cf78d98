"""The settings pages of mirrors."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from mirrors import connections, content, mirroring, runs
from mirrors.mirror_rules import SourceSpec
from mirrors.models import AuditEntry, Bundle, BundleSnapshot, Mirror, Snapshot, SyncRun
from mirrors.registry.transport import Timeouts
from tests.fakes.registry import FakeRegistry
from tests.fakes.tls import Authority
from tests.test_connections import push_db

DIGEST = "sha256:" + "ab" * 32
LIST, NEW, EDIT, TEST, DELETE, ENABLE = (
    "/settings/",
    "/settings/mirrors/new",
    "/settings/mirrors/db/",
    "/settings/mirrors/db/test",
    "/settings/mirrors/db/delete",
    "/settings/mirrors/db/enable",
)


@pytest.fixture(autouse=True)
def own_data(data_dir, db):
    return data_dir


@pytest.fixture
def mirror(now) -> Mirror:
    wish = mirroring.Settings(
        kind="trivy-db",
        label="Vulnerability DB",
        sources=[SourceSpec("one.example/db:2"), SourceSpec("two.example/db:2")],
    )
    return mirroring.add_mirror("db", wish, by="setup", now=now)


def fields(form) -> dict:
    """What a browser would send for an unchanged form."""
    sent = {}
    for bound in form:
        value = bound.value()
        if bound.widget_type == "checkbox":
            if value:
                sent[bound.name] = "on"
        else:
            sent[bound.name] = "" if value is None else value
    return sent


def save(client, **changes):
    sent = fields(client.get(EDIT).context["form"]) | changes
    return client.post(EDIT, {name: value for name, value in sent.items() if value is not None})


def sources(mirror):
    return list(mirror.sources.order_by("position"))


# Who may


@pytest.mark.parametrize("path", [LIST, NEW, EDIT, DELETE])
def test_pages_are_for_administrators(client, mirror, path, viewer, operator, administrator):
    assert client.get(path).status_code == 302
    for person, status in ((viewer, 403), (operator, 403), (administrator, 200)):
        client.force_login(person, backend="django.contrib.auth.backends.ModelBackend")
        assert client.get(path).status_code == status


@pytest.mark.parametrize("path", [NEW, EDIT, DELETE, ENABLE, TEST])
def test_changes_are_for_administrators(as_operator, mirror, path):
    assert as_operator.post(path).status_code == 403
    assert Mirror.objects.get().enabled


@pytest.mark.parametrize("path", [ENABLE, TEST])
def test_changes_are_not_made_by_following_a_link(as_administrator, mirror, path):
    assert as_administrator.get(path).status_code == 405


def test_an_unknown_mirror_is_404(as_administrator):
    for path in (EDIT, DELETE):
        assert as_administrator.get(path).status_code == 404
    for path in (ENABLE, TEST):
        assert as_administrator.post(path).status_code == 404


# The list


def test_the_list_names_what_is_mirrored_from_where_and_how_often(as_administrator, mirror):
    mirroring.set_enabled("db", False, by="", now=mirror.created_at)
    text = as_administrator.get(LIST).text
    assert "One mirror, one disabled." in text
    for said in ("Vulnerability DB", "one.example/db:2", "and 1 more", "every hour", "disabled"):
        assert said in text


def test_an_empty_list_offers_the_first_step(as_administrator):
    text = as_administrator.get(LIST).text
    assert "No mirrors" in text and NEW in text


def test_the_isolated_side_offers_no_new_mirror(as_administrator, settings):
    settings.AIRGAP_SIDE = "isolated"
    assert NEW not in as_administrator.get(LIST).text
    assert "its mirrors come with the bundles" in as_administrator.get(NEW, follow=True).text
    sent = {"kind": "trivy-db", "name": "x", "sources": "a.example/b", "login": "keep", "after": "."}
    answer = as_administrator.post(NEW, sent)
    assert answer.status_code == 422 and "isolated instance" in answer.text


def test_the_list_asks_as_often_for_twenty_mirrors_as_for_one(as_administrator, mirror, now):
    def count():
        with CaptureQueriesContext(connection) as queries:
            as_administrator.get(LIST)
        return len(queries)

    one = count()
    for number in range(19):
        wish = mirroring.Settings(kind="oci", sources=[SourceSpec("a.example/b:1"), SourceSpec("c.example/d:1")])
        mirroring.add_mirror(f"m{number}", wish, by="", now=now)
    assert count() == one


# Adding


def test_the_kind_is_chosen_first_and_fills_the_form(as_administrator):
    text = as_administrator.get(NEW).text
    assert "?kind=trivy-java-db" in text
    form = as_administrator.get(NEW, {"kind": "trivy-java-db"}).context["form"]
    assert form["sources"].value().splitlines()[0] == "mirror.gcr.io/aquasec/trivy-java-db:1"
    assert form["label"].value() == "Java DB"
    assert form.fields["stale"].widget.attrs["placeholder"] == "3d"


def test_an_unknown_kind_shows_the_kinds(as_administrator):
    assert "What is to be mirrored" in as_administrator.get(NEW, {"kind": "npm"}).text
    assert as_administrator.post(NEW, {"kind": "npm"}).status_code == 422


def test_it_adds_a_mirror_and_goes_to_its_page(as_administrator):
    form = as_administrator.get(NEW, {"kind": "trivy-db"}).context["form"]
    sent = fields(form) | {"kind": "trivy-db", "name": "test-db", "schedule": "90m", "due": "10h"}
    answer = as_administrator.post(NEW, sent)
    assert answer.status_code == 302 and answer["Location"] == "/settings/mirrors/test-db/"
    mirror = Mirror.objects.get()
    assert mirror.schedule == "90m" and mirror.due_seconds == 36_000 and mirror.sources.count() == 4
    entry = AuditEntry.objects.get(action="mirror added")
    assert (entry.actor, entry.address) == ("ada", "127.0.0.1")


@pytest.mark.parametrize(
    ("changes", "field", "said"),
    [
        ({"name": "Test DB"}, "name", "cannot be a mirror&#x27;s name"),
        ({"name": "db"}, "name", "already a mirror called db"),
        ({"name": ""}, "name", "required"),
        ({"sources": "https://a.example/b"}, "sources", "scheme"),
        ({"sources": ""}, "sources", "required"),
        ({"schedule": "often"}, "schedule", "is not a schedule"),
        ({"due": "2d"}, "due", "must grow"),
        ({"stale": "soon"}, "stale", "is not a duration"),
        ({"keep": "0"}, "keep", "greater than or equal"),
        ({"proxy": "squid"}, "proxy", "http://host:port"),
        ({"ca_pem": "x"}, "ca_pem", "no readable certificate"),
        ({"served_as": "Team/DB"}, "served_as", "lower-case letters"),
        ({"served_as": "mirrors/db"}, "served_as", "The mirror db is served as mirrors/db:2 already."),
        ({"hold_for": "nowhere.example"}, "hold_for", "None of the sources is at"),
        ({"login": "basic", "username": "u", "hold_for": "ghcr.io"}, "password", "Give the password"),
    ],
)
def test_what_cannot_be_kept_is_422_at_its_field(as_administrator, mirror, changes, field, said):
    form = as_administrator.get(NEW, {"kind": "trivy-db"}).context["form"]
    answer = as_administrator.post(NEW, fields(form) | {"kind": "trivy-db", "name": "other"} | changes)
    assert answer.status_code == 422
    assert field in answer.context["form"].errors, answer.context["form"].errors
    assert said in answer.text
    assert Mirror.objects.count() == 1


# Changing


def test_an_unchanged_form_changes_nothing(as_administrator, mirror):
    lines = AuditEntry.objects.count()
    assert save(as_administrator).status_code == 302
    assert AuditEntry.objects.count() == lines
    assert "Nothing was changed" in as_administrator.get(EDIT).text


def test_new_sources_stop_the_run_and_say_so(as_administrator, mirror, now):
    run, _ = runs.request_sync(mirror, trigger="hand", by="otto", now=now)
    answer = save(as_administrator, sources="three.example/db\r\none.example/db:2\r\n")
    assert answer.status_code == 302
    run.refresh_from_db()
    assert run.state == SyncRun.State.CANCELLED
    assert [source.reference for source in sources(mirror)] == ["three.example/db:2", "one.example/db:2"]
    assert "The run under way was stopped" in as_administrator.get(EDIT).text


def test_of_two_open_forms_the_second_is_told(as_administrator, mirror):
    sent = fields(as_administrator.get(EDIT).context["form"])
    save(as_administrator, schedule="2h")
    answer = as_administrator.post(EDIT, sent | {"schedule": "3h"})
    assert answer.status_code == 422 and "Somebody else changed db" in answer.text
    assert Mirror.objects.get().schedule == "2h"


def test_a_login_is_set_for_one_host_kept_and_cleared_and_never_shown(as_administrator, mirror):
    login = {"login": "basic", "username": "robot", "password": "geheim-123"}
    answer = save(as_administrator, **login)
    assert answer.status_code == 422 and "it would go to one.example and two.example" in answer.text
    assert "geheim" not in answer.text
    assert save(as_administrator, hold_for="one.example", **login).status_code == 302
    one, two = sources(mirror)
    assert (one.username, two.username) == ("robot", "")
    assert content.vault().decrypt(one.secret_sealed) == "geheim-123"

    page = as_administrator.get(EDIT)
    assert page.context["form"]["hold_for"].value() == "one.example"
    assert "geheim" not in page.text and one.secret_sealed not in page.text and "as robot" in page.text
    assert save(as_administrator, schedule="2h").status_code == 302
    assert sources(mirror)[0].secret_sealed == one.secret_sealed
    # A further repository there is logged in at as well; one elsewhere is not.
    save(as_administrator, sources="one.example/db:2\none.example/other:2\nthree.example/db:2")
    assert [source.username for source in sources(mirror)] == ["robot", "robot", ""]
    # Another user needs a password of their own; the same one may keep theirs.
    assert save(as_administrator, login="basic", username="eve", password="").status_code == 422
    assert save(as_administrator, login="basic", username="robot", password="").status_code == 302
    assert content.vault().decrypt(sources(mirror)[1].secret_sealed) == "geheim-123"
    save(as_administrator, login="none")
    assert [source.secret_sealed for source in sources(mirror)] == ["", "", ""]
    assert "geheim" not in " ".join(AuditEntry.objects.values_list("detail", flat=True))


def test_a_token_and_a_docker_config_are_kept_told_by_kind_and_never_shown(as_administrator, mirror):
    answer = save(as_administrator, login="token", token="zwei geheime", hold_for="one.example")
    assert answer.status_code == 422 and "geheime" not in answer.text and "one word" in answer.text
    assert save(as_administrator, login="token", token="geheim-123", hold_for="one.example").status_code == 302
    one = sources(mirror)[0]
    assert (one.login, content.vault().decrypt(one.secret_sealed)) == ("token", "geheim-123")
    page = as_administrator.get(EDIT).text
    assert "with a token" in page and "geheim" not in page and one.secret_sealed not in page
    assert save(as_administrator, login="token").status_code == 302
    assert sources(mirror)[0].secret_sealed == one.secret_sealed

    config = '{"auths": {"one.example": {"username": "u", "password": "geheim-4"}}, "other": "geheim-5"}'
    answer = save(as_administrator, login="docker", docker_config="geheim" + config)
    assert answer.status_code == 422 and "geheim" not in answer.text and "not JSON" in answer.text
    assert save(as_administrator, login="docker", docker_config=config).status_code == 302
    one, two = sources(mirror)
    assert (one.login, two.login) == ("docker", "none")
    assert "geheim-5" not in content.vault().decrypt(one.secret_sealed)
    assert "with a docker config file" in as_administrator.get(EDIT).text
    told = " ".join(AuditEntry.objects.values_list("detail", flat=True))
    assert "token set" in told and "docker config file set" in told and "geheim" not in told


def test_a_certificate_for_one_host_leaves_the_others_alone(as_administrator, mirror):
    pem = Authority("Plant CA").pem
    save(as_administrator, hold_for="two.example", ca_pem=pem.replace("\n", "\r\n"), insecure="on")
    one, two = sources(mirror)
    assert (one.ca_pem, one.insecure) == ("", False)
    assert (two.ca_pem, two.insecure) == (pem, True)
    assert save(as_administrator).status_code == 302
    assert "Nothing was changed" in as_administrator.get(EDIT).text


def test_what_holds_for_every_source_is_shown_so(as_administrator, now):
    specs = [SourceSpec("one.example/db:2", insecure=True), SourceSpec("two.example/db:2", insecure=True)]
    mirroring.add_mirror("db", mirroring.Settings(kind="trivy-db", sources=specs), by="", now=now)
    form = as_administrator.get(EDIT).context["form"]
    assert form["hold_for"].value() == "" and form["insecure"].value()
    save(as_administrator, insecure=None)
    assert not Mirror.objects.get().sources.filter(insecure=True).exists()


def test_an_images_platforms_and_referrers_are_chosen(as_administrator, now):
    wish = mirroring.Settings(kind="oci", sources=[SourceSpec("a.example/b:1")])
    mirroring.add_mirror("db", wish, by="", now=now)
    assert save(as_administrator, platforms="linux/amd64, linux/arm64", with_referrers="on").status_code == 302
    mirror = Mirror.objects.get()
    assert mirror.platforms == ["linux/amd64", "linux/arm64"] and mirror.with_referrers
    assert save(as_administrator, platforms="windows 95").status_code == 422


def test_a_mirror_is_given_a_name_to_be_served_under(as_administrator, mirror):
    page = as_administrator.get(EDIT)
    assert page.context["form"]["served_as"].value() == "mirrors/db"
    assert "Empty: mirrors/db; without a tag, that of the first source." in page.text
    assert "scanners that ask by the old name get 404" in page.text
    save(as_administrator, served_as="aquasec/trivy-db:stable")
    said = as_administrator.get(LIST).text
    assert "Scanners that ask for mirrors/db:2 do not find this mirror there any more." in said
    assert "Tell them aquasecurity/trivy-db:stable" in said
    assert as_administrator.get(EDIT).context["form"]["served_as"].value() == "aquasecurity/trivy-db:stable"
    assert "served as aquasecurity/trivy-db:stable" in as_administrator.get(LIST).text
    save(as_administrator, served_as="")
    mirror.refresh_from_db()
    assert (mirror.served_repository, mirror.served_tag) == ("mirrors/db", "2")


def test_a_vex_repository_is_asked_for_no_name(as_administrator):
    assert "served_as" not in as_administrator.get(NEW, {"kind": "vex"}).context["form"].fields


def test_a_mirror_moves_in_the_list(as_administrator, mirror, now):
    mirroring.add_mirror("x", mirroring.Settings(kind="oci", sources=[SourceSpec("a.example/b:1")]), by="", now=now)
    save(as_administrator, after="x")
    assert list(Mirror.objects.for_pages().values_list("name", flat=True)) == ["x", "db"]


def test_a_mirror_is_disabled_and_enabled(as_administrator, mirror):
    assert as_administrator.post(ENABLE, {"enabled": "0"})["Location"] == EDIT
    assert not Mirror.objects.get().enabled
    page = as_administrator.get(EDIT).text
    assert "Vulnerability DB is disabled." in page
    as_administrator.post(ENABLE, {"enabled": "1"})
    assert Mirror.objects.get().enabled


# Removing


@pytest.fixture
def bundled(mirror, now):
    snapshot = Snapshot.objects.create(
        mirror=mirror, identity=DIGEST, manifest_digest=DIGEST, source_reference="x", size_bytes=1024,
        fetched_at=now, confirmed_at=now,
    )  # fmt: skip
    bundle = Bundle.objects.create(
        id="b1", filename="airgap-b1.tar", state="ready", created_at=now, expires_at=now + timedelta(days=30)
    )
    BundleSnapshot.objects.create(bundle=bundle, snapshot=snapshot, mirror_name="db", label="db", digest=DIGEST)
    return bundle


def test_removing_asks_first_and_says_what_goes(as_administrator, mirror, bundled):
    text = as_administrator.get(DELETE).text
    for said in ("1 snapshot", "1.0 KiB", "0 runs", "airgap-b1.tar", "Copies that were carried away stay good"):
        assert said in text
    assert Mirror.objects.exists()


def test_a_bundle_is_lost_only_on_purpose(as_administrator, mirror, bundled):
    answer = as_administrator.post(DELETE)
    assert answer.status_code == 422 and "1 bundle would be lost" in answer.text
    answer = as_administrator.post(DELETE, {"expire_bundles": "1"})
    assert answer.status_code == 302 and not Mirror.objects.exists()
    bundled.refresh_from_db()
    assert bundled.expired_at is not None


def test_a_mirror_in_no_bundle_goes_at_once(as_administrator, mirror):
    assert as_administrator.post(DELETE)["Location"] == LIST
    assert "Vulnerability DB was removed" in as_administrator.get(LIST).text


# Test connection


@pytest.fixture
def fake(monkeypatch):
    quick = Timeouts(connect=2, read=2, attempts=1, source_seconds=5)
    original = connections.try_mirror
    monkeypatch.setattr(connections, "try_mirror", lambda mirror: original(mirror, timeouts=quick))
    with FakeRegistry() as registry:
        yield registry


def test_a_connection_test_names_the_blocked_blob_host(as_administrator, mirror, fake, now):
    specs = [SourceSpec(push_db(fake), insecure=True)]
    mirroring.edit_mirror("db", mirroring.Settings(sources=specs), by="", now=now)
    text = as_administrator.post(TEST).text
    assert "The source answers, down to its data." in text and "<html" in text
    with FakeRegistry() as cdn:
        fake.blob_host = cdn
    answer = as_administrator.post(TEST, headers={"HX-Request": "true"})
    assert answer.status_code == 200 and "<html" not in answer.text
    assert "The source cannot be fetched from." in answer.text
    assert f"ask for {cdn.host} in the firewall, too" in answer.text
    assert not SyncRun.objects.exists()


def test_the_isolated_side_tests_nothing(as_administrator, mirror, fake, settings):
    settings.AIRGAP_SIDE = "isolated"
    assert "isolated instance" in as_administrator.post(TEST).text
    assert "Test connection" not in as_administrator.get(EDIT).text
    assert fake.requests == []
