"""README.txt of the files profile: what a gateway's inspector reads, with the content of every nested archive."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from mirrors.bundle import contents
from mirrors.bundle.composition import Member
from mirrors.bundle.contents import Crossing
from mirrors.bundle.coversheet import (
    AFTERWARDS,
    FOREIGN,
    LEFT_OUT,
    VERIFY_SIGNED,
    WHAT,
    addressed,
    by_hand,
    details,
    left_out,
    one_line,
    table,
    utc,
)
from mirrors.bundle.documents import Entry
from mirrors.bundle.listing import Listing
from mirrors.trivy.catalogue import KINDS
from mirrors.trivy.release import BUNDLE_ENDING, verify_command

# Beyond this many blobs the commands for one artifact are longer than anybody types.
BLOBS_BY_HAND = 20
CLOSED = (".tar", ".tar.zst", ".gz", ".deb", ".rpm", ".xz", ".bz2", ".7z", ".apk", ".pkg", ".dmg", ".jar")

FILES = """\
These are single files: no folders, no scripts, nothing that unpacks or starts
itself. They come one by one, or in a tar of the same files that makes no folder
either: unpack it in an empty one.
"""

PROGRAMS = """\
Among them are release files of programs (below), as they were published. Nothing
else is made to be executed.
"""

VERIFY = """\
VERIFY

In the folder that holds these files:

  sha256sum -c SHA256SUMS

Every file but SHA256SUMS itself (and its signature, SHA256SUMS.sig, where there
is one) is named in it. A file that is not named there does not belong here.
"""

BY_HAND = """\
USE IT BY HAND

An Airgap on the other side imports these files, or the tar, as they are. Without
one: replace CACHE by Trivy's cache directory (usually ~/.cache/trivy), and empty
the folder below it before unpacking over an older one.
"""


def files_sheet(
    bundle_id: str,
    created_at: datetime,
    program_version: str,
    folder: str,
    entries: Sequence[Entry],
    members: Sequence[Member],
    listings: Mapping[str, Listing],
    *,
    crossing: Crossing | None = None,
    key: str = "",
) -> bytes:
    """The text, UTF-8. `key` is the fingerprint of the key that signs the bundle, "" for none.

    `members` are the files of content in their order; `listings` are by the name of the file.
    """
    kinds = {entry.snapshot.kind for entry in entries}
    parts = [
        WHAT + FILES + (PROGRAMS if "release" in kinds else ""),
        *([FOREIGN] if "oci" in kinds else []),
        f"  Bundle    {one_line(bundle_id)}\n"
        f"  File      {folder}.tar\n"
        f"  Created   {utc(created_at)} by Airgap {one_line(program_version)}\n" + "".join(addressed(crossing)),
        "CONTENTS\n\n" + "".join(table(entries)),
        "\n".join("".join(details(entry)) for entry in entries),
        *([LEFT_OUT + "".join(left_out(crossing))] if crossing and crossing.assumed else []),
        "FILES, AND WHAT IS IN EACH ARCHIVE\n\n" + "".join(_files(members, listings)),
        VERIFY_SIGNED.format(folder="FOLDER_OF_THESE_FILES", key=one_line(key)) if key else VERIFY,
        BY_HAND + "".join("".join(_by_hand(entry)) for entry in entries),
        AFTERWARDS,
    ]
    return "\n".join(parts).encode()


def _files(members: Sequence[Member], listings: Mapping[str, Listing]) -> Iterator[str]:
    for member in members:
        yield f"  {member.name:<52} {member.size:>15,} bytes\n"
        if member.name in listings:
            yield from _inside(listings[member.name])
        elif member.name.lower().endswith(CLOSED):
            yield "    an archive or package that was not looked into\n"


def _inside(listing: Listing) -> Iterator[str]:
    files = "1 file" if listing.files == 1 else f"{listing.files:,} files"
    others = f", {listing.others:,} links or other entries" if listing.others else ""
    if listing.problem:
        yield f"    a {listing.format} that could not be read to its end:\n    {_shown(listing.problem, 200)}\n"
        yield f"    up to there {files}{others}\n"
    else:
        yield f"    a {listing.format} of {files}{others}, {listing.size:,} bytes unpacked\n"
    for name, size in listing.first:
        yield f"      {_named(name, 48):<48} {size:>15,}\n"
    if listing.files > len(listing.first):
        yield f"      and {listing.files - len(listing.first):,} more\n"


def _shown(text: str, most: int) -> str:
    text = one_line(text)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _named(text: str, most: int) -> str:
    """A name cut in its middle: what kind of file it is stands at the end, and whoever inspects it looks for that."""
    text, end = one_line(text), most * 2 // 3
    return text if len(text) <= most else f"{text[: most - end - 3]}...{text[-end:]}"


def _by_hand(entry: Entry) -> Iterator[str]:
    if entry.snapshot.is_release:
        yield from _release(entry)
    elif entry.snapshot.is_vex or KINDS[entry.snapshot.kind].one_layer:
        yield from by_hand([entry])
    else:
        yield from _artifact(entry)


def _release(entry: Entry) -> Iterator[str]:
    """The checksum file names the files as upstream does; where a name was taken, that line does not find it."""
    snapshot = entry.snapshot
    signed = {blob.name for blob in snapshot.with_role(contents.SIGNATURE)}
    yield f"\n{one_line(snapshot.label)}\n\n"
    for blob in snapshot.with_role(contents.CHECKSUMS):
        yield f"  sha256sum -c --ignore-missing {entry.file_of(blob)}\n"
    for blob in snapshot.with_role(contents.FILE):
        if entry.file_of(blob) != blob.name:
            yield f"  ({blob.name} is called {entry.file_of(blob)} here)\n"
        elif blob.name + BUNDLE_ENDING in signed:
            yield "".join(f"  {line}\n" for line in verify_command(blob.name, entry.version).splitlines())
    yield "  (cosign 3; without internet it needs Sigstore's trusted root in a file:\n"
    yield "  --trusted-root FILE. Airgap did not verify who signed.)\n"


def _artifact(entry: Entry) -> Iterator[str]:
    """oras pushes blobs and manifests as they are; children go before the index that names them."""
    snapshot = entry.snapshot
    repository = entry.names.push_as.rpartition(":")[0]
    blobs = snapshot.with_role(contents.CONFIG, contents.LAYER)
    manifests = [*snapshot.with_role(contents.MANIFEST), *snapshot.with_role(contents.INDEX)]
    yield f"\n{one_line(snapshot.label)}\n\n"
    if len(blobs) + len(manifests) > BLOBS_BY_HAND or not entry.complete:
        yield "  (too many pieces to push by hand, or only some of its platforms are carried:\n"
        yield "  import it with Airgap)\n"
        return
    for blob in blobs:
        yield f"  oras blob push HOST/{repository}@{blob.digest} \\\n    {entry.file_of(blob)}\n"
    for blob in sorted(manifests, key=lambda blob: blob.digest == snapshot.manifest_digest):
        reference = f":{entry.names.push_as.rpartition(':')[2]}"
        if blob.digest != snapshot.manifest_digest:
            reference = f"@{blob.digest}"
        yield f"  oras manifest push HOST/{repository}{reference} \\\n    {entry.file_of(blob)}\n"
