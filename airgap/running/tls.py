"""The web server's own certificate: whether it can be used, and the TLS context made of it."""

import contextlib
import ssl
from datetime import datetime
from pathlib import Path

from cryptography import x509

from airgap.running.preconditions import CannotStart


class EncryptedKeyError(Exception):
    pass


def _ask_nobody() -> str:
    # OpenSSL would ask at the terminal, which a server has not.
    raise EncryptedKeyError


def make_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """TLS 1.2 and later, HTTP/1.1. CannotStart with a sentence for files that do not serve."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    for name, path in (("AIRGAP_TLS_CERT", certificate), ("AIRGAP_TLS_KEY", key)):
        try:
            path.read_bytes()
        except OSError as error:
            raise CannotStart(f"{name} names {path}, which cannot be read ({error.strerror}).") from None
    try:
        context.load_cert_chain(certificate, key, password=_ask_nobody)
    except EncryptedKeyError:
        raise CannotStart(
            f"The key {key} (AIRGAP_TLS_KEY) is encrypted, and nobody is here to give its password. "
            f"Decrypt it into a file that only this user may read: openssl pkey -in {key} -out plain-key.pem"
        ) from None
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise CannotStart(
                f"The key {key} (AIRGAP_TLS_KEY) is not that of the certificate {certificate} (AIRGAP_TLS_CERT). "
                "The server's own certificate comes first in that file, those of its authorities after it."
            ) from None
        raise CannotStart(
            f"{certificate} and {key} (AIRGAP_TLS_CERT, AIRGAP_TLS_KEY) are not a certificate and a key in PEM "
            f"({error.reason or error}). Convert them, for example: openssl x509 -inform der -in FILE -out cert.pem"
        ) from None
    return context


def validity(certificate: Path) -> tuple[datetime, datetime] | None:
    """From when until when the first certificate in a PEM file is valid; None if there is none in it."""
    try:
        found = x509.load_pem_x509_certificate(certificate.read_bytes())
    except (OSError, ValueError):
        return None
    return found.not_valid_before_utc, found.not_valid_after_utc


class Certificate:
    """The pair of files as a context that follows them: a renewed certificate serves the next connection."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._paths = certificate, key
        self._seen = self._look()
        self._context = make_context(certificate, key)

    def context(self) -> ssl.SSLContext:
        """CannotStart, once for each change, if the files are no longer a pair; the last good context stays in use."""
        seen = self._look()
        if seen != self._seen:
            self._seen = seen
            self._context = make_context(*self._paths)
        return self._context

    def last(self) -> ssl.SSLContext:
        return self._context

    def _look(self) -> list[tuple[int, int, int]]:
        found = []
        for path in self._paths:
            with contextlib.suppress(OSError):
                status = path.stat()
                found.append((status.st_ino, status.st_size, status.st_mtime_ns))
        return found
