import io
import json
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from mirrors.demo.publishing import KEEP, Plan, Publisher
from mirrors.demo.upstream import Server, _wanted, main
from mirrors.digests import digest_of
from mirrors.registry.manifests import parse_manifest
from mirrors.trivy.catalogue import KINDS
from mirrors.trivy.layers import LayerInspector
from mirrors.trivy.release import parse_checksums, read_bundle
from mirrors.trivy.rules import check_checks_bundle, check_manifest
from mirrors.trivy.vex import parse_repository, read_archive

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
SMALL = Plan(database_bytes=0, java_bytes=0, java_every=3, other_every=10, release_bytes=0)


@pytest.fixture
def publisher(tmp_path):
    publisher = Publisher(tmp_path, SMALL)
    publisher.start(NOW)
    return publisher


@pytest.fixture
def server(publisher):
    with Server(("127.0.0.1", 0), publisher, 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def get(server, path, method="GET", **headers):
    request = urllib.request.Request(server.url + path, method=method, headers=headers)
    try:
        with closing(urllib.request.urlopen(request)) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        with closing(error):
            return error.code, error.headers, error.read()


def age(publisher, name, tag, kind):
    manifest = parse_manifest(publisher.manifest(name, tag)[1], "")
    layer = publisher.blob(name, check_manifest(KINDS[kind], manifest).digest).read_bytes()
    with LayerInspector(KINDS[kind], len(layer)) as inspector:
        inspector.feed(layer)
        return inspector.finish().updated_at


def test_the_first_builds_are_three_hours_old_and_the_next_are_of_now(publisher):
    assert age(publisher, "aquasec/trivy-db", "2", "trivy-db") == NOW - timedelta(minutes=10)
    assert publisher.start(NOW) == []

    later = NOW + timedelta(minutes=1)
    assert publisher.tick(later) == ["trivy-db"]
    assert age(publisher, "aquasecurity/trivy-db", "latest", "trivy-db") == later
    assert age(publisher, "aquasec/trivy-java-db", "1", "trivy-java-db") == NOW - timedelta(minutes=10)


def test_each_has_its_own_rhythm(publisher):
    published = [publisher.tick(NOW + timedelta(minutes=minute)) for minute in range(1, 11)]

    assert [names.count("trivy-db") for names in published] == [1] * 10
    assert [index for index, names in enumerate(published, 1) if "trivy-java-db" in names] == [3, 6, 9]
    assert [index for index, names in enumerate(published, 1) if "vexhub" in names] == [10]
    assert published[9] == ["trivy-db", "trivy-checks", "trivy-checks-1", "vexhub", "trivy"]


def test_old_builds_stay_for_a_while_and_then_go(publisher):
    digests = [publisher.manifest("aquasec/trivy-db", "2")[0]]
    for minute in range(1, KEEP + 1):
        publisher.tick(NOW + timedelta(minutes=minute))
        digests.append(publisher.manifest("aquasec/trivy-db", "2")[0])

    assert len(set(digests)) == KEEP + 1
    assert publisher.manifest("aquasec/trivy-db", digests[0]) is None
    assert not publisher.blob_path(digests[0]).exists()
    assert all(publisher.manifest("aquasec/trivy-db", digest) for digest in digests[1:])


def test_a_new_start_continues_where_the_folder_stands(publisher, tmp_path):
    publisher.tick(NOW)
    again = Publisher(tmp_path, SMALL)

    assert again.start(NOW) == []
    assert again.manifest("aquasec/trivy-db", "2") == publisher.manifest("aquasec/trivy-db", "2")


@pytest.mark.parametrize("state", [b"", b"[]", b'{"ticks": 1}', b'{"ticks": 1, "lines": []}'])
def test_a_damaged_folder_begins_anew(publisher, tmp_path, state):
    (tmp_path / "state.json").write_bytes(state)
    assert len(Publisher(tmp_path, SMALL).start(NOW)) == 6


def test_a_lost_blob_is_published_anew(publisher, tmp_path):
    publisher.blob_path(publisher.manifest("aquasec/trivy-checks", "1")[0]).unlink()
    assert "trivy-checks-1" in Publisher(tmp_path, SMALL).start(NOW)


def test_it_answers_as_a_registry(server):
    assert get(server, "/v2/")[0] == 200
    status, headers, raw = get(server, "/v2/aquasec/trivy-checks/manifests/2")
    assert status == 200
    assert headers["Docker-Content-Digest"] == digest_of(raw)
    assert headers["Content-Type"] == "application/vnd.oci.image.manifest.v1+json"
    manifest = parse_manifest(raw, headers["Content-Type"])
    assert manifest.version == "2.2.1"
    head_status, head, body = get(server, "/v2/aquasecurity/trivy-checks/manifests/" + manifest.digest, "HEAD")
    assert (head_status, head["Content-Length"], body) == (200, str(len(raw)), b"")

    layer = manifest.layers[0]
    status, headers, data = get(server, "/v2/aquasec/trivy-checks/blobs/" + layer.digest)
    assert (status, digest_of(data), headers["Docker-Content-Digest"]) == (200, layer.digest, layer.digest)
    assert check_checks_bundle(io.BytesIO(data)) == 2
    assert get(server, "/v2/aquasec/trivy-checks/blobs/" + manifest.config.digest)[2] == b"{}"


def test_it_sends_single_ranges(server):
    layer = parse_manifest(get(server, "/v2/aquasec/trivy-db/manifests/2")[2], "").layers[0]
    path = "/v2/aquasec/trivy-db/blobs/" + layer.digest
    whole = get(server, path)[2]

    status, headers, part = get(server, path, Range=f"bytes=100-{layer.size - 1}")
    assert (status, part) == (206, whole[100:])
    assert headers["Content-Range"] == f"bytes 100-{layer.size - 1}/{layer.size}"
    assert get(server, path, Range="bytes=-7")[2] == whole[-7:]
    assert get(server, path, Range=f"bytes={layer.size}-")[0] == 416


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        (None, (0, 10)), ("bytes=2-4", (2, 5)), ("bytes=2-", (2, 10)), ("bytes=2-99", (2, 10)), ("bytes=-3", (7, 10)),
        ("bytes=-99", (0, 10)), ("bytes=-0", None), ("bytes=4-2", None), ("bytes=10-", None), ("bytes=-", (0, 10)),
        ("bytes=1-2,4-5", (0, 10)), ("lines=1-2", (0, 10)),
    ],
)  # fmt: skip
def test_it_understands_ranges(header, wanted):
    assert _wanted(header, 10) == wanted


def test_it_says_what_it_has_not(server):
    status, _, body = get(server, "/v2/aquasec/trivy-db/manifests/9")
    assert (status, json.loads(body)["errors"][0]["code"]) == (404, "MANIFEST_UNKNOWN")
    status, _, body = get(server, "/v2/aquasec/trivy-db/blobs/sha256:" + "0" * 64)
    assert (status, json.loads(body)["errors"][0]["code"]) == (404, "BLOB_UNKNOWN")
    assert get(server, "/v2/other/trivy-db/manifests/2")[0] == 404
    assert get(server, "/v2/other/thing/tags/list")[0] == 404
    assert get(server, "/favicon.ico")[0] == 404


def test_it_lists_tags_and_no_referrers(server):
    assert json.loads(get(server, "/v2/aquasec/trivy-checks/tags/list")[2])["tags"] == ["1", "2", "latest"]
    assert json.loads(get(server, "/v2/aquasec/trivy-db/referrers/sha256:" + "0" * 64)[2])["manifests"] == []


def test_it_has_releases_with_checksums_and_a_latest(server, publisher):
    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_):
            return None

    with pytest.raises(urllib.error.HTTPError) as redirect:
        urllib.request.build_opener(Stay).open(server.url + "/trivy/latest")
    assert redirect.value.code == 302 and redirect.value.headers["Location"] == "/trivy/v100.1.0/"
    redirect.value.close()
    status, headers, raw = get(server, "/trivy/v100.1.0/trivy_100.1.0_checksums.txt")
    listed = parse_checksums(raw, "It")
    assert status == 200 and headers["ETag"] and len(listed) == 5
    for name, digest in listed.items():
        data = get(server, f"/trivy/v100.1.0/{name}")[2]
        assert digest_of(data) == digest
        assert read_bundle(get(server, f"/trivy/v100.1.0/{name}.sigstore.json")[2]).digest == digest
    assert get(server, "/trivy/v100.2.0/trivy_100.2.0_checksums.txt")[0] == 404


def test_a_folder_of_an_earlier_version_is_continued(tmp_path, publisher):
    state = json.loads((tmp_path / "state.json").read_bytes())
    del state["lines"]["trivy"]
    (tmp_path / "state.json").write_text(json.dumps(state))
    continued = Publisher(tmp_path, SMALL)
    assert "trivy" in continued.start(NOW)
    assert continued.manifest("aquasec/trivy-db", "2")


def test_it_answers_as_a_vex_repository(server):
    repository = parse_repository(get(server, "/.well-known/vex-repository.json")[2])
    location = repository.version().locations[0]
    assert location.fetch_url.startswith(server.url)

    status, headers, data = get(server, location.fetch_url.removeprefix(server.url))
    facts = read_archive(io.BytesIO(data), location.format, location.subdir)
    assert (status, facts.packages, facts.updated_at) == (200, 2, NOW - timedelta(minutes=10))
    assert parse_repository(facts.repository_manifest).name == repository.name == "Demo VEX Hub"
    assert get(server, location.fetch_url.removeprefix(server.url), **{"If-None-Match": headers["ETag"]})[0] == 304


def test_a_port_in_use_is_one_sentence(server, tmp_path, capsys):
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        status = main(["--bind", server.url.removeprefix("http://"), "--directory", str(tmp_path)])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

    assert status == 1
    assert capsys.readouterr().err.startswith("The demo upstream cannot start on 127.0.0.1:")


def test_it_runs_as_a_program_and_ends_at_sigterm(tmp_path):
    argv = [sys.executable, "-m", "mirrors.demo.upstream", "--bind", "127.0.0.1:0", "--directory", str(tmp_path)]
    sizes = ["--database-bytes", "1000", "--java-bytes", "1000", "--every", "3600"]
    with subprocess.Popen([*argv, *sizes], stdout=subprocess.PIPE, text=True) as program:
        first = program.stdout.readline()
        program.send_signal(signal.SIGTERM)
        assert program.wait(10) == 0

    assert first.startswith("The demo upstream answers at http://127.0.0.1:")
    assert (tmp_path / "state.json").exists()
