"""The files profile: the same content without folders, as one tar or file by file."""

import io
import random

import pytest

from mirrors.bundle.joining import VolumeFile, are_members, assemble
from mirrors.bundle.parsed import BundleReadError
from mirrors.bundle.reader import read_bundle
from mirrors.bundle.sinks import into
from tests.bundle import samples
from tests.bundle.carried import Carrier, check, flattened, problems_of, read, tar_of, with_new_sums


@pytest.fixture(scope="module")
def carrier(tmp_path_factory) -> Carrier:
    return Carrier(tmp_path_factory.mktemp("carried"))


@pytest.fixture(scope="module")
def members(carrier) -> list[tuple[str, bytes]]:
    from tests.bundle.test_release_files import release

    given = [*samples.everything(carrier.store)[:6], release(carrier.store)]
    return flattened(carrier.members(*given))


def files_of(members: list[tuple[str, bytes]]) -> list[VolumeFile]:
    return [VolumeFile(name, len(data), lambda data=data: io.BytesIO(data)) for name, data in members]


def test_a_tar_without_folders_gives_the_same_as_one_with(carrier, members):
    contents = read(tar_of(members, folder=""), on_blob=into(carrier.inside))
    assert contents.bundle.profile == "files"
    with_folders = read(carrier.bundle()).bundle
    for flat, usual in zip(contents.bundle.snapshots, with_folders.snapshots[:6], strict=False):
        assert [(b.role, b.digest, b.name, b.details) for b in flat.blobs] == [
            (b.role, b.digest, b.name, b.details) for b in usual.blobs
        ]
        assert all(carrier.inside.has(blob.digest) for blob in flat.blobs)


def test_every_kind_of_change_is_refused_there_too(members):
    raw = tar_of(members, folder="")
    for at in range(0, len(raw), 997):
        assert problems_of(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
    moved = [*members[:-2], members[-1], members[-2]]
    assert problems_of(tar_of(moved, folder=""))
    assert problems_of(tar_of(with_new_sums(moved), folder="")) == [
        "SHA256SUMS lists the members in another order than the format has."
    ]


def test_folders_and_profile_must_agree(carrier, members):
    said = "bundle.json and the tar differ about whether the members stand in a folder."
    assert said in problems_of(tar_of(members))
    assert said in problems_of(tar_of(carrier.members(), folder=""))


def test_single_files_in_any_order_are_read_like_the_tar(members):
    files = files_of(members)
    random.Random(3).shuffle(files)
    assert are_members(files)
    with assemble(files) as joined:
        contents = read_bundle(joined, check_signature=check, total_size=joined.size)
    assert contents.size == len(tar_of(members, folder=""))
    assert contents.sums_digest == read(tar_of(members, folder="")).sums_digest


def test_missing_doubled_and_foreign_files_are_named(members):
    files = files_of(members)
    for given, said in (
        (files[:-1], f"{files[-1].name} is missing; SHA256SUMS lists it."),
        ([*files, files_of([("notes.txt", b"x")])[0]], "'notes.txt' does not belong to this bundle."),
        ([*files, files_of(members)[4]], f"'{files[4].name}' was given more than once."),
        (files[1:], "bundle.json is missing."),
    ):
        with pytest.raises(BundleReadError) as error:
            assemble(given)
        assert said in error.value.problems


def test_a_changed_file_is_named(members):
    spoilt = [(name, data[:-1] + b"x" if name == "file-2" else data) for name, data in members]
    with pytest.raises(BundleReadError) as error, assemble(files_of(spoilt)) as joined:
        read_bundle(joined, check_signature=check)
    assert error.value.problems == (
        "file-2 is damaged: its bytes are not those that SHA256SUMS lists. Copy the bundle again.",
    )
