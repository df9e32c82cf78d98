"""What the pages share: the request as our middleware leaves it, and a page whose body keeps itself current."""

from hashlib import blake2b
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.utils.cache import patch_vary_headers
from django.utils.safestring import SafeString
from django_htmx.middleware import HtmxDetails

from mirrors.models import User

READS_THE_SAME = 204
# Where the body goes. No text can say it: what is not ours is escaped.
BODY = SafeString("<live-body>")


class PageRequest(HttpRequest):
    """For views behind the login."""

    htmx: HtmxDetails
    user: User


def live_page(
    request: PageRequest, template: str, body: str, context: dict[str, object], *, every: int | None
) -> HttpResponse:
    """The page around its `body` template; asked again by htmx every so many seconds, the body alone.

    While the body reads the same as what the browser has (`seen`), the answer is 204 and nothing is swapped: focus,
    selection and scroll position stay. So the body holds no CSRF token; its buttons belong to the page's form `act`.
    With `every` None it does not ask again, and so stops by itself.
    """
    drawn = render_to_string(body, context, request).encode()
    seen = blake2b(b"%d " % (every or 0) + drawn, digest_size=8).hexdigest()
    asked = {name: value for name, value in request.GET.items() if name not in ("part", "seen")}
    again = f"{request.path}?{urlencode({**asked, 'part': 'live', 'seen': seen})}"
    fragment = bool(request.htmx) and "part" in request.GET
    if fragment and request.GET.get("seen") == seen:
        response = HttpResponse(status=READS_THE_SAME)
    else:
        # The body is put in last, as bytes: every template around it would copy it once more.
        around = {**context, "live": BODY, "live_url": again, "live_every": every}
        drawn_around = render_to_string("parts/live.html" if fragment else template, around, request)
        before, _, after = drawn_around.partition(BODY)
        response = HttpResponse([before.encode(), drawn, after.encode()])
    patch_vary_headers(response, ["HX-Request"])
    return response
