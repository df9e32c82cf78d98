"""The Use it page."""

import re
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from mirrors import destinations
from mirrors.models import Destination, PushRule
from mirrors.snippets import AUDIENCES
from tests.fakes.tls import Authority
from tests.kept import keep_build, keep_vex

pytestmark = pytest.mark.django_db
PAGE = reverse("mirrors:use-it")
CA = reverse("mirrors:use-it-ca")
HOUR = timedelta(hours=1)


def page_for(key):
    return reverse("mirrors:use-it-for", args=[key])


@pytest.fixture
def mirrored(make_mirror, store, now):
    for name in ("trivy-db", "trivy-java-db", "trivy-checks"):
        keep_build(store, make_mirror(name, sources=[f"ghcr.io/aquasecurity/{name}:2"]), now - HOUR)
    keep_vex(store, make_mirror("vexhub", kind="vex", sources=["https://github.com/aquasecurity/vexhub"]), now - HOUR)


def text_of(client, page=PAGE, **more):
    answer = client.get(page, **more)
    assert answer.status_code == 200
    return answer.content.decode()


@pytest.mark.parametrize("key", AUDIENCES)
def test_every_part_works_and_is_a_link_of_its_own(as_viewer, mirrored, key):
    text = text_of(as_viewer, page_for(key))
    assert f'aria-current="page">{AUDIENCES[key].label}</a>' in text
    assert 'aria-current="page">Use it</a>' in text


def test_the_lines_carry_the_address_the_page_was_opened_by(as_viewer, mirrored):
    text = text_of(as_viewer, headers={"host": "10.1.2.3:8000"})
    assert "--db-repository 10.1.2.3:8000/aquasecurity/trivy-db:2" in text
    assert "because it is a private address" in text


def test_the_lines_carry_the_base_url_where_one_is_set(as_viewer, mirrored, settings):
    settings.AIRGAP_BASE_URL = "https://mirror.example:8443"
    text = text_of(as_viewer)
    assert "--db-repository mirror.example:8443/aquasecurity/trivy-db:2" in text
    assert "Scanners reach mirror.example:8443 by TLS." in text
    assert "--insecure" not in text


def test_plain_http_by_name_is_said_first_and_beside_every_line_that_pays_for_it(as_viewer, mirrored, settings):
    settings.AIRGAP_BASE_URL = "http://airgap.example"
    text = text_of(as_viewer)
    assert "<h1>Trivy refuses plain HTTP to airgap.example.</h1>" in text
    assert "AIRGAP_TLS_CERT" in text
    for section in re.findall(r'<section class="snippet".*?</section>', text, re.DOTALL):
        assert ("insecure" in re.sub(r'<p class="notice.*?</p>', "", section)) <= ('class="notice warning' in section)


def test_every_snippet_can_be_copied_and_read_without_javascript(as_viewer, mirrored):
    text = text_of(as_viewer)
    for copied in re.findall(r'data-copy="([^"]+)"', text):
        assert f'<pre id="{copied}"' in text
    assert text.count("<pre ") == text.count("data-copy=") > 5


def test_nothing_mirrored_is_a_page_too(as_viewer, as_administrator):
    text = text_of(as_administrator)
    assert "There is nothing here yet that Trivy could pull." in text
    assert reverse("mirrors:mirror-create") in text


def test_an_isolated_side_waits_for_its_first_bundle(as_viewer, settings):
    settings.AIRGAP_SIDE = "isolated"
    assert "comes with the first bundle" in text_of(as_viewer)
    assert "it asks nobody" in text_of(as_viewer, page_for("hosts"))


def test_what_is_not_mirrored_is_left_out_and_said(as_viewer, make_mirror, store, now):
    keep_build(store, make_mirror(), now - HOUR)
    text = text_of(as_viewer)
    assert "Not mirrored here, so left out: Java DB, checks bundle, VEX repository." in text
    assert "trivy-java-db" not in text


def test_the_traffic_is_reckoned_for_the_scanners_that_were_given(as_viewer, make_mirror, store, now):
    keep_build(store, make_mirror(label="Vulnerability DB"), now - HOUR, padding=1 << 20)
    text = text_of(as_viewer, page_for("compare") + "?scanners=200&jobs=30&fillers=2")
    assert 'name="scanners" inputmode="numeric" pattern="[0-9]*" value="200"' in text
    assert re.search(r"20\d MiB", text)


@pytest.mark.parametrize("given", ["-1", "a", "1e9", "", "９"])
def test_a_count_that_makes_no_sense_is_what_the_page_begins_with(as_viewer, mirrored, given):
    assert 'value="50"' in text_of(as_viewer, page_for("compare") + f"?scanners={given}")


def test_a_count_without_measure_is_capped(as_viewer, mirrored):
    assert 'value="1000000"' in text_of(as_viewer, page_for("compare") + "?scanners=999999999999999999999")


def test_the_firewall_list_names_hosts(as_viewer, mirrored):
    text = text_of(as_viewer, page_for("hosts"))
    assert "pkg-containers.githubusercontent.com:443" in text and "codeload.github.com:443" in text


def test_the_firewall_list_names_the_registries_that_are_pushed_to(as_viewer, mirrored, settings):
    wish = destinations.Wish(address="harbor.example/security", label="Harbor of plant 2")
    destinations.add_destination("plant", wish, by="", now=timezone.now())
    for settings.AIRGAP_SIDE in ("connected", "isolated"):
        text = text_of(as_viewer, page_for("hosts"))
        assert "harbor.example:443" in text and "Harbor of plant 2" in text


def test_comparing_and_the_firewall_open_with_an_answer(as_viewer, mirrored, settings):
    assert re.search(
        r"<h1>50 scanners pull [\d.]+ \w+ a day, or [\d.]+ \w+ once", text_of(as_viewer, page_for("compare"))
    )
    assert "<h1>Four hosts outside are needed.</h1>" in text_of(as_viewer, page_for("hosts"))
    settings.AIRGAP_SIDE = "isolated"
    assert "<h1>This side needs nobody outside.</h1>" in text_of(as_viewer, page_for("hosts"))


def test_an_unknown_part_is_not_found(as_viewer):
    assert as_viewer.get(page_for("nobody")).status_code == 404


def test_it_needs_a_login_and_takes_no_post(client, as_viewer):
    assert as_viewer.post(PAGE).status_code == 405
    as_viewer.logout()
    assert as_viewer.get(PAGE).url.startswith(reverse("mirrors:login"))


def test_the_number_of_queries_does_not_grow_with_the_rows(as_viewer, make_mirror, store, now, mirrored):
    def queries(page):
        with CaptureQueriesContext(
            connection,
        ) as captured:
            as_viewer.get(page)
        return len(captured)

    before = {key: queries(page_for(key)) for key in ("cli", "hosts", "compare")}
    for number in range(4):
        make_mirror(f"more-{number}", kind="oci", sources=[f"host-{number}.example/a:1", "ghcr.io/b:1"])
        keep_vex(store, make_mirror(f"vex-{number}", kind="vex"), now - HOUR)
    assert {key: queries(page_for(key)) for key in ("cli", "hosts", "compare")} == before


def test_the_authority_is_handed_out_to_whoever_asks(client, settings, tmp_path):
    issuer = Authority()
    (tmp_path / "ca.pem").write_text(issuer.pem)
    settings.AIRGAP_TLS_CA = str(tmp_path / "ca.pem")
    answer = client.get(CA)
    assert answer.status_code == 200
    assert answer.content.decode() == issuer.pem
    assert client.post(CA).status_code == 405


def test_without_an_authority_of_its_own_there_is_nothing_to_hand_out(client, settings):
    settings.AIRGAP_TLS_CA = settings.AIRGAP_TLS_CERT = ""
    assert client.get(CA).status_code == 404


def test_the_authority_stands_on_the_page_with_its_fingerprint(as_viewer, mirrored, settings, tmp_path):
    (tmp_path / "ca.pem").write_text(Authority("Our Authority").pem)
    settings.AIRGAP_TLS_CA, settings.AIRGAP_BASE_URL = str(tmp_path / "ca.pem"), "https://airgap.example"
    text = text_of(as_viewer)
    assert "--cacert airgap-ca.pem" in text and "SSL_CERT_FILE" in text
    assert "CN=Our Authority" in text
    assert 'href="/use-it/ca.pem"' in text


def test_a_mirrors_page_leads_here(as_viewer, make_mirror):
    make_mirror()
    make_mirror("nginx", kind="oci")
    assert f'href="{PAGE}">Use it</a>\n    ' in text_of(as_viewer, reverse("mirrors:mirror-detail", args=["trivy-db"]))


def test_the_lines_may_be_written_for_a_registry_that_we_push_to(as_operator, make_mirror, store, now):
    destination = Destination.objects.create(
        name="harbor", label="Harbor", registry="harbor.example", prefix="security", created_at=now
    )
    mirror = make_mirror()
    keep_build(store, mirror, now - HOUR)
    assert "Written for" not in text_of(as_operator)
    PushRule.objects.create(
        mirror=mirror,
        destination=destination,
        target="db:2",
        created_at=now,
        pushed_reference="harbor.example/security/db:2",
    )
    assert '<a href="?at=harbor">Harbor</a>' in text_of(as_operator)
    for key in AUDIENCES:
        text = text_of(as_operator, page_for(key) + "?at=harbor")
        assert f"{page_for('ci')}?at=harbor" in text
    text = text_of(as_operator, PAGE + "?at=harbor")
    assert "--db-repository harbor.example/security/db:2" in text
    assert "AIRGAP_TLS_CERT" not in text and "registry-mirrors" not in text and "fill-curl" not in text
    assert "/use-it/doctor/?address=harbor.example/security/db%3A2" in text
    assert "Scanners pull from harbor.example." in text


def test_a_registry_that_nobody_knows_is_this_instance(as_viewer, mirrored):
    assert "--db-repository testserver:80/aquasecurity/trivy-db:2" in text_of(as_viewer, PAGE + "?at=nowhere")
