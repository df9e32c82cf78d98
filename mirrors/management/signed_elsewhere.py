"""`--sign-with`: the signature of a key that is kept outside, by a command that a person names."""

import shlex
import subprocess

from mirrors.management.commanding import WRONG_USAGE, Problem

# Somebody may have to type a passphrase, or look for a token.
PATIENCE = 600


def signed_by_command(command: str, data: bytes) -> bytes:
    """What the command wrote when it was given `data` on standard input. Raises Problem."""
    try:
        done = subprocess.run(shlex.split(command), input=data, stdout=subprocess.PIPE, timeout=PATIENCE)
    except ValueError:
        raise Problem("The command of --sign-with cannot be read: a quote is not closed.", WRONG_USAGE) from None
    except subprocess.TimeoutExpired:
        raise Problem(f"The command of --sign-with took longer than {PATIENCE} s.") from None
    except OSError as error:
        raise Problem(f"The command of --sign-with cannot be run: {error.strerror}.") from None
    if done.returncode:
        raise Problem(f"The command of --sign-with ended with status {done.returncode}; nothing was signed.")
    return done.stdout
