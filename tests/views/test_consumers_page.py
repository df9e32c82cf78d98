"""Consumers: pulls through /v2/ and /vex/ are counted when they are complete, and shown to whoever is signed in."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.urls import reverse
from django.utils import timezone

from mirrors import consumers, reading, taken_log
from mirrors.consumers import Who
from mirrors.models import Consumer, Serving, Taking
from tests.kept import keep_build, keep_vex

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
TRIVY = {"HTTP_USER_AGENT": "trivy/0.74.0"}


@pytest.fixture(autouse=True)
def nothing_pending():
    consumers._tally.take()
    reading.forget()
    yield
    consumers._tally.take()
    reading.forget()


@pytest.fixture
def built() -> datetime:
    return datetime.now(UTC).replace(microsecond=0) - 3 * HOUR


@pytest.fixture
def vulns(store, make_mirror, built):
    mirror = make_mirror(
        "trivy-db", label="Vulnerability DB", served_repository="aquasecurity/trivy-db", served_tag="2"
    )
    keep_build(store, mirror, built)
    return mirror


def layer_url(mirror) -> str:
    return f"/v2/aquasecurity/trivy-db/blobs/{mirror.current.layer_digest}"


def read(response) -> bytes:
    return b"".join(response.streaming_content) if response.streaming else response.content


def counted() -> list[Taking]:
    consumers.write(datetime.now(UTC))
    return list(Taking.objects.select_related("consumer"))


def took(mirror, address: str, *, at: datetime, agent: str = "trivy/0.74.0") -> None:
    who = Who(address, agent=agent)
    consumers.note_taken(who, mirror_id=mirror.pk, snapshot_id=mirror.current_id, size=100, at=at)
    consumers.write(at)


# What counts


def test_a_layer_that_was_sent_whole_is_taken(client, vulns):
    read(client.get("/v2/aquasecurity/trivy-db/manifests/2", **TRIVY))
    read(client.get(layer_url(vulns), **TRIVY))
    (row,) = counted()
    assert (row.consumer.address, row.consumer.agent, row.consumer.reader_kind) == (
        "127.0.0.1",
        "trivy/0.74.0",
        "anonymous",
    )
    assert (row.mirror, row.snapshot, row.count) == (vulns, vulns.current, 1)


def test_a_range_that_ends_with_the_last_byte_is_the_end_of_a_pull(client, vulns):
    read(client.get(layer_url(vulns), HTTP_RANGE="bytes=10-", **TRIVY))
    assert len(counted()) == 1


@pytest.mark.parametrize("headers", [{"HTTP_RANGE": "bytes=0-9"}, {"HTTP_RANGE": "bytes=9999999999-"}])
def test_a_part_of_it_is_not_taken(client, vulns, headers):
    read(client.get(layer_url(vulns), **headers, **TRIVY))
    assert counted() == []


def test_asking_alone_is_not_taking(client, vulns):
    for path in ("/v2/", "/v2/aquasecurity/trivy-db/manifests/2", "/v2/aquasecurity/trivy-db/tags/list"):
        read(client.get(path, **TRIVY))
    read(client.head(layer_url(vulns), **TRIVY))
    assert counted() == []


def test_a_download_that_was_broken_off_is_not_taken(client, vulns):
    response = client.get(layer_url(vulns), **TRIVY)
    assert next(iter(response.streaming_content))
    assert counted() == []


def test_the_config_blob_is_not_what_is_taken(client, vulns):
    config = vulns.current.blobs.get(role="config")
    read(client.get(f"/v2/aquasecurity/trivy-db/blobs/{config.digest}", **TRIVY))
    assert counted() == []


def test_a_vex_archive_is_taken_too(client, store, make_mirror, built):
    vex = make_mirror("vexhub", kind="vex")
    keep_vex(store, vex, built)
    read(client.get("/vex/vexhub/v0.1-0.tar.gz", **TRIVY))
    (row,) = counted()
    assert (row.mirror, row.digest) == (vex, vex.current.layer_digest)


# The page


def test_it_says_who_took_what_and_who_is_late(as_viewer, vulns, built):
    took(vulns, "10.1.2.3", at=built + HOUR)
    took(vulns, "10.1.2.4", at=built + HOUR, agent="skopeo/1.9")
    Taking.objects.filter(consumer__address="10.1.2.4").update(again_at=built, late_at=built + HOUR)
    page = as_viewer.get(reverse("mirrors:consumers")).content.decode()
    assert "Two consumers take data from here; one is late." in page
    assert "10.1.2.3" in page and "trivy/0.74.0" in page and "skopeo/1.9" in page
    assert '<span class="pull waiting">waiting</span>' in page
    assert '<span class="pull late">late</span>' in page
    assert "--skip-db-update" in page
    assert "If no newer build has come by" in page


def test_it_says_what_it_will_show_while_nobody_has_come(as_viewer):
    page = as_viewer.get(reverse("mirrors:consumers")).content.decode()
    assert "Nobody has taken anything from here yet." in page
    assert "Every scanner, registry or script" in page


def test_it_says_so_where_nginx_sends_the_files_and_its_log_is_not_read(as_viewer, settings, tmp_path):
    warning = "its log is not read here"
    assert warning not in as_viewer.get("/consumers/").text
    settings.AIRGAP_SEND_WITH = "nginx"
    assert warning in as_viewer.get("/consumers/").text
    settings.AIRGAP_TAKEN_LOG = tmp_path / "taken.log"
    assert warning not in as_viewer.get("/consumers/").text


def test_a_log_that_cannot_be_read_is_told_and_administrators_what_to_do(client, viewer, administrator, settings):
    settings.AIRGAP_SEND_WITH, settings.AIRGAP_TAKEN_LOG = "nginx", Path("/nowhere/taken.log")
    now = timezone.now()
    with pytest.raises(taken_log.LogError):
        taken_log.read(settings.AIRGAP_TAKEN_LOG, now)
    client.force_login(viewer)
    text = client.get("/consumers/").text
    assert "An administrator sees here why." in text and "/nowhere" not in text
    client.force_login(administrator)
    text = client.get("/consumers/").text
    assert "AIRGAP_TAKEN_LOG, /nowhere/taken.log, cannot be read: No such file or directory." in text
    assert "log airgap_taken of deploy/nginx.conf" in text
    consumers.change_settings(count=False, anonymise=False, days=30, by="ada", now=now)
    assert "/nowhere" not in client.get("/consumers/").text


def test_the_databases_page_says_how_many_take_it(as_viewer, vulns, built):
    url = reverse("mirrors:mirror-detail", args=["trivy-db"])
    assert "taken by" not in as_viewer.get(url).content.decode()
    took(vulns, "10.1.2.3", at=built + HOUR)
    took(vulns, "10.1.2.4", at=built + HOUR)
    Taking.objects.filter(consumer__address="10.1.2.4").update(late_at=built + HOUR)
    assert "2 consumers, one of them late" in as_viewer.get(url).content.decode()


def test_it_filters_by_database_state_and_words(as_viewer, vulns, make_mirror, store, built):
    java = make_mirror("trivy-java-db", label="Java DB")
    keep_build(store, java, built)
    took(vulns, "10.1.2.3", at=built + HOUR)
    took(java, "10.9.9.9", at=built + HOUR, agent="oras/1.3")
    url = reverse("mirrors:consumers")
    assert "10.9.9.9" not in as_viewer.get(url, {"database": "trivy-db"}).content.decode()
    assert "10.1.2.3" not in as_viewer.get(url, {"q": "oras"}).content.decode()
    assert "No consumer is like that." in as_viewer.get(url, {"state": "late"}).content.decode()
    assert "10.9.9.9" in as_viewer.get(url, {"state": "nonsense", "page": "x"}).content.decode()


def test_it_has_pages(as_viewer, vulns, built, monkeypatch):
    monkeypatch.setattr("mirrors.views.consumers.PAGE", 2)
    for number in range(3):
        took(vulns, f"10.0.0.{number}", at=built + timedelta(minutes=number))
    first = as_viewer.get(reverse("mirrors:consumers")).content.decode()
    assert "10.0.0.2" in first and "10.0.0.0" not in first and "page=2" in first
    second = as_viewer.get(reverse("mirrors:consumers"), {"page": "2"}).content.decode()
    assert "10.0.0.0" in second and "10.0.0.2" not in second


def test_it_needs_a_login(client, db):
    for name in ("consumers", "consumers-csv", "consumers-settings"):
        assert client.get(reverse(f"mirrors:{name}")).status_code == 302


def test_queries_do_not_grow_with_the_rows(as_viewer, vulns, built, django_assert_max_num_queries):
    for number in range(12):
        took(vulns, f"10.0.0.{number}", at=built + HOUR)
    with django_assert_max_num_queries(9):
        as_viewer.get(reverse("mirrors:consumers"))


def test_hostile_names_are_shown_as_text(as_viewer, vulns, built):
    took(vulns, "10.1.2.3", at=built + HOUR, agent="<script>alert(1)</script>")
    page = as_viewer.get(reverse("mirrors:consumers")).content.decode()
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page


def test_all_of_it_comes_as_csv(as_viewer, vulns, built):
    took(vulns, "10.1.2.3", at=built + HOUR, agent="=cmd()")
    response = as_viewer.get(reverse("mirrors:consumers-csv"))
    head, line = b"".join(response.streaming_content).decode().splitlines()
    assert head.startswith("address,reader,reader_name,agent,mirror,state,taken_at")
    assert line.startswith("10.1.2.3,anonymous,,'=cmd(),trivy-db,waiting,")


# What is kept


def test_an_administrator_switches_counting_off_and_what_was_known_goes(as_administrator, vulns, built):
    took(vulns, "10.1.2.3", at=built + HOUR)
    response = as_administrator.post(reverse("mirrors:consumers-settings"), {"days": "30"}, follow=True)
    assert "What was known of consumers was removed." in response.content.decode()
    assert not Consumer.objects.exists()
    kept = Serving.objects.get()
    assert (kept.count_consumers, kept.consumers_days) == (False, 30)
    assert "Counting is switched off" in response.content.decode()


def test_days_that_are_none_are_refused(as_administrator):
    response = as_administrator.post(reverse("mirrors:consumers-settings"), {"count": "on", "days": "0"})
    assert response.status_code == 422


def test_only_administrators_change_what_is_kept(as_operator):
    assert as_operator.get(reverse("mirrors:consumers-settings")).status_code == 403
    assert as_operator.post(reverse("mirrors:consumers-settings"), {"days": "1"}).status_code == 403


def test_the_page_is_only_read(as_operator):
    assert as_operator.post(reverse("mirrors:consumers")).status_code == 405
