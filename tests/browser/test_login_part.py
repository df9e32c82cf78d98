"""The login part of a form: of the kinds of login, only the chosen one's fields are there to be filled in."""

import os

import pytest

from mirrors import content, mirroring
from mirrors.mirror_rules import SourceSpec
from mirrors.models import Source

pytestmark = [pytest.mark.browser, pytest.mark.long, pytest.mark.django_db(transaction=True)]

FIELDS = {
    "User name and password": ["User name", "Password"],
    "Token": ["Token"],
    "Docker config file": ["Docker config"],
}


@pytest.mark.parametrize("width", [390, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_only_the_fields_of_the_chosen_kind_are_shown(open_page, administrator, now, width, scheme):
    specs = [SourceSpec("git+https://git.example/security/vexhub.git@main"), SourceSpec("file:///srv/vex")]
    mirroring.add_mirror("hub", mirroring.Settings(kind="vex", sources=specs), by="", now=now)
    page = open_page(administrator, viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.goto("/settings/mirrors/hub/")
    page.get_by_text("Proxy, certificates and login").first.click()
    everything = {label for labels in FIELDS.values() for label in labels}
    part = page.locator(".login-part")
    for kind, labels in FIELDS.items():
        part.get_by_role("radio", name=kind, exact=True).check()
        for label in everything:
            assert part.locator(f"label:text-is('{label}')").or_(
                part.locator(f"label:has-text('{label} (optional)')")
            ).last.is_visible() == (label in labels), (kind, label)
        if folder := os.environ.get("AIRGAP_SHOTS"):
            part.scroll_into_view_if_needed()
            page.screenshot(path=f"{folder}/login-{kind.split()[0]}-{width}-{scheme}.png")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    part.get_by_role("radio", name="Token", exact=True).check()
    part.locator("input[name=token]").fill("geheim-123")
    page.get_by_role("button", name="Save").click()
    page.wait_for_load_state()
    assert content.vault().decrypt(Source.objects.get(position=0).secret_sealed) == "geheim-123"
    assert "with a token" in page.content() and "geheim" not in page.content()
    if folder := os.environ.get("AIRGAP_SHOTS"):
        page.screenshot(path=f"{folder}/saved-{width}-{scheme}.png", full_page=True)
