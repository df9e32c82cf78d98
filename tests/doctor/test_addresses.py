"""What somebody typed, and what is asked for it."""

import pytest

from mirrors.doctor import AddressError, targets_of


def test_a_host_alone_is_asked_for_everything_of_trivys():
    found = targets_of("registry.example:5000")
    assert [target.label for target in found] == [
        "registry.example:5000/aquasecurity/trivy-db:2",
        "registry.example:5000/aquasecurity/trivy-java-db:1",
        "registry.example:5000/aquasecurity/trivy-checks:2",
    ]
    assert found[0].others == ("aquasec/trivy-db",)


@pytest.mark.parametrize(
    ("text", "label", "kind"),
    [
        ("r.example/a/trivy-db", "r.example/a/trivy-db:2", "trivy-db"),
        ("r.example/a/trivy-java-db", "r.example/a/trivy-java-db:1", "trivy-java-db"),
        ("r.example/a/trivy-db-mirror:7", "r.example/a/trivy-db-mirror:7", "trivy-db"),
        # As Trivy does it: without a tag checks mean latest.
        ("r.example/a/trivy-checks", "r.example/a/trivy-checks:latest", "trivy-checks"),
        ("r.example/a/other", "r.example/a/other:latest", ""),
        ("r.example/a/b@sha256:" + "0" * 64, "r.example/a/b@sha256:" + "0" * 64, ""),
        ("docker.io/aquasec/trivy-db", "index.docker.io/aquasec/trivy-db:2", "trivy-db"),
    ],
)
def test_a_reference_is_read_as_trivy_reads_it(text, label, kind):
    (target,) = targets_of(f" {text} ")
    assert (target.label, target.kind) == (label, kind)


def test_a_web_address_is_a_vex_repository():
    (target,) = targets_of("https://mirror.example/vex/vexhub/")
    assert (target.url, target.kind) == ("https://mirror.example/vex/vexhub", "vex")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("https://registry.example:5000", "without https://"),
        ("https://registry.example/v2/", "without https://"),
        ("https://v.example/hub.tar.gz//main", "That is an archive"),
        ("https://u:p@v.example/vex", "user name or password"),
        ("file:///etc/passwd", "begins with https://"),
        ("git+https://git.example/vex", "begins with https://"),
        ("https://[", "is no web address"),
        ("", "is not a host name"),
        ("a b", "is not a host name"),
        ("r.example/UPPER", "is not a repository name"),
        ("r.example:99999", "not between 1 and 65535"),
        ("trivy-db/2", "names no registry"),
    ],
)
def test_what_is_no_address_is_refused_in_words(text, told):
    with pytest.raises(AddressError, match=told):
        targets_of(text)
