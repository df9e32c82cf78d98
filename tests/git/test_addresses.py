"""How git repositories are written, as sources and in manifests."""

import pytest

from mirrors.git import GitAddress, GitError, parse_getter, parse_source_address


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("git+https://h.example/a/hub.git", GitAddress("https://h.example/a/hub.git")),
        ("git+https://h.example/a/hub.git@main", GitAddress("https://h.example/a/hub.git", "main")),
        ("git+https://h.example/a/hub@r/1.0//vex/hub", GitAddress("https://h.example/a/hub", "r/1.0", "vex/hub")),
        ("git+https://h.example:8443/hub.git//vex/", GitAddress("https://h.example:8443/hub.git", "", "vex")),
        ("GIT+HTTP://h.example/hub.git", GitAddress("http://h.example/hub.git")),
    ],
)  # fmt: skip
def test_a_source_is_taken_apart(text: str, expected: GitAddress) -> None:
    assert parse_source_address(text) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("git+ssh://git@h.example/hub.git", "without a key of our own"),
        ("ssh://git@h.example/hub.git", "without a key"),
        ("git://h.example/hub.git", "without a key"),
        ("git@github.com:owner/repo.git", "without a key"),
        ("git+file:///srv/hub.git", "without a key"),
        ("git+https://u:geheim@h.example/hub.git", "may not hold a user name"),
        ("git+https://h.example", "is not a git source"),
        ("git+https://h.example/", "is not a git source"),
        ("git+https://h.example/hub.git@", "is not a git source"),
        ("git+https://h.example/hub.git?ref=main", "query"),
        ("git+https://h.example/hub.git@--upload-pack=x", "no name of a branch"),
        ("git+https://h.example/hub.git@a..b", "no name of a branch"),
        ("git+https://h.example/hub.git@a/.b", "no name of a branch"),
        ("git+https://h.example/hub.git@a.lock", "no name of a branch"),
        ("git+https://h.example/hub.git//../x", "leaves its repository"),
        ("git+https://h.example/hub.git//a//b", "leaves its repository"),
        ("git+https://h.example:x/hub.git", "not the address"),
        ("git+https://h .example/hub.git", "not the address"),
    ],
)
def test_what_is_no_source_is_a_sentence(text: str, said: str) -> None:
    with pytest.raises(GitError, match=said) as refused:
        parse_source_address(text)
    assert "geheim" not in str(refused.value)


def test_a_getter_address_is_taken_apart() -> None:
    found = parse_getter("https://h.example/hub.git//vex?ref=v1.0&depth=1", "git::…")
    assert found == GitAddress("https://h.example/hub.git", "v1.0", "vex")
    assert parse_getter("https://h.example/hub", "").name == "hub"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ssh://git@h/hub.git", "https addresses"),
        ("git@h:hub.git", "https addresses"),
        ("https://u:p@h/hub.git", "user name"),
        ("https://h/hub.git?sshkey=abc", "'sshkey' to git is not followed"),
        ("https://h/hub.git?ref=--x", "no name of a branch"),
    ],
)
def test_a_getter_address_that_is_not_read_says_why(text: str, said: str) -> None:
    with pytest.raises(GitError, match=said):
        parse_getter(text, "git::" + text)


def test_a_name_is_fit_for_a_folder() -> None:
    assert GitAddress("https://h/a/vexhub.git").name == "vexhub"
    assert GitAddress("https://h/a/..%2f").name == "2f"
