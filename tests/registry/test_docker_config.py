"""The login for one registry out of a docker config file."""

import base64
import json

import pytest

from mirrors.registry.docker_config import LIMIT, Credentials, DockerConfigError, NotNamed, credentials_for


def auth(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def config(entry: object, host: str = "registry.example", **more: object) -> str:
    return json.dumps({"auths": {host: entry}, **more})


@pytest.mark.parametrize(
    ("written", "asked"),
    [
        ("registry.example", "registry.example"),
        ("https://registry.example/v2/", "registry.example"),
        ("registry.example:443", "registry.example"),
        ("Registry.Example", "registry.example"),
        ("registry.example:5000", "registry.example:5000"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("docker.io", "registry-1.docker.io"),
    ],
)
def test_a_registry_is_found_however_it_is_written(written: str, asked: str) -> None:
    assert credentials_for(config({"auth": auth("u:p:q")}, written), asked) == Credentials("u", "p:q")


def test_a_port_is_another_registry() -> None:
    with pytest.raises(NotNamed, match=r"no login for registry\.example:5000 \(it has: registry\.example\)"):
        credentials_for(config({"auth": auth("u:p")}), "registry.example:5000")


def test_user_and_password_may_stand_apart() -> None:
    assert credentials_for(config({"username": "u", "password": "p"}), "registry.example") == Credentials("u", "p")


def test_tokens_are_told_apart() -> None:
    entry = {"auth": auth("<token>:"), "identitytoken": "idt"}
    assert credentials_for(config(entry), "registry.example") == Credentials("<token>", identity_token="idt")
    assert credentials_for(config({"registrytoken": "rt"}), "registry.example") == Credentials(registry_token="rt")


@pytest.mark.parametrize("more", [{"credsStore": "desktop"}, {"credHelpers": {"registry.example": "desktop"}}])
def test_a_credential_helper_is_named_and_not_run(more: dict[str, object]) -> None:
    with pytest.raises(DockerConfigError, match="credential helper desktop, which is not run here"):
        credentials_for(config({}, **more), "registry.example")


def test_a_store_for_other_registries_is_no_reason() -> None:
    with pytest.raises(NotNamed):
        credentials_for(config({}, "other.example", credsStore="desktop"), "registry.example")


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "null", "[" * 100_000, "{}", '{"auths": []}', '{"auths": {"registry.example": 7}}',
        '{"auths": {"registry.example": {"auth": 7}}}', '{"auths": {"registry.example": {"auth": "geheim"}}}',
        config({"auth": auth("geheim")}), config({"username": "u", "password": "geheim\n"}),
        '{"auths": {"http://[": {}}, "credHelpers": [1]}', config({"auth": "é"}),
    ],
)  # fmt: skip
def test_what_is_no_login_is_a_sentence_without_the_secret(text: str) -> None:
    with pytest.raises(DockerConfigError) as refused:
        credentials_for(text, "registry.example")
    assert str(refused.value).endswith(".") and "geheim" not in str(refused.value)


def test_an_entry_for_the_host_comes_before_one_for_a_path_below_it() -> None:
    entries = {f"registry.example{path}": {"auth": auth(f"u{path}:p")} for path in ("/team", "", "/other")}
    text = json.dumps({"auths": entries})
    assert credentials_for(text, "registry.example").username == "u"
    del entries["registry.example"]
    assert credentials_for(json.dumps({"auths": entries}), "registry.example").username == "u/team"


def test_a_token_in_the_place_of_a_password_is_an_identity_token() -> None:
    found = credentials_for(config({"auth": auth("<token>:refresh")}), "registry.example")
    assert found == Credentials("<token>", identity_token="refresh")


def test_base64_without_its_padding_is_read() -> None:
    assert credentials_for(config({"auth": auth("u:12").rstrip("=")}), "registry.example") == Credentials("u", "12")


def test_a_text_that_is_too_long_is_not_looked_at() -> None:
    with pytest.raises(DockerConfigError, match="is not JSON"):
        credentials_for(config({"auth": auth("u:p")}) + " " * LIMIT, "registry.example")


def test_no_login_shows_in_a_repr() -> None:
    assert "geheim" not in repr(Credentials("u", "geheim", "geheim", "geheim"))
