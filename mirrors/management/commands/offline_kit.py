"""`manage.py offline_kit`: one signed archive from which a machine without a package index runs `make up`."""

import tempfile
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser
from django.utils import timezone

from airgap.kit import archive, wheels
from airgap.kit.wheels import KitError
from mirrors import keys, record, wording
from mirrors.management.commanding import PlainCommand
from mirrors.management.commands.export_bundle import a_file
from mirrors.secrets import SecretError
from mirrors.signing import AgentError


class Command(PlainCommand):
    help = "Write one archive with the program, its packages as wheels, their list and the sums, signed."
    expected = (KitError, keys.KeysError, SecretError, AgentError)

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--output", metavar="FILE", help="airgap-kit-VERSION-DATE.tar.gz here if not given")
        parser.add_argument(
            "--python", nargs="+", default=list(wheels.PYTHONS), metavar="3.N", help="Pythons it is for (usual: all)"
        )
        parser.add_argument(
            "--arch",
            nargs="+",
            default=list(wheels.ARCHITECTURES),
            metavar="ARCH",
            help="x86_64 and aarch64 (usual)",
        )
        parser.add_argument("--unsigned", action="store_true", help="do not sign it with this instance's key")

    def run(self, *, output: str | None, python: list[str], arch: list[str], unsigned: bool, **_: Any) -> int:
        now = timezone.now().replace(microsecond=0)
        name = f"airgap-kit-{settings.VERSION}-{now:%Y%m%dT%H%M%SZ}.tar.gz"
        target = Path(a_file(output)) if output else settings.BASE_DIR / name
        signed_by = "" if unsigned else keys.current().fingerprint
        with tempfile.TemporaryDirectory(prefix="airgap-kit-") as work:
            sha256 = archive.make(
                settings.BASE_DIR,
                target,
                settings.VERSION,
                pythons=python,
                architectures=arch,
                work=Path(work),
                sign=None if unsigned else lambda sums: keys.sign(sums, archive.NAMESPACE),
                signed_by=signed_by,
                say=self.stderr.write,
                now=now,
            )
        size = target.stat().st_size
        record.write(self.who(), "offline kit made", target.name, f"sha256 {sha256}, {wording.size_text(size)}", at=now)
        self.stdout.write(f"{target}  {wording.size_text(size)}")
        self.stdout.write(f"sha256 {sha256}")
        signed = f"Signed by {signed_by}." if signed_by else "Not signed."
        self.stdout.write(f"{signed} Its KIT.txt says how it is verified and started over there.")
        return 0
