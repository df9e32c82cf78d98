"""The files profile: flat names, nothing lost, and a cover sheet that says what is in each archive."""

import io
import json
import os
import re
import subprocess
import tarfile
from dataclasses import replace

import pytest

from mirrors.bundle import BundledBlob, BundleError, Composition, Recipe
from mirrors.bundle.files import compose_files
from mirrors.bundle.reader import read_bundle
from mirrors.bundle.tar import BLOCK
from mirrors.digests import digest_of
from mirrors.stopping import Stopped, StopSignal
from tests.bundle import samples
from tests.bundle.test_release_files import release


@pytest.fixture
def make(maker):
    def made(snapshots=None, **options):
        snapshots = snapshots or samples.everything(maker.store)
        return compose_files("k3j9x2a1b7", samples.NOW, "0.1.0", snapshots, maker.store, **options)

    return made


def data_of(recipe, store):
    return b"".join(Composition(recipe, store).read())


def contents_of(recipe, store):
    """Name to bytes, as the system's tar sees it."""
    with tarfile.open(fileobj=io.BytesIO(data_of(recipe, store))) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive.getmembers()}


def test_it_has_these_names_in_this_order(make):
    assert [member.name for member in make().members] == [
        "bundle.json", "SHA256SUMS", "README.txt",
        "trivy-db-2.manifest.json", "trivy-db-2.config.json", "trivy-db-2.layer.tar.gz",
        "trivy-java-db-1.manifest.json", "trivy-java-db-1.layer.tar.gz",
        "trivy-checks-2.manifest.json", "trivy-checks-2.layer.tar.gz",
        "trivy-checks-1.manifest.json", "trivy-checks-1.layer.tar.gz",
        "vexhub.vex-repository.json", "vexhub.v0.1-0.tar.gz",
        "other-vex.vex-repository.json", "other-vex.v0.1-0.zip", "other-vex.v0.1-0.tar.gz",
        "tool-1.25.index.json", "tool-1.25.manifest.json", "tool-1.25.manifest-2.json", "tool-1.25.manifest-3.json",
        "tool-1.25.config.json", "tool-1.25.config-2.json", "tool-1.25.layer.tar.gz", "tool-1.25.layer-2.tar.gz",
        "tool-1.25.layer.json",
    ]  # fmt: skip


def test_no_member_stands_in_a_folder_and_headers_are_canonical(make, maker):
    recipe = make()
    data = data_of(recipe, maker.store)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = archive.getmembers()
    assert all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", member.name) for member in members)
    assert {(m.uid, m.gid, m.uname, m.gname, m.type, m.mode) for m in members} == {(0, 0, "", "", b"0", 0o644)}
    last = members[-1]
    end = last.offset_data + last.size
    assert data[end:] == bytes(-last.size % BLOCK + 2 * BLOCK)
    assert Composition(recipe, maker.store).filename == "airgap-files-20261120T214500Z-k3j9x2a1.tar"


def test_it_checks_itself_where_it_is_unpacked(make, maker, tmp_path):
    for name, data in contents_of(make(), maker.store).items():
        (tmp_path / name).write_bytes(data)
    done = subprocess.run(
        ["sha256sum", "--strict", "--quiet", "-c", "SHA256SUMS"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    listed = {line[66:] for line in (tmp_path / "SHA256SUMS").read_text().splitlines()}
    assert listed == {name for name in os.listdir(tmp_path) if re.search(r"[.]", name) and name != "store"}


def test_bundle_json_names_every_file_of_content_once_or_more(make, maker):
    found = contents_of(make(), maker.store)
    document = json.loads(found["bundle.json"])
    assert (document["format"], document["profile"], document["scripts"]) == (1, "files", False)
    named = {}
    for snapshot in document["snapshots"]:
        assert snapshot["files_path"] is None
        named |= {blob["file"]: blob["digest"] for blob in snapshot["blobs"]}
        for archive in snapshot["archives"]:
            assert archive["served_name"] in ("v0.1-0.tar.gz", "v0.1-0.zip")
            named[archive["file"]] = archive["digest"]
            named.setdefault(archive["tar_gz"], digest_of(found[archive["tar_gz"]]))
    assert set(named) == set(found) - {"bundle.json", "SHA256SUMS", "README.txt"}
    assert all(digest_of(found[name]) == digest for name, digest in named.items())
    database = document["snapshots"][0]
    assert database["cache_layer"] == "trivy-db-2.layer.tar.gz"


def test_layers_are_the_bytes_that_upstream_published(make, maker):
    snapshot = samples.database(maker.store)
    found = contents_of(make([snapshot]), maker.store)
    assert digest_of(found["trivy-db-2.layer.tar.gz"]) == snapshot.layer_digest
    assert digest_of(found["trivy-db-2.manifest.json"]) == snapshot.manifest_digest


def test_the_cover_sheet_lists_what_is_in_each_archive(make, maker):
    many = samples.tar_gz({f"policies/{n:03}.rego": b"x" * n for n in range(40)})
    big = samples.one_layer(maker.store, "trivy-checks", "trivy-checks", "2", many, version="2.0.0")
    text = contents_of(make([samples.database(maker.store), big]), maker.store)["README.txt"].decode()
    assert "a tar.gz of 2 files, " in text
    assert re.search(r"\n      trivy\.db +4\n      metadata\.json +\d+\n", text)
    assert "a tar.gz of 40 files, 780 bytes unpacked" in text
    assert "policies/011.rego" in text
    assert "policies/012.rego" not in text
    assert "and 28 more" in text
    assert "install.sh" not in text
    assert "push.sh" not in text


def test_the_cover_sheet_says_of_a_broken_archive_how_far_it_was_read(make, maker):
    layer = samples.database_layer("trivy.db", b"x", 2)[:-9]
    broken = samples.one_layer(maker.store, "trivy-db", "trivy-db", "2", layer)
    text = contents_of(make([broken]), maker.store)["README.txt"].decode()
    assert "could not be read to its end" in text


def test_of_a_long_name_in_an_archive_the_end_is_shown(make, maker):
    layer = samples.tar_gz({"policies/docker/policies/add_instead_of_copy_and_so.rego": b"x" * 595})
    snapshot = samples.one_layer(maker.store, "trivy-checks", "trivy-checks", "2", layer, version="2.0.0")
    text = contents_of(make([snapshot]), maker.store)["README.txt"].decode()
    assert re.search(r"\n      policies/dock\.\.\./add_instead_of_copy_and_so\.rego +595\n", text)


def test_hostile_names_in_an_archive_stay_on_their_line(make, maker):
    layer = samples.tar_gz({"a\nVERIFY\x1b[31m": b"x", "b" * 300: b""})
    text = contents_of(make([samples.one_layer(maker.store, "trivy-db", "d", "2", layer)]), maker.store)["README.txt"]
    assert b"\x1b" not in text
    assert b"a VERIFY [31m" in text
    assert b"b" * 49 not in text


def test_the_commands_of_the_cover_sheet_fill_a_cache(make, maker, tmp_path):
    names = [samples.database(maker.store), samples.checks(maker.store), samples.vex(maker.store)]
    found = contents_of(make(names), maker.store)
    folder = tmp_path / "files"
    folder.mkdir()
    for name, data in found.items():
        (folder / name).write_bytes(data)
    text = found["README.txt"].decode()
    by_hand = text[text.index("USE IT BY HAND") : text.index("AFTERWARDS")]
    commands = re.findall(r"^  ((?:sha256sum|mkdir|tar|mv) .*)$", by_hand, re.MULTILINE)
    for command in commands:
        line = command.replace("CACHE", "../cache")
        subprocess.run(["sh", "-c", line], cwd=folder, check=True, capture_output=True)
    cache = tmp_path / "cache"
    assert (cache / "db" / "trivy.db").read_bytes() == b"bolt"
    assert (cache / "policy" / "content" / "policies" / "a.rego").exists()
    assert (cache / "vex" / "repositories" / "default" / "0.1" / "index.json").exists()


def test_the_same_is_the_same_and_a_kept_recipe_too(make, maker):
    snapshots = samples.everything(maker.store)
    first, again = make(snapshots), make(snapshots)
    assert first == again
    kept = Recipe.from_dict(json.loads(json.dumps(first.as_dict())))
    assert kept == first
    assert Composition(kept, maker.store).etag == Composition(first, maker.store).etag


def test_every_member_can_be_found_in_the_tar(make, maker):
    recipe = make()
    composition = Composition(recipe, maker.store)
    for member in recipe.members:
        start, stop = composition.span_of(member)
        assert digest_of(b"".join(composition.read(start, stop))) == member.digest, member.name


def test_what_is_rendered_is_named_and_nothing_else(make, maker):
    recipe = make()
    assert set(recipe.rendered) <= recipe.digests
    kept_by_snapshots = {blob.digest for snapshot in samples.everything(maker.store) for blob in snapshot.blobs}
    assert recipe.digests - kept_by_snapshots == set(recipe.rendered)


def test_names_differ_in_more_than_case_and_none_is_taken_from_the_papers(make, maker):
    def released(mirror, *names):
        blobs = []
        for number, name in enumerate(names):
            data = f"{mirror} {name}".encode()
            role = "file" if number else "checksums"
            blobs.append(BundledBlob(maker.store.put(data), len(data), "application/octet-stream", role, name))
        return replace(
            samples.vex(maker.store, mirror),
            kind="release",
            version="1.0.0",
            label=mirror,
            manifest_digest=blobs[0].digest,
            layer_digest="",
            blobs=tuple(blobs),
        )

    recipe = make([released("one", "SHA256SUMS", "Tool.zip"), released("two", "sha256sums", "tool.ZIP", "README.TXT")])
    names = [member.name for member in recipe.members]
    assert names[3:] == ["one.SHA256SUMS", "Tool.zip", "two.sha256sums", "two.tool.ZIP", "two.README.TXT"]
    assert len({name.lower() for name in names}) == len(names)
    text = contents_of(recipe, maker.store)["README.txt"].decode()
    assert "(tool.ZIP is called two.tool.ZIP here)" in text


def test_long_names_are_cut_and_stay_apart(make, maker):
    long = "m" * 79
    pair = [samples.database(maker.store, f"{long}{end}", content=end.encode()) for end in "ab"]
    recipe = make([replace(snapshot, kind="oci", tag="t" * 90) for snapshot in pair])
    names = [member.name for member in recipe.members]
    assert max(map(len, names)) <= 100
    assert len(set(names)) == len(names)


def test_listing_tells_how_far_it_is_and_stops(make, maker):
    read = []
    snapshot = samples.database(maker.store, content=os.urandom(500_000))
    make([snapshot], progress=read.append)
    assert sum(read) == next(blob.size for blob in snapshot.blobs if blob.role == "layer")
    stop = StopSignal()
    stop.set("enough")
    with pytest.raises(Stopped):
        make([snapshot], stop=stop)


def test_a_missing_blob_is_said(make, maker):
    snapshot = samples.database(maker.store)
    maker.store.remove(snapshot.layer_digest)
    with pytest.raises(BundleError, match="cannot be bundled"):
        make([snapshot])


def test_a_blob_damaged_here_is_not_described_as_if_upstream_had_sent_it_so(make, maker):
    snapshot = samples.database(maker.store, content=os.urandom(5000))
    path = maker.store.path(snapshot.layer_digest)
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[2000] ^= 255
    path.write_bytes(data)
    with pytest.raises(BundleError, match="damaged in the content store"):
        make([snapshot])


def test_the_reader_gets_the_same_out_of_it_as_of_one_with_folders(make, maker):
    snapshots = [*samples.everything(maker.store), release(maker.store)]
    flat, usual = (
        read_bundle(io.BytesIO(data_of(recipe, maker.store)), check_signature=lambda sums, signature: "anybody")
        for recipe in (make(snapshots), maker.recipe(snapshots))
    )
    assert flat.bundle.profile == "files"
    for one, other in zip(flat.bundle.snapshots, usual.bundle.snapshots, strict=True):
        assert [(b.role, b.digest, b.name) for b in one.blobs] == [(b.role, b.digest, b.name) for b in other.blobs]
