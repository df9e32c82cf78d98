"""Trivy's rules that need no network."""

import json

import pytest

from mirrors.doctor.rules import after, error_codes, realm_fault, refused_redirect, tries_next


@pytest.mark.parametrize(
    ("status", "codes", "next_one"),
    [
        (429, (), True),
        (503, (), True),
        (500, (), True),
        (408, (), True),
        (404, (), False),
        (401, (), False),
        (501, (), False),
        (429, ("TOOMANYREQUESTS",), True),
        (404, ("UNAVAILABLE",), True),
        (404, ("BLOB_UNKNOWN",), True),
        (404, ("MANIFEST_UNKNOWN", "BLOB_UNKNOWN"), True),
        (404, ("MANIFEST_UNKNOWN",), False),
        (403, ("DENIED",), False),
        # The code wins over the status.
        (503, ("DENIED",), False),
        (503, ("SERVICE_UNAVAILABLE",), False),
        (503, ("UNKNOWN", "DENIED"), False),
    ],
)
def test_the_next_repository_of_a_list_is_asked_for_passing_trouble_only(status, codes, next_one):
    assert tries_next(status, codes) is next_one
    assert ("asks the next repository" in after(status, codes)) is next_one


def test_a_code_that_undoes_its_status_is_named():
    assert "because the code DENIED in the answer counts more than the status" in after(503, ("DENIED",))
    assert "three times" in after(503, ("DENIED",)) and "three times" not in after(404, ())


@pytest.mark.parametrize(
    ("body", "codes"),
    [
        (b'{"errors":[{"code":"DENIED","message":"<script>"}]}', ("DENIED",)),
        (b"<html>", ()),
        (b"[]", ()),
        (b'{"errors":{"code":1}}', ()),
        (b'{"errors":[{"message":"x"}]}', ()),
        (json.dumps({"errors": [{"code": "x" * 500}]}).encode(), ("(unreadable)",)),
        (b'{"errors":[{"code":"A\\u0000B secret text of somebody"}]}', ("(unreadable)",)),
        (b"[" * 100_000, ()),
    ],
)
def test_nothing_but_codes_is_taken_from_an_error(body, codes):
    assert error_codes(body) == codes


@pytest.mark.parametrize(
    ("realm", "scheme", "fault"),
    [
        ("https://auth.example/token", "https", ""),
        ("https://10.0.0.5/token", "https", "private one"),
        ("https://169.254.169.254/token", "https", "private one"),
        ("https://[::1]/token", "https", "private one"),
        # Its own host and port, and names wherever they lead.
        ("https://127.0.0.1:5000/token", "https", ""),
        ("https://intern/token", "https", ""),
        ("http://auth.example/token", "https", "plain HTTP"),
        ("http://auth.example/token", "http", ""),
        ("ftp://auth.example/", "https", "no web address"),
        ("https://[/", "https", "cannot be read"),
        ("token", "https", "no web address"),
    ],
)
def test_a_token_server_is_asked_or_not(realm, scheme, fault):
    assert (
        (fault in realm_fault(realm, "127.0.0.1:5000", scheme))
        if fault
        else not realm_fault(realm, "127.0.0.1:5000", scheme)
    )


@pytest.mark.parametrize(
    ("hosts", "refused"),
    [
        ((), ""),
        (("registry.example",), ""),
        (("registry.example", "cdn.example"), ""),
        (("registry.example", "10.0.0.9:9000"), "10.0.0.9:9000"),
        (("10.0.0.5", "10.0.0.9"), "10.0.0.9"),
        (("10.0.0.5:5000", "10.0.0.5:9000"), ""),
        (("registry.example", "8.8.8.8"), ""),
    ],
)
def test_a_redirect_to_a_private_address_is_not_followed(hosts, refused):
    assert refused_redirect(hosts) == refused
