"""push.sh: with a fake tool for what it asks, with the real ones and a real registry for what arrives."""

import json
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mirrors.digests import digest_of
from tests.bundle import samples
from tests.bundle.test_install import EACH_SHELL, command, tools

TOOLS = ("oras", "skopeo", "crane", "regctl")


def push(folder: Path, *arguments: str, shell: str = "sh", path: str = "") -> subprocess.CompletedProcess:
    environment = {**os.environ, "PATH": path or tools(folder), "TMPDIR": str(folder.parent)}
    return subprocess.run(
        [*command(shell), str(folder / "push.sh"), *arguments],
        capture_output=True,
        text=True,
        timeout=110,
        env=environment,
        check=False,
    )


def recorder(folder: Path) -> str:
    """A tool that writes down how it was called and what lay in the layout it was given."""
    log = folder.parent / "calls"
    return f'echo "$@" >>"{log}"; cat "$TMPDIR"/airgap-push.*/layout/index.json >>"{log}"'


def everything_and_a_chosen_image(maker) -> Path:
    chosen = replace(
        samples.image_index(maker.store, carried=("arm64",)), mirror="chosen", reference="quay.io/x/chosen:7", tag="7"
    )
    return maker.unpacked([*samples.everything(maker.store), chosen])


@pytest.fixture
def bundle(copied) -> Path:
    return copied("everything and a chosen image", everything_and_a_chosen_image)


class TestAsking:
    @EACH_SHELL
    @pytest.mark.parametrize(
        ("tool", "call"),
        [
            ("oras", "cp --from-oci-layout {layout}:bundle r.example/p/aquasecurity/trivy-db:2"),
            (
                "skopeo",
                "copy --all --preserve-digests oci:{layout}:bundle docker://r.example/p/aquasecurity/trivy-db:2",
            ),
            ("crane", "push {layout} r.example/p/aquasecurity/trivy-db:2"),
            ("regctl", "image copy ocidir://{layout}:bundle r.example/p/aquasecurity/trivy-db:2"),
        ],
    )
    def test_each_tool_gets_a_layout_of_one_entry(self, maker, tool: str, call: str, shell: str) -> None:
        snapshot = samples.database(maker.store)
        folder = maker.unpacked([snapshot])
        done = push(folder, "r.example/p/", shell=shell, path=tools(folder, fakes={tool: recorder(folder)}))
        assert done.returncode == 0, done.stderr
        called, index = (folder.parent / "calls").read_text().splitlines()
        layout = re.escape(str(folder.parent)) + r"/airgap-push\.\d+/layout"
        assert re.sub(layout, "{layout}", called) == call
        (entry,) = json.loads(index)["manifests"]
        assert entry["digest"] == snapshot.manifest_digest
        assert not list(folder.parent.glob("airgap-push*"))

    def test_it_takes_the_first_tool_that_is_there(self, bundle: Path) -> None:
        fakes = {name: f"echo {name} >>'{bundle.parent}/which'" for name in ("crane", "skopeo")}
        push(bundle, "r.example", path=tools(bundle, fakes=fakes))
        assert set((bundle.parent / "which").read_text().split()) == {"skopeo"}
        push(bundle, "--tool", "crane", "r.example", path=tools(bundle, fakes=fakes))
        assert set((bundle.parent / "which").read_text().split()) == {"skopeo", "crane"}

    def test_without_any_tool_it_says_which_would_do(self, bundle: Path) -> None:
        done = push(bundle, "r.example")
        assert done.returncode == 1
        assert "None of oras, skopeo, crane, regctl is here" in done.stderr

    def test_a_dry_run_tells_all_names(self, bundle: Path) -> None:
        done = push(bundle, "--dry-run", "r.example:5000/a/b")
        assert [line.split()[2] for line in done.stdout.splitlines()][:5] == [
            "r.example:5000/a/b/aquasecurity/trivy-db:2",
            "r.example:5000/a/b/aquasecurity/trivy-java-db:1",
            "r.example:5000/a/b/aquasecurity/trivy-checks:2",
            "r.example:5000/a/b/aquasecurity/trivy-checks:1",
            "r.example:5000/a/b/library/tool:1.25",
        ]
        assert "x/chosen:7-linux-arm64" in done.stdout

    def test_a_failing_tool_is_told_in_its_own_words_and_the_rest_is_tried(self, bundle: Path) -> None:
        body = "case \"$*\" in *java*) echo 'denied: no rights' >&2; exit 1;; esac"
        done = push(bundle, "r.example", path=tools(bundle, fakes={"oras": body}))
        assert done.returncode == 1
        assert "denied: no rights" in done.stderr
        assert "aquasecurity/trivy-java-db:1 could not be pushed with oras" in done.stderr
        assert "pushed r.example/aquasecurity/trivy-checks:2" in done.stdout

    def test_it_says_how_to_scan_with_it(self, bundle: Path) -> None:
        done = push(bundle, "r.example/p", path=tools(bundle, fakes={"oras": "exit 0"}))
        assert "--db-repository r.example/p/aquasecurity/trivy-db:2" in done.stdout
        assert "trivy-checks:1    (Trivy 0.56 to 0.68)" in done.stdout

    @EACH_SHELL
    def test_a_damaged_bundle_is_not_pushed(self, bundle: Path, shell: str) -> None:
        with (bundle / "README.txt").open("a") as file:
            file.write("x")
        done = push(bundle, "r.example", shell=shell, path=tools(bundle, fakes={"oras": recorder(bundle)}))
        assert done.returncode == 1
        assert "README.txt is damaged" in done.stderr
        assert not (bundle.parent / "calls").exists()

    def test_a_file_too_many_is_refused(self, bundle: Path) -> None:
        (bundle / "extra").write_text("x")
        done = push(bundle, "r.example", path=tools(bundle, fakes={"oras": recorder(bundle)}))
        assert "extra lies in the bundle but is not listed" in done.stderr

    def test_a_bundle_without_artifacts_says_so(self, maker) -> None:
        done = push(maker.unpacked([samples.vex(maker.store)]), "r.example")
        assert done.returncode == 1
        assert "This bundle holds no OCI artifact" in done.stderr

    @pytest.mark.parametrize(
        "arguments",
        [[], ["a", "b"], ["--what", "a"], ["https://a"], ["a;b"], [""], ["--tool", "curl", "a"], ["--tool"]],
    )
    def test_wrong_usage_is_told_apart(self, bundle: Path, arguments: list[str]) -> None:
        done = push(bundle, *arguments)
        assert done.returncode == 2
        assert "usage: sh push.sh" in done.stderr


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """Debian's docker-registry on loopback, over plain HTTP; yields host:port."""
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("needs docker-registry (Debian package of that name)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{free.getsockname()[1]}"
    config = tmp_path / "registry.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {tmp_path}/registry}}}}\n"
        f"http: {{addr: '{host}'}}\n"
    )
    process = subprocess.Popen([program, "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                urllib.request.urlopen(f"http://{host}/v2/", timeout=5).close()
                break
            except OSError:
                assert time.monotonic() < deadline, "docker-registry did not start"
                time.sleep(0.05)
        yield host
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.peers
@pytest.mark.parametrize("tool", TOOLS)
def test_a_registry_gets_every_manifest_byte_for_byte(bundle: Path, registry: str, tool: str) -> None:
    program = shutil.which(tool)
    if program is None:
        pytest.skip(f"needs {tool}")
    path = tools(bundle)
    (Path(path) / tool).symlink_to(program)
    done = push(bundle, f"{registry}/some/prefix", path=path)
    assert done.returncode == 0, done.stderr
    pushed = [
        (entry["as"], entry["digest"])
        for snapshot in json.loads((bundle / "bundle.json").read_text())["snapshots"]
        for entry in snapshot["push"]
    ]
    assert len(pushed) == 7
    for name, digest in pushed:
        repository, _, reference = name.replace("@", ":", 1).partition(":")
        request = urllib.request.Request(
            f"http://{registry}/v2/some/prefix/{repository}/manifests/{reference}",
            headers={"Accept": f"{samples.MANIFEST}, {samples.INDEX}"},
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            assert digest_of(answer.read()) == digest


@pytest.mark.peers
def test_skopeo_reads_the_layout_as_it_lies(bundle: Path, tmp_path: Path) -> None:
    if shutil.which("skopeo") is None:
        pytest.skip("needs skopeo")
    for entry in json.loads((bundle / "index.json").read_text())["manifests"]:
        if "annotations" not in entry or entry["annotations"]["org.opencontainers.image.ref.name"] == "chosen-7":
            continue  # an index of chosen platforms only is no whole image
        ref = entry["annotations"]["org.opencontainers.image.ref.name"]
        copied = tmp_path / f"copy of {ref}"
        subprocess.run(
            ["skopeo", "copy", "--all", "--quiet", f"oci:{bundle}:{ref}", f"oci:{copied}:x"],
            check=True,
            capture_output=True,
        )
        (found,) = json.loads((copied / "index.json").read_text())["manifests"]
        assert found["digest"] == entry["digest"]
