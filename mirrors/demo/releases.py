"""Release files as Trivy publishes them, small: archives that hold one script, their checksum file, and bundles beside.

The signatures are in the right form and state the right things, but nobody's authority stands behind them.
"""

import base64
import hashlib
import json
import random
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ObjectIdentifier

from mirrors.demo.assets import build_layer
from mirrors.trivy.release import BUNDLE_ENDING, ISSUER, identity_of, parse_source

SOURCE = parse_source("https://upstream.example/trivy/v{version}/")
ISSUER_OID = ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
SIGNED_AT = datetime(2026, 1, 1, tzinfo=UTC)


def build_release(version: str, platforms: Iterable[str], *, padding: int = 0, signed: bool = True) -> dict[str, bytes]:
    """Every file of a release by its name, the checksum file first. `padding`: further bytes in each archive."""
    files = {}
    for platform in platforms:
        script = f"#!/bin/sh\necho 'Version: {version}' # {platform}\n".encode()
        files[SOURCE.file_name(version, platform)] = build_layer(
            [("trivy", script), ("LICENSE", random.Random(platform).randbytes(padding))]  # noqa: S311
        )
    lines = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in files.items())
    release = {SOURCE.checksums_name(version): lines.encode(), **files}
    if signed:
        release |= {name + BUNDLE_ENDING: build_bundle(data, version) for name, data in list(release.items())}
    return release


def release_names(version: str, platforms: Iterable[str]) -> list[str]:
    """What `build_release` calls its files, signed, in its order."""
    names = [SOURCE.checksums_name(version), *(SOURCE.file_name(version, platform) for platform in platforms)]
    return [*names, *(name + BUNDLE_ENDING for name in names)]


def build_bundle(data: bytes, version: str, *, identity: str = "", issuer: str = ISSUER) -> bytes:
    """A sigstore bundle over `data`, its certificate in the name of whoever signs Trivy's releases."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([])
    stated = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(identity or identity_of(version))])
    text = issuer.encode()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(SIGNED_AT)
        .not_valid_after(SIGNED_AT + timedelta(minutes=10))
        .add_extension(stated, critical=True)
        .add_extension(x509.UnrecognizedExtension(ISSUER_OID, bytes([0x0C, len(text)]) + text), critical=False)
        .sign(key, hashes.SHA256())
    )
    signature = key.sign(data, ec.ECDSA(hashes.SHA256()))
    document = {
        "mediaType": BUNDLE_TYPE,
        "verificationMaterial": {"certificate": {"rawBytes": _text(certificate.public_bytes(Encoding.DER))}},
        "messageSignature": {
            "messageDigest": {"algorithm": "SHA2_256", "digest": _text(hashlib.sha256(data).digest())},
            "signature": _text(signature),
        },
    }
    return json.dumps(document).encode()


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
