"""The demo upstream: a read-only registry, a VEX Hub and releases on loopback, plain HTTP, something new every minute.

    python -m mirrors.demo.upstream --bind 127.0.0.1:5055 --directory DIR [--every 60] [--rate 4000000]

Blobs are sent slowly on purpose, so that progress can be watched. SIGTERM ends it at once.
"""

import argparse
import logging
import re
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from mirrors.demo.assets import MANIFEST_TYPE
from mirrors.demo.publishing import VEX_ARCHIVE_PATH, Plan, Publisher, utc_now

log = logging.getLogger("mirrors.demo")

CHUNK = 64 * 1024
DIGEST = r"sha256:[0-9a-f]{64}"
NAME = r"[a-z0-9]+(?:[._/-][a-z0-9]+)*"
MANIFEST_URL = re.compile(rf"/v2/({NAME})/manifests/({DIGEST}|[A-Za-z0-9_][A-Za-z0-9._-]{{0,127}})")
BLOB_URL = re.compile(rf"/v2/({NAME})/blobs/({DIGEST})")
TAGS_URL = re.compile(rf"/v2/({NAME})/tags/list")
RELEASE_URL = re.compile(r"/trivy/v([0-9.]{1,20})/([A-Za-z0-9._-]{1,100})")
REFERRERS_URL = re.compile(rf"/v2/({NAME})/referrers/({DIGEST})")
RANGE = re.compile(r"bytes=(\d*)-(\d*)")
EMPTY_INDEX = b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}'


class Server(ThreadingHTTPServer):
    """Answers for one publisher; `rate` is in bytes a second and connection, 0 for no limit."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], publisher: Publisher, rate: int) -> None:
        super().__init__(address, Handler)
        self.publisher = publisher
        self.rate = rate
        publisher.base_url = self.url

    @property
    def url(self) -> str:
        host, port = self.server_address[:2]
        return f"http://{host!s}:{port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is everyday here: runs are stopped, workers are killed."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "airgap-demo-upstream"
    timeout = 60
    server: Server

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        publisher = self.server.publisher
        if path in ("/v2/", "/v2"):
            self._send(200, b"{}", "application/json")
        elif match := MANIFEST_URL.fullmatch(path):
            self._send_manifest(match[1], match[2])
        elif match := BLOB_URL.fullmatch(path):
            self._send_blob(match[1], match[2])
        elif (match := TAGS_URL.fullmatch(path)) and (tags := publisher.tags(match[1])):
            listed = ", ".join(f'"{tag}"' for tag in tags)
            self._send(200, f'{{"name": "{match[1]}", "tags": [{listed}]}}'.encode(), "application/json")
        elif REFERRERS_URL.fullmatch(path):
            self._send(200, EMPTY_INDEX, "application/vnd.oci.image.index.v1+json")
        elif path == "/.well-known/vex-repository.json":
            self._send(200, publisher.vex_manifest(), "application/json")
        elif path == VEX_ARCHIVE_PATH:
            digest, file = publisher.vex_archive()
            self._send_file(file, {"Content-Type": "application/x-gzip", "ETag": f'"{digest}"'})
        elif path == "/trivy/latest":
            self._send(302, b"", "", {"Location": f"/trivy/v{publisher.latest_release()}/"})
        elif (match := RELEASE_URL.fullmatch(path)) and (found := publisher.release_file(match[1], match[2])):
            self._send_file(found[1], {"Content-Type": "application/octet-stream", "ETag": f'"{found[0]}"'})
        else:
            self._send_error(404, "NAME_UNKNOWN", "not here")

    do_HEAD = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        log.debug("%s %s", self.address_string(), format % args)

    def _send_manifest(self, name: str, reference: str) -> None:
        found = self.server.publisher.manifest(name, reference)
        if found is None:
            self._send_error(404, "MANIFEST_UNKNOWN", f"no manifest {reference} in {name}")
            return
        digest, body = found
        self._send(200, body, MANIFEST_TYPE, {"Docker-Content-Digest": digest})

    def _send_blob(self, name: str, digest: str) -> None:
        file = self.server.publisher.blob(name, digest)
        if file is None:
            self._send_error(404, "BLOB_UNKNOWN", f"no blob {digest} in {name}")
            return
        self._send_file(file, {"Content-Type": "application/octet-stream", "Docker-Content-Digest": digest})

    def _send_file(self, path: Path, headers: dict[str, str]) -> None:
        """A file with single ranges and If-None-Match, at the server's rate."""
        if "ETag" in headers and headers["ETag"] == self.headers.get("If-None-Match"):
            self._send(304, b"", "", {"ETag": headers["ETag"]})
            return
        try:
            file = path.open("rb")
        except FileNotFoundError:
            self._send_error(404, "BLOB_UNKNOWN", "this build was removed")
            return
        with file:
            size = file.seek(0, 2)
            wanted = _wanted(self.headers.get("Range"), size)
            if wanted is None:
                self._send(416, b"", "", {"Content-Range": f"bytes */{size}"})
                return
            start, stop = wanted
            partial = stop - start != size
            self.send_response(206 if partial else 200)
            for key, value in headers.items():
                self.send_header(key, value)
            if partial:
                self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(stop - start))
            self.end_headers()
            if self.command == "GET":
                file.seek(start)
                self._copy(file, stop - start)

    def _copy(self, file: BinaryIO, count: int) -> None:
        began, sent = time.monotonic(), 0
        while sent < count:
            data = file.read(min(CHUNK, count - sent))
            if not data:
                self.close_connection = True
                return
            self.wfile.write(data)
            sent += len(data)
            if self.server.rate:
                ahead = sent / self.server.rate - (time.monotonic() - began)
                if ahead > 0:
                    time.sleep(ahead)

    def _send(self, status: int, body: bytes, content_type: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        if content_type:
            self.send_header("Content-Type", content_type)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def _send_error(self, status: int, code: str, message: str) -> None:
        body = f'{{"errors": [{{"code": "{code}", "message": "{message}"}}]}}'.encode()
        self._send(status, body, "application/json")


def _wanted(header: str | None, size: int) -> tuple[int, int] | None:
    """First byte and the one after the last; the whole file where no single range is asked; None: cannot be had."""
    match = RANGE.fullmatch(header.strip()) if header else None
    if match is None or (not match[1] and not match[2]):
        return 0, size
    if not match[1]:
        return (max(0, size - int(match[2])), size) if int(match[2]) else None
    start = int(match[1])
    stop = min(size, int(match[2]) + 1) if match[2] else size
    return (start, stop) if start < stop else None


def main(argv: list[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT. 0 then; 1 when the port or the folder cannot be used."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    host, _, port = arguments.bind.rpartition(":")
    plan = Plan(arguments.database_bytes, arguments.java_bytes, arguments.java_every, arguments.other_every)
    try:
        publisher = Publisher(arguments.directory, plan)
        server = Server((host, int(port)), publisher, arguments.rate)
        publisher.start(utc_now())
    except (OSError, OverflowError, ValueError) as error:
        sys.stderr.write(f"The demo upstream cannot start on {arguments.bind} with {arguments.directory}: {error}.\n")
        return 1
    threading.Thread(target=server.serve_forever, daemon=True).start()
    log.info("The demo upstream answers at %s and publishes every %g s.", server.url, arguments.every)
    while not stop.wait(arguments.every):
        try:
            log.info("Published %s.", ", ".join(publisher.tick(utc_now())))
        except OSError as error:
            log.warning("Nothing was published: %s.", error)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mirrors.demo.upstream", description="A small upstream to try Airgap with."
    )
    parser.add_argument("--bind", default="127.0.0.1:5055", metavar="HOST:PORT")
    parser.add_argument("--directory", type=Path, required=True, help="where the builds are kept")
    parser.add_argument("--every", type=float, default=60, metavar="SECONDS", help="between two builds")
    parser.add_argument(
        "--rate", type=int, default=4_000_000, metavar="BYTES", help="a second and download; 0: no limit"
    )
    parser.add_argument("--database-bytes", type=int, default=Plan.database_bytes, help="size of a trivy-db build")
    parser.add_argument("--java-bytes", type=int, default=Plan.java_bytes, help="size of a trivy-java-db build")
    parser.add_argument("--java-every", type=int, default=Plan.java_every, metavar="N", help="a Java DB every N builds")
    parser.add_argument(
        "--other-every", type=int, default=Plan.other_every, metavar="N", help="checks and VEX likewise"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
