"""Ranges and entity tags, compared with slices of the bytes themselves."""

import random

import pytest

from mirrors.views.ranges import Span, Unsatisfiable, choose_span, matches_any

ETAG = '"abc"'


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-0", (0, 1)),
        ("bytes=5-", (5, 10)),
        ("bytes=9-", (9, 10)),
        ("bytes=2-4", (2, 5)),
        ("bytes=2-99", (2, 10)),
        ("bytes=-3", (7, 10)),
        ("bytes=-99", (0, 10)),
        ("BYTES = 2-4 ", (2, 5)),
    ],
)
def test_it_takes_a_single_range(header, expected):
    span = choose_span(header, None, ETAG, 10)
    assert (span.start, span.stop) == expected
    assert span.partial
    assert span.content_range == f"bytes {expected[0]}-{expected[1] - 1}/10"


@pytest.mark.parametrize(
    "header",
    [None, "", "bytes=", "bytes=-", "bytes=4-2", "bytes=0-1,4-5", "lines=1-2", "bytes=a-b", "bytes=1--2", "bytes=٣-٤"],
)
def test_it_sends_the_whole_for_what_is_no_single_range(header):
    assert choose_span(header, None, ETAG, 10) == Span(0, 10, 10, partial=False)


def test_it_sends_the_whole_for_an_absurdly_long_range():
    assert not choose_span("bytes=" + "1" * 5000 + "-", None, ETAG, 10).partial


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=10-20", "bytes=-0", "bytes=99999999999999999999-"])
def test_it_refuses_a_range_outside_of_the_file(header):
    with pytest.raises(Unsatisfiable) as caught:
        choose_span(header, None, ETAG, 10)
    assert caught.value.content_range == "bytes */10"
    assert str(caught.value) == "The range asked for is outside of the 10 bytes there are."


def test_any_range_is_the_same_slice_of_the_bytes():
    dice = random.Random(7)
    for _ in range(2000):
        data = bytes(dice.randrange(256) for _ in range(dice.randrange(1, 60)))
        first, last = dice.randrange(70), dice.randrange(70)
        header, expected = dice.choice(
            [
                (f"bytes={first}-{last}", data[first : last + 1] if last >= first else data),
                (f"bytes={first}-", data[first:]),
                (f"bytes=-{first}", data[-first:] if first else b""),
            ]
        )
        try:
            span = choose_span(header, None, ETAG, len(data))
        except Unsatisfiable:
            assert expected == b""
        else:
            assert data[span.start : span.stop] == expected
            assert span.length == len(expected)
            assert span.has_last_byte == (span.stop == len(data))


def test_if_range_of_another_version_sends_the_whole():
    assert choose_span("bytes=5-", ETAG, ETAG, 10).partial
    for other in ('"other"', 'W/"abc"', "Fri, 20 Nov 2026 12:00:00 GMT"):
        assert not choose_span("bytes=5-", other, ETAG, 10).partial


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, False),
        ("*", True),
        ('"abc"', True),
        ('W/"abc"', True),
        ('"x", "abc"', True),
        ('"x"', False),
        ("abc", False),
    ],
)
def test_if_none_match_compares_weakly(header, expected):
    assert matches_any(header, ETAG) is expected


def test_if_match_compares_strongly():
    assert matches_any('"abc"', ETAG, weakly=False)
    assert not matches_any('W/"abc"', ETAG, weakly=False)
