"""What a signature says about the one who sent something, as it stands with the keys that are trusted here."""

from dataclasses import dataclass
from enum import StrEnum


class Standing(StrEnum):
    TRUSTED = "trusted"
    UNSIGNED = "unsigned"
    UNKNOWN = "unknown key"
    REVOKED = "revoked key"
    WRONG = "wrong signature"


@dataclass(frozen=True)
class SignedBy:
    """`name` is the trusted key's; `sentence` says what is wrong and what to do, "" for a trusted one."""

    standing: Standing
    fingerprint: str = ""
    name: str = ""
    sentence: str = ""

    @property
    def is_trusted(self) -> bool:
        return self.standing is Standing.TRUSTED

    @property
    def may_be_allowed(self) -> bool:
        """Whether a person may take it all the same: nobody signed, or somebody unknown; nothing speaks against it."""
        return self.standing in (Standing.UNSIGNED, Standing.UNKNOWN)
