"""Whatever is not exactly the tar that Airgap writes is refused: flipped, cut, reordered, or made by somebody else."""

import io
import random
import tarfile
import time
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mirrors.bundle import tar
from mirrors.bundle.contents import Signer
from mirrors.bundle.parsed import BundleReadError, SignatureRefused
from mirrors.bundle.reader import read_bundle
from mirrors.signing import Key, PublicKey, SignatureError, sign, verify
from mirrors.trivy.layers import LayerFacts
from tests.bundle import samples
from tests.bundle.carried import FOLDER, MTIME, Carrier, believe, check, problems_of, tar_of, with_new_sums

FACTS = LayerFacts(2, samples.BUILT, samples.BUILT.replace(day=21), 1, 1, ())
FEW = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def carrier(tmp_path_factory) -> Carrier:
    return Carrier(tmp_path_factory.mktemp("carried"))


@pytest.fixture(scope="module")
def tiny(carrier) -> bytes:
    return carrier.bundle(carrier.tiny())


@pytest.fixture(scope="module")
def members(carrier) -> list[tuple[str, bytes]]:
    return carrier.members()


def is_refused(raw: bytes) -> bool:
    """Without looking into the layer, which takes a thread; its digest is enough here."""
    return bool(problems_of(raw, facts_of=lambda *_: FACTS))


def flipped(raw: bytes, at: int, bits: int) -> bytes:
    return raw[:at] + bytes([raw[at] ^ bits]) + raw[at + 1 :]


# Every byte counts


@pytest.mark.parametrize("part", range(13))
@pytest.mark.servers
def test_every_byte_that_is_flipped_is_noticed(tiny, part):
    bits = random.Random(part)
    for at in range(part, len(tiny), 13):
        assert is_refused(flipped(tiny, at, 1 << bits.randrange(8))), f"byte {at}"
        assert is_refused(flipped(tiny, at, bits.randrange(1, 256))), f"byte {at}"


def test_flipped_bytes_all_over_the_bundle_are_noticed(tiny):
    """A sample of the test above, other bytes in every run."""
    assert not is_refused(tiny)
    for at in range(int(time.time()) % 41, len(tiny), 41):
        assert is_refused(flipped(tiny, at, 1 << at % 8)), f"byte {at}, bit {at % 8}"


@FEW
@given(data=st.data())
def test_no_change_anywhere_is_taken_for_the_same(tiny, data):
    at = data.draw(st.integers(0, len(tiny) - 1))
    put = data.draw(st.binary(min_size=0, max_size=600))
    cut = data.draw(st.integers(0, 600))
    raw = tiny[:at] + put + tiny[at + cut :]
    assert raw == tiny or is_refused(raw)


@FEW
@given(raw=st.binary(max_size=2000))
def test_what_is_no_tar_is_refused_with_a_sentence(raw):
    (problem,) = problems_of(raw)
    assert problem.startswith(("This is no bundle", "The file is empty", "The file ends", "The tar ends"))


# Cut off, and too long


def test_a_cut_at_every_block_is_noticed(tiny):
    for end in range(0, len(tiny), tar.BLOCK):
        problems = problems_of(tiny[:end], facts_of=lambda *_: FACTS)
        assert any("ends" in problem or "empty" in problem for problem in problems), end


@FEW
@given(data=st.data())
def test_a_cut_anywhere_is_noticed(tiny, data):
    assert is_refused(tiny[: data.draw(st.integers(0, len(tiny) - 1))])


@pytest.mark.parametrize("more", [b"\0", bytes(512), bytes(9216), b"x"])
def test_nothing_may_follow_the_end(tiny, more):
    (problem,) = problems_of(tiny + more)
    assert problem.startswith("Something follows the end of the tar")


def test_a_file_that_is_too_short_is_refused_before_its_blobs_are_read(carrier):
    raw = carrier.bundle(samples.database(carrier.store, content=random.Random(1).randbytes(500_000)))
    stream = io.BytesIO(raw)
    with pytest.raises(BundleReadError, match="it was not copied completely"):
        read_bundle(stream, check_signature=check, total_size=300_000)
    assert stream.tell() < 20_000


# Order


@FEW
@given(data=st.data())
def test_members_in_another_order_doubled_or_missing_are_refused(members, data):
    order = data.draw(st.lists(st.sampled_from(range(len(members))), min_size=1, max_size=len(members) + 2))
    if order == list(range(len(members))):
        return
    assert is_refused(tar_of([members[i] for i in order]))


@pytest.mark.parametrize("index", range(9))
def test_a_doubled_or_missing_member_is_named(members, index):
    name = members[index][0]
    doubled = problems_of(tar_of([*members[: index + 1], *members[index:]]))
    assert any("a second time" in problem or "A member follows" in problem for problem in doubled)
    missing = problems_of(tar_of([*members[:index], *members[index + 1 :]]))
    assert missing and (name in missing[-1] or "signed" in missing[0])


def test_a_member_that_is_not_listed_is_refused(members):
    problems = problems_of(tar_of([*members, ("evil", b"x")]))
    assert problems == [f"A member follows the last one that SHA256SUMS lists. It is called '{FOLDER}/evil'."]
    assert problems_of(tar_of(with_new_sums([*members, ("evil", b"x")]))) == [
        "SHA256SUMS lists evil, which bundle.json does not name."
    ]


def test_blobs_and_layers_in_another_order_are_refused_also_by_a_matching_list(members):
    *rest, config, layer = members
    assert problems_of(tar_of(with_new_sums([*rest, layer, config]))) == [
        "SHA256SUMS lists the members in another order than the format has."
    ]


# Headers of other makers


def header(**changes: object) -> bytes:
    info = tarfile.TarInfo(f"{FOLDER}/README.txt")
    info.mode, info.mtime, info.size = 0o644, MTIME, 5
    for key, value in changes.items():
        setattr(info, key, value)
    raw = info.tobuf(tarfile.PAX_FORMAT)
    return raw[:-512] + as_ours(raw[-512:])


def as_ours(block: bytes) -> bytes:
    """Python leaves the device numbers of files empty, Airgap writes zeros; with that, and its sum, it is the same."""
    numbers = block[329:345] if block[156:157] in b"34" else b"0000000\0" * 2
    block = block[:148] + b" " * 8 + block[156:329] + numbers + block[345:]
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def with_header(members: list[tuple[str, bytes]], block: bytes, body: bytes = b"hello") -> bytes:
    """The bundle until the README, which comes with this header."""
    return tar_of(members[:3], b"") + block + body + tar.padding(len(body))


HOSTILE = {
    "a symbolic link": ({"type": tarfile.SYMTYPE, "linkname": "/etc/passwd", "size": 0}, "is a link"),
    "a hard link": ({"type": tarfile.LNKTYPE, "linkname": "bundle.json", "size": 0}, "is a link"),
    "a device": ({"type": tarfile.BLKTYPE, "size": 0}, "is a device"),
    "a character device": ({"type": tarfile.CHRTYPE, "size": 0}, "is a device"),
    "a pipe": ({"type": tarfile.FIFOTYPE, "size": 0}, "is a pipe"),
    "a folder": ({"type": tarfile.DIRTYPE, "size": 0}, "is a folder"),
    "a sparse file": ({"type": tarfile.GNUTYPE_SPARSE}, "is a sparse file"),
    "an old type": ({"type": tarfile.AREGTYPE}, "no regular file"),
    "a contiguous file": ({"type": tarfile.CONTTYPE}, "no regular file"),
    "an absolute path": ({"name": "/etc/passwd"}, "lies outside"),
    "a way up": ({"name": f"{FOLDER}/../../etc/passwd"}, "lies outside"),
    "another folder": ({"name": "elsewhere/README.txt"}, "lies outside"),
    "no folder": ({"name": "README.txt"}, "lies outside"),
    "another case": ({"name": f"{FOLDER}/readme.txt"}, "stands where README.txt should"),
    "an owner": ({"uid": 1000}, "is not as Airgap writes it"),
    "an owner's name": ({"uname": "root"}, "is not as Airgap writes it"),
    "a set-uid bit": ({"mode": 0o4755}, "is not as Airgap writes it"),
    "another time": ({"mtime": MTIME + 1}, "is not as Airgap writes it"),
    "a fraction of a second": ({"mtime": MTIME + 0.5}, ""),
    "a pax path": ({"pax_headers": {"path": "/etc/passwd"}}, ""),
    "a pax size": ({"pax_headers": {"size": "5"}}, ""),
    "a pax comment": ({"pax_headers": {"comment": "hello"}}, ""),
    "a pax sparse map": ({"pax_headers": {"GNU.sparse.map": "0,1"}}, ""),
    "a long name": ({"name": f"{FOLDER}/" + "x" * 300}, ""),
    "a name that is no ASCII": ({"name": f"{FOLDER}/ü"}, ""),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_a_header_that_is_not_ours_is_refused(members, what):
    changes, said = HOSTILE[what]
    raw = with_header(members, header(**changes))
    problems = problems_of(raw, check_signature=believe)
    assert len(problems) == 1 and said in problems[0], problems


def test_a_header_of_ours_is_what_the_test_above_starts_from(members):
    problem = problems_of(with_header(members, header()), check_signature=believe)[-1]
    assert "The file ends before oci-layout" in problem


def test_a_bundle_packed_again_by_another_tar_is_refused(tiny):
    for format in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        again = io.BytesIO()
        with (
            tarfile.open(fileobj=io.BytesIO(tiny)) as old,
            tarfile.open(fileobj=again, mode="w", format=format) as new,
        ):
            for member in old.getmembers():
                member.uname = "courier"
                new.addfile(member, old.extractfile(member))
        assert is_refused(again.getvalue())


@FEW
@given(
    size=st.one_of(st.integers(0, 2**40), st.sampled_from([0, 1, 8**11 - 1, 8**11, 8**11 + 1])),
    mode=st.sampled_from([0o644, 0o755]),
    at=st.integers(0, 511),
    bits=st.integers(1, 255),
)
def test_of_a_header_nothing_but_the_size_is_free(size, mode, at, bits):
    from mirrors.bundle.tar_reading import StructureError, TarReader

    def begin(block: bytes) -> tuple[str, int]:
        reader = TarReader(io.BytesIO(block))
        reader.folder, reader.mtime = FOLDER, MTIME
        return reader.begin(("a.json", mode))

    block = tar.header(f"{FOLDER}/a.json", size, mode, MTIME)
    assert begin(block) == ("a.json", size)
    for offset in range(0, len(block), 512):
        with pytest.raises(StructureError):
            begin(flipped(block, offset + at, bits))


def test_padding_and_end_are_zeros(members):
    raw = tar_of(members)
    first = 512 + len(members[0][1])
    (problem,) = problems_of(flipped(raw, first, 1))
    assert problem == "There are other bytes than zeros after bundle.json. Copy the bundle again."
    (problem,) = problems_of(flipped(raw, len(raw) - 1, 1))
    assert "the tar's end mark" in problem


# Too large


class Endless(io.RawIOBase):
    """A bundle that begins well and never stops; `given` counts its bytes."""

    def __init__(self, begin: bytes, again: bytes) -> None:
        self.begin, self.again, self.given = io.BytesIO(begin), again, 0

    def read(self, count: int = -1, /) -> bytes:
        piece = self.begin.read(count) or (self.again * (count // len(self.again) + 1))[:count]
        self.given += len(piece)
        return piece


def measured(stream: Endless) -> tuple[list[str], int, float]:
    tracemalloc.start()
    began = time.perf_counter()
    try:
        read_bundle(stream, check_signature=check)
    except BundleReadError as error:
        problems = list(error.problems)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return problems, peak, time.perf_counter() - began


@pytest.mark.parametrize("name", ["bundle.json", "SHA256SUMS", "SHA256SUMS.sig", "README.txt", "index.json"])
def test_a_document_that_is_too_large_is_not_even_read(members, name):
    at = [each for each, _ in members].index(name)
    huge = tar.header(f"{FOLDER}/{name}", 5 * 1024**3, 0o644, MTIME)
    stream = Endless(tar_of(members[:at], b"") + huge, b"[")
    problems, peak, _ = measured(stream)
    assert f"{name} has 5,368,709,120 bytes; at most" in problems[-1]
    assert stream.given < 20_000 and peak < 3 * 1024**2


def test_a_million_members_are_refused_at_the_first_that_is_not_listed(members):
    stream = Endless(tar_of(members, b""), tar.header(f"{FOLDER}/one-more", 0, 0o644, MTIME))
    problems, peak, _ = measured(stream)
    assert problems[-1].startswith("A member follows the last one")
    assert peak < 3 * 1024**2


def test_a_list_of_a_million_members_is_refused(members):
    line = b"0" * 64 + b"  a\n"
    sums = line * 200_000
    raw = tar_of([members[0], ("SHA256SUMS", sums)])
    problems, peak, _ = measured(Endless(raw, b"\0"))
    assert problems == ["SHA256SUMS lists more than 100,000 files; that is no real bundle."]
    assert peak < 4 * len(sums)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 4_000_000,
        b"[" + b"[]," * 2_000_000 + b"[]]",
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b'{"format": 1' + b"0" * 5_000 + b"}",
        b'{"snapshots": [' + b"1," * 3_000_000 + b"1]}",
    ],
    ids=["brackets", "lists", "depth", "digits", "numbers"],
)
def test_huge_json_is_refused_in_flat_memory(members, body):
    raw = tar_of([("bundle.json", body)], b"")
    problems, peak, _ = measured(Endless(raw, b"\0"))
    assert problems[0].startswith("bundle.json")
    assert peak < 4 * len(body) + 4 * 1024**2


def test_not_more_than_a_hundred_problems_are_told(members):
    listed = [*members, *((f"evil{i}", b"") for i in range(150))]
    problems = problems_of(tar_of(with_new_sums(listed)))
    assert len(problems) == 101 and problems[-1] == "And 50 further problems."


# Who signed


def test_a_bundle_without_a_signature_is_refused_unless_that_is_allowed(carrier):
    raw = carrier.bundle(carrier.tiny(), signed=False)
    assert problems_of(raw) == ["The bundle is not signed."]
    assert problems_of(raw, check_signature=believe) == []


def test_a_lying_sender_without_the_key_is_refused(members):
    lied = [(name, data.replace(b"trivy-db", b"trivy-bd") if name == "README.txt" else data) for name, data in members]
    raw = tar_of([members[0], with_new_sums(lied)[1], members[2], *lied[3:]])
    assert problems_of(raw) == ["The signature is wrong."]


def test_the_signature_stands_right_after_the_list_and_nowhere_else(members):
    first, sums, signature, *rest = members
    for order in ([first, signature, sums, *rest], [first, sums, *rest, signature], [signature, first, sums, *rest]):
        assert is_refused(tar_of(order))


def signed_by_openssh(key: Key) -> Callable[[bytes, bytes | None], PublicKey]:
    def check(sums: bytes, signature: bytes | None) -> PublicKey:
        try:
            return verify(sums, signature or b"", [key.public])
        except SignatureError as error:
            raise SignatureRefused(str(error)) from error

    return check


@pytest.fixture(scope="module")
def key() -> Key:
    return Key.generate()


@pytest.fixture(scope="module")
def really_signed(carrier, key) -> bytes:
    signer = Signer(key.public.fingerprint, lambda sums: sign(sums, key))
    return carrier.bundle(carrier.tiny(), signer=signer)


def test_a_real_signature_is_accepted_and_the_key_of_another_is_not(really_signed, key):
    assert problems_of(really_signed, check_signature=signed_by_openssh(key)) == []
    (problem,) = problems_of(really_signed, check_signature=signed_by_openssh(Key.generate()))
    assert problem.endswith("which is not among the trusted ones.")


def test_every_byte_of_a_real_signature_counts(really_signed, key):
    begin = really_signed.index(b"-----BEGIN SSH SIGNATURE-----")
    end = really_signed.index(b"README.txt", begin)
    check = signed_by_openssh(key)
    for at in range(begin, end):
        spoilt = flipped(really_signed, at, 1 << at % 7)
        assert problems_of(spoilt, check_signature=check, facts_of=lambda *_: FACTS), f"byte {at - begin}"
