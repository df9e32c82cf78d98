"""Release files in a bundle: where they lie, what is said of them, and what the scripts leave alone."""

import json
import subprocess
from dataclasses import replace

import pytest

from mirrors.bundle import BundledBlob, BundledSnapshot, BundleError
from mirrors.demo.releases import build_release
from mirrors.digests import digest_of
from mirrors.trivy.release import identity_of
from tests.bundle import samples
from tests.bundle.test_install import EACH_SHELL, run

FOLDER = "files/trivy/0.74.0"
ARCHIVE = "trivy_0.74.0_Linux-64bit.tar.gz"


def release(store, mirror="trivy", version="0.74.0", **changes) -> BundledSnapshot:
    files = build_release(version, ("Linux-64bit", "Linux-ARM64.deb"))
    checksums = next(iter(files))
    blobs = []
    for name, data in files.items():
        role = "signature" if name.endswith(".json") else "file"
        details = {"file": name.removesuffix(".sigstore.json"), "identity": identity_of(version)}
        blobs.append(
            BundledBlob(
                store.put(data),
                len(data),
                "application/octet-stream",
                "checksums" if name == checksums else role,
                name,
                details if role == "signature" else {},
            )
        )
    snapshot = replace(
        samples.vex(store),
        mirror=mirror,
        label="Trivy release",
        kind="release",
        tag="",
        reference="https://github.com/aquasecurity/trivy",
        manifest_digest=digest_of(files[checksums]),
        manifest_size=len(files[checksums]),
        manifest_media_type="text/plain",
        layer_digest="",
        updated_at=None,
        version=version,
        blobs=tuple(blobs),
    )
    return replace(snapshot, **changes)


def test_they_lie_under_their_mirror_and_version_after_everything_else(maker):
    recipe = maker.recipe([release(maker.store), *samples.everything(maker.store)[:6]])
    names = [member.name for member in recipe.members]
    own = [name for name in names if name.startswith("files/")]
    assert names[-len(own) :] == own and own[0] == f"{FOLDER}/trivy_0.74.0_checksums.txt"
    assert f"{FOLDER}/{ARCHIVE}" in own and f"{FOLDER}/{ARCHIVE}.sigstore.json" in own


def test_bundle_json_says_what_each_file_is(maker):
    folder = maker.unpacked([release(maker.store)])
    (snapshot,) = json.loads((folder / "bundle.json").read_text())["snapshots"]
    assert (snapshot["kind"], snapshot["version"], snapshot["files_path"]) == ("release", "0.74.0", FOLDER)
    assert snapshot["cache_path"] is None and snapshot["push"] == [] and snapshot["ref_name"] is None
    roles = {blob["name"]: (blob["role"], blob["file"]) for blob in snapshot["blobs"]}
    assert roles[ARCHIVE] == ("file", f"{FOLDER}/{ARCHIVE}")
    assert json.loads((folder / "index.json").read_text())["manifests"] == []


def test_the_line_on_the_cover_sheet_verifies_them(maker):
    folder = maker.unpacked([release(maker.store)])
    sheet = (folder / "README.txt").read_text()
    line = next(line.strip() for line in sheet.splitlines() if "--ignore-missing" in line)
    done = subprocess.run(line.split(), cwd=folder / FOLDER, capture_output=True, text=True)
    assert done.returncode == 0 and f"{ARCHIVE}: OK" in done.stdout


def test_the_cover_sheet_says_that_programs_are_inside_and_that_nobody_verified_who_signed(maker):
    sheet = (maker.unpacked([release(maker.store)]) / "README.txt").read_text()
    assert "release files of programs (below, under files/)" in sheet
    assert "Apart from these two\nnothing" not in sheet
    assert "version 0.74.0" in sheet and "NOT verified by Airgap" in sheet
    assert f"cosign verify-blob {ARCHIVE} \\\n      --bundle {ARCHIVE}.sigstore.json" in sheet
    assert "the same layer was seen" not in sheet


def test_without_release_files_the_cover_sheet_says_nothing_of_programs(maker):
    sheet = (maker.unpacked(samples.everything(maker.store)[:2]) / "README.txt").read_text()
    assert "files/" not in sheet and "nothing in it is made to be executed" in sheet


def test_two_mirrors_have_two_folders(maker):
    recipe = maker.recipe([release(maker.store), release(maker.store, "trivy-next", "0.75.0-rc.1")])
    assert any(member.name.startswith("files/trivy-next/0.75.0-rc.1/") for member in recipe.members)


def test_a_name_that_no_bundle_can_carry_is_refused(maker):
    snapshot = release(maker.store)
    blobs = (replace(snapshot.blobs[0], name="../../etc/passwd"), *snapshot.blobs[1:])
    with pytest.raises(BundleError, match="no bundle can carry"):
        maker.recipe([replace(snapshot, blobs=blobs)])


@EACH_SHELL
def test_install_fills_the_cache_and_says_where_release_files_are(maker, tmp_path, shell):
    folder = maker.unpacked([samples.database(maker.store), release(maker.store)])
    done = run(folder, tmp_path / "cache", shell=shell)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "cache/db/trivy.db").is_file()
    assert f"Release files (trivy 0.74.0) lie in {folder}/{FOLDER}; nothing of them was installed." in done.stdout


def test_install_of_release_files_alone_is_no_failure_and_leaves_the_cache_alone(maker, tmp_path):
    folder = maker.unpacked([release(maker.store)])
    done = run(folder, tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    assert "Nothing in this bundle belongs into a Trivy cache" in done.stdout
    assert not (tmp_path / "cache").exists()


def test_install_finds_a_changed_release_file(maker, tmp_path):
    folder = maker.unpacked([release(maker.store)])
    (folder / FOLDER / ARCHIVE).write_bytes(b"something else")
    done = run(folder, tmp_path / "cache")
    assert done.returncode == 1 and f"{ARCHIVE} is damaged" in done.stderr
