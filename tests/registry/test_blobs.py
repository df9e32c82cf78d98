"""Blobs: streamed, resumed, and never a byte more than stated."""

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from mirrors.registry.client import RegistryClient
from mirrors.registry.errors import RegistryError
from mirrors.registry.manifests import Descriptor
from mirrors.registry.transport import Timeouts
from mirrors.stopping import Stopped, StopSignal
from tests.fakes.registry import FakeRegistry
from tests.registry.conftest import QUICK, SHORT, MemorySink, Recorder, put_layer, some_bytes

Make = Callable[..., RegistryClient]
REPOSITORY = "aquasec/trivy-db"
DATA = some_bytes(400_000)


@pytest.fixture
def layer(fake: FakeRegistry) -> Descriptor:
    return put_layer(fake, DATA)


def fetch(client: RegistryClient, layer: Descriptor, held: bytes = b"") -> MemorySink:
    sink = MemorySink(held)
    client.fetch_blob(REPOSITORY, layer, sink)
    return sink


def refused(client: RegistryClient, layer: Descriptor, held: bytes = b"") -> RegistryError:
    with pytest.raises(RegistryError) as caught:
        fetch(client, layer, held)
    return caught.value


def ranges(fake: FakeRegistry) -> list[str | None]:
    return [request.headers["Range"] for request in fake.seen("GET", "/blobs/")]


def test_it_streams_a_blob(fake: FakeRegistry, client_for: Make, layer: Descriptor, heard: Recorder) -> None:
    client = client_for(fake)
    assert fetch(client, layer).data == DATA
    assert client.bytes_downloaded == len(DATA) == heard.byte_count
    assert ranges(fake) == [None]


@pytest.mark.parametrize("how", [{"chunked": True}, {"close_delimited": True}])
def test_it_needs_no_content_length(
    fake: FakeRegistry, client_for: Make, layer: Descriptor, how: dict[str, bool]
) -> None:
    fake.fault("/blobs/", **how)
    assert fetch(client_for(fake), layer).data == DATA


def test_it_asks_nothing_for_what_is_complete(fake: FakeRegistry, client_for: Make, layer: Descriptor) -> None:
    assert fetch(client_for(fake), layer, DATA).data == DATA
    assert fetch(client_for(fake), put_layer(fake, b"")).data == b""
    assert fake.requests == []


def test_it_goes_on_where_an_earlier_run_stopped(fake: FakeRegistry, client_for: Make, layer: Descriptor) -> None:
    client = client_for(fake)
    assert fetch(client, layer, DATA[:150_000]).data == DATA
    assert ranges(fake) == [f"bytes=150000-{len(DATA) - 1}"]
    assert client.bytes_downloaded == len(DATA) - 150_000


@pytest.mark.parametrize("how", [{}, {"chunked": True}, {"close_delimited": True}])
def test_it_goes_on_after_a_break(
    fake: FakeRegistry, client_for: Make, layer: Descriptor, heard: Recorder, how: dict[str, bool]
) -> None:
    fake.fault("/blobs/", cut_after=100_000, **how)
    client = client_for(fake)
    assert fetch(client, layer).data == DATA
    assert ranges(fake) == [None, f"bytes=100000-{len(DATA) - 1}"]
    assert client.bytes_downloaded == len(DATA), "nothing came twice"
    assert len(heard.retries) == 1 and "broke off" in heard.retries[0][0]


def test_progress_resets_the_count_of_attempts(
    fake: FakeRegistry, client_for: Make, layer: Descriptor, heard: Recorder
) -> None:
    fake.fault("/blobs/", cut_after=40_000, times=8)
    assert fetch(client_for(fake), layer).data == DATA
    assert [attempt for _, attempt, _ in heard.retries] == [1] * 8


def test_breaking_off_after_a_few_bytes_each_time_is_no_progress(
    fake: FakeRegistry, client_for: Make, layer: Descriptor
) -> None:
    fake.fault("/blobs/", cut_after=3, times=None)
    slow = replace(QUICK, slow_bytes_per_second=1e9)
    error = refused(client_for(fake, timeouts=slow), layer)
    assert error.code == "truncated" and error.attempts == 4 and error.temporary
    assert len(fake.requests) == 4


def test_it_goes_back_through_the_registry_to_resume(
    fake: FakeRegistry, other: FakeRegistry, client_for: Make, layer: Descriptor
) -> None:
    fake.blob_host = other
    other.fault("/cdn/", cut_after=100_000)
    assert fetch(client_for(fake), layer).data == DATA
    assert fake.count("GET", "/blobs/") == 2 == other.count("GET", "/cdn/")
    assert other.requests[1].headers["Range"] == f"bytes=100000-{len(DATA) - 1}"


def test_a_server_that_ignores_range_is_read_past(fake: FakeRegistry, client_for: Make, layer: Descriptor) -> None:
    fake.fault("/blobs/", ignore_range=True, times=None)
    client = client_for(fake)
    assert fetch(client, layer, DATA[:150_001]).data == DATA
    assert client.bytes_downloaded == len(DATA) and len(fake.requests) == 1


def test_reading_past_and_breaking_off_for_ever_ends(fake: FakeRegistry, client_for: Make, layer: Descriptor) -> None:
    fake.fault("/blobs/", ignore_range=True, cut_after=100_000, times=None)
    error = refused(client_for(fake), layer, DATA[:150_000])
    assert error.code == "truncated" and len(fake.requests) == 4


@pytest.mark.parametrize(
    "how",
    [
        {"content_range": "bytes 0-9/10"},
        {"content_range": f"bytes 150000-399999/{10**9}"},
        {"content_range": "nonsense"},
        {"headers": {"Content-Range": None}},
        {"status": 416, "body": b"no"},
    ],
)
def test_a_wrong_part_is_not_taken_and_all_is_asked_for(
    fake: FakeRegistry, client_for: Make, layer: Descriptor, how: dict[str, object]
) -> None:
    fake.fault("/blobs/", **how)
    assert fetch(client_for(fake), layer, DATA[:150_000]).data == DATA
    assert ranges(fake) == [f"bytes=150000-{len(DATA) - 1}", None]


def test_a_part_nobody_asked_for_is_refused(fake: FakeRegistry, client_for: Make, layer: Descriptor) -> None:
    fake.fault("/blobs/", status=206, body=DATA)
    assert refused(client_for(fake), layer).code == "malformed"


@pytest.mark.parametrize("change", [-1, 1])
def test_a_content_length_that_contradicts_the_manifest_is_refused_at_once(
    fake: FakeRegistry, client_for: Make, layer: Descriptor, change: int
) -> None:
    sink = MemorySink()
    with pytest.raises(RegistryError) as caught:
        client_for(fake).fetch_blob(REPOSITORY, replace(layer, size=len(DATA) + change), sink)
    assert caught.value.code == "size" and not caught.value.temporary
    assert sink.offset == 0 and len(fake.requests) == 1


@pytest.mark.parametrize("how", [{"endless": True}, {"chunked": True, "data": DATA + b"x"}])
def test_a_byte_too_many_is_refused_and_not_written(
    fake: FakeRegistry, client_for: Make, layer: Descriptor, how: dict[str, object]
) -> None:
    fake.fault("/blobs/", **how)
    sink = MemorySink()
    with pytest.raises(RegistryError) as caught:
        client_for(fake).fetch_blob(REPOSITORY, layer, sink)
    assert caught.value.code == "size" and sink.offset <= len(DATA)


def test_a_compressed_blob_is_refused(fake: FakeRegistry, client_for: Make, layer: Descriptor) -> None:
    fake.fault("/blobs/", headers={"Content-Encoding": "gzip"})
    error = refused(client_for(fake), layer)
    assert error.code == "malformed" and "gzip" in str(error)


def test_a_silent_server_is_left_and_asked_again(
    fake: FakeRegistry, client_for: Make, layer: Descriptor, heard: Recorder
) -> None:
    fake.fault("/blobs/", stall_after=100_000)
    assert fetch(client_for(fake, timeouts=SHORT), layer).data == DATA
    assert "sent nothing for too long" in heard.retries[0][0]


@pytest.mark.parametrize("tls", [False, True])
def test_what_has_arrived_does_not_wait_for_what_has_not(client_for: Make, stop: StopSignal, tls: bool) -> None:
    """A worker that is killed during a silence has written everything that came before it."""
    with FakeRegistry(tls=tls) as fake:
        layer, sink = put_layer(fake, DATA), MemorySink()
        fake.fault("/blobs/", stall_after=300_001)
        client = client_for(fake, timeouts=replace(QUICK, read=30, source_seconds=60))

        def work() -> None:
            with contextlib.suppress(Stopped):
                client.fetch_blob(REPOSITORY, layer, sink)

        worker = threading.Thread(target=work)
        worker.start()
        deadline = time.monotonic() + 60
        while sink.offset < 300_001 and time.monotonic() < deadline:
            time.sleep(0.01)
        stop.set()
        worker.join(60)
        assert sink.data == DATA[:300_001]


def test_a_crawling_server_is_left_and_asked_again(
    fake: FakeRegistry, client_for: Make, layer: Descriptor, heard: Recorder
) -> None:
    fake.fault("/blobs/", trickle=(100, 0.05))
    assert fetch(client_for(fake, timeouts=replace(QUICK, slow_seconds=0.3)), layer).data == DATA
    assert "sends less than 10000 bytes a second" in heard.retries[0][0]


def test_a_source_that_never_recovers_ends_in_time(fake: FakeRegistry, client_for: Make, layer: Descriptor) -> None:
    fake.fault("/blobs/", trickle=(100, 0.05), times=None)
    short = Timeouts(connect=1, read=0.5, slow_seconds=0.3, source_seconds=0.5, attempts=50, backoff=0.01)
    error = refused(client_for(fake, timeouts=short), layer)
    assert error.code in ("slow", "stalled") and error.temporary and error.attempts < 5


def test_the_middle_of_a_body_may_not_trickle_either(fake: FakeRegistry, client_for: Make, layer: Descriptor) -> None:
    """One byte of a chunk's length line at a time: each recv brings one, and still nothing comes."""
    fake.fault("/blobs/", headers={"Transfer-Encoding": "chunked", "Content-Length": None}, data=b"0" * 20_000)
    fake.faults[-1].trickle = (1, 0.01)
    fake.faults[-1].times = None
    # Taken for progress, it would go on for minutes.
    error = refused(client_for(fake, timeouts=replace(SHORT, source_seconds=1)), layer)
    assert error.code in ("stalled", "slow", "truncated") and error.temporary


def test_a_missing_blob_is_named(fake: FakeRegistry, client_for: Make) -> None:
    missing = Descriptor("a/b", "sha256:" + "0" * 64, 5)
    error = refused(client_for(fake), missing)
    assert error.code == "not-found" and "BLOB_UNKNOWN" in str(error)


def test_hostile_names_never_reach_a_url(fake: FakeRegistry, client_for: Make) -> None:
    for repository, digest in (("../../admin", "sha256:" + "0" * 64), ("a/b", "sha256:../../x"), ("a b", "x")):
        with pytest.raises(ValueError):
            client_for(fake).fetch_blob(repository, Descriptor("a/b", digest, 5), MemorySink())
    assert fake.requests == []


def test_it_probes_one_byte_and_names_every_hop(
    fake: FakeRegistry, other: FakeRegistry, client_for: Make, layer: Descriptor
) -> None:
    fake.blob_host = other
    client = client_for(fake)
    hops = client.probe_layer(REPOSITORY, layer)
    assert [(hop.host, hop.address, hop.status) for hop in hops] == [
        (fake.host, "127.0.0.1", 307),
        (other.host, "127.0.0.1", 206),
    ]
    assert client.bytes_downloaded == 0 and other.requests[0].headers["Range"] == "bytes=0-0"


def test_a_probe_names_the_host_that_is_blocked(
    fake: FakeRegistry, other: FakeRegistry, client_for: Make, layer: Descriptor
) -> None:
    fake.blob_host = other
    other.close()
    with pytest.raises(RegistryError) as caught:
        client_for(fake).probe_layer(REPOSITORY, layer)
    error = caught.value
    assert error.code == "refused" and error.host == other.host and error.registry == fake.host
    assert f"{other.host} (where {fake.host} sent us) refused the connection" in str(error)
    assert [hop.host for hop in error.hops] == [fake.host]
