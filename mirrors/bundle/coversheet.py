"""README.txt: the cover sheet a transfer officer reads before the bundle crosses, and the way to use it by hand."""

import re
import shlex
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from textwrap import indent

from mirrors.bundle import contents
from mirrors.bundle.contents import Crossing
from mirrors.bundle.documents import Entry, without_credentials
from mirrors.trivy.cache import CHECKS_CONTENT
from mirrors.trivy.catalogue import KINDS
from mirrors.trivy.release import BUNDLE_ENDING, verify_command
from mirrors.trivy.vex import SPEC_VERSION

DATE_WORD = {"trivy-db": "built", "trivy-java-db": "built", "trivy-checks": "published", "vex": "updated"}

WHAT = """\
AIRGAP TRANSFER BUNDLE

Databases of the vulnerability scanner Trivy, to be carried into a network
without internet access.
"""

SCRIPTS_INSIDE = """\
It holds data and two shell scripts in plain text, install.sh and push.sh, which
are the same in every bundle of this version of Airgap. Apart from these two
nothing in it is made to be executed.
"""

DATA_ONLY = """\
It holds data only: nothing in it is made to be executed.
"""

SCRIPTS_AND_PROGRAMS = """\
It holds data, release files of programs (below, under files/), and two shell
scripts in plain text, install.sh and push.sh, which are the same in every bundle
of this version of Airgap. Nothing else in it is made to be executed.
"""

DATA_AND_PROGRAMS = """\
It holds data and release files of programs (below, under files/). Nothing else
in it is made to be executed.
"""

FOREIGN = """\
OCI artifacts (below) are carried as they were published. If one is a container
image, it may hold programs.
"""

LEFT_OUT = """\
LEFT OUT

This bundle holds only what the site lacks. The following is taken to be there
already, as it is, and was left out. What is in this bundle is complete and needs
nothing of it. If any of it is missing there, ask for the full bundle: one click
on the sending side.
"""

VERIFY_SIGNED = """\
VERIFY, BEFORE ANYTHING IN HERE IS RUN

  cd {folder}
  ssh-keygen -Y verify -f ALLOWED_SIGNERS -I airgap -n airgap-bundle \\
    -s SHA256SUMS.sig < SHA256SUMS
  sha256sum -c SHA256SUMS

The first line (ssh-keygen of OpenSSH 8.1 or later) must say
'Good "airgap-bundle" signature for airgap', the second OK for every file. If it
does not, or if there is no SHA256SUMS.sig, use nothing of this bundle and ask
those who sent it.

ALLOWED_SIGNERS is a file of one line that they gave you on another way than
this bundle. Never take it from here: whoever changed a bundle would change that
line as well. This bundle says that it is signed with the key

  {key}

Every file but SHA256SUMS and SHA256SUMS.sig is named in SHA256SUMS. A file that
is not named there does not belong here.
"""

VERIFY = """\
VERIFY

  cd {folder}
  sha256sum -c SHA256SUMS

Every file but SHA256SUMS itself (and its signature, SHA256SUMS.sig, where there
is one) is named in it. A file that is not named there does not belong here.
"""

USE_SCRIPTS = """\
USE IT WITH THE SCRIPTS

  sh install.sh CACHE         fill the Trivy cache directory CACHE
  sh push.sh HOST[/PREFIX]    copy the OCI artifacts to a registry, with oras,
                              skopeo, crane or regctl

Both verify all checksums first and work from any directory. "sh install.sh -h"
and "sh push.sh -h" tell their options.
"""

SCRIPTS_AND_KEY = """\
With --key ALLOWED_SIGNERS --require-signature they verify the signature, too.
They lie in the bundle themselves, so this does not replace the check above.
"""

BY_HAND = """\
USE IT BY HAND

Replace CACHE by Trivy's cache directory (usually ~/.cache/trivy), and empty the
folder below it before unpacking over an older one.
"""

AFTERWARDS = """\
AFTERWARDS

  - Restart a running "trivy server": it keeps the old database open.
  - After a new Java DB: trivy clean --scan-cache
  - Scan with: --skip-db-update --skip-java-db-update --skip-check-update
    --offline-scan (and --vex repo --skip-vex-repo-update for VEX). Leave out the
    flag of what the cache does not hold.
  - With these flags Trivy never says how old its databases are. The dates above
    do.
"""


def cover_sheet(
    bundle_id: str,
    created_at: datetime,
    program_version: str,
    folder: str,
    entries: Sequence[Entry],
    *,
    scripts: bool,
    crossing: Crossing | None = None,
    key: str = "",
) -> bytes:
    """The text, UTF-8. `key` is the fingerprint of the key that signs the bundle, "" for none."""
    parts = [
        WHAT + _inside(entries, scripts),
        *([FOREIGN] if any(entry.snapshot.kind == "oci" for entry in entries) else []),
        f"  Bundle    {one_line(bundle_id)}\n"
        f"  File      {folder}.tar\n"
        f"  Created   {utc(created_at)} by Airgap {one_line(program_version)}\n" + "".join(addressed(crossing)),
        "CONTENTS\n\n" + "".join(table(entries)),
        "\n".join("".join(details(entry)) for entry in entries),
        *([LEFT_OUT + "".join(left_out(crossing))] if crossing and crossing.assumed else []),
        VERIFY_SIGNED.format(folder=folder, key=one_line(key)) if key else VERIFY.format(folder=folder),
        *([USE_SCRIPTS + (SCRIPTS_AND_KEY if key else "")] if scripts else []),
        BY_HAND + "".join(by_hand(entries)),
        AFTERWARDS,
    ]
    return "\n".join(parts).encode()


def addressed(crossing: Crossing | None) -> Iterator[str]:
    if crossing is None:
        return
    yield f"  For       {one_line(crossing.site_label)} ({one_line(crossing.site)})\n"
    yield f"  Transfer  {one_line(crossing.transfer)}\n"
    if crossing.reference:
        yield f"  Reference {one_line(crossing.reference)}\n"


def left_out(crossing: Crossing) -> Iterator[str]:
    for each in crossing.assumed:
        date = (
            f"{DATE_WORD.get(each.kind, 'dated')} {each.updated_at.astimezone(UTC):%Y-%m-%d}"
            if each.updated_at
            else "-"
        )
        yield f"\n  {one_line(each.label)[:34]:<34} {date}\n    {each.digest}\n"


def _inside(entries: Sequence[Entry], scripts: bool) -> str:
    if any(entry.snapshot.is_release for entry in entries):
        return SCRIPTS_AND_PROGRAMS if scripts else DATA_AND_PROGRAMS
    return SCRIPTS_INSIDE if scripts else DATA_ONLY


def table(entries: Sequence[Entry]) -> Iterator[str]:
    yield f"  {'':<34} {'date of the data':<25} {'bytes':>15}\n"
    for entry in entries:
        snapshot = entry.snapshot
        word = DATE_WORD.get(snapshot.kind, "")
        date = f"{word} {snapshot.updated_at.astimezone(UTC):%Y-%m-%d}" if snapshot.updated_at else "-"
        if snapshot.is_release:
            date = f"version {one_line(entry.version)}"[:25]
        yield f"  {one_line(snapshot.label)[:34]:<34} {date:<25} {snapshot.size:>15,}\n"


def details(entry: Entry) -> Iterator[str]:
    snapshot = entry.snapshot
    yield f"  {one_line(snapshot.label)} ({one_line(snapshot.mirror)})\n"
    yield f"    from       {one_line(without_credentials(snapshot.reference))}\n"
    if snapshot.reference.startswith("file:"):
        transport = "none, read from a directory of the machine that fetched it"
    else:
        transport = "TLS verified" if snapshot.tls_verified else "TLS NOT verified"
    yield f"    transport  {transport}"
    seen = "" if snapshot.is_release else f"; the same layer was seen at {_sources(snapshot.same_layer_sources)}"
    yield f"{seen}\n"
    if entry.version:
        yield f"    version    {one_line(entry.version)}\n"
    if snapshot.updated_at:
        yield f"    {DATE_WORD.get(snapshot.kind, 'dated'):<10} {utc(snapshot.updated_at)}\n"
    yield f"    fetched    {utc(snapshot.fetched_at)}\n"
    yield f"    confirmed  {utc(snapshot.confirmed_at)} (last seen at its source)\n"
    if snapshot.next_update:
        yield f"    note       scanners without skip flags download again after {utc(snapshot.next_update)}\n"
    if snapshot.is_vex:
        for archive in entry.archives:
            yield f"    archive    {archive.blob.digest}\n               {archive.file}\n"
        return
    if snapshot.is_release:
        yield from _release_details(entry)
        return
    yield f"    manifest   {snapshot.manifest_digest}\n"
    for blob in snapshot.with_role(contents.LAYER):
        yield f"    layer      {blob.digest}\n"
    if not entry.complete:
        yield "    note       only the chosen platforms of this image are carried\n"


def _release_details(entry: Entry) -> Iterator[str]:
    signed = {str(blob.details.get("file")): blob for blob in entry.snapshot.with_role(contents.SIGNATURE)}
    for blob in entry.snapshot.with_role(contents.FILE):
        yield f"    file       {blob.digest}\n               {entry.file_of(blob)}\n"
        if blob.name in signed:
            signer = one_line(str(signed[blob.name].details.get("identity") or ""))
            yield "    signature  beside it; NOT verified by Airgap"
            yield f", it states\n               {signer}\n" if signer else "\n"


def _release_by_hand(entry: Entry) -> Iterator[str]:
    """Airgap compared the files with the checksum file; that Trivy's makers wrote that, cosign finds out."""
    snapshot = entry.snapshot
    checksums = next((blob.name for blob in snapshot.with_role(contents.CHECKSUMS)), "")
    yield f"\n{one_line(snapshot.label)}\n\n"
    yield f"  cd {entry.folder}\n"
    yield f"  sha256sum -c --ignore-missing {checksums}\n"
    bundled = {blob.name for blob in snapshot.with_role(contents.SIGNATURE)}
    for blob in snapshot.with_role(contents.FILE):
        if blob.name + BUNDLE_ENDING in bundled:
            yield indent(verify_command(blob.name, entry.version), "  ") + "\n"
    yield f"  cd {'/'.join('..' for _ in entry.folder.split('/'))}\n"
    yield "  (cosign 3; without internet it needs Sigstore's trusted root in a file:\n"
    yield "  --trusted-root FILE. Airgap did not verify who signed.)\n"


def by_hand(entries: Sequence[Entry]) -> Iterator[str]:
    for entry in entries:
        snapshot, place = entry.snapshot, entry.names.cache_path
        if snapshot.is_release:
            yield from _release_by_hand(entry)
            continue
        if snapshot.is_vex:
            yield from _vex_by_hand(entry)
            continue
        layer = next((entry.files[blob.digest] for blob in snapshot.with_role(contents.LAYER)), "")
        yield f"\n{one_line(snapshot.label)}\n\n"
        if not KINDS[snapshot.kind].one_layer:
            yield f"  skopeo copy --all oci:.:{entry.names.ref_name} docker://HOST/{entry.names.push_as}\n"
            continue
        into = CHECKS_CONTENT if snapshot.kind == "trivy-checks" else KINDS[snapshot.kind].cache_directory
        if not place:
            yield "  (a cache has one place for this kind; another one of this bundle has it)\n"
        elif snapshot.kind == "trivy-checks":
            yield f"  (for {_trivy_range(entry)}; a cache holds one checks bundle)\n"
        yield f"  sha256sum {layer}\n"
        yield f"  mkdir -p CACHE/{into}\n"
        yield f"  tar -xzf {layer} -C CACHE/{into}\n"


def _vex_by_hand(entry: Entry) -> Iterator[str]:
    """Trivy reads one version only (pkg/vex/repo/repo.go); the folder named by the address is not kept."""
    archive = next((item for item in entry.archives if item.blob.details.get("spec_version") == SPEC_VERSION), None)
    if archive is None:
        return
    place = f"CACHE/{entry.names.cache_path}"
    subdir = one_line(str(archive.blob.details.get("subdir") or ""))
    yield f"\n{one_line(entry.snapshot.label)}\n\n"
    yield f"  sha256sum {archive.tar_gz}\n"
    if subdir:
        yield f"  mkdir -p {place}/unpacked\n"
        yield f"  tar -xzf {archive.tar_gz} -C {place}/unpacked\n"
        yield f"  mv {place}/unpacked/{_shell_word(subdir)} {place}/{SPEC_VERSION}\n"
    else:
        yield f"  mkdir -p {place}/{SPEC_VERSION}\n"
        yield f"  tar -xzf {archive.tar_gz} -C {place}/{SPEC_VERSION}\n"
    yield "  (scan with --skip-vex-repo-update, or let install.sh write what makes it unnecessary)\n"


def _trivy_range(entry: Entry) -> str:
    one = re.match(r"v?1(\.|$)", entry.version or entry.snapshot.tag)
    return "Trivy 0.56 to 0.68" if one else "Trivy 0.69 and later"


def _shell_word(text: str) -> str:
    """Safe to paste into a shell; a pattern stays one."""
    return text if re.fullmatch(r"[A-Za-z0-9._*/-]+", text) else shlex.quote(text)


def _sources(count: int) -> str:
    return {0: "no other source", 1: "1 other source"}.get(count, f"{count} other sources")


def utc(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def one_line(text: str) -> str:
    """Text from outside, on one line and without control characters."""
    return "".join(char if char.isprintable() else " " for char in text)
