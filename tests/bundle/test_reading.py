"""A good bundle is read completely, and what it gives is what a sync would have kept."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from mirrors.blobs import BlobStore, StoreError
from mirrors.bundle import Member
from mirrors.bundle.contents import Assumed, Crossing
from mirrors.bundle.parsed import BundleReadError, Contents
from mirrors.bundle.sinks import into
from mirrors.trivy.layers import LayerFacts
from tests.bundle import samples
from tests.bundle.carried import Carrier, believe, check, problems_of, read, tar_of, with_new_sums


@pytest.fixture
def carrier(tmp_path: Path) -> Carrier:
    return Carrier(tmp_path)


@pytest.mark.parametrize("scripts", [True, False])
@pytest.mark.parametrize("signed", [True, False])
def test_what_compose_writes_is_read_without_a_problem(carrier, scripts, signed):
    raw = carrier.bundle(scripts=scripts, signed=signed)
    contents = read(
        raw, on_blob=into(carrier.inside), check_signature=check if signed else believe, total_size=len(raw)
    )
    assert contents.size == len(raw)
    assert contents.signed_by == ("Toy" if signed else "anybody")
    assert contents.bundle.id == "k3j9x2a1b7"
    assert contents.bundle.scripts is scripts
    assert contents.notes == ()


def test_the_snapshots_have_the_facts_and_blobs_that_went_in(carrier):
    given = samples.everything(carrier.store)
    contents = read(carrier.bundle(*given), on_blob=into(carrier.inside))
    for snapshot, parsed in zip(given, contents.bundle.snapshots, strict=True):
        for key in ("mirror", "label", "kind", "tag", "version", "manifest_digest", "layer_digest", "size",
                    "updated_at", "next_update", "published_at", "fetched_at", "confirmed_at", "tls_verified",
                    "same_layer_sources"):  # fmt: skip
            assert getattr(parsed, key) == getattr(snapshot, key), key
        assert [(b.role, b.digest, b.size, b.media_type) for b in parsed.blobs if b.role != "vex-archive"] == [
            (b.role, b.digest, b.size, b.media_type) for b in snapshot.blobs if b.role != "vex-archive"
        ]
        for blob in snapshot.blobs:
            assert carrier.inside.verify(blob.digest) == "ok"


def test_a_vex_archive_comes_with_what_its_row_needs(carrier):
    given = samples.vex(carrier.store, "other", format="zip", subdir="", top="")
    (parsed,) = read(carrier.bundle(given), on_blob=into(carrier.inside)).bundle.snapshots
    (archive,) = parsed.with_role("vex-archive")
    assert archive.details == given.blobs[1].details
    assert (archive.name, archive.media_type) == ("v0.1-0.zip", "application/zip")
    assert parsed.item_count == 0
    assert len(parsed.repacked) == 1, "its twin as tar.gz is for the scripts"
    assert not carrier.inside.has(read(carrier.bundle(given)).members[-1].digest)


def test_a_part_of_an_image_comes_with_its_platform_and_what_refers_to_it_with_its_subject(carrier):
    given = samples.image_index(carrier.store, carried=("arm64",), referrer=True)
    (parsed,) = read(carrier.bundle(given)).bundle.snapshots
    index, arm, signature = parsed.with_role("index", "manifest")
    assert not parsed.complete
    assert index.details == {"platforms": ["linux/arm64"]}
    assert arm.details == {"platform": {"os": "linux", "architecture": "arm64"}}
    assert signature.details == {"subject": index.digest}


def test_release_files_come_with_what_their_signatures_are_of(carrier, tmp_path):
    from tests.bundle.test_release_files import release

    given = release(carrier.store)
    (parsed,) = read(carrier.bundle(given), on_blob=into(carrier.inside)).bundle.snapshots
    assert [(b.role, b.name, b.digest) for b in parsed.blobs] == [(b.role, b.name, b.digest) for b in given.blobs]
    assert all(blob.details["file"] for blob in parsed.with_role("signature"))


def test_the_same_blob_is_offered_once_and_what_the_store_has_not_at_all(carrier):
    raw = carrier.bundle(samples.database(carrier.store), samples.checks(carrier.store))
    offered: list[str] = []

    def on_blob(member: Member) -> None:
        offered.append(member.digest)

    read(raw, on_blob=on_blob)
    assert len(offered) == len(set(offered)) == 5
    assert len(read(raw, on_blob=into(carrier.inside)).taken) == 5
    assert read(raw, on_blob=into(carrier.inside)).taken == ()


def test_a_blob_that_is_damaged_in_the_store_is_taken_again(carrier):
    raw = carrier.bundle(carrier.tiny())
    read(raw, on_blob=into(carrier.inside))
    layer = carrier.tiny().layer_digest
    carrier.inside.path(layer).chmod(0o644)
    carrier.inside.path(layer).write_bytes(b"damaged")
    assert read(raw, on_blob=into(carrier.inside)).taken == (layer,)
    assert carrier.inside.verify(layer) == "ok"


def test_without_a_good_signature_nothing_is_taken_and_the_rest_is_told_too(carrier):
    members = carrier.members()
    members[-1] = (members[-1][0], b"x" * len(members[-1][1]))
    raw = tar_of([(name, b"other" if name.endswith(".sig") else data) for name, data in members])
    with pytest.raises(BundleReadError) as error:
        read(raw, on_blob=into(carrier.inside))
    assert "The signature is wrong." in error.value.problems
    assert any("is damaged" in problem for problem in error.value.problems)
    assert not list(carrier.inside.digests())
    assert error.value.contents.bundle.id == "k3j9x2a1b7"


def test_after_the_first_problem_nothing_more_is_taken(carrier):
    members = carrier.members()
    name, data = members[6]
    members[6] = (name, data.replace(b"e", b"f", 1))
    with pytest.raises(BundleReadError) as error:
        read(tar_of(members), on_blob=into(carrier.inside))
    assert error.value.contents.taken == ()
    assert not list(carrier.inside.digests()) and not list(carrier.inside.partials())


def test_a_full_disk_is_not_a_problem_of_the_bundle(carrier):
    class Full:
        def write(self, _chunk: bytes) -> None:
            raise StoreError("full", "The disk is full.")

        def commit(self) -> None: ...

        def discard(self) -> None:
            discarded.append(True)

        def reading(self) -> io.BytesIO:
            return io.BytesIO()

    discarded: list[bool] = []
    with pytest.raises(StoreError):
        read(carrier.bundle(carrier.tiny()), on_blob=lambda _: Full())
    assert discarded


def test_facts_known_before_spare_looking_into_a_layer_but_are_compared(carrier):
    raw = carrier.bundle(carrier.tiny())
    good = LayerFacts(2, samples.BUILT, samples.BUILT.replace(day=21), 1, 1, ())
    assert problems_of(raw, facts_of=lambda *_: good) == []
    (problem,) = problems_of(raw, facts_of=lambda *_: replace(good, updated_at=samples.NOW))
    assert "but the data itself says 2026-11-20T21:45:00.123456Z" in problem


def test_it_says_what_stands_inside_the_databases_and_asks_for_what_is_known_by_kind(carrier):
    asked = []

    def known(digest, kind):
        asked.append((digest, kind))

    contents = read(carrier.bundle(carrier.tiny()), facts_of=known)
    assert [(digest, facts.updated_at) for digest, facts in contents.layers.items()] == [
        (digest, samples.BUILT) for digest, _ in asked
    ]
    assert {kind for _, kind in asked} == {"trivy-db"}


def test_unknown_keys_are_passed_over(carrier):
    def add(raw: bytes) -> bytes:
        document = json.loads(raw)
        document["mood"] = {"good": True}
        document["snapshots"][0]["colour"] = "blue"
        return json.dumps(document, indent=2).encode() + b"\n"

    members = [(name, add(data) if name == "bundle.json" else data) for name, data in carrier.members()]
    assert problems_of(tar_of(with_new_sums(members))) == []


def test_an_unknown_kind_is_left_alone_and_named(carrier):
    def rename(raw: bytes) -> bytes:
        return raw.replace(b'"kind": "trivy-db"', b'"kind": "trivy-nose"')

    members = [(name, rename(data) if name == "bundle.json" else data) for name, data in carrier.members()]
    contents: Contents = read(tar_of(with_new_sums(members)), on_blob=into(carrier.inside))
    assert contents.bundle.snapshots[0].known is False
    assert contents.taken == contents.bundle.snapshots[0].blobs == ()
    assert "is of the kind trivy-nose, which this version of Airgap does not know" in contents.notes[0]


def test_a_newer_format_is_refused_with_the_program_it_needs(carrier):
    def newer(raw: bytes) -> bytes:
        return raw.replace(b'"format": 1', b'"format": 7').replace(b"airgap 0.1.0", b"airgap 3.2.1")

    members = [(name, newer(data) if name == "bundle.json" else data) for name, data in carrier.members()]
    (problem,) = problems_of(tar_of(with_new_sums(members)))
    assert "has format 7 and was made by airgap 3.2.1" in problem
    assert "Upgrade this side" in problem


def test_scripts_of_another_version_are_a_note_and_no_problem(carrier):
    members = carrier.members(carrier.tiny(), scripts=True)
    members = [(name, data + b"# more\n" if name == "push.sh" else data) for name, data in members]
    (note,) = read(tar_of(with_new_sums(members))).notes
    assert note.startswith("push.sh is not the one that this version of Airgap writes")


def test_what_a_bundle_for_a_site_adds_is_read(carrier):
    left_out = Assumed("vexhub", "VEX Hub", "vex", "sha256:" + "0" * 64, "sha256:" + "1" * 64, samples.BUILT, None)
    crossing = Crossing("north", "North", "t4f2", "ab" * 16, "form 7", (left_out,))
    bundle = read(carrier.bundle(carrier.tiny(), crossing=crossing)).bundle
    assert (bundle.site, bundle.transfer, bundle.receipt_secret) == ("north", "t4f2", "ab" * 16)
    (assumed,) = bundle.assumed
    assert (assumed.mirror, assumed.layer_digest, assumed.updated_at) == ("vexhub", "sha256:" + "1" * 64, samples.BUILT)


def test_progress_is_told_and_a_stop_is_heard(carrier):
    from mirrors.stopping import Stopped, StopSignal

    raw, told = carrier.bundle(carrier.tiny()), []
    read(raw, progress=lambda count, name: told.append((count, name)))
    assert [count for count, _ in told] == sorted(count for count, _ in told)
    stop = StopSignal()
    stop.set()
    with pytest.raises(Stopped):
        read(raw, stop=stop)


def test_a_reader_that_gives_little_at_a_time_is_enough(carrier):
    class Slow(io.BytesIO):
        def read(self, count: int | None = -1, /) -> bytes:
            return super().read(min(count or 1, 7))

    from mirrors.bundle.reader import read_bundle

    assert read_bundle(Slow(carrier.bundle(carrier.tiny())), check_signature=check).bundle


def test_nothing_of_a_stopped_reading_stays_in_the_store(carrier):
    raw = carrier.bundle(carrier.tiny())
    store = BlobStore(carrier.inside.root)
    assert problems_of(raw[:-3000], on_blob=into(store))
    assert not list(store.partials())
