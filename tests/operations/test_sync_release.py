"""Syncing release files: the version, the checksum file, the files, their signatures; and what is refused."""

import threading
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest

from mirrors import content, logins, mirroring
from mirrors.demo.releases import build_bundle, build_release
from mirrors.digests import digest_of
from mirrors.mirror_rules import SourceSpec
from mirrors.models import SyncRun
from mirrors.stopping import StopSignal
from tests.fakes.registry import FakeRegistry

pytestmark = pytest.mark.django_db

State = SyncRun.State
LINUX, ARM = "Linux-64bit", "Linux-ARM64"
ARCHIVE = "trivy_{}_Linux-64bit.tar.gz"
CHECKSUMS = "trivy_{}_checksums.txt"


def publish(fake, version="0.74.0", *, files=None, latest=True, etag=True, **options):
    """A release under /trivy/vVERSION/ as Trivy lays it out; `latest` redirects to it."""
    files = files if files is not None else build_release(version, (LINUX, ARM), **options)
    for name, data in files.items():
        headers = {"ETag": f'"{digest_of(data)[7:17]}"'} if etag else {}
        fake.put_file(f"/trivy/v{version}/{name}", data, headers)
    if latest:
        point(fake, version)
    return files


def point(fake, version):
    """What the newest is called from now on."""
    fake.faults[:] = [fault for fault in fake.faults if fault.path != "/trivy/latest"]
    fake.put_file("/trivy/latest", b"")
    fake.fault("/trivy/latest", status=302, headers={"Location": f"/trivy/tag/v{version}"}, times=None)


@pytest.fixture
def mirror(make_mirror, fake):
    return make_release(make_mirror, fake)


def make_release(make_mirror, fake, *, version="latest", platforms=(LINUX,), path="/trivy/v{version}/", **fields):
    return make_mirror(
        "trivy", "release", sources=[fake.url(path)], version=version, platforms=list(platforms), **fields
    )


def steps(run):
    return " ".join(step.text for step in run.steps.all())


def test_the_first_sync_keeps_the_checksum_file_the_chosen_file_and_their_signatures(mirror, fake, sync_now):
    files = publish(fake)
    run = sync_now(mirror)
    assert (run.state, run.error) == (State.SUCCEEDED, "")
    current = mirror.current
    kept = {blob.name: (blob.role, content.store().read(blob.digest)) for blob in current.blobs.all()}
    archive, checksums = ARCHIVE.format("0.74.0"), CHECKSUMS.format("0.74.0")
    assert kept == {
        checksums: ("checksums", files[checksums]),
        checksums + ".sigstore.json": ("signature", files[checksums + ".sigstore.json"]),
        archive: ("file", files[archive]),
        archive + ".sigstore.json": ("signature", files[archive + ".sigstore.json"]),
    }
    assert (current.version, current.item_count) == ("0.74.0", 1)
    assert current.manifest_digest == digest_of(files[checksums]) and current.layer_digest == ""
    assert current.updated_at is None
    signature = current.blobs.get(name=archive + ".sigstore.json")
    assert signature.details["identity"].endswith("reusable-release.yaml@refs/tags/v0.74.0")


def test_an_unchanged_release_costs_two_small_requests_and_no_file(mirror, fake, sync_now):
    publish(fake)
    sync_now(mirror)
    before = mirror.current.confirmed_at
    fake.forget_requests()
    run = sync_now(mirror)
    assert (run.state, run.requests) == (State.UNCHANGED, 2)
    assert fake.requests[-1].headers["If-None-Match"]
    mirror.current.refresh_from_db()
    assert mirror.current.confirmed_at > before


def test_without_etags_the_same_checksum_file_is_unchanged_too(mirror, fake, sync_now):
    publish(fake, etag=False)
    sync_now(mirror)
    assert sync_now(mirror).state == State.UNCHANGED


def test_a_new_version_is_switched_to_and_the_old_one_stays_kept(mirror, fake, sync_now):
    publish(fake)
    sync_now(mirror)
    publish(fake, "0.75.0")
    run = sync_now(mirror)
    assert (run.state, run.note) == (State.SUCCEEDED, "Switched from 0.74.0 to version 0.75.0.")
    assert mirror.current.version == "0.75.0" and mirror.snapshots.count() == 2


@pytest.mark.parametrize(
    "answer",
    [b"v0.74.0\n", b"0.74.0", b'{"tag_name": "v0.74.0", "name": "x"}', b'{"version": "0.74.0"}'],
)
def test_the_latest_version_may_also_be_a_body(mirror, fake, sync_now, answer):
    publish(fake, latest=False)
    fake.put_file("/trivy/latest", answer)
    assert sync_now(mirror).state == State.SUCCEEDED and mirror.current.version == "0.74.0"


@pytest.mark.parametrize("answer", [b"<html>v0.74.0</html>", b"{", b'["0.74.0"]', b'{"tag_name": 74}', b""])
def test_a_latest_that_names_no_version_says_what_it_should_be(mirror, fake, sync_now, answer):
    publish(fake, latest=False)
    fake.put_file("/trivy/latest", answer)
    run = sync_now(mirror)
    assert run.state == State.FAILED and "does not say which version is the latest" in run.error
    assert "Pin a version" in run.error


def test_a_pinned_version_asks_nobody_for_the_latest(make_mirror, fake, sync_now):
    publish(fake, "0.73.0")
    publish(fake, "0.74.0")
    mirror = make_release(make_mirror, fake, version="0.73.0")
    assert sync_now(mirror).state == State.SUCCEEDED
    assert mirror.current.version == "0.73.0" and not fake.count("GET", "/trivy/latest")


def test_a_pinned_version_that_does_not_exist_is_named(make_mirror, fake, sync_now):
    publish(fake, "0.74.0")
    run = sync_now(make_release(make_mirror, fake, version="9.9.9"))
    assert run.state == State.FAILED and "This source has no version 9.9.9." in run.error
    assert "repository and tag" not in run.error


def test_a_latest_version_whose_checksum_file_is_not_there_yet_is_named(mirror, fake, sync_now):
    publish(fake)
    fake.files.pop(next(path for path in fake.files if path.endswith("checksums.txt")))
    run = sync_now(mirror)
    assert run.state == State.FAILED and "It calls 0.74.0 its latest version" in run.error


def test_an_older_latest_is_told_and_not_switched_to(mirror, fake, sync_now):
    publish(fake, "0.74.0")
    sync_now(mirror)
    publish(fake, "0.73.0")
    run = sync_now(mirror)
    assert run.state == State.UNCHANGED and "an older version the latest than ours" in run.note
    assert mirror.current.version == "0.74.0" and mirror.sources.get().lagging
    assert "calls 0.73.0 the latest, which is older than our 0.74.0; not taken." in steps(run)


def test_a_second_source_confirms_where_the_first_lags(make_mirror, fake, other, sync_now):
    files = publish(fake, "0.74.0")
    publish(other, "0.74.0", files=files)
    mirror = make_mirror(
        "trivy",
        "release",
        sources=[fake.url("/trivy/v{version}/"), other.url("/trivy/v{version}/")],
        version="latest",
        platforms=[LINUX],
    )
    sync_now(mirror)
    publish(fake, "0.73.0")
    before = mirror.current.confirmed_at
    assert sync_now(mirror).state == State.UNCHANGED
    mirror.current.refresh_from_db()
    assert mirror.current.confirmed_at > before


def test_going_back_on_purpose_is_pinning_the_older_version(mirror, fake, sync_now):
    publish(fake, "0.74.0")
    sync_now(mirror)
    publish(fake, "0.73.0")
    mirror.version = "0.73.0"
    mirror.save()
    assert sync_now(mirror).state == State.SUCCEEDED and mirror.current.version == "0.73.0"


@pytest.mark.parametrize("bad", ["0.69.4", "0.69.5", "0.69.6"])
def test_a_version_that_attackers_published_is_refused_with_the_reason(mirror, fake, sync_now, bad):
    publish(fake, bad)
    run = sync_now(mirror)
    assert run.state == State.FAILED and mirror.current is None
    assert f"offers version {bad}, which is not mirrored" in run.error and "GHSA-69fq-xp46-6x23" in run.error
    assert not fake.count("GET", "/trivy/v")


def test_what_should_not_be_held_either_is_nothing_to_go_forward_from(mirror, fake, sync_now):
    publish(fake, "0.69.3")
    sync_now(mirror)
    mirror.snapshots.update(version="0.69.4")
    assert sync_now(mirror).state != State.FAILED
    assert "calls" not in steps(mirror.last_run)


def test_a_file_with_another_checksum_is_thrown_away(mirror, fake, sync_now):
    publish(fake)
    fake.fault(ARCHIVE.format("0.74.0"), method="GET", flip=True, times=None)
    run = sync_now(mirror)
    assert run.state == State.FAILED and mirror.current is None
    assert "does not have the checksum that trivy_0.74.0_checksums.txt states" in run.error
    assert not list(content.store().partials())


def test_a_file_that_breaks_off_goes_on_where_it_stopped(mirror, fake, sync_now):
    publish(fake, padding=200_000)
    archive = ARCHIVE.format("0.74.0")
    # The first such request only asks how long it is.
    fake.fault(archive, method="GET", times=1)
    fake.fault(archive, method="GET", cut_after=500)
    run = sync_now(mirror)
    assert (run.state, run.error) == (State.SUCCEEDED, "")
    ranges = [r.headers["Range"] for r in fake.requests if r.path.endswith(archive) and r.headers["Range"]]
    assert ranges[0] == "bytes=0-0" and ranges[-1].startswith("bytes=500-")


def test_what_an_earlier_run_left_is_not_fetched_again(mirror, fake, sync_now):
    files = publish(fake, padding=200_000)
    archive = files[ARCHIVE.format("0.74.0")]
    with content.store().partial(digest_of(archive), len(archive)) as partial:
        partial.write(archive[:300])
    run = sync_now(mirror)
    assert run.state == State.SUCCEEDED and "Going on at 300 B" in steps(run)


def test_a_host_that_does_not_say_how_long_a_file_is_is_taken_too(mirror, fake, sync_now):
    publish(fake)
    fake.fault(ARCHIVE.format("0.74.0"), method="GET", chunked=True, ignore_range=True, times=None)
    run = sync_now(mirror)
    assert (run.state, run.error) == (State.SUCCEEDED, "")


def test_without_a_length_a_wrong_file_gets_no_name_either(mirror, fake, sync_now):
    publish(fake)
    fake.fault(ARCHIVE.format("0.74.0"), chunked=True, ignore_range=True, flip=True, times=None)
    run = sync_now(mirror)
    assert run.state == State.FAILED and "does not have the checksum" in run.error


def test_a_missing_file_is_named(mirror, fake, sync_now):
    publish(fake)
    del fake.files["/trivy/v0.74.0/" + ARCHIVE.format("0.74.0")]
    run = sync_now(mirror)
    assert run.state == State.FAILED and "not found" in run.error and mirror.current is None


def test_a_platform_without_a_line_in_the_checksum_file_is_not_taken(make_mirror, fake, sync_now):
    publish(fake)
    mirror = make_release(make_mirror, fake, platforms=(LINUX, "macOS-ARM64"))
    run = sync_now(mirror)
    assert run.state == State.FAILED
    assert "has no line for trivy_0.74.0_macOS-ARM64.tar.gz" in run.error and "Linux-ARM64" in run.error


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x" * 64 + "  a\n", "a line that is no checksum"),
        ("<html>", "a line that is no checksum"),
        ("a" * 64 + "  ../etc/passwd\n", "may not be called so"),
        ("a" * 64 + "  a\n" + "b" * 64 + "  a\n", "two different checksums"),
        ("", "is empty"),
        ("a" * 64 + "  " + "x" * 2_000_000, "more than the 1048576 bytes allowed"),
    ],
)
def test_a_hostile_checksum_file_is_refused(mirror, fake, sync_now, text, words):
    publish(fake)
    fake.put_file("/trivy/v0.74.0/" + CHECKSUMS.format("0.74.0"), text.encode())
    run = sync_now(mirror)
    assert run.state == State.FAILED and words in run.error and mirror.current is None


def test_a_replaced_file_of_the_same_version_is_an_alarm_and_nothing_is_taken(mirror, fake, sync_now):
    publish(fake)
    sync_now(mirror)
    first = mirror.current_id
    publish(fake, padding=99)
    run = sync_now(mirror)
    assert run.state == State.FAILED and mirror.current_id == first
    assert "has replaced files of version 0.74.0 after we took them" in run.error
    assert "trivy_0.74.0_Linux-64bit.tar.gz" in run.error and "--version 0.74.0@sha256:" in run.error


def test_a_person_accepts_the_replaced_files_by_their_checksum_file(mirror, fake, sync_now):
    publish(fake)
    sync_now(mirror)
    files = publish(fake, padding=99)
    sync_now(mirror)
    mirror.version = f"0.74.0@{digest_of(files[CHECKSUMS.format('0.74.0')])}"
    mirror.save()
    assert sync_now(mirror).state == State.SUCCEEDED
    mirror.version = "latest"
    mirror.save()
    assert sync_now(mirror).state == State.UNCHANGED


def test_another_checksum_file_than_the_pinned_one_is_refused(make_mirror, fake, sync_now):
    publish(fake)
    mirror = make_release(make_mirror, fake, version="0.74.0@sha256:" + "a" * 64)
    run = sync_now(mirror)
    assert run.state == State.FAILED and "is allowed. Nothing was taken." in run.error


def test_a_line_more_for_a_new_platform_is_no_alarm(mirror, fake, sync_now):
    files = publish(fake)
    sync_now(mirror)
    name = CHECKSUMS.format("0.74.0")
    longer = files[name] + b"c" * 64 + b"  trivy_0.74.0_Plan9-64bit.tar.gz\n"
    fake.put_file(f"/trivy/v0.74.0/{name}", longer)
    fake.put_file(f"/trivy/v0.74.0/{name}.sigstore.json", build_bundle(longer, "0.74.0"))
    assert sync_now(mirror).state == State.SUCCEEDED


def test_other_platforms_are_fetched_when_they_are_chosen(mirror, fake, sync_now):
    publish(fake)
    sync_now(mirror)
    mirror.platforms = [LINUX, ARM]
    mirror.save()
    fake.forget_requests()
    assert sync_now(mirror).state == State.SUCCEEDED
    assert mirror.current.item_count == 2
    assert not [r for r in fake.requests if r.path.endswith(ARCHIVE.format("0.74.0"))]


def test_a_lost_file_is_fetched_again(mirror, fake, sync_now):
    publish(fake)
    sync_now(mirror)
    content.store().remove(mirror.current.blobs.get(role="file").digest)
    assert sync_now(mirror).state == State.SUCCEEDED
    assert content.store().has(mirror.current.blobs.get(role="file").digest) and mirror.snapshots.count() == 1


def test_a_held_mirror_is_not_switched(mirror, fake, sync_now):
    publish(fake)
    sync_now(mirror)
    mirror.hold(datetime.now(UTC), "a test")
    publish(fake, "0.75.0")
    run = sync_now(mirror)
    assert run.state == State.UNCHANGED and "held" in run.note and mirror.current.version == "0.74.0"


# Signatures


def test_a_release_without_signatures_is_taken_and_that_is_told(mirror, fake, sync_now):
    publish(fake, signed=False)
    run = sync_now(mirror)
    assert run.state == State.SUCCEEDED
    assert "has no signature for trivy_0.74.0_Linux-64bit.tar.gz" in steps(run)


def test_the_signatures_of_older_releases_are_kept_as_well(mirror, fake, sync_now):
    files = build_release("0.67.0", (LINUX,), signed=False)
    files |= {name + ending: b"old" for name in list(files) for ending in (".sig", ".pem")}
    publish(fake, "0.67.0", files=files)
    sync_now(mirror)
    assert {blob.name for blob in mirror.current.blobs.filter(role="signature")} == {
        name for name in files if name.endswith((".sig", ".pem"))
    }


def test_a_bundle_over_other_bytes_is_refused(mirror, fake, sync_now):
    publish(fake)
    name = ARCHIVE.format("0.74.0") + ".sigstore.json"
    fake.put_file(f"/trivy/v0.74.0/{name}", build_bundle(b"something else", "0.74.0"))
    run = sync_now(mirror)
    assert run.state == State.FAILED and "signs other bytes" in run.error and mirror.current is None


@pytest.mark.parametrize("raw", [b"{}", b"not json", b'{"verificationMaterial": []}', b"[" * 5000])
def test_a_bundle_that_cannot_be_read_is_kept_and_told(mirror, fake, sync_now, raw):
    publish(fake)
    name = ARCHIVE.format("0.74.0") + ".sigstore.json"
    fake.put_file(f"/trivy/v0.74.0/{name}", raw)
    run = sync_now(mirror)
    assert run.state == State.SUCCEEDED and f"{name} is kept, but cannot be read" in steps(run)


def test_another_signer_than_trivy_documents_is_told(mirror, fake, sync_now):
    files = publish(fake)
    name = ARCHIVE.format("0.74.0")
    fake.put_file(
        f"/trivy/v0.74.0/{name}.sigstore.json", build_bundle(files[name], "0.74.0", identity="https://evil.example/x")
    )
    run = sync_now(mirror)
    assert run.state == State.SUCCEEDED and "states the signer https://evil.example/x, not the one" in steps(run)


# The way there


def test_a_password_goes_to_the_sources_own_host_only(make_mirror, fake, other, sync_now, data_dir):
    files = publish(fake)
    for name, data in files.items():
        other.put_file(f"/cdn/{name}", data)
        fake.fault(f"/v0.74.0/{name}", redirect=other.url(f"/cdn/{name}"), times=None)
    fake.require_basic("u", "secret word")
    mirroring.add_mirror(
        "trivy",
        mirroring.Settings(
            kind="release",
            sources=[SourceSpec(fake.url("/trivy/v{version}/"), insecure=True, login=logins.basic("u", "secret word"))],
            platforms=[LINUX],
        ),
        by="ada",
        now=datetime.now(UTC),
    )
    mirror = mirroring.find("trivy")
    run = sync_now(mirror)
    assert (run.state, run.error) == (State.SUCCEEDED, "")
    assert other.requests and not any(request.headers["Authorization"] for request in other.requests)
    assert all(request.headers["Authorization"] for request in fake.requests)


def test_an_own_naming_scheme_follows_the_template(make_mirror, fake, sync_now):
    archive = b"the archive"
    fake.put_file("/t/0.74.0/trivy-0.74.0-linux-amd64.tgz", archive)
    line = f"{digest_of(archive)[7:]}  trivy-0.74.0-linux-amd64.tgz\n"
    fake.put_file("/t/0.74.0/trivy-0.74.0-checksums.txt", line.encode())
    mirror = make_release(
        make_mirror,
        fake,
        version="0.74.0",
        platforms=("linux-amd64",),
        path="/t/{version}/trivy-{version}-{platform}.tgz",
    )
    run = sync_now(mirror)
    assert (run.state, run.error) == (State.SUCCEEDED, "")


def test_the_latest_may_be_asked_elsewhere(make_mirror, fake, other, sync_now):
    publish(fake, latest=False)
    other.put_file("/newest.txt", b"v0.74.0\n")
    mirror = make_release(make_mirror, fake, path="/trivy/v{version}/#latest=" + other.url("/newest.txt"))
    run = sync_now(mirror)
    assert (run.state, other.count("GET", "/newest.txt")) == (State.SUCCEEDED, 1)


def test_the_date_of_the_checksum_file_is_when_it_was_published(mirror, fake, sync_now):
    files = publish(fake)
    published = datetime(2026, 6, 1, 12, tzinfo=UTC)
    name = CHECKSUMS.format("0.74.0")
    headers = {"Last-Modified": format_datetime(published, usegmt=True), "ETag": '"one"'}
    fake.put_file(f"/trivy/v0.74.0/{name}", files[name], headers)
    sync_now(mirror)
    assert mirror.current.published_at == published


def test_a_stop_in_the_middle_switches_nothing_and_keeps_what_came(mirror, fake, sync_now):
    publish(fake, padding=400_000)
    stop = StopSignal()
    archive = ARCHIVE.format("0.74.0")
    fake.fault(archive, method="GET", times=1)
    fake.fault(archive, method="GET", stall_after=500)

    def when_it_stalls():
        while fake.count("GET", archive) < 2:
            stop.wait(0.01)
        while not any(partial.size for partial in content.store().partials()):
            stop.wait(0.01)
        stop.set("otto")

    thread = threading.Thread(target=when_it_stalls)
    thread.start()
    run = sync_now(mirror, stop=stop)
    thread.join()
    assert run.state == State.CANCELLED and mirror.current is None
    assert [partial.size for partial in content.store().partials()] == [500]
    assert sync_now(mirror).state == State.SUCCEEDED


def test_a_file_larger_than_a_release_ever_is_is_refused_before_it_comes(mirror, fake, sync_now):
    publish(fake)
    fake.fault(ARCHIVE.format("0.74.0"), status=206, headers={"Content-Range": "bytes 0-0/99999999999"}, times=None)
    run = sync_now(mirror)
    assert run.state == State.FAILED and "are taken" in run.error


def test_one_airgap_is_the_source_of_another(make_mirror, fake, sync_now):
    """The addresses of /files/ are such a folder, and `latest` beside the versions redirects to the newest."""
    files = build_release("0.74.0", (LINUX,))
    for name, data in files.items():
        fake.put_file(f"/files/trivy/0.74.0/{name}", data)
    fake.fault("/files/trivy/latest", status=302, headers={"Location": "/files/trivy/0.74.0/"}, times=None)
    mirror = make_release(make_mirror, fake, path="/files/trivy/{version}/")
    assert sync_now(mirror).state == State.SUCCEEDED


def test_a_source_that_answers_nothing_leaves_what_is_held(mirror, sync_now):
    with FakeRegistry() as fake:
        publish(fake)
        mirror.sources.update(reference=fake.url("/trivy/v{version}/"))
        sync_now(mirror)
    run = sync_now(mirror)
    assert run.state == State.FAILED and mirror.current.version == "0.74.0"
