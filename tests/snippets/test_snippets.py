"""Every snippet for every kind of instance: it parses, it names this host, and it says what it must."""

import json
import subprocess

import pytest
import yaml

from mirrors.snippets import AUDIENCES, Artifact, Instance, ReleaseFile, VexRepository, snippets_for
from tests.snippets.conftest import CHECKS, CHECKS_1, DB, JAVA_DB, VEX_HUB

INSTANCES = {
    "tls": ("https", "airgap.example", {}),
    "private ca and login": ("https", "airgap.example:8443", {"ca_path": "/use-it/ca.pem", "login_required": True}),
    "plain http by name": ("http", "airgap.example:8000", {}),
    "bare name": ("https", "airgap", {}),
    "ipv6": ("http", "[::1]:8000", {}),
    "loopback": ("http", "127.0.0.1:8000", {}),
    "only the db": ("https", "airgap.example", {"artifacts": (DB,), "vex": ()}),
    "only vex": ("https", "airgap.example", {"artifacts": ()}),
    "old checks": ("https", "airgap.example", {"artifacts": (DB, CHECKS_1)}),
    "isolated": ("http", "10.0.0.5:8000", {"courier_days": 7}),
    "nothing": ("https", "airgap.example", {"artifacts": (), "vex": ()}),
}


@pytest.fixture(params=INSTANCES, ids=[name.replace(" ", "-") for name in INSTANCES])
def instance(request, make_instance) -> Instance:
    scheme, host, fields = INSTANCES[request.param]
    return make_instance(scheme, host, **fields)


def everything(instance):
    return [snippet for key in AUDIENCES for snippet in snippets_for(key, instance)]


def named(instance, id):
    return next(snippet for snippet in everything(instance) if snippet.id == id)


def test_every_snippet_parses(instance):
    for snippet in everything(instance):
        if snippet.language == "yaml":
            assert isinstance(yaml.safe_load(snippet.text), dict), snippet.id
        elif snippet.language == "json":
            assert isinstance(json.loads(snippet.text), dict), snippet.id
        elif snippet.language == "env":
            assert all("=" in line for line in snippet.text.splitlines()), snippet.id
        else:
            assert snippet.language == "sh", snippet.id
            checked = subprocess.run(["sh", "-n"], input=snippet.text, text=True, capture_output=True, check=False)
            assert checked.returncode == 0, f"{snippet.id}: {checked.stderr}"


def test_every_snippet_says_which_versions_take_it_and_has_an_id_of_its_own_on_its_page(instance):
    for key in AUDIENCES:
        snippets = snippets_for(key, instance)
        assert len({snippet.id for snippet in snippets}) == len(snippets)
        assert all(snippet.needs and snippet.title for snippet in snippets)


def test_every_line_that_starts_a_client_is_silent(instance):
    """`trivy server` stops at these flags, `version`, `vex` and `registry` have none of them."""
    for snippet in everything(instance):
        for line in snippet.text.replace("\\\n", " ").splitlines():
            if line.strip().startswith(("trivy image", "trivy config", "trivy fs")):
                assert "--skip-version-check --disable-telemetry" in line, snippet.id
            if "trivy server" in line:
                assert "--skip-version-check" not in line and "java" not in line and "checks" not in line


def test_insecure_never_stands_there_without_a_word_beside_it(instance):
    for snippet in everything(instance):
        told = " ".join(snippet.warnings)
        if "insecure" in snippet.text.lower().replace("insecure: false", ""):
            assert instance.insecure, f"{snippet.id} is insecure without need"
            assert "certificate" in told and "insecure" in told.lower(), snippet.id
        elif snippet.warnings:
            assert instance.insecure, snippet.id


@pytest.mark.parametrize(
    "id", ["flags", "environment", "trivy-yaml", "registry-mirrors", "server", "operator", "github"]
)
def test_where_trivy_refuses_plain_http_every_form_says_insecure(make_instance, id):
    assert "insecure" in named(make_instance("http", "airgap.example:8000"), id).text.lower()
    assert "insecure" not in named(make_instance("https", "airgap.example"), id).text.lower()


def test_only_what_is_mirrored_is_named(instance):
    text = "\n".join(snippet.text for snippet in everything(instance))
    assert ("aquasecurity/trivy-java-db" in text) is (instance.java_db is not None)
    assert ("aquasecurity/trivy-checks" in text) is (instance.checks is not None)
    assert ("--vex repo" in text) is bool(instance.vex)
    if instance.has_anything and "java-db" not in text:
        assert "Java DB" in instance.missing


def test_what_is_left_out_is_said(make_instance):
    instance = make_instance(artifacts=(DB,), vex=())
    assert any("Java DB, checks bundle" in note for note in named(instance, "flags").notes)


def test_flags_name_this_host_with_tags(make_instance):
    text = named(make_instance("https", "airgap.example:8443"), "flags").text
    assert "--db-repository airgap.example:8443/aquasecurity/trivy-db:2 " in text
    assert "--java-db-repository airgap.example:8443/aquasecurity/trivy-java-db:1 " in text
    # Without its tag Trivy would ask for `latest`.
    assert "--checks-bundle-repository airgap.example:8443/aquasecurity/trivy-checks:2 " in text
    assert "--cacert" not in text and "--insecure" not in text


def test_every_text_asks_this_host_only(make_instance):
    instance = make_instance("https", "airgap.example:8443", ca_path="/use-it/ca.pem", login_required=True)
    known = ("mirror.gcr.io:", "ghcr.io:", "https://github.com/aquasecurity/vexhub")
    for snippet in everything(instance):
        for line in snippet.text.splitlines():
            if "gcr.io" in line or "ghcr.io" in line or "github.com" in line:
                assert line.strip().removeprefix("url: ") in known, f"{snippet.id}: {line}"


def test_trivy_yaml_has_trivys_own_keys(make_instance):
    found = yaml.safe_load(named(make_instance(ca_path="/ca"), "trivy-yaml").text)
    assert found == {
        "db": {
            "repository": ["airgap.example/aquasecurity/trivy-db:2"],
            "java-repository": ["airgap.example/aquasecurity/trivy-java-db:1"],
        },
        "misconfiguration": {"checks-bundle-repository": "airgap.example/aquasecurity/trivy-checks:2"},
        "vulnerability": {"vex": ["repo"]},
        "scan": {"skip-version-check": True, "disable-telemetry": True},
        "cacert": "airgap-ca.pem",
    }


def test_registry_mirrors_replace_both_hosts_that_trivys_defaults_name(make_instance):
    snippet = named(make_instance("http", "airgap.example:8000"), "registry-mirrors")
    found = yaml.safe_load(snippet.text)
    assert found["registry"]["mirrors"] == {
        "mirror.gcr.io": ["airgap.example:8000"],
        "ghcr.io": ["airgap.example:8000"],
    }
    assert found["insecure"] is True
    assert any("goes on to the internet host" in note for note in snippet.notes)


def test_every_vex_repository_is_listed_and_the_default_hub_is_off(make_instance):
    second = VexRepository("rancher", "Rancher")
    found = yaml.safe_load(named(make_instance(vex=(VEX_HUB, second)), "repository-yaml").text)
    assert [(entry["name"], entry["url"], entry["enabled"]) for entry in found["repositories"]] == [
        ("vexhub", "https://airgap.example/vex/vexhub", True),
        ("rancher", "https://airgap.example/vex/rancher", True),
        ("default", "https://github.com/aquasecurity/vexhub", False),
    ]


def test_the_operator_gets_the_older_checks_that_it_asks_for_by_itself(make_instance):
    found = yaml.safe_load(named(make_instance(), "operator").text)
    assert found["trivy"]["dbRegistry"] == "airgap.example"
    assert found["trivy"]["dbRepository"] == "aquasecurity/trivy-db"
    assert found["policiesBundle"] == {
        "registry": "airgap.example",
        "repository": "aquasecurity/trivy-checks",
        "tag": "1",
    }
    assert found["trivy"]["configFile"]["scan"] == {"skip-version-check": True, "disable-telemetry": True}


def test_the_operator_without_the_older_checks_is_told_so(make_instance):
    snippet = named(make_instance(artifacts=(DB, JAVA_DB, CHECKS)), "operator")
    assert yaml.safe_load(snippet.text)["policiesBundle"]["tag"] == "2"
    assert any("not mirrored here" in note for note in snippet.notes)


def test_harbor_has_its_own_names_for_the_same_things(make_instance):
    instance = make_instance("http", "airgap.example:8000")
    plain = yaml.safe_load(named(instance, "harbor-yml").text)["trivy"]
    assert plain["db_repository"] == "airgap.example:8000/aquasecurity/trivy-db:2"
    assert plain["insecure"] is True
    helm = yaml.safe_load(named(instance, "harbor-helm").text)["trivy"]
    assert helm["javaDBRepository"] == ["airgap.example:8000/aquasecurity/trivy-java-db:1"]
    assert {"name": "TRIVY_DISABLE_TELEMETRY", "value": "true"} in helm["extraEnvVars"]
    assert "SCANNER_TRIVY_INSECURE=true" in named(instance, "harbor-adapter").text


def test_gitlabs_java_db_has_no_tag_and_its_own_db_is_explained(make_instance):
    snippet = named(make_instance(), "gitlab-template")
    found = yaml.safe_load(snippet.text)
    assert found["container_scanning"]["variables"] == {"CS_TRIVY_JAVA_DB": "airgap.example/aquasecurity/trivy-java-db"}
    assert any("built into GitLab's analyzer image" in note for note in snippet.notes)


def test_a_pinned_day_has_a_cache_of_its_own_and_is_fetched_once(make_instance):
    text = named(make_instance(), "pinned").text
    assert "airgap.example/aquasecurity/trivy-db:2-20261120T0631Z" in text
    assert text.count("--cache-dir ~/.cache/trivy-2-20261120T0631Z") == 2
    assert "--skip-db-update" in text


def test_skip_flags_are_only_for_what_a_fill_brings(make_instance):
    everything_held = named(make_instance(), "scan-filled").text
    assert "--skip-java-db-update" in everything_held and "--skip-vex-repo-update" in everything_held
    assert "--skip-java-db-update" not in named(make_instance(artifacts=(DB,), vex=()), "scan-filled").text


def test_a_login_is_a_docker_config_and_never_a_variable_that_every_registry_sees(make_instance):
    instance = make_instance(login_required=True)
    assert "TRIVY_PASSWORD" not in "".join(snippet.text for snippet in everything(instance))
    assert json.loads(named(instance, "docker-config").text)["auths"] == {"airgap.example": {"auth": "BASE64"}}
    repository = yaml.safe_load(named(instance, "repository-yaml").text)["repositories"][0]
    assert repository["token"] == "AIRGAP_TOKEN"
    assert not any(snippet.id == "login" for snippet in everything(make_instance()))


def test_trivy_itself_comes_first_where_its_releases_are_mirrored(make_instance):
    release = ReleaseFile(
        "Trivy", "/files/trivy/0.74.0/", "trivy_0.74.0_Linux-64bit.tar.gz", "trivy_0.74.0_checksums.txt"
    )
    text = named(make_instance(releases=(release,), login_required=True), "program").text
    assert "https://airgap.example/files/trivy/0.74.0/trivy_0.74.0_Linux-64bit.tar.gz" in text
    assert "sha256sum -c" in text and '-u "airgap:$AIRGAP_TOKEN"' in text
    assert not any(snippet.id == "program" for snippet in everything(make_instance()))


def test_a_vex_archive_that_tar_cannot_unpack_by_its_name_is_left_out_of_the_curl_script(make_instance):
    text = named(make_instance(vex=(VexRepository("vexhub", "VEX Hub", "v0.1-0.zip"),)), "fill-curl").text
    assert "/vex/" not in text


def test_what_has_upstreams_name_comes_before_what_was_added_under_another(make_instance):
    other = Artifact("trivy-db", "Old DB", "mirrors/old", "2")
    assert make_instance(artifacts=(other, DB)).db == DB
    alone = make_instance(artifacts=(other,))
    assert "airgap.example/mirrors/old:2" in named(alone, "flags").text
    assert any("another name than upstream's" in note for note in named(alone, "registry-mirrors").notes)


def test_checks_are_told_apart_by_their_major_version(make_instance):
    exact = Artifact("trivy-checks", "Checks", "aquasecurity/trivy-checks", "2.2.0")
    assert make_instance(artifacts=(CHECKS_1, exact)).checks == exact
