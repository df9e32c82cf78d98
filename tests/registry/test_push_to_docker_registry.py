"""Pushing to Debian's docker-registry, with htpasswd and TLS from a private CA, alone and behind nginx."""

import contextlib
import hashlib
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mirrors.digests import digest_of
from mirrors.registry.errors import RegistryError
from mirrors.registry.manifests import OCI_MANIFEST, Descriptor
from mirrors.registry.pushing import PushClient
from tests.fakes.registry import shared_authority
from tests.registry.conftest import LAYER_TYPE, some_bytes
from tests.registry.test_pushing import EMPTY, describe, manifest_of, send

pytestmark = [pytest.mark.peers, pytest.mark.long]

Make = Callable[..., PushClient]
ROOT = Path(__file__).parents[2]
USER, PASSWORD = "airgap", "correct-horse-battery"
REPOSITORY = "mirror/aquasecurity/trivy-db"
DATA = some_bytes(2_500_000)


@dataclass(frozen=True)
class Peer:
    """A registry over TLS: its address, and the folder with its files (trusted/ca.crt among them)."""

    host: str
    port: int
    folder: Path

    @property
    def login(self) -> dict[str, object]:
        ca = (self.folder / "trusted" / "ca.crt").read_text()
        return {"insecure": False, "ca_pem": ca, "username": USER, "password": PASSWORD}


def needed(name: str) -> str:
    program = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if program is None:
        pytest.skip(f"needs Debian's {name}")
    return program


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def running(command: list[str], port: int) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
                break
            except OSError:
                assert time.monotonic() < deadline and process.poll() is None, f"{command[0]} did not start"
                time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    program, htpasswd = needed("docker-registry"), needed("htpasswd")
    folder, port = tmp_path_factory.mktemp("registry"), free_port()
    subprocess.run(
        [htpasswd, "-Bbc", str(folder / "htpasswd"), USER, PASSWORD], check=True, capture_output=True, timeout=60
    )
    certificate = shared_authority().issue("127.0.0.1", "localhost")
    (folder / "tls.crt").write_text(certificate.certificate_pem)
    (folder / "tls.key").write_text(certificate.key_pem)
    (folder / "trusted").mkdir()
    (folder / "trusted" / "ca.crt").write_text(shared_authority().pem)
    (folder / "config.yml").write_text(
        f"""version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {folder}/data}}}}
auth: {{htpasswd: {{realm: peer, path: {folder}/htpasswd}}}}
http:
  addr: 127.0.0.1:{port}
  tls: {{certificate: {folder}/tls.crt, key: {folder}/tls.key}}
"""
    )
    with running([program, "serve", str(folder / "config.yml")], port):
        yield Peer(f"127.0.0.1:{port}", port, folder)


@pytest.fixture(scope="module")
def behind_nginx(peer: Peer) -> Iterator[Peer]:
    """The same registry behind nginx as it comes: a body may have 1 MB."""
    program, folder, port = needed("nginx"), peer.folder, free_port()
    (folder / "nginx").mkdir()
    (folder / "nginx.conf").write_text(
        f"""daemon off; user root; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/nginx/body; proxy_temp_path {folder}/nginx/proxy;
  fastcgi_temp_path {folder}/nginx/f; uwsgi_temp_path {folder}/nginx/u; scgi_temp_path {folder}/nginx/s;
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {folder}/tls.crt; ssl_certificate_key {folder}/tls.key;
    location / {{
      proxy_pass https://127.0.0.1:{peer.port};
      proxy_set_header Host $http_host; proxy_set_header X-Forwarded-Proto https;
    }}
  }}
}}
"""
    )
    with running([program, "-p", str(folder), "-c", str(folder / "nginx.conf")], port):
        yield Peer(f"127.0.0.1:{port}", port, folder)


def push_image(client: PushClient, repository: str, layer: bytes, tag: str = "2") -> bytes:
    raw = manifest_of(layer)
    for data in (EMPTY, layer):
        if not client.has_blob(repository, digest_of(data), len(data)):
            send(client, data, repository)
    assert client.put_manifest(repository, tag, raw, OCI_MANIFEST) == digest_of(raw)
    return raw


@pytest.mark.parametrize("chunk_bytes", [10_000_000, 1_000_000], ids=["at once", "in chunks"])
def test_it_takes_an_image_and_skopeo_gives_it_back(peer: Peer, pusher: Make, tmp_path: Path, chunk_bytes: int) -> None:
    skopeo = needed("skopeo")
    repository, layer = f"{REPOSITORY}/{chunk_bytes}", DATA + str(chunk_bytes).encode()
    client = pusher(peer.host, chunk_bytes=chunk_bytes, **peer.login)
    raw = push_image(client, repository, layer)
    assert client.has_manifest(repository, "2") == digest_of(raw)
    assert client.bytes_sent == len(EMPTY) + len(layer) + len(raw), "nothing was sent twice"
    subprocess.run(
        [
            skopeo, "copy", "--quiet",
            "--src-cert-dir", str(peer.folder / "trusted"), "--src-creds", f"{USER}:{PASSWORD}",
            f"docker://{peer.host}/{repository}:2", f"dir:{tmp_path}/copy",
        ],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    assert (tmp_path / "copy" / "manifest.json").read_bytes() == raw
    assert (tmp_path / "copy" / hashlib.sha256(layer).hexdigest()).read_bytes() == layer


def test_what_is_there_is_not_sent_again_and_is_mounted_elsewhere(peer: Peer, pusher: Make) -> None:
    client = pusher(peer.host, **peer.login)
    push_image(client, "mount/from", DATA)
    sent = client.bytes_sent
    push_image(client, "mount/from", DATA)
    assert client.mount("mount/to", digest_of(DATA), "mount/from")
    assert client.mount("mount/to", digest_of(EMPTY), "mount/from")
    assert not client.mount("mount/to", digest_of(b"nowhere"), "mount/from")
    raw = manifest_of(DATA)
    client.put_manifest("mount/to", "2", raw, OCI_MANIFEST)
    assert client.bytes_sent == sent + 2 * len(raw)


def test_a_wrong_password_and_an_unknown_authority_are_named(peer: Peer, pusher: Make) -> None:
    client = pusher(peer.host, **peer.login)
    assert client.try_login(REPOSITORY)
    uploads = list((peer.folder / "data").rglob("_uploads/*/data"))
    assert not uploads, "nothing is left of a test"
    for change, code in (({"password": "wrong"}, "auth"), ({"username": ""}, "auth"), ({"ca_pem": ""}, "ca")):
        with pytest.raises(RegistryError) as caught:
            pusher(peer.host, **(peer.login | change)).try_login(REPOSITORY)
        assert caught.value.code == code, str(caught.value)


def test_a_connection_that_breaks_in_a_chunk_costs_the_session_here(peer: Peer, pusher: Make) -> None:
    """distribution cancels an upload whose bytes and signed state differ ("upload resumed at wrong offset")."""
    data = DATA[::-1]
    with relay(peer.port, breaks_after=[1_700_000]) as port:
        client = pusher(f"127.0.0.1:{port}", chunk_bytes=1_000_000, **peer.login)
        send(client, data, "broken/off")
    assert pusher(peer.host, **peer.login).has_blob("broken/off", digest_of(data), len(data))


def test_behind_a_proxy_that_gathers_each_request_it_costs_one_chunk(behind_nginx: Peer, pusher: Make) -> None:
    data = DATA[::-1] + b"."
    with relay(behind_nginx.port, breaks_after=[1_700_000]) as port:
        client = pusher(f"127.0.0.1:{port}", chunk_bytes=500_000, **behind_nginx.login)
        send(client, data, "broken/gathered")
        assert len(data) < client.bytes_sent <= len(data) + 500_000


def test_referrers_go_into_the_tag_of_a_registry_that_lists_none(peer: Peer, pusher: Make) -> None:
    client = pusher(peer.host, **peer.login)
    raw = push_image(client, "referred/to", DATA[:1000])
    subject = {"mediaType": OCI_MANIFEST, "digest": digest_of(raw), "size": len(raw)}
    referrer = manifest_of(DATA[:1000], subject=subject)
    client.put_manifest("referred/to", digest_of(referrer), referrer, OCI_MANIFEST)
    found = client.referrers("referred/to", digest_of(raw))
    assert found is not None and [one.digest for one in found.manifests] == [digest_of(referrer)]


def test_a_proxy_that_allows_one_megabyte_gets_less_at_a_time(behind_nginx: Peer, pusher: Make) -> None:
    client = pusher(behind_nginx.host, chunk_bytes=10_000_000, **behind_nginx.login)
    data = some_bytes(12_000_000, seed=3)
    send(client, data, "behind/nginx")
    assert client.memory["chunk_bytes"] == 1_000_000 and client.bytes_sent < 2 * len(data)


def test_a_large_blob_takes_no_more_memory_than_a_small_one(peer: Peer, tmp_path: Path) -> None:
    """240 MB in chunks of 64 MB, in a process of its own: its peak grows by less than 24 MB."""
    blob = tmp_path / "blob"
    size = 240_000_000
    with blob.open("wb") as file:
        file.truncate(size)
    with blob.open("rb") as file:
        digest = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    script = tmp_path / "push.py"
    script.write_text(
        """
import io, json, resource, sys
from mirrors.registry.manifests import Descriptor
from mirrors.registry.pushing import PushClient
from mirrors.registry.transport import Connection
from mirrors.stopping import StopSignal
host, login, path, digest, size = json.loads(sys.argv[1])
client = PushClient(host, Connection(**login), stop=StopSignal(), chunk_bytes=64_000_000)
small = Descriptor("x", "sha256:" + __import__("hashlib").sha256(b"x").hexdigest(), 1)
client.upload("flat", small, lambda: io.BytesIO(b"x"))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
client.upload("flat", Descriptor("x", digest, size), lambda: open(path, "rb"))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    )
    given = json.dumps([peer.host, peer.login, str(blob), digest, size])
    done = subprocess.run(
        [sys.executable, str(script), given],
        cwd=ROOT, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin"}, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 24_000, f"{done.stdout} KiB more"


@contextlib.contextmanager
def relay(port: int, breaks_after: list[int]) -> Iterator[int]:
    """A port that leads to another; its connections break after so many bytes from the client, one number each."""
    listener = socket.create_server(("127.0.0.1", 0))

    def carry(client: socket.socket, limit: int | None) -> None:
        with client, socket.create_connection(("127.0.0.1", port)) as server:
            back = threading.Thread(target=pour, args=(server, client), daemon=True)
            back.start()
            pour(client, server, limit)
            back.join(5)

    def pour(source: socket.socket, target: socket.socket, limit: int | None = None) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
                limit = None if limit is None else limit - len(data)
                if limit is not None and limit <= 0:
                    break
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                limit = breaks_after.pop(0) if breaks_after else None
                threading.Thread(target=carry, args=(client, limit), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    with listener:
        yield int(listener.getsockname()[1])


def test_descriptors_name_what_is_pushed() -> None:
    assert describe(DATA) == Descriptor(LAYER_TYPE, digest_of(DATA), len(DATA))
