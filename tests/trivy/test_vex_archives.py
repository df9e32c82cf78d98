import gzip
import io
import json
import tarfile
from datetime import UTC, datetime

import pytest

from mirrors.demo.assets import LFS_POINTER, build_layer, build_tar, build_vex_archive, build_vex_manifest
from mirrors.trivy.vex import VexError, read_archive, repack_as_tar_gz
from tests.trivy.test_entries import build_zip

NOW = datetime(2026, 3, 23, 0, 48, 43, 879330, tzinfo=UTC)
TOP = "vexhub-main"
PACKAGE = {"id": "pkg:npm/x", "location": "pkg/npm/x/x.json"}


def archive_of(files, top=TOP):
    return build_layer([(f"{top}/{name}", data) for name, data in files.items()])


def index(*packages, **more):
    return json.dumps({"updated_at": "2026-03-23T00:48:43.87933027Z", "packages": packages, **more}).encode()


def read(data, subdir=TOP, format="tar.gz"):
    return read_archive(io.BytesIO(data), format, subdir)


def refusal(data, subdir=TOP, format="tar.gz"):
    with pytest.raises(VexError) as caught:
        read(data, subdir, format)
    return caught.value


def to_zip(data):
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as tar:
        return build_zip(
            [
                (member.name + "/" * member.isdir(), tar.extractfile(member).read() if member.isfile() else b"")
                for member in tar
            ]
        )


def test_it_reads_a_vex_hub_archive():
    facts = read(build_vex_archive(NOW))

    assert (facts.updated_at, facts.packages, facts.top) == (NOW, 2, TOP)
    assert (facts.pointers, facts.missing) == ((), ())
    assert facts.repository_manifest == build_vex_manifest("https://vex.example")
    assert facts.inflated_bytes > 1000


def test_it_reads_the_same_from_a_zip():
    data = build_vex_archive(NOW)
    assert read(to_zip(data), format="zip") == read(data)


@pytest.mark.parametrize("subdir", ["*", "vexhub-*", "vex???-main", "./vexhub-main/"])
def test_a_glob_may_name_the_folder(subdir):
    assert read(build_vex_archive(NOW), subdir).top == TOP


def test_a_glob_must_match_exactly_one_folder():
    data = build_layer([("a/index.json", index()), ("b/readme", b"")])

    assert read(data, "a").top == "a"
    error = refusal(data, "*")
    assert str(error) == "The address names the folder '*', which matches 2 folders in the archive."
    assert "matches no folder" in str(refusal(data, "c"))
    many = build_layer([(f"{number}/x", b"") for number in range(40)])
    assert "More than 16 folders" in str(refusal(many, "*"))


def test_the_index_may_be_at_the_root_or_deeper():
    assert read(build_layer([("index.json", index())]), "").top == ""
    assert read(build_layer([("a/b/index.json", index())]), "a/*").top == "a/b"


def test_the_order_of_the_members_does_not_matter():
    document = ("pkg/npm/x/x.json", LFS_POINTER)
    first = [(f"{TOP}/{document[0]}", document[1]), (f"{TOP}/index.json", index(PACKAGE))]
    assert read(build_layer(first)) == read(build_layer(reversed(first)))


def test_documents_that_are_pointers_or_missing_are_listed():
    facts = read(build_vex_archive(NOW, pointers=["pkg:npm/big"]))
    assert facts.pointers == ("pkg/npm/big/demo.openvex.json",)
    assert facts.packages == 3

    facts = read(archive_of({"index.json": index(PACKAGE)}))
    assert facts.missing == ("pkg/npm/x/x.json",)


def test_an_index_that_is_a_pointer_has_its_own_sentence():
    error = refusal(build_vex_archive(NOW, index=LFS_POINTER))
    assert error.code == "pointer"
    assert "is a git+LFS pointer, not the index" in str(error)


def test_an_archive_without_an_index_is_refused():
    error = refusal(archive_of({"readme": b""}))
    assert error.code == "index"
    assert str(error) == (
        "There is no index.json at the top of the folder 'vexhub-main' of the archive, "
        "so Trivy would find no VEX in it."
    )
    assert "at the top of the archive" in str(refusal(build_vex_archive(NOW), ""))


@pytest.mark.parametrize("location", ["../x.json", "/etc/passwd", "a/../../b", "a\\b", "", ".", "x\0y"])
def test_a_document_may_not_leave_the_folder_of_the_index(location):
    error = refusal(archive_of({"index.json": index({"id": "pkg:npm/x", "location": location})}))
    assert (error.code, "leaves the index's folder" in str(error)) == ("index", True)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"<html>", "is not JSON: it begins with b'<html>'"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "has no list of packages"),
        (b'{"packages": null}', "has no list of packages"),
        (index("text"), "packages[0] of the archive's index.json has no id or no location"),
        (index({"id": 1, "location": "x"}), "has no id or no location"),
        (index(updated_at="yesterday"), "wrong updated_at: 'yesterday' is not"),
        (index(updated_at=5), "wrong updated_at: '5' is not a time"),
    ],
)
def test_a_malformed_index_is_refused(raw, said):
    error = refusal(archive_of({"index.json": raw}))
    assert (error.code, said in str(error)) == ("index", True), str(error)


def test_a_huge_index_is_refused(monkeypatch):
    monkeypatch.setattr("mirrors.trivy.vex.archives.INDEX_LIMIT", 1024 * 1024)
    error = refusal(archive_of({"index.json": index(padding="x" * 2_000_000)}))
    assert str(error) == "The archive's index.json is larger than 1 MiB."


def test_an_index_without_a_time_has_none():
    assert read(archive_of({"index.json": b'{"packages": []}'})).updated_at is None
    assert read(archive_of({"index.json": index(updated_at="0001-01-01T00:00:00Z")})).updated_at is None


def test_two_indexes_of_one_name_are_refused():
    data = build_layer([(f"{TOP}/index.json", index()), (f"./{TOP}/index.json", index())])
    assert "twice" in str(refusal(data))


def test_a_hostile_archive_is_refused():
    assert refusal(build_layer([("../x", b"")])).code == "archive"
    assert "The archive is not gzip" in str(refusal(b"<html>"))
    assert "no table of contents" in str(refusal(b"<html>", format="zip"))
    assert refusal(build_vex_archive(NOW)[:-30]).code == "archive"


@pytest.mark.parametrize(("target", "hostile"), [("/etc/passwd", True), ("../../x", True), ("../README", False)])
def test_a_link_may_not_leave_the_archive(target, hostile):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo(f"{TOP}/link")
        info.type, info.linkname = tarfile.SYMTYPE, target
        tar.addfile(info)
    tar_bytes = buffer.getvalue()[:512] + build_tar([(f"{TOP}/index.json", index())])

    if hostile:
        assert "to a place outside it" in str(refusal(gzip.compress(tar_bytes)))
    else:
        assert read(gzip.compress(tar_bytes)).packages == 0


def test_a_zip_is_repacked_as_a_tar_gz_with_its_folders():
    data = to_zip(build_vex_archive(NOW, packages=[f"pkg:npm/p{number}" for number in range(50)]))
    repacked = b"".join(repack_as_tar_gz(io.BytesIO(data), "zip"))

    assert read(repacked) == read(data, format="zip")
    assert repacked == b"".join(repack_as_tar_gz(io.BytesIO(data), "zip"))
    with tarfile.open(fileobj=io.BytesIO(repacked), mode="r:gz") as tar:
        assert tar.getnames()[0] == f"{TOP}/index.json"
        assert {(member.mode, member.mtime, member.uid) for member in tar} == {(0o644, 0, 0)}


def test_a_tar_gz_is_passed_through():
    data = build_vex_archive(NOW)
    assert b"".join(repack_as_tar_gz(io.BytesIO(data), "tar.gz")) == data


def test_repacking_a_damaged_zip_is_refused():
    data = bytearray(to_zip(archive_of({"index.json": index(), "noise": bytes(range(256)) * 40})))
    at = data.find(b"noise") + 20
    data[at : at + 20] = b"\xff" * 20
    with pytest.raises(VexError, match="which is damaged"):
        list(repack_as_tar_gz(io.BytesIO(bytes(data)), "zip"))
