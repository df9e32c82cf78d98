"""What Trivy makes of a host by its name: the rules of go-containerregistry."""

import pytest

from mirrors.snippets import reach_of
from mirrors.trivy.hosts import registry_name, speaks_plain_http, without_port


@pytest.mark.parametrize(
    ("host", "plain"),
    [
        ("localhost:5000", True),
        ("registry.localhost", True),
        ("registry.localhost:5000", True),
        ("127.0.0.1", True),
        ("127.0.0.1:5000", True),
        ("[::1]:5000", True),
        ("10.1.2.3", True),
        ("10.1.2.3:5000", True),
        ("172.16.0.1:80", True),
        ("172.32.0.1:80", False),
        ("192.168.7.7", True),
        # By name it must be TLS, wherever the name leads.
        ("localhost", False),
        ("airgap.example", False),
        ("airgap.example:8000", False),
        ("127.0.0.2:5000", False),
        ("8.8.8.8", False),
        ("[fd00::1]:5000", False),
        ("10.example", False),
    ],
)
def test_trivy_speaks_plain_http_to_loopback_and_private_addresses_only(host, plain):
    assert speaks_plain_http(host) is plain


@pytest.mark.parametrize(
    ("host", "scheme", "written"),
    [
        ("airgap", "https", "airgap:443"),
        ("airgap", "http", "airgap:80"),
        ("airgap:8443", "https", "airgap:8443"),
        ("airgap.example", "https", "airgap.example"),
        ("localhost", "https", "localhost"),
        ("localhost", "http", "localhost:80"),
    ],
)
def test_a_bare_name_gets_its_port_or_trivy_would_take_it_for_a_folder_on_docker_hub(host, scheme, written):
    assert registry_name(host, scheme) == written


@pytest.mark.parametrize(
    ("text", "bare"),
    [("a.example:80", "a.example"), ("a.example", "a.example"), ("[::1]:80", "[::1]"), ("[::1]", "[::1]")],
)
def test_a_port_is_told_from_an_address(text, bare):
    assert without_port(text) == bare


@pytest.mark.parametrize(
    ("scheme", "host", "state", "words"),
    [
        ("https", "airgap.example", "ok", "reach airgap.example by TLS"),
        ("http", "10.0.0.5:8000", "warning", "because it is a private address"),
        ("http", "127.0.0.1:8000", "warning", "Only scanners on this very machine"),
        ("https", "localhost:8443", "warning", "Only scanners on this very machine"),
        ("http", "airgap.example:8000", "broken", "Trivy refuses plain HTTP to airgap.example:8000."),
    ],
)
def test_it_says_whether_scanners_get_here(scheme, host, state, words):
    reach = reach_of(scheme, host, private_ca=False)
    assert reach.state == state
    assert words in reach.sentence


def test_plain_http_by_name_names_the_cure_and_the_cost_of_insecure():
    told = reach_of("http", "airgap.example", private_ca=False).explanation
    assert "AIRGAP_TLS_CERT" in told and "nginx" in told
    assert "--insecure" in told and "every other certificate" in told
