import json

import pytest

from mirrors.demo.assets import build_vex_manifest
from mirrors.trivy.vex import VexError, offline_manifest, parse_repository, rewrite_manifest, served_name

UPSTREAM = "https://github.com/aquasecurity/vexhub/archive/refs/heads/main.tar.gz//vexhub-main"
SECOND = "https://mirror.example/vexhub.zip//vexhub-*?archive=zip"
MANIFEST = {
    "zeta": [1, {"deep": None}],
    "name": "VEX Hub",
    "versions": [
        {
            "spec_version": "0.1",
            "x-unknown": {"b": 1, "a": 2.5},
            "locations": [
                {"note": "first", "url": UPSTREAM, "other": "ü"},
                {"url": "git::ssh://git@h/x.git"},
                {"url": SECOND},
            ],
            "update_interval": "24h",
            "repository_specific": {"location": {"url": "oci://ghcr.io/example.com/vex-db:0"}},
        },
        {"spec_version": "0.2", "locations": [{"url": "https://h/next.tar.gz"}], "update_interval": "4h"},
    ],
    "description": "d",
}
BASE = "https://airgap.example/vex/vexhub"


def raw(document=MANIFEST):
    return json.dumps(document).encode()


def served():
    locations = parse_repository(raw()).versions[0].locations
    return {locations[index].original: served_name("0.1", index, locations[index]) for index in (0, 2)}


def test_it_reads_what_vex_hub_publishes():
    repository = parse_repository(build_vex_manifest("https://vex.example"))

    version = repository.version()
    assert (repository.name, version.spec_version, version.update_interval) == ("Demo VEX Hub", "0.1", "24h")
    assert version.locations[0].fetch_url == "https://vex.example/vexhub.tar.gz"


def test_it_reads_several_versions_and_locations():
    repository = parse_repository(raw())

    assert [version.spec_version for version in repository.versions] == ["0.1", "0.2"]
    assert [location.supported for location in repository.versions[0].locations] == [True, False, True]
    assert repository.version("0.3") is None


def test_names_are_made_of_places_and_keep_the_ending():
    assert list(served().values()) == ["v0.1-0.tar.gz", "v0.1-2.zip"]


def test_rewriting_points_at_us_and_keeps_all_else():
    rewritten = json.loads(rewrite_manifest(raw(), BASE + "/", served()))

    expected = json.loads(raw())
    expected["versions"][0]["locations"] = [
        {"note": "first", "url": BASE + "/v0.1-0.tar.gz//vexhub-main", "other": "ü"},
        {"url": BASE + "/v0.1-2.zip//vexhub-*"},
    ]
    assert rewritten == expected
    assert list(rewritten) == list(MANIFEST)
    assert list(rewritten["versions"][0]) == list(MANIFEST["versions"][0])
    assert list(rewritten["versions"][0]["locations"][0]) == ["note", "url", "other"]


def test_a_version_of_which_nothing_is_served_stays_as_it_is():
    assert json.loads(rewrite_manifest(raw(), BASE, {})) == MANIFEST
    rewritten = json.loads(rewrite_manifest(raw(), BASE, served()))
    assert rewritten["versions"][1] == MANIFEST["versions"][1]


def test_an_address_without_a_folder_gets_none():
    rewritten = json.loads(rewrite_manifest(raw(), BASE, {"https://h/next.tar.gz": "v0.2-0.tar.gz"}))
    assert rewritten["versions"][1]["locations"] == [{"url": BASE + "/v0.2-0.tar.gz"}]


def test_a_name_may_bring_its_own_folder():
    rewritten = json.loads(rewrite_manifest(raw(), BASE, {UPSTREAM: "v0.1-0.tar.gz//fork-main"}))
    assert rewritten["versions"][0]["locations"][0]["url"] == BASE + "/v0.1-0.tar.gz//fork-main"


def test_rewriting_is_the_same_every_time():
    assert rewrite_manifest(raw(), BASE, served()) == rewrite_manifest(raw(), BASE, served())


def test_an_offline_manifest_never_asks_again():
    offline = json.loads(offline_manifest(raw()))
    assert [version["update_interval"] for version in offline["versions"]] == ["876000h", "876000h"]
    assert offline["versions"][0]["locations"] == MANIFEST["versions"][0]["locations"]


def with_version(**changes):
    version = {"spec_version": "0.1", "locations": [{"url": UPSTREAM}], "update_interval": "24h", **changes}
    return {"versions": [{key: value for key, value in version.items() if value is not ...}]}


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({}, "vex-repository.json has no versions."),
        ({"versions": []}, "has no versions, so it names no archive"),
        ({"versions": {}}, "has {} at versions instead of a list"),
        ({"versions": ["0.1"]}, 'has "0.1" at versions[0] instead of an object'),
        ([], "holds [] instead of an object"),
        (None, "holds null instead of an object"),
        (with_version(locations=...), "has no versions[0].locations"),
        (with_version(locations=[UPSTREAM]), 'at versions[0].locations[0] instead of an object with a "url"'),
        (with_version(locations=[{}]), "has no address (url) at versions[0].locations[0]"),
        (with_version(locations=[{"url": 7}]), "has no address (url)"),
        (with_version(locations=[{"url": UPSTREAM + "/../.."}]), "leaves its archive"),
        (with_version(locations=[{"url": UPSTREAM}] * 101), "more than 100 entries"),
        (with_version(spec_version=0.1), "has the spec_version 0.1 at versions[0]"),
        (with_version(spec_version="../0.1"), 'has the spec_version "../0.1"'),
        (with_version(spec_version="0..1"), "has the spec_version"),
        (with_version(update_interval="daily"), "expected one such as 24h"),
        (with_version(update_interval=True), "expected one such as 24h"),
        ({"versions": with_version()["versions"] * 2}, "names a spec_version twice"),
    ],
)
def test_it_refuses_malformed_manifests(document, said):
    with pytest.raises(VexError) as caught:
        parse_repository(raw(document))
    assert caught.value.code == "manifest"
    assert said in str(caught.value)


@pytest.mark.parametrize("interval", ["", "24h", "1h30m", "90m", "0", 3600000000000, ...])
def test_it_takes_the_intervals_that_trivy_takes(interval):
    assert parse_repository(raw(with_version(update_interval=interval))).version()


@pytest.mark.parametrize("data", [b"", b"<!DOCTYPE html>", b"\xff\xfe", b"[" * 100_000, b'{"versions": NaN}', b"{"])
def test_it_refuses_what_is_not_json(data):
    with pytest.raises(VexError, match=r"is not JSON.*Check that the source is a VEX repository"):
        parse_repository(data)


def test_it_refuses_a_huge_or_deep_manifest():
    with pytest.raises(VexError, match="larger than 1024 KiB"):
        parse_repository(b" " * (1024 * 1024 + 1))
    deep = '{"versions": ' + "[" * 60 + "]" * 60 + "}"
    with pytest.raises(VexError, match="nested deeper than 40 levels"):
        parse_repository(deep.encode())


def test_a_byte_order_mark_is_no_fault():
    assert parse_repository(b"\xef\xbb\xbf" + raw()).name == "VEX Hub"


def test_it_rewrites_nothing_that_is_malformed():
    for write in (lambda text: rewrite_manifest(text, BASE, {}), offline_manifest):
        with pytest.raises(VexError, match="instead of an object with a"):
            write(raw(with_version(locations=["x"])))
