"""Putting the kit together: source, wheels, their list, the sums, the signature; and the one tar that carries them."""

import gzip
import hashlib
import io
import os
import subprocess
import tarfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from airgap.kit import sbom, wheels
from airgap.kit.wheels import KitError

WHEELHOUSE = "wheelhouse"
SUMS, SIGNATURE, SBOM, ABOUT = "SHA256SUMS", "SHA256SUMS.sig", "sbom.cdx.json", "KIT.txt"
NAMESPACE = "airgap-kit"

Sign = Callable[[bytes], bytes]


def source_files(base: Path) -> list[tuple[str, bytes, int]]:
    """Path, bytes and mode of every file of the program, as committed; in an unpacked kit, as its sums list them.

    Raises KitError where what would be packed is not what was committed.
    """
    if (base / ".git").exists():
        return _committed(base)
    if (base / SUMS).exists():
        return _listed(base)
    raise KitError(f"{base} is neither a git checkout nor an unpacked kit, so nobody can say what belongs to it.")


def _committed(base: Path) -> list[tuple[str, bytes, int]]:
    changed = _git(base, "status", "--porcelain", "--untracked-files=no").decode()
    if changed:
        raise KitError(
            f"{changed.splitlines()[0][3:]} differs from what is committed. Commit or undo it: a kit carries what has "
            "a name."
        )
    packed = _git(base, "archive", "--format=tar", "HEAD")
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        files = []
        for member in archive:
            if member.isfile():
                stream = archive.extractfile(member)
                files.append((member.name, stream.read() if stream else b"", 0o755 if member.mode & 0o111 else 0o644))
    return files


def _git(base: Path, *command: str) -> bytes:
    try:
        done = subprocess.run(["git", "-C", str(base), *command], capture_output=True)
    except OSError as error:
        raise KitError(f"git is needed to make a kit from a checkout: {error.strerror}.") from error
    if done.returncode:
        raise KitError(f"git {command[0]} failed: {done.stderr.decode(errors='replace').strip()[:300]}")
    return done.stdout


def _listed(base: Path) -> list[tuple[str, bytes, int]]:
    """A kit makes the next one: of the files it was unpacked with, each compared with its sum."""
    files = []
    for line in (base / SUMS).read_text().splitlines():
        digest, _, name = line.partition("  ")
        if name.startswith(f"{WHEELHOUSE}/") or name in (SBOM, ABOUT):
            continue
        path = base / name
        data = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(data).hexdigest() != digest:
            raise KitError(f"{name} is missing or differs from the kit it came with. Unpack the kit anew.")
        files.append((name, data, 0o755 if path.stat().st_mode & 0o111 else 0o644))
    return files


def make(
    base: Path,
    output: Path,
    version: str,
    *,
    pythons: Sequence[str],
    architectures: Sequence[str],
    work: Path,
    sign: Sign | None,
    signed_by: str,
    say: Callable[[str], None],
    now: datetime,
) -> str:
    """Write the kit to `output`, whole or not at all; its SHA-256 (64 hex digits).

    `work` is an empty folder for the wheels. `sign` makes the armored OpenSSH signature of the sums. Raises KitError.
    """
    pythons = [wheels.checked_python(each) for each in pythons]
    architectures = [wheels.checked_architecture(each) for each in architectures]
    files = source_files(base)
    requirements = wheels.read_lock((base / "requirements.lock").read_text())
    for python in pythons:
        for architecture in architectures:
            say(f"Fetching the packages for Python {python} on {architecture}.")
            wheels.fetch(requirements, work, python, architecture)
    found = sorted(work.glob("*.whl"))
    say("Listing what is in them.")
    listed = sbom.document(version, found, base / "static", now)
    about = _about(version, pythons, architectures, signed_by, now)
    members: list[tuple[str, bytes | Path, int]] = [*files, (SBOM, listed, 0o644), (ABOUT, about, 0o644)]
    members += [(f"{WHEELHOUSE}/{path.name}", path, 0o644) for path in found]
    members.sort(key=lambda member: member[0])
    sums = "".join(f"{_sum(data)}  {name}\n" for name, data, _ in members).encode()
    first: list[tuple[str, bytes | Path, int]] = [(SUMS, sums, 0o644)]
    if sign is not None:
        first.append((SIGNATURE, sign(sums), 0o644))
    say(f"Writing {output.name}.")
    return _write(output, f"airgap-{version}", [*first, *members], now)


def _sum(data: bytes | Path) -> str:
    if isinstance(data, bytes):
        return hashlib.sha256(data).hexdigest()
    with data.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(output: Path, folder: str, members: Sequence[tuple[str, bytes | Path, int]], now: datetime) -> str:
    aside = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        with aside.open("wb") as file:
            _pack(file, folder, members, int(now.timestamp()))
            file.flush()
            os.fsync(file.fileno())
        with aside.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        aside.rename(output)
    except OSError as error:
        raise KitError(f"{output} cannot be written: {error.strerror}.") from error
    finally:
        aside.unlink(missing_ok=True)
    return digest


def _pack(file: io.BufferedWriter, folder: str, members: Sequence[tuple[str, bytes | Path, int]], mtime: int) -> None:
    # Source is packed well, wheels are packed already: the lowest level costs little time and gains the source's share.
    with (
        gzip.GzipFile(filename="", fileobj=file, mode="wb", compresslevel=1, mtime=mtime) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, data, mode in members:
            header = tarfile.TarInfo(f"{folder}/{name}")
            header.mode, header.mtime = mode, mtime
            if isinstance(data, bytes):
                header.size = len(data)
                archive.addfile(header, io.BytesIO(data))
            else:
                header.size = data.stat().st_size
                with data.open("rb") as source:
                    archive.addfile(header, source)


def _about(version: str, pythons: Sequence[str], architectures: Sequence[str], signed_by: str, now: datetime) -> bytes:
    verify = (
        f"""It is signed by {signed_by}.
BEFORE anything in it is run, with an allowed-signers file that did not come with it:

    ssh-keygen -Y verify -f ALLOWED_SIGNERS -I airgap -n {NAMESPACE} -s {SIGNATURE} < {SUMS}
"""
        if signed_by
        else """It is NOT signed. Compare the SHA-256 of the archive with what its maker told you by another way.
"""
    )
    text = f"""Airgap {version}: the offline kit of {now.astimezone(UTC):%Y-%m-%d %H:%M} UTC

For Linux on {" and ".join(architectures)} with Python {", ".join(pythons)}, its venv module and make.

{verify}
Then, in this folder, every file against its sum, and start:

    sha256sum --quiet -c {SUMS}
    make up

make finds {WHEELHOUSE}/ and installs from it alone. What is in the packages, compiled libraries included, stands in
{SBOM}.
To upgrade: docs/offline-kit.md. Nothing here asks any other host.
"""
    return text.encode()
