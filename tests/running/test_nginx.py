"""deploy/nginx.conf with the real nginx: TLS from a private CA, HTTP/2, and files that nginx sends itself."""

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from mirrors.consumers import Note
from mirrors.digests import digest_of
from mirrors.models import AuditEntry
from tests.fakes import nginx
from tests.kept import keep_build
from tests.running.serving.conftest import free_port

pytestmark = [
    pytest.mark.peers,
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(nginx.program() is None, reason="nginx is not here"),
]


class Front:
    """nginx on a free port, and a browser that trusts its authority."""

    def __init__(self, folder: Path, data: Path, upstream: str) -> None:
        self.folder, self.port, self.plain = folder, free_port(), free_port()
        self.command = nginx.set_up(folder, data=data, upstream=upstream, port=self.port, plain_port=self.plain)
        self.url = f"https://127.0.0.1:{self.port}"
        self.session = requests.Session()
        self.session.trust_env, self.session.verify = False, str(folder / "ca.pem")

    def log(self) -> list[dict[str, str]]:
        path = self.folder / "airgap-taken.log"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def get(self, path: str, **headers: str) -> requests.Response:
        return self.session.get(self.url + path, headers=headers, timeout=10, allow_redirects=False)


@pytest.fixture
def front(tmp_path, live_server, settings, data_dir) -> Iterator[Front]:
    settings.AIRGAP_BEHIND_PROXY = True
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    settings.AIRGAP_SEND_WITH = "nginx"
    front = Front(tmp_path, data_dir, live_server.url)
    with (tmp_path / "said").open("wb") as said:
        process = subprocess.Popen(front.command, stdout=said, stderr=said)
    try:
        deadline = time.monotonic() + 10
        while True:
            try:
                front.get("/login/")
                break
            except requests.ConnectionError:
                assert process.poll() is None, (tmp_path / "said").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield front
    finally:
        front.session.close()
        process.terminate()
        process.wait(10)


@pytest.fixture
def layer(store, make_mirror, now):
    mirror = make_mirror("trivy-db", served_repository="aquasecurity/trivy-db", served_tag="2")
    return keep_build(store, mirror, now, padding=3_000_000).blobs.get(role="layer")


def test_a_layer_comes_from_nginx_whole_and_with_airgaps_headers(front, layer, store):
    url = f"/v2/aquasecurity/trivy-db/blobs/{layer.digest}"
    answer = front.get(url)
    assert (answer.status_code, digest_of(answer.content)) == (200, layer.digest)
    assert answer.headers["Docker-Content-Digest"] == layer.digest
    assert answer.headers["ETag"] == f'"{layer.digest}"'
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Content-Length"] == str(layer.size_bytes)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["Server"] == "nginx"
    for name in ("X-Airgap-Taken", "X-Accel-Redirect", "Last-Modified", "Set-Cookie"):
        assert name not in answer.headers
    head = front.session.head(front.url + url)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["Content-Length"] == str(layer.size_bytes)
    part = front.get(url, Range="bytes=1000-1999")
    assert (part.status_code, part.content) == (206, answer.content[1000:2000])
    assert part.headers["Content-Range"] == f"bytes 1000-1999/{layer.size_bytes}"
    same = front.get(url, Range="bytes=-7", **{"If-Range": f'"{layer.digest}"'})
    other = front.get(url, Range="bytes=-7", **{"If-Range": '"another"'})
    assert (same.status_code, same.content, other.status_code) == (206, answer.content[-7:], 200)
    assert front.get(url, **{"If-None-Match": f'"{layer.digest}"'}).status_code == 304
    assert front.get(url, Range="bytes=99999999-").status_code == 416
    assert front.get(url, Range="bytes=0-1,5-6").status_code == 200


def test_nginx_logs_what_was_taken_and_by_whom(front, layer):
    url = f"/v2/aquasecurity/trivy-db/blobs/{layer.digest}"
    front.session.headers["User-Agent"] = 'Trivy/0.74.0 "quoted"'
    front.get(url)
    front.get(url, Range="bytes=5-")
    front.session.head(front.url + url)
    front.get("/login/")
    with front.session.get(front.url + url, stream=True) as broken_off:
        next(broken_off.iter_content(1000))
    whole, rest = front.log()[:2]
    note, size = f"{layer.snapshot.mirror_id} {layer.snapshot_id} {layer.size_bytes} anonymous", layer.size_bytes
    assert whole["note"] == rest["note"] == note
    assert Note.parse(note) == Note(layer.snapshot.mirror_id, layer.snapshot_id, size, "anonymous", "")
    assert (whole["status"], whole["completed"], whole["bytes"]) == ("200", "OK", str(size))
    assert (whole["address"], whole["agent"]) == ("127.0.0.1", 'Trivy/0.74.0 "quoted"')
    assert (rest["status"], rest["content_range"]) == ("206", f"bytes 5-{size - 1}/{size}")
    assert not [line for line in front.log()[2:] if line["completed"] and int(line["bytes"]) < size]


def test_nobody_gets_at_the_store_past_airgap(front, layer, store):
    name = layer.digest.removeprefix("sha256:")
    for path in (f"/_blobs/sha256/{name[:2]}/{name}", "/_blobs/", "/_blobs/../airgap.sqlite3", "/_blobs"):
        assert front.get(path).status_code in (302, 404)
    path = store.path(layer.digest)
    path.chmod(0o644)
    path.write_bytes(b"damaged")
    assert front.get(f"/v2/aquasecurity/trivy-db/blobs/{layer.digest}").status_code == 503


def test_it_speaks_http_2_and_sends_plain_http_over_to_tls(front, layer):
    if "HTTP2" in subprocess.run(["curl", "--version"], capture_output=True, text=True).stdout:
        found = subprocess.run(
            ["curl", "-s", "--cacert", front.folder / "ca.pem", "-o", front.folder / "got", "-w", "%{http_version}",
             f"{front.url}/v2/aquasecurity/trivy-db/blobs/{layer.digest}"],
            capture_output=True, text=True, timeout=20,
        )  # fmt: skip
        assert (found.stdout, digest_of((front.folder / "got").read_bytes())) == ("2", layer.digest)
    sent_over = requests.get(f"http://127.0.0.1:{front.plain}/v2/", allow_redirects=False, timeout=10)
    assert (sent_over.status_code, sent_over.headers["Location"]) == (301, "https://127.0.0.1/v2/")


def test_airgap_sends_by_way_of_nginx_where_nginx_is_not_told_to(front, layer, settings):
    settings.AIRGAP_SEND_WITH = "self"
    url = f"/v2/aquasecurity/trivy-db/blobs/{layer.digest}"
    answer = front.get(url)
    assert (answer.status_code, digest_of(answer.content)) == (200, layer.digest)
    assert answer.headers["Docker-Content-Digest"] == layer.digest
    part = front.get(url, Range="bytes=-7")
    assert (part.status_code, part.content) == (206, answer.content[-7:])
    assert front.log() == []


def test_a_login_works_through_it_with_secure_cookies_and_the_clients_address(front, administrator, settings):
    settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = True
    front.get("/login/")
    form = {
        "username": "ada",
        "password": "correct horse ada",
        "csrfmiddlewaretoken": front.session.cookies["csrftoken"],
    }
    answer = front.session.post(
        f"{front.url}/login/", form, headers={"Origin": front.url, "X-Forwarded-For": "6.6.6.6"}, allow_redirects=False
    )
    assert answer.status_code == 302
    assert "; Secure" in answer.headers["Set-Cookie"]
    assert AuditEntry.objects.latest("pk").address == "127.0.0.1"
