"""The pages of destinations: the list, one of them, its form, its test, and what goes there."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from mirrors import content, destinations, logins, push_rules
from mirrors.models import Destination, PushRule, PushRun
from mirrors.pushing import trying
from mirrors.registry.transport import Timeouts
from tests.fakes.push_registry import PushRegistry
from tests.fakes.tls import Authority
from tests.kept import keep_build, keep_vex

BUILT = datetime(2026, 11, 20, 6, 31, tzinfo=UTC)
LIST, NEW = "/settings/destinations/", "/settings/destinations/new"
PAGE = "/settings/destinations/plant/"
EDIT, DELETE, TEST, ENABLE = PAGE + "edit", PAGE + "delete", PAGE + "test", PAGE + "enable"
ADD_RULE = PAGE + "rules/new"
HTMX = {"HX-Request": "true"}


@pytest.fixture(autouse=True)
def own_data(data_dir, db, monkeypatch):
    monkeypatch.setattr("mirrors.tasks.send_push", lambda run: None)
    return data_dir


@pytest.fixture
def destination():
    wish = destinations.Wish(
        address="harbor.example/security", label="Harbor of plant 2", login=logins.basic("robot", "geheim-123")
    )
    return destinations.add_destination("plant", wish, by="ada", now=timezone.now())


@pytest.fixture
def mirror(make_mirror, store):
    mirror = make_mirror("trivy-db", label="Vulnerability DB")
    keep_build(store, mirror, BUILT)
    return mirror


@pytest.fixture
def rule(mirror, destination):
    return push_rules.add_rule(destination, mirror, push_rules.Wish("db:{tag}"), by="ada", now=timezone.now())


def text(response) -> str:
    return " ".join(response.content.decode().split())


def fields(form) -> dict:
    sent = {}
    for bound in form:
        value = bound.value()
        if bound.widget_type == "checkbox":
            if value:
                sent[bound.name] = "on"
        else:
            sent[bound.name] = "" if value is None else value
    return sent


def save(client, url, **changes):
    sent = fields(client.get(url).context["form"]) | changes
    return client.post(url, {name: value for name, value in sent.items() if value is not None})


def new(client, **changes):
    sent = {"name": "plant", "address": "harbor.example/security", "login": "keep", "label": ""} | changes
    return client.post(NEW, sent)


# Who may


@pytest.mark.parametrize("path", [LIST, NEW, PAGE, EDIT, DELETE, ADD_RULE])
def test_pages_are_for_administrators(client, destination, mirror, path, viewer, operator, administrator):
    assert client.get(path).status_code == 302
    for person, status in ((viewer, 403), (operator, 403), (administrator, 200)):
        client.force_login(person, backend="django.contrib.auth.backends.ModelBackend")
        assert client.get(path).status_code == status


@pytest.mark.parametrize("path", [NEW, EDIT, DELETE, TEST, ENABLE, ADD_RULE])
def test_changes_are_for_administrators(as_operator, destination, path):
    assert as_operator.post(path).status_code == 403
    assert Destination.objects.get().enabled


@pytest.mark.parametrize("path", [TEST, ENABLE])
def test_changes_are_not_made_by_following_a_link(as_administrator, destination, path):
    assert as_administrator.get(path).status_code == 405


def test_an_unknown_destination_or_rule_is_404(as_administrator):
    for path in (PAGE, EDIT, DELETE, ADD_RULE, "/settings/rules/9/", "/settings/rules/9/delete"):
        assert as_administrator.get(path).status_code == 404
    for path in (TEST, ENABLE, "/rules/9/push"):
        assert as_administrator.post(path).status_code == 404


# The list


def test_empty_is_a_page_that_offers_the_first_step(as_administrator):
    page = text(as_administrator.get(LIST))
    assert "Nothing is pushed anywhere." in page and NEW in page and "Add the first one" in page


def test_the_list_says_how_each_stands(as_administrator, rule):
    PushRule.objects.update(failures=1, last_error="harbor.example answered 401.", failing_since=timezone.now())
    Destination.objects.update(error="It broke.", asked_at=timezone.now())
    page = text(as_administrator.get(LIST))
    for said in (
        "One of one needs looking after.", "Harbor of plant 2", "harbor.example/security",
        "Pushing the Vulnerability DB to Harbor of plant 2 fails.", "1 mirror",
    ):  # fmt: skip
        assert said in page


def test_the_pages_ask_as_often_for_twenty_as_for_one(as_administrator, rule, make_mirror, store):
    def count(path):
        with CaptureQueriesContext(connection) as queries:
            assert as_administrator.get(path).status_code == 200
        return len(queries)

    # The first look fills what is kept of templates and types.
    count(LIST), count(PAGE)
    before = count(LIST), count(PAGE)
    for number in range(20):
        wish = destinations.Wish(address=f"r{number}.example")
        there = destinations.add_destination(f"d{number}", wish, by="ada", now=timezone.now())
        mirror = make_mirror(f"m{number}", "oci", served_repository=f"mirrors/m{number}", served_tag="1")
        for to in (there, rule.destination):
            other = PushRule.objects.create(mirror=mirror, destination=to, target="{name}:1", created_at=timezone.now())
            PushRun.objects.create(
                rule=other, mirror=mirror, destination=to, trigger="hand", queued_at=timezone.now(), state="queued"
            )
    assert (count(LIST), count(PAGE)) == before


# One of them


def test_it_tells_what_goes_there_and_since_when(as_administrator, rule, mirror):
    page = text(as_administrator.get(PAGE))
    assert "One of one is not at Harbor of plant 2 yet." in page and "It is pushed within seconds." in page
    PushRule.objects.update(pushed_snapshot=mirror.current, pushed_at=timezone.now() - timedelta(hours=3))
    page = text(as_administrator.get(PAGE))
    assert "Harbor of plant 2 has everything that should be there." in page
    assert '<span class="outcome succeeded">has it</span>' in page and "3 hours ago" in page
    assert "as robot" in page and "geheim" not in page


def test_a_failure_stands_with_its_reason_its_next_try_and_its_run(as_administrator, rule, now):
    run = PushRun.objects.create(
        rule=rule, mirror=rule.mirror, destination=rule.destination, trigger="hand", queued_at=timezone.now(),
        finished_at=timezone.now(), state="failed", error="It answered 413.",
    )  # fmt: skip
    PushRule.objects.update(
        failures=2, last_error=run.error, last_run=run, next_try_at=timezone.now() + timedelta(minutes=3, seconds=30)
    )
    page = text(as_administrator.get(PAGE))
    assert "It answered 413. Next try in" in page
    assert reverse("mirrors:push-detail", args=[run.pk]) in page


def test_a_push_under_way_shows_its_bytes_and_can_be_stopped(as_administrator, rule):
    run = PushRun.objects.create(
        rule=rule, mirror=rule.mirror, destination=rule.destination, trigger="hand", queued_at=timezone.now(),
        started_at=timezone.now(), state="running", bytes_total=100 * 1024, bytes_done=50 * 1024, rate_bytes=1000,
    )  # fmt: skip
    page = as_administrator.get(PAGE)
    assert "50 of 100 KiB" in text(page) and 'hx-trigger="every 2s' in text(page)
    stop = reverse("mirrors:push-stop", args=[run.pk])
    assert stop in text(page)
    answer = as_administrator.post(stop, {"back": "destination"}, follow=True)
    assert answer.redirect_chain[-1][0] == PAGE and "is stopped" in text(answer)


def test_without_rules_it_says_what_comes_next(as_administrator, destination, mirror):
    assert ADD_RULE in text(as_administrator.get(PAGE))
    mirror.delete()
    assert "There is no mirror that could go there." in text(as_administrator.get(PAGE))


def test_it_is_disabled_and_enabled_again(as_administrator, rule):
    answer = as_administrator.post(ENABLE, {"enabled": "0"}, follow=True)
    assert "is pushed to no more" in text(answer) and "is disabled. Nothing is pushed there." in text(answer)
    assert "Push now" not in text(answer)
    assert "is pushed to again" in text(as_administrator.post(ENABLE, {"enabled": "1"}, follow=True))


def test_removing_asks_first_and_says_what_goes(as_administrator, rule):
    page = text(as_administrator.get(DELETE))
    assert "1 rule" in page and "0 pushes" in page and "What was pushed stays" in page
    assert Destination.objects.exists()
    answer = as_administrator.post(DELETE, follow=True)
    assert "What was pushed there is still there." in text(answer) and not Destination.objects.exists()


# The form


def test_it_adds_one_and_goes_to_its_page(as_administrator):
    pem = Authority("Plant CA").pem
    answer = new(as_administrator, login="basic", username="robot", password="geheim-123", ca_pem=pem)
    assert answer["Location"] == PAGE
    there = Destination.objects.get()
    assert (there.registry, there.prefix, there.username, there.ca_pem) == ("harbor.example", "security", "robot", pem)
    assert content.vault().decrypt(there.secret_sealed) == "geheim-123"


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"address": "https://x.example"}, "address", "without https"),
        ({"name": "Plant"}, "name", "cannot be a destination"),
        ({"ca_pem": "nonsense"}, "ca_pem", "no readable certificate"),
        ({"proxy": "nonsense"}, "proxy", "http://host:port"),
        ({"login": "basic", "username": "robot"}, "password", "password of robot"),
        ({"login": "docker", "docker_config": "{}"}, "docker_config", "no login for harbor.example"),
        ({"login": "token", "token": "two words"}, "token", "is no token"),
    ],
)
def test_what_cannot_be_kept_is_told_beside_its_field(as_administrator, changes, field, words):
    answer = new(as_administrator, **changes)
    assert answer.status_code == 422
    assert words in " ".join(answer.context["form"].errors[field])


def test_a_secret_is_never_shown_again(as_administrator, destination):
    page = text(as_administrator.get(EDIT))
    assert "geheim" not in page and destination.secret_sealed not in page
    answer = save(as_administrator, EDIT, login="token", token="tok-geheim-456", proxy="nonsense")
    assert answer.status_code == 422 and "tok-geheim" not in text(answer)
    answer = save(as_administrator, EDIT, login="docker", docker_config='{"auths": {"geheim": {}}}')
    assert answer.status_code == 422 and '"geheim"' not in text(answer).replace("&quot;", '"')


def test_saving_an_unchanged_form_changes_nothing(as_administrator, destination):
    sealed = destination.secret_sealed
    answer = save(as_administrator, EDIT)
    assert answer.status_code == 302
    assert Destination.objects.get().secret_sealed == sealed
    assert "Nothing was changed." in text(as_administrator.get(PAGE))


def test_two_editors_do_not_overwrite_each_other(as_administrator, destination):
    sent = fields(as_administrator.get(EDIT).context["form"])
    destinations.edit_destination("plant", destinations.Wish(label="Theirs"), by="bob", now=timezone.now())
    answer = as_administrator.post(EDIT, sent | {"label": "Mine"})
    assert answer.status_code == 422 and "Somebody else changed plant" in text(answer)


# The test


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(trying, "TEST_TIMEOUTS", Timeouts(connect=2, read=2, attempts=1, source_seconds=5))
    with PushRegistry() as registry:
        yield registry


def there(fake, **login):
    wish = destinations.Wish(address=f"{fake.host}/security", label="Plant", insecure=True, **login)
    return destinations.add_destination("plant", wish, by="ada", now=timezone.now())


def test_the_test_begins_a_push_and_leaves_nothing(as_administrator, fake):
    there(fake)
    page = text(as_administrator.post(TEST, headers=HTMX))
    assert page.startswith('<div id="test"') and "Plant lets us push." in page
    assert "a repository of its own was asked for" in page
    assert fake.count("POST", "/v2/security/airgap-test/blobs/uploads/") == 1
    assert fake.count("DELETE") == 1 and not fake.uploads and not fake.manifests
    assert Destination.objects.get().answered_at is not None


def test_the_test_asks_where_the_rules_go_and_is_a_page_without_javascript(as_administrator, fake, mirror):
    push_rules.add_rule(there(fake), mirror, push_rules.Wish("db:{tag}"), by="ada", now=timezone.now())
    page = text(as_administrator.post(TEST))
    assert "<h1>Test of Plant</h1>" in page and f"{fake.host}/security/db" in page


def test_the_test_names_the_fault(as_administrator, fake):
    fake.require_basic("robot", "right")
    there(fake, login=logins.basic("robot", "wrong-geheim"))
    page = text(as_administrator.post(TEST, headers=HTMX))
    assert "Plant cannot be pushed to." in page and "user name and password" in page and "wrong-geheim" not in page
    assert Destination.objects.get().error


# Rules


def test_a_mirror_is_added_with_a_preview_of_its_names(as_administrator, destination, mirror):
    page = text(as_administrator.get(ADD_RULE))
    assert "harbor.example/security/aquasecurity/trivy-db:2" in page and "{repository}" in page
    sent = {"mirror": "trivy-db", "target": "db:{tag}", "extra_tags": "latest {tag}-{date}", "preview": "1"}
    answer = as_administrator.post(ADD_RULE, sent, headers=HTMX)
    assert text(answer).startswith('<div id="preview"')
    for name in ("db:2", "db:latest", "db:2-20261120T0631Z"):
        assert f"harbor.example/security/{name}" in text(answer)
    assert as_administrator.post(ADD_RULE, sent).status_code == 200 and not PushRule.objects.exists()
    del sent["preview"]
    answer = as_administrator.post(ADD_RULE, sent | {"automatic": "on"}, follow=True)
    assert "goes to Harbor of plant 2 from now on. The first push begins within seconds." in text(answer)
    assert PushRule.objects.get().automatic


def test_a_template_that_cannot_be_is_told_in_the_preview_and_beside_its_field(as_administrator, destination, mirror):
    sent = {"mirror": "trivy-db", "target": "db:{nope}", "extra_tags": ""}
    assert "no placeholder {nope}" in text(as_administrator.post(ADD_RULE, sent | {"preview": "1"}, headers=HTMX))
    answer = as_administrator.post(ADD_RULE, sent)
    assert answer.status_code == 422 and "target" in answer.context["form"].errors


def test_what_no_registry_takes_is_explained(as_administrator, destination, make_mirror, store):
    keep_vex(store, make_mirror("vexhub", "vex", label="VEX Hub"), BUILT)
    assert "VEX Hub is a VEX repository" in text(as_administrator.get(ADD_RULE))
    answer = as_administrator.post(ADD_RULE, {"mirror": "vexhub", "target": "vex:1"})
    assert answer.status_code == 422 and "plain HTTP" in text(answer) and not PushRule.objects.exists()


def test_when_every_mirror_goes_there_the_page_says_so(as_administrator, rule):
    assert "Every mirror goes there already." in text(as_administrator.get(ADD_RULE))


def test_a_rule_is_changed_and_removed(as_administrator, rule):
    url = reverse("mirrors:rule-edit", args=[rule.pk])
    assert save(as_administrator, url, target="other:{tag}", automatic=None).status_code == 302
    rule.refresh_from_db()
    assert (rule.target, rule.automatic) == ("other:{tag}", False)
    assert save(as_administrator, url, target="").status_code == 422
    delete = reverse("mirrors:rule-delete", args=[rule.pk])
    assert "grows old" in text(as_administrator.get(delete)) and PushRule.objects.exists()
    assert "goes to Harbor of plant 2 no more" in text(as_administrator.post(delete, follow=True))
    assert not PushRule.objects.exists()


# Push now


def test_operators_push_now_from_the_mirrors_page(as_operator, rule):
    database = reverse("mirrors:mirror-detail", args=["trivy-db"])
    push = reverse("mirrors:rule-push", args=[rule.pk])
    assert push in text(as_operator.get(database)) and PAGE not in text(as_operator.get(database))
    answer = as_operator.post(push, follow=True)
    assert "the push begins within seconds" in text(answer) and "waiting for a worker" in text(answer)
    run = PushRun.objects.get()
    assert (run.trigger, run.requested_by) == ("hand", "otto")
    assert "is being pushed already" in text(as_operator.post(push, follow=True))


def test_viewers_only_see_where_it_is(as_viewer, rule):
    push = reverse("mirrors:rule-push", args=[rule.pk])
    page = text(as_viewer.get(reverse("mirrors:mirror-detail", args=["trivy-db"])))
    assert "Harbor of plant 2" in page and push not in page
    assert as_viewer.post(push).status_code == 403
    assert as_viewer.get(push).status_code == 405


def test_a_push_that_cannot_be_is_told(as_operator, rule):
    Destination.objects.update(enabled=False)
    answer = as_operator.post(reverse("mirrors:rule-push", args=[rule.pk]), follow=True)
    assert "is disabled. Enable it in its settings first." in text(answer)
