"""The typed code: short, forgiving of how it is written, and unforgiving of a wrong character."""

import dataclasses
import random
from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from mirrors.receipts import CHARACTERS, Receipt, ReceiptError, WrongCode, make_code, read, read_code
from mirrors.receipts.code import ALPHABET
from mirrors.receipts.document import FIRST_DAY, LAST_DAY
from tests.receipts.conftest import SECRET

FINGERPRINTS = some.text("ABCXYZabcxyz0189+/", min_size=43, max_size=43).map("SHA256:".__add__)
RECEIPTS = some.builds(
    Receipt,
    bundle=some.text("0123456789abcdef", min_size=8, max_size=8),
    outcome=some.sampled_from(["received", "rejected"]),
    date=some.dates(FIRST_DAY, LAST_DAY),
    key_id=FINGERPRINTS,
    site=some.from_regex(r"[A-Z0-9](-?[A-Z0-9]){0,11}", fullmatch=True),
)
SECRETS = some.binary(min_size=16, max_size=32).map(bytes.hex)


@settings(max_examples=60, deadline=None)
@given(RECEIPTS, SECRETS)
def test_what_is_made_is_read_again(receipt, secret):
    code = make_code(receipt, secret)
    assert len(code.replace("-", "")) == CHARACTERS <= 40
    assert set(code) <= set(ALPHABET) | {"-"}
    found = read_code(code)
    assert (found.bundle, found.outcome, found.date) == (receipt.bundle, receipt.outcome, receipt.date)
    assert receipt.key_id.startswith(f"SHA256:{found.key}")
    assert found.is_genuine(secret, receipt.site)


@pytest.fixture
def code(receipt):
    return make_code(receipt, SECRET)


def test_every_single_wrong_character_is_found_and_its_group_named(code):
    plain = code.replace("-", "")
    for at, letter in enumerate(plain):
        for other in ALPHABET.replace(letter, ""):
            with pytest.raises(WrongCode) as caught:
                read_code(plain[:at] + other + plain[at + 1 :])
            assert caught.value.groups == (at // 5 + 1,)


def test_every_two_swapped_neighbours_are_found(code):
    plain = code.replace("-", "")
    for at in range(len(plain) - 1):
        if plain[at] != plain[at + 1]:
            with pytest.raises(WrongCode):
                read_code(plain[:at] + plain[at + 1] + plain[at] + plain[at + 2 :])


def test_every_two_swapped_groups_are_found(code):
    groups = code.split("-")
    for one in range(len(groups)):
        for other in range(one):
            swapped = list(groups)
            swapped[one], swapped[other] = groups[other], groups[one]
            with pytest.raises(WrongCode):
                read_code("-".join(swapped))


def test_a_left_out_or_doubled_character_is_found(code):
    plain = code.replace("-", "")
    for at in range(len(plain)):
        for typed in (plain[:at] + plain[at + 1 :], plain[: at + 1] + plain[at:]):
            with pytest.raises(WrongCode, match=r"35 characters in 7 groups of 5, and \d+ were typed"):
                read_code(typed)


def test_it_takes_small_letters_spaces_and_letters_that_look_like_digits(code):
    expected = read_code(code)
    assert read_code(code.lower().replace("-", " ")) == expected
    assert read_code(code.replace("-", "").replace("0", "o").replace("1", "l")) == expected
    assert read_code(code.replace("1", "I").replace("0", "O").replace("-", " – ")) == expected
    assert read(f"\n {code}\r\n".encode()) == expected


@pytest.mark.parametrize("typed", ["U" * 35, "Hello, world!", "7ARJ*", "\ufffd", "é" * 35, "0" * 300, "-"])
def test_it_refuses_what_is_no_code_with_a_sentence(typed):
    with pytest.raises(WrongCode, match="code"):
        read_code(typed)


@settings(max_examples=100, deadline=None)
@given(some.binary(max_size=200))
def test_nothing_that_is_typed_breaks_it(text):
    try:
        read(text)
    except ReceiptError as error:
        assert str(error).endswith(".")


def test_it_is_not_genuine_for_another_site_secret_or_fact(receipt, code):
    found = read_code(code)
    assert found.is_genuine(SECRET, "NORD-2")
    assert not found.is_genuine(SECRET, "SUED")
    assert not found.is_genuine("ff" * 16, "NORD-2")
    for change in ({"bundle": "ab12cd35"}, {"outcome": "rejected"}, {"date": date(2026, 12, 1)}, {"key": "AAAA"}):
        assert not dataclasses.replace(found, **change).is_genuine(SECRET, "NORD-2")


def test_it_is_not_made_without_a_secret(receipt):
    for secret in ("", "00ff", "nonsense"):
        with pytest.raises(ReceiptError, match="no secret"):
            make_code(receipt, secret)


def test_a_code_of_rubbish_with_right_check_characters_is_not_genuine(receipt):
    randomly = random.Random(7)
    for _ in range(50):
        secret = randomly.randbytes(16).hex()
        assert not read_code(make_code(receipt, secret)).is_genuine(SECRET, receipt.site)
