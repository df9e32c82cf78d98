"""What the store says when the file system says no."""

import errno

CODES = {
    errno.ENOSPC: "full",
    errno.EDQUOT: "full",
    errno.EROFS: "read-only",
    errno.EACCES: "read-only",
    errno.EPERM: "read-only",
    errno.EIO: "damaged",
    errno.ENOENT: "missing",
}

NEXT_STEP = {
    "full": "Free space on that file system, or keep fewer snapshots; what was downloaded so far is resumed.",
    "read-only": "Give the user who runs Airgap the right to write there, or mount the file system writable.",
    "damaged": "The disk reports an error: check it (dmesg, SMART), then run the store check.",
    "missing": "Run the store check; it fetches missing content again.",
    "failed": "See the reason given by the system and try again.",
}


class StoreError(Exception):
    """The store cannot do what was asked. `code`: full, read-only, damaged, missing, busy, too-large or failed."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
