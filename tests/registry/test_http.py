"""Plain files (VEX manifests and archives) under the same rules."""

from typing import Any

import pytest

from mirrors.digests import digest_of
from mirrors.registry.errors import RegistryError
from mirrors.registry.http import UrlAnswer, fetch_file, fetch_url, probe_url, read_pointer, size_of
from mirrors.registry.manifests import Descriptor
from mirrors.registry.transport import Connection
from mirrors.stopping import StopSignal
from tests.fakes.registry import FakeRegistry
from tests.registry.conftest import QUICK, MemorySink, Recorder, some_bytes

DATA = some_bytes(200_000)


@pytest.fixture
def url(fake: FakeRegistry) -> str:
    return fake.put_file("/archive.tar.gz", DATA, headers={"ETag": '"v1"', "Content-Type": "application/gzip"})


def fetch(
    url: str, sink: MemorySink | None = None, *, limit: int = 10**6, etag: str = "", **connection: Any
) -> UrlAnswer:
    connection.setdefault("insecure", True)
    return fetch_url(
        url, Connection(**connection), sink or MemorySink(), stop=StopSignal(), timeouts=QUICK, limit=limit, etag=etag
    )


def refused(url: str, sink: MemorySink | None = None, **options: Any) -> RegistryError:
    with pytest.raises(RegistryError) as caught:
        fetch(url, sink, **options)
    return caught.value


def test_it_fetches_a_file(fake: FakeRegistry, url: str) -> None:
    sink = MemorySink()
    answer = fetch(url + "?ref=main", sink)
    assert sink.data == DATA
    assert (answer.status, answer.etag, answer.requests) == (200, '"v1"', 1)
    assert [(hop.host, hop.status) for hop in answer.hops] == [(fake.host, 200)]
    assert fake.requests[0].query == {"ref": "main"} and fake.requests[0].headers["Accept-Encoding"] == "identity"


def test_it_fetches_nothing_that_is_unchanged(url: str) -> None:
    sink = MemorySink()
    answer = fetch(url, sink, etag='"v1"')
    assert answer.status == 304 and answer.etag == '"v1"' and not sink.data and not sink.restarts


@pytest.mark.parametrize("etag", ['"a\x07b"', '"caf\u00e9"', '"' + "x" * 300 + '"'])
def test_an_etag_that_is_not_fit_to_be_kept_is_dropped(fake: FakeRegistry, etag: str) -> None:
    assert fetch(fake.put_file("/odd.tar.gz", DATA, headers={"ETag": etag})).etag == ""


def test_an_unasked_for_304_is_refused(fake: FakeRegistry, url: str) -> None:
    fake.fault(status=304)
    assert refused(url).status == 304


def test_it_starts_again_after_a_break(fake: FakeRegistry, url: str) -> None:
    fake.fault(cut_after=100_000)
    sink = MemorySink()
    answer = fetch(url, sink)
    assert sink.data == DATA and sink.restarts == 2 and answer.requests == 2


def test_a_file_that_always_breaks_off_ends(fake: FakeRegistry, url: str) -> None:
    fake.fault(cut_after=100_000, times=None)
    error = refused(url)
    assert error.code == "truncated" and len(fake.requests) == 4


@pytest.mark.parametrize("how", [{}, {"chunked": True}, {"endless": True}, {"close_delimited": True}])
def test_a_file_over_the_limit_is_refused(fake: FakeRegistry, url: str, how: dict[str, bool]) -> None:
    fake.fault(**how)
    sink = MemorySink()
    error = refused(url, sink, limit=len(DATA) - 1)
    assert error.code == "too-large" and sink.offset < len(DATA) and len(fake.requests) == 1
    assert "199999 bytes" in str(error)


def test_a_file_of_exactly_the_limit_is_taken(url: str) -> None:
    fetch(url, limit=len(DATA))


@pytest.mark.parametrize(
    ("status", "code"), [(401, "auth"), (403, "forbidden"), (404, "not-found"), (429, "rate-limited"), (500, "server")]
)
def test_refusals_are_named(fake: FakeRegistry, url: str, status: int, code: str) -> None:
    fake.fault(status=status, times=None)
    error = refused(url)
    assert (error.code, error.status, error.registry) == (code, status, fake.host)


@pytest.mark.parametrize("login", [{"token": "t0ken-secret"}, {"username": "u", "password": "p-secret"}])
def test_a_login_goes_to_the_files_own_host_only(
    fake: FakeRegistry, other: FakeRegistry, url: str, login: dict[str, str]
) -> None:
    target = other.put_file("/elsewhere", DATA)
    fake.fault(redirect=target + "?sig=very-secret")
    answer = fetch(url, **login)
    assert fake.requests[0].headers["Authorization"] is not None
    assert other.requests[0].headers["Authorization"] is None
    assert [hop.host for hop in answer.hops] == [fake.host, other.host]


def test_plain_http_has_to_be_allowed(fake: FakeRegistry, url: str) -> None:
    error = refused(url, insecure=False)
    assert error.code == "unsupported" and "--insecure" in str(error) and fake.requests == []


@pytest.mark.parametrize(
    "url", ["ftp://x/y", "x", "", "https://", "https://[x/", "https://a b/", "https://u:hunter2@h/x", "https://h:x/", "https://h/\n"]
)  # fmt: skip
def test_an_address_that_is_none_is_named(url: str) -> None:
    error = refused(url)
    assert error.code == "unsupported" and "hunter2" not in str(error)


def test_a_private_authority_holds_for_files(fake: FakeRegistry) -> None:
    with FakeRegistry(tls=True) as secure:
        url = secure.put_file("/x", b"x")
        assert refused(url, insecure=False).code == "ca"
        assert fetch(url, insecure=False, ca_pem=secure.ca_pem).hops[0].issuer == "Airgap Test Authority"


def test_a_compressed_body_is_refused(fake: FakeRegistry, url: str) -> None:
    fake.fault(headers={"Content-Encoding": "gzip"})
    assert refused(url).code == "malformed"


def test_it_tells_what_happens(fake: FakeRegistry, url: str) -> None:
    heard = Recorder()
    fake.fault(status=503)
    fetch_url(
        url, Connection(insecure=True), MemorySink(), stop=StopSignal(), listener=heard, timeouts=QUICK, limit=10**6
    )
    assert [status for *_, status in heard.requests] == [503, 200]
    assert len(heard.retries) == 1 and heard.byte_count == len(DATA)


def test_a_probe_fetches_one_byte_and_names_hops(fake: FakeRegistry, other: FakeRegistry, url: str) -> None:
    fake.fault(redirect=other.put_file("/elsewhere", DATA))
    hops = probe_url(url, Connection(insecure=True), stop=StopSignal(), timeouts=QUICK)
    assert [(hop.host, hop.status) for hop in hops] == [(fake.host, 307), (other.host, 206)]
    other.fault(status=403, times=None)
    fake.fault(redirect=other.url("/elsewhere"))
    with pytest.raises(RegistryError) as caught:
        probe_url(url, Connection(insecure=True), stop=StopSignal(), timeouts=QUICK)
    assert caught.value.host == other.host and len(caught.value.hops) == 2


# Files whose digest is known before


def known(url: str, sink: MemorySink, size: int = len(DATA), **connection: Any) -> None:
    connection.setdefault("insecure", True)
    descriptor = Descriptor("application/gzip", digest_of(DATA), size)
    fetch_file(url, Connection(**connection), descriptor, sink, stop=StopSignal(), timeouts=QUICK)


def test_a_file_of_known_size_goes_on_after_a_break(fake: FakeRegistry, url: str) -> None:
    fake.fault(cut_after=100_000)
    sink = MemorySink()
    known(url, sink)
    assert sink.data == DATA and not sink.restarts
    assert fake.requests[-1].headers["Range"] == f"bytes=100000-{len(DATA) - 1}"


def test_a_file_that_is_whole_already_is_not_asked_for(fake: FakeRegistry, url: str) -> None:
    sink = MemorySink()
    sink.write(DATA)
    known(url, sink)
    assert not fake.requests


def test_a_file_of_another_size_is_refused(url: str) -> None:
    with pytest.raises(RegistryError) as caught:
        known(url, MemorySink(), size=len(DATA) - 1)
    assert caught.value.code == "size" and "GET file" in str(caught.value)


def test_the_size_of_a_file_is_asked_with_its_first_byte(fake: FakeRegistry, url: str) -> None:
    def asked() -> int | None:
        return size_of(url, Connection(insecure=True), stop=StopSignal(), timeouts=QUICK)

    assert asked() == len(DATA) and fake.requests[-1].headers["Range"] == "bytes=0-0"
    fake.fault(ignore_range=True)
    assert asked() == len(DATA)
    fake.fault(chunked=True, ignore_range=True)
    assert asked() is None
    fake.fault(content_range="bytes 0-0/*")
    assert asked() is None


# Addresses that point to something newest


def pointed(url: str) -> tuple[str, bytes]:
    pointer = read_pointer(
        url, Connection(insecure=True), lambda target: "/tag/" in target, stop=StopSignal(), timeouts=QUICK, limit=100
    )
    return pointer.target, pointer.body


def test_a_redirect_that_is_enough_is_the_answer_and_not_followed(fake: FakeRegistry) -> None:
    fake.fault("/latest", redirect=fake.url("/releases/latest"), times=None)
    fake.faults[0].path = "/latest-of-all"
    fake.fault("/releases/latest", status=302, headers={"Location": "/tag/v1.0"}, times=None)
    assert pointed(fake.url("/latest-of-all")) == (fake.url("/tag/v1.0"), b"")
    assert fake.count("GET", "/tag/") == 0


def test_a_body_is_an_answer_too_and_bounded(fake: FakeRegistry) -> None:
    assert pointed(fake.put_file("/latest.txt", b"v1.0")) == ("", b"v1.0")
    with pytest.raises(RegistryError) as caught:
        pointed(fake.put_file("/latest.txt", b"v" * 101))
    assert caught.value.code == "too-large"


def test_a_redirect_to_what_is_no_web_address_is_not_even_an_answer(fake: FakeRegistry) -> None:
    fake.fault("/latest", status=302, headers={"Location": "ftp://10.0.0.1/tag/v1.0"})
    with pytest.raises(RegistryError) as caught:
        pointed(fake.url("/latest"))
    assert caught.value.code == "redirect"
