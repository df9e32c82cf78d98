"""Put first on PYTHONPATH: every Python process then writes down whom it connects to and which names it asks for.

One line each in the file that AIRGAP_TEST_CALLS names: the program, the event, and its arguments. Audit events are
raised by the interpreter itself, so no library gets around them.
"""

import os
import sys

_FILE = os.environ.get("AIRGAP_TEST_CALLS", "")
_EVENTS = {
    "socket.connect",
    "socket.sendto",
    "socket.sendmsg",
    "socket.getaddrinfo",
    "socket.gethostbyname",
    "socket.gethostbyaddr",
    "socket.getnameinfo",
}


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if event in _EVENTS:
        said = [str(each) for each in arguments if not hasattr(each, "fileno")]
        family = [int(each.family) for each in arguments if hasattr(each, "family")]
        program = " ".join(sys.argv[:4]) if hasattr(sys, "argv") else ""
        line = "\t".join([program, event, *(str(each) for each in family), *said]).replace("\n", " ") + "\n"
        descriptor = os.open(_FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, line.encode(errors="replace"))
        finally:
            os.close(descriptor)


if _FILE:
    sys.addaudithook(_note)
