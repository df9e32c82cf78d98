"""Whether a bundle's signature is accepted: by a trusted key, or because an administrator allowed this one import."""

from dataclasses import dataclass

from mirrors import keys, wording
from mirrors.bundle.parsed import SignatureRefused
from mirrors.signing import SignedBy, Standing

WHY = {
    Standing.UNSIGNED: "The bundle is not signed. An administrator may allow it for this import.",
    Standing.WRONG: "The bundle's signature is wrong, so somebody changed it or it was damaged. Nobody can allow that.",
    Standing.REVOKED: "The bundle's key was revoked here. Nobody can allow that.",
}


@dataclass
class Trust:
    """What `read_bundle` asks; afterwards `found` says whose signature it is and how that key stands here.

    `allow_unsigned` holds for bundles without a signature and by unknown keys. A wrong signature or a revoked key
    speaks against a bundle and is never let through.
    """

    allow_unsigned: bool = False
    found: SignedBy | None = None

    def __call__(self, sums: bytes, signature: bytes | None) -> SignedBy:
        self.found = keys.check_signature(sums, signature)
        if self.refused:
            raise SignatureRefused(self._why(self.found))
        return self.found

    @property
    def refused(self) -> bool:
        """It was asked, and says no."""
        found = self.found
        return found is not None and not (found.is_trusted or (self.allow_unsigned and found.may_be_allowed))

    @staticmethod
    def _why(found: SignedBy) -> str:
        if found.standing is Standing.UNKNOWN:
            return f"The bundle is not signed by a trusted key. {found.sentence} Or one allows this import alone."
        known = WHY[found.standing]
        return known if found.standing is Standing.UNSIGNED else f"{known} {found.sentence}"


def withdrawn(fingerprint: str) -> str:
    """Why a bundle that was verified may not be switched to any more: its key was revoked since. "" if it may."""
    gone = keys.revoked_key(fingerprint) if fingerprint else None
    if gone is None or gone.revoked_at is None:
        return ""
    when = wording.utc_text(gone.revoked_at)
    return (
        f"Its key {gone.name} ({fingerprint}) was revoked by {gone.revoked_by} {when}, after the bundle was verified. "
        "Nobody can allow that: discard it."
    )
