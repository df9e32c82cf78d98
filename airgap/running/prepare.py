"""`make setup`: the virtual environment and the locked requirements, once per change of either.

Run as a file by the interpreter that the environment is to use; it knows only the standard library.
"""

import fcntl
import hashlib
import os
import subprocess
import sys
from pathlib import Path

BASE = Path(__file__).resolve().parent.parent.parent
ENVIRONMENT = BASE / ".venv"
PYTHON = ENVIRONMENT / "bin" / "python"
# In an unpacked offline kit: every package as a wheel. Then no index is asked.
WHEELHOUSE = BASE / "wheelhouse"


class CannotPrepare(Exception):
    """One sentence: what is missing and how to get it."""


def stamp_of(lock: Path) -> str:
    """What the stamp of an installed lock file must say: same file, same Python, same place."""
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()
    return f"{digest} {sys.version_info[0]}.{sys.version_info[1]} {ENVIRONMENT}\n"


def stamp_file(lock: Path) -> Path:
    return ENVIRONMENT / f".installed-{lock.relative_to(BASE).as_posix().replace('/', '-')}"


def is_installed(lock: Path) -> bool:
    stamp = stamp_file(lock)
    return stamp.exists() and stamp.read_text() == stamp_of(lock)


def is_usable() -> bool:
    """Whether .venv has a Python that starts and is of this version."""
    question = "import sys; print(*sys.version_info[:2], sys.prefix != sys.base_prefix)"
    try:
        answer = subprocess.run([PYTHON, "-c", question], capture_output=True, text=True, timeout=60)
    except OSError:
        return False
    return answer.stdout.split() == [str(sys.version_info[0]), str(sys.version_info[1]), "True"]


def make_environment() -> None:
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        raise CannotPrepare(
            f"This Python {version} has no venv module; install it: apt install python3-venv (or python{version}-venv)."
        ) from None
    print(f"Making .venv with Python {sys.version.split()[0]}.", file=sys.stderr)  # noqa: T201
    made = subprocess.run([sys.executable, "-m", "venv", "--clear", ENVIRONMENT], capture_output=True, text=True)
    if made.returncode:
        raise CannotPrepare(f"{ENVIRONMENT} cannot be made: {(made.stdout + made.stderr).strip()}")


def install(lock: Path) -> None:
    print(f"Installing {lock.relative_to(BASE)} (every package checked against its hash).", file=sys.stderr)  # noqa: T201
    command = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    from_kit = WHEELHOUSE.is_dir()
    if from_kit:
        command += ["--no-index", "--find-links", str(WHEELHOUSE)]
    # PIP_USER=1, set on some machines for everything else, cannot be right inside a virtual environment.
    done = subprocess.run([*command, "--require-hashes", "-r", str(lock)], env={**os.environ, "PIP_USER": "0"})
    if done.returncode and from_kit:
        raise CannotPrepare(
            f"pip could not install {lock.relative_to(BASE)} from {WHEELHOUSE.name}/; its reason stands above. KIT.txt "
            "says for which Pythons and architectures this kit is (here: Python "
            f"{sys.version_info[0]}.{sys.version_info[1]} on {os.uname().machine}); name one of those "
            "(make up PYTHON=python3.12), or have a kit made for this one."
        )
    if done.returncode:
        raise CannotPrepare(
            f"pip could not install {lock.relative_to(BASE)}; its reason stands above. Behind a proxy set HTTPS_PROXY, "
            "with a package mirror PIP_INDEX_URL; then run the same command again."
        )


def main(names: list[str]) -> None:
    locks = [BASE / name for name in names]
    here = os.open(BASE, os.O_RDONLY)
    # Two instances may be started from one checkout at the same moment.
    fcntl.flock(here, fcntl.LOCK_EX)
    missing = [lock for lock in locks if not is_installed(lock)]
    if not missing and PYTHON.exists():
        return
    if not is_usable():
        make_environment()
        missing = locks
    for lock in missing:
        install(lock)
        stamp_file(lock).write_text(stamp_of(lock))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except CannotPrepare as problem:
        sys.exit(str(problem))
    except PermissionError as problem:
        sys.exit(f"{problem.filename} cannot be written; run make as the owner of this checkout.")
