"""Settings of the test run: a data directory of its own, fast hashing, tasks counted instead of sent."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path


def _memory() -> str | None:
    """A file system in memory, where there is one that holds a gigabyte and runs programs."""
    place = "/dev/shm"
    try:
        status = os.statvfs(place)
    except OSError:
        return None
    roomy = status.f_bavail * status.f_frsize >= 1 << 30
    return place if roomy and not status.f_flag & os.ST_NOEXEC and os.access(place, os.W_OK) else None


# A quick run makes tens of thousands of folders and takes them away again: a sixth of its time on a disk.
if os.environ.get("AIRGAP_TEST_SERVERS") != "1" and "TMPDIR" not in os.environ and (_place := _memory()):
    os.environ["TMPDIR"] = tempfile.tempdir = _place

_DATA = Path(tempfile.mkdtemp(prefix="airgap-tests-"))
atexit.register(shutil.rmtree, _DATA, ignore_errors=True)
os.environ["AIRGAP_DATA_DIR"] = str(_DATA)
for _name in ("AIRGAP_SIDE", "AIRGAP_BASE_URL", "AIRGAP_SCHEDULE", "AIRGAP_ADMIN_PASSWORD"):
    os.environ.pop(_name, None)

from airgap.settings import *  # noqa: E402, F403

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
WHITENOISE_AUTOREFRESH = True
# Tests write it down themselves.
AIRGAP_CONSUMERS_WRITE_SECONDS = 0

# Tests with threads and processes need a database in a file: SQLite's shared memory does not wait for a lock.
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):  # noqa: F405
    DATABASES["default"]["TEST"] = {"NAME": str(_DATA / "test.sqlite3")}  # noqa: F405
    # It is thrown away: nothing of it needs to be on a disk.
    DATABASES["default"]["OPTIONS"]["init_command"] = "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;"  # noqa: F405
