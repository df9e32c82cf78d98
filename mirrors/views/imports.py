"""The page Import: bring a bundle in, see what it holds before anything is switched, and what came in before."""

from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property, wraps
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_POST, require_safe

from mirrors import clock, tasks, wording
from mirrors.bundle.volumes import LIST_ENDING
from mirrors.importing import asking, finding, staging
from mirrors.importing.asking import ImportRefused, Wishes
from mirrors.importing.finding import FindingError
from mirrors.importing.report import SIGNATURE, Report
from mirrors.importing.trust import withdrawn
from mirrors.models import Import, Run, Upload
from mirrors.receipting import giving
from mirrors.views.access import View, address_of, administrator_required, operator_required
from mirrors.views.page import PageRequest, live_page
from mirrors.views.rows import moving
from mirrors.views.run import step_rows
from mirrors.views.uploads import answer_json

A_PAGE = 30
RUNNING_SECONDS = 2
IDLE_SECONDS = 10

State = Run.State
PATTERNS = (finding.FILE, finding.SINGLE, finding.LIST)


def importing_side(view: View) -> View:
    """There is no such page on the connected side."""

    @wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if settings.AIRGAP_SIDE == "connected":
            raise Http404("The connected side imports nothing.")
        return view(request, *args, **kwargs)

    return guarded


@dataclass
class Staged:
    """Uploaded files that belong together. `problem` says what is missing, "" if it can be imported.

    `last` is the import that read some of them already and found one damaged.
    """

    name: str
    uploads: list[Upload] = field(default_factory=list)

    last: Import | None = None

    @property
    def is_single_files(self) -> bool:
        return "/" in self.uploads[0].name

    @property
    def there(self) -> int:
        return sum(upload.offset for upload in self.uploads)

    @property
    def size(self) -> int:
        return sum(upload.size_bytes for upload in self.uploads)

    @property
    def expires_at(self) -> datetime:
        return min(upload.expires_at for upload in self.uploads)

    @property
    def problem(self) -> str:
        open_ones = [upload for upload in self.uploads if not upload.is_complete]
        if open_ones:
            same = "files" if self.is_single_files else "file"
            return f"{wording.progress_text(self.there, self.size)}; drop the same {same} again to go on"
        if all(upload.is_list for upload in self.uploads):
            return "only its list of checksums is here; its volumes are missing"
        return _as_candidate(self).missing_text

    @cached_property
    def whole(self) -> set[str]:
        """The ids of volumes that the last import found to be what their list says: they need not be sent again."""
        if self.last is None or not Report.from_dict(self.last.report).damaged:
            return set()
        return {file["upload"] for file in self.last.files} & {upload.pk for upload in self.uploads}


def staged(by: str | None = None) -> list[Staged]:
    """What was uploaded and is not imported yet, by bundle; of a file that was uploaded twice, the later one."""
    rows = Upload.objects.filter(run=None).order_by("created_at")
    found: dict[str, dict[str, Upload]] = {}
    for upload in rows.filter(by=by) if by is not None else rows:
        match = next(filter(None, (pattern.fullmatch(upload.name) for pattern in PATTERNS)), None)
        if match is not None:
            before = found.setdefault(match["bundle"], {}).get(upload.name)
            if before is None or not before.is_complete or upload.is_complete:
                found[match["bundle"]][upload.name] = upload
    return [
        Staged(name, sorted(files.values(), key=lambda upload: (upload.is_list, finding.number_of(upload.name))))
        for name, files in found.items()
    ]


def _with_last(groups: list[Staged]) -> list[Staged]:
    """Each with the import that left it to be mended, if one did."""
    names = [group.name for group in groups]
    failed = Import.objects.filter(state=State.FAILED, origin=Import.Origin.UPLOAD, name__in=names).order_by("-pk")
    for run in failed[:A_PAGE] if names else ():
        ids = {file.get("upload") for file in run.files}
        for group in groups:
            if group.last is None and group.name == run.name and any(upload.pk in ids for upload in group.uploads):
                group.last = run
    return groups


def _as_candidate(group: Staged) -> finding.Candidate:
    parts = [
        finding.Part(upload.name.rpartition("/")[2], staging.path_of(upload.pk), upload.size_bytes, upload.touched_at)
        for upload in group.uploads
        if not upload.is_list
    ]
    if group.is_single_files:
        loose = finding.single_files(group.name, parts)
        return loose or finding.Candidate(group.name, 0, parts, absent=["bundle.json or SHA256SUMS"])
    found = finding.grouped(parts)
    return found[0] if len(found) == 1 else finding.Candidate(group.name, 0, parts)


@require_safe
@importing_side
def imports(request: PageRequest) -> HttpResponse:
    """The page; it goes on by itself while something is uploaded or imported."""
    now = clock.trusted_now().now
    open_ones = list(Import.objects.open().order_by("-pk"))
    page = Paginator(Import.objects.exclude(finished_at=None), A_PAGE).get_page(request.GET.get("page"))
    headline, explanation = _standing(now, open_ones)
    may = request.user.may_operate
    context: dict[str, object] = {
        "now": now,
        "headline": headline,
        "explanation": explanation,
        "open_rows": [{"run": run, "moving": moving(run, now)} for run in open_ones],
        "page": page,
        "rows": [{"run": run, "report": Report.from_dict(run.report)} for run in page],
        "staged": _with_last(staged()) if may else [],
        "roots": finding.in_roots() if may else [],
        "may_operate": may,
        "may_administer": request.user.may_administer,
        "drop_directory": settings.AIRGAP_DROP_DIRECTORY,
    }
    every = RUNNING_SECONDS if any(not run.is_waiting for run in open_ones) else IDLE_SECONDS
    return live_page(request, "importing/imports.html", "importing/_imports.html", context, every=every)


def _standing(now: datetime, open_ones: list[Import]) -> tuple[str, str]:
    waits = [run for run in open_ones if run.is_waiting]
    if waits:
        count = wording.capitalized(wording.number_word(len(waits)))
        words = "bundle waits" if len(waits) == 1 else "bundles wait"
        return f"{count} {words} for a decision.", f"Nothing of {'it' if len(waits) == 1 else 'them'} is switched yet."
    if open_ones:
        return f"{open_ones[-1].name} is being imported.", "Nothing is switched before every byte was verified."
    last = Import.objects.all().done().order_by("-finished_at").first()
    if last is None or last.finished_at is None:
        return "Nothing has come across yet.", "Drop a bundle here, or name one in a directory of this server."
    return f"The last bundle came {wording.ago_text(last.finished_at, now)}.", last.note


# Beginning


@require_POST
@importing_side
@operator_required
def import_uploads(request: PageRequest) -> HttpResponse:
    """Import what was uploaded under this name. Answers the page's script in JSON."""
    name = request.POST.get("name", "")[:200]
    wants_json = request.headers.get("Accept", "") == "application/json"
    try:
        group = next((each for each in staged() if each.name == name), None)
        if group is None:
            raise ImportRefused(f"{name} is not among the uploaded files.")
        if group.problem:
            raise ImportRefused(f"{name}: {group.problem}.")
        run = asking.request_import_of_uploads(
            group.uploads,
            name,
            by=request.user.username,
            now=timezone.now(),
            wishes=_wishes(request),
            address=address_of(request),
        )
    except ImportRefused as refusal:
        if wants_json:
            return answer_json({"problem": str(refusal)})
        messages.error(request, str(refusal))
        return redirect("mirrors:imports")
    tasks.send_import(run)
    url = reverse("mirrors:import-detail", args=[run.pk])
    return answer_json({"url": url}) if wants_json else redirect(url)


@require_POST
@importing_side
@operator_required
def import_directory(request: PageRequest) -> HttpResponse:
    """Import a bundle that lies in one of the folders that may be imported from."""
    try:
        folder, _, name = request.POST.get("bundle", "").rpartition("/")
        candidate = finding.in_root(folder, name)
        run = asking.request_import(
            candidate,
            origin=Import.Origin.DIRECTORY,
            by=request.user.username,
            now=timezone.now(),
            wishes=_wishes(request),
            address=address_of(request),
        )
    except (FindingError, ImportRefused) as problem:
        messages.error(request, str(problem))
        return redirect("mirrors:imports")
    tasks.send_import(run)
    return redirect("mirrors:import-detail", pk=run.pk)


def _wishes(request: PageRequest) -> Wishes:
    return Wishes(at_once=request.POST.get("at_once") == "1")


@require_POST
@importing_side
@operator_required
def upload_remove(request: PageRequest) -> HttpResponse:
    """Remove what was uploaded of one bundle."""
    name = request.POST.get("name", "")
    group = next((each for each in staged() if each.name == name), None)
    for upload in group.uploads if group is not None else ():
        staging.remove(upload)
    messages.success(request, f"What was uploaded of {name[:200]} is removed.")
    return redirect("mirrors:imports")


# One import


@require_safe
@importing_side
def import_detail(request: PageRequest, pk: int) -> HttpResponse:
    """Its progress, then its report; while it is open it goes on by itself."""
    run = get_object_or_404(Import, pk=pk)
    now = timezone.now()
    headline, explanation = told(run, now)
    report, has_files, successor = Report.from_dict(run.report), run.uploads.exists(), asking.successor(run)
    for_site = not run.is_open and bool(run.bundle and run.transfer)
    no_receipt = giving.why_none(run) if for_site else ""
    context: dict[str, object] = {
        "now": now,
        "run": run,
        "report": report,
        "headline": headline,
        "explanation": explanation,
        "moving": moving(run, now) if run.is_open and not run.is_waiting else None,
        "withdrawn": run.is_waiting and bool(withdrawn(run.fingerprint)),
        "steps": step_rows(run),
        "worker": run.worker.split(":")[0],
        "may_operate": request.user.may_operate,
        "may_administer": request.user.may_administer,
        "may_be_allowed": run.state == State.FAILED and report.may_be_allowed,
        "allow_word": "Allow unsigned" if report.refusal == SIGNATURE else "Allow for another site",
        "has_receipt": for_site and not no_receipt,
        "no_receipt": no_receipt,
        "has_files": has_files,
        "kept": _kept(run, report),
        "file_noun": "volume" if any(finding.number_of(file["name"]) for file in run.files) else "file",
        "has_files_or_path": has_files or run.origin != Import.Origin.UPLOAD,
        "successor": successor,
        "may_try_again": run.state in (State.FAILED, State.LOST, State.CANCELLED)
        and successor is None
        and (has_files or run.origin != Import.Origin.UPLOAD),
    }
    every = None if not run.is_open else IDLE_SECONDS if run.is_waiting else RUNNING_SECONDS
    return live_page(request, "importing/import.html", "importing/_import.html", context, every=every)


@dataclass
class Kept:
    """What of a damaged upload is kept until somebody brings its damaged volumes again."""

    uploads: list[Upload]
    damaged: list[int]
    count: int
    list_name: str

    @property
    def headline(self) -> str:
        if not self.damaged:
            return f"All {self.count} volumes are kept."
        noun = "volume" if len(self.damaged) == 1 else "volumes"
        return f"Only {noun} {wording.ranges_text(self.damaged)} of {self.count} must be sent again."

    @property
    def whole(self) -> str:
        """`Volumes 1 and 3 are what their list says and stay`."""
        numbers = [finding.number_of(upload.name) for upload in self.uploads if not upload.is_list]
        said = "Volume {} is what its list says and stays", "Volumes {} are what their list says and stay"
        return said[len(numbers) > 1].format(wording.ranges_text(numbers))

    @property
    def size(self) -> int:
        return sum(upload.size_bytes for upload in self.uploads)

    @property
    def expires_at(self) -> datetime:
        return min(upload.expires_at for upload in self.uploads)


def _kept(run: Import, report: Report) -> Kept | None:
    if run.state != State.FAILED or not report.may_be_mended:
        return None
    uploads = staging.kept_of(run)
    if not uploads or Import.objects.filter(name=run.name, origin=run.origin, pk__gt=run.pk).exists():
        return None
    damaged = [finding.number_of(name) for name in report.damaged]
    return Kept(uploads, damaged, len(run.files), run.name + LIST_ENDING)


def told(run: Import, now: datetime) -> tuple[str, str]:
    """The import in a sentence, and what stands under it."""
    name = f"Bundle {run.bundle}" if run.bundle else run.name
    if run.is_waiting:
        if why := withdrawn(run.fingerprint):
            return f"{name} was verified, and may not be switched to any more.", why
        return f"{name} is verified.", "Nothing is switched yet. See what it would change, then decide."
    if run.state == State.QUEUED:
        return f"{name} waits.", f"Queued {wording.ago_text(run.queued_at, now)}. Imports are made one after the other."
    if run.state == State.RUNNING:
        return f"{name} is being verified.", wording.capitalized(f"{run.stage}.") if run.stage else ""
    if run.state == State.SUCCEEDED:
        return f"{name} is in.", run.note
    if run.state == State.UNCHANGED:
        outcomes = {snapshot.outcome for snapshot in Report.from_dict(run.report).snapshots}
        return f"{name} {'is older than what is served' if outcomes == {'older'} else 'brought nothing new'}.", run.note
    if run.state == State.FAILED:
        return f"{name} was not imported.", "Nothing was switched; what was served before is still served."
    if run.state == State.CANCELLED:
        return f"{name} was not imported.", run.error
    return f"The import of {name} was lost.", run.error


@require_POST
@importing_side
@operator_required
def import_switch(request: PageRequest, pk: int) -> HttpResponse:
    run = get_object_or_404(Import, pk=pk)
    try:
        run = asking.decide(
            run,
            switch_older=request.POST.get("older") == "1",
            by=request.user.username,
            now=timezone.now(),
            address=address_of(request),
        )
        messages.success(request, run.note)
    except ImportRefused as refusal:
        messages.error(request, str(refusal))
    return redirect("mirrors:import-detail", pk=pk)


@require_POST
@importing_side
@operator_required
def import_stop(request: PageRequest, pk: int) -> HttpResponse:
    """Stop one that runs, discard one that waits, or remove what an ended one left."""
    run = get_object_or_404(Import, pk=pk)
    if not run.is_open:
        asking.discard(run)
        messages.success(request, "The uploaded files are removed.")
    elif asking.stop(run, by=request.user.username, now=timezone.now()):
        messages.success(request, "The import is ended; nothing was switched.")
    return redirect("mirrors:import-detail", pk=pk)


@require_POST
@importing_side
@operator_required
def import_again(request: PageRequest, pk: int) -> HttpResponse:
    """The same files once more, as when a key is trusted now or room was made."""
    run = get_object_or_404(Import, pk=pk)
    return _second(
        request, run, lambda: asking.again(run, by=request.user.username, now=timezone.now(), wishes=Wishes())
    )


@require_POST
@importing_side
@administrator_required
def import_allow(request: PageRequest, pk: int) -> HttpResponse:
    """An administrator allows for this import what is refused otherwise, and says why."""
    run = get_object_or_404(Import, pk=pk)
    reason = request.POST.get("reason", "")[:400]
    return _second(
        request,
        run,
        lambda: asking.allow(
            run, by=request.user.username, now=timezone.now(), reason=reason, address=address_of(request)
        ),
    )


def _second(request: PageRequest, run: Import, make: Any) -> HttpResponse:
    try:
        fresh: Import = make()
    except ImportRefused as refusal:
        messages.error(request, str(refusal))
        return redirect("mirrors:import-detail", pk=run.pk)
    tasks.send_import(fresh)
    return redirect("mirrors:import-detail", pk=fresh.pk)
