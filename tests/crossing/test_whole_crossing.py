"""The whole way, with two instances as they are really run: the connected one beside an upstream on loopback, the
isolated one in a network namespace that has no route. Sync, export in volumes, carry, import, serve, confirm; and once
more with only what is missing. How old everything is on either side is looked at after every step.
"""

import base64
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.crossing.instance import Instance, Person, wait_for
from tests.crossing.test_nothing_goes_out import outward
from tests.crossing.upstream import upstream

pytestmark = [pytest.mark.servers, pytest.mark.peers, pytest.mark.timeout(600)]

DATABASES = {"trivy-db", "trivy-java-db", "trivy-checks", "trivy-checks-1", "vexhub"}
BEGIN = """
from mirrors.first_start import first_start
from mirrors.models import Mirror
first_start(demo_upstream="{address}")
# The demo's limits are minutes.
Mirror.objects.update(due_seconds=None, stale_seconds=None, expired_seconds=None)
"""
CHROMIUM = Path(os.environ.get("AIRGAP_CHROMIUM", "/usr/bin/chromium"))


@pytest.fixture
def internet(tmp_path):
    with upstream(tmp_path / "upstream") as found:
        yield found


@pytest.fixture
def connected(instance, internet):
    """The connected side, with mirrors that point to the upstream."""
    return instance("connected", AIRGAP_SCHEDULE="off", first=BEGIN.format(address=internet.address))


@pytest.fixture
def isolated(instance, building):
    return instance("isolated", namespace=building)


def site(connected: Instance) -> dict[str, Any]:
    """How the connected side sees the far one, by database."""
    (found,) = json.loads(connected.manage("site", "list", "bunker", "--json"))
    return {**found, "databases": {row["mirror"]: row for row in found["databases"] if row}}


def age_agrees(connected: Instance, isolated: Instance, *, evidence: dict[str, str]) -> None:
    """Both sides say the same of what lies over there: the same build, of the same age."""
    here, seen = isolated.freshness(), site(connected)["databases"]
    assert set(here) == set(seen) == DATABASES
    for name, row in here.items():
        assert row["digest"] == seen[name]["digest"], name
        assert row["updated_at"] == seen[name]["updated_at"], name
        assert seen[name]["evidence"] == evidence[name], name
        assert abs(row["age_seconds"] - seen[name]["age_seconds"]) < 120, name


def test_the_whole_crossing(connected, isolated, internet, tmp_path):
    medium = tmp_path / "medium"
    medium.mkdir()
    operator = Person(isolated)

    # Nothing is anywhere.
    assert "Nothing has come across yet." in operator.get("/").text
    assert isolated.freshness() == {}
    connected.manage("site", "add", "bunker", "--label", "The bunker")
    assert site(connected)["databases"] == {} and site(connected)["last_transfer"] is None

    # Synced: fresh on this side, nothing over there.
    connected.manage("sync", "--wait", *DATABASES)
    there = connected.freshness()
    assert {row["state"] for row in there.values() if row["mirror"] in DATABASES} == {"fresh"}
    assert site(connected)["databases"] == {}

    # Whose bundles are believed.
    signers = connected.manage("signing_key", "show", "--allowed-signers")
    (medium / "head-office.signers").write_text(signers)
    isolated.manage("signing_key", "trust", "head-office", str(medium / "head-office.signers"))

    # Exported in volumes, and carried. Nothing is known to be there before something says so.
    (made,) = json.loads(
        connected.manage(
            "export_bundle",
            *sorted(DATABASES),
            "--site",
            "bunker",
            "--volume-size",
            "1048576",
            "--output",
            str(medium),
            "--json",
        )
    )
    volumes = sorted(medium.glob("airgap-*.tar.0*of0*"))
    assert len(volumes) >= 3 and made["site"] == "bunker"
    connected.manage("site", "mark", made["bundle"], "--carried", "--reference", "DVD 17")
    assert site(connected)["last_transfer"]["state"] == "carried"

    # Imported in the browser, the volumes in any order; nothing is switched before somebody says so.
    (upload_in_a_browser if CHROMIUM.exists() else upload)(operator, volumes[::-1])
    page = wait_for(lambda: waiting(operator), 60, isolated.said)
    assert isolated.freshness() == {}
    switch(operator, page)
    here = isolated.freshness()
    for name in DATABASES:
        assert (here[name]["digest"], here[name]["updated_at"]) == (there[name]["digest"], there[name]["updated_at"])
        assert (here[name]["state"], here[name]["cause"], here[name]["bundle"]) == ("fresh", "", made["bundle"])
    dashboard = operator.get("/").text
    assert "All five are fresh." in dashboard and "signed by head-office" in dashboard and made["bundle"] in dashboard

    # Served, to programs that live over there.
    serves(isolated, tmp_path, there["trivy-db"]["digest"])

    # The answer: none before an administrator allows it, then the signed one, whose key is trusted first.
    assert isolated.run_manage("receipt", "show", check=False).returncode == 1
    assert site(connected)["databases"] == {}
    isolated.manage("receipt", "on")
    (medium / "bunker.pub").write_text(isolated.manage("signing_key", "show"))
    connected.manage("signing_key", "trust", "bunker", str(medium / "bunker.pub"))
    answer(connected, isolated, made["bundle"])
    assert site(connected)["last_transfer"]["state"] == "received"
    age_agrees(connected, isolated, evidence=dict.fromkeys(DATABASES, "receipt"))

    # Upstream publishes one more; the site now lacks that alone.
    assert internet.publish() == ["trivy-db"]
    connected.manage("sync", "--wait", "trivy-db")
    newer = connected.freshness()["trivy-db"]
    assert newer["digest"] != there["trivy-db"]["digest"]
    assert site(connected)["databases"]["trivy-db"]["is_current"] is False
    (second,) = json.loads(
        connected.manage(
            "export_bundle", *sorted(DATABASES), "--site", "bunker", "--missing", "--output", str(medium), "--json"
        )
    )
    assert [row["mirror"] for row in second["snapshots"]] == ["trivy-db"]
    assert second["size"] < made["size"] and set(second["left_out"]) == DATABASES - {"trivy-db"}
    (taken,) = json.loads(isolated.manage("import_bundle", second["file"], "--json"))
    assert (taken["bundle"], taken["outcome"], taken["problems"]) == (second["bundle"], "succeeded", [])
    after = isolated.freshness()
    assert after["trivy-db"]["digest"] == newer["digest"] and after["trivy-db"]["bundle"] == second["bundle"]
    assert {name: after[name]["digest"] for name in DATABASES - {"trivy-db"}} == {
        name: here[name]["digest"] for name in DATABASES - {"trivy-db"}
    }
    serves(isolated, tmp_path, newer["digest"])
    answer(connected, isolated, second["bundle"], by_telephone=True)
    age_agrees(connected, isolated, evidence=dict.fromkeys(DATABASES, "receipt") | {"trivy-db": "code"})
    assert all(row["is_current"] for row in site(connected)["databases"].values())

    # And on to a further enclave: what came in goes out again, whole.
    (onward,) = json.loads(isolated.manage("export_bundle", "--output", str(medium), "--json"))
    assert {row["digest"] for row in onward["snapshots"]} == {row["digest"] for row in after.values()}

    operator.visit_everything()
    assert outward(isolated) == []


def answer(connected: Instance, isolated: Instance, bundle: str, *, by_telephone: bool = False) -> None:
    """The receipt comes back, signed or as the code that is read out; loading it twice changes nothing."""
    receipt = isolated.manage("receipt", "show", bundle, *(["--text"] if by_telephone else []))
    assert bundle in connected.manage("receipt", "load", "-", text=receipt)
    assert connected.run_manage("receipt", "load", "-", text=receipt, check=False).returncode == 1


def waiting(operator: Person) -> str:
    """The page of the import that waits for a decision, "" while there is none."""
    text = operator.get("/import/").text
    found = re.search(r'href="/import/(\d+)/">See the report', text)
    return found[1] if found else ""


def switch(operator: Person, number: str) -> None:
    page = f"/import/{number}/"
    report = operator.get(page).text
    assert "is verified." in report and "head-office" in report and "new here" in report
    done = operator.post(f"{page}switch", at=page).text
    assert "is in." in done


def upload(person: Person, files: list[Path]) -> None:
    """What the page's script does: every file by tus in two pieces, then the import."""
    for file in files:
        data = file.read_bytes()
        name = base64.b64encode(file.name.encode()).decode()
        headers = {"Tus-Resumable": "1.0.0", "Upload-Length": str(len(data)), "Upload-Metadata": f"filename {name}"}
        made = person.send("POST", "/import/uploads/", headers=headers)
        half = len(data) // 2
        for start, stop in ((0, half), (half, len(data))):
            headers = {"Tus-Resumable": "1.0.0", "Upload-Offset": str(start)}
            headers["Content-Type"] = "application/offset+octet-stream"
            person.send("PATCH", made.headers["Location"], headers=headers, data=data[start:stop])
    name = files[0].name.partition(".tar")[0] + ".tar"
    person.post("/import/uploads/start", at="/import/", name=name)


def upload_in_a_browser(person: Person, files: list[Path]) -> None:
    """A real browser that lives over there, too."""
    from playwright.sync_api import sync_playwright

    isolated = person.instance
    program = str(isolated.namespace.script(str(CHROMIUM))) if isolated.namespace is not None else str(CHROMIUM)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            page = browser.new_page(base_url=isolated.url)
            page.goto("/login/")
            page.get_by_label("User name").fill("admin")
            page.get_by_label("Password").fill(isolated.environment["AIRGAP_ADMIN_PASSWORD"])
            page.get_by_role("button", name="Sign in").click()
            page.get_by_role("link", name="Import a bundle").click()
            page.set_input_files("#files", [str(file) for file in files])
            page.wait_for_url(re.compile(r"/import/\d+/$"), timeout=60_000)
            page.get_by_role("button", name="Switch", exact=True).wait_for(timeout=60_000)
        finally:
            browser.close()


def serves(isolated: Instance, folder: Path, digest: str) -> None:
    """skopeo and, where it is there, Trivy itself take the database from the isolated side's registry."""
    registry = isolated.url.removeprefix("http://")
    if shutil.which("skopeo") is None:
        pytest.skip("skopeo is not installed")
    target = folder / "copied"
    shutil.rmtree(target, ignore_errors=True)
    isolated.run(
        "skopeo", "copy", "--src-tls-verify=false", f"docker://{registry}/aquasecurity/trivy-db:2", f"oci:{target}:2"
    )
    index = json.loads((target / "index.json").read_text())
    assert index["manifests"][0]["digest"] == digest
    if shutil.which("trivy") is not None:
        cache = folder / "cache"
        shutil.rmtree(cache, ignore_errors=True)
        repository = f"{registry}/aquasecurity/trivy-db:2"
        common = ("--insecure", "--cache-dir", str(cache), "--db-repository", repository, "--quiet")
        isolated.run("trivy", "image", "--download-db-only", *common)
        assert (cache / "db" / "trivy.db").stat().st_size > 0
        scanned = folder / "scanned"
        scanned.mkdir(exist_ok=True)
        isolated.run("trivy", "fs", "--scanners", "vuln", *common, "--skip-java-db-update", str(scanned))
