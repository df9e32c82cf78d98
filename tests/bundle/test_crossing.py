"""A bundle made for a site: what it says of that, what it leaves out, and what install.sh makes of it."""

import json
import shutil
from dataclasses import replace

from mirrors.bundle.contents import Assumed, Crossing
from tests.bundle import samples
from tests.bundle.test_install import EACH_SHELL, run

SECRET = "00112233445566778899aabbccddeeff"


def crossing_of(*snapshots, **changes) -> Crossing:
    assumed = tuple(
        Assumed(
            each.mirror,
            each.label,
            each.kind,
            each.manifest_digest,
            each.layer_digest,
            each.updated_at,
            each.confirmed_at,
        )
        for each in snapshots
    )
    facts = {"site": "NORD-2", "site_label": "Plant Nord", "transfer": "0a1b2c3d4e5f", "receipt_secret": SECRET}
    return Crossing(**{**facts, "assumed": assumed, **changes})


def test_a_bundle_for_nobody_has_the_bytes_it_always_had(maker) -> None:
    made = [maker.recipe([samples.database(maker.store)], crossing=crossing) for crossing in (None, crossing_of())]
    without, addressed = (maker.store.read(recipe.members[0].digest).decode() for recipe in made)
    added = [line for line in addressed.splitlines() if line not in without.splitlines()]
    assert [line.split(":")[0].strip(' "') for line in added] == ["site", "transfer", "receipt_secret", "assumed"]
    assert [line for line in without.splitlines() if line not in addressed.splitlines()] == []


def test_bundle_json_says_for_whom_and_what_is_left_out(maker) -> None:
    java, vex = samples.java_database(maker.store), samples.vex(maker.store)
    folder = maker.unpacked([samples.database(maker.store)], crossing=crossing_of(java, vex))
    told = json.loads((folder / "bundle.json").read_text())
    assert list(told)[:9] == [
        *("format", "bundle", "created_at", "program", "scripts", "site", "transfer", "receipt_secret", "assumed"),
    ]
    assert told["receipt_secret"] == SECRET
    assert told["assumed"][0] == {
        "mirror": java.mirror,
        "label": java.label,
        "kind": "trivy-java-db",
        "manifest_digest": java.manifest_digest,
        "layer_digest": java.layer_digest,
        "updated_at": "2026-11-20T06:31:52.104857Z",
        "confirmed_at": told["assumed"][0]["confirmed_at"],
    }
    assert told["assumed"][0]["confirmed_at"].endswith("Z")


def test_the_cover_sheet_says_for_whom_and_what_is_left_out(maker) -> None:
    java = samples.java_database(maker.store)
    crossing = crossing_of(java, replace(java, mirror="x", label="A label\nwith a break"), reference="Form 4711\nx")
    sheet = (maker.unpacked([samples.database(maker.store)], crossing=crossing) / "README.txt").read_text()
    assert "  For       Plant Nord (NORD-2)\n  Transfer  0a1b2c3d4e5f\n  Reference Form 4711 x\n" in sheet
    assert "LEFT OUT\n" in sheet
    assert java.manifest_digest in sheet
    assert "A label with a break" in sheet
    assert SECRET not in sheet


@EACH_SHELL
def test_install_fills_what_is_there_and_leaves_the_rest_alone_and_says_so(maker, tmp_path, shell) -> None:
    everything = maker.unpacked(samples.everything(maker.store))
    cache = tmp_path / "a cache"
    assert run(everything, cache).returncode == 0
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*") if not path.is_relative_to(cache / "db")}
    shutil.rmtree(everything)
    left = samples.java_database(maker.store), samples.vex(maker.store), samples.checks(maker.store)
    folder = maker.unpacked([samples.database(maker.store)], crossing=crossing_of(*left))
    done = run(folder, cache, shell=shell)
    assert done.returncode == 0, done.stderr
    for mirror, path in (
        ("trivy-java-db", "java-db"),
        ("vexhub", "vex/repositories/default"),
        ("trivy-checks", "policy"),
    ):
        assert f"{mirror} is not in this bundle, because it should be here already; {path} was left" in done.stdout
    own = cache / "vex", cache / "java-db", cache / "policy"
    after = {path: path.stat().st_mtime_ns for path in before if any(path.is_relative_to(place) for place in own)}
    assert after == {path: stamp for path, stamp in before.items() if path in after}
    assert "db: built" in done.stdout


def test_install_says_what_should_be_there_and_is_not(maker, tmp_path) -> None:
    crossing = crossing_of(samples.java_database(maker.store))
    folder = maker.unpacked([samples.database(maker.store)], crossing=crossing)
    done = run(folder, tmp_path / "cache")
    assert done.returncode == 0
    assert "has no java-db. Ask for the full bundle." in done.stdout
