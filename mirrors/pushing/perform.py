"""One push: claim the run, see what the destination lacks, bring it there, look again, write down how it went.

A tag moves last, when everything under it is there; and nothing counts as pushed before the destination itself names
our digest under every tag.
"""

import logging
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import transaction
from django.utils import timezone

from mirrors import content, leases, wording, work_here
from mirrors.blobs import BlobStore, StoreError
from mirrors.digests import short
from mirrors.leases import Heart, Lease, LeaseLost, work_key
from mirrors.models import Destination, Mirror, PushRule, PushRun, Snapshot
from mirrors.pushing import connecting
from mirrors.pushing.asking import HOPELESS_RETRY, PUSHES, PushRefused, request_push
from mirrors.pushing.plan import Plan, PlanError, plan_of, require_there
from mirrors.pushing.story import DestinationListener, PushStory
from mirrors.pushing.targets import Target, TargetError, target_of
from mirrors.registry.errors import RegistryError, clean
from mirrors.registry.manifests import Descriptor, Manifest
from mirrors.registry.pushing import PushClient
from mirrors.secrets import SecretError
from mirrors.stopping import Stopped, StopSignal
from mirrors.story import LONGEST_STEP

logger = logging.getLogger(__name__)

State = PushRun.State
MOST_LOOKED_FOR = 500
BY_HAND = (PushRun.Trigger.HAND, PushRun.Trigger.COMMAND)


class Gone(Exception):
    """What was to be pushed is no longer there; the sentence says so, and what is there now is pushed next."""


def perform(run_id: int, *, stop: StopSignal | None = None, store: BlobStore | None = None, heart: bool = True) -> bool:
    """Make a queued push. False when somebody else has it, it is closed, or its destination is being pushed to."""
    lease = PUSHES.claim(run_id, now=timezone.now())
    if lease is None:
        return False
    stop = stop or StopSignal()
    story = PushStory(lease)
    beating = Heart(lease, stop, story) if heart else nullcontext()
    try:
        with work_here.entered(stop, work_key(PushRun, run_id)), beating:
            _make(lease, story, stop, store or content.store())
    except LeaseLost:
        logger.info("Push %s was closed by somebody else", run_id)
        return True
    story.flush()
    return True


def _make(lease: Lease, story: PushStory, stop: StopSignal, store: BlobStore) -> None:
    run = PUSHES.related().get(pk=lease.run_id)
    try:
        push = _begin(lease, run, story, stop, store)
        _conclude(lease, push, *push.bring())
    except Stopped:
        if stop.reason == work_here.SHUTDOWN:
            story.warn("The worker is shut down; the push goes on when one starts again.")
            PUSHES.put_back(lease)
        elif stop.reason != leases.CLOSED:
            PUSHES.stop(run, by=stop.reason, now=timezone.now())
    except RegistryError as error:
        _answered(run.destination, str(error))
        sentence = _worded(run.destination, error)
        story.fail(sentence)
        _fail(lease, story, sentence, retry_at=_retry_at(error))
    except (PlanError, TargetError, StoreError, SecretError, PushRefused, Gone) as trouble:
        story.fail(str(trouble))
        _fail(lease, story, str(trouble))
    except LeaseLost:
        raise
    except Exception as fault:
        if stop.is_set():
            logger.info("Push %s ended while it was being stopped", lease.run_id, exc_info=True)
            return
        sentence = (
            f"A fault in Airgap itself ended this push ({type(fault).__name__}). The worker's log has the details."
        )
        story.fail(sentence)
        _fail(lease, story, sentence)
        raise


def _begin(lease: Lease, run: PushRun, story: PushStory, stop: StopSignal, store: BlobStore) -> "Push":
    """Settle what is pushed and where to. From here on the pruner leaves the snapshot alone: an open run names it."""
    rule = run.rule
    if rule is None:
        raise PushRefused("The rule for this push was removed.")
    with transaction.atomic():
        mirror = Mirror.objects.select_for_update().get(pk=run.mirror_id)
        snapshot = Snapshot.objects.select_for_update().filter(pk=mirror.current_id or 0).first()
        if snapshot is None:
            raise PushRefused(f"{mirror.label} holds nothing yet. Sync it first.")
        snapshot.mirror = mirror
        target = target_of(run.destination, rule.target, rule.extra_tags, mirror, snapshot)
        if not lease.write(snapshot=snapshot, reference=str(target)[:500]):
            raise LeaseLost
    for tag in target.left_out:
        story.warn(f"The tag {tag} is left out: what it is made of is not known of this content.")
    plan = plan_of(snapshot, store)
    listener = DestinationListener(story, str(target))
    client = connecting.client_for(run.destination, stop=stop, listener=listener)
    return Push(run, rule, snapshot, target, plan, client, story, stop, store)


@dataclass
class Push:
    """One push under way."""

    run: PushRun
    rule: PushRule
    snapshot: Snapshot
    target: Target
    plan: Plan
    client: PushClient
    story: PushStory
    stop: StopSignal
    store: BlobStore

    @property
    def repository(self) -> str:
        return self.target.repository

    def bring(self) -> tuple[str, str]:
        """Do it; the state and the note it ends with. `memory` and the last answer are kept on the destination."""
        sent: list[Descriptor] = []
        put = 0
        try:
            stale = self._stale_tags()
            if stale or self.run.trigger in BY_HAND or not self._has_all(self.plan.referrers):
                sent = self._blobs()
                put = self._manifests(stale)
                self._check()
        finally:
            # After an edit it may be another registry's: what is remembered of a challenge says where a login is sent.
            mine = PushRun.objects.open().filter(pk=self.run.pk).values("destination_id")
            there = Destination.objects.filter(pk__in=mine, registry=self.target.registry)
            there.update(memory=dict(self.client.memory))
            self.client.close()
        _answered(self.run.destination, "")
        if not sent and not put:
            return State.UNCHANGED, f"{self.target.registry} has all of it already."
        return State.SUCCEEDED, self._note(len(sent))

    def _note(self, uploads: int) -> str:
        tags = wording.joined([f":{tag}" for tag in self.target.tags])
        went = wording.size_text(self.story.bytes_uploaded) if uploads else "no blob had to be sent"
        return f"{self.target.registry}/{self.repository}{tags} is {short(self.plan.root.digest)}; {went}."

    # What is there

    def _stale_tags(self) -> list[str]:
        """The tags that do not name our manifest yet."""
        self.story.stage = f"asking {self.target.registry}"
        return [
            tag for tag in self.target.tags if self.client.has_manifest(self.repository, tag) != self.plan.root.digest
        ]

    def _has_all(self, manifests: tuple[Manifest, ...]) -> bool:
        return all(self.client.has_manifest(self.repository, each.digest) for each in manifests)

    # Blobs

    def _blobs(self) -> list[Descriptor]:
        """Bring every blob the destination lacks; those that were sent or mounted."""
        self.story.stage = f"asking {self.target.registry} what it has"
        missing = []
        for blob in self.plan.blobs:
            self.stop.check()
            if not self.client.has_blob(self.repository, blob.digest, blob.size):
                missing.append(blob)
        for blob in missing:
            require_there(blob, self.store)
        self.story.expect(sum(blob.size for blob in missing))
        if len(missing) < len(self.plan.blobs):
            there = len(self.plan.blobs) - len(missing)
            verb = "is" if there == 1 else "are"
            self.story.tell(f"Of {wording.counted(len(self.plan.blobs), 'blob')}, {there} {verb} there already.")
        elsewhere = self._elsewhere([blob.digest for blob in missing])
        for blob in missing:
            self._bring_blob(blob, elsewhere)
        return missing

    def _elsewhere(self, digests: list[str]) -> dict[str, str]:
        """Other repositories of this destination that hold these blobs, by digest: what our rules pushed there."""
        rules = PushRule.objects.filter(destination_id=self.run.destination_id)
        rules = rules.filter(pushed_snapshot__blobs__digest__in=digests[:MOST_LOOKED_FOR])
        rows = rules.values_list("pushed_snapshot__blobs__digest", "pushed_reference")
        found = {}
        for digest, reference in rows:
            repository = reference.partition("/")[2].rpartition(":")[0]
            if digest and repository and repository != self.repository:
                found[digest] = repository
        return found

    def _bring_blob(self, blob: Descriptor, elsewhere: dict[str, str]) -> None:
        self.stop.check()
        source = elsewhere.get(blob.digest)
        if source and self.client.mount(self.repository, blob.digest, source):
            self.story.held(blob.size)
            self.story.tell(f"Blob {short(blob.digest)} ({wording.size_text(blob.size)}) was mounted from {source}.")
            return
        self.story.stage = f"uploading to {self.target.registry}"
        before, at = self.story.bytes_uploaded, timezone.now()
        self.client.upload(self.repository, blob, lambda: self.store.open(blob.digest), self.story.sent)
        seconds = max((timezone.now() - at).total_seconds(), 0.001)
        count = self.story.bytes_uploaded - before
        self.story.tell(
            f"Sent {wording.size_text(count)} as blob {short(blob.digest)} in {wording.duration_text(seconds)} "
            f"({wording.rate_text(count / seconds)})."
        )

    # Manifests

    def _manifests(self, stale: list[str]) -> int:
        """Parts, then the whole with what refers to it, then the tags; how many were put."""
        self.story.stage = "writing manifests"
        wanted = [*self.plan.parts]
        if self.plan.referrers:
            # What refers to it follows it, and the tag comes when both are there.
            wanted += [self.plan.root, *self.plan.referrers]
        put = 0
        for manifest in wanted:
            if self.client.has_manifest(self.repository, manifest.digest) != manifest.digest:
                self._put(manifest, manifest.digest)
                put += 1
        for tag in stale:
            self._put(self.plan.root, tag)
            put += 1
        return put

    def _put(self, manifest: Manifest, name: str) -> None:
        self.stop.check()
        try:
            self.client.put_manifest(self.repository, name, manifest.raw, manifest.media_type)
        except RegistryError as error:
            if self.plan.is_partial and manifest.is_index and error.status in (400, 404):
                error.temporary = False
                error.advice = (
                    "It takes an index only with everything the index names, and this mirror keeps chosen platforms. "
                    "Choose all platforms in the mirror's settings, or name one platform's manifest as its source."
                )
            raise
        self.story.tell(f"Manifest {short(manifest.digest)} is there as {name if name[:7] != 'sha256:' else 'itself'}.")

    # Looking again

    def _check(self) -> None:
        """The client has looked at each thing it brought; this is for what a registry takes back, or somebody moves."""
        self.story.stage = f"checking what {self.target.registry} has now"
        for tag in self._stale_tags():
            raise RegistryError(
                "digest",
                f"{self.target.registry} took all, but its tag {tag} does not name {short(self.plan.root.digest)}",
                registry=self.target.registry,
                operation="HEAD manifest",
                temporary=True,
                advice="Somebody else may push to that tag, or it is protected there. It is tried again.",
            )


# Ending


def _conclude(lease: Lease, push: Push, state: str, note: str) -> None:
    """Write down that the destination has it. What was switched to meanwhile is asked for at once."""
    now = timezone.now()
    push.stop.check()
    with transaction.atomic():
        PUSHES.lock_subject(lease.run_id)
        mirror = Mirror.objects.get(pk=push.run.mirror_id)
        if not Snapshot.objects.filter(pk=push.snapshot.pk).exists():
            raise Gone(
                f"What was being pushed was removed here meanwhile; what {mirror.label} holds now is pushed next."
            )
        is_known = PushRule.objects.filter(pk=push.rule.pk, pushed_snapshot=push.snapshot, pushed_at__isnull=False)
        if state == State.SUCCEEDED or not is_known.exists():
            PushRule.objects.filter(pk=push.rule.pk).update(
                pushed_snapshot=push.snapshot,
                pushed_digest=push.plan.root.digest,
                pushed_reference=str(push.target)[:500],
                pushed_at=now,
            )
        switched = mirror.current_id != push.snapshot.pk
        if switched:
            note += f" {wording.with_article(mirror.label, start=True)} was switched meanwhile; that is pushed next."
        push.story.tell(note)
        PUSHES.close(lease, state, now=now, note=note, rate_bytes=0, **push.story.totals())
        if switched:
            push.rule.mirror = mirror
            with suppress(PushRefused):  # nothing is held any more, or the destination was disabled
                request_push(push.rule, trigger=push.run.trigger, by=push.run.requested_by, now=now)


def _fail(lease: Lease, story: PushStory, sentence: str, *, retry_at: datetime | None = None) -> None:
    PUSHES.close(lease, State.FAILED, now=timezone.now(), error=sentence, retry_at=retry_at, **story.totals())


def _retry_at(error: RegistryError) -> datetime | None:
    """When trying again may help: when the registry said, or rarely where no waiting heals it."""
    if error.retry_after:
        return timezone.now() + timedelta(seconds=error.retry_after)
    return None if error.temporary else timezone.now() + HOPELESS_RETRY


def _worded(destination: Destination, error: RegistryError) -> str:
    text = str(error)
    return clean(text if destination.registry in text else f"{destination.registry}: {text}", LONGEST_STEP)


def _answered(destination: Destination, error: str) -> None:
    now = timezone.now()
    answers: dict[str, object] = {"asked_at": now, "error": clean(error, LONGEST_STEP)}
    if not error:
        answers["answered_at"] = now
    Destination.objects.filter(pk=destination.pk, registry=destination.registry).update(**answers)
