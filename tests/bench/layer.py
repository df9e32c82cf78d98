"""A Java DB layer of any size as upstream packs it: the database first, `metadata.json` last, one gzip member.

Inside is SQLite in trivy-java-db's own schema, filled with made-up artifacts: SHA-1 sums, which nothing can shrink,
beside short versions. Its bytes are repeated until the size is reached, which deflate, looking back 32 KiB, cannot
notice: size, ratio and the work of inflating are those of a database that long.
"""

import hashlib
import json
import os
import random
import sqlite3
import struct
import tarfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

MIB = 1024 * 1024
WINDOW = 32 * 1024
ARTIFACTS, VERSIONS = 32_000, 20  # about 60 MB


@dataclass(frozen=True)
class Blob:
    """A file to be pushed. `inflated` is what is inside, 0 for what is no archive."""

    path: Path
    digest: str
    size: int
    inflated: int = 0


def make_layer(path: Path, size: int, updated_at: datetime, artifacts: int = ARTIFACTS) -> Blob:
    """Write a layer of about `size` bytes.

    The database is compressed once, at zlib's level 6 on all cores in blocks that do not look back (under 1 % larger
    for it), and written as often as needed.
    """
    database = path.with_suffix(".sqlite")
    _make_database(database, artifacts)
    plain = database.read_bytes()
    database.unlink()
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        packed = list(pool.map(_deflated, (plain[at : at + 4 * MIB] for at in range(0, len(plain), 4 * MIB))))
    times = max(1, round(size / sum(len(block) for block in packed)))
    head = _header("trivy-java.db", times * len(plain))
    tail = bytes(-times * len(plain) % 512) + _metadata(updated_at)
    check = zlib.crc32(head)
    for _ in range(times):
        check = zlib.crc32(plain, check)
    check = zlib.crc32(tail, check)
    inflated = len(head) + times * len(plain) + len(tail)

    def pieces() -> Iterator[bytes]:
        yield b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff" + _deflated(head)
        for _ in range(times):
            yield from packed
        yield _deflated(tail) + b"\x03\x00" + struct.pack("<LL", check, inflated & 0xFFFFFFFF)

    return _write(path, pieces(), inflated)


def make_noise(path: Path, size: int, seed: int = 2) -> Blob:
    """A file that does not shrink."""
    numbers = random.Random(seed)
    return _write(path, (numbers.randbytes(MIB) for _ in range(size // MIB)), 0)


def _write(path: Path, pieces: Iterator[bytes], inflated: int) -> Blob:
    digest, size = hashlib.sha256(), 0
    with path.open("wb") as file:
        for piece in pieces:
            file.write(piece)
            digest.update(piece)
            size += len(piece)
    return Blob(path, "sha256:" + digest.hexdigest(), size, inflated)


def _deflated(block: bytes) -> bytes:
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    return packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)


def _header(name: str, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.mtime = size, 1_700_000_000
    return member.tobuf(tarfile.GNU_FORMAT)


def _metadata(updated_at: datetime) -> bytes:
    """The member and the end of the tar."""

    def text(moment: datetime) -> str:
        return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S.000000001Z}"

    values = {"Version": 1, "NextUpdate": text(updated_at + timedelta(hours=72)), "UpdatedAt": text(updated_at)}
    body = json.dumps(values | {"DownloadedAt": "0001-01-01T00:00:00Z"}).encode()
    return _header("metadata.json", len(body)) + body + bytes(-len(body) % 512 + 1024)


def _make_database(path: Path, artifacts: int) -> None:
    """Schema of trivy-java-db, pkg/db/db.go."""
    numbers = random.Random(1)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(numbers.choices(letters, k=numbers.randrange(3, 10))) for _ in range(5000)]

    def names() -> Iterator[tuple[int, str, str]]:
        for number in range(artifacts):
            group, name = f"org.{numbers.choice(words)}.{numbers.choice(words)}", numbers.choice(words)
            yield number, group, f"{name}-{number}"

    def jars() -> Iterator[tuple[int, str, bytes, str]]:
        for number in range(artifacts):
            major, minor = numbers.randrange(5), 0
            for patch in range(VERSIONS):
                minor += numbers.random() < 0.3
                yield number, f"{major}.{minor}.{patch}", numbers.randbytes(20), "jar"

    path.unlink(missing_ok=True)
    connection = sqlite3.connect(path)
    connection.executescript(
        """
        PRAGMA journal_mode=off; PRAGMA synchronous=off;
        CREATE TABLE artifacts(id INTEGER PRIMARY KEY, group_id TEXT, artifact_id TEXT);
        CREATE TABLE indices(artifact_id INTEGER, version TEXT, sha1 BLOB, archive_type TEXT,
            FOREIGN KEY (artifact_id) REFERENCES artifacts(id));
        CREATE UNIQUE INDEX artifacts_idx ON artifacts(artifact_id, group_id);
        CREATE INDEX indices_artifact_idx ON indices(artifact_id);
        CREATE UNIQUE INDEX indices_sha1_idx ON indices(sha1);
        """
    )
    connection.executemany("INSERT INTO artifacts VALUES (?, ?, ?)", names())
    connection.executemany("INSERT INTO indices VALUES (?, ?, ?, ?)", jars())
    connection.commit()
    connection.close()
