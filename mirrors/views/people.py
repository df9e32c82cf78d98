"""People: who may come in and as what, for administrators."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_safe

from mirrors import people as operations
from mirrors import wording
from mirrors.forms import PersonForm, RoleForm
from mirrors.models import Role, User
from mirrors.people import PeopleError
from mirrors.views.access import address_of, administrator_required


def _me(request: HttpRequest) -> User:
    assert isinstance(request.user, User)  # noqa: S101 - administrator_required lets nobody else here
    return request.user


@require_safe
@administrator_required
def people(request: HttpRequest) -> HttpResponse:
    everybody = list(User.objects.order_by("username"))
    active = [person for person in everybody if person.is_active]
    counts = [(sum(person.role == role for person in active), role.label.lower()) for role in reversed(Role)]
    parts = [f"{wording.number_word(count)} {label}{'s' if count != 1 else ''}" for count, label in counts if count]
    headline = wording.capitalized(f"{wording.joined(parts)} may sign in.")
    return render(request, "people/people.html", {"people": everybody, "headline": headline})


@sensitive_post_parameters("password")
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
@administrator_required
def person_create(request: HttpRequest) -> HttpResponse:
    form = PersonForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        said = form.cleaned_data
        try:
            person, password = operations.create_person(
                said["username"],
                said["role"],
                password=said["password"],
                by=request.user.get_username(),
                now=timezone.now(),
                address=address_of(request),
            )
        except PeopleError as error:
            form.add_error(error.setting or None, str(error))
        else:
            if said["password"]:
                messages.success(request, f"{person.username} was added and signs in with the password you chose.")
                return redirect("mirrors:people")
            # Shown in this answer and nowhere else: it is kept only as a hash.
            return render(request, "people/password.html", {"person": person, "password": password, "is_new": True})
    status = 422 if request.method == "POST" else 200
    return render(request, "people/new.html", {"form": form}, status=status)


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
@administrator_required
def person_edit(request: HttpRequest, pk: int) -> HttpResponse:
    """One person: role, a new password, in or out. Each button posts its own `do`."""
    person = get_object_or_404(User, pk=pk)
    form = RoleForm(initial={"role": person.role})
    problem = ""
    if request.method == "POST":
        do = request.POST.get("do", "")
        try:
            answer = _change(request, person, do)
        except PeopleError as error:
            problem = str(error)
        else:
            if answer is not None:
                return answer
            problem = "Nothing was asked for. Use one of the buttons."
        if do == "role":
            form = RoleForm(request.POST)
    context = {"person": person, "form": form, "problem": problem, "is_me": person.pk == _me(request).pk}
    return render(request, "people/person.html", context, status=422 if problem else 200)


def _change(request: HttpRequest, person: User, do: str) -> HttpResponse | None:
    by, now, address = _me(request), timezone.now(), address_of(request)
    if do == "role":
        role = request.POST.get("role", "")
        if operations.change_role(person, role, by=by, now=now, address=address):
            messages.success(request, f"{person.username} is now {Role(role).label.lower()}.")
    elif do in ("activate", "deactivate"):
        operations.set_active(person, do == "activate", by=by, now=now, address=address)
        what = "may sign in again" if do == "activate" else "can no longer sign in"
        messages.success(request, f"{person.username} {what}.")
    elif do == "password":
        if person.pk == by.pk:
            return redirect("mirrors:password")
        password = operations.reset_password(person.username, by=by.username, now=now, address=address)
        return render(request, "people/password.html", {"person": person, "password": password})
    else:
        return None
    return redirect("mirrors:person-edit", pk=person.pk)


@require_http_methods(["GET", "HEAD", "POST"])
@administrator_required
def person_delete(request: HttpRequest, pk: int) -> HttpResponse:
    person = get_object_or_404(User, pk=pk)
    problem = ""
    if request.method == "POST":
        try:
            operations.delete_person(person, by=_me(request), now=timezone.now(), address=address_of(request))
        except PeopleError as error:
            problem = str(error)
        else:
            messages.success(request, f"{person.username} was removed.")
            return redirect("mirrors:people")
    context = {"person": person, "problem": problem}
    return render(request, "people/delete.html", context, status=422 if problem else 200)
