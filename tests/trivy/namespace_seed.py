"""Fills the data directory of AIRGAP_DATA_DIR with one build of everything Trivy asks for: `python -m` this file."""

import os
from datetime import UTC, datetime, timedelta

import django

os.environ["DJANGO_SETTINGS_MODULE"] = "airgap.settings"
django.setup()

from django.core.management import call_command  # noqa: E402

from mirrors import content  # noqa: E402
from mirrors.models import Mirror  # noqa: E402
from tests.kept import keep_build, keep_vex  # noqa: E402

if __name__ == "__main__":
    call_command("migrate", verbosity=0)
    now = datetime.now(UTC).replace(microsecond=0)
    for name, kind, tag in (("trivy-db", "trivy-db", "2"), ("trivy-java-db", "trivy-java-db", "1"),
                            ("trivy-checks", "trivy-checks", "2"), ("vexhub", "vex", "")):  # fmt: skip
        served = f"aquasecurity/{kind}" if tag else ""
        mirror = Mirror.objects.create(
            name=name, kind=kind, label=name, created_at=now, served_repository=served, served_tag=tag
        )
        keep = keep_vex if kind == "vex" else keep_build
        keep(content.store(), mirror, now - timedelta(hours=3))
