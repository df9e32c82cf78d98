import pytest

from mirrors.trivy.vex import Location, VexError, check_checksum, parse_location, parse_source

DIGEST = "sha256:" + "ab" * 32


def test_a_base_url_names_its_manifest():
    for text in (
        "https://vex.example/hub",
        " https://vex.example/hub/ ",
        "https://vex.example/hub/.well-known/vex-repository.json",
    ):
        source = parse_source(text)
        assert (source.form, source.url, source.host) == ("base", "https://vex.example/hub", "vex.example")
        assert source.manifest_url == "https://vex.example/hub/.well-known/vex-repository.json"
        assert source.candidates == ()


@pytest.mark.parametrize(
    "text", ["https://github.com/aquasecurity/vexhub", "https://github.com/aquasecurity/vexhub.git/"]
)
def test_a_github_repository_is_fetched_as_an_archive_of_main_else_master(text):
    source = parse_source(text)

    assert (source.form, source.url) == ("github", "https://github.com/aquasecurity/vexhub")
    assert [candidate.fetch_url for candidate in source.candidates] == [
        "https://github.com/aquasecurity/vexhub/archive/refs/heads/main.tar.gz",
        "https://github.com/aquasecurity/vexhub/archive/refs/heads/master.tar.gz",
    ]
    assert {candidate.subdir for candidate in source.candidates} == {"*"}


def test_a_git_repository_and_a_directory_are_taken():
    source = parse_source("git+https://h.example/hub.git@main//vex")
    assert (source.form, source.url, source.git.ref, source.git.subdir) == (
        "git",
        "https://h.example/hub.git",
        "main",
        "vex",
    )
    for text in ("/srv/vex//hub", "file:///srv/vex//hub", "file:/srv/vex//hub"):
        source = parse_source(text)
        assert (source.form, source.url, source.subdir) == ("directory", "/srv/vex", "hub")


def test_a_location_that_is_a_git_repository_is_taken_apart():
    location = parse_location("git::https://h.example/hub.git//vex?ref=v1&depth=1")
    assert location.supported and location.git.ref == "v1" and location.subdir == "vex"
    assert location.fetch_url == "https://h.example/hub.git"


def test_an_archive_url_names_its_folder():
    source = parse_source("http://127.0.0.1:5055/vex/main.tar.gz//vexhub-main?archive=tar.gz&ref=1")

    assert (source.form, source.subdir) == ("archive", "vexhub-main")
    assert source.url == source.candidates[0].fetch_url == "http://127.0.0.1:5055/vex/main.tar.gz?ref=1"
    assert parse_source("https://h.example/v.zip").candidates[0].format == "zip"
    assert parse_source("https://github.com/a/b/archive/refs/heads/x.zip//b-x").form == "archive"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "needs https:// and a host"),
        ("vex.example/hub", "needs https:// and a host"),
        ("file:///", "not a directory of this machine"),
        ("file://host/etc", "not a directory of this machine"),
        ("/a/../b", "not a directory of this machine"),
        ("git+ssh://h.example/x.git", "without a key of our own"),
        ("git::https://vex.example/x.git", "needs https:// and a host"),
        ("https://", "needs https:// and a host"),
        ("https://vex.example:port/", "needs https:// and a host"),
        ("https://user:pass@vex.example/hub", "may not hold a user name or password"),
        ("ssh://user:pass@vex.example/hub", "without a key of our own"),
        ("git+https://user:pass@vex.example/hub", "may not hold a user name or password"),
        ("https://vex.example/hub#x", "fragment"),
        ("https://vex.example/hub?x=1", "no query"),
        ("https://vex.example/hub.tar.xz", "archives of the format tar.xz are not read"),
        ("https://vex.example/hub//sub", "no archive"),
        ("https://github.com/owner", "of GitHub write https://github.com/OWNER/REPO"),
        ("https://github.com/owner/repo/tree/main", "of GitHub write https://github.com/OWNER/REPO"),
    ],
)
def test_it_refuses_other_sources(text, said):
    with pytest.raises(VexError, match=said) as caught:
        parse_source(text)
    assert caught.value.code == "source"
    assert "pass@" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "fetch_url", "subdir", "format"),
    [
        ("https://h/a.tar.gz//s", "https://h/a.tar.gz", "s", "tar.gz"),
        ("https://h/a.tgz", "https://h/a.tgz", "", "tar.gz"),
        ("https://h/a.zip//s/t/", "https://h/a.zip", "s/t", "zip"),
        ("https::https://h/a.zip", "https://h/a.zip", "", "zip"),
        ("https://h/a//s?archive=tar.gz", "https://h/a", "s", "tar.gz"),
        ("https://h/a.bin?archive=zip&b=%20c&filename=x", "https://h/a.bin?b=%20c", "", "zip"),
        ("https://h/a.tar.gz//s-*?x=//y", "https://h/a.tar.gz?x=//y", "s-*", "tar.gz"),
        ("https://h/a.tar.gz?url=https://other/x", "https://h/a.tar.gz?url=https://other/x", "", "tar.gz"),
        ("https://h/a.tar.gz//s?checksum=md5:00", "https://h/a.tar.gz", "s", "tar.gz"),
    ],
)
def test_it_takes_locations_apart_as_go_getter_does(text, fetch_url, subdir, format):
    location = parse_location(text)
    assert location.supported, location.reason
    assert (location.original, location.fetch_url, location.subdir, location.format) == (
        text,
        fetch_url,
        subdir,
        format,
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("git::ssh://git@h/a.git//s", "of git repositories only those at https addresses are mirrored"),
        ("git::https://h/a.git//../s", "The folder in the address 'git::https://h/a.git//../s' leaves its repository"),
        ("s3::https://s3.amazonaws.com/b/a.tar.gz", "the getter s3:: is not mirrored"),
        ("ftp://h/a.tar.gz", "only http and https addresses are mirrored"),
        ("github.com/owner/repo", "only http and https addresses are mirrored"),
        ("https://u:p@h/a.tar.gz", "its address holds a user name or password"),
        ("https://h/a.tar.zst", "archives of the format tar.zst are not read, only tar.gz and zip"),
        ("https://h/a.tar.gz?archive=false", "it does not end in .tar.gz or .zip, so it is no archive"),
        ("https://h/a.tar.gz/", "it does not end in .tar.gz or .zip, so it is no archive"),
        ("https://h/a", "it does not end in .tar.gz or .zip, so it is no archive"),
    ],
)
def test_what_cannot_be_mirrored_is_said_not_raised(text, reason):
    location = parse_location(text)
    assert (location.supported, location.reason) == (False, reason)


@pytest.mark.parametrize(
    "text", ["", " ", "https://h/a\n.tar.gz", "https://h/a.tar.gz//../x", "https://h/a.tar.gz///x", "x" * 5000]
)
def test_it_refuses_hostile_locations(text):
    with pytest.raises(VexError) as caught:
        parse_location(text)
    assert caught.value.code == "manifest"


def located(checksum):
    return Location("x", "x", "", "zip", checksum=checksum)


def test_a_sha256_checksum_is_compared():
    assert check_checksum(located(""), DIGEST) == ""
    assert check_checksum(located(DIGEST), DIGEST) == ""
    assert check_checksum(located("AB" * 32), DIGEST) == ""
    with pytest.raises(VexError, match="its address demands sha256:cd") as caught:
        check_checksum(located("sha256:" + "cd" * 32), DIGEST)
    assert caught.value.code == "checksum"


@pytest.mark.parametrize("checksum", ["md5:0123", "file:https://h/sums", "0" * 40])
def test_other_checksums_are_reported(checksum):
    assert "was not compared; only sha256 is" in check_checksum(located(checksum), DIGEST)
