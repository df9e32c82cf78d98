"""Logins at other hosts: what is taken, what is kept of it, what is sent, and what is told."""

import base64
import json

import pytest

from mirrors import content, logins
from mirrors.logins import NO_LOGIN, Login
from mirrors.models import LoginKind, Source
from mirrors.registry.transport import Connection
from mirrors.rules import RuleBroken

HOST = "registry.example:5000"


def config(**hosts: str) -> str:
    """A docker config file: host to `user:password`."""
    auths = {host: {"auth": base64.b64encode(login.encode()).decode()} for host, login in hosts.items()}
    return json.dumps({"auths": auths, "credsStore": ""})


def two_hosts() -> str:
    return config(**{HOST: "robot:geheim-1", "other.example": "eve:geheim-2"})


def kept(login: Login) -> Source:
    source = Source()
    logins.put(source, login, content.vault())
    return source


def connection(login: Login, registry: str = HOST) -> Connection:
    return logins.onto(Connection(), kept(logins.checked(login, HOST)), registry, content.vault())


def test_each_kind_is_sent_as_what_it_is(data_dir):
    assert connection(NO_LOGIN) == Connection()
    assert connection(logins.basic("u", "geheim")) == Connection(username="u", password="geheim")
    assert connection(Login("token", secret="geheim")) == Connection(token="geheim")
    assert connection(Login("docker", secret=two_hosts())) == Connection(username="robot", password="geheim-1")


def test_an_identity_token_and_a_registry_token_stay_what_they_are(data_dir):
    identity = json.dumps({"auths": {HOST: {"auth": "PHRva2VuPjo=", "identitytoken": "geheim"}}})
    assert connection(Login("docker", secret=identity)).identity_token == "geheim"
    fixed = json.dumps({"auths": {HOST: {"registrytoken": "geheim"}}})
    assert connection(Login("docker", secret=fixed)) == Connection(token="geheim")


def test_of_a_docker_config_only_the_login_for_that_registry_is_kept_and_only_it_gets_one(data_dir):
    login = logins.checked(Login("docker", secret=two_hosts()), HOST)
    assert "geheim-1" in login.secret and "geheim-2" not in login.secret and "other.example" not in login.secret
    assert connection(Login("docker", secret=two_hosts()), "elsewhere.example") == Connection()


def test_one_docker_config_serves_the_sources_it_names(data_dir):
    asked = [(Login("docker", secret=two_hosts()), host, host) for host in (HOST, "public.example")]
    assert [login.kind for login in logins.checked_each(asked)] == ["docker", "none"]
    with pytest.raises(RuleBroken, match=r"no login for public\.example \(it has: registry"):
        logins.checked_each(asked[1:])


@pytest.mark.parametrize(
    "text", ["geheim-123", " geheim-123\n", "Bearer geheim-123", "Authorization: Bearer geheim-123"]
)
def test_a_token_may_be_pasted_with_its_header(text):
    assert logins.checked(Login("token", secret=text), HOST).secret == "geheim-123"


@pytest.mark.parametrize(
    ("login", "setting", "said"),
    [
        (Login("basic", "u"), "password", "password of u for the hub"),
        (Login("basic", "", "p"), "username", "user name that the password for the hub"),
        (Login("token"), "token", "token for the hub"),
        (Login("token", secret="zwei geheime"), "token", "one word"),
        (Login("token", secret="g" * 8193), "token", "8192"),
        (Login("token", secret="gehéim"), "token", "printable"),
        (Login("docker"), "docker_config", "docker config file for the hub"),
        (Login("docker", secret="geheim"), "docker_config", "not JSON"),
        (Login("docker", secret=" " * 300_000), "docker_config", "256 KiB"),
        (Login("cookie"), "login", "no kind of login"),
    ],
)
def test_a_refusal_is_a_sentence_about_the_field_without_the_secret(login, setting, said):
    with pytest.raises(RuleBroken, match=said) as refused:
        logins.checked(login, HOST, "the hub")
    assert refused.value.setting == setting
    assert "geh" not in str(refused.value)


def test_what_is_sealed_already_stays_as_it_is(data_dir):
    for kind in (LoginKind.BASIC, LoginKind.TOKEN, LoginKind.DOCKER):
        source = kept(logins.checked(Login(kind, "u" if kind == "basic" else "", sealed="abc"), HOST))
        assert (source.login, source.secret_sealed) == (kind, "abc")


def test_a_change_is_told_by_kind_and_without_the_secret():
    basic, token, docker = Login("basic", "u", sealed="s"), Login("token", sealed="s"), Login("docker", sealed="s")
    assert logins.changes(NO_LOGIN, logins.basic("u", "geheim")) == ["user name u", "password changed"]
    assert logins.changes(basic, Login("basic", "v", sealed="s")) == ["user name v"]
    assert logins.changes(basic, Login("token", secret="geheim")) == ["token set"]
    assert logins.changes(token, Login("token", secret="geheim")) == ["token changed"]
    assert logins.changes(docker, Login("docker", secret="geheim")) == ["docker config file changed"]
    assert logins.changes(token, NO_LOGIN) == ["login removed"]
    assert logins.changes(docker, docker) == logins.changes(NO_LOGIN, NO_LOGIN) == []


def test_no_secret_is_in_a_repr_or_on_a_page():
    assert "geheim" not in repr(Login("token", secret="geheim", sealed="geheim"))
    texts = [Source(login=kind, username="robot", secret_sealed="x").login_text for kind in LoginKind.values]
    assert texts == ["", "as robot", "with a token", "with a docker config file"]
    assert Source(login="basic", username="robot").login_means == "with a password"
