"""For the few forms that take a file: a key, a signature. No other page takes one (FILE_UPLOAD_HANDLERS is empty)."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.core.files.uploadhandler import MemoryFileUploadHandler
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.views.decorators.csrf import csrf_exempt, csrf_protect

LARGEST = 256 * 1024

View = Callable[..., HttpResponseBase]


def takes_small_file(view: View) -> View:
    """The view's form may hold a file, which is kept in memory; 413 for a body over 256 KiB.

    Stands below the decorator that says who may come in: until then nothing of the body was read. The check of the form
    token reads it, so the middleware's is put off to here.
    """
    protected = csrf_protect(view)

    @csrf_exempt
    @wraps(view)
    def taking(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if int(request.META.get("CONTENT_LENGTH") or 0) > LARGEST:
            sentence = f"This is too large for what belongs here (over {LARGEST // 1024} KiB). Nothing was changed.\n"
            return HttpResponse(sentence, status=413, content_type="text/plain; charset=utf-8")
        request.upload_handlers = [MemoryFileUploadHandler(request)]
        return protected(request, *args, **kwargs)

    return taking
