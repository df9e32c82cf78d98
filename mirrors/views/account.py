"""Coming in, going out, and one's own password."""

from django.contrib import auth, messages
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST

from mirrors import people, record
from mirrors.forms import LoginForm, PasswordForm
from mirrors.models import User
from mirrors.people import PeopleError
from mirrors.views.access import address_of


def _next(request: HttpRequest) -> str:
    """Where to go after logging in: a page of ours that was asked for, else the dashboard."""
    wanted = request.POST.get("next") or request.GET.get("next") or ""
    safe = url_has_allowed_host_and_scheme(wanted, {request.get_host()}, require_https=request.is_secure())
    return wanted if wanted and safe else reverse("mirrors:dashboard")


@login_not_required
@sensitive_post_parameters("password")
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def login(request: HttpRequest) -> HttpResponse:
    target = _next(request)
    if request.method != "POST":
        if request.user.is_authenticated:
            # Not redirect(), to which a word without a slash is the name of a view.
            return HttpResponseRedirect(target)
        return _login_page(request, LoginForm(), target, 200)
    form = LoginForm(request.POST)
    if not form.is_valid():
        return _login_page(request, form, target, 422)
    username = form.cleaned_data["username"]
    user = auth.authenticate(request, username=username, password=form.cleaned_data["password"])
    if user is None:
        _record_failure(request, username)
        # Where the limit is reached, AxesMiddleware puts its 429 in the place of this answer.
        form.add_error(None, "User name and password do not belong together. Both are case-sensitive.")
        return _login_page(request, form, target, 422)
    auth.login(request, user)
    record.write(user.get_username(), "login", user.get_username(), "", address_of(request), at=timezone.now())
    return HttpResponseRedirect(target)


def _login_page(request: HttpRequest, form: LoginForm, target: str, status: int) -> HttpResponse:
    # The path of the file is not told to strangers, only that there is one.
    first_time = people.first_password_file().exists()
    if form.data.get("username"):
        # The name stays; it is mostly the password that was mistyped.
        form.fields["username"].widget.attrs.pop("autofocus", None)
        form.fields["password"].widget.attrs["autofocus"] = True
    context = {"form": form, "next": target, "first_time": first_time}
    return render(request, "registration/login.html", context, status=status)


def _record_failure(request: HttpRequest, username: str) -> None:
    failures = getattr(request, "axes_failures_since_start", None)
    people.record_failed_login(
        username,
        locked_out=getattr(request, "axes_locked_out", False),
        now=timezone.now(),
        detail=f"{failures} in a row" if failures and failures > 1 else "",
        address=address_of(request),
    )


@require_POST
def logout(request: HttpRequest) -> HttpResponse:
    username = request.user.get_username()
    auth.logout(request)
    record.write(username, "logout", username, "", address_of(request), at=timezone.now())
    return redirect("mirrors:login")


@sensitive_post_parameters()
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def password(request: HttpRequest) -> HttpResponse:
    user = request.user
    assert isinstance(user, User)  # noqa: S101 - LoginRequiredMiddleware lets nobody else here
    forced = user.must_change_password
    form = PasswordForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        if not user.check_password(form.cleaned_data["old_password"]):
            form.add_error("old_password", "This is not your present password.")
        else:
            try:
                people.change_own_password(
                    user, form.cleaned_data["new_password1"], now=timezone.now(), address=address_of(request)
                )
            except PeopleError as error:
                form.add_error(error.setting, str(error))
            else:
                auth.update_session_auth_hash(request, user)
                messages.success(request, "Your password was changed. Other sessions of yours were signed out.")
                return redirect("mirrors:dashboard")
    status = 422 if request.method == "POST" else 200
    return render(request, "registration/password.html", {"form": form, "forced": forced}, status=status)
