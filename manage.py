#!/usr/bin/env python3
"""Django's command line for this checkout."""

import os
import sys


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "airgap.settings")
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line

    try:
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as problem:
        # A wrong setting is one sentence, not a traceback; monitoring reads 3 as "could not tell".
        sys.exit(complain(str(problem)))


def complain(sentence: str) -> int:
    sys.stderr.write(sentence + "\n")
    return 3 if sys.argv[1:2] == ["freshness"] else 1


if __name__ == "__main__":
    main()
