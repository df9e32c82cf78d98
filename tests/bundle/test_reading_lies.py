"""A well-made tar whose papers say other things than its content: every contradiction is told, all at once."""

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mirrors.bundle import BundledBlob
from mirrors.bundle.parsed import BundleReadError
from mirrors.bundle.sinks import into
from mirrors.digests import digest_of
from tests.bundle import samples
from tests.bundle.carried import Carrier, changed, problems_of, read, tar_of, with_new_sums

FEW = settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def carrier(tmp_path_factory) -> Carrier:
    return Carrier(tmp_path_factory.mktemp("carried"))


@pytest.fixture(scope="module")
def members(carrier) -> list[tuple[str, bytes]]:
    return carrier.members()


def lying(members: list[tuple[str, bytes]], change: Callable[[dict[str, Any]], object]) -> bytes:
    """The bundle with its bundle.json changed, list and signature made again."""

    def edit(raw: bytes) -> bytes:
        document = json.loads(raw)
        change(document)
        return json.dumps(document, indent=2).encode() + b"\n"

    return tar_of(with_new_sums(changed(members, "bundle.json", edit)))


def setting(key: str, value: Any) -> Callable[[dict[str, Any]], object]:
    return lambda document: document["snapshots"][0].__setitem__(key, value)


LIES = {
    "the date of the data": (setting("updated_at", "2026-11-20T20:00:00Z"), "but the data itself says 2026-11-20T06"),
    "no date": (setting("updated_at", None), "bundle.json says updated_at nothing"),
    "when the next is due": (setting("next_update", None), "bundle.json says next_update nothing"),
    "the version": (setting("version", "9"), "differ about version or artifact type"),
    "the artifact type": (setting("artifact_type", "a/b"), "differ about version or artifact type"),
    "another kind": (setting("kind", "trivy-java-db"), "has the media type"),
    "no such layer": (setting("layer_digest", "sha256:" + "0" * 64), "layer_digest is not among its blobs"),
    "the config as layer": (
        lambda d: d["snapshots"][0].update(layer_digest=digest_of(b"{}"), layer_size=2),
        "names another layer than its manifest",
    ),
    "all platforms": (setting("complete", False), "whether all its platforms are carried"),
    "the tag in the layout": (setting("ref_name", "other"), "index.json is not what follows from bundle.json"),
    "no tag in the layout": (setting("ref_name", None), "ref_name does not fit its kind"),
    "the sum": (setting("size", 1), "size is not the sum of its blobs"),
    "a blob of another size": (
        lambda d: d["snapshots"][0]["blobs"][1].__setitem__("size", 3), "size is not the sum of its blobs",
    ),
    "a role": (lambda d: d["snapshots"][0]["blobs"][1].__setitem__("role", "nose"), "has the role nose"),
    "a media type": (
        lambda d: d["snapshots"][0]["blobs"][2].__setitem__("media_type", "a/b"), "bundle.json describes otherwise",
    ),
    "a blob elsewhere": (
        lambda d: d["snapshots"][0]["blobs"][1].__setitem__("file", "blobs/sha256/x"), "elsewhere than where it",
    ),
    "a path up": (
        lambda d: d["snapshots"][0]["blobs"][1].__setitem__("file", "../x"), "file is '../x', which is not allowed",
    ),
    "when it was made": (lambda d: d.__setitem__("created_at", "2026-11-20T21:45:01Z"), "not when the bundle was"),
    "its id": (lambda d: d.__setitem__("bundle", "zzzzzzzz"), "is not called after the bundle's id and time"),
    "with scripts": (lambda d: d.__setitem__("scripts", True), "names install.sh, which SHA256SUMS does not list"),
    "no snapshots": (lambda d: d.__setitem__("snapshots", []), "names no snapshot"),
    "a mirror twice": (lambda d: d["snapshots"].append(d["snapshots"][0]), "names the mirror trivy-db twice"),
    "a hostile mirror": (setting("mirror", "../etc"), "mirror is '../etc', which is not allowed"),
    "no number": (setting("manifest_size", "7"), "manifest_size is not a number"),
    "a truth for a number": (setting("manifest_size", True), "manifest_size is not a number"),
    "no truth": (setting("tls_verified", 1), "tls_verified is neither true nor false"),
    "a day for a time": (setting("fetched_at", "2026-11-20"), "fetched_at is '2026-11-20', not a time"),
    "a time of no zone": (setting("fetched_at", "2026-11-20T00:00:00"), "not a time in UTC"),
    "a label of two lines": (setting("label", "a\nb"), "label is longer than 80 characters or holds unprintable"),
    "format as text": (lambda d: d.__setitem__("format", "1"), "does not say its format"),
    "format zero": (lambda d: d.__setitem__("format", 0), "does not say its format"),
}  # fmt: skip


@pytest.mark.parametrize("what", LIES)
def test_a_lie_of_bundle_json_is_told(members, what):
    change, said = LIES[what]
    problems = problems_of(lying(members, change))
    assert any(said in problem for problem in problems), problems


def test_bundle_json_that_scripts_would_read_otherwise_is_refused(members):
    for change in (
        lambda raw: raw.replace(b'  "format": 1,\n', b'  "format": 1, \n'),
        lambda raw: json.dumps(json.loads(raw)).encode(),
        lambda raw: raw.replace(b'  "scripts": false,\n', b'  "scripts": true,\n  "scripts": false,\n'),
        lambda raw: raw.replace(b"k3j9x2a1b7", b"k3j9x2a1b\\u0037"),
        lambda raw: raw + b"\n",
    ):
        problems = problems_of(tar_of(with_new_sums(changed(members, "bundle.json", change))))
        assert "bundle.json is not laid out as Airgap writes it (one fact a line, no key twice)." in problems


@FEW
@given(data=st.data())
def test_no_value_of_bundle_json_makes_reading_fail_otherwise_than_with_a_report(members, data):
    """Any value replaced by any JSON: a report or, for what says nothing here, nothing; never another error."""
    value = data.draw(
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers(-(2**70), 2**70)
            | st.text(max_size=300)
            | st.floats(allow_nan=False),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
            max_leaves=8,
        )
    )

    def change(document: dict[str, Any]) -> None:
        place: Any = document
        while True:
            key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
            if not isinstance(place[key], (dict, list)) or not place[key] or data.draw(st.booleans()):
                place[key] = value
                return
            place = place[key]

    problems_of(lying(members, change))


@FEW
@given(text=st.binary(max_size=400))
def test_no_list_makes_reading_fail_otherwise_than_with_a_report(members, text):
    assert problems_of(tar_of([members[0], ("SHA256SUMS", text), *members[2:]]))


def test_several_lies_and_damages_are_told_in_one_report(carrier):
    members = carrier.members(samples.database(carrier.store), samples.java_database(carrier.store))
    readme = [name for name, _ in members].index("README.txt")
    members[readme] = ("README.txt", members[readme][1].replace(b"Airgap", b"airgap"))
    members[-1] = (members[-1][0], bytes(len(members[-1][1])))
    problems = problems_of(tar_of(members))
    assert [problem.partition(" is damaged")[0] for problem in problems] == ["README.txt", members[-1][0]]


# Layers


def database_of(carrier: Carrier, layer: bytes) -> bytes:
    snapshot = samples.one_layer(carrier.store, "trivy-db", "trivy-db", "2", layer)
    return carrier.bundle(snapshot)


def tar_bytes(*files: tuple[str, bytes]) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return raw.getvalue()


def test_a_layer_that_is_a_bomb_is_refused_and_not_kept(carrier):
    bomb = gzip.compress(tar_bytes(("trivy.db", bytes(100 * 1024**2))), mtime=0)
    assert len(bomb) < 200_000
    with pytest.raises(BundleReadError, match="inflates to more than 200 times its size"):
        read(database_of(carrier, bomb), on_blob=into(carrier.inside))


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (b"no gzip at all", "is not gzip"),
        (gzip.compress(b"no tar" * 200, mtime=0), "is not a tar inside its gzip"),
        (samples.tar_gz({"trivy.db": b"x"}), "has no metadata.json"),
        (samples.database_layer("other.db", b"x", 2), "has no trivy.db"),
        (samples.database_layer("trivy.db", b"x", 1), "says schema version 1"),
        (samples.database_layer("trivy.db", b"x", 2)[:-20], "ends in the middle"),
        (samples.tar_gz({"../trivy.db": b"x"}), "hostile name"),
    ],
)
def test_a_layer_that_trivy_could_not_use_is_told(carrier, layer, said):
    problems = problems_of(database_of(carrier, layer))
    assert len(problems) == 1 and said in problems[0], problems


def test_a_checks_bundle_without_checks_is_told(carrier):
    layer = samples.tar_gz({"policies/readme.txt": b""})
    snapshot = samples.one_layer(
        carrier.store, "trivy-checks", "trivy-checks", "2", layer, next_update=None, updated_at=samples.PUBLISHED
    )
    (problem,) = problems_of(carrier.bundle(snapshot))
    assert problem.endswith("The checks bundle holds no check (no policies/….rego).")
    assert problems_of(carrier.bundle(replace(snapshot, updated_at=samples.NOW)))[1:]


# Images, VEX, release files


def test_an_image_that_lacks_a_layer_or_has_one_too_many_is_told(carrier):
    image = samples.image_index(carrier.store)
    layer = image.with_role("layer")[0]
    lacking = replace(image, blobs=tuple(blob for blob in image.blobs if blob is not layer))
    assert "which bundle.json describes otherwise" in problems_of(carrier.bundle(lacking))[0]
    extra = BundledBlob(carrier.store.put(b"extra"), 5, layer.media_type, "layer")
    assert "which no manifest names so" in problems_of(carrier.bundle(replace(image, blobs=(*image.blobs, extra))))[0]


def test_a_manifest_that_is_none_is_told(carrier):
    image = samples.image_index(carrier.store)
    digest = carrier.store.put(b'{"schemaVersion": 2, "layers": [7], "config": {}}')
    fake = BundledBlob(digest, carrier.store.size(digest), samples.MANIFEST, "manifest")
    problems = problems_of(carrier.bundle(replace(image, blobs=(*image.blobs, fake))))
    assert "is no manifest." in problems[0]


def test_a_config_that_stands_in_its_manifest_may_be_carried_and_nothing_else_may(carrier, members):
    snapshot = samples.database(carrier.store)
    inlined = replace(snapshot, blobs=tuple(blob for blob in snapshot.blobs if blob.role != "config"))
    assert problems_of(carrier.bundle(inlined)) == []
    stranger = (f"blobs/sha256/{digest_of(b'stranger')[7:]}", b"stranger")
    raw = tar_of(with_new_sums([*members[:-1], stranger, members[-1]]))
    assert problems_of(raw) == [f"{stranger[0]} belongs to nothing that bundle.json names."]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda archive: archive.update(location="https://elsewhere.example/x.tar.gz"), "does not name the location"),
        (lambda archive: archive.update(subdir="elsewhere"), "matches no folder in the archive"),
        (lambda archive: archive.update(subdir="vex*"), "its index lies in the folder 'vexhub-main'"),
        (lambda archive: archive.update(archive_format="rar"), "archive_format is neither tar.gz nor zip"),
        (lambda archive: archive.update(tar_gz="vex/vexhub/other"), "tar_gz does not fit its format"),
    ],
)
def test_a_vex_repository_that_is_described_wrongly_is_told(carrier, change, said):
    raw = lying(carrier.members(samples.vex(carrier.store)), lambda d: change(d["snapshots"][0]["archives"][0]))
    assert any(said in problem for problem in problems_of(raw, on_blob=into(carrier.inside)))


def test_the_date_of_a_vex_repository_is_the_one_of_its_index(carrier):
    raw = carrier.bundle(samples.vex(carrier.store), scripts=False)
    assert problems_of(raw) == []
    late = replace(samples.vex(carrier.store), updated_at=samples.NOW)
    assert "but its index says 2026-11-20T06:31:52.104857Z" in problems_of(carrier.bundle(late))[0]


def test_a_release_file_that_its_own_checksums_do_not_name_is_told(carrier):
    from tests.bundle.test_release_files import release

    given = release(carrier.store)
    other = carrier.store.put(b"another program")
    blobs = tuple(
        replace(blob, digest=other, size=15) if blob.name.endswith("64bit.tar.gz") else blob for blob in given.blobs
    )
    problems = problems_of(carrier.bundle(replace(given, blobs=blobs)))
    assert any("is not what the release's own checksum file says" in problem for problem in problems)
    assert any("signs other bytes than" in problem for problem in problems)


def test_a_release_that_was_published_by_attackers_is_not_taken(carrier):
    from tests.bundle.test_release_files import release

    (problem,) = problems_of(carrier.bundle(release(carrier.store, version="0.69.4")))[:1]
    assert "is never taken: it was published by attackers" in problem
