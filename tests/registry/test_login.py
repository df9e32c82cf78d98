"""Logging in: who is asked, who sees the password, what is remembered."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mirrors.registry.challenges import (
    ChallengeError,
    check_realm,
    choose,
    may_have_password,
    parent_domain,
    parse_challenges,
    token_from,
)
from mirrors.registry.client import RegistryClient
from mirrors.registry.errors import RegistryError
from tests.fakes.proxy import FakeProxy
from tests.fakes.registry import FakeRegistry
from tests.registry.conftest import LAYER_TYPE, MemorySink, put_layer, reference

Make = Callable[..., RegistryClient]
REPOSITORY = "aquasec/trivy-db"
PASSWORD = "correct-horse-battery"


@pytest.fixture(autouse=True)
def _pushed(fake: FakeRegistry) -> None:
    fake.push(REPOSITORY, "2", layers=[(b"x", LAYER_TYPE, "db.tar.gz")])


def refused(client: RegistryClient, fake: FakeRegistry) -> RegistryError:
    with pytest.raises(RegistryError) as caught:
        client.head_manifest(reference(fake))
    assert PASSWORD not in str(caught.value)
    return caught.value


# Tokens


def test_it_fetches_an_anonymous_token(fake: FakeRegistry, client_for: Make) -> None:
    fake.require_token()
    client = client_for(fake)
    client.head_manifest(reference(fake))
    token_request = fake.seen("GET", "/token")[0]
    assert token_request.query == {"service": "fake", "scope": f"repository:{REPOSITORY}:pull"}
    assert token_request.headers["Authorization"] is None
    assert client.requests == 3


def test_an_unchanged_mirror_behind_tokens_costs_two_requests(fake: FakeRegistry, client_for: Make) -> None:
    fake.require_token()
    first = client_for(fake)
    first.head_manifest(reference(fake))
    fake.forget_requests()
    second = client_for(fake, memory=first.memory)
    second.head_manifest(reference(fake))
    assert [(request.method, request.path) for request in fake.requests] == [
        ("GET", "/token"),
        ("HEAD", f"/v2/{REPOSITORY}/manifests/2"),
    ]


def test_no_secret_is_remembered(fake: FakeRegistry, client_for: Make) -> None:
    fake.require_token(username="u", password=PASSWORD)
    client = client_for(fake, username="u", password=PASSWORD)
    client.head_manifest(reference(fake))
    assert PASSWORD not in repr(client.memory) and fake.tokens_issued[0] not in repr(client.memory)


@pytest.mark.parametrize("kept", [None, 7, {}, {"scheme": "x"}, {"scheme": "bearer", "realm": 7}, "bearer"])
def test_an_odd_memory_is_forgotten(fake: FakeRegistry, client_for: Make, kept: object) -> None:
    fake.require_token()
    client_for(fake, memory={"challenge": kept, "scheme": 7}).head_manifest(reference(fake))


def test_one_token_serves_manifest_and_blob(fake: FakeRegistry, client_for: Make) -> None:
    fake.require_token()
    layer = put_layer(fake, b"hello")
    client = client_for(fake)
    client.fetch_manifest(reference(fake))
    client.fetch_blob(REPOSITORY, layer, MemorySink())
    assert fake.count("GET", "/token") == 1


def test_every_repository_has_a_token_of_its_own(fake: FakeRegistry, client_for: Make) -> None:
    fake.require_token()
    fake.push("other/name", "1")
    client = client_for(fake)
    for _ in range(2):
        client.head_manifest(reference(fake))
        client.head_manifest(reference(fake, "other/name", "1"))
    assert fake.count("GET", "/token") == 2


def test_a_token_that_is_refused_is_dropped_and_asked_for_once_more(fake: FakeRegistry, client_for: Make) -> None:
    fake.require_token()
    client = client_for(fake)
    client.head_manifest(reference(fake))
    fake.revoke_tokens()
    client.head_manifest(reference(fake))
    assert fake.count("GET", "/token") == 2


def test_a_token_is_not_used_after_its_time(fake: FakeRegistry, client_for: Make) -> None:
    fake.require_token(expires_in=1)
    client = client_for(fake)
    client.head_manifest(reference(fake))
    tokens = client._login._tokens
    scope, (token, _) = next(iter(tokens.items()))
    tokens[scope] = (token, 0.0)
    client.head_manifest(reference(fake))
    assert fake.count("GET", "/token") == 2 and fake.count("HEAD") == 3


def test_a_token_that_never_helps_ends_at_once(fake: FakeRegistry, client_for: Make) -> None:
    fake.require_token()
    fake.fault(
        "/manifests/", status=401, times=None, headers={"WWW-Authenticate": f'Bearer realm="{fake.url("/token")}"'}
    )
    error = refused(client_for(fake), fake)
    assert (error.code, error.status) == ("auth", 401) and len(fake.requests) < 5


def test_it_reads_access_token_too(fake: FakeRegistry, client_for: Make) -> None:
    fake.require_token(token_key="access_token", expires_in=None)
    client_for(fake).head_manifest(reference(fake))


def test_it_logs_in_at_the_token_server(fake: FakeRegistry, client_for: Make) -> None:
    fake.require_token(username="robot", password=PASSWORD)
    client_for(fake, username="robot", password=PASSWORD).head_manifest(reference(fake))
    heads = fake.seen("HEAD")
    assert all("Basic" not in (request.headers["Authorization"] or "") for request in heads)


def test_a_wrong_password_is_named(fake: FakeRegistry, client_for: Make) -> None:
    fake.require_token(username="robot", password="right")
    error = refused(client_for(fake, username="robot", password=PASSWORD), fake)
    assert (error.code, error.status, error.temporary) == ("auth", 401, False)
    assert "user name and password" in str(error) and "bad credentials" in str(error)


@pytest.mark.parametrize(
    "how",
    [
        {"data": b"<html>"},
        {"data": b"{}"},
        {"data": b'{"token": 7}'},
        {"data": b'{"token": "a\\nb"}'},
        {"data": b"[" * 50000},
    ],
)
@pytest.mark.usefixtures("tidy")
def test_a_token_server_that_talks_nonsense_is_named(
    fake: FakeRegistry, client_for: Make, how: dict[str, object]
) -> None:
    fake.require_token()
    fake.fault("/token", **how)
    error = refused(client_for(fake), fake)
    assert error.code == "auth" and "no usable token" in str(error)


@pytest.mark.parametrize("how", [{"endless": True}, {"data": b" " * 70_000}])
def test_a_token_answer_has_a_ceiling(fake: FakeRegistry, client_for: Make, how: dict[str, object]) -> None:
    fake.require_token()
    fake.fault("/token", **how)
    assert refused(client_for(fake), fake).code == "too-large"


def test_a_token_server_in_trouble_is_tried_again(fake: FakeRegistry, client_for: Make) -> None:
    fake.require_token()
    fake.fault("/token", status=503, times=2)
    client_for(fake).head_manifest(reference(fake))


def test_a_token_servers_refusal_is_not_tried_again(fake: FakeRegistry, client_for: Make) -> None:
    fake.require_token()
    fake.fault("/token", status=403, body=b'{"errors":[{"code":"DENIED","message":"requested access is denied"}]}')
    error = refused(client_for(fake), fake)
    assert error.code == "forbidden" and "DENIED: requested access is denied" in str(error)
    assert len(fake.requests) == 2


def test_a_remembered_token_server_that_is_gone_is_forgotten(fake: FakeRegistry, client_for: Make) -> None:
    gone = {"scheme": "bearer", "realm": fake.url("/gone"), "service": "", "scope": ""}
    client = client_for(fake, memory={"scheme": "http", "challenge": gone})
    client.head_manifest(reference(fake))
    assert "challenge" not in client.memory


def test_a_fixed_token_is_sent_as_it_is(fake: FakeRegistry, client_for: Make) -> None:
    fake.require_token()
    fake.tokens_issued.append(f"mine|repository:{REPOSITORY}:pull")
    client = client_for(fake, token=f"mine|repository:{REPOSITORY}:pull")
    client.head_manifest(reference(fake))
    assert client.requests == 1
    error = refused(client_for(fake, token="wrong-token"), fake)
    assert error.code == "auth" and fake.count("GET", "/token") == 0


# Basic


def test_it_logs_in_by_basic_and_remembers_to(fake: FakeRegistry, client_for: Make) -> None:
    fake.require_basic("robot", PASSWORD)
    first = client_for(fake, username="robot", password=PASSWORD)
    first.head_manifest(reference(fake))
    assert first.requests == 2
    second = client_for(fake, username="robot", password=PASSWORD, memory=first.memory)
    second.head_manifest(reference(fake))
    assert second.requests == 1


@pytest.mark.parametrize("login", [{}, {"username": "robot", "password": "wrong" + PASSWORD}])
def test_a_missing_or_wrong_basic_login_is_named(fake: FakeRegistry, client_for: Make, login: dict[str, str]) -> None:
    fake.require_basic("robot", PASSWORD)
    error = refused(client_for(fake, **login), fake)
    assert error.code == "auth" and error.status == 401 and "password" in str(error)


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (None, "does not say how to log in"),
        ("Negotiate", "'negotiate', which is not supported"),
        ("Bearer service=x", "names no token server"),
        (",,,;;;===", "does not say how"),
    ],
)
def test_a_challenge_that_cannot_be_followed_is_named(
    fake: FakeRegistry, client_for: Make, header: str | None, words: str
) -> None:
    fake.fault(status=401, headers={"WWW-Authenticate": header})
    error = refused(client_for(fake), fake)
    assert error.code == "auth" and words in str(error)


def test_nothing_is_read_from_the_home_directory(
    fake: FakeRegistry, client_for: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login ambient password ambient\n")
    (tmp_path / ".docker").mkdir()
    ambient = {"credsStore": "evil", "auths": {fake.host: {"auth": "YW1iaWVudDphbWJpZW50"}}}
    (tmp_path / ".docker" / "config.json").write_text(json.dumps(ambient))
    fake.require_token()
    client = client_for(fake)
    client.head_manifest(reference(fake))
    client.get_manifest(f"{fake.host}/{REPOSITORY}:2")
    assert all("Basic" not in (request.headers["Authorization"] or "") for request in fake.requests)


# Whom a token server may be


def test_an_inner_token_server_is_refused(fake: FakeRegistry, other: FakeRegistry, client_for: Make) -> None:
    fake.require_token(realm=f"http://localhost:{other.port}/token")
    error = refused(client_for(fake), fake)
    assert error.code == "auth" and "inner address" in str(error) and other.requests == []


def test_a_password_does_not_go_to_a_stranger(fake: FakeRegistry, other: FakeRegistry, client_for: Make) -> None:
    with FakeProxy() as proxy:
        proxy.routes["registry.example.com:80"] = fake.port
        proxy.routes["tokens.stranger.net:80"] = other.port
        fake.require_token(username="u", password=PASSWORD, realm="http://tokens.stranger.net/token")
        memory = {"scheme": "http"}
        client = client_for("registry.example.com", memory=memory, proxy=proxy.url, username="u", password=PASSWORD)
        with pytest.raises(RegistryError) as caught:
            client.head_manifest(reference("registry.example.com"))
        assert "tokens.stranger.net is another party" in str(caught.value)
        assert other.requests == []


def test_a_password_goes_to_the_same_partys_token_server(
    fake: FakeRegistry, other: FakeRegistry, client_for: Make
) -> None:
    with FakeProxy() as proxy:
        proxy.routes["registry.example.com:80"] = fake.port
        proxy.routes["auth.example.com:80"] = other.port
        fake.require_token(username="u", password=PASSWORD, realm="http://auth.example.com/token")
        other.require_token(username="u", password=PASSWORD)
        other.tokens_issued = fake.tokens_issued
        memory = {"scheme": "http"}
        client = client_for("registry.example.com", memory=memory, proxy=proxy.url, username="u", password=PASSWORD)
        client.head_manifest(reference("registry.example.com"))
        assert other.seen("GET", "/token")[0].headers["Authorization"].startswith("Basic ")


@pytest.mark.parametrize(
    ("realm", "insecure", "words"),
    [
        ("http://auth.docker.io/token", False, "not reached by https"),
        ("http://auth.docker.io/token", True, "not reached by https"),
        ("https://127.0.0.1/token", True, "inner address"),
        ("https://10.0.0.1/token", False, "inner address"),
        ("https://[::1]/token", False, "inner address"),
        ("https://[::ffff:10.0.0.1]/token", False, "inner address"),
        ("https://169.254.169.254/latest", False, "inner address"),
        ("https://localhost/token", False, "inner address"),
        ("https://user:pw@auth.docker.io/token", False, "no usable address"),
        ("ftp://auth.docker.io", False, "not reached by https"),
        ("https://", False, "no usable address"),
        ("https://[x/", False, "no usable address"),
        ("https://a\nb/", False, "no usable address"),
        ("just text", False, "no usable address"),
    ],
)
def test_a_token_server_must_be_https_and_outside(realm: str, insecure: bool, words: str) -> None:
    with pytest.raises(ChallengeError, match=words):
        check_realm(realm, "registry-1.docker.io", "https", insecure=insecure)


def test_a_plain_registry_may_have_a_plain_token_server() -> None:
    check_realm("http://127.0.0.1:5001/token", "127.0.0.1:5000", "http", insecure=True)
    check_realm("https://auth.docker.io/token", "registry-1.docker.io", "https", insecure=False)


@pytest.mark.parametrize(
    ("host", "registry", "allowed"),
    [
        ("auth.docker.io", "registry-1.docker.io", True),
        ("ghcr.io", "ghcr.io", True),
        ("ghcr.io", "lscr.io", True),
        ("gitlab.example.com", "registry.example.com:5050", True),
        ("example.com", "registry.example.com", True),
        ("evil.com", "registry.example.com", False),
        ("example.com.evil.net", "registry.example.com", False),
        ("evil.co.uk", "registry.co.uk", False),
        ("auth.firm.co.uk", "registry.firm.co.uk", True),
        ("evil.azurecr.io", "firm.azurecr.io", False),
        ("b.s3.amazonaws.com", "a.s3.amazonaws.com", False),
        ("evil", "registry", False),
        ("10.0.0.2", "10.0.0.1", False),
    ],
)
def test_a_password_stays_within_one_party(host: str, registry: str, allowed: bool) -> None:
    assert may_have_password(f"https://{host}/token", registry) is allowed


def test_addresses_have_no_parent() -> None:
    assert parent_domain("10.0.0.1") == "" == parent_domain("localhost") == parent_domain("[::1]")


# Reading challenges


BOTH = {"realm": "https://a/b", "service": "s"}


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ('Bearer realm="https://a/b",service="s",scope="x,y"', [("bearer", BOTH | {"scope": "x,y"})]),
        ("Bearer realm=https://a/b, service=s", [("bearer", BOTH)]),
        ('Basic realm="a \\"b\\""', [("basic", {"realm": 'a "b"'})]),
        ('Negotiate, Basic realm="x"', [("negotiate", {}), ("basic", {"realm": "x"})]),
        ('Basic realm="x", Bearer realm="y"', [("basic", {"realm": "x"}), ("bearer", {"realm": "y"})]),
        ('BEARER REALM = "y"', [("bearer", {"realm": "y"})]),
        ("Basic", [("basic", {})]),
        ("", []),
        ('="x"', [("x", {})]),
    ],
)
def test_it_reads_challenges(header: str, expected: list[tuple[str, dict[str, str]]]) -> None:
    assert parse_challenges(header) == expected


def test_it_reads_a_hostile_challenge_quickly() -> None:
    parse_challenges('Bearer realm="' + '\\"' * 100_000)
    parse_challenges("a=" * 100_000)
    parse_challenges("Bearer " + 'a="b",' * 100_000)


def test_it_prefers_bearer_and_keeps_only_odd_scopes() -> None:
    assert choose('Basic realm="x", Bearer realm="y",scope="repository:user/image:pull"').scope == ""
    assert choose('Bearer realm="y",scope="aws"').scope == "aws"


def test_a_challenge_with_control_characters_is_not_remembered() -> None:
    with pytest.raises(ChallengeError, match="control characters"):
        choose('Bearer realm="https://registry.example/token",service="a\0b"')


@pytest.mark.parametrize("lives", [None, "60", -1, 0, True, float("inf")])
def test_a_token_with_an_odd_life_lives_a_minute(lives: object) -> None:
    assert token_from({"token": "t", "expires_in": lives}) == ("t", 60.0)
