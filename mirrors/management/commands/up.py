"""`manage.py up`: prepare the data directory, then run everything in the foreground until a signal comes."""

import os
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core import checks
from django.core.management import BaseCommand, call_command
from django.db import connection, connections
from django.db.migrations.executor import MigrationExecutor
from django.db.utils import OperationalError
from django.utils import timezone

from airgap.running import backup, broker, preconditions, start
from airgap.running.preconditions import CannotStart
from airgap.running.programs import Instance
from airgap.running.runner import Runner, wait_for_previous
from mirrors.first_start import FirstStart, first_start


class Command(BaseCommand):
    help = "Prepare the data directory and run web, worker, scheduler and broker until SIGINT or SIGTERM."
    # They run below, after the questions whose answers are one sentence each.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--demo", action="store_true", help="mirror a small upstream of its own on loopback")
        parser.add_argument(
            "--prepare", action="store_true", help="only prepare the data directory, before services start"
        )

        parser.add_argument(
            "--only",
            choices=["web", "worker", "scheduler"],
            help="become this one program (for containers; see deploy/)",
        )

    def handle(
        self, *args: Any, demo: bool = False, prepare: bool = False, only: str | None = None, **options: Any
    ) -> None:
        if demo and not os.environ.get("AIRGAP_DATA_DIR", "").strip():
            # Settings are read already; a process that starts with the variable set reads them right.
            os.environ["AIRGAP_DATA_DIR"] = str(settings.BASE_DIR / "data-demo")
            os.execv(sys.executable, [sys.executable, *sys.argv])
        if only:
            program = start.one_program(Instance.from_settings(settings), only)
            os.environ["DJANGO_SETTINGS_MODULE"] = "airgap.settings"
            os.chdir(settings.BASE_DIR)
            os.execv(program.argv[0], program.argv)
        try:
            self.up(Instance.from_settings(settings), demo=demo, prepare=prepare)
        except CannotStart as problem:
            self.stderr.write(str(problem))
            sys.exit(1)

    def up(self, instance: Instance, *, demo: bool, prepare: bool) -> None:
        # For all processes below: also in a directory that others may enter, database and logs are closed to them.
        os.umask(os.umask(0o077) | 0o007)
        preconditions.prepare_data_directory(instance.data)
        with preconditions.only_instance(instance.data):
            wait_for_previous(instance, self.say)
            if not prepare:
                preconditions.require_port(instance.host, instance.port)
            upstream = start.demo_port(instance) if demo else None
            programs = start.all_programs(instance, upstream_port=upstream)
            self.complain()
            first = self.prepare_database(upstream)
            start.gather_static_files(settings.STATICFILES_DIRS, Path(settings.STATIC_ROOT), settings.VERSION)
            connections.close_all()
            if prepare:
                return
            Runner(instance, programs, self.say, lambda: self.greet(instance, first)).run()
            if instance.socket is not None:
                broker.forget_socket_folder(instance.socket, instance.data)

    def complain(self) -> None:
        """Every finding of the system checks as one line; an error ends the start."""
        found = [message for message in checks.run_checks() if not message.is_silenced()]
        for message in found:
            self.stderr.write(" ".join(filter(None, [f"{message.id}:", message.msg, message.hint])))
        if any(message.is_serious() for message in found):
            raise CannotStart("Airgap was not started; mend the errors above first.")

    def prepare_database(self, upstream: int | None) -> FirstStart:
        try:
            self.back_up()
            call_command("migrate", interactive=False, verbosity=0)
        except OperationalError as error:
            # The driver's text names host and user, never the password.
            reason = " ".join(str(error).split())
            raise CannotStart(
                f"The database cannot be used ({reason}). Check DATABASE_URL, or unset it to use SQLite."
            ) from None
        return first_start(demo_upstream=f"127.0.0.1:{upstream}" if upstream else None)

    def back_up(self) -> None:
        """Before migrations change a database that holds something. A new one has nothing to lose."""
        executor = MigrationExecutor(connection)
        applied = executor.loader.applied_migrations
        self.require_known(executor)
        pending = executor.migration_plan(executor.loader.graph.leaf_nodes())
        if not applied or not pending or not settings.AIRGAP_BACKUP:
            return
        stands_at = max((name for app, name in applied if app == "mirrors"), default="before")
        copy = backup.back_up(settings.DATABASES["default"], settings.AIRGAP_DATA_DIR, stands_at, timezone.now())
        self.say(f"This version changes the database; a copy of it as it was: {copy}")

    def require_known(self, executor: MigrationExecutor) -> None:
        """Refuse a database that a newer version has changed: this one does not know what must be filled or removed."""
        newest = max(name for app, name in executor.loader.disk_migrations if app == "mirrors")
        newer = sorted(name for app, name in executor.loader.applied_migrations if app == "mirrors" and name > newest)
        if newer:
            raise CannotStart(
                f"A newer version of Airgap changed this database ({newer[-1]}), and {settings.VERSION} does not know "
                "how. Start the newer one, or first put back the copy that it made in backups/ (docs/offline-kit.md)."
            )

    def greet(self, instance: Instance, first: FirstStart) -> None:
        self.say(f"Airgap is running at {instance.url}")
        if first.admin_password_file is not None:
            # A log or a pipe keeps what it is told; a person at a terminal does not.
            password = f"{first.password}, also kept" if first.password and sys.stdout.isatty() else "kept"
            self.say(f"Log in as admin; first password: {password} in {first.admin_password_file}")
        self.say("Stop it with Ctrl-C.")

    def say(self, line: str) -> None:
        try:
            self.stdout.write(line)
            self.stdout.flush()
        except OSError:
            # Whoever read our output has gone; that is no reason to stop.
            pass
