"""gunicorn's configuration file; what varies stands on its command line (programs.py)."""

from typing import Any

from airgap.running.launch import die_with_parent


def post_fork(server: Any, worker: Any) -> None:
    # A killed arbiter would leave a worker that joins its threads, one of them perhaps in an hour's download.
    die_with_parent()
