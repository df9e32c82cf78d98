"""What is said at the start about certificates and keys that cannot be used."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives import serialization

from airgap.running.preconditions import CannotStart
from airgap.running.tls import make_context
from mirrors.checks import certificate, public_address
from tests.fakes.tls import Authority

AUTHORITY = Authority()


@pytest.fixture
def pair(tmp_path, settings):
    issued = AUTHORITY.issue()
    settings.AIRGAP_TLS_CERT, settings.AIRGAP_TLS_KEY = tmp_path / "cert.pem", tmp_path / "key.pem"
    settings.AIRGAP_TLS_CERT.write_text(issued.certificate_pem)
    settings.AIRGAP_TLS_KEY.write_text(issued.key_pem)
    settings.AIRGAP_TLS_CA = None
    return settings.AIRGAP_TLS_CERT, settings.AIRGAP_TLS_KEY


def refusal(pair) -> str:
    with pytest.raises(CannotStart) as caught:
        make_context(*pair)
    assert [str(caught.value)] == [message.msg for message in certificate(None)]
    assert [message.id for message in certificate(None)] == ["airgap.E003"]
    return str(caught.value)


def test_a_good_pair_is_taken_without_a_word(pair):
    make_context(*pair)
    assert certificate(None) == []


def test_nothing_is_said_where_there_is_none(settings):
    settings.AIRGAP_TLS_CERT = settings.AIRGAP_TLS_KEY = settings.AIRGAP_TLS_CA = None
    assert certificate(None) == []


@pytest.mark.parametrize(("which", "variable"), [(0, "AIRGAP_TLS_CERT"), (1, "AIRGAP_TLS_KEY")])
def test_a_missing_file_is_named_with_its_variable(pair, which, variable):
    pair[which].unlink()
    assert refusal(pair) == f"{variable} names {pair[which]}, which cannot be read (No such file or directory)."


def test_another_certificates_key_is_told_apart(pair):
    pair[1].write_text(AUTHORITY.issue().key_pem)
    assert "is not that of the certificate" in refusal(pair)


def test_an_encrypted_key_is_refused_and_nobody_is_asked_for_its_password(pair):
    key = serialization.load_pem_private_key(pair[1].read_bytes(), None)
    secret = serialization.BestAvailableEncryption(b"secret")
    pair[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secret))
    assert "is encrypted, and nobody is here to give its password" in refusal(pair)


@pytest.mark.parametrize("content", [b"", b"\x30\x82\x01", b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_what_is_not_pem_is_refused(pair, content):
    pair[0].write_bytes(content)
    assert "are not a certificate and a key in PEM" in refusal(pair)


@pytest.mark.parametrize(("days", "says"), [((-20, -2), "expired on"), ((2, 20), "is not valid before")])
def test_dates_that_do_not_hold_are_said_and_do_not_stop_the_start(pair, days, says):
    first, last = (datetime.now(UTC) + timedelta(days=number) for number in days)
    issued = AUTHORITY.issue(not_before=first, not_after=last)
    pair[0].write_text(issued.certificate_pem)
    pair[1].write_text(issued.key_pem)
    (message,) = certificate(None)
    assert message.id == "airgap.W007"
    assert says in message.msg


def test_an_authority_that_is_no_certificate_is_refused(pair, settings, tmp_path):
    settings.AIRGAP_TLS_CA = tmp_path / "ca.pem"
    (message,) = certificate(None)
    assert (message.id, "AIRGAP_TLS_CA names" in message.msg) == ("airgap.E003", True)
    settings.AIRGAP_TLS_CA.write_text(AUTHORITY.pem)
    assert certificate(None) == []


def test_an_address_without_tls_is_said_where_there_is_nothing_but_tls(pair, settings):
    settings.AIRGAP_BASE_URL = "http://airgap.example"
    assert [message.id for message in public_address(None)] == ["airgap.W008"]
    settings.AIRGAP_BASE_URL = "https://airgap.example"
    assert public_address(None) == []
