"""Release files: where they are, which version is wanted, what their checksum file says, and what signatures state."""

from mirrors.trivy.release.checksums import CHECKSUMS_LIMIT, chosen, is_plain, parse_checksums, replaced
from mirrors.trivy.release.errors import ReleaseError
from mirrors.trivy.release.signatures import (
    BUNDLE_ENDING,
    ISSUER,
    OLD_ENDINGS,
    SIGNATURE_LIMIT,
    Signature,
    identity_of,
    read_bundle,
    verify_command,
)
from mirrors.trivy.release.sources import (
    DEFAULT_PLATFORMS,
    PLATFORMS,
    ReleaseSource,
    parse_platform,
    parse_source,
)
from mirrors.trivy.release.versions import (
    ANSWER_LIMIT,
    LATEST,
    Wanted,
    is_older,
    parse_version,
    parse_wanted,
    version_in_address,
    version_in_answer,
)

__all__ = [
    "ANSWER_LIMIT",
    "BUNDLE_ENDING",
    "CHECKSUMS_LIMIT",
    "DEFAULT_PLATFORMS",
    "ISSUER",
    "LATEST",
    "OLD_ENDINGS",
    "PLATFORMS",
    "SIGNATURE_LIMIT",
    "ReleaseError",
    "ReleaseSource",
    "Signature",
    "Wanted",
    "chosen",
    "identity_of",
    "is_older",
    "is_plain",
    "parse_checksums",
    "parse_platform",
    "parse_source",
    "parse_version",
    "parse_wanted",
    "read_bundle",
    "replaced",
    "verify_command",
    "version_in_address",
    "version_in_answer",
]
