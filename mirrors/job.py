"""What a fetch needs and what it hands back: the run under way, its sources, and the content it found."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from mirrors import retention, wording
from mirrors.blobs import BlobStore
from mirrors.digests import DigestError, short
from mirrors.models import Mirror, Snapshot, SnapshotBlob, Source, SyncRun
from mirrors.registry.errors import RegistryError, clean
from mirrors.registry.transport import Timeouts
from mirrors.stopping import StopSignal
from mirrors.story import LONGEST_STEP, SourceListener, Story
from mirrors.trivy.catalogue import Kind

TIMEOUTS = Timeouts()
FUTURE_LIMIT = timedelta(minutes=10)
# What a run writes of a source; the other columns are settings, which belong to people.
ANSWERS = (
    "memory", "asked_at", "answered_at", "error", "retry_at", "manifest_digest", "layer_digest", "updated_at",
    "lagging", "matching_digest", "matching_snapshot", "clock_skew_seconds",
)  # fmt: skip


class SyncFailed(Exception):
    """The run ends without new content; the sentence says why. `retry_at` is when a source asked us to come back."""

    def __init__(self, sentence: str, retry_at: datetime | None = None) -> None:
        super().__init__(sentence)
        self.retry_at = retry_at


class Refused(Exception):
    """A source offers something that is not taken; the sentence says what and why."""


@dataclass(frozen=True)
class KeptBlob:
    """One blob of fetched content; becomes a SnapshotBlob."""

    digest: str
    size: int
    role: str
    media_type: str = ""
    name: str = ""
    details: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Fetched:
    """Verified content, complete in the store; becomes a Snapshot."""

    identity: str
    manifest_digest: str
    layer_digest: str
    media_type: str
    source: Source
    blobs: tuple[KeptBlob, ...]
    tag: str = ""
    artifact_type: str = ""
    version: str = ""
    item_count: int | None = None
    updated_at: datetime | None = None
    next_update: datetime | None = None
    published_at: datetime | None = None

    @property
    def size(self) -> int:
        return sum({blob.digest: blob.size for blob in self.blobs}.values())


@dataclass(frozen=True)
class Outcome:
    """How a run went: new content to switch to, or none because what we hold is what there is.

    `confirmed` says that a source was just seen offering exactly what we hold. `source` is the reference that gave or
    confirmed it, where that is not the one asked last.
    """

    fetched: Fetched | None = None
    confirmed: bool = False
    note: str = ""
    source: str = ""


@dataclass
class Job:
    """One run under way. `now` is taken once, at the start."""

    run: SyncRun
    mirror: Mirror
    sources: list[Source]
    store: BlobStore
    story: Story
    stop: StopSignal
    now: datetime
    timeouts: Timeouts = field(default_factory=lambda: TIMEOUTS)
    failures: list[tuple[str, str]] = field(default_factory=list)
    retries: list[datetime] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)

    @property
    def kind(self) -> Kind:
        return self.mirror.asset

    def is_intact(self, snapshot: Snapshot) -> bool:
        """All of it is in the store with the right sizes, and it is what the settings ask for."""
        for blob in snapshot.blobs.all():
            if not self.store.has(blob.digest) or self.store.size(blob.digest) != blob.size_bytes:
                self.story.warn(f"Blob {short(blob.digest)} of what we hold is missing; it is fetched again.")
                return False
            is_index = blob.role == SnapshotBlob.Role.INDEX
            if is_index and blob.details.get("platforms", []) != sorted(self.mirror.platforms):
                self.story.tell("Other platforms are chosen than what we hold; asking for those.")
                return False
        return True

    def is_due(self, updated_at: datetime | None, confirmed_at: datetime | None) -> bool:
        judged = updated_at if self.kind.judged_by == "updated_at" else confirmed_at
        return judged is None or self.now - judged > self.mirror.limits.due

    def sources_to_ask(self) -> Iterator[Source]:
        """In order; a source that asked for patience is left alone by the schedule until its time."""
        patient = self.run.trigger in (SyncRun.Trigger.SCHEDULE, SyncRun.Trigger.RETRY)
        for source in self.sources:
            self.stop.check()
            if patient and source.retry_at is not None and source.retry_at > self.now:
                self.story.tell(
                    f"{source.host} asked to be left alone until {source.retry_at:%H:%M} UTC; not asked.",
                    source=source.reference,
                )
                self.retries.append(source.retry_at)
                self.waiting.append(f"{source.host} asked to be left alone until {source.retry_at:%H:%M} UTC.")
                continue
            self.story.source = source.reference
            yield source

    def listener(self, source: Source) -> SourceListener:
        return SourceListener(self.story, source.reference)

    def answered(self, source: Source, listener: SourceListener) -> None:
        """The source was asked and answered sensibly."""
        source.asked_at = source.answered_at = self.now
        source.error, source.retry_at = "", None
        source.clock_skew_seconds = listener.clock_skew_seconds
        self._write(source)

    def failed(self, source: Source, error: Exception, listener: SourceListener) -> None:
        """The source failed or offered something bad: written down, and the next one is asked."""
        sentence = _sentence(source, error)
        source.asked_at, source.error, source.retry_at = self.now, sentence, None
        if listener.clock_skew_seconds is not None:
            source.clock_skew_seconds = listener.clock_skew_seconds
        if isinstance(error, RegistryError) and error.retry_after:
            source.retry_at = self.now + timedelta(seconds=error.retry_after)
            self.retries.append(source.retry_at)
        self._write(source)
        self.failures.append((source.host, sentence))
        self.story.fail(sentence, source=source.reference)

    def _write(self, source: Source) -> None:
        """Only what was answered, and only while the settings are those it was asked with: an edit is never undone."""
        answers = {field: getattr(source, field) for field in ANSWERS}
        asked_so = Source.objects.filter(pk=source.pk, mirror__settings_version=self.run.settings_version)
        asked_so.update(**answers)

    def give_up(self) -> SyncFailed:
        """What to raise when no source was any good."""
        reasons = together(self.failures) or list(dict.fromkeys(self.waiting))
        if not reasons:
            reasons = ["No source is set for this mirror; add one in its settings."]
        return SyncFailed(" ".join(reasons), min(self.retries, default=None))

    def refuse_future(self, source: Source, updated_at: datetime | None) -> None:
        """Raise Refused for content dated ahead of our clock: as the newest time known, it would age all the rest."""
        if updated_at is not None and updated_at > self.now + FUTURE_LIMIT:
            raise Refused(
                f"{source.host} offers a build dated {wording.utc_text(updated_at)}, which is in the future by our "
                f"clock ({wording.utc_text(self.now)}). It was not taken. Check this machine's clock first, then the "
                "source."
            )

    def require_room(self, byte_count: int) -> None:
        """Raise before the first byte when the download would leave less than the reserve."""
        if byte_count:
            retention.require_room(byte_count, run_id=self.run.pk, store=self.store)


def together(failures: Sequence[tuple[str, str]]) -> list[str]:
    """What failed at several hosts in the same words is said once: `… The same for ghcr.io and docker.io.`

    `failures` are (host, sentence) in the order they happened.
    """
    hosts_of: dict[str, dict[str, str]] = {}
    for host, sentence in failures:
        hosts_of.setdefault(sentence.replace(host, "\0"), {}).setdefault(host, sentence)
    told = []
    for sentences in hosts_of.values():
        (_, first), *others = sentences.items()
        told.append(first + (f" The same for {wording.joined([host for host, _ in others])}." if others else ""))
    return told


def _sentence(source: Source, error: Exception) -> str:
    """The error in words, with the source it is about and what to do."""
    text = str(error)
    if isinstance(error, DigestError):
        text += " It was thrown away. If it happens again, something on the way changes what is downloaded."
    return clean(text if source.host in text else f"{source.host}: {text}", LONGEST_STEP)
