"""What an import found out and did, as plain values: kept on its row, shown on pages, printed by the command."""

from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from typing import Any

from mirrors import wording

# Why a bundle was not taken; what an administrator may allow for one import is `SIGNATURE` and `SITE`.
SIGNATURE, SITE, CONTENT, ROOM, STOPPED, FAULT = "signature", "site", "content", "room", "stopped", "fault"
# How every sentence ends that mirrors/bundle says of bytes that are not as they were written.
COPY_AGAIN = ("Copy the bundle again.", "Copy it again.", "Copy them again.")


@dataclass
class SnapshotReport:
    """What becomes of one snapshot. `outcome` is one of ImportedSnapshot.Outcome; times are RFC 3339, "" if unknown."""

    mirror: str
    label: str
    kind: str
    digest: str
    outcome: str
    sentence: str
    size: int = 0
    updated_at: str = ""
    confirmed_at: str = ""
    reference: str = ""
    tls_verified: bool = True
    new_mirror: bool = False

    @property
    def is_switched(self) -> bool:
        return self.outcome == "switched"

    @property
    def built(self) -> datetime | None:
        return parsed(self.updated_at)

    @property
    def confirmed(self) -> datetime | None:
        return parsed(self.confirmed_at)


@dataclass
class Report:
    """`refusal` is one of the constants above, "" if nothing speaks against it. `signature` is a signing Standing.

    Of a bundle that came damaged in volumes `damaged` names those that are not what their list of checksums says;
    `unclear` says that no list could tell.
    """

    bundle: str = ""
    created_at: str = ""
    program: str = ""
    site: str = ""
    signature: str = ""
    signed_by: str = ""
    fingerprint: str = ""
    size: int = 0
    new_bytes: int = 0
    seconds: float = 0.0
    refusal: str = ""
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    snapshots: list[SnapshotReport] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    unclear: bool = False

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Report":
        """What an older version did not know yet is empty, what a newer one knew is passed over."""
        own = {each.name for each in fields(cls)}
        kept = {name: value for name, value in values.items() if name in own}
        kept["snapshots"] = [SnapshotReport(**snapshot) for snapshot in kept.get("snapshots", [])]
        return cls(**kept)

    @property
    def made(self) -> datetime | None:
        return parsed(self.created_at)

    @property
    def is_good(self) -> bool:
        return not self.problems

    @property
    def may_be_allowed(self) -> bool:
        """An administrator may say so: it is unsigned, by an unknown key, or for another site."""
        return self.refusal in (SIGNATURE, SITE) and self.signature in ("", "trusted", "unsigned", "unknown key")

    @property
    def wants_another_copy(self) -> bool:
        """What was read is not what the connected side wrote: a damaged medium, or a copy that broke off."""
        return any(problem.endswith(COPY_AGAIN) for problem in self.problems)

    @property
    def may_be_mended(self) -> bool:
        """It came in volumes, and only the damaged one of them needs to come again."""
        return bool(self.damaged) or self.unclear

    @property
    def switched(self) -> list[SnapshotReport]:
        return [snapshot for snapshot in self.snapshots if snapshot.is_switched]

    @property
    def older(self) -> list[SnapshotReport]:
        return [snapshot for snapshot in self.snapshots if snapshot.outcome == "older"]

    def sentence(self, *, done: bool) -> str:
        """`Switched trivy-db and vexhub; checks are older and kept.` or what would happen."""
        groups = [
            ("switched" if done else "to be switched", self.switched),
            ("current already", [s for s in self.snapshots if s.outcome == "confirmed"]),
            ("older than what is served: kept, not switched", self.older),
            ("held here: kept, not switched", [s for s in self.snapshots if s.outcome == "held"]),
            ("not known to this version", [s for s in self.snapshots if s.outcome == "left"]),
        ]
        parts = [f"{wording.joined([s.label for s in found])}: {what}" for what, found in groups if found]
        return "; ".join(parts) + "." if parts else "The bundle holds nothing."

    def ending(self, *, changed: bool) -> str:
        """What an import that was carried out did. What was here already may yet be older than what is served."""
        if changed:
            return self.sentence(done=True)
        passed_over = any(snapshot.outcome in ("older", "held") for snapshot in self.snapshots)
        found = f" {self.sentence(done=True)}" if passed_over else ""
        return f"Everything in this bundle was here already; nothing changed.{found}"


def parsed(text: str) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def moment(value: datetime | None) -> str:
    return wording.rfc3339(value) if value is not None else ""
