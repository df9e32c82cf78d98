"""`manage.py destination list|add|edit|remove|test`: what the pages of destinations do, for scripts."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandParser
from django.utils import timezone

from mirrors import destinations, push_rules, wording
from mirrors.destinations import DestinationError, UnknownDestination
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
from mirrors.mirror_rules import LARGEST_CA
from mirrors.mirroring import KEEP
from mirrors.models import Destination, PushRule
from mirrors.push_rules import PushRuleError
from mirrors.pushing import standing, trying
from mirrors.pushing.trying import Trial
from mirrors.rules import RuleBroken
from mirrors.secrets import SecretError

NEEDS_PUSH = (
    "--as, --tag, --no-extra-tags, --by-hand and --after-sync say how a mirror goes there: name it with --push."
)


class Command(PlainCommand):
    help = "List, add, edit, remove and test push destinations, and say which mirrors go there."
    expected = (DestinationError, PushRuleError, SecretError)

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="list|add|edit|remove|test")
        listing = actions.add_parser("list", help="what is pushed where, and how it stands")
        add_names(listing, "destinations; all of them if none is named")
        listing.add_argument("--json", action="store_true", help="print one list of objects on standard output")
        adding = actions.add_parser("add", help="push to a further registry")
        adding.add_argument("name", metavar="NAME")
        adding.add_argument("--to", required=True, metavar="HOST[:PORT][/PATH]", help="where, without https://")
        add_settings(adding)
        editing = actions.add_parser("edit", help="change what is named; the rest stays")
        editing.add_argument("name", metavar="NAME")
        editing.add_argument("--to", metavar="HOST[:PORT][/PATH]", help="another address; everything is pushed anew")
        editing.add_argument("--no-login", action="store_true", help="push without a login")
        editing.add_argument("--secure", action="store_true", help="take verified TLS only")
        add_settings(editing)
        editing.add_argument(
            "--unpush", nargs="+", action="extend", default=[], metavar="MIRROR", help="goes there no more"
        )
        state = editing.add_mutually_exclusive_group()
        state.add_argument("--enable", action="store_true", help="push there again")
        state.add_argument("--disable", action="store_true", help="push there no more; what is there stays")
        removing = actions.add_parser("remove", help="remove a destination with its rules and history")
        removing.add_argument("name", metavar="NAME")
        testing = actions.add_parser("test", help="log in, begin an upload, cancel it; leaves nothing there")
        add_names(testing, "destinations; all enabled ones if none is named")
        testing.add_argument("--json", action="store_true", help="print one list of objects on standard output")

    def run(self, *, action: str, **options: Any) -> int:
        try:
            return int(getattr(self, f"do_{action}")(**options))
        except (RuleBroken, UnknownDestination) as wrong:
            raise Problem(str(wrong), WRONG_USAGE) from None

    # The actions

    def do_list(self, *, names: list[str], json: bool, **_: Any) -> int:
        now = timezone.now()
        found = destinations_named(names)
        of = {destination.pk: [] for destination in found}  # type: dict[int, list[standing.Standing]]
        for each in standing.standings(list(PushRule.objects.for_pages().filter(destination__in=found)), now):
            of[each.rule.destination_id].append(each)
        if json:
            self.print_json(described(destination, of[destination.pk]) for destination in found)
            return 0
        if not found:
            self.stderr.write("There is no destination. Add one: manage.py destination add NAME --to HOST/PATH.")
        for destination in found:
            self.stdout.write(f"{destination.name}  {destination.address}{remarks(destination)}")
            for each in of[destination.pk]:
                rule = each.rule
                how = "" if rule.automatic else ", by hand"
                tags = f" {rule.extra_tags}" if rule.extra_tags else ""
                since = f" since {wording.utc_text(rule.pushed_at)}" if rule.pushed_at else ""
                said = f"; {each.sentence}" if each.sentence else ""
                self.stdout.write(f"  {rule.mirror.name} as {rule.target}{tags}{how}: {each.word}{since}{said}")
        return 0

    def do_add(self, *, name: str, **options: Any) -> int:
        check_rule_options(options)
        mirrors = mirrors_named(options["push"], enabled_only=False) if options["push"] else []
        destination = destinations.add_destination(name, self.wish(options), by=self.who(), now=timezone.now())
        self.stdout.write(f"Added {name}. Test it with: manage.py destination test {name}")
        self.push_there(destination, mirrors, options)
        return 0

    def do_edit(self, *, name: str, enable: bool, disable: bool, unpush: list[str], **options: Any) -> int:
        check_rule_options(options)
        mirrors = mirrors_named(options["push"], enabled_only=False) if options["push"] else []
        by, now = self.who(), timezone.now()
        changed = destinations.edit_destination(name, self.wish(options), by=by, now=now)
        said = list(changed.changes)
        if changed.stopped:
            said.append("The push under way was stopped; it begins again.")
        for mirror in unpush:
            push_rules.remove_rule(push_rules.find(mirror, name), by=by, now=now)
            said.append(f"{mirror} goes there no more.")
        if (enable or disable) and destinations.set_enabled(name, enable, by=by, now=now):
            said.append("Enabled." if enable else "Disabled.")
        for line in said:
            self.stdout.write(line)
        if not self.push_there(changed.destination, mirrors, options) and not said:
            self.stdout.write(f"Nothing to change: {name} is like that already.")
        return 0

    def do_remove(self, *, name: str, **_: Any) -> int:
        removal = destinations.remove_destination(name, by=self.who(), now=timezone.now())
        pushes = "1 push" if removal.runs == 1 else f"{removal.runs} pushes"
        self.stdout.write(
            f"Removed {name} with {wording.counted(removal.rules, 'rule')} and {pushes} of history. "
            "What was pushed there is still there."
        )
        return 0

    def do_test(self, *, names: list[str], json: bool, **_: Any) -> int:
        objects, good = [], True
        found = [each for each in destinations_named(names) if names or each.enabled]
        for destination in found:
            trials = trying.try_destination(destination)
            good = good and all(trial.ok for trial in trials)
            objects.append(tested(destination, trials))
            if not json:
                self.tell_test(destination, trials)
        if json:
            self.print_json(objects)
        elif not found:
            self.stderr.write(
                "There is no enabled destination. Add one: manage.py destination add NAME --to HOST/PATH."
            )
        return 0 if objects and good else FAILED

    def tell_test(self, destination: Destination, trials: list[Trial]) -> None:
        self.stdout.write(destination.name)
        for trial in trials:
            said = "we may push there" if trial.ok else trial.error
            self.stdout.write(
                f"  {'ok    ' if trial.ok else 'FAILED'}  {destination.registry}/{trial.repository}: {said}"
            )

    # Reading the command line

    def wish(self, options: dict[str, Any]) -> destinations.Wish:
        """What was asked for; what was not named stays as it is."""
        check_login_options(options)
        asked: dict[str, Any] = {}
        if options["to"] is not None:
            asked["address"] = options["to"]
        for name in ("label", "proxy"):
            if options[name] is not None:
                asked[name] = options[name]
        if options["ca"] is not None:
            asked["ca_pem"] = read_text(options["ca"], "CA file", LARGEST_CA) if options["ca"] else ""
        if options["insecure"] or options.get("secure"):
            asked["insecure"] = options["insecure"]
        if has_login(options) or options.get("no_login"):
            asked["login"] = login_from(options)
        return destinations.Wish(**asked)

    def push_there(self, destination: Destination, mirrors: list[Any], options: dict[str, Any]) -> int:
        """Make or change the rules for the mirrors named; how many lines it had to say."""
        wish = push_rules.Wish(
            target=options["target"] if options["target"] is not None else KEEP,
            extra_tags="" if options["no_extra_tags"] else " ".join(options["tags"]) if options["tags"] else KEEP,
            automatic=False if options["by_hand"] else True if options["after_sync"] else KEEP,
        )
        by, now, told = self.who(), timezone.now(), 0
        for mirror in mirrors:
            rule = PushRule.objects.for_pages().filter(mirror=mirror, destination=destination).first()
            if rule is None:
                rule = push_rules.add_rule(destination, mirror, wish, by=by, now=now)
                lines = [f"{mirror.name} goes there as {rule.target}{'' if rule.automatic else ', by hand only'}."]
            else:
                lines = [f"{mirror.name}: {change}" for change in push_rules.edit_rule(rule, wish, by=by, now=now)]
            for line in lines:
                self.stdout.write(line)
            told += len(lines)
        return told


def add_settings(parser: ArgumentParser) -> None:
    parser.add_argument("--label", help="what people read")
    add_login_options(parser, "this destination's")
    parser.add_argument(
        "--ca", metavar="FILE", help='PEM file of certificates to trust beside the system\'s; "" for none'
    )
    parser.add_argument("--insecure", action="store_true", help="take plain HTTP or an unverified certificate")
    parser.add_argument("--proxy", metavar="URL", help='http://host:port; "" for the environment\'s')
    parser.add_argument(
        "--push", nargs="+", action="extend", default=[], metavar="MIRROR", help="mirrors that go there from now on"
    )
    parser.add_argument(
        "--as", dest="target", metavar="PATH:TAG", help="under which name: a template such as trivy-db-mirror:{tag}"
    )
    tags = parser.add_mutually_exclusive_group()
    tags.add_argument(
        "--tag",
        dest="tags",
        nargs="+",
        action="extend",
        metavar="TAG",
        help="further tags, such as latest {tag}-{date}",
    )
    tags.add_argument("--no-extra-tags", action="store_true", help="no further tags")
    when = parser.add_mutually_exclusive_group()
    when.add_argument("--after-sync", action="store_true", help="push after every successful sync (usual)")
    when.add_argument("--by-hand", action="store_true", help="push only when told to")


def check_rule_options(options: dict[str, Any]) -> None:
    named = options["target"] is not None or options["tags"] or options["no_extra_tags"]
    if (named or options["by_hand"] or options["after_sync"]) and not options["push"]:
        raise Problem(NEEDS_PUSH, WRONG_USAGE)


def destinations_named(names: list[str]) -> list[Destination]:
    """The destinations in the order named, or all. Raises Problem for a name there is none of."""
    every = {destination.name: destination for destination in Destination.objects.in_order()}
    unknown = [name for name in names if name not in every]
    if unknown:
        known = ", ".join(every) or "none"
        raise Problem(f"There is no destination named {', '.join(unknown)}. Destinations here: {known}.", WRONG_USAGE)
    return [every[name] for name in dict.fromkeys(names)] if names else list(every.values())


def remarks(destination: Destination) -> str:
    words = [
        destination.login_text,
        "unverified" * destination.insecure,
        "own CA" * bool(destination.ca_pem),
        "disabled" * (not destination.enabled),
    ]
    said = ", ".join(filter(None, words))
    return f"  ({said})" if said else ""


def described(destination: Destination, found: list[standing.Standing]) -> dict[str, Any]:
    """One destination for programs; never a secret."""
    return {
        "destination": destination.name,
        "label": destination.label,
        "address": destination.address,
        "enabled": destination.enabled,
        "insecure": destination.insecure,
        "ca": bool(destination.ca_pem),
        "proxy": destination.proxy,
        "login": destination.login,
        "username": destination.username,
        "asked_at": destination.asked_at,
        "answered_at": destination.answered_at,
        "error": destination.error,
        "mirrors": [
            {
                "mirror": each.rule.mirror.name,
                "target": each.rule.target,
                "extra_tags": each.rule.extra_tags.split(),
                "automatic": each.rule.automatic,
                "state": each.state,
                "sentence": each.sentence,
                "reference": each.rule.pushed_reference or None,
                "digest": each.rule.pushed_digest or None,
                "pushed_at": each.rule.pushed_at,
                "failures": each.rule.failures,
                "error": each.rule.last_error,
                "next_try_at": each.rule.next_try_at,
            }
            for each in found
        ],
    }


def tested(destination: Destination, trials: list[Trial]) -> dict[str, Any]:
    return {
        "destination": destination.name,
        "ok": bool(trials) and all(trial.ok for trial in trials),
        "repositories": [
            {
                "repository": trial.repository,
                "ok": trial.ok,
                "error": trial.error,
                "seconds": round(trial.seconds, 3),
                "hosts": [{"host": hop.host, "address": hop.address, "status": hop.status} for hop in trial.hops],
            }
            for trial in trials
        ],
    }
