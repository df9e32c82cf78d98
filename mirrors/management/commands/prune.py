"""`manage.py prune`: let go of what no longer has to be kept, now instead of within ten minutes."""

from typing import Any

from django.core.management.base import CommandParser
from django.utils import timezone

from mirrors import record, retention, wording
from mirrors.blobs import StoreError
from mirrors.importing import asking as imports
from mirrors.management.commanding import PlainCommand


class Command(PlainCommand):
    help = "Remove snapshots, bundles, files and old history that no longer have to be kept."
    expected = (StoreError,)

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="print one list of objects on standard output")

    def run(self, *, json: bool, **_: Any) -> int:
        now = timezone.now()
        overdue = imports.expire(now)
        pruned = retention.prune(now)
        pruned.imports = overdue
        if pruned:
            record.write(self.who(), "pruned", detail=pruned.sentence(), at=now)
        space = retention.space(now)
        if json:
            self.print_json([{**vars(pruned), "used_bytes": space.used, "free_bytes": space.free}])
            return 0
        self.stdout.write(pruned.sentence())
        self.stdout.write(f"The store uses {wording.size_text(space.used)}; {wording.size_text(space.free)} are free.")
        for holder in space.holders[:10]:
            self.stdout.write(f"{wording.size_text(holder.size_bytes):>9}  {holder.what}")
        return 0
