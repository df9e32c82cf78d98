"""Airgap's settings for a site that only sends blobs: no database is asked."""

from airgap.settings import *  # noqa: F403

ROOT_URLCONF = "tests.running.serving.blob_site"
MIDDLEWARE = ["django.middleware.security.SecurityMiddleware", "mirrors.middleware.content_security_policy"]
