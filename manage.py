#!/usr/bin/env python3
"""Django's command line for this checkout. What keeps a command from starting is a sentence, not a traceback."""

import os
import sys


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "airgap.settings")
    try:
        from django.core.exceptions import ImproperlyConfigured
        from django.core.management import execute_from_command_line
    except ModuleNotFoundError as missing:
        sys.exit(complain(f"{sys.executable} lacks {missing.name}: run `make setup`, then .venv/bin/python manage.py."))
    try:
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as problem:
        sys.exit(complain(str(problem)))
    except Exception as fault:
        if not asks_for_freshness() or "--traceback" in sys.argv:
            raise
        sys.exit(complain(f"Could not tell: {fault}"))


def asks_for_freshness() -> bool:
    return sys.argv[1:2] == ["freshness"]


def complain(sentence: str) -> int:
    """Monitoring reads 3 as "could not tell", and scripts read a list wherever they asked for JSON."""
    sys.stderr.write(sentence + "\n")
    if "--json" in sys.argv:
        sys.stdout.write("[]\n")
    return 3 if asks_for_freshness() else 1


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(complain("Stopped."))
