"""Checksum files and sigstore bundles as release files have them."""

import base64
import json

import pytest

from mirrors.demo.releases import build_bundle, build_release
from mirrors.digests import digest_of
from mirrors.trivy.release import (
    ISSUER,
    ReleaseError,
    chosen,
    identity_of,
    is_plain,
    parse_checksums,
    read_bundle,
    replaced,
    verify_command,
)

A, B = "a" * 64, "b" * 64


def test_a_checksum_file_names_every_file_with_its_digest():
    files = build_release("0.74.0", ("Linux-64bit", "windows-64bit"), signed=False)
    listed = parse_checksums(files["trivy_0.74.0_checksums.txt"], "It")
    assert listed == {name: digest_of(data) for name, data in files.items() if not name.endswith("checksums.txt")}


def test_binary_marks_capital_digits_windows_lines_and_a_line_twice_are_taken():
    raw = f"{A.upper()} *x\r\n{B}  y\r\n\r\n{B}  y\n".encode()
    assert parse_checksums(raw, "It") == {"x": f"sha256:{A}", "y": f"sha256:{B}"}


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"\xff\xfe", "is not text"),
        (b"hello\n", "no checksum"),
        (f"{A[1:]}  x\n".encode(), "no checksum"),
        (f"{A}  ../x\n".encode(), "may not be called so"),
        (f"{A}  a/b\n".encode(), "may not be called so"),
        (f"{A}  .hidden\n".encode(), "may not be called so"),
        (f"{A}  x\x1b[2J\n".encode(), "may not be called so"),
        (f"{A}  x \n".encode(), "may not be called so"),
        (f"{A}  x\n{B}  x\n".encode(), "two different checksums"),
        (b"x" * (1024 * 1024 + 1), "more than 1048576 bytes"),
        (b"".join(f"{A}  f{n}\n".encode() for n in range(10_001)), "more than 10000 files"),
    ],
)
def test_what_is_no_checksum_file_or_a_hostile_one_is_refused(raw, words):
    with pytest.raises(ReleaseError, match=words):
        parse_checksums(raw, "trivy_checksums.txt")


def test_a_plain_name_stays_in_its_folder():
    assert is_plain("trivy_0.74.0_Linux-64bit.tar.gz")
    for name in ("", ".", "..", "a/b", "a\\b", "-rf", "~x", "a\nb", "x" * 201, "a:b", "\u202ex"):
        assert not is_plain(name), name


def test_chosen_files_keep_their_order_and_a_missing_line_is_named_with_what_there_is():
    listed = {"x": "1", "y": "2", "z": "3"}
    assert list(chosen(listed, ["z", "x", "z"], "It")) == ["z", "x"]
    with pytest.raises(ReleaseError, match=r"no line for w.*It names x, y, z"):
        chosen(listed, ["x", "w"], "It")


def test_a_replaced_file_is_one_whose_digest_changed_and_no_other():
    assert replaced({"x": "1", "y": "2", "gone": "3"}, {"x": "1", "y": "9", "new": "4"}) == ["y"]


def test_a_bundle_states_what_it_signs_and_who():
    stated = read_bundle(build_bundle(b"data", "0.74.0"))
    assert stated.digest == digest_of(b"data")
    assert (stated.identity, stated.issuer) == (identity_of("0.74.0"), ISSUER)


def test_an_older_bundle_has_its_certificate_in_a_chain():
    document = json.loads(build_bundle(b"data", "0.74.0"))
    certificate = document["verificationMaterial"].pop("certificate")
    document["verificationMaterial"]["x509CertificateChain"] = {"certificates": [certificate]}
    assert read_bundle(json.dumps(document).encode()).digest == digest_of(b"data")


def broken_bundles():
    good = json.loads(build_bundle(b"data", "0.74.0"))
    for part, value in (
        ("messageDigest", {"algorithm": "SHA2_512", "digest": "AA=="}),
        ("messageDigest", {"algorithm": "SHA2_256", "digest": "AA=="}),
        ("messageDigest", {"algorithm": "SHA2_256", "digest": "!"}),
        ("messageDigest", None),
    ):
        yield json.dumps({**good, "messageSignature": {**good["messageSignature"], part: value}}).encode()
    for certificate in (None, {}, {"rawBytes": base64.b64encode(b"no DER").decode()}, {"rawBytes": 1}):
        yield json.dumps({**good, "verificationMaterial": {"certificate": certificate}}).encode()
    yield from (b"", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"verificationMaterial": "x"}')


def test_what_is_no_bundle_is_refused_in_words():
    for raw in broken_bundles():
        with pytest.raises(ReleaseError, match="no sigstore bundle"):
            read_bundle(raw)


def test_the_command_names_the_documented_signer_not_the_one_the_bundle_states():
    command = verify_command("trivy_0.74.0_Linux-64bit.tar.gz", "0.74.0")
    assert "--bundle trivy_0.74.0_Linux-64bit.tar.gz.sigstore.json" in command
    assert "aquasecurity/trivy/.github/workflows/reusable-release.yaml@refs/tags/v0.74.0" in command
