"""Whether the web server here answers. As a file it is the container's health check, and needs no other module."""

import http.client
import os
import ssl
import sys


def is_ready(host: str, port: int, *, tls: bool) -> bool:
    """Whether /healthz answers 200: web, database and broker are there. Asks directly, past any proxy."""
    host = {"0.0.0.0": "127.0.0.1", "[::]": "::1"}.get(host, host.strip("[]"))  # noqa: S104
    connection = http.client.HTTPConnection(host, port, timeout=2)
    if tls:
        # Its certificate names what browsers call it, not this loopback address; nothing secret is asked or told.
        unverified = ssl.create_default_context()
        unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection(host, port, timeout=2, context=unverified)
    try:
        connection.request("GET", "/healthz", headers={"Host": f"localhost:{port}"})
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def main() -> int:
    """Exit status 0 if it is ready, by the environment's address."""
    host, _, port = os.environ.get("AIRGAP_BIND", "127.0.0.1:8000").rpartition(":")
    return 0 if is_ready(host, int(port), tls=bool(os.environ.get("AIRGAP_TLS_CERT", "").strip())) else 1


if __name__ == "__main__":
    sys.exit(main())
