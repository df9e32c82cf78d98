"""Volumes in any order are the bundle; what is missing, doubled or foreign is named before a byte is read."""

import io

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mirrors.bundle.joining import VolumeFile, join
from mirrors.bundle.parsed import BundleReadError
from mirrors.bundle.reader import read_bundle
from tests.bundle.carried import Carrier, check

NAME = "airgap-20261120T214500Z-k3j9x2a1.tar"
FEW = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> bytes:
    carrier = Carrier(tmp_path_factory.mktemp("carried"))
    return carrier.bundle(carrier.tiny())


def volumes_of(raw: bytes, size: int, name: str = NAME) -> list[VolumeFile]:
    parts = [raw[at : at + size] for at in range(0, len(raw), size)]
    return [volume(f"{name}.{i:03}of{len(parts):03}", part) for i, part in enumerate(parts, start=1)]


def volume(name: str, data: bytes, stated: int | None = None) -> VolumeFile:
    return VolumeFile(name, len(data) if stated is None else stated, lambda: io.BytesIO(data))


def problems_of(volumes: list[VolumeFile]) -> list[str]:
    with pytest.raises(BundleReadError) as error, join(volumes) as joined:
        read_bundle(joined, check_signature=check)
    return list(error.value.problems)


@FEW
@given(data=st.data())
def test_volumes_of_any_size_in_any_order_are_the_bundle(raw, data):
    volumes = data.draw(st.permutations(volumes_of(raw, data.draw(st.integers(200, len(raw))))))
    with join(volumes) as joined:
        assert joined.size == len(raw)
        assert read_bundle(joined, check_signature=check, total_size=joined.size).size == len(raw)


def test_a_single_file_is_the_bundle_whatever_it_is_called(raw):
    with join([volume("upload", raw)]) as joined:
        assert read_bundle(joined, check_signature=check).bundle


def test_only_one_volume_is_open_at_a_time_and_it_is_closed(raw):
    opened: list[io.BytesIO] = []

    def opening(data: bytes) -> io.BytesIO:
        assert all(file.closed for file in opened)
        opened.append(io.BytesIO(data))
        return opened[-1]

    parts = [raw[:6000], raw[6000:12000], raw[12000:]]
    volumes = [
        VolumeFile(f"{NAME}.{i:03}of003", len(part), lambda part=part: opening(part))
        for i, part in enumerate(parts, start=1)
    ]
    with join(volumes) as joined:
        assert joined.read(10)
    assert len(opened) == 1 and opened[0].closed


def test_missing_volumes_are_named(raw):
    volumes = volumes_of(raw, 4000)
    assert problems_of([volumes[3], volumes[0]]) == [f"Of 4 volumes of {NAME} these are missing: 2, 3."]


def test_a_doubled_volume_is_named(raw):
    volumes = volumes_of(raw, 4000)
    assert problems_of([*volumes, volumes[1]]) == ["Volume 2 of 4 was given 2 times."]


def test_volumes_of_another_bundle_or_another_division_are_named(raw):
    volumes = volumes_of(raw, 4000)
    foreign = volumes_of(raw, 4000, "other.tar")[1]
    assert problems_of([*volumes, foreign]) == [
        f"'other.tar.002of004' belongs to another bundle or another division than the other volumes of {NAME}."
    ]
    assert problems_of([*volumes, volumes_of(raw, 8000)[0]])[0].startswith(f"'{NAME}.001of002' belongs to another")


def test_what_is_no_volume_is_named(raw):
    volumes = volumes_of(raw, 4000)
    for name in ("notes.txt", f"{NAME}.005of004", f"{NAME}.000of004"):
        assert problems_of([*volumes, volume(name, b"x")])[0].startswith(f"'{name}' is not a volume of a bundle")
    assert problems_of([]) == ["There is no file to read. Choose a bundle, or all volumes of one."]


def test_a_volume_of_a_wrong_size_is_named(raw):
    volumes = volumes_of(raw, 4000)
    volumes[1] = volume(volumes[1].name, raw[4000:7000])
    assert problems_of(volumes) == [
        "Volume 2 of 4 has 3,000 bytes, the others 4,000: it is not complete. Copy it again."
    ]
    volumes = volumes_of(raw, 4000)
    volumes[3] = volume(volumes[3].name, b"x" * 4001)
    assert "the last, has 4,001 bytes" in problems_of(volumes)[0]
    volumes[3] = volume(volumes[3].name, raw[12000:-10])
    assert problems_of(volumes) == ["Volume 4 of 4, the last, is not complete. Copy it again."]


def test_a_volume_that_turns_out_shorter_or_longer_is_named(raw):
    volumes = volumes_of(raw, 4000)
    volumes[1] = volume(volumes[1].name, raw[4000:7000], 4000)
    assert f"'{NAME}.002of004' ends 1,000 bytes early. Copy it again." in problems_of(volumes)
    volumes[1] = volume(volumes[1].name, raw[4000:9000], 4000)
    assert f"'{NAME}.002of004' is longer than its 4,000 bytes. Copy it again." in problems_of(volumes)


@FEW
@given(data=st.data())
def test_volumes_whose_bytes_were_swapped_are_refused(raw, data):
    """Right names, wrong bytes: the tar does not go on as it must."""
    size = data.draw(st.integers(512, 6000))
    volumes = volumes_of(raw, size)
    order = data.draw(st.permutations(range(len(volumes))))
    swapped = [
        VolumeFile(volume.name, volumes[i].size, volumes[i].open) for volume, i in zip(volumes, order, strict=True)
    ]
    if list(order) != sorted(order):
        assert problems_of(swapped)
