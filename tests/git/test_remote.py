"""Git over HTTP against real servers on loopback: dulwich's, and git's own program where it is there."""

import base64
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mirrors.git import Bounds, GitAddress, GitError, Pack, Remote, Tree
from mirrors.registry.errors import RegistryError
from mirrors.registry.transport import Connection, Timeouts
from mirrors.stopping import Stopped, StopSignal
from tests.fakes.git import FakeGit
from tests.fakes.proxy import FakeProxy
from tests.fakes.registry import FakeRegistry
from tests.fakes.tls import Authority
from tests.registry.conftest import MemorySink

FILES = {"index.json": b"{}", "pkg/npm/a/a.json": b'{"a": 1}', "pkg/b.json": b"b" * 5000}
LOOSE = Connection(insecure=True)
QUICK = Timeouts(connect=5, read=5, attempts=2, source_seconds=20, backoff=0.01)
LIMIT = 1024 * 1024


@pytest.fixture(
    params=[
        "dulwich 0",
        pytest.param("git 2", marks=pytest.mark.peers),
        pytest.param("git 0", marks=pytest.mark.peers),
    ]
)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FakeGit]:
    program, version = request.param.split()
    if program == "git" and shutil.which("git") is None:
        pytest.skip("the git program is not installed")
    with FakeGit(tmp_path / "repositories", version=int(version), program=program == "git") as fake:
        yield fake


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeGit]:
    with FakeGit(tmp_path / "repositories") as fake:
        yield fake


def remote(fake: FakeGit, ref: str = "", connection: Connection = LOOSE, **how: Any) -> Remote:
    how = {"stop": StopSignal(), "timeouts": QUICK, **how}
    return Remote(GitAddress(how.pop("url", "") or fake.url(), ref), connection, **how)


def fetched(fake: FakeGit, tmp_path: Path, ref: str = "") -> tuple[str, dict[str, bytes]]:
    """The commit, and its files."""
    asked = remote(fake, ref)
    head, sink = asked.head(), MemorySink()
    asked.fetch(head.commit, sink, LIMIT)
    file = tmp_path / "pack"
    file.write_bytes(bytes(sink.data))
    with file.open("rb") as opened:
        pack = Pack(opened, Bounds())
        tree = Tree(pack, head.commit)
        return head.commit, {each.path: tree.read(each) for each in tree.files}


def test_it_finds_the_default_branch_and_fetches_its_newest_commit(server: FakeGit, tmp_path: Path) -> None:
    server.commit({"index.json": b"old"})
    commit = server.commit(FILES)
    assert remote(server).head().ref == "main"
    assert fetched(server, tmp_path) == (commit, FILES)


def test_it_fetches_a_branch_with_a_slash_a_tag_and_a_commit(server: FakeGit, tmp_path: Path) -> None:
    first = server.commit({"a": b"1"}, tag="v1.0")
    other = server.commit({"b": b"2"}, branch="release/1.0")
    assert fetched(server, tmp_path, "release/1.0") == (other, {"b": b"2"})
    assert fetched(server, tmp_path, "v1.0") == (first, {"a": b"1"})
    assert remote(server, first).head().commit == first


def test_history_stays_where_it_is(fake: FakeGit) -> None:
    big = bytes(range(256)) * 2000
    fake.commit({"big": big, "index.json": b"1"})
    fake.commit({"index.json": b"2"})
    asked, sink = remote(fake), MemorySink()
    asked.fetch(asked.head().commit, sink, LIMIT)
    assert len(sink.data) < 1000


def test_a_branch_that_is_not_there_is_told_with_those_that_are(server: FakeGit) -> None:
    server.commit(FILES)
    server.commit(FILES, branch="next")
    with pytest.raises(GitError, match=r"has no branch 'mian'; it has: main, next\."):
        remote(server, "mian").head()


def test_an_empty_repository_is_told(server: FakeGit) -> None:
    server.repository()
    with pytest.raises(GitError, match="is empty"):
        remote(server).head()


def test_a_repository_that_is_not_there_is_told(fake: FakeGit) -> None:
    with pytest.raises(RegistryError) as refused:
        remote(fake, url=fake.url("nowhere.git")).head()
    assert refused.value.code in ("not-found", "server")


def test_asking_where_a_branch_stands_takes_two_small_requests(server: FakeGit) -> None:
    server.commit(FILES)
    remote(server, "main").head()
    asked = [(asked.method, asked.path) for asked in server.requests]
    assert asked[0] == ("GET", "/vexhub.git/info/refs")
    if server.version == 2:
        assert asked[1:] == [("POST", "/vexhub.git/git-upload-pack")]
        assert b"ref-prefix refs/heads/main" in server.requests[1].body
    else:
        assert not asked[1:]
    assert server.requests[0].headers["user-agent"].startswith("git/")


# The way there


@pytest.mark.parametrize("kind", ["basic", "bearer"])
def test_it_logs_in_with_the_first_request(kind: str, fake: FakeGit) -> None:
    fake.commit(FILES)
    basic = "Basic " + base64.b64encode(b"robot:geheim-123").decode()
    fake.authorization = basic if kind == "basic" else "Bearer geheim-123"
    own = {"username": "robot", "password": "geheim-123"} if kind == "basic" else {"token": "geheim-123"}
    asked = remote(fake, connection=Connection(insecure=True, **own))
    asked.fetch(asked.head().commit, MemorySink(), LIMIT)
    assert {request.headers.get("authorization") for request in fake.requests} == {fake.authorization}
    assert fake.count() == 2


def test_a_wrong_login_is_a_sentence_without_it(fake: FakeGit) -> None:
    fake.commit(FILES)
    fake.authorization = "Bearer right"
    with pytest.raises(RegistryError, match="401") as refused:
        remote(fake, connection=Connection(insecure=True, token="geheim-123")).head()
    assert "geheim" not in str(refused.value)


def test_a_repository_that_moved_is_followed_and_the_login_stays_behind(fake: FakeGit, tmp_path: Path) -> None:
    with FakeGit(tmp_path / "elsewhere") as other:
        commit = other.commit(FILES, "moved.git")
        target = other.url("moved.git") + "/info/refs?service=git-upload-pack"
        fake.answer("/info/refs", status="301 Moved", headers={"Location": target, "Content-Length": "0"})
        asked = remote(fake, connection=Connection(insecure=True, username="u", password="geheim-123"))
        assert asked.head().commit == commit
        asked.fetch(commit, MemorySink(), LIMIT)
        assert other.count() == 2 and all("authorization" not in request.headers for request in other.requests)


def test_a_redirect_to_something_else_is_refused(fake: FakeGit) -> None:
    fake.answer("/vexhub.git/info/refs", status="302 Found", headers={"Location": "/login", "Content-Length": "0"})
    fake.answer("/login", headers={"Content-Type": "text/html"}, body=b"<h1>Log in</h1>")
    with pytest.raises(RegistryError, match="does not answer as a git server: it sent 'text/html'"):
        remote(fake).head()


def test_a_dumb_server_is_refused(fake: FakeGit) -> None:
    with FakeRegistry() as files:
        files.put_file("/vexhub.git/info/refs", b"abc\trefs/heads/main\n")
        with pytest.raises(RegistryError, match="dumb HTTP"):
            remote(fake, url=files.url("/vexhub.git")).head()


def test_plain_http_needs_to_be_allowed(fake: FakeGit) -> None:
    fake.commit(FILES)
    with pytest.raises(RegistryError, match="is plain HTTP"):
        remote(fake, connection=Connection()).head()


def test_a_private_authority_is_trusted_when_it_is_given(tmp_path: Path) -> None:
    authority = Authority()
    with FakeGit(tmp_path / "tls", tls=authority.issue()) as fake:
        commit = fake.commit(FILES)
        assert remote(fake, connection=Connection(ca_pem=authority.pem)).head().commit == commit
        with pytest.raises(RegistryError, match="certificate"):
            remote(fake, connection=Connection()).head()


def test_it_goes_through_the_proxy_and_is_not_led_into_our_network(tmp_path: Path) -> None:
    authority = Authority()
    certificate = authority.issue("git.example.com")
    with FakeProxy() as proxy, FakeGit(tmp_path / "tls", tls=certificate) as fake, FakeGit(tmp_path / "inner") as inner:
        proxy.routes["git.example.com:443"] = fake.port
        commit = fake.commit(FILES)
        outside = Connection(ca_pem=authority.pem, proxy=proxy.url)
        asked = remote(fake, connection=outside, url="https://git.example.com/vexhub.git")
        asked.fetch(asked.head().commit, MemorySink(), LIMIT)
        assert asked.head().commit == commit
        assert set(proxy.seen) == {"CONNECT git.example.com:443"}
        target = inner.url().replace("http:", "https:") + "/info/refs?service=git-upload-pack"
        fake.answer("/info/refs", status="302 Found", headers={"Location": target, "Content-Length": "0"})
        with pytest.raises(RegistryError, match=r"redirects to the private address 127\.0\.0\.1"):
            remote(fake, connection=outside, url="https://git.example.com/vexhub.git").head()
        assert inner.count() == 0


# What goes wrong


def pkt(text: bytes) -> bytes:
    return b"%04x" % (len(text) + 4) + text


ADVERTISED = {"Content-Type": "application/x-git-upload-pack-advertisement"}
RESULT = {"Content-Type": "application/x-git-upload-pack-result"}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "is empty"),
        (b"zzzz", "length of a packet"),
        (b"0003", "length of a packet"),
        (b"fff0abc", "broke off"),
        (pkt(b"# service=git-upload-pack\n") + pkt(b"x"), "not what a git server says"),
        (pkt(b"<html>\n"), "list of branches"),
        (pkt(b"../../etc HEAD\0\n"), "list of branches"),
        (pkt(b"version 2\n") + pkt(b"object-format=sha256\n") + b"0000", "SHA-256"),
    ],
)
def test_an_advertisement_that_is_none_is_a_sentence(body: bytes, said: str, fake: FakeGit) -> None:
    fake.answer("/info/refs", headers=ADVERTISED, body=body)
    with pytest.raises(GitError, match=said):
        remote(fake).head()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (pkt(b"ERR access denied\x07\n"), r"refused: access denied\."),
        (pkt(b"packfile\n") + pkt(b"\x03out of memory\n"), r"broke off: out of memory\."),
        (pkt(b"packfile\n") + b"0000", "sent no pack"),
    ],
)
def test_a_server_that_refuses_the_pack_is_quoted(body: bytes, said: str, fake: FakeGit) -> None:
    commit = fake.commit(FILES)
    asked = remote(fake)
    asked.head()
    fake.answer("/git-upload-pack", headers=RESULT, body=body)
    with pytest.raises(GitError, match=said):
        asked.fetch(commit, MemorySink(), LIMIT)


def test_a_pack_that_breaks_off_is_asked_for_again_from_its_beginning(fake: FakeGit) -> None:
    commit = fake.commit(FILES)
    asked, sink = remote(fake), MemorySink()
    asked.head()
    fake.answer("/git-upload-pack", headers=RESULT, body=pkt(b"packfile\n") + pkt(b"\x01PACKrubbish"), times=1)
    asked.fetch(commit, sink, LIMIT)
    assert bytes(sink.data[:4]) == b"PACK" and b"rubbish" not in sink.data


def test_a_pack_without_end_is_cut_at_the_limit(fake: FakeGit) -> None:
    commit = fake.commit(FILES)
    asked = remote(fake)
    asked.head()

    def endless() -> Iterator[bytes]:
        yield pkt(b"packfile\n")
        while not fake.closing.is_set():
            yield pkt(b"\x01" + bytes(60_000))

    fake.answer("/git-upload-pack", headers=RESULT, body=endless)
    with pytest.raises(RegistryError, match="more than the 300000 bytes allowed"):
        asked.fetch(commit, MemorySink(), 300_000)


def test_a_stop_ends_a_fetch_at_once(fake: FakeGit) -> None:
    commit = fake.commit(FILES)
    stop = StopSignal()
    asked = remote(fake, stop=stop, timeouts=Timeouts())
    asked.head()

    def silent() -> Iterator[bytes]:
        yield pkt(b"packfile\n")
        threading.Timer(0.05, stop.set).start()
        fake.closing.wait(20)

    fake.answer("/git-upload-pack", headers=RESULT, body=silent)
    with pytest.raises(Stopped):
        asked.fetch(commit, MemorySink(), LIMIT)
    assert not fake.closing.is_set()
