"""VEX repositories: where they are, what their manifest says, what their archives hold (aquasecurity/vex-repo-spec)."""

from mirrors.trivy.vex.archives import (
    INDEX_FILE,
    INDEX_LIMIT,
    ArchiveFacts,
    read_archive,
    read_index,
    repack_as_tar_gz,
    subdir_entries,
)
from mirrors.trivy.vex.manifests import (
    MANIFEST_LIMIT,
    OFFLINE_INTERVAL,
    REPOSITORY_FILE,
    SPEC_VERSION,
    VexRepository,
    VexVersion,
    offline_manifest,
    parse_repository,
    rewrite_manifest,
    served_name,
)
from mirrors.trivy.vex.sources import (
    Location,
    VexError,
    VexSource,
    check_checksum,
    is_directory,
    parse_location,
    parse_source,
)

__all__ = [
    "INDEX_FILE",
    "INDEX_LIMIT",
    "MANIFEST_LIMIT",
    "OFFLINE_INTERVAL",
    "REPOSITORY_FILE",
    "SPEC_VERSION",
    "ArchiveFacts",
    "Location",
    "VexError",
    "VexRepository",
    "VexSource",
    "VexVersion",
    "check_checksum",
    "is_directory",
    "offline_manifest",
    "parse_location",
    "parse_repository",
    "parse_source",
    "read_archive",
    "read_index",
    "repack_as_tar_gz",
    "rewrite_manifest",
    "served_name",
    "subdir_entries",
]
