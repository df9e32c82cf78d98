"""Bundles as bytes for the reader's tests: composed by the program, signed by a toy, and taken apart to be spoilt."""

import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from mirrors.blobs import BlobStore
from mirrors.bundle import BundledSnapshot, Composition, Member, Recipe, compose, tar
from mirrors.bundle.parsed import BundleReadError, Contents, SignatureRefused
from mirrors.bundle.reader import read_bundle
from tests.bundle import samples

SIGNATURE = "SHA256SUMS.sig"


def toy_signature(sums: bytes) -> bytes:
    """Stands for a real one: nobody changes the document or the signature without being seen."""
    return b"toy " + hashlib.sha256(sums).hexdigest().encode()


def check(sums: bytes, signature: bytes | None) -> str:
    if signature is None:
        raise SignatureRefused("The bundle is not signed.")
    if signature != toy_signature(sums):
        raise SignatureRefused("The signature is wrong.")
    return "Toy"


def believe(_sums: bytes, _signature: bytes | None) -> str:
    return "anybody"


class Carrier:
    """Composes bundles in a store of its own. `members` is one as (name, bytes), which `tar_of` makes a tar of."""

    def __init__(self, root: Path) -> None:
        self.store = BlobStore(root / "outside")
        self.inside = BlobStore(root / "inside")

    def recipe(self, snapshots: list[BundledSnapshot], *, signed: bool = True, **choices: Any) -> Recipe:
        choices = {"scripts": False} | choices
        recipe = compose("k3j9x2a1b7", samples.NOW, "0.1.0", snapshots, self.store, **choices)
        if not signed or any(member.name == SIGNATURE for member in recipe.members):
            return recipe
        first, sums, *rest = recipe.members
        signature = toy_signature(self.store.read(sums.digest))
        member = Member(SIGNATURE, len(signature), self.store.put(signature))
        return replace(recipe, members=(first, sums, member, *rest))

    def bundle(self, *snapshots: BundledSnapshot, **choices: Any) -> bytes:
        recipe = self.recipe(list(snapshots) or samples.everything(self.store), **choices)
        return b"".join(Composition(recipe, self.store).read())

    def members(self, *snapshots: BundledSnapshot, **choices: Any) -> list[tuple[str, bytes]]:
        recipe = self.recipe(list(snapshots) or [self.tiny()], **choices)
        return [(member.name, self.store.path(member.digest).read_bytes()) for member in recipe.members]

    def tiny(self) -> BundledSnapshot:
        """The smallest there is that still has a database to look into."""
        return samples.database(self.store)


FOLDER = "airgap-20261120T214500Z-k3j9x2a1"
MTIME = int(samples.NOW.timestamp())


def mode_of(name: str) -> int:
    return 0o755 if name.endswith(".sh") else 0o644


def flattened(members: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """The files profile of it: members with plain names, no image layout, no scripts."""
    document = json.loads(members[0][1])
    lines = {"format": 1, "bundle": 1, "created_at": 1, "program": 1, "scripts": 1}
    document = {key: document[key] for key in lines} | {"profile": "files"} | document
    names: dict[str, str] = {}
    for snapshot in document["snapshots"]:
        snapshot["files_path"] = None
        for key in ("blobs", "archives"):
            for entry in snapshot[key]:
                for place in ("file", "tar_gz"):
                    if place in entry:
                        entry[place] = names.setdefault(entry[place], f"file-{len(names)}")
    content = dict(members)
    first = ("bundle.json", json.dumps(document, indent=2).encode() + b"\n")
    files = [(new, content[old]) for old, new in names.items()]
    return with_new_sums([first, ("README.txt", content["README.txt"]), *files])


def tar_of(members: list[tuple[str, bytes]], end: bytes = tar.END, folder: str = f"{FOLDER}/") -> bytes:
    parts = []
    for name, data in members:
        parts += [tar.header(f"{folder}{name}", len(data), mode_of(name), MTIME), data, tar.padding(len(data))]
    return b"".join([*parts, end])


def with_new_sums(members: list[tuple[str, bytes]], *, sign: bool = True) -> list[tuple[str, bytes]]:
    """The same members with SHA256SUMS, and the signature, made again: what a lying sender would do."""
    listed = [(name, data) for name, data in members if not name.startswith("SHA256SUMS")]
    sums = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in listed).encode()
    papers = [("SHA256SUMS", sums)] + ([(SIGNATURE, toy_signature(sums))] if sign else [])
    return [listed[0], *papers, *listed[1:]]


def changed(members: list[tuple[str, bytes]], name: str, change: Callable[[bytes], bytes]) -> list[tuple[str, bytes]]:
    return [(each, change(data) if each == name else data) for each, data in members]


def read(raw: bytes, **choices: Any) -> Contents:
    return read_bundle(io.BytesIO(raw), check_signature=choices.pop("check_signature", check), **choices)


def problems_of(raw: bytes, **choices: Any) -> list[str]:
    """What is wrong with it; empty for a good one."""
    try:
        read(raw, **choices)
    except BundleReadError as error:
        return list(error.problems)
    return []
