"""`manage.py mirror list|add|edit|remove|test`: what the settings pages do, for scripts."""

from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser
from django.utils import timezone

from mirrors import connections, mirror_rules, mirroring, served_names, wording
from mirrors.connections import OutboundRefused, SourceReport
from mirrors.management.commanding import (
    FAILED,
    WRONG_USAGE,
    PlainCommand,
    Problem,
    add_names,
    mirrors_named,
    read_text,
)
from mirrors.management.logging_in import add_login_options, check_login_options, has_login, login_from
from mirrors.mirror_rules import LARGEST_CA, RuleBroken, SourceSpec
from mirrors.mirroring import MirroringError, Settings, UnknownMirror
from mirrors.models import Mirror
from mirrors.registry.errors import Hop
from mirrors.schedule import Schedule
from mirrors.secrets import SecretError
from mirrors.standing import by_courier
from mirrors.trivy.catalogue import KINDS

OUTSIDE = "--insecure, --ca and logins hold for the sources named in the same call: name them with --source."


class Command(PlainCommand):
    help = "List, add, edit, remove and test mirrors."
    expected = (MirroringError, OutboundRefused, SecretError)

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="list|add|edit|remove|test")
        listing = actions.add_parser("list", help="what is mirrored, from where, and when next")
        add_names(listing)
        listing.add_argument("--json", action="store_true", help="print one list of objects on standard output")
        adding = actions.add_parser("add", help="mirror something new")
        adding.add_argument("name", metavar="NAME")
        adding.add_argument("--kind", required=True, choices=list(KINDS))
        add_settings(adding, sources_required=True)
        editing = actions.add_parser("edit", help="change what is named; the rest stays")
        editing.add_argument("name", metavar="NAME")
        editing.add_argument("--kind", choices=list(KINDS), help="only while nothing is held")
        add_settings(editing, sources_required=False)
        state = editing.add_mutually_exclusive_group()
        state.add_argument("--enable", action="store_true", help="sync it again")
        state.add_argument("--disable", action="store_true", help="sync it no more; what is held stays")
        removing = actions.add_parser("remove", help="remove a mirror with its snapshots and history")
        removing.add_argument("name", metavar="NAME")
        removing.add_argument(
            "--expire-bundles", action="store_true", help="also when bundles that can still be downloaded contain it"
        )
        testing = actions.add_parser(
            "test", help="ask every source for its manifest and one byte; ends with the firewall allow-list"
        )
        add_names(testing)
        testing.add_argument("--json", action="store_true", help="print one list of objects on standard output")

    def run(self, *, action: str, **options: Any) -> int:
        try:
            return int(getattr(self, f"do_{action}")(**options))
        except served_names.Taken as taken:
            raise Problem(str(taken)) from None
        except RuleBroken as broken:
            raise Problem(str(broken), WRONG_USAGE) from None
        except UnknownMirror as unknown:
            raise Problem(str(unknown), WRONG_USAGE) from None

    # The actions

    def do_list(self, *, names: list[str], json: bool, **_: Any) -> int:
        mirrors = mirrors_named(names, enabled_only=False)
        if json:
            self.print_json(described(mirror) for mirror in mirrors)
            return 0
        if not mirrors:
            isolated = settings.AIRGAP_SIDE == "isolated"
            add = "mirror add NAME --kind KIND --source REF"
            hint = (
                "They come with the bundles: manage.py import_bundle FILE" if isolated else f"Add one: manage.py {add}"
            )
            self.stderr.write(f"There is no mirror. {hint}.")
        now = timezone.now()
        for mirror in mirrors:
            sources = list(mirror.sources.all())
            upcoming = f"next {wording.in_text(mirror.next_sync_at, now)}" if mirror.next_sync_at else ""
            state = upcoming if mirror.enabled else "disabled"
            comes = by_courier(bool(sources))
            rhythm = "comes with bundles" if comes else Schedule.parse(mirror.schedule_text).sentence()
            what = f"{mirror.kind} {mirror.version}".strip()
            self.stdout.write(f"{mirror.name}  ({what}, {rhythm}{', ' + state if state else ''})")
            for source in sources:
                self.stdout.write(f"  {source.reference}{remarks(source.insecure, source.ca_pem, source.login_text)}")
            if mirror.served_repository:
                self.stdout.write(f"  served as {mirror.served_repository}:{mirror.served_tag}")
        return 0

    def do_add(self, *, name: str, **options: Any) -> int:
        mirror = mirroring.add_mirror(name, self.wish(options), by=self.who(), now=timezone.now())
        by_hand = mirror.next_sync_at is None
        first = f"Sync it with: manage.py sync {name}" if by_hand else "Its first sync is due now."
        self.stdout.write(f"Added {name}. {first}")
        return 0

    def do_edit(self, *, name: str, enable: bool, disable: bool, **options: Any) -> int:
        by, now = self.who(), timezone.now()
        edited = mirroring.edit_mirror(name, self.wish(options), by=by, now=now)
        for change in edited.changes:
            self.stdout.write(change)
        if edited.gone:
            self.stderr.write(edited.gone)
        if edited.stopped_runs:
            self.stdout.write("The run under way was stopped; a new one is due now.")
        switched = (enable or disable) and mirroring.set_enabled(name, enable, by=by, now=now)
        if switched:
            self.stdout.write("Enabled." if enable else "Disabled.")
        if not edited.changes and not switched:
            self.stdout.write(f"Nothing to change: {name} is like that already.")
        return 0

    def do_remove(self, *, name: str, expire_bundles: bool, **_: Any) -> int:
        removal = mirroring.remove_mirror(name, by=self.who(), now=timezone.now(), expire_bundles=expire_bundles)
        gone = [wording.counted(removal.snapshots, "snapshot"), wording.counted(removal.runs, "run")]
        if removal.bundles:
            gone.append(f"{wording.counted(len(removal.bundles), 'bundle')} (expired)")
        self.stdout.write(f"Removed {name} with {wording.joined(gone)}.")
        return 0

    def do_test(self, *, names: list[str], json: bool, **_: Any) -> int:
        everything: list[SourceReport] = []
        objects = []
        for mirror in mirrors_named(names):
            reports = connections.try_mirror(mirror)
            everything += reports
            objects.append(tested(mirror, reports))
            if not json:
                self.tell_test(mirror, reports)
        if json:
            self.print_json(objects)
        else:
            self.tell_allow_list(everything)
        return 0 if everything and all(report.ok for report in everything) else FAILED

    # Telling

    def tell_test(self, mirror: Mirror, reports: list[SourceReport]) -> None:
        self.stdout.write(mirror.name)
        for report in reports:
            said = report.offers if report.ok else " ".join(filter(None, (report.error, report.advice)))
            self.stdout.write(f"  {'ok    ' if report.ok else 'FAILED'}  {report.reference}: {said}")
            for hop in report.hops:
                self.stdout.write(f"          {told_hop(hop)}")

    def tell_allow_list(self, reports: list[SourceReport]) -> None:
        gates = connections.allow_list(reports)
        if not gates:
            asked = "No source needs the firewall." if reports else "No source was asked."
            self.stderr.write(asked)
            return
        self.stdout.write("")
        self.stdout.write("Firewall: let this machine out to")
        for gate in gates:
            self.stdout.write(f"  {gate.host}{f'  ({gate.remark})' if gate.remark else ''}")

    # Reading the command line

    def wish(self, options: dict[str, Any]) -> Settings:
        """What was asked for; what was not named stays as it is."""
        asked = {
            name: options[name]
            for name in ("kind", "label", "schedule", "proxy", "keep", "version")
            if options[name] is not None
        }
        for limit in ("due", "stale", "expired"):
            if options[limit] is not None:
                asked[limit] = mirror_rules.checked_duration(options[limit], limit)
        if options["platforms"] is not None:
            asked["platforms"] = [name for text in options["platforms"] for name in text.split(",")]
        if options["served_as"] is not None:
            asked["served_as"] = options["served_as"]
        if options["referrers"] is not None:
            asked["with_referrers"] = options["referrers"]
        if options["first"] or options["after"]:
            asked["after"] = None if options["first"] else options["after"]
        sources = self.sources(options)
        if sources is not None:
            asked["sources"] = sources
        return Settings(**asked)

    def sources(self, options: dict[str, Any]) -> list[SourceSpec] | None:
        check_login_options(options)
        if not options["sources"]:
            if options["insecure"] or options["ca"] or has_login(options):
                raise Problem(OUTSIDE, WRONG_USAGE)
            return None
        ca_pem = read_ca(options["ca"]) if options["ca"] else ""
        login = login_from(options)
        return [SourceSpec(reference, options["insecure"], ca_pem, login) for reference in options["sources"]]


def add_settings(parser: ArgumentParser, *, sources_required: bool) -> None:
    parser.add_argument(
        "--source",
        dest="sources",
        metavar="REF",
        nargs="+",
        action="extend",
        required=sources_required,
        help="where from, in order: host[:port]/path[:tag|@sha256:…], for vex and release an address; the whole list",
    )
    parser.add_argument("--schedule", help='6h, 90m, 1d, a cron line in UTC such as "0 6 * * *", or manual')
    parser.add_argument("--insecure", action="store_true", help="take plain HTTP or an unverified certificate")
    parser.add_argument("--ca", metavar="FILE", help="PEM file of certificates to trust beside the system's")
    add_login_options(parser)
    parser.add_argument("--proxy", metavar="URL", help='http://host:port; "" for the environment\'s')
    parser.add_argument("--label", help="what people read on the dashboard")
    parser.add_argument("--due", metavar="AGE", help='limits of freshness such as 9h or 7d; "" for the kind\'s own')
    parser.add_argument("--stale", metavar="AGE")
    parser.add_argument("--expired", metavar="AGE")
    parser.add_argument("--keep", type=int, metavar="N", help="how many snapshots are kept")
    parser.add_argument(
        "--served-as", metavar="REPOSITORY[:TAG]", help='its name under /v2/; "" for mirrors/NAME and the source\'s tag'
    )
    parser.add_argument(
        "--platform",
        dest="platforms",
        metavar="PLATFORM",
        nargs="+",
        action="extend",
        help='of an image: linux/amd64 …, "" for all; of release files: Linux-64bit Linux-64bit.deb …',
    )
    parser.add_argument(
        "--version",
        metavar="V",
        help="of release files: latest, or one such as 0.74.0 (0.74.0@sha256:… with that checksum file only)",
    )
    referrers = parser.add_mutually_exclusive_group()
    referrers.add_argument(
        "--referrers", action="store_true", default=None, help="of an OCI artifact: with signatures and SBOMs"
    )
    referrers.add_argument("--no-referrers", dest="referrers", action="store_false", default=None)
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--first", action="store_true", help="stands first in lists")
    place.add_argument("--after", metavar="NAME", help="stands behind this mirror in lists")


def read_ca(path: str) -> str:
    return read_text(path, "CA file", LARGEST_CA)


def remarks(insecure: bool, ca_pem: str, login: str) -> str:
    words = ["unverified"] * insecure + ["own CA"] * bool(ca_pem) + [login] * bool(login)
    return f"  ({', '.join(words)})" if words else ""


def told_hop(hop: Hop) -> str:
    """One host met, in a line."""
    words = [f"{hop.host} [{hop.address}]" if hop.address else hop.host]
    if hop.proxy:
        words.append(f"through the proxy {hop.proxy}")
    if hop.scheme == "http":
        words.append("plain HTTP")
    elif hop.issuer:
        words.append(f"certificate by {hop.issuer}")
        if hop.not_after:
            words.append(f"valid until {hop.not_after:%Y-%m-%d}")
    return ", ".join(words)


def described(mirror: Mirror) -> dict[str, Any]:
    """One mirror for programs; never a password."""
    return {
        "mirror": mirror.name,
        "kind": mirror.kind,
        "label": mirror.label,
        "enabled": mirror.enabled,
        "held": mirror.is_held,
        "schedule": mirror.schedule_text,
        "next_sync_at": mirror.next_sync_at,
        "proxy": mirror.proxy,
        "platforms": mirror.platforms,
        "referrers": mirror.with_referrers,
        "version": mirror.version,
        "keep": mirror.kept_snapshots,
        "served_repository": mirror.served_repository or None,
        "served_tag": mirror.served_tag or None,
        "sources": [
            {
                "reference": source.reference,
                "insecure": source.insecure,
                "ca": bool(source.ca_pem),
                "login": source.login,
                "username": source.username,
                "asked_at": source.asked_at,
                "answered_at": source.answered_at,
                "error": source.error,
                "lagging": source.lagging,
            }
            for source in mirror.sources.all()
        ],
    }


def tested(mirror: Mirror, reports: list[SourceReport]) -> dict[str, Any]:
    return {
        "mirror": mirror.name,
        "kind": mirror.kind,
        "ok": bool(reports) and all(report.ok for report in reports),
        "sources": [
            {
                "reference": report.reference,
                "ok": report.ok,
                "offers": report.offers,
                "error": report.error,
                "failed_host": report.failed_host,
                "advice": report.advice,
                "seconds": round(report.seconds, 3),
                "hops": [
                    {
                        "host": hop.host,
                        "scheme": hop.scheme,
                        "address": hop.address,
                        "proxy": hop.proxy,
                        "issuer": hop.issuer,
                        "not_after": hop.not_after,
                        "status": hop.status,
                    }
                    for hop in report.hops
                ],
            }
            for report in reports
        ],
        "allow": [gate.host for gate in connections.allow_list(reports)],
    }
