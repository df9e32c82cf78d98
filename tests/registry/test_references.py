"""References: what is taken, what is refused, and where requests go."""

import pytest

from mirrors.registry.references import Reference, ReferenceError, api_host, host_of

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    "text", ["robot:geheim@ghcr.io/a/b:1", "https://robot:geheim@ghcr.io/a", f"robot:geheim@ghcr.io/a@{DIGEST}"]
)
def test_a_password_in_it_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ReferenceError, match="fields of their own") as refused:
        Reference.parse(text)
    assert "geheim" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "registry", "repository", "tag", "digest"),
    [
        ("ghcr.io/aquasecurity/trivy-db:2", "ghcr.io", "aquasecurity/trivy-db", "2", None),
        ("GHCR.io/a/b:V1.0_x-y", "ghcr.io", "a/b", "V1.0_x-y", None),
        ("localhost/x:1", "localhost", "x", "1", None),
        ("localhost:5000/x:1", "localhost:5000", "x", "1", None),
        ("127.0.0.1:5000/a/b/c:1", "127.0.0.1:5000", "a/b/c", "1", None),
        ("[::1]:5000/x:1", "[::1]:5000", "x", "1", None),
        (f"ghcr.io/a/b@{DIGEST}", "ghcr.io", "a/b", None, DIGEST),
        (f"ghcr.io/a/b:2@{DIGEST}", "ghcr.io", "a/b", "2", DIGEST),
        ("docker.io/alpine:3", "docker.io", "library/alpine", "3", None),
        ("index.docker.io/aquasec/trivy-db:2", "docker.io", "aquasec/trivy-db", "2", None),
        (" ghcr.io/a/b__c.d--e:1 ", "ghcr.io", "a/b__c.d--e", "1", None),
    ],
)
def test_it_parses(text: str, registry: str, repository: str, tag: str | None, digest: str | None) -> None:
    assert Reference.parse(text) == Reference(registry, repository, tag, digest)


@pytest.mark.parametrize(
    "text",
    [
        "https://ghcr.io/a/b:1", "aquasec/trivy-db:2", "trivy-db", "", "ghcr.io", "ghcr.io/", "ghcr.io/a b:1",
        "ghcr.io/A/b:1", "ghcr.io/a/../b:1", "ghcr.io/a//b:1", "ghcr.io/a/b:ta/g", "ghcr.io/a/b:", "ghcr.io/a/b:-x",
        "ghcr.io/a/b@sha256:abc", f"ghcr.io/a/b@{DIGEST.upper()}", f"ghcr.io/a/b@{DIGEST}x", "ghcr.io/a/b@",
        "ghcr.io:99999/a:1", "ghcr.io:0/a:1", "-ghcr.io/a:1", "user@ghcr.io/a:1", "ghcr.io/a\nb:1", "ghcr.io/ä:1",
        "[zz::1]/a:1", "ghcr.io/" + "a" * 300 + ":1", "ghcr.io/a:" + "1" * 129, "ghcr.io/a:1\x00", "x" * 700,
    ],
)  # fmt: skip
def test_it_refuses(text: str) -> None:
    with pytest.raises(ReferenceError) as caught:
        Reference.parse(text, default_tag="1")
    assert len(str(caught.value)) < 400


def test_it_takes_the_default_tag_only_where_there_is_none() -> None:
    assert Reference.parse("ghcr.io/a/b", "2").tag == "2"
    assert Reference.parse("ghcr.io/a/b:1", "2").tag == "1"
    assert Reference.parse(f"ghcr.io/a/b@{DIGEST}", "2").tag is None
    with pytest.raises(ReferenceError, match="has no tag"):
        Reference.parse("ghcr.io/a/b")


def test_it_prints_as_it_was_read() -> None:
    for text in ("ghcr.io/a/b:2", f"ghcr.io/a/b@{DIGEST}", f"ghcr.io/a/b:2@{DIGEST}"):
        assert str(Reference.parse(text)) == text


def test_it_asks_docker_hub_at_its_api_host() -> None:
    assert api_host(Reference.parse("docker.io/a/b:1").registry) == "registry-1.docker.io"
    assert api_host(Reference.parse("ghcr.io/a/b:1").registry) == "ghcr.io"


def test_a_digest_stands_in_the_url_before_a_tag() -> None:
    parsed = Reference.parse(f"ghcr.io/a/b:2@{DIGEST}")
    assert parsed.target == DIGEST
    assert Reference.parse("ghcr.io/a/b:2").at(DIGEST) == Reference("ghcr.io", "a/b", None, DIGEST)


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("ghcr.io/aquasecurity/trivy-db:2", "ghcr.io"),
        ("Registry.example:5000/a/b@sha256:" + "a" * 64, "registry.example:5000"),
        ("https://GitHub.com/aquasecurity/vexhub", "github.com"),
        ("http://127.0.0.1:5055", "127.0.0.1:5055"),
        ("https://h.example/a.tar.gz//b?x=https://other.example/", "h.example"),
    ],
)
def test_a_source_is_called_by_its_host(text: str, host: str) -> None:
    assert host_of(text) == host
