"""Asks the parts this program cannot do without whether they answer."""

import logging

import redis
from django.conf import settings
from django.db import DatabaseError, connection

logger = logging.getLogger(__name__)

BROKER_SECONDS = 2


def faults() -> list[str]:
    """The parts that do not answer: `database`, `broker`. Reasons go to the log, never into the answer."""
    found = []
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError as error:
        logger.warning("The database does not answer: %s", error)
        found.append("database")
    try:
        _broker().ping()
    except (redis.RedisError, OSError) as error:
        logger.warning("The broker does not answer: %s", type(error).__name__)
        found.append("broker")
    return found


def _broker() -> redis.Redis:
    if settings.AIRGAP_BROKER_SOCKET is not None:
        return redis.Redis(unix_socket_path=str(settings.AIRGAP_BROKER_SOCKET), socket_timeout=BROKER_SECONDS)
    return redis.Redis.from_url(
        settings.CELERY_BROKER_URL, socket_timeout=BROKER_SECONDS, socket_connect_timeout=BROKER_SECONDS
    )
