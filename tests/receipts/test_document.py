"""The signed text of a receipt: one form, five facts, and nothing else."""

import shutil
import subprocess
from datetime import date

import pytest

from mirrors.receipts import LONGEST, NAMESPACE, Receipt, ReceiptError, read, read_signed
from mirrors.signing import SignatureError, check


def test_what_is_written_is_read_again(signed, receipt, key):
    found = read_signed(signed)
    assert found.receipt == receipt
    assert check(found.receipt.text(), found.signature, NAMESPACE).fingerprint == key.fingerprint


def test_it_holds_the_five_facts_and_nothing_else(receipt, key):
    assert receipt.text().decode() == (
        f"airgap-receipt 1\nbundle ab12cd34\noutcome received\ndate 2026-11-30\nkey {key.fingerprint}\nsite NORD-2\n"
    )
    assert receipt.filename == "airgap-receipt-ab12cd34.txt"


def test_line_ends_and_white_space_of_a_browser_change_nothing(signed):
    pasted = b"\r\n  " + signed.replace(b"\n", b" \r\n") + b"\n\n"
    assert read(pasted) == read_signed(signed)


def test_no_flipped_bit_is_taken_as_another_true_receipt(signed, receipt):
    for at in range(len(signed)):
        for bit in (1, 32):
            changed = bytearray(signed)
            changed[at] ^= bit
            try:
                found = read(bytes(changed))
                check(found.receipt.text(), found.signature, NAMESPACE)
            except (ReceiptError, SignatureError, AttributeError):
                continue
            assert found.receipt == receipt, at


@pytest.mark.parametrize(
    "change",
    [
        (b"airgap-receipt 1\n", b"airgap-receipt 1\nhost scanner.example\n"),
        (b"outcome received\ndate 2026-11-30\n", b"date 2026-11-30\noutcome received\n"),
        (b"outcome received", b"outcome  received"),
        (b"outcome received", b"outcome lost"),
        (b"date 2026-11-30", b"date 2026-02-30"),
        (b"date 2026-11-30", b"date 0026-01-30"),
        (b"bundle ab12cd34", b"bundle AB12CD34"),
        (b"bundle ab12cd34", b"bundle ../../etc"),
        (b"key SHA256:", b"key MD5:"),
        (b"site NORD-2", b"site nord-2"),
        (b"site NORD-2", "site NÖRD".encode()),
        (b"airgap-receipt 1", b"airgap-receipt 2"),
        (b"airgap-receipt 1\n", b""),
        (b"-----END SSH SIGNATURE-----\n", b""),
        (b"-----BEGIN SSH SIGNATURE-----\n", b""),
    ],
)
def test_it_refuses_any_other_form(signed, change):
    before, after = change
    assert before in signed
    with pytest.raises(ReceiptError):
        read_signed(signed.replace(before, after, 1))


def test_it_tells_a_newer_format_from_rubbish(signed):
    with pytest.raises(ReceiptError, match="format 7, and this version reads 1"):
        read(signed.replace(b"airgap-receipt 1", b"airgap-receipt 7", 1))


def test_it_refuses_two_receipts_in_one(signed):
    with pytest.raises(ReceiptError):
        read(signed + signed)


def test_it_refuses_what_is_too_long_before_looking_at_it(signed):
    with pytest.raises(ReceiptError, match="too long"):
        read(signed + b" " * LONGEST)


def test_it_says_what_to_do_with_nothing():
    with pytest.raises(ReceiptError, match="nothing to load"):
        read(b" \n")


def test_it_makes_none_of_what_a_receipt_cannot_say(key):
    with pytest.raises(ReceiptError, match="clock"):
        Receipt("ab12cd34", "received", date(1970, 1, 1), key.fingerprint, "NORD")
    with pytest.raises(ReceiptError, match="site's code"):
        Receipt("ab12cd34", "received", date(2026, 1, 1), key.fingerprint, "NORD\nhost x")


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")
def test_ssh_keygen_verifies_it_too(signed, receipt, key, tmp_path):
    (tmp_path / "signed.sig").write_bytes(signed.removeprefix(receipt.text()))
    (tmp_path / "signers").write_text(f"site {key.public_line()}\n")
    arguments = ["-f", tmp_path / "signers", "-I", "site", "-n", NAMESPACE, "-s", tmp_path / "signed.sig"]
    subprocess.run(["ssh-keygen", "-Y", "verify", *arguments], input=receipt.text(), check=True, timeout=20)
