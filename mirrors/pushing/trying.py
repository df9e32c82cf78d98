"""Trying a destination out as a push would: log in, begin an upload, cancel it. Nothing is left there."""

import time
from dataclasses import dataclass, replace

from django.utils import timezone

from mirrors.models import Destination, PushRule
from mirrors.pushing import connecting
from mirrors.pushing.targets import TargetError, target_of
from mirrors.registry.errors import Hop, RegistryError, clean
from mirrors.registry.transport import Timeouts
from mirrors.secrets import SecretError
from mirrors.stopping import Stopped, StopSignal

# A person waits for the answer.
TEST_TIMEOUTS = Timeouts(connect=5, read=10, attempts=2, source_seconds=30, longest_retry_after=2)
MOST_REPOSITORIES = 5
# Asked for where no mirror goes there yet.
TRIAL_REPOSITORY = "airgap-test"


@dataclass(frozen=True)
class Trial:
    """How asking for one repository went. `hops` are the hosts that answered, each once."""

    repository: str
    ok: bool
    error: str = ""
    hops: tuple[Hop, ...] = ()
    seconds: float = 0.0


def repositories_of(destination: Destination) -> list[str]:
    """What a test asks for: where the rules go, else one of its own below the prefix."""
    found = []
    for rule in PushRule.objects.for_pages().filter(destination=destination):
        try:
            target = target_of(destination, rule.target, "", rule.mirror, rule.mirror.current)
        except TargetError:
            continue
        found.append(target.repository)
    if not found:
        return ["/".join(filter(None, (destination.prefix, TRIAL_REPOSITORY)))]
    return list(dict.fromkeys(found))[:MOST_REPOSITORIES]


def try_destination(
    destination: Destination, *, stop: StopSignal | None = None, timeouts: Timeouts = TEST_TIMEOUTS
) -> list[Trial]:
    """Ask whether we may push, for each repository that rules name. The last answer is kept on the destination."""
    stop = stop or StopSignal()
    try:
        client = connecting.client_for(destination, stop=stop, timeouts=timeouts)
    except SecretError as error:
        return [Trial(repository, False, str(error)) for repository in repositories_of(destination)[:1]]
    except RegistryError as error:
        return _kept(destination, [Trial(repositories_of(destination)[0], False, str(error))])
    trials: list[Trial] = []
    try:
        for repository in repositories_of(destination):
            began = time.monotonic()
            hops: list[Hop] = []
            try:
                client.try_login(repository)
                error_text = ""
            except (RegistryError, Stopped) as error:
                hops += getattr(error, "hops", ())
                error_text = str(error)
            hops += client.hops
            trials.append(Trial(repository, not error_text, error_text, _each_once(hops), time.monotonic() - began))
            if error_text and not client.hops:
                # Nobody answers there: the others would only be waited for.
                break
    finally:
        client.close()
    return _kept(destination, trials)


def _kept(destination: Destination, trials: list[Trial]) -> list[Trial]:
    now = timezone.now()
    failed = next((trial.error for trial in trials if not trial.ok), "")
    answers: dict[str, object] = {"asked_at": now, "error": clean(failed, 1000)}
    if not failed:
        answers["answered_at"] = now
    Destination.objects.filter(pk=destination.pk).update(**answers)
    return trials


def _each_once(hops: list[Hop]) -> tuple[Hop, ...]:
    met: dict[tuple[str, str], Hop] = {}
    for hop in hops:
        first = met.setdefault((hop.scheme, hop.host), hop)
        met[(hop.scheme, hop.host)] = replace(first, status=hop.status or first.status)
    return tuple(met.values())
