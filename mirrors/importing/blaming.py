"""Which volume of a bundle to bring again, found out once reading it has failed, so that the others need not be.

A member may lie in many volumes, and which of them is damaged no bundle can say: the list of checksums can, if it came
with them. It is signed by nobody. One that lies leads to another refusal, and to nothing else.
"""

from collections.abc import Callable, Sequence

from mirrors import wording
from mirrors.bundle.checking import ListError, damaged, read_list
from mirrors.bundle.joining import VolumeFile
from mirrors.bundle.volumes import LIST_ENDING, parse_name
from mirrors.importing.finding import FindingError
from mirrors.importing.report import CONTENT, COPY_AGAIN, Report
from mirrors.signing import Standing
from mirrors.stopping import StopSignal


def blame(
    files: Sequence[VolumeFile],
    listed: VolumeFile | None,
    report: Report,
    *,
    progress: Callable[[int, str], object] | None = None,
    stop: StopSignal | None = None,
) -> None:
    """Say in the report of a refused bundle which of its volumes are damaged, or how to find out.

    `listed` is the list of checksums, None if none came. Raises FindingError, Stopped.
    """
    named = {each[0::2] for each in (parse_name(file.name) for file in files) if each is not None}
    if len(files) < 2 or len(named) != 1 or not _may_be_damage(report):
        return
    ((whole, count),) = named
    name = whole + LIST_ENDING
    why = "no list of checksums came with them"
    if listed is not None:
        name = listed.name
        try:
            sums = read_list(listed, count)
            wrong = damaged(files, sums, progress=progress, stop=stop)
        except (ListError, FindingError) as error:
            why = f"{name} cannot be used: {str(error).rstrip('.')}"
        else:
            if len(wrong) < len(files):
                _tell(report, wrong, len(files), count, name)
                return
            why = f"{name} fits none of them, so it is another bundle's, or all of them are damaged"
    if report.wants_another_copy:
        report.unclear = True
        report.warnings.append(
            f"It came in {len(files)} volumes, and which of them is damaged is not known: {why}. It is found out where "
            f"they lie: sha256sum -c --ignore-missing {whole}{LIST_ENDING}"
        )


def _may_be_damage(report: Report) -> bool:
    return report.refusal == CONTENT or report.signature == Standing.WRONG


def _tell(report: Report, wrong: list[VolumeFile], there: int, count: int, name: str) -> None:
    if not wrong:
        if report.wants_another_copy:
            report.warnings.append(
                f"All {there} volumes are what {name} says: they were damaged before they were cut, or the list was "
                "made afterwards. Fetch the bundle from the connected side again."
            )
        return
    report.damaged = [file.name for file in wrong]
    numbers = wording.ranges_text([parsed[1] for parsed in map(parse_name, report.damaged) if parsed is not None])
    if len(wrong) == 1:
        what = f"Volume {numbers} of {count} is damaged: {wrong[0].name} is not what {name} says. Copy it again."
    else:
        what = f"Volumes {numbers} of {count} are damaged: they are not what {name} says. Copy them again."
    report.problems = [what, *(_alone(problem) for problem in report.problems)]


def _alone(problem: str) -> str:
    """What was found in it, without asking for all of the bundle again."""
    for ending in COPY_AGAIN:
        problem = problem.removesuffix(f" {ending}")
    return problem
