"""install.sh, really run, by every POSIX shell at hand, into temporary caches."""

import json
import os
import re
import shutil
import signal
import subprocess
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import pytest

from mirrors.bundle.compose import SCRIPTS
from tests.bundle import samples
from tests.bundle.conftest import Maker

SMALL_MACHINE = (
    *("sh", "dash", "bash", "busybox", "awk", "cat", "chmod", "cut", "date", "find", "grep", "gzip", "head", "id"),
    *("ln", "mkdir", "mv", "openssl", "perl", "rm", "rmdir", "sed", "sha256sum", "shasum", "sort", "ssh-keygen"),
    *("sync", "tar", "tr", "uniq"),
)
SHELLS = [shell for shell in ("dash", "bash", "busybox") if shutil.which(shell)] or ["sh"]
# A quick run takes the first.
EACH_SHELL = pytest.mark.parametrize(
    "shell", [SHELLS[0], *(pytest.param(s, marks=pytest.mark.long) for s in SHELLS[1:])]
)


def command(shell: str) -> list[str]:
    return {"busybox": ["busybox", "sh"], "bash": ["bash", "--posix"]}.get(shell, [shell])


def run(folder: Path, *arguments: object, shell: str = "sh", path: str = "", **options) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PATH": path or f"{tools(folder)}", "TMPDIR": str(folder.parent)}
    environment["HOME"] = environment["XDG_DATA_HOME"] = str(folder.parent / "home")
    return subprocess.run(
        [*command(shell), str(folder / "install.sh"), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
        check=False,
        **options,
    )


@cache
def program(name: str) -> str | None:
    """Where it is. In a quick run nobody waits until everything of this machine is on its disks."""
    return shutil.which("true" if name == "sync" and os.environ.get("AIRGAP_TEST_SERVERS") != "1" else name)


def tools(folder: Path, *, without: tuple[str, ...] = ("trivy",), fakes: dict[str, str] | None = None) -> str:
    """A PATH of one folder: what a small machine has, without some programs and with some fakes."""
    place = folder.parent / f"tools-{len(list(folder.parent.iterdir()))}"
    place.mkdir()
    for name in SMALL_MACHINE:
        if name not in without and (real := program(name)):
            (place / name).symlink_to(real)
    for name, body in (fakes or {}).items():
        (place / name).unlink(missing_ok=True)
        (place / name).write_text(f"#!/bin/sh\n{body}\n")
        (place / name).chmod(0o755)
    return str(place)


def trivy(folder: Path, version: str) -> str:
    return tools(folder, fakes={"trivy": f"echo 'Version: {version}'"})


def snapshot_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def bundle(copied) -> Path:
    return copied("six", lambda maker: maker.unpacked(samples.everything(maker.store)[:6]))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "a cache with spaces" / "trivy"


class TestFilling:
    @EACH_SHELL
    def test_it_fills_an_empty_cache(self, bundle: Path, cache: Path, shell: str) -> None:
        done = run(bundle, cache, shell=shell)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        files = snapshot_of(cache)
        assert sorted(files) == [
            "db/metadata.json",
            "db/trivy.db",
            "java-db/metadata.json",
            "java-db/trivy-java.db",
            "policy/content/commands/c.yaml",
            "policy/content/policies/a.rego",
            "policy/metadata.json",
            "vex/repositories/default/0.1/index.json",
            "vex/repositories/default/0.1/pkg/a/b.json",
            "vex/repositories/default/cache.json",
            "vex/repositories/default/vex-repository.json",
            "vex/repositories/other-vex/0.1/index.json",
            "vex/repositories/other-vex/0.1/pkg/a/b.json",
            "vex/repositories/other-vex/cache.json",
            "vex/repositories/other-vex/vex-repository.json",
        ]
        assert files["db/trivy.db"] == b"bolt"
        assert [path.name for path in cache.iterdir() if path.name.startswith(".")] == []

    def test_it_says_first_that_only_checksums_were_checked(self, bundle: Path, cache: Path) -> None:
        done = run(bundle, cache)
        assert done.stdout.splitlines()[0] == "Only checksums were checked, no signature: no --key was given."

    def test_it_tells_when_the_databases_were_downloaded(self, bundle: Path, cache: Path) -> None:
        run(bundle, cache)
        for name, version in (("db", 2), ("java-db", 1)):
            metadata = json.loads((cache / name / "metadata.json").read_text())
            assert metadata["Version"] == version
            assert metadata["UpdatedAt"] == "2026-11-20T06:31:52.1048576Z"
            assert metadata["NextUpdate"] == "2026-11-21T06:31:52.1048576Z"
            age = datetime.now(UTC) - datetime.fromisoformat(metadata["DownloadedAt"])
            assert 0 <= age.total_seconds() < 60

    def test_files_are_readable_by_all_whatever_the_archive_says(self, bundle: Path, cache: Path) -> None:
        run(bundle, cache, preexec_fn=lambda: os.umask(0o077))
        for path in cache.rglob("*"):
            assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644), path
            assert path.stat().st_uid == os.geteuid()

    def test_vex_never_makes_trivy_call_out(self, bundle: Path, cache: Path) -> None:
        done = run(bundle, cache)
        folder = cache / "vex/repositories/default"
        manifest = json.loads((folder / "vex-repository.json").read_text())
        (version,) = manifest["versions"]
        assert manifest["name"] == 'VEX "Hub" ü'
        assert (version["spec_version"], version["update_interval"]) == ("0.1", "876000h")
        assert version["locations"] == [{"url": "https://airgap.invalid/default/v0.1-0.tar.gz//vexhub-main"}]
        written = json.loads((folder / "cache.json").read_text())
        assert written["ETags"] == {}
        assert datetime.fromisoformat(written["UpdatedAt"]) <= datetime.now(UTC)
        assert "- name: other-vex" in done.stdout
        assert "- name: default" not in done.stdout
        assert "repository.yaml" in done.stdout

    def test_the_vex_url_is_filled_in(self, maker, cache: Path) -> None:
        bundle = maker.unpacked([samples.vex(maker.store)])
        done = run(bundle, "--vex-url", "https://airgap.example/vex/vexhub/", cache)
        manifest = json.loads((cache / "vex/repositories/default/vex-repository.json").read_text())
        assert manifest["versions"][0]["locations"] == [
            {"url": "https://airgap.example/vex/vexhub/v0.1-0.tar.gz//vexhub-main"}
        ]
        assert "url: https://airgap.example/vex/vexhub\n" in done.stdout

    def test_with_several_repositories_each_has_its_own_address(self, bundle: Path, cache: Path) -> None:
        run(bundle, "--vex-url", "http://airgap.example/vex", cache)
        manifest = json.loads((cache / "vex/repositories/other-vex/vex-repository.json").read_text())
        assert manifest["versions"][0]["locations"] == [{"url": "http://airgap.example/vex/other-vex/v0.1-0.zip"}]

    def test_a_pattern_finds_the_one_folder(self, maker, cache: Path) -> None:
        bundle = maker.unpacked([samples.vex(maker.store, subdir="vex*", top="vexhub [main]")])
        done = run(bundle, cache)
        assert done.returncode == 0, done.stderr
        assert (cache / "vex/repositories/default/0.1/index.json").exists()

    def test_it_ends_with_advice(self, bundle: Path, cache: Path) -> None:
        words = run(bundle, cache).stdout.split("Now:")[1]
        assert "Restart a running trivy server" in words
        assert "trivy clean --scan-cache" in words
        flags = "--skip-db-update --skip-java-db-update --skip-check-update --vex repo --offline-scan"
        assert f"--cache-dir '{cache}' {flags}" in words

    def test_flags_of_what_is_not_there_are_not_advised(self, maker, cache: Path) -> None:
        words = run(maker.unpacked([samples.database(maker.store)]), cache).stdout
        assert "--skip-db-update --offline-scan" in words
        assert "trivy clean" not in words

    @EACH_SHELL
    def test_it_works_from_any_folder(self, bundle: Path, tmp_path: Path, shell: str) -> None:
        path = tools(bundle)
        for number, (start, script) in enumerate(
            [(bundle, "install.sh"), (bundle, "./install.sh"), (bundle.parent, f"{bundle.name}/install.sh")]
        ):
            done = subprocess.run(
                [*command(shell), script, f"../relative {number}"],
                cwd=start,
                env={**os.environ, "PATH": path},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            assert (start.parent / f"relative {number}" / "db" / "trivy.db").exists()

    @pytest.mark.parametrize("missing", [("sha256sum",), ("sha256sum", "shasum")])
    def test_other_programs_can_compute_the_checksums(self, bundle: Path, cache: Path, missing) -> None:
        done = run(bundle, cache, path=tools(bundle, without=missing))
        assert done.returncode == 0, done.stderr

    def test_without_any_of_them_it_says_so(self, bundle: Path, cache: Path) -> None:
        done = run(bundle, cache, path=tools(bundle, without=("sha256sum", "shasum", "openssl")))
        assert done.returncode == 1
        assert "sha256sum, shasum or openssl is needed" in done.stderr
        assert not cache.exists()

    def test_a_second_run_replaces_and_tells_both_dates(self, bundle: Path, cache: Path) -> None:
        run(bundle, cache)
        (cache / "db/old-file").write_text("old")
        (cache / "fanal").mkdir()
        (cache / "fanal/fanal.db").write_text("scan cache")
        done = run(bundle, cache)
        assert done.returncode == 0
        assert not (cache / "db/old-file").exists()
        assert (cache / "fanal/fanal.db").read_text() == "scan cache"
        assert re.search(r"db: built 2026-11-20T06:31:52.1048576Z \(before: 2026-11-20T06", done.stdout)

    def test_what_the_bundle_lacks_is_left_alone(self, maker, bundle: Path, cache: Path) -> None:
        run(bundle, cache)
        before = snapshot_of(cache)
        shutil.rmtree(bundle.parent)
        run(maker.unpacked([samples.java_database(maker.store)]), cache)
        after = snapshot_of(cache)
        assert {name: data for name, data in after.items() if "java-db/metadata" not in name} == {
            name: data for name, data in before.items() if "java-db/metadata" not in name
        }

    def test_a_repository_yaml_is_not_touched(self, bundle: Path, cache: Path, tmp_path: Path) -> None:
        run(bundle, cache)
        assert not list(tmp_path.rglob("repository.yaml"))

    @pytest.mark.parametrize(("name", "told"), [("default", False), ('"default"', False), ("vexhub", True)])
    def test_it_says_what_a_repository_yaml_lacks(self, maker, cache: Path, name: str, told: bool) -> None:
        bundle = maker.unpacked([samples.vex(maker.store)])
        present = bundle.parent / "home/.trivy/vex/repository.yaml"
        present.parent.mkdir(parents=True)
        present.write_text(f"repositories:\n  - name: {name}\n    url: https://vex.example\n    enabled: true\n")
        before = present.read_bytes()
        done = run(bundle, cache)
        assert present.read_bytes() == before
        assert ("- name: default" in done.stdout) is told


class TestChecks:
    @pytest.mark.parametrize(
        ("version", "slot"),
        [
            *(("0.69.0", 2), ("0.68.9", 1), ("0.56.0", 1), ("0.55.2", 2), ("dev", 2)),
            *(pytest.param(version, 2, marks=pytest.mark.long) for version in ("0.74.0", "1.0.0")),
        ],
    )
    def test_the_slot_follows_the_version_of_trivy(self, bundle: Path, cache: Path, version: str, slot: int) -> None:
        done = run(bundle, cache, path=trivy(bundle, version))
        assert (cache / "policy/content/policies/a.rego").read_text() == f"package a{slot}"
        assert f"policy: checks {slot} (" in done.stdout
        if version != "dev":
            assert f"for trivy {version.rpartition('.')[0]}, found here" in done.stdout

    def test_it_can_be_chosen(self, bundle: Path, cache: Path) -> None:
        done = run(bundle, "--checks", 1, cache, path=trivy(bundle, "0.74.0"))
        assert "policy: checks 1 (as asked with --checks)" in done.stdout

    def test_the_metadata_is_what_trivy_would_write(self, maker, bundle: Path, cache: Path) -> None:
        run(bundle, cache)
        two = json.loads((cache / "policy/metadata.json").read_text())
        assert two["Digest"] == samples.checks(maker.store).manifest_digest
        assert two["MajorVersion"] == 2
        assert "CustomBuild" not in two
        run(bundle, "--checks", "1", cache)
        one = json.loads((cache / "policy/metadata.json").read_text())
        assert (one["MajorVersion"], one["CustomBuild"]) == (0, True)

    def test_the_wrong_one_is_not_taken_by_itself(self, maker, cache: Path) -> None:
        bundle = maker.unpacked([samples.database(maker.store), samples.checks(maker.store, 1, "")])
        done = run(bundle, cache, path=trivy(bundle, "0.74.0"))
        assert done.returncode == 0
        assert "policy: left as it is. Checks 2 would be right" in done.stdout
        assert not (cache / "policy").exists()

    def test_asking_for_one_that_is_not_there_fails(self, maker, cache: Path) -> None:
        bundle = maker.unpacked([samples.database(maker.store), samples.checks(maker.store)])
        done = run(bundle, "--checks", "1", cache)
        assert done.returncode == 1
        assert "carries no checks 1, only: 2" in done.stderr
        assert snapshot_of(cache) == {}


class TestRefusals:
    """Each refused bundle leaves the cache as it was, without even making it."""

    @pytest.fixture
    def refused(self, bundle: Path, cache: Path):
        def check(*words: str, shell: str = "sh") -> None:
            done = run(bundle, cache, shell=shell)
            assert done.returncode == 1
            for word in words:
                assert word in done.stderr, done.stderr
            assert not cache.exists()
            assert done.stdout == ""

        return check

    @EACH_SHELL
    def test_a_flipped_byte(self, bundle: Path, refused, shell: str) -> None:
        path = max((bundle / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        refused(f"blobs/sha256/{path.name} is damaged", "Fetch the bundle again", shell=shell)

    @EACH_SHELL
    @pytest.mark.parametrize("name", ["blobs/sha256/extra", ".hidden", "with space", "--"])
    def test_a_file_that_is_not_listed(self, bundle: Path, refused, name: str, shell: str) -> None:
        (bundle / name).write_text("x")
        refused(f"{name} lies in the bundle but is not listed", shell=shell)

    def test_a_file_with_a_line_break_in_its_name(self, bundle: Path, refused) -> None:
        (bundle / "README.txt\n.").mkdir()
        (bundle / "README.txt\n./bundle.json").write_text("{}")
        refused("line break in its name")

    def test_a_link(self, bundle: Path, refused) -> None:
        (bundle / "link").symlink_to("/etc/passwd")
        refused("./link is not a plain file")

    def test_a_missing_file(self, bundle: Path, refused) -> None:
        (bundle / "README.txt").unlink()
        refused("README.txt is missing")

    def test_a_doubled_line(self, bundle: Path, refused) -> None:
        sums = bundle / "SHA256SUMS"
        sums.write_text(sums.read_text() + sums.read_text().splitlines()[0] + "\n")
        refused("bundle.json is listed twice")

    @pytest.mark.parametrize("line", ["x", "0" * 64 + "  ../../etc/passwd", "0" * 64 + "  a/../../b", "# comment"])
    def test_a_strange_line(self, bundle: Path, refused, line: str) -> None:
        with (bundle / "SHA256SUMS").open("a") as file:
            file.write(line + "\n")
        refused("SHA256SUMS")

    def test_line_endings_that_were_changed_on_the_way(self, bundle: Path, refused) -> None:
        sums = bundle / "SHA256SUMS"
        sums.write_bytes(sums.read_bytes().replace(b"\n", b"\r\n"))
        refused("It was changed on the way")

    @pytest.mark.parametrize("content", [None, b""])
    def test_missing_checksums(self, bundle: Path, refused, content) -> None:
        (bundle / "SHA256SUMS").unlink()
        if content is not None:
            (bundle / "SHA256SUMS").write_bytes(content)
        refused("SHA256SUMS is missing")

    def test_a_blob_under_another_digest(self, bundle: Path, refused) -> None:
        blob = next((bundle / "blobs/sha256").iterdir())
        other = "0" * 64
        blob.rename(blob.parent / other)
        sums = bundle / "SHA256SUMS"
        sums.write_text(sums.read_text().replace(f"/{blob.name}", f"/{other}"))
        refused("has another digest than its name says")

    def forge(self, bundle: Path, old: str, new: str) -> None:
        """Change bundle.json and its checksum: somebody with write access, and no signature to stop him."""
        path = bundle / "bundle.json"
        before = subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True).stdout[:64]
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))
        after = subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True).stdout[:64]
        sums = bundle / "SHA256SUMS"
        sums.write_text(sums.read_text().replace(before, after))

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ('"cache_path": "db"', '"cache_path": "../../outside"'),
            ('"cache_path": "db"', '"cache_path": "fanal"'),
            ('"vex/repositories/default"', '"vex/repositories/../../../outside"'),
            ('"vex/repositories/default"', '"vex/repositories/a/b"'),
            ('"vex/repositories/default"', '"vex/repositories/.."'),
            ('"vex/repositories/default"', '"vex/repositories/$(touch outside)"'),
            ('"cache_layer": "blobs', '"cache_layer": "/etc/../blobs'),
            ('"tar_gz": "vex/vexhub', '"tar_gz": "../vex/vexhub'),
            ('"subdir": "vexhub-main"', '"subdir": "../../../../etc"'),
            ('"subdir": "vexhub-main"', '"subdir": "nowhere"'),
            ('"format": 1', '"format": 2'),
        ],
    )
    def test_paths_in_a_forged_bundle_lead_nowhere(self, bundle: Path, cache: Path, old: str, new: str) -> None:
        self.forge(bundle, old, new)
        done = run(bundle, cache)
        assert done.returncode == 1
        assert done.stderr.startswith("install.sh: ")
        assert snapshot_of(cache) == {} if cache.exists() else True
        assert not list(bundle.parent.parent.rglob("outside"))

    def test_a_bundle_without_anything_for_a_cache(self, maker, cache: Path) -> None:
        done = run(maker.unpacked([samples.image_index(maker.store)]), cache)
        assert done.returncode == 1
        assert "Use push.sh" in done.stderr

    @pytest.mark.parametrize(
        "arguments",
        [
            [],
            ["a", "b"],
            ["--checks", "3", "a"],
            ["--checks"],
            ["--what", "a"],
            ["--key", "nowhere", "a"],
            ["--vex-url", "ftp://x", "a"],
            ["--vex-url", 'http://x"', "a"],
        ],
    )
    def test_wrong_usage_is_told_apart(self, bundle: Path, arguments) -> None:
        done = run(bundle, *arguments, cwd=bundle.parent)
        assert done.returncode == 2
        assert "usage: sh install.sh" in done.stderr

    def test_help_is_no_mistake(self, bundle: Path) -> None:
        done = run(bundle, "--help")
        assert done.returncode == 0
        assert "--require-signature" in done.stdout


@pytest.fixture(scope="module")
def filled_once(tmp_path_factory) -> Path:
    maker = Maker(tmp_path_factory.mktemp("filled"))
    cache = maker.root / "cache"
    assert run(maker.unpacked(samples.everything(maker.store)[:6]), cache).returncode == 0
    return cache


class TestNeverHalfDone:
    @pytest.fixture
    def before(self, filled_once: Path, cache: Path) -> dict[str, bytes]:
        shutil.copytree(filled_once, cache)
        for path in cache.rglob("*.json"):
            path.write_text(path.read_text() + "\n")  # tells old from new
        return snapshot_of(cache)

    @pytest.mark.parametrize("nth", [1, 4, 12, *(pytest.param(nth, marks=pytest.mark.long) for nth in (3, 5, 8))])
    def test_a_failing_rename_puts_everything_back(self, bundle, cache, before, nth: int) -> None:
        """The nth move of the switch fails, as it does where a folder is a mount point."""
        count = bundle.parent / "count"
        body = (
            f'case "$*" in *.airgap-install/old*|*/.airgap-install/new*) '
            f"echo x >>'{count}'; [ \"$(wc -l <'{count}')\" -ne {nth} ] || exit 1 ;; esac\n"
            f'exec {shutil.which("mv")} "$@"'
        )
        path = tools(bundle, fakes={"mv": body, "wc": f'exec {shutil.which("wc")} "$@"'})
        done = run(bundle, cache, path=path)
        assert done.returncode == 1, done.stdout
        if nth > 2:  # the first two are made while the VEX archives are prepared
            assert "could not be replaced" in done.stderr
        assert snapshot_of(cache) == before
        assert not (cache / ".airgap-install").exists()

    def test_a_new_cache_is_empty_again_when_it_fails(self, bundle: Path, cache: Path) -> None:
        body = f'case "$*" in *new/policy*) exit 1;; esac; exec {shutil.which("mv")} "$@"'
        assert run(bundle, cache, path=tools(bundle, fakes={"mv": body})).returncode == 1
        assert snapshot_of(cache) == {}

    def test_a_full_disk_leaves_the_cache_as_it_was(self, bundle: Path, cache: Path, before) -> None:
        body = f"{shutil.which('tar')} \"$@\"; echo 'tar: No space left on device' >&2; exit 2"
        done = run(bundle, cache, path=tools(bundle, fakes={"tar": body}))
        assert done.returncode == 1
        assert "Is there enough room?" in done.stderr
        assert snapshot_of(cache) == before

    @EACH_SHELL
    def test_a_run_killed_in_the_middle_is_undone_by_the_next(self, bundle, cache, before, shell: str) -> None:
        """kill -9 between the moves of java-db: nothing of that run can clean up."""
        body = f'{shutil.which("mv")} "$@"; case "$*" in *old/java-db*) kill -9 $PPID;; esac'
        done = run(bundle, cache, path=tools(bundle, fakes={"mv": body}), shell=shell)
        assert done.returncode == -signal.SIGKILL
        assert not (cache / "java-db").exists()
        failing = tools(bundle, fakes={"tar": "exit 1"})
        assert run(bundle, cache, path=failing, shell=shell).returncode == 1
        assert snapshot_of(cache) == before
        assert run(bundle, cache, shell=shell).returncode == 0
        assert not (cache / ".airgap-install").exists()

    @EACH_SHELL
    def test_a_signal_in_the_middle_puts_everything_back(self, bundle, cache, before, shell: str) -> None:
        body = f'{shutil.which("mv")} "$@"; case "$*" in *old/java-db*) kill -TERM $PPID;; esac'
        done = run(bundle, cache, path=tools(bundle, fakes={"mv": body}), shell=shell)
        assert done.returncode != 0
        assert snapshot_of(cache) == before
        assert not (cache / ".airgap-install").exists()

    def test_a_second_install_at_the_same_time_is_refused(self, bundle: Path, cache: Path) -> None:
        work = cache / ".airgap-install"
        work.mkdir(parents=True)
        (work / "pid").write_text(f"{os.getpid()}\n")
        done = run(bundle, cache)
        assert done.returncode == 1
        assert f"Another install.sh (process {os.getpid()})" in done.stderr
        assert work.exists()

    def test_a_cache_that_cannot_be_made_is_a_sentence(self, bundle: Path, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x")
        done = run(bundle, tmp_path / "file" / "cache")
        assert done.returncode == 1
        assert "could not be made" in done.stderr

    @pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that nobody can write in: /proc")
    def test_a_read_only_cache_is_a_sentence(self, bundle: Path) -> None:
        done = run(bundle, "/proc/self")
        assert done.returncode == 1
        assert "Nothing can be written in" in done.stderr


class TestAfterInstall:
    def test_the_command_runs_with_the_cache_in_its_environment(self, bundle: Path, cache: Path) -> None:
        done = run(bundle, "--after-install", 'echo "filled: $AIRGAP_CACHE_DIR"', cache)
        assert done.stdout.splitlines()[-1] == f"filled: {cache}"

    def test_its_failure_is_told_apart(self, bundle: Path, cache: Path) -> None:
        done = run(bundle, "--after-install", "exit 7", cache)
        assert done.returncode == 1
        assert "The cache is filled, but the command of --after-install failed (exit status 7)" in done.stderr
        assert (cache / "db/trivy.db").exists()

    def test_it_does_not_run_after_a_refusal(self, bundle: Path, cache: Path, tmp_path: Path) -> None:
        (bundle / "extra").write_text("x")
        run(bundle, "--after-install", f"touch '{tmp_path}/ran'", cache)
        assert not (tmp_path / "ran").exists()


@pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="needs ssh-keygen")
class TestSignature:
    @pytest.fixture
    def key(self, tmp_path: Path) -> Path:
        make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "airgap", "-f", tmp_path / "key"]
        subprocess.run(make, check=True)
        return tmp_path / "key"

    def sign(self, bundle: Path, key: Path, namespace: str = "airgap-bundle") -> None:
        (bundle / "SHA256SUMS.sig").unlink(missing_ok=True)
        sign = ["ssh-keygen", "-q", "-Y", "sign", "-f", key, "-n", namespace, bundle / "SHA256SUMS"]
        subprocess.run(sign, check=True, capture_output=True)

    @EACH_SHELL
    def test_a_right_one_is_said_first(self, bundle: Path, cache: Path, key: Path, shell: str) -> None:
        self.sign(bundle, key)
        done = run(bundle, "--key", f"{key}.pub", "--require-signature", cache, shell=shell)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[0] == "Signature and checksums are right."
        assert not list(bundle.parent.glob("airgap-install*"))

    def test_an_allowed_signers_file_will_do(self, bundle: Path, cache: Path, key: Path, tmp_path: Path) -> None:
        self.sign(bundle, key)
        signers = tmp_path / "allowed signers"
        signers.write_text(f'site@example namespaces="airgap-bundle" {Path(f"{key}.pub").read_text()}')
        done = run(bundle, "--key", signers, cache)
        assert done.stdout.splitlines()[0] == "Signature and checksums are right."

    @pytest.mark.parametrize("fault", ["other key", "other namespace", "changed sums", "garbage"])
    def test_a_wrong_one_is_refused_in_any_case(self, bundle, cache, key: Path, tmp_path: Path, fault: str) -> None:
        self.sign(bundle, key, "file" if fault == "other namespace" else "airgap-bundle")
        given = Path(f"{key}.pub")
        if fault == "other key":
            make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other"]
            subprocess.run(make, check=True)
            given = tmp_path / "other.pub"
        if fault == "changed sums":
            (bundle / "README.txt").unlink()
            sums = bundle / "SHA256SUMS"
            sums.write_text("".join(line for line in sums.open() if "README" not in line))
        if fault == "garbage":
            (bundle / "SHA256SUMS.sig").write_text("x")
        done = run(bundle, "--key", given, cache)
        assert done.returncode == 1
        assert "was not made with the key" in done.stderr
        assert not cache.exists()

    def test_a_missing_one_is_said_first_or_refused(self, bundle: Path, cache: Path, key: Path) -> None:
        done = run(bundle, "--key", f"{key}.pub", "--require-signature", cache)
        assert done.returncode == 1
        assert "could not be verified (this bundle carries no signature)" in done.stderr
        assert not cache.exists()
        done = run(bundle, "--key", f"{key}.pub", cache)
        assert done.stdout.startswith("Only checksums were checked, no signature: this bundle carries no signature.")

    def test_requiring_one_needs_a_key(self, bundle: Path, cache: Path) -> None:
        done = run(bundle, "--require-signature", cache)
        assert done.returncode == 1
        assert "no --key was given" in done.stderr

    @pytest.mark.parametrize("old", [None, "echo 'unknown option -- Y' >&2; exit 1"])
    def test_without_a_capable_ssh_keygen_it_says_so(self, bundle, cache, key: Path, old: str | None) -> None:
        self.sign(bundle, key)
        path = tools(bundle, without=("ssh-keygen",), fakes={"ssh-keygen": old} if old else {})
        done = run(bundle, "--key", f"{key}.pub", cache, path=path)
        assert done.stdout.startswith("Only checksums were checked, no signature: ssh-keygen (OpenSSH 8.1")
        done = run(bundle, "--key", f"{key}.pub", "--require-signature", cache, path=path)
        assert done.returncode == 1


@pytest.mark.parametrize("name", ["install.sh", "push.sh"])
def test_the_scripts_hold_no_bashism(name: str) -> None:
    text = (SCRIPTS / name).read_text()
    assert text.startswith("#!/bin/sh\n")
    assert not re.search(r"\[\[ |\blocal\b|\bfunction \w+ *\{|<<<|&>|\bsource\b|pipefail|echo -", text)
    for shell in SHELLS:
        subprocess.run([*command(shell), "-n", SCRIPTS / name], check=True)
