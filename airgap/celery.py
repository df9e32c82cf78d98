"""The Celery application: settings come from Django, tasks from mirrors/tasks.py."""

import os

from celery import Celery
from celery.signals import worker_shutting_down

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "airgap.settings")

app = Celery("airgap")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["mirrors"])


@worker_shutting_down.connect
def put_runs_back(**_: object) -> None:
    """A warm shutdown waits for running tasks; a download of an hour must not make it wait that long."""
    from mirrors import runs, work_here  # they need the applications loaded, which this module comes before

    runs.stop_all_here()
    work_here.stop_all_here()
