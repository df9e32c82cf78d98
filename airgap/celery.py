"""The Celery application: settings come from Django, tasks from mirrors/tasks.py."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "airgap.settings")

app = Celery("airgap")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["mirrors"])
