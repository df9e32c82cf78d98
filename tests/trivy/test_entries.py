import io
import struct
import zipfile

import pytest

from mirrors.demo.assets import build_layer, noise
from mirrors.trivy import entries
from mirrors.trivy.archives import ArchiveError
from mirrors.trivy.entries import Walk

FILES = [("a.txt", b"one"), ("big", noise(300_000, 1)), ("empty", b""), ("last", b"end")]


def build_zip(members, compression=zipfile.ZIP_DEFLATED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return buffer.getvalue()


ARCHIVES = {"tar.gz": build_layer([("d/", b""), *FILES]), "zip": build_zip([("d/", b""), *FILES])}


def walk(data, format, limit=10**9, **options):
    return Walk(io.BytesIO(data), format, "The archive", limit, **options).entries()


def read(data, format, **options):
    return [(member.name, b"".join(body)) for member, body in walk(data, format, **options)]


def refusal(data, format, **options):
    with pytest.raises(ArchiveError) as caught:
        read(data, format, **options)
    return caught.value


@pytest.mark.parametrize("format", ARCHIVES)
def test_it_yields_every_member_with_its_body(format):
    assert read(ARCHIVES[format], format) == [("d", b""), *FILES]


@pytest.mark.parametrize("format", ARCHIVES)
def test_a_body_may_be_left_or_read_in_part(format):
    names = []
    for member, body in walk(ARCHIVES[format], format):
        names.append(member.name)
        if member.name == "big":
            assert len(next(iter(body))) > 0
    assert names == ["d", "a.txt", "big", "empty", "last"]


@pytest.mark.parametrize("format", ARCHIVES)
def test_it_refuses_truncated_archives(format):
    assert refusal(ARCHIVES[format][:-100], format).code in ("truncated", "damaged")
    assert refusal(ARCHIVES[format][:1000], format).code == "truncated"


@pytest.mark.parametrize("format", ARCHIVES)
def test_it_refuses_damaged_data(format):
    data = bytearray(ARCHIVES[format])
    data[150_000:150_100] = bytes(100)
    error = refusal(bytes(data), format)
    assert error.code in ("damaged", "truncated")


@pytest.mark.parametrize("format", ARCHIVES)
def test_it_refuses_html_for_an_archive(format):
    assert refusal(b"<html>not found</html>", format).code == ("not-zip" if format == "zip" else "not-gzip")
    assert refusal(b"", format).code in ("not-zip", "truncated")


@pytest.mark.parametrize("format", ARCHIVES)
def test_it_refuses_too_many_members_and_too_many_bytes(format):
    assert refusal(ARCHIVES[format], format, member_limit=3).code == "too-many"
    assert refusal(ARCHIVES[format], format, limit=100_000).code == "bomb"


@pytest.mark.parametrize("build", [build_layer, build_zip])
@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "a\\..\\x"])
def test_it_refuses_hostile_names(build, name):
    assert refusal(build([(name, b"x")]), "zip" if build is build_zip else "tar.gz").code == "name"


def test_it_refuses_a_zip_bomb(monkeypatch):
    monkeypatch.setattr(entries, "BOMB_FROM", 1_000_000)
    assert refusal(build_zip([("zeros", bytes(5_000_000))]), "zip").code == "bomb"


def test_it_refuses_zip_methods_it_does_not_read():
    error = refusal(build_zip(FILES, zipfile.ZIP_BZIP2), "zip")
    assert (error.code, str(error)) == ("unsupported", "The archive uses zip compression 12; only deflate is read.")

    data = bytearray(build_zip([("secret", b"x")]))
    at = data.rfind(b"PK\x01\x02")
    data[at + 8] |= 1
    assert str(refusal(bytes(data), "zip")) == "The archive is encrypted."


def test_it_refuses_a_zip_with_a_huge_table_of_contents():
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 9, 9, 200 * 1024 * 1024, 0, 0)
    error = refusal(end, "zip")
    assert (error.code, "200 MiB" in str(error)) == ("too-many", True)

    record = b"PK\x06\x06" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, 1, 1, 10**12, 0)
    locator = b"PK\x06\x07" + struct.pack("<IQI", 0, 0, 1)
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    assert refusal(record + locator + end, "zip").code == "too-many"
    assert refusal(b"x" * 56 + locator + end, "zip").code == "damaged"
    outside = b"PK\x06\x07" + struct.pack("<IQI", 0, 10**9, 1)
    assert refusal(record + outside + end, "zip").code == "damaged"


def test_it_refuses_a_zip_whose_table_of_contents_is_garbage():
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 3, 3, 100, 0, 0)
    assert refusal(bytes(100) + end, "zip").code == "damaged"


def test_links_are_told_apart():
    info = zipfile.ZipInfo("link")
    info.external_attr = 0o120777 << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(info, "/etc/passwd")
    [(member, _)] = walk(buffer.getvalue(), "zip")
    assert member.kind == "link"
