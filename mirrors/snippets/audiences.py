"""Who reads which snippets."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mirrors.snippets import by_hand, ci, command_line, harbor, kubernetes, server
from mirrors.snippets.instance import Instance
from mirrors.snippets.snippet import Snippet


@dataclass(frozen=True)
class Audience:
    """`snippets` is empty for those whose page is no list of snippets."""

    key: str
    label: str
    about: str
    snippets: Callable[[Instance], Iterator[Snippet]] = lambda instance: iter(())


AUDIENCES: dict[str, Audience] = {
    audience.key: audience
    for audience in (
        Audience(
            "cli", "Command line", "A Trivy that somebody starts, or that a script starts.", command_line.snippets
        ),
        Audience("ci", "CI", "Jobs on GitHub and GitLab.", ci.snippets),
        Audience(
            "server",
            "Trivy server",
            "One Trivy holds the vulnerability DB, clients send it what they found.",
            server.snippets,
        ),
        Audience("kubernetes", "Kubernetes", "The Trivy Operator scans what runs in a cluster.", kubernetes.snippets),
        Audience("harbor", "Harbor", "Harbor scans what lies in it.", harbor.snippets),
        Audience("by-hand", "By hand", "A cache directory is filled, and scanners ask nobody.", by_hand.snippets),
        Audience("compare", "Pull or fill", "Two ways to keep many scanners supplied, and what each transfers."),
        Audience("hosts", "Firewall", "What the connected side must be let through to."),
    )
}


def snippets_for(audience: str, instance: Instance) -> list[Snippet]:
    return list(AUDIENCES[audience].snippets(instance))
