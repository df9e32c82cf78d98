"""`make install-service`: systemd units for this checkout, the same programs as `make up` with systemd restarting them.

As root the units are system-wide, run as an ordinary user and may write the data directory only; for anybody else they
are that user's own. The texts stand in deploy/systemd/; the settings go into an environment file beside them.
"""

import argparse
import os
import pwd
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from airgap.running import broker, programs
from airgap.running.preconditions import CannotStart
from airgap.running.programs import Instance, Program

BASE = Path(__file__).resolve().parent.parent.parent
TEMPLATES = BASE / "deploy" / "systemd"
HOW_TO_MAKE_A_USER = "useradd --system --no-create-home --shell /usr/sbin/nologin"
KEPT = ("DATABASE_URL", "REDIS_URL", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


@dataclass(frozen=True)
class Place:
    """Where units and settings go: system-wide for root, else the user's own."""

    units: Path
    environment_file: Path
    system: bool
    user: str

    @property
    def systemctl(self) -> list[str]:
        return ["systemctl"] if self.system else ["systemctl", "--user"]


def this_place(user: str = "") -> Place:
    """CannotStart where root would run the services without having been named."""
    if os.geteuid() != 0:
        configuration = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
        return Place(configuration / "systemd" / "user", configuration / "airgap.env", False, "")
    named, user = bool(user), user or os.environ.get("SUDO_USER", "") or BASE.owner()
    if user == "root" and not named:
        raise CannotStart(
            "The services should not run as root: name their user with make install-service SERVICE_USER=airgap "
            f"(made by: {HOW_TO_MAKE_A_USER} airgap), or SERVICE_USER=root if you mean it."
        )
    try:
        pwd.getpwnam(user)
    except KeyError:
        raise CannotStart(f"There is no user {user!r} here; make one: {HOW_TO_MAKE_A_USER} {user}") from None
    return Place(Path("/etc/systemd/system"), Path("/etc/airgap.env"), True, user)


def quoted(argument: str) -> str:
    """One argument of ExecStart: in double quotes, with systemd's % and $ doubled (systemd.service(5))."""
    text = argument.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{text}"'


def command_line(arguments: Iterable[str]) -> str:
    return " ".join(quoted(argument) for argument in arguments)


def fill(template: str, values: Mapping[str, str]) -> str:
    """The template with every @NAME@ replaced; a name without a value is a mistake of ours (KeyError)."""
    text = (TEMPLATES / template).read_text()
    return re.sub(r"@([A-Z_]+)@", lambda found: values[found[1]], text)


def service_programs(instance: Instance, place: Place) -> list[Program]:
    """The programs that become units. CannotStart if the private broker's socket would be in a private /tmp."""
    result = [programs.web(instance), programs.worker(instance), programs.scheduler(instance)]
    if instance.socket is None:
        return result
    if place.system and not instance.socket.is_relative_to(instance.data):
        raise CannotStart(
            f"The path of the data directory {instance.data} is too long for the broker's socket. "
            "Set AIRGAP_DATA_DIR to a shorter one (such as /var/lib/airgap), or set REDIS_URL."
        )
    return [programs.broker(broker.find_server().path, instance.run / "broker.conf"), *result]


def render(instance: Instance, place: Place) -> dict[str, str]:
    """Unit file name -> contents."""
    units = service_programs(instance, place)
    values = {
        "BASE": str(instance.base).replace("%", "%%"),
        "DATA": quoted(str(instance.data)),
        "ENVIRONMENT_FILE": str(place.environment_file).replace("%", "%%"),
        "USER": place.user,
        "CAPABILITIES": "CAP_NET_BIND_SERVICE" if instance.port < 1024 else "",
        "WANTED_BY": "multi-user.target" if place.system else "default.target",
        "SERVICES": " ".join(f"airgap-{name}.service" for name in ["prepare", *(unit.name for unit in units)]),
    }
    values["COMMON"] = (fill("common.in", values) + (fill("system.in", values) if place.system else "")).rstrip()
    prepare = [instance.python, str(instance.base / "manage.py"), "up", "--prepare"]
    result = {
        "airgap.target": fill("airgap.target.in", values),
        "airgap-prepare.service": fill("airgap-prepare.service.in", {**values, "COMMAND": command_line(prepare)}),
    }
    for unit in units:
        own = {
            "TITLE": unit.title,
            # gunicorn says when it listens; the others have nothing to wait for.
            "TYPE": "notify" if unit.name == "web" else "exec",
            "COMMAND": command_line(unit.argv),
            "STOP_SECONDS": str(unit.stop_seconds + 2),
            "AFTER": "" if unit.name == "broker" or instance.socket is None else " airgap-broker.service",
        }
        result[f"airgap-{unit.name}.service"] = fill("airgap-program.service.in", {**values, **own})
    return result


def render_environment(environment: Mapping[str, str], data: Path) -> str:
    """The environment file: what this shell has set for Airgap, so that the services see the same."""
    given = (name for name in environment if name.startswith("AIRGAP_") or name in KEPT)
    names = sorted(name for name in given if name != "AIRGAP_DATA_DIR" and environment[name].strip())
    lines = [
        "# Settings of the Airgap services; docs/configuration.md explains each. After a change:",
        "#   make install-service   (again, as it renders AIRGAP_DATA_DIR and AIRGAP_BIND into the units)",
        f"AIRGAP_DATA_DIR={_value(str(data))}",
        *(f"{name}={_value(environment[name])}" for name in names),
    ]
    return "\n".join(lines) + "\n"


def _value(text: str) -> str:
    return '"' + re.sub(r'(["\\`$])', r"\\\1", text) + '"'


def read_environment(text: str) -> dict[str, str]:
    """The variables of an environment file as systemd reads it (quotes and backslashes; no continuation lines)."""
    result = {}
    for line in text.splitlines():
        name, equals, value = line.strip().partition("=")
        if not equals or name.startswith(("#", ";")):
            continue
        value = value.strip()
        if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
            value = re.sub(r'\\(["\\`$])', r"\1", value[1:-1]) if value[0] == '"' else value[1:-1]
        result[name.strip()] = value
    return result


def load_instance(place: Place) -> Instance:
    """The instance as its environment file describes it, else as this shell does."""
    if place.environment_file.exists():
        os.environ.update(read_environment(place.environment_file.read_text()))
    os.environ["DJANGO_SETTINGS_MODULE"] = "airgap.settings"
    # Root must not be the one who makes the key file that the service's user reads.
    os.environ.setdefault("AIRGAP_SECRET_KEY", "not used while units are written")
    from django.conf import settings

    return Instance.from_settings(settings)


def require_data_directory(instance: Instance, place: Place) -> None:
    """Make the data directory for the service's user; CannotStart if it is somebody else's."""
    if not place.system:
        return
    if not instance.data.exists():
        instance.data.mkdir(mode=0o700, parents=True)
        shutil.chown(instance.data, place.user)
    elif instance.data.owner() != place.user:
        owner = instance.data.owner()
        raise CannotStart(
            f"The data directory {instance.data} belongs to {owner}, the services run as {place.user}. "
            f"Name the user (make install-service SERVICE_USER={owner}), or: chown -R {place.user} {instance.data}"
        )


def systemctl(place: Place, *arguments: str) -> bool:
    return subprocess.run([*place.systemctl, *arguments]).returncode == 0


def install(user: str) -> None:
    if not Path("/run/systemd/system").is_dir():
        raise CannotStart("systemd does not run on this machine; use `make up`, or deploy/compose.yaml for containers.")
    place = this_place(user)
    given = dict(os.environ)
    instance = load_instance(place)
    require_data_directory(instance, place)
    units = render(instance, place)
    place.units.mkdir(parents=True, exist_ok=True)
    for name in (path.name for path in place.units.glob("airgap-*.service") if path.name not in units):
        systemctl(place, "disable", "--now", name)
        (place.units / name).unlink()
    for name, text in units.items():
        (place.units / name).write_text(text)
    if not place.environment_file.exists():
        handle = os.open(place.environment_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(render_environment(given, instance.data))
    if not (systemctl(place, "daemon-reload") and systemctl(place, "enable", "airgap.target")):
        raise CannotStart("systemd refused the units; its reason stands above.")
    if not systemctl(place, "restart", "airgap.target"):
        raise CannotStart(f"The services did not start; see: {' '.join(place.systemctl)} status 'airgap*'")
    tell(f"Airgap runs as {'system' if place.system else 'user'} services at {instance.url}")
    tell(f"Settings:  {place.environment_file}")
    tell(f"State:     {' '.join(place.systemctl)} status 'airgap*'")
    tell(f"Logs:      journalctl {'' if place.system else '--user '}-u 'airgap*'")
    tell("Remove:    make uninstall-service")
    if not place.system:
        tell("To keep them running after you log out: loginctl enable-linger")


def uninstall() -> None:
    place = this_place("root" if os.geteuid() == 0 else "")
    found = sorted(path.name for path in place.units.glob("airgap*") if path.suffix in (".service", ".target"))
    if not found:
        tell(f"There are no Airgap units in {place.units}.")
        return
    systemctl(place, "disable", "--now", "airgap.target")
    systemctl(place, "stop", *found)
    for name in found:
        (place.units / name).unlink()
    systemctl(place, "daemon-reload")
    tell(f"Removed {len(found)} units from {place.units}; data and {place.environment_file} are left to you.")


def tell(line: str) -> None:
    sys.stdout.write(line + "\n")


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m airgap.running.service", description=__doc__)
    parser.add_argument("action", choices=["install", "uninstall", "render"])
    parser.add_argument("folder", nargs="?", type=Path, help="render: where to write the units")
    parser.add_argument("--user", default="", help="who the system-wide services run as")
    options = parser.parse_args(arguments)
    try:
        if options.action == "install":
            install(options.user)
        elif options.action == "uninstall":
            uninstall()
        else:
            place = this_place(options.user)
            folder = options.folder or Path.cwd()
            folder.mkdir(parents=True, exist_ok=True)
            for name, text in render(load_instance(place), place).items():
                (folder / name).write_text(text)
    except CannotStart as problem:
        sys.exit(str(problem))


if __name__ == "__main__":
    main(sys.argv[1:])
