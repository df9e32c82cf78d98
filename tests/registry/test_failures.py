"""Every way a source fails: its code, whether it is temporary, its sentence; and when it is tried again."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from mirrors.registry.client import RegistryClient
from mirrors.registry.errors import CODES, RegistryError, answered, clean, redact_url
from mirrors.registry.transport import Timeouts
from tests.fakes.registry import FakeRegistry
from tests.registry.conftest import QUICK, SHORT, Recorder, reference

Make = Callable[..., RegistryClient]
REPOSITORY = "aquasec/trivy-db"
HTTP = {"scheme": "http"}


def refused(client: RegistryClient, host: FakeRegistry | str) -> RegistryError:
    with pytest.raises(RegistryError) as caught:
        client.head_manifest(reference(host))
    error = caught.value
    assert error.code in CODES and error.registry and error.operation
    assert str(error).endswith(".") and "\n" not in str(error) and ".." not in str(error).replace("…", "")
    return error


@contextmanager
def server_that(answers: bytes) -> Iterator[str]:
    """A socket that says the same to everyone and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    connection.sendall(answers)

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)


# Statuses


@pytest.mark.parametrize(
    ("status", "code", "temporary", "requests"),
    [
        (400, "unsupported", False, 1), (401, "auth", False, 1), (403, "forbidden", False, 2),
        (404, "not-found", False, 2), (405, "unsupported", False, 2), (408, "timeout", True, 4),
        (410, "not-found", False, 1), (418, "unsupported", False, 1), (429, "rate-limited", True, 4),
        (451, "forbidden", False, 1), (500, "server", True, 4), (501, "unsupported", False, 2),
        (502, "server", True, 4), (503, "server", True, 4), (504, "server", True, 4), (599, "server", True, 4),
        (204, "malformed", False, 1), (304, "redirect", False, 1),
    ],
)  # fmt: skip
def test_each_status_has_its_meaning(
    fake: FakeRegistry, client_for: Make, status: int, code: str, temporary: bool, requests: int
) -> None:
    fake.push(REPOSITORY, "2")
    fake.fault(status=status, times=None, headers={"WWW-Authenticate": "Basic"} if status == 401 else {})
    error = refused(client_for(fake, memory={"scheme": "https"} if status == 400 else HTTP), fake)
    assert (error.code, error.status, error.temporary) == (code, status, temporary)
    assert f"{fake.host} answered {status}" in str(error)
    assert len(fake.requests) == requests
    assert error.attempts == (4 if temporary else 1)


def test_it_recovers_from_passing_trouble(fake: FakeRegistry, client_for: Make, heard: Recorder) -> None:
    fake.push(REPOSITORY, "2")
    for status in (500, 503, 408):
        fake.fault(status=status)
    client_for(fake).head_manifest(reference(fake))
    assert [attempt for _, attempt, _ in heard.retries] == [1, 2, 3]
    pauses = [pause for *_, pause in heard.retries]
    assert 0.0075 <= pauses[0] <= 0.0125 and pauses[1] < pauses[2] <= 0.05


def test_the_sentence_says_who_what_and_what_next(fake: FakeRegistry, client_for: Make) -> None:
    fake.fault(status=429, times=None, body=b'{"errors":[{"code":"TOOMANYREQUESTS","message":"slow\\u0000 down\\n"}]}')
    error = refused(client_for(fake, memory=HTTP), fake)
    assert str(error) == (
        f"{fake.host} answered 429 (too many requests) to HEAD manifest (4 attempts). "
        "Sync less often, give this source a login, or put another source first."
    )
    with pytest.raises(RegistryError) as caught:
        client_for(fake, memory=HTTP).fetch_manifest(reference(fake))
    assert "saying 'TOOMANYREQUESTS: slow down'" in str(caught.value)
    assert caught.value.detail == "TOOMANYREQUESTS: slow down"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b'{"errors": 7}',
        b'{"errors": [7]}',
        b'{"errors": [{"code": null}]}',
        b"[" * 30000,
        b"\xff",
    ],
)
@pytest.mark.usefixtures("tidy")
def test_an_error_body_that_is_odd_does_no_harm(fake: FakeRegistry, client_for: Make, body: bytes) -> None:
    fake.fault("/manifests/", status=404, body=body, times=None)
    error = refused(client_for(fake), fake)
    assert error.code == "not-found" and error.detail == ""


@pytest.mark.parametrize("how", [{"endless": True}, {"body": b"x" * 100_000}, {"stall_after": 3, "body": b"abcdef"}])
def test_an_error_body_is_bounded(fake: FakeRegistry, client_for: Make, how: dict[str, Any]) -> None:
    fake.fault("/manifests/", status=404, times=None, **how)
    assert refused(client_for(fake, timeouts=SHORT), fake).code == "not-found"


def test_long_errors_are_cut(fake: FakeRegistry, client_for: Make) -> None:
    fake.fault(status=404, times=None, body=b'{"errors":[{"code":"%s","message":"%s"}]}' % (b"A" * 9000, b"b" * 9000))
    assert len(str(refused(client_for(fake, memory=HTTP), fake))) < 500


def test_a_password_that_comes_back_is_hidden(fake: FakeRegistry, client_for: Make) -> None:
    fake.require_basic("u", "right")
    fake.fault(status=403, times=None, body=b'{"errors":[{"code":"DENIED","message":"no: hunter2-hunter2"}]}')
    error = refused(client_for(fake, username="u", password="hunter2-hunter2"), fake)
    assert "hunter2" not in str(error) and "hunter2" not in error.detail and "DENIED" in error.detail


# Retry-After


def test_a_short_retry_after_is_waited_out(fake: FakeRegistry, client_for: Make, heard: Recorder) -> None:
    fake.push(REPOSITORY, "2")
    fake.fault(status=429, headers={"Retry-After": "0.3"})
    client_for(fake).head_manifest(reference(fake))
    assert heard.retries[0][2] == pytest.approx(0.3)


@pytest.mark.parametrize("text", ["35.2µs", "soon", "-5", "1e9", "Mon, 01 Jan 2001 00:00:00 GMT"])
def test_nonsense_in_retry_after_gets_the_usual_pause(
    fake: FakeRegistry, client_for: Make, heard: Recorder, text: str
) -> None:
    fake.push(REPOSITORY, "2")
    fake.fault(status=429, headers={"Retry-After": text})
    client_for(fake).head_manifest(reference(fake))
    assert 0.0075 <= heard.retries[0][2] <= 0.0125


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Retry-After": "3600"}, 3600.0),
        ({"Retry-After": "999999999999"}, 7 * 86400.0),
        ({"Retry-After": "Fri, 20 Nov 2026 13:00:00 GMT", "Date": "Fri, 20 Nov 2026 12:00:00 GMT"}, 3600.0),
    ],
)
def test_a_long_retry_after_ends_it_at_once(
    fake: FakeRegistry, client_for: Make, headers: dict[str, str], expected: float
) -> None:
    fake.fault(status=429, headers=headers, times=None)
    error = refused(client_for(fake, memory=HTTP), fake)
    assert error.retry_after == expected and error.temporary and len(fake.requests) == 1
    assert "asks us to wait" in str(error)


def test_retry_after_of_503_counts_too(fake: FakeRegistry, client_for: Make) -> None:
    fake.fault(status=503, headers={"Retry-After": "100"}, times=None)
    assert refused(client_for(fake, memory=HTTP), fake).retry_after == 100


# Connections


def test_a_refused_connection_is_named(fake: FakeRegistry, client_for: Make) -> None:
    fake.close()
    client = client_for(fake)
    error = refused(client, fake)
    assert (error.code, error.temporary, error.attempts) == ("refused", True, 4)
    assert f"{fake.host} refused the connection" in str(error) and "firewall" in str(error)
    assert client.requests == 0


def fails_with(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    real = socket.getaddrinfo

    def look_up(host: str, *args: Any, **kwargs: Any) -> Any:
        if host == "registry.example.com":
            raise socket.gaierror(code, "scripted")
        return real(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


def test_an_unknown_name_is_named_and_not_tried_again(client_for: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    fails_with(monkeypatch, socket.EAI_NONAME)
    error = refused(client_for("registry.example.com"), "registry.example.com")
    assert (error.code, error.temporary, error.attempts) == ("dns", False, 1)
    assert "The name of registry.example.com is not known to DNS" in str(error)


def test_a_dns_server_that_does_not_answer_is_tried_again(client_for: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    fails_with(monkeypatch, socket.EAI_AGAIN)
    error = refused(client_for("registry.example.com"), "registry.example.com")
    assert (error.code, error.temporary, error.attempts) == ("dns", True, 4)
    assert "no DNS server answered" in str(error)


def test_a_lookup_that_hangs_is_given_up(client_for: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    hang = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_a, **_k: hang.wait(5) and None)
    quick = replace(SHORT, connect=0.1, attempts=1)
    error = refused(client_for("registry.example.com", timeouts=quick), "registry.example.com")
    hang.set()
    assert error.code == "dns" and error.temporary


def leads_to(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[str, int]) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_a, **_k: found)


@contextmanager
def black_hole() -> Iterator[tuple[str, int]]:
    """An address whose SYNs are not answered: a listener with a full backlog."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        address = listening.getsockname()
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(address)
            fillers.append(filler)
        yield address
        for filler in fillers:
            filler.close()


def test_connecting_takes_no_longer_with_many_addresses(client_for: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    with black_hole() as address:
        leads_to(monkeypatch, *[address] * 5)
        quick = replace(SHORT, connect=1, attempts=1)
        client = client_for("registry.example.com", timeouts=quick, insecure=False)
        began = time.monotonic()
        error = refused(client, "registry.example.com")
        assert error.code == "timeout" and "took too long" in str(error)
        assert time.monotonic() - began < 0.9 * 5 * quick.connect


def test_a_dead_first_address_leaves_time_for_the_second(
    fake: FakeRegistry, client_for: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.push(REPOSITORY, "2")
    with black_hole() as address:
        leads_to(monkeypatch, address, ("127.0.0.1", fake.port))
        client = client_for("registry.example.com", timeouts=replace(QUICK, connect=1), memory=HTTP)
        client.head_manifest(reference("registry.example.com"))


def test_a_silent_server_is_named(fake: FakeRegistry, client_for: Make) -> None:
    fake.fault(stall=True, times=None)
    error = refused(client_for(fake, memory=HTTP, timeouts=replace(SHORT, read=0.05)), fake)
    assert (error.code, error.temporary, error.attempts) == ("stalled", True, 4)
    assert "sent nothing for too long" in str(error)


def test_a_header_may_not_trickle(fake: FakeRegistry, client_for: Make) -> None:
    fake.push(REPOSITORY, "2")
    fake.fault(header_trickle=0.02, times=None)
    quick = replace(SHORT, read=0.15, attempts=1)
    assert refused(client_for(fake, memory=HTTP, timeouts=quick), fake).code == "stalled"


def test_a_server_that_hangs_up_is_named(fake: FakeRegistry, client_for: Make) -> None:
    fake.fault(drop=True, times=None)
    error = refused(client_for(fake, insecure=True, memory=HTTP), fake)
    assert error.temporary and error.attempts == 4
    assert error.code in ("server", "tls")


@pytest.mark.parametrize(
    "answer", [b"SSH-2.0-OpenSSH_9.2\r\n", b"\x00\x01\x02\x03\r\n\r\n", b"220 smtp.example.com\r\n"]
)
def test_what_is_not_http_is_named(client_for: Make, answer: bytes) -> None:
    with server_that(answer) as host:
        error = refused(client_for(host), host)
        assert error.code in ("malformed", "tls", "server")


def test_an_endless_header_is_refused(client_for: Make) -> None:
    with server_that(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000) as host:
        assert refused(client_for(host, memory=HTTP), host).code in ("malformed", "server", "tls")
    with server_that(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 2000) as host:
        assert refused(client_for(host, memory=HTTP), host).code in ("malformed", "server", "tls")


def test_attempts_share_one_budget_of_time(fake: FakeRegistry, client_for: Make) -> None:
    fake.fault(stall=True, times=None)
    quick = replace(SHORT, read=0.2, source_seconds=0.5, attempts=100)
    began = time.monotonic()
    refused(client_for(fake, memory=HTTP, timeouts=quick), fake)
    assert time.monotonic() - began < 10, "a hundred attempts of 0.2 s each would take twice that"


def test_the_last_attempt_ends_with_the_budget(client_for: Make) -> None:
    """Connecting, shaking hands and waiting share what is left; they do not each get it."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        long = Timeouts(connect=30, read=30, source_seconds=0.3, backoff=0.01)
        began = time.monotonic()
        assert refused(client_for(host, timeouts=long, insecure=False), host).code == "timeout"
        assert time.monotonic() - began < 15, "far less than one of its own limits"


# Words


def test_texts_from_strangers_are_cleaned() -> None:
    assert clean("a\x00b\r\nc\x1b[31m \u202ed") == "a b c [31m d"
    assert clean("x" * 500, 10) == "x" * 9 + "…"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://cdn.example.com/a/b?sig=secret#x", "https://cdn.example.com/a/b"),
        ("https://user:pw@host:5000/x", "https://host:5000/x"),
        ("/relative?x=y", "/relative"),
        ("http://[x/?secret", "http://[x/"),
    ],
)
def test_urls_are_shown_without_secrets(url: str, shown: str) -> None:
    assert redact_url(url) == shown


@pytest.mark.parametrize("seconds", [31.0, 600.0, 86400.0])
def test_every_status_error_can_be_printed(seconds: float) -> None:
    for status in range(200, 600):
        error = answered(
            registry="ghcr.io", who="ghcr.io", host="ghcr.io", operation="GET blob", status=status, detail="",
            retry_after=seconds,
        )  # fmt: skip
        assert error.code in CODES and str(error).startswith(f"ghcr.io answered {status}") and error.advice
