"""What a bundle holds: members and their order, bundle.json, the image layout, names, the cover sheet."""

import hashlib
import json
import subprocess
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from mirrors.bundle import BundleError, compose, folder_name
from mirrors.bundle.compose import SCRIPTS
from mirrors.digests import digest_of
from tests.bundle import samples


def names(recipe) -> list[str]:
    return [member.name for member in recipe.members]


def document(maker, recipe, name: str = "bundle.json") -> dict:
    member = next(member for member in recipe.members if member.name == name)
    return json.loads(maker.store.read(member.digest))


def text(maker, recipe, name: str) -> str:
    member = next(member for member in recipe.members if member.name == name)
    return maker.store.read(member.digest).decode()


class TestMembers:
    def test_they_stand_in_the_order_of_the_format(self, maker) -> None:
        recipe = maker.recipe()
        listed = names(recipe)
        assert listed[:7] == [
            "bundle.json",
            "SHA256SUMS",
            "README.txt",
            "install.sh",
            "push.sh",
            "oci-layout",
            "index.json",
        ]
        kinds = [name.split("/")[0] for name in listed[7:]]
        assert kinds == sorted(kinds)  # blobs, then vex
        blobs = {blob.digest: blob.role for snapshot in samples.everything(maker.store) for blob in snapshot.blobs}
        roles = [blobs[member.digest] == "layer" for member in recipe.members[7:] if member.name.startswith("blobs/")]
        assert roles == sorted(roles)  # manifests and configs, then layers

    def test_data_only_leaves_the_scripts_out(self, maker) -> None:
        recipe = maker.recipe(scripts=False)
        assert not {"install.sh", "push.sh"} & set(names(recipe))
        assert document(maker, recipe)["scripts"] is False
        readme = text(maker, recipe, "README.txt")
        assert "It holds data only" in readme
        assert "install.sh CACHE" not in readme

    def test_a_shared_blob_comes_once(self, maker) -> None:
        first = samples.database(maker.store)
        second = replace(first, mirror="other", reference="harbor.example/trivy-db:2")
        recipe = maker.recipe([first, second])
        assert len(names(recipe)) == len(set(names(recipe)))
        assert sum(member.digest == first.layer_digest for member in recipe.members) == 1

    def test_the_empty_config_comes_although_it_stands_in_the_manifest(self, maker) -> None:
        snapshot = samples.database(maker.store)
        snapshot = replace(snapshot, blobs=tuple(blob for blob in snapshot.blobs if blob.role != "config"))
        maker.store.remove(digest_of(b"{}"))
        recipe = maker.recipe([snapshot])
        assert f"blobs/sha256/{digest_of(b'{}')[7:]}" in names(recipe)
        assert digest_of(b"{}") in recipe.rendered

    def test_checksums_name_every_other_member(self, maker) -> None:
        recipe = maker.recipe()
        lines = text(maker, recipe, "SHA256SUMS").splitlines()
        assert [line[66:] for line in lines] == [name for name in names(recipe) if name != "SHA256SUMS"]
        assert all(f"sha256:{line[:64]}" in recipe.digests for line in lines)

    def test_sha256sum_accepts_the_unpacked_bundle(self, maker) -> None:
        folder = maker.unpacked()
        subprocess.run(["sha256sum", "--strict", "-c", "SHA256SUMS"], cwd=folder, check=True, capture_output=True)
        assert (folder / "install.sh").stat().st_mode & 0o777 == 0o755
        assert (folder / "README.txt").stat().st_mode & 0o777 == 0o644

    def test_the_scripts_are_the_same_in_every_bundle(self, maker) -> None:
        one = {member.name: member.digest for member in maker.recipe([samples.database(maker.store)]).members}
        two = {member.name: member.digest for member in maker.recipe([samples.vex(maker.store)]).members}
        for name in ("install.sh", "push.sh"):
            assert one[name] == two[name] == digest_of((SCRIPTS / name).read_bytes())

    def test_it_is_called_by_its_time_and_short_id(self, maker) -> None:
        assert maker.recipe().folder == "airgap-20261120T214500Z-k3j9x2a1"
        elsewhere = samples.NOW.astimezone(tz=None) + timedelta(0)
        assert folder_name("../x y", elsewhere) == "airgap-20261120T214500Z-x-y"

    def test_it_knows_which_blobs_nobody_else_holds(self, maker) -> None:
        recipe = maker.recipe()
        held = {blob.digest for snapshot in samples.everything(maker.store) for blob in snapshot.blobs}
        assert set(recipe.rendered) == recipe.digests - held

    def test_the_same_contents_give_the_same_recipe(self, maker) -> None:
        assert maker.recipe() == maker.recipe()


class TestRefusals:
    def test_nothing_to_bundle(self, maker) -> None:
        with pytest.raises(BundleError, match="at least one database"):
            compose("id", samples.NOW, "1", [], maker.store)

    def test_a_missing_blob(self, maker) -> None:
        snapshot = samples.database(maker.store)
        maker.store.remove(snapshot.layer_digest)
        with pytest.raises(BundleError, match=r"trivy db cannot be bundled\. .*it is not there"):
            maker.recipe([snapshot])

    def test_a_blob_of_another_size(self, maker) -> None:
        snapshot = samples.database(maker.store)
        blobs = tuple(replace(blob, size=blob.size + 1) for blob in snapshot.blobs)
        with pytest.raises(BundleError, match="bytes instead of"):
            maker.recipe([replace(snapshot, blobs=blobs)])

    def test_a_manifest_that_is_none(self, maker) -> None:
        snapshot = samples.database(maker.store)
        with pytest.raises(BundleError, match="cannot be read"):
            maker.recipe([replace(snapshot, manifest_digest=maker.store.put(b"<html>"))])


class TestBundleJson:
    def test_it_tells_what_the_contract_asks(self, maker) -> None:
        snapshot = samples.database(maker.store)
        facts = document(maker, maker.recipe([snapshot]))
        assert (facts["format"], facts["bundle"], facts["program"]) == (1, "k3j9x2a1b7", "airgap 0.1.0")
        assert facts["created_at"] == "2026-11-20T21:45:00.123456Z"
        (one,) = facts["snapshots"]
        assert {
            "reference": "mirror.gcr.io/aquasec/trivy-db:2",
            "kind": "trivy-db",
            "manifest_digest": snapshot.manifest_digest,
            "manifest_size": snapshot.manifest_size,
            "layer_digest": snapshot.layer_digest,
            "updated_at": "2026-11-20T06:31:52.104857Z",
            "next_update": "2026-11-21T06:31:52.104857Z",
            "fetched_at": "2026-11-20T09:31:52.104857Z",
            "confirmed_at": "2026-11-20T18:31:52.104857Z",
            "tls_verified": True,
            "same_layer_sources": 2,
            "ref_name": "trivy-db-2",
            "push_as": "aquasecurity/trivy-db:2",
            "cache_path": "db",
            "cache_layer": f"blobs/sha256/{snapshot.layer_digest[7:]}",
        }.items() <= one.items()
        assert one["size"] == sum(blob.size for blob in snapshot.blobs)

    def test_every_file_it_names_is_a_member(self, maker) -> None:
        recipe = maker.recipe()
        for snapshot in document(maker, recipe)["snapshots"]:
            files = [blob["file"] for blob in snapshot["blobs"]]
            files += [archive[key] for archive in snapshot["archives"] for key in ("file", "tar_gz")]
            assert files
            assert set(files) <= set(names(recipe))

    def test_credentials_of_a_source_stay_here(self, maker) -> None:
        folder = maker.unpacked()
        for path in folder.rglob("*"):
            if path.is_file():
                assert b"secret" not in path.read_bytes()

    def test_an_unknown_date_is_null(self, maker) -> None:
        (one,) = document(maker, maker.recipe([samples.image_index(maker.store)]))["snapshots"]
        assert one["updated_at"] is None
        assert one["cache_path"] is None

    def test_checks_carry_what_trivy_writes_about_them(self, maker) -> None:
        two, one = document(maker, maker.recipe([samples.checks(maker.store), samples.checks(maker.store, 1, "")]))[
            "snapshots"
        ]
        assert (two["checks_major"], two["version_major"]) == (2, 2)
        assert (one["checks_major"], one["version_major"]) == (1, 0)
        assert two["cache_path"] == one["cache_path"] == "policy"


class TestImageLayout:
    def test_every_snapshot_has_a_plain_unique_tag(self, maker) -> None:
        recipe = maker.recipe()
        index = document(maker, recipe, "index.json")
        refs = [
            entry["annotations"]["org.opencontainers.image.ref.name"]
            for entry in index["manifests"]
            if "annotations" in entry
        ]
        assert refs == ["trivy-db-2", "trivy-java-db-1", "trivy-checks-2", "trivy-checks-1", "tool-1.25"]
        assert json.loads(text(maker, recipe, "oci-layout")) == {"imageLayoutVersion": "1.0.0"}

    def test_descriptors_say_size_type_and_artifact_type(self, maker) -> None:
        snapshot = samples.database(maker.store)
        (entry,) = document(maker, maker.recipe([snapshot]), "index.json")["manifests"]
        assert entry["digest"] == snapshot.manifest_digest
        assert entry["size"] == snapshot.manifest_size
        assert entry["mediaType"] == samples.MANIFEST
        assert entry["artifactType"] == snapshot.artifact_type

    def test_two_mirrors_of_one_kind_and_tag_keep_apart(self, maker) -> None:
        other = samples.database(maker.store, "my own/db", b"other", reference="harbor.example:5000/x/trivy-db:2")
        facts = document(maker, maker.recipe([other, samples.database(maker.store)]))["snapshots"]
        assert [one["ref_name"] for one in facts] == ["my-own-db", "trivy-db-2"]
        assert [one["push_as"] for one in facts] == ["mirrors/my-own-db:2", "aquasecurity/trivy-db:2"]
        assert [one["cache_path"] for one in facts] == [None, "db"]

    @pytest.mark.parametrize(
        ("reference", "tag", "push_as"),
        [
            ("docker.io/library/nginx:1.25", "1.25", "library/nginx:1.25"),
            ("localhost:5000/a/b:x", "x", "a/b:x"),
            ("ghcr.io/a/b@sha256:" + "1" * 64, "", "a/b:sha256-{digest}"),
            ("ghcr.io/UPPER/b:1", "1", "mirrors/tool:1"),
            ("library/nginx:1", "1", "library/nginx:1"),
        ],
    )
    def test_other_artifacts_keep_their_upstream_path(self, maker, reference: str, tag: str, push_as: str) -> None:
        snapshot = replace(samples.image_index(maker.store), reference=reference, tag=tag)
        (one,) = document(maker, maker.recipe([snapshot]))["snapshots"]
        assert one["push_as"] == push_as.format(digest=snapshot.manifest_digest[7:])
        assert one["push"][0]["as"] == one["push_as"]

    def test_referrers_have_an_untagged_descriptor(self, maker) -> None:
        snapshot = samples.image_index(maker.store, referrer=True)
        recipe = maker.recipe([snapshot])
        tagged, referrer = document(maker, recipe, "index.json")["manifests"]
        assert tagged["digest"] == snapshot.manifest_digest
        assert "annotations" not in referrer
        pushes = document(maker, recipe)["snapshots"][0]["push"]
        assert [push["as"] for push in pushes] == ["library/tool:1.25", f"library/tool@{referrer['digest']}"]

    def test_an_index_of_chosen_platforms_is_pushed_by_platform(self, maker) -> None:
        recipe = maker.recipe([samples.image_index(maker.store, carried=("arm64",))])
        (one,) = document(maker, recipe)["snapshots"]
        assert one["complete"] is False
        assert [push["as"] for push in one["push"]] == ["library/tool:1.25-linux-arm64"]


class TestVex:
    def test_the_manifest_is_carried_as_it_came(self, maker) -> None:
        snapshot = samples.vex(maker.store)
        folder = maker.unpacked([snapshot])
        assert digest_of((folder / "vex/vexhub/vex-repository.json").read_bytes()) == snapshot.manifest_digest
        assert digest_of((folder / "vex/vexhub/v0.1-0.tar.gz").read_bytes()) == snapshot.layer_digest

    def test_a_zip_comes_as_tar_gz_too(self, maker) -> None:
        snapshot = samples.vex(maker.store, "zipped", format="zip")
        recipe = maker.recipe([snapshot])
        assert [name for name in names(recipe) if name.startswith("vex/")] == [
            "vex/zipped/vex-repository.json",
            "vex/zipped/v0.1-0.zip",
            "vex/zipped/v0.1-0.tar.gz",
        ]
        (archive,) = document(maker, recipe)["snapshots"][0]["archives"]
        assert archive["location"] == "https://example.org/zipped/main.zip//vexhub-main"
        assert archive["subdir"] == "vexhub-main"
        assert archive["served_name"] == "v0.1-0.zip"
        assert archive["tar_gz"] == "vex/zipped/v0.1-0.tar.gz"

    def test_the_vex_hub_is_the_default_of_a_cache(self, maker) -> None:
        facts = document(maker, maker.recipe([samples.vex(maker.store, "default"), samples.vex(maker.store)]))
        assert [one["cache_path"] for one in facts["snapshots"]] == [
            "vex/repositories/default-2",
            "vex/repositories/default",
        ]

    def test_what_is_no_archive_is_refused(self, maker) -> None:
        snapshot = samples.vex(maker.store, format="zip")
        garbage = maker.store.put(b"garbage")
        blobs = tuple(replace(b, digest=garbage, size=7) if b.details else b for b in snapshot.blobs)
        with pytest.raises(BundleError, match="A VEX archive cannot be packed again as tar"):
            maker.recipe([replace(snapshot, blobs=blobs)])
        blobs = tuple(replace(b, details={"format": "tar.xz"}) if b.details else b for b in snapshot.blobs)
        with pytest.raises(BundleError, match="cannot be bundled, only tar"):
            maker.recipe([replace(snapshot, blobs=blobs)])

    @pytest.mark.parametrize("served", ["../../../etc/passwd", "vex-repository.json", "a b.tar.gz", ""])
    def test_a_hostile_archive_name_stays_in_its_folder(self, maker, served: str) -> None:
        snapshot = samples.vex(maker.store)
        blobs = tuple(
            replace(blob, name="", details={**blob.details, "served": served}) if blob.details else blob
            for blob in snapshot.blobs
        )
        recipe = maker.recipe([replace(snapshot, blobs=blobs)])
        listed = [name for name in names(recipe) if name.startswith("vex/")]
        assert len(set(listed)) == 2
        assert all(Path(name).parent == Path("vex/vexhub") and ".." not in name for name in listed)


class TestCoverSheet:
    def test_an_officer_can_read_it(self, maker) -> None:
        recipe = maker.recipe()
        readme = text(maker, recipe, "README.txt")
        database = samples.database(maker.store)
        for words in (
            "Bundle    k3j9x2a1b7",
            f"File      {recipe.folder}.tar",
            "Created   2026-11-20 21:45:00 UTC",
            "nothing in it is made to be executed",
            "sha256sum -c SHA256SUMS",
            f"manifest   {database.manifest_digest}",
            f"layer      {database.layer_digest}",
            f"sha256sum blobs/sha256/{database.layer_digest[7:]}",
            "mkdir -p CACHE/db\n",
            f"tar -xzf blobs/sha256/{database.layer_digest[7:]} -C CACHE/db\n",
            "-C CACHE/policy/content",
            "mv CACHE/vex/repositories/default/unpacked/vexhub-main CACHE/vex/repositories/default/0.1",
            "trivy clean --scan-cache",
            'Restart a running "trivy server"',
            "built      2026-11-20 06:31:52 UTC",
            "(last seen at its source)",
        ):
            assert words in readme, words

    def test_no_name_from_outside_breaks_a_line(self, maker) -> None:
        snapshot = samples.database(maker.store, label="evil\nVERIFY\n\x1b[31m nothing")
        assert "evil VERIFY" in text(maker, maker.recipe([snapshot]), "README.txt")

    def test_a_hostile_folder_name_is_no_command(self, maker) -> None:
        snapshot = samples.vex(maker.store, subdir="x; rm -rf $HOME")
        assert "unpacked/'x; rm -rf $HOME' CACHE" in text(maker, maker.recipe([snapshot]), "README.txt")

    def test_the_commands_by_hand_do_what_they_say(self, maker, tmp_path) -> None:
        folder = maker.unpacked([samples.database(maker.store), samples.vex(maker.store)], scripts=False)
        lines = (folder / "README.txt").read_text().split("USE IT BY HAND")[1].split("AFTERWARDS")[0].splitlines()
        commands = [line.strip() for line in lines if line.strip().startswith(("mkdir", "tar", "mv", "sha256sum"))]
        script = "\n".join(["set -e", *commands]).replace("CACHE", "'../my cache'")
        subprocess.run(["sh", "-c", script], cwd=folder, check=True, capture_output=True)
        cache = folder.parent / "my cache"
        assert (cache / "db/trivy.db").read_bytes() == b"bolt"
        assert (cache / "vex/repositories/default/0.1/index.json").exists()


def test_bundle_json_is_written_one_fact_a_line(maker) -> None:
    """The scripts read it with awk, so its layout is part of the format."""
    recipe = maker.recipe([samples.database(maker.store)])
    lines = text(maker, recipe, "bundle.json").splitlines()
    assert '  "format": 1,' in lines
    assert "    {" in lines
    assert '      "kind": "trivy-db",' in lines
    assert '          "as": "aquasecurity/trivy-db:2"' in lines
    assert hashlib.sha256("\n".join(lines).encode() + b"\n").hexdigest() == recipe.members[0].digest[7:]
