"""How /v2/ refuses: JSON with the codes of the distribution-spec, and the headers every answer there carries."""

from collections.abc import Mapping

from django.http import HttpResponse, JsonResponse

API_VERSION = {"Docker-Distribution-Api-Version": "registry/2.0"}
# What Trivy (go-containerregistry) takes for temporary, so that it asks the next repository of its list; a code that
# fits better, such as SERVICE_UNAVAILABLE, would end its run.
TEMPORARY = "UNAVAILABLE"


class Refusal(Exception):
    """The request cannot be answered; `code` is one of the spec's, the message a sentence."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.headers = status, code, dict(headers or {})

    def response(self) -> HttpResponse:
        return refusal(self.status, self.code, str(self), self.headers)


def refusal(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> HttpResponse:
    body = {"errors": [{"code": code, "message": message, "detail": None}]}
    return JsonResponse(body, status=status, headers={**API_VERSION, **(headers or {})})


def refuse_bytes(status: int, sentence: str) -> HttpResponse:
    """For `send_blob`: a range that does not exist, or bytes that are missing or damaged here."""
    return refusal(status, TEMPORARY if status >= 500 else "UNSUPPORTED", sentence)
