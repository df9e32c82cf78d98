"""supervisord's configuration, and its log lines in plain words."""

import json
import os
import pwd
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from airgap.running.programs import Instance, Program

LAUNCHER = Path(__file__).with_name("launch.py")
EXITED = re.compile(r"(?:WARN|INFO) exited: (\S+) \((.+?); (?:not )?expected\)")
KILLED = re.compile(r"WARN killing '(\S+)' \(\d+\) with SIGKILL")


def render_configuration(programs: Sequence[Program]) -> str:
    """supervisord.conf, for a supervisord that runs in `<data>/run/`.

    Paths are relative, or come in through the environment: no character of theirs can be taken for syntax.
    The broker is a group of its own with the lowest priority: it starts first and stops last; the others stop together.
    Nothing is ever given up (`startretries`); how long to wait before a start is launch.py's part.
    """
    lines = [
        "; Written by `manage.py up` at every start.",
        "[supervisord]",
        "nodaemon=true",
        "silent=true",
        "logfile=../logs/supervisor.log",
        "logfile_maxbytes=5MB",
        "logfile_backups=2",
        "pidfile=supervisord.pid",
        "childlogdir=../logs",
        "nocleanup=true",
    ]
    if os.geteuid() == 0:
        # Said, because supervisord otherwise warns that it was not told.
        lines.append(f"user={pwd.getpwuid(0).pw_name}")
    for program in programs:
        lines += [
            "",
            f"[program:{program.name}]",
            f"command=%(ENV_AIRGAP_RUN_LAUNCHER)s program programs.json {program.name}",
            "autostart=true",
            "autorestart=true",
            "startsecs=1",
            "startretries=1000000",
            "stopsignal=TERM",
            f"stopwaitsecs={program.stop_seconds}",
            "stopasgroup=true",
            "killasgroup=true",
            "redirect_stderr=true",
            f"stdout_logfile=../logs/{program.name}.log",
            "stdout_logfile_maxbytes=10MB",
            "stdout_logfile_backups=3",
        ]
    together = ",".join(program.name for program in programs if program.name != "broker")
    lines += ["", "[group:airgap]", f"programs={together}", "priority=20"]
    if any(program.name == "broker" for program in programs):
        lines += ["", "[group:private]", "programs=broker", "priority=10"]
    return "\n".join(lines) + "\n"


def environment(instance: Instance, inherited: dict[str, str]) -> dict[str, str]:
    """The processes' environment: as inherited, the data directory made absolute, the first password left out."""
    result = {name: value for name, value in inherited.items() if name != "AIRGAP_ADMIN_PASSWORD"}
    result.update(
        DJANGO_SETTINGS_MODULE="airgap.settings",
        AIRGAP_DATA_DIR=str(instance.data),
        AIRGAP_RUN_LAUNCHER=shlex.join([instance.python, "-I", str(LAUNCHER)]),
        PYTHONUNBUFFERED="1",
    )
    return result


def write_configuration(instance: Instance, programs: Sequence[Program]) -> Path:
    """Write supervisord.conf and programs.json under `<data>/run/` and forget the failures of the last run."""
    table = {program.name: {"argv": program.argv, "directory": str(instance.base)} for program in programs}
    (instance.run / "programs.json").write_text(json.dumps(table, indent=1))
    for record in instance.run.glob("*.starts"):
        record.unlink()
    configuration = instance.run / "supervisord.conf"
    configuration.write_text(render_configuration(programs))
    return configuration


def in_plain_words(line: str, titles: dict[str, str], logs: Path) -> str | None:
    """What a line of supervisord's log means to the person at the terminal; None if nothing."""
    if found := EXITED.search(line):
        name, how = found[1], found[2].replace("terminated by", "killed by")
        return f"The {titles.get(name, name)} ended ({how}) and is started again; its log is {logs / name}.log"
    if found := KILLED.search(line):
        return f"The {titles.get(found[1], found[1])} did not stop in time and was killed."
    return None
