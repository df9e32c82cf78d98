"""Two sides in one database: bundles are made of rows that are then forgotten, and imported into another store."""

import hashlib
import tarfile
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from mirrors import exporting
from mirrors.blobs import BlobStore
from mirrors.importing.asking import Wishes
from mirrors.models import Bundle, Mirror
from tests.kept import keep_build, keep_vex

HOUR = timedelta(hours=1)
UNSIGNED = Wishes(at_once=True, allow_unsigned=True)


@dataclass
class Carrier:
    """Makes bundles on the connected side and carries their files."""

    store: BlobStore
    folder: Path
    make_mirror: object
    now: object

    def bundle(self, ages=None, *, made=None, name=None, kinds=None, padding=0, profile="full", crossing=None) -> Path:
        """A bundle of builds this many hours old, by mirror name; nothing of it is left in the database."""
        made = made or self.now
        ages = {"trivy-db": 5} if ages is None else ages
        before = set(Mirror.objects.values_list("pk", flat=True))
        renamed = {}
        for mirror in Mirror.objects.all():
            renamed[mirror.pk] = (mirror.name, mirror.served_repository, mirror.current_id)
            Mirror.objects.filter(pk=mirror.pk).update(
                name=f"far-{mirror.pk}", served_repository=f"far/{mirror.pk}" if mirror.served_repository else ""
            )
        snapshots = []
        for mirror_name, hours in ages.items():
            kind = (kinds or {}).get(mirror_name, "vex" if mirror_name == "vexhub" else mirror_name)
            mirror = self.make_mirror(mirror_name, kind)
            at = made - hours * HOUR
            if kind == "vex":
                snapshots.append(keep_vex(self.store, mirror, at))
            else:
                snapshots.append(keep_build(self.store, mirror, at, padding=padding))
        bundle = exporting.create_bundle(
            snapshots, profile=profile, now=made, by="otto", store=self.store, crossing=crossing
        )
        if bundle.profile == "files":
            exporting.prepare(bundle.pk, store=self.store)
            bundle.refresh_from_db()
        path = self.folder / (name or bundle.filename)
        with path.open("wb") as file:
            exporting.write_to(bundle, file, store=self.store)
        Bundle.objects.all().delete()
        Mirror.objects.exclude(pk__in=before).update(current=None)
        Mirror.objects.exclude(pk__in=before).delete()
        for pk, (mirror_name, repository, current) in renamed.items():
            Mirror.objects.filter(pk=pk).update(name=mirror_name, served_repository=repository, current=current)
        return path


def single_files_of(path: Path, folder: Path) -> list[Path]:
    """The members of a bundle of the files profile, each as a file in the folder; the tar itself goes."""
    with tarfile.open(path) as tar:
        members = [(member.name, tar.extractfile(member)) for member in tar]
        for name, file in members:
            assert file is not None and "/" not in name
            (folder / name).write_bytes(file.read())
    path.unlink()
    return [folder / name for name, _ in members]


def list_of(volumes: list[Path]) -> Path:
    """The list of checksums of these volumes, beside them, as export_bundle writes it."""
    whole = hashlib.sha256(b"".join(volume.read_bytes() for volume in volumes)).hexdigest()
    target = volumes[0].with_name(f"{volumes[0].name.rpartition('.')[0]}.sha256")
    lines = [f"{hashlib.sha256(volume.read_bytes()).hexdigest()}  {volume.name}\n" for volume in volumes]
    target.write_text("".join([*lines, f"{whole}  {target.name.removesuffix('.sha256')}\n"]))
    return target


def flip(path: Path) -> None:
    """One bit of one byte in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def volumes_of(path: Path, count: int) -> list[Path]:
    """The file cut into `count` volumes beside it; the file itself goes."""
    data = path.read_bytes()
    size = -(-len(data) // count)
    paths = []
    for number in range(count):
        volume = path.with_name(f"{path.name}.{number + 1:03}of{count:03}")
        volume.write_bytes(data[number * size : (number + 1) * size])
        paths.append(volume)
    path.unlink()
    return paths
