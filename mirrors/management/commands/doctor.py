"""`manage.py doctor [ADDRESS]`: what a Trivy would trip over at a registry or a VEX repository."""

from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser
from django.utils import timezone

from mirrors import checkup, use_it
from mirrors import mirror_rules as rules
from mirrors.doctor import EVERYTHING, AddressError, Finding, Options, Report
from mirrors.management.commanding import (
    FAILED,
    WRONG_USAGE,
    PlainCommand,
    Problem,
    password_from_stdin,
    read_text,
)
from mirrors.mirror_rules import RuleBroken
from mirrors.registry.transport import Connection

SECONDS, WHOLE_SECONDS = 60.0, 3600.0


class Command(PlainCommand):
    help = (
        "Ask a registry or a VEX repository what Trivy would ask, and name what a Trivy there would trip over. "
        "Exit status: 0 nothing stops a Trivy, 1 something does or time was up, 2 wrong usage."
    )
    requires_migrations_checks = False

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "address",
            nargs="?",
            default="",
            metavar="ADDRESS",
            help="host[:port], host/path[:tag], or the http(s) address of a VEX repository; this instance if left out",
        )
        parser.add_argument("--ca", metavar="FILE", help="certificates that scanners trust beside the system's")
        parser.add_argument(
            "--username", default="", metavar="USER", help="a login; its password with --password-stdin"
        )
        parser.add_argument("--password-stdin", action="store_true", help="read the password from standard input")
        parser.add_argument("--token-stdin", action="store_true", help="read a token from it, sent as Bearer")
        parser.add_argument("--whole", action="store_true", help="read layers of any size, to see when they were built")
        parser.add_argument("--seconds", type=float, metavar="N", help="give up after so many (60; with --whole 3600)")
        parser.add_argument("--json", action="store_true", help="one list of objects on stdout")

    def run(self, **options: Any) -> int:
        name, port = settings.AIRGAP_BIND
        here = use_it.instance_for("https" if settings.AIRGAP_TLS_CERT else "http", f"{name}:{port}")
        try:
            targets = checkup.targets_for(options["address"], here)
        except AddressError as error:
            raise Problem(str(error), WRONG_USAGE) from None
        seconds = options["seconds"] or (WHOLE_SECONDS if options["whole"] else SECONDS)
        asked = Options(self._connection(options))
        if options["whole"]:
            asked = Options(asked.connection, EVERYTHING)
        reports = checkup.examined(
            options["address"], targets, asked, by=self.who(), now=timezone.now(), seconds=seconds
        )
        if options["json"]:
            self.print_json(_object(report) for report in reports)
        else:
            self._tell(reports)
        return FAILED if any(report.stops or not report.is_complete for report in reports) else 0

    def _connection(self, options: dict[str, Any]) -> Connection:
        if bool(options["username"]) != options["password_stdin"] or (options["username"] and options["token_stdin"]):
            raise Problem("Give --username with --password-stdin, or --token-stdin alone.", WRONG_USAGE)
        try:
            ca_pem = rules.checked_ca(read_text(options["ca"], "CA file", rules.LARGEST_CA)) if options["ca"] else ""
        except RuleBroken as broken:
            raise Problem(str(broken), WRONG_USAGE) from None
        return Connection(
            ca_pem=ca_pem,
            username=options["username"],
            password=password_from_stdin() if options["password_stdin"] else "",
            token=password_from_stdin("token") if options["token_stdin"] else "",
        )

    def _tell(self, reports: list[Report]) -> None:
        for report in reports:
            self.stdout.write(report.address)
            for finding in report.findings:
                self.stdout.write(f"  {finding.level:<5}  {finding.came}")
                for line in (finding.asked, finding.trivy, finding.cure):
                    if line:
                        self.stdout.write(f"         {line}")
        self.stdout.write(checkup.headline(reports))


def _object(report: Report) -> dict[str, Any]:
    return {
        "address": report.address,
        "level": report.worst,
        "hosts": list(report.hosts),
        "findings": [_finding(finding) for finding in report.findings],
    }


def _finding(finding: Finding) -> dict[str, str]:
    return {
        "code": finding.code,
        "level": finding.level,
        "asked": finding.asked,
        "came": finding.came,
        "trivy": finding.trivy,
        "cure": finding.cure,
    }
