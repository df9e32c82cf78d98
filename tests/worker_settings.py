"""For processes that tests start: the test database, and the test's own data directory."""

import os

from airgap.settings import *  # noqa: F403

DATABASES["default"]["NAME"] = os.environ["TEST_DATABASE"]  # noqa: F405
AIRGAP_RESERVE_MB = 0
