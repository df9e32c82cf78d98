"""The certificate authority that scanners must trust to reach this instance, where it is one of our own.

AIRGAP_TLS_CA names its file. Without that, the certificate of AIRGAP_TLS_CERT itself if it is self-signed, or a
self-signed one at the end of its chain: those are what a scanner would have to trust.
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from django.conf import settings

_MOST = 1 << 20


@dataclass(frozen=True)
class Authority:
    """One certificate, for a person to compare."""

    subject: str
    fingerprint: str
    not_after: datetime


def certificates() -> list[x509.Certificate]:
    """None where there is nothing to hand out, or nothing that can be read."""
    own = _read(settings.AIRGAP_TLS_CA)
    if own:
        return own
    return [found for found in _read(settings.AIRGAP_TLS_CERT) if found.subject == found.issuer]


def pem() -> bytes:
    """The certificates alone, written anew: whatever else stands in their file, a key above all, stays there."""
    return b"".join(found.public_bytes(serialization.Encoding.PEM) for found in certificates())


def authorities() -> list[Authority]:
    return [
        Authority(
            found.subject.rfc4514_string(),
            found.fingerprint(hashes.SHA256()).hex(":").upper(),
            found.not_valid_after_utc,
        )
        for found in certificates()
    ]


def _read(path: object) -> list[x509.Certificate]:
    if not path:
        return []
    try:
        with Path(str(path)).open("rb") as file:
            return x509.load_pem_x509_certificates(file.read(_MOST))
    except (OSError, ValueError):
        return []
