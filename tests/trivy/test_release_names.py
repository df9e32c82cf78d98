"""Where release files are, what they are called, and which version is which."""

import itertools

import pytest

from mirrors.trivy.release import (
    ReleaseError,
    is_older,
    parse_platform,
    parse_source,
    parse_version,
    parse_wanted,
    version_in_address,
    version_in_answer,
)


def test_a_github_repository_has_its_releases_where_github_has_them():
    place = parse_source("https://github.com/aquasecurity/trivy")
    assert place.latest_url == "https://github.com/aquasecurity/trivy/releases/latest"
    name = place.file_name("0.74.0", "Linux-64bit")
    base = "https://github.com/aquasecurity/trivy/releases/download/v0.74.0/"
    assert place.address("0.74.0", name) == base + "trivy_0.74.0_Linux-64bit.tar.gz"
    assert place.checksums_name("0.74.0") == "trivy_0.74.0_checksums.txt"


@pytest.mark.parametrize(
    ("platform", "name"),
    [
        ("Linux-ARM64", "trivy_0.74.0_Linux-ARM64.tar.gz"),
        ("windows-64bit", "trivy_0.74.0_windows-64bit.zip"),
        ("Linux-64bit.deb", "trivy_0.74.0_Linux-64bit.deb"),
        ("Linux-s390x.rpm", "trivy_0.74.0_Linux-s390x.rpm"),
        ("macOS-ARM64", "trivy_0.74.0_macOS-ARM64.tar.gz"),
    ],
)
def test_files_are_called_as_trivy_calls_them(platform, name):
    assert parse_source("https://host/trivy/v{version}/").file_name("0.74.0", platform) == name


@pytest.mark.parametrize(
    ("source", "latest"),
    [
        ("https://host/trivy/v{version}/", "https://host/trivy/latest"),
        ("https://host:8443/a/b/{version}/c/", "https://host:8443/a/b/latest"),
        ("https://git.example/o/r/releases/download/v{version}/", "https://git.example/o/r/releases/latest"),
        ("https://host/trivy/trivy_{version}_{platform}", "https://host/trivy/latest"),
        ("https://host/{version}/#latest=https://other/now.json", "https://other/now.json"),
        ("https://github.com/aquasecurity/trivy#latest=https://other/now", "https://other/now"),
    ],
)
def test_the_latest_is_asked_beside_the_versions_or_where_it_is_said(source, latest):
    assert parse_source(source).latest_url == latest


def test_a_name_of_ones_own_gives_the_checksum_file_its_name_and_the_archives_their_ending():
    place = parse_source("https://host/v{version}/trivy-{version}-{platform}.tgz")
    assert place.file_name("1.2.3", "linux-amd64") == "trivy-1.2.3-linux-amd64.tgz"
    assert place.file_name("1.2.3", "windows-amd64") == "trivy-1.2.3-windows-amd64.tgz"
    assert place.file_name("1.2.3", "linux-amd64.deb") == "trivy-1.2.3-linux-amd64.deb"
    assert place.checksums_name("1.2.3") == "trivy-1.2.3-checksums.txt"


@pytest.mark.parametrize(
    "source",
    [
        "", "github.com/aquasecurity/trivy", "ftp://host/v{version}/", "https://host/trivy/", "https://host/v{version}",
        "https://host/v{version}/{arch}_{platform}", "https://{version}.example/v/", "https://host/v{version}/?token=x",
        "https://host/v{version}/#newest", "https://host/v{version}/#latest=nowhere", "https://u:p@host/v{version}/",
        "https://host/v{version}/a b_{platform}", "https://github.com/aquasecurity/trivy/releases",
        "https://host:99999/v{version}/", "https://[bad/v{version}/", "https://host/" + "x" * 600 + "{version}/",
    ],
)  # fmt: skip
def test_an_address_that_cannot_be_one_is_refused_with_what_would_be_right(source):
    with pytest.raises(ReleaseError) as refused:
        parse_source(source)
    assert refused.value.code == "source"


def test_known_platforms_get_their_own_spelling_and_others_keep_theirs():
    assert parse_platform(" linux-64BIT.deb ") == "Linux-64bit.deb"
    assert parse_platform("plan9-mips") == "plan9-mips"
    for text in ("", "../x", "a/b", "-x", "a b", "x" * 60, "linux/amd64"):
        with pytest.raises(ReleaseError, match="no platform"):
            parse_platform(text)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("", "latest"),
        (" Latest ", "latest"),
        ("v0.74.0", "0.74.0"),
        ("0.74.0", "0.74.0"),
        ("1.0.0-rc.1", "1.0.0-rc.1"),
        ("v0.74.0@sha256:" + "a" * 64, "0.74.0@sha256:" + "a" * 64),
    ],
)
def test_the_wanted_version_is_kept_in_one_form(text, kept):
    assert str(parse_wanted(text)) == kept


@pytest.mark.parametrize("text", ["newest", "1", "0.74.0@", "0.74.0@sha256:abc", "latest@sha256:" + "a" * 64, "../1.2"])
def test_what_is_no_version_is_refused(text):
    with pytest.raises(ReleaseError, match="no version"):
        parse_wanted(text)


def test_versions_are_ordered_by_number_and_a_prerelease_comes_before_its_release():
    rising = ["0.9.9", "0.68.2", "0.69.0-rc.1", "0.69.0-rc.2", "0.69.0-rc.10", "0.69.0", "0.69.1", "0.100.0", "1.0"]
    for before, after in itertools.pairwise(rising):
        assert is_older(before, after) and not is_older(after, before)
    assert not is_older("0.74.0", "0.74") and not is_older("0.74.0", "0.74.0")


def test_a_version_is_found_in_an_address_and_in_an_answer():
    assert version_in_address("https://github.com/a/b/releases/tag/v0.74.0") == "0.74.0"
    assert version_in_address("https://host/files/trivy/0.74.0/") == "0.74.0"
    assert version_in_address("https://github.com/a/b/releases") is None
    assert version_in_address("https://[bad") is None
    assert version_in_answer(b" v0.74.0\n") == "0.74.0"
    assert version_in_answer(b'{"latest": "0.74.0"}') == "0.74.0"
    for raw in (b"<html>0.74.0</html>", b"{" * 100_000, b"\xff\xfe", b"0.74.0 0.75.0", b'{"tag_name": null}'):
        assert version_in_answer(raw) is None
    assert parse_version("9" * 100 + ".1") is None
