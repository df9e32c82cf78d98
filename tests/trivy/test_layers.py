import gzip
import io
import random
import tarfile
import threading
from datetime import UTC, datetime, timedelta

import pytest

from mirrors.demo.assets import (
    build_java_db,
    build_layer,
    build_metadata,
    build_tar,
    build_trivy_db,
    noise,
    trivy_db_file,
)
from mirrors.trivy import archives
from mirrors.trivy.catalogue import KINDS
from mirrors.trivy.layers import QUEUE_LIMIT, LayerError, LayerInspector

DB = KINDS["trivy-db"]
NOW = datetime(2026, 11, 20, 6, 31, 52, 104857, tzinfo=UTC)
METADATA = build_metadata(2, NOW, NOW + timedelta(hours=24))


@pytest.fixture(autouse=True)
def no_thread_is_left():
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def inspect(layer, step=1000, kind=DB):
    with LayerInspector(kind, len(layer)) as inspector:
        for start in range(0, len(layer), step):
            inspector.feed(layer[start : start + step])
        return inspector.finish()


def refusal(layer, **options):
    with pytest.raises(LayerError) as caught:
        inspect(layer, **options)
    return caught.value


def test_it_reads_the_age_at_the_end_of_a_layer():
    facts = inspect(build_trivy_db(NOW))

    assert (facts.version, facts.updated_at, facts.next_update) == (2, NOW, NOW + timedelta(hours=24))
    assert facts.names == ("trivy.db", "metadata.json")
    assert facts.database_bytes == len(trivy_db_file())
    assert facts.inflated_bytes > facts.database_bytes


@pytest.mark.parametrize("step", [1, 2, 511, 512, 513, 10**6])
def test_how_the_bytes_are_cut_changes_nothing(step):
    assert inspect(build_trivy_db(NOW, padding=20_000)[:], step) == inspect(build_trivy_db(NOW, padding=20_000), 4096)


def test_metadata_may_come_first():
    facts = inspect(build_trivy_db(NOW, metadata_first=True))

    assert facts.names == ("metadata.json", "trivy.db")
    assert facts.updated_at == NOW


def test_names_may_begin_with_a_dot_and_directories_are_no_fault():
    facts = inspect(build_layer([("./", b""), ("./trivy.db", b"data"), ("./metadata.json", METADATA)]))

    assert facts.updated_at == NOW


def test_it_reads_a_java_db_by_its_own_schema():
    facts = inspect(build_java_db(NOW), kind=KINDS["trivy-java-db"])

    assert facts.version == 1
    assert facts.next_update == NOW + timedelta(hours=72)


def test_it_takes_what_is_not_immutable_by_copy():
    layer = build_trivy_db(NOW)
    with LayerInspector(DB, len(layer)) as inspector:
        buffer = bytearray(10)
        for start in range(0, len(layer), 10):
            piece = layer[start : start + 10]
            buffer[: len(piece)] = piece
            inspector.feed(memoryview(buffer)[: len(piece)])
        assert inspector.finish().updated_at == NOW
        assert inspector.fed == len(layer)


def test_a_gzip_of_several_members_is_one_layer():
    tar = build_tar([("trivy.db", noise(5000, 1)), ("metadata.json", METADATA)])
    pieces = b"".join(gzip.compress(tar[start : start + 700]) for start in range(0, len(tar), 700))

    assert inspect(pieces, 1).updated_at == NOW


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_it_reads_every_tar_dialect_with_long_names(format):
    buffer = io.BytesIO()
    long_name = "d" * 90 + "/" + "n" * (90 if format == tarfile.USTAR_FORMAT else 300)
    with tarfile.open(fileobj=buffer, mode="w", format=format) as tar:
        for name, data in (("trivy.db", b"x" * 1000), (long_name, b"y" * 700), ("metadata.json", METADATA)):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.mtime = 1.5 if format == tarfile.PAX_FORMAT else 1
            tar.addfile(info, io.BytesIO(data))

    assert inspect(gzip.compress(buffer.getvalue())).names == ("trivy.db", long_name, "metadata.json")


def test_pax_headers_overrule_name_and_size():
    data = b"z" * 1500
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("trivy.db")
        info.size, info.pax_headers = len(data), {"size": str(len(data)), "path": "trivy.db", "comment": "ü" * 40}
        tar.addfile(info, io.BytesIO(data))
        info = tarfile.TarInfo("metadata.json")
        info.size = len(METADATA)
        tar.addfile(info, io.BytesIO(METADATA))

    assert inspect(gzip.compress(buffer.getvalue())).database_bytes == 1500


def test_a_small_layer_may_compress_as_well_as_it_likes():
    layer = build_layer([("trivy.db", bytes(8_000_000)), ("metadata.json", METADATA)])

    assert 8_000_000 / len(layer) > 400
    assert inspect(layer).database_bytes == 8_000_000


def test_a_tar_without_an_end_marker_is_whole():
    tar = build_tar([("trivy.db", b"x" * 512), ("metadata.json", METADATA)])
    assert inspect(gzip.compress(tar[: 512 * 4])).updated_at == NOW


def test_zero_padding_after_the_gzip_is_no_fault():
    assert inspect(build_trivy_db(NOW) + bytes(700)).updated_at == NOW


def test_it_refuses_what_is_not_gzip():
    error = refusal(b"<!DOCTYPE html><html>")

    assert error.code == "not-gzip"
    assert str(error) == "The layer is not gzip: it begins with '<!DOCTYPE html><'."
    assert refusal(b"(\xb5/\xfd zstd").code == "not-gzip"


def test_it_refuses_what_is_not_a_tar():
    error = refusal(gzip.compress(b"just text, not a tar at all" * 100))

    assert error.code == "not-tar"
    assert str(error).startswith("The layer is not a tar inside its gzip: it begins with 'just text")


@pytest.mark.parametrize(
    "layer", [b"", b"\x1f", gzip.compress(b"", mtime=0)], ids=["nothing", "one byte", "empty gzip"]
)
def test_it_refuses_an_empty_layer(layer):
    assert refusal(layer).code in ("truncated", "not-tar")


@pytest.mark.parametrize("part", [0.2, 0.5, 0.9, 0.999])
def test_it_refuses_a_truncated_gzip(part):
    layer = build_trivy_db(NOW, padding=50_000)
    error = refusal(layer[: int(len(layer) * part)])

    assert error.code == "truncated"
    assert str(error) == "The layer ends in the middle of its gzip data."


def test_it_refuses_fewer_bytes_than_the_manifest_states():
    layer = build_trivy_db(NOW)
    with LayerInspector(DB, len(layer) + 1) as inspector:
        inspector.feed(layer)
        with pytest.raises(LayerError, match=r"of the layer's \d+ bytes were read"):
            inspector.finish()


@pytest.mark.parametrize("cut", [100, 600, 512 * 3 + 20])
def test_it_refuses_a_truncated_tar(cut):
    tar = build_tar([("metadata.json", METADATA), ("trivy.db", b"x" * 4000)])
    assert refusal(gzip.compress(tar[:cut])).code == "truncated"


def test_it_refuses_damaged_gzip_data():
    layer = bytearray(build_trivy_db(NOW))
    layer[-6] ^= 1
    assert refusal(bytes(layer)).code == "damaged"

    layer = bytearray(build_trivy_db(NOW, padding=100_000))
    layer[5000:5100] = bytes(100)
    assert refusal(bytes(layer)).code in ("damaged", "truncated")


def test_it_refuses_other_bytes_after_the_gzip_or_the_tar():
    error = refusal(build_trivy_db(NOW) + b"something else")
    assert "other bytes after the end of its gzip data" in str(error)
    assert refusal(build_trivy_db(NOW) + b"\0\0\0x").code == "damaged"

    tar = build_tar([("trivy.db", b"x"), ("metadata.json", METADATA)])
    error = refusal(gzip.compress(tar + build_tar([("more", b"x")])))
    assert "other bytes after the end of its tar" in str(error)


def test_it_refuses_a_damaged_header_in_the_middle():
    tar = bytearray(build_tar([("trivy.db", b"x"), ("metadata.json", METADATA)]))
    tar[1024:1030] = b"hello!"
    assert "damaged tar header after 1 members" in str(refusal(gzip.compress(bytes(tar))))


def test_it_refuses_a_layer_without_metadata_or_database():
    assert str(refusal(build_layer([("trivy.db", b"x"), ("other", b"")]))) == (
        "The layer has no metadata.json; it holds trivy.db, other."
    )
    many = [(f"file{index}", b"") for index in range(9)]
    assert str(refusal(build_layer([("metadata.json", METADATA), *many]))) == (
        "The layer has no trivy.db; it holds metadata.json, file0, file1, file2, file3 and more."
    )
    assert refusal(build_layer([("sub/trivy.db", b"x"), ("metadata.json", METADATA)])).code == "missing"


@pytest.mark.parametrize("member", [("trivy.db", b""), ("trivy.db/", b"")])
def test_it_refuses_an_empty_database(member):
    assert "empty or not a regular file" in str(refusal(build_layer([member, ("metadata.json", METADATA)])))


@pytest.mark.parametrize("name", ["metadata.json", "trivy.db"])
def test_it_refuses_a_member_that_is_there_twice(name):
    members = [("trivy.db", b"x"), ("metadata.json", METADATA), (f"./{name}", METADATA)]
    assert str(refusal(build_layer(members))) == f"The layer holds {name} twice."


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        (b"", "empty or not a regular file"),
        (b"garbage", "is not JSON"),
        (b"{}" + b" " * 70_000, "metadata.json is 70002 bytes"),
        (build_metadata(3, NOW, NOW), "schema version 3"),
    ],
)
def test_it_refuses_bad_metadata(metadata, said):
    error = refusal(build_layer([("trivy.db", b"x"), ("metadata.json", metadata)]))

    assert error.code == "metadata"
    assert said in str(error)


@pytest.mark.parametrize("type", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_it_refuses_links_and_devices(type):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo("trivy.db")
        info.type, info.linkname = type, "/etc/passwd"
        tar.addfile(info)

    assert "neither file nor directory" in str(refusal(gzip.compress(buffer.getvalue())))


@pytest.mark.parametrize("name", ["../trivy.db", "/trivy.db", "a/../../b", "a\\b"])
def test_it_refuses_hostile_names(name):
    assert refusal(build_layer([(name, b"x"), ("metadata.json", METADATA)])).code == "name"


def test_it_refuses_a_bomb_by_its_ratio(monkeypatch):
    monkeypatch.setattr(archives, "BOMB_FROM", 1024 * 1024)
    layer = build_layer([("trivy.db", bytes(30_000_000)), ("metadata.json", METADATA)])
    error = refusal(layer)

    assert error.code == "bomb"
    assert "real builds reach about 30:1" in str(error)


def test_it_refuses_a_real_bomb_within_its_first_chunks():
    bomb = gzip.compress(bytes(80 * 1024 * 1024), 1)
    tar_header = build_tar([("trivy.db", bytes(512))])[:512]
    with LayerInspector(DB) as inspector:
        inspector.feed(gzip.compress(_with_size(tar_header, 10**10)))
        with pytest.raises(LayerError, match="inflates to more than 200 times its size"):
            for _ in range(200):
                inspector.feed(bomb)
        assert inspector.fed < 10 * len(bomb) + QUEUE_LIMIT


def _with_size(header, size):
    info = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


def test_it_refuses_more_inflated_bytes_than_the_kind_allows():
    import dataclasses

    small = dataclasses.replace(DB, inflated_limit=1024 * 1024)
    error = refusal(build_trivy_db(NOW, padding=2_000_000), kind=small)
    assert str(error) == "The layer inflates to more than 1 MiB; that is no real one."


def test_it_refuses_a_flood_of_members_and_of_gzip_members(monkeypatch):
    error = refusal(build_layer([(f"f{index}", b"") for index in range(10_001)]))
    assert "more than 10000 members" in str(error)

    monkeypatch.setattr(archives, "GZIP_MEMBERS", 50)
    assert "more than 50 gzip members" in str(refusal(gzip.compress(b"") * 51))


def test_it_refuses_a_huge_extended_header_and_a_sparse_file():
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 10**9
    assert "tar header of 1000000000 bytes" in str(refusal(gzip.compress(header.tobuf())))
    header.type, header.size = tarfile.GNUTYPE_SPARSE, 10
    assert "sparse file" in str(refusal(gzip.compress(header.tobuf())))


@pytest.mark.parametrize("body", [b"99 path=x\n", b"path=x\n", b"0 a=b\n", b"9 path=\0\0\n", b"7 abcd\n"])
def test_it_refuses_a_malformed_extended_header(body):
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, len(body)
    tar = header.tobuf() + body.ljust(512, b"\0") + build_tar([("trivy.db", b"x")])
    assert refusal(gzip.compress(tar)).code == "damaged"


def test_feed_raises_as_soon_as_the_thread_has_found_a_fault():
    rest = random.Random(1).randbytes(100_000)
    with LayerInspector(DB) as inspector:
        with pytest.raises(LayerError, match="not gzip"):
            for _ in range(100_000):
                inspector.feed(rest)
        with pytest.raises(LayerError, match="not gzip"):
            inspector.feed(rest)
        with pytest.raises(LayerError, match="not gzip"):
            inspector.finish()


def test_closing_in_the_middle_ends_the_thread():
    layer = build_trivy_db(NOW, padding=3_000_000)
    inspector = LayerInspector(DB, len(layer))
    inspector.feed(layer[:2_000_000])
    inspector.close()
    inspector.close()
    with pytest.raises(LayerError, match="had ended"):
        inspector.feed(b"more")
    with pytest.raises(LayerError, match="given up"):
        inspector.finish()


def test_closing_frees_a_feed_that_waits():
    inspector = LayerInspector(DB)
    held, release = threading.Event(), threading.Event()

    def hold(chunk, abandoned):
        held.set()
        release.wait(30)

    inspector._reading.feed = hold
    outcome = []

    def feed():
        try:
            for _ in range(10):
                inspector.feed(bytes(1024 * 1024))
        except LayerError as error:
            outcome.append(error)

    feeder = threading.Thread(target=feed)
    feeder.start()
    held.wait(30)
    while inspector._queued < QUEUE_LIMIT:
        held.wait(0.001)
    closer = threading.Thread(target=inspector.close)
    closer.start()
    feeder.join(30)
    release.set()
    closer.join(30)
    assert not feeder.is_alive() and not closer.is_alive()
    assert "had ended" in str(outcome[0])


def test_a_fault_in_our_own_code_reaches_the_feeder():
    inspector = LayerInspector(DB)
    inspector._reading.feed = lambda chunk, abandoned: 1 / 0
    inspector.feed(b"x")
    with pytest.raises(LayerError, match="Reading the layer failed: ZeroDivisionError"):
        inspector.finish()


def test_kinds_without_metadata_have_nothing_to_inspect():
    with pytest.raises(ValueError, match=r"no metadata\.json to read"):
        LayerInspector(KINDS["trivy-checks"])
