"""The application as gunicorn serves it beside the tests, with their database and store; it tells who took what."""

import os
from collections.abc import Callable
from pathlib import Path

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse

os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"


def tell(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    def answer(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        if response.status_code == 200 and (reader := getattr(request, "reader", None)):
            with Path(os.environ["AIRGAP_TEST_READERS"]).open("a") as told:
                told.write(f"{reader.kind} {reader.name}".strip() + "\n")
        return response

    return answer


if "AIRGAP_TEST_READERS" in os.environ:
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "tests.reading.served.tell"]
    settings.DATABASES["default"]["NAME"] = os.environ["AIRGAP_TEST_DATABASE"]
    settings.AIRGAP_DATA_DIR = Path(os.environ["AIRGAP_TEST_DATA"])
    settings.SECRET_KEY = os.environ["AIRGAP_TEST_SECRET"]
    application = get_wsgi_application()
