"""The certificate authority that is handed out to scanners."""

import pytest

from mirrors import authority
from tests.fakes.tls import Authority


@pytest.fixture
def issuer():
    return Authority("Our Authority")


def kept(tmp_path, *texts):
    path = tmp_path / "chain.pem"
    path.write_text("".join(texts))
    return str(path)


def test_a_named_file_is_handed_out(settings, tmp_path, issuer):
    settings.AIRGAP_TLS_CA = kept(tmp_path, issuer.pem)
    assert authority.pem().decode() == issuer.pem
    (found,) = authority.authorities()
    assert found.subject == "CN=Our Authority"
    assert len(found.fingerprint.split(":")) == 32


def test_a_key_in_the_same_file_stays_there(settings, tmp_path, issuer):
    settings.AIRGAP_TLS_CA = kept(tmp_path, issuer.issue("airgap.example").key_pem, issuer.pem)
    assert authority.pem().decode() == issuer.pem


def test_without_it_the_root_at_the_end_of_the_servers_chain_counts(settings, tmp_path, issuer):
    settings.AIRGAP_TLS_CA = ""
    settings.AIRGAP_TLS_CERT = kept(tmp_path, issuer.issue("airgap.example").certificate_pem, issuer.pem)
    assert authority.pem().decode() == issuer.pem


def test_a_certificate_of_somebody_elses_authority_needs_nothing_handed_out(settings, tmp_path, issuer):
    settings.AIRGAP_TLS_CA = ""
    settings.AIRGAP_TLS_CERT = kept(tmp_path, issuer.issue("airgap.example").certificate_pem)
    assert authority.pem() == b""


@pytest.mark.parametrize(
    "text", ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_a_file_that_holds_none_is_none(settings, tmp_path, text):
    settings.AIRGAP_TLS_CA = kept(tmp_path, text)
    assert authority.pem() == b""


def test_a_file_that_is_not_there_is_none(settings, tmp_path):
    settings.AIRGAP_TLS_CA = str(tmp_path / "missing.pem")
    assert authority.certificates() == []
