"""`manage.py site list|add|edit|remove|mark`: what the pages of sites do, for scripts."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandParser
from django.utils import timezone

from mirrors import clock, site_standing, sites, transfers, wording
from mirrors.management.commanding import WRONG_USAGE, PlainCommand, Problem, add_names
from mirrors.mirroring import KEEP
from mirrors.models import Site, Transfer
from mirrors.rules import RuleBroken
from mirrors.site_standing import HoldingStanding, SiteStanding
from mirrors.sites import SiteError, UnknownSite
from mirrors.transfers import TransferError


class Command(PlainCommand):
    help = "List, add, edit and remove sites, and mark what became of a bundle carried there."
    expected = (SiteError, TransferError)

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="list|add|edit|remove|mark")
        listing = actions.add_parser("list", help="how old each database is at each site")
        add_names(listing, "sites, by name or code; all of them if none is named")
        listing.add_argument("--json", action="store_true", help="print one list of objects on standard output")
        adding = actions.add_parser("add", help="a further network that bundles are carried to")
        adding.add_argument("name", metavar="NAME")
        add_settings(adding)
        editing = actions.add_parser("edit", help="change what is named; the rest stays")
        editing.add_argument("name", metavar="NAME")
        add_settings(editing)
        removing = actions.add_parser("remove", help="remove a site with its transfers")
        removing.add_argument("name", metavar="NAME")
        marking = actions.add_parser("mark", help="say by hand what became of a transfer")
        marking.add_argument("transfer", metavar="BUNDLE", help="the bundle's or the transfer's id")
        what = marking.add_mutually_exclusive_group(required=True)
        what.add_argument("--carried", action="store_true", help="it has left the house")
        what.add_argument("--received", action="store_true", help="it arrived and was taken in")
        what.add_argument("--rejected", metavar="WHY", help="it was refused or lost, and why")
        what.add_argument("--take-back", action="store_true", help="the last mark was a mistake")
        marking.add_argument("--reference", metavar="TEXT", help="with --carried: a form number, a media label")

    def run(self, *, action: str, **options: Any) -> int:
        try:
            return int(getattr(self, f"do_{action}")(**options))
        except (RuleBroken, UnknownSite) as wrong:
            raise Problem(str(wrong), WRONG_USAGE) from None

    def do_list(self, *, names: list[str], json: bool, **_: Any) -> int:
        chosen = list(dict.fromkeys(sites.find(name) for name in names)) if names else list(Site.objects.in_order())
        found = site_standing.standings(chosen, clock.trusted_now())
        if json:
            self.print_json(described(each) for each in found)
            return 0
        if not found:
            self.stderr.write("There is no site. Add one: manage.py site add NAME.")
        for each in found:
            site = each.site
            back = "" if site.expects_receipts else ", no receipts"
            self.stdout.write(f"{site.name}  {site.label} ({site.code}{back}): {each.look.word}, {each.summary}")
            for row in each.held:
                state = row.verdict.state if row.verdict is not None else ""
                current = {True: "as here", False: "newer here", None: "nothing here"}[row.is_current]
                self.stdout.write(f"  {row.mirror_name}: {row.age_text}, {state}; {row.evidence}; {current}")
        return 0

    def do_add(self, *, name: str, **options: Any) -> int:
        site = sites.add_site(name, wish(options), by=self.who(), now=timezone.now())
        self.stdout.write(
            f"Added {name} with the code {site.code}. Its first bundle: manage.py export_bundle --site {name} "
            "--output FILE"
        )
        return 0

    def do_edit(self, *, name: str, **options: Any) -> int:
        _, changes = sites.edit_site(sites.find(name).name, wish(options), by=self.who(), now=timezone.now())
        for line in changes or (f"Nothing to change: {name} is like that already.",):
            self.stdout.write(line)
        return 0

    def do_remove(self, *, name: str, **_: Any) -> int:
        removal = sites.remove_site(name, by=self.who(), now=timezone.now())
        self.stdout.write(
            f"Removed {name} with {wording.counted(removal.transfers, 'transfer')}. What is there is still there."
        )
        return 0

    def do_mark(
        self,
        *,
        transfer: str,
        carried: bool,
        received: bool,
        rejected: str | None,
        take_back: bool,
        reference: str | None,
        **_: Any,
    ) -> int:
        if reference is not None and not carried:
            raise Problem("--reference goes with --carried.", WRONG_USAGE)
        pk, by, now = transfers.find(transfer).pk, self.who(), timezone.now()
        if carried:
            marked = transfers.mark_carried(pk, reference=reference, by=by, now=now)
        elif received:
            marked = transfers.mark_received(pk, by=by, now=now)
        elif take_back:
            marked = transfers.take_back(pk, by=by, now=now)
        else:
            marked = transfers.mark_rejected(pk, reason=rejected or "", by=by, now=now)
        self.stdout.write(f"{marked.bundle.filename} to {marked.site.label}: {marked.state}.")
        return 0


def add_settings(parser: ArgumentParser) -> None:
    parser.add_argument("--label", help="what people read")
    parser.add_argument("--code", help="what bundles and receipts call it; made of the name if not given")
    parser.add_argument("--receipts", choices=Site.Receipts.values, help="whether receipts come back from there")
    parser.add_argument("--courier-days", metavar="N", help='how often a courier goes there; "" for as everywhere')
    parser.add_argument("--notes", help="for people here; in no bundle")


def wish(options: dict[str, Any]) -> sites.Wish:
    """What was asked for; what was not named stays as it is."""
    days = options["courier_days"]
    if days and not days.isdecimal():
        raise RuleBroken("courier_days", f"--courier-days takes a number of days, not {days[:20]!r}.")
    return sites.Wish(
        label=KEEP if options["label"] is None else options["label"],
        code=KEEP if options["code"] is None else options["code"],
        receipts=KEEP if options["receipts"] is None else options["receipts"],
        courier_days=KEEP if days is None else int(days) if days else None,
        notes=KEEP if options["notes"] is None else options["notes"],
    )


def described(found: SiteStanding) -> dict[str, Any]:
    """One site for programs; never a secret."""
    site = found.site
    return {
        "site": site.name,
        "code": site.code,
        "label": site.label,
        "receipts": site.receipts,
        "courier_days": site.courier_days,
        "state": found.look.state,
        "assumed": found.is_assumed,
        "open_transfers": found.open_transfers,
        "last_transfer": _transfer(found.last_transfer),
        "databases": [_database(row) for row in found.held],
    }


def _database(row: HoldingStanding) -> dict[str, Any]:
    holding, verdict = row.holding, row.verdict
    if holding is None or verdict is None:
        return {}
    return {
        "mirror": row.mirror_name,
        "state": verdict.state,
        "age_seconds": int(verdict.age.total_seconds()) if verdict.age is not None else None,
        "updated_at": holding.updated_at,
        "confirmed_at": holding.confirmed_at,
        "digest": holding.digest,
        "evidence": holding.evidence,
        "since": holding.since,
        "is_current": row.is_current,
    }


def _transfer(transfer: Transfer | None) -> dict[str, Any] | None:
    if transfer is None:
        return None
    return {
        "transfer": transfer.pk,
        "bundle": transfer.bundle_id,
        "state": transfer.state,
        "evidence": transfer.evidence or None,
        "reference": transfer.reference,
        "prepared_at": transfer.prepared_at,
        "carried_at": transfer.carried_at,
        "closed_at": transfer.closed_at,
        "reason": transfer.reason,
    }
