"""The worker's own TLS: answers as without, certificates that are renewed, and clients that do not speak it."""

import hashlib
import os
import socket
import ssl
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.tls import Authority, ServerCertificate
from tests.running.serving.conftest import SIZE, Server
from tests.running.serving.test_worker import GET, crowd, read_all, wait_until

AUTHORITY = Authority()


def put(folder: Path, pair: ServerCertificate) -> dict[str, str]:
    for name, text in (("cert.pem", pair.certificate_pem), ("key.pem", pair.key_pem)):
        (folder / f".{name}").write_text(text)
        os.replace(folder / f".{name}", folder / name)
    return {"AIRGAP_TLS_CERT": str(folder / "cert.pem"), "AIRGAP_TLS_KEY": str(folder / "key.pem")}


@pytest.fixture(scope="module")
def secure(tmp_path_factory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("tls")
    started = Server(folder, AIRGAP_PULL_THREADS="4", **put(folder, AUTHORITY.issue()))
    started.context = ssl.create_default_context(cadata=AUTHORITY.pem)
    try:
        yield started.wait_until_ready()
    finally:
        started.stop()


def test_it_speaks_tls_to_whoever_trusts_the_authority_and_says_https(secure):
    assert secure.get("/scheme") == "https"
    with secure.connect() as connected:
        assert connected.version() == "TLSv1.3"
    stranger = ssl.create_default_context()
    with pytest.raises(ssl.SSLCertVerificationError), socket.create_connection(("127.0.0.1", secure.port)) as plain:
        stranger.wrap_socket(plain, server_hostname="127.0.0.1")


def test_it_refuses_versions_older_than_1_2(secure):
    old = ssl.create_default_context(cadata=AUTHORITY.pem)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError), socket.create_connection(("127.0.0.1", secure.port)) as plain:
        old.wrap_socket(plain, server_hostname="127.0.0.1")


def test_whoever_speaks_plain_http_is_told_so(secure):
    with socket.create_connection(("127.0.0.1", secure.port), timeout=10) as plain:
        plain.sendall(GET.format("/").encode())
        assert b"This address speaks TLS; it begins with https://." in read_all(plain)


def test_files_streams_and_forms_arrive_whole(secure):
    wanted = hashlib.sha256(secure.file.read_bytes()).hexdigest()
    assert hashlib.sha256(secure.get("/v2/a/blobs/b?whole").encode("latin-1")).hexdigest() == wanted
    assert len(secure.get("/bundles/a/download?stream")) == 64 << 20
    assert secure.get("/echo", b"b" * 300_000).startswith("300000")
    assert secure.get("/echo", b"small") == "5 small"
    wait_until(lambda: {"whole", "stream"} <= set(secure.get("/taken").split()))


def test_a_client_that_breaks_off_has_taken_nothing(secure):
    said = secure.log.stat().st_size
    with secure.ask(GET.format("/v2/a/blobs/b?left").encode()) as asked:
        received = 0
        while received < SIZE // 2:
            received += len(asked.recv(1 << 20))
    secure.get("/slow")
    assert "left" not in secure.get("/taken").split()
    assert b"Traceback" not in secure.log.read_bytes()[said:]


def test_requests_that_come_in_one_piece_are_all_answered(secure):
    with secure.ask((GET.format("/scheme") * 3).encode()) as asked:
        answers = b""
        while answers.count(b"https") < 3:
            answers += asked.recv(4096)


def test_slow_clients_and_handshakes_that_never_come_do_not_stop_pages(secure):
    silent = [socket.create_connection(("127.0.0.1", secure.port)) for _ in range(100)]
    half = [socket.create_connection(("127.0.0.1", secure.port)) for _ in range(100)]
    readers = [secure.ask(GET.format("/v2/a/blobs/b?slow").encode()) for _ in range(20)]
    try:
        for one in half:
            one.sendall(b"\x16\x03\x01\x02\x00\x01")
        for reader in readers:
            assert reader.recv(12) == b"HTTP/1.1 200"
        crowd(secure, 60)
    finally:
        for one in (*silent, *half, *readers):
            one.close()


def test_a_renewed_certificate_serves_the_next_connection_and_a_wrong_one_does_not(secure):
    def served() -> str:
        with secure.connect() as connected:
            return ssl.DER_cert_to_PEM_cert(connected.getpeercert(binary_form=True)).strip()

    renewed = AUTHORITY.issue()
    assert served() != renewed.certificate_pem.strip()
    put(secure.folder, renewed)
    assert served() == renewed.certificate_pem.strip()
    (secure.folder / "key.pem").write_text(AUTHORITY.issue().key_pem)
    assert served() == renewed.certificate_pem.strip()
    assert "The certificate was renewed, but the one before stays in use. The key" in secure.log.read_text()
