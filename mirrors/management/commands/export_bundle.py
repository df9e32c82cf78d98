"""`manage.py export_bundle [NAME…] --output FILE [--site NAME]`: one file to carry, or its volumes, written here."""

import errno
import os
import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from django.core.management.base import CommandParser
from django.utils import timezone

from mirrors import bundle_signing, exporting, keys, sites, splitting, transfers, wording
from mirrors.bundle.compose import SUMS
from mirrors.bundle.volumes import PRESETS, VolumeError, cut, size_named
from mirrors.bundle_signing import NotTaken
from mirrors.exporting import ExportError
from mirrors.management.commanding import WRONG_USAGE, PlainCommand, Problem, add_names, mirrors_named
from mirrors.management.signed_elsewhere import signed_by_command
from mirrors.management.terminal import ended_by_sigterm, redrawn
from mirrors.models import Bundle, BundlePart, Snapshot
from mirrors.sites import SiteError, UnknownSite
from mirrors.transfers import NothingMissing, TransferError

Volume = tuple[Path, int, str]

PROFILES = {
    "full": "with install.sh and push.sh",
    "data": "no scripts",
    "files": "single files without folders, for gateways that look into what crosses",
    "cache": "a tar.gz of a Trivy cache directory",
}


class Command(PlainCommand):
    help = "Make a bundle of what is current (of everything, or of the mirrors named) and write it to a file."
    expected = (ExportError, NotTaken, SiteError, TransferError)

    def add_arguments(self, parser: CommandParser) -> None:
        add_names(parser, "mirrors to put in; all that hold something if none is named")
        parser.add_argument(
            "--output", required=True, metavar="FILE", help="where to; a folder, or - for standard output"
        )
        profiles = "; ".join(f"{name}: {what}" for name, what in PROFILES.items())
        parser.add_argument("--profile", choices=list(PROFILES), default="full", help=profiles)
        parser.add_argument("--site", metavar="SITE", help="for whom: a site's name or code; its transfer is prepared")
        parser.add_argument("--missing", action="store_true", help="only what the site is not known to hold")
        parser.add_argument(
            "--assume-carried", action="store_true", help="with --missing: what was carried there counts as held"
        )
        parser.add_argument("--reference", default="", metavar="TEXT", help="with --site: a form number, a media label")
        parser.add_argument(
            "--volume-size",
            metavar="N",
            help=f"cut it into FILE.001of004 and so on: {', '.join(PRESETS)}, or a number of bytes from 1048576",
        )
        signing = parser.add_mutually_exclusive_group()
        signing.add_argument(
            "--sign-with",
            metavar="CMD",
            help="for a key that is kept outside: a command that reads SHA256SUMS and writes its signature",
        )
        signing.add_argument("--unsigned", action="store_true", help="leave out the signature of a key kept outside")
        parser.add_argument("--json", action="store_true", help="print one list of objects on standard output")

    def run(
        self, *, names: list[str], output: str, profile: str, volume_size: str | None, json: bool, **options: Any
    ) -> int:
        if output == "-" and json:
            raise Problem("Either the bundle or --json can go to standard output, not both.", WRONG_USAGE)
        if output.endswith("/") and not Path(output).is_dir():
            raise Problem(f"There is no folder {output}. Make it first; or is a medium not mounted?")
        if output != "-":
            output = a_file(output)
        size = wanted_volume_size(volume_size, output)
        check_site_options(options)
        check_signing_options(profile, options)
        mirrors_named(names)
        with ended_by_sigterm():
            try:
                bundle = self.create(exporting.current_snapshots(names), profile, options)
            except NothingMissing as nothing:
                # That is what was asked for: there is nothing to carry.
                self.stderr.write(str(nothing))
                if json:
                    self.print_json([])
                return 0
            try:
                self.prepare(bundle)
                if bundle.state == Bundle.State.UNSIGNED:
                    self.settle(bundle, options["sign_with"], unsigned=options["unsigned"])
                file, volumes = self.write(bundle, output, size)
            except BaseException:
                # Nobody has it, so it need not hold its snapshots for a month.
                exporting.delete_bundle(bundle, by=self.who(), now=timezone.now())
                transfers.withdraw(bundle)
                raise
        self.record(bundle)
        if json:
            self.print_json([as_json(bundle, file, volumes)])
        else:
            say = self.stderr.write if output == "-" else self.stdout.write
            names_in = wording.joined([row.mirror_name for row in bundle.contents.all()])
            transfer = getattr(bundle, "transfer", None)
            left = [each["mirror"] for each in transfer.left_out] if transfer is not None else []
            site = f" for {transfer.site.label}" if transfer is not None else ""
            without = f", without {wording.joined(left)}" if left else ""
            say(f"{file}: {wording.size_text(bundle.size_bytes)} with {names_in}{without}{site}.")
            if volumes:
                count, first, last = wording.counted(len(volumes), "volume"), volumes[0][0], volumes[-1][0]
                say(f"In {count}: {first.name} to {last.name}; {Path(file).name}.join.txt says how to join them.")
            for path, _size, sha256 in volumes:
                say(f"{sha256}  {path.name}")
            say(f"{bundle.sha256}  {Path(file).name}")
        return 0

    def create(self, snapshots: list[Snapshot], profile: str, options: dict[str, Any]) -> Bundle:
        by, now = self.who(), timezone.now()
        if options["site"] is None:
            return exporting.create_bundle(snapshots, profile=profile, now=now, by=by)
        try:
            site = sites.find(options["site"])
        except UnknownSite as unknown:
            raise Problem(str(unknown), WRONG_USAGE) from None
        held = site.holdings.all() if options["missing"] else []
        lacks = transfers.missing_of(snapshots, held, trust_assumed=options["assume_carried"])
        about: dict[str, Any] = {"profile": profile, "reference": options["reference"], "by": by, "now": now}
        return transfers.prepare(site, lacks.send, left_out=lacks.left_out, **about).bundle

    def settle(self, bundle: Bundle, sign_with: str | None, *, unsigned: bool) -> None:
        """What a bundle waits for whose key is kept outside."""
        if unsigned:
            bundle_signing.send_unsigned(bundle, by=self.who(), now=timezone.now())
            self.stderr.write(
                "Warning: nobody signed this bundle. It is refused over there unless an administrator allows that "
                "one import."
            )
        elif sign_with:
            signature = signed_by_command(sign_with, bundle_signing.document(bundle, SUMS) or b"")
            bundle_signing.attach(bundle, signature, by=self.who(), now=timezone.now())
        else:
            raise ExportError(
                f"The key {bundle.signer} is kept outside, so that somebody has to sign. Give --sign-with "
                "'ssh-keygen -Y sign -f KEY -n airgap-bundle', or --unsigned, or make the bundle on the Bundles page."
            )

    def prepare(self, bundle: Bundle) -> None:
        """What a worker does for what the pages make."""
        if bundle.profile in exporting.BY_A_WORKER:
            exporting.prepare(bundle.pk)
            bundle.refresh_from_db()
            if bundle.state not in (Bundle.State.READY, Bundle.State.UNSIGNED):
                raise ExportError(bundle.problem or f"{bundle.filename} could not be prepared.")

    def record(self, bundle: Bundle) -> None:
        """Whoever asked for it has all of it now."""
        names = [volume.name(bundle.filename) for volume in bundle.volumes]
        if not names:
            exporting.record_export(bundle.pk, by=self.who(), now=timezone.now())
            return
        splitting.record_taken(bundle.pk, BundlePart.Kind.VOLUME, names, by=self.who(), now=timezone.now())

    def write(self, bundle: Bundle, output: str, volume_size: int) -> tuple[str, list[Volume]]:
        """The file's path, and of each volume its path, bytes and SHA-256."""
        progress = Progress(bundle.size_bytes)
        if output == "-":
            with redrawn(progress.line):
                exporting.write_to(bundle, sys.stdout.buffer, progress=progress.add)
            sys.stdout.buffer.flush()
            return "-", []
        target = Path(output)
        if target.is_dir():
            target /= bundle.filename
        try:
            require_room(target, bundle.size_bytes)
            with redrawn(progress.line):
                return str(target), self.written(bundle, target, volume_size, progress)
        except OSError as error:
            advice = " With --volume-size fat32 it fits." if error.errno == errno.EFBIG else ""
            raise Problem(
                f"{target} cannot be written: {error.strerror or error}. Nothing was left there.{advice}"
            ) from error

    def written(self, bundle: Bundle, target: Path, volume_size: int, progress: "Progress") -> list[Volume]:
        if volume_size:
            written = splitting.write_volumes(
                bundle, target, volume_size, by=self.who(), now=timezone.now(), progress=progress.add
            )
            bundle.refresh_from_db()
            return written
        with replaced(target) as file:
            exporting.write_to(bundle, file, progress=progress.add)
        return []


def a_file(output: str) -> str:
    """The path, of a link that where it leads, for the file is renamed into its place. A device or a pipe would be gone
    for everybody then, and is refused.
    """
    target = Path(output)
    if target.exists() and not target.is_file() and not target.is_dir():
        raise Problem(
            f"{output} is a device or a pipe and would be replaced. Name a file, or - for standard output.", WRONG_USAGE
        )
    return str(target.resolve()) if target.is_symlink() else output


def wanted_volume_size(text: str | None, output: str) -> int:
    """In bytes; 0 for one file."""
    if text is None:
        return 0
    if output == "-":
        raise Problem("Volumes are several files, which standard output cannot take.", WRONG_USAGE)
    try:
        size = size_named(text)
        cut(0, size)
    except VolumeError as error:
        raise Problem(str(error), WRONG_USAGE) from error
    return size


def require_room(target: Path, size: int) -> None:
    """Say before the first byte that it does not fit, not after an hour."""
    free = shutil.disk_usage(target.parent).free
    if free < size:
        raise Problem(
            f"{target.parent} has {wording.size_text(free)} free, and the bundle needs {wording.size_text(size)}. "
            "Nothing was written."
        )


def check_site_options(options: dict[str, Any]) -> None:
    if options["site"] is None and (options["missing"] or options["reference"]):
        raise Problem("--missing and --reference are about a site: name it with --site.", WRONG_USAGE)
    if options["assume_carried"] and not options["missing"]:
        raise Problem("--assume-carried goes with --missing.", WRONG_USAGE)


def check_signing_options(profile: str, options: dict[str, Any]) -> None:
    """Both are about a key that is kept outside; what would change nothing is not passed over in silence."""
    if profile == Bundle.Profile.CACHE:
        if options["sign_with"]:
            raise Problem("A cache archive has no place for a signature: leave --sign-with away.", WRONG_USAGE)
        return
    if (options["unsigned"] or options["sign_with"]) and not keys.is_outside():
        asked = "--unsigned" if options["unsigned"] else "--sign-with"
        raise Problem(
            f"{asked} is for a key that is kept outside, and this instance signs every bundle by itself. Leave it "
            "away: a signature is in nobody's way, and without one the other side refuses the bundle. The key can be "
            "moved under Settings → Keys.",
            WRONG_USAGE,
        )


@contextmanager
def replaced(target: Path) -> Iterator[BinaryIO]:
    """Write beside `target` and rename when all of it is on disk; whatever goes wrong, nothing half stays."""
    aside = target.with_name(f".{target.name[:200]}.{secrets.token_hex(4)}.part")
    try:
        with aside.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        aside.replace(target)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


class Progress:
    """Counts what was written, and says so in a line."""

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0
        self._began = time.monotonic()

    def add(self, size: int) -> None:
        self.done += size

    def line(self) -> str:
        rate = self.done / max(time.monotonic() - self._began, 0.001)
        parts = [wording.progress_text(self.done, self.total), wording.rate_text(rate)]
        parts.append(wording.time_left(self.done, self.total, rate))
        return " · ".join(part for part in parts if part)


def as_json(bundle: Bundle, file: str, volumes: list[Volume]) -> dict[str, Any]:
    """`volumes` only where it was cut; then `file` is what they make when they are joined."""
    cut_into = [{"file": str(path), "size": size, "sha256": f"sha256:{sha256}"} for path, size, sha256 in volumes]
    transfer = getattr(bundle, "transfer", None)
    found: dict[str, Any] = {
        "bundle": bundle.pk,
        "file": file,
        "size": bundle.size_bytes,
        "sha256": f"sha256:{bundle.sha256}",
        "signed_by": bundle.signer or None,
        "snapshots": [
            {
                "mirror": row.mirror_name,
                "digest": row.digest,
                "updated_at": row.updated_at,
                "size": row.size_bytes,
            }
            for row in bundle.contents.all()
        ],
        "site": transfer.site.name if transfer is not None else None,
        "transfer": transfer.pk if transfer is not None else None,
        "left_out": [each["mirror"] for each in transfer.left_out] if transfer is not None else [],
    }
    return found | {"volumes": cut_into} if cut_into else found
