"""What a sigstore bundle says it signs, and by whom. Nothing is verified here: that takes Sigstore's trusted root.

Since 0.68.1 every file of a Trivy release has a bundle `<file>.sigstore.json`, before that `<file>.sig` and
`<file>.pem` (docs/getting-started/signature-verification.md of aquasecurity/trivy). Fields: sigstore/protobuf-specs
(sigstore_bundle.proto) and sigstore/fulcio (docs/oid-info.md).
"""

import base64
import json
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.x509.oid import ObjectIdentifier

from mirrors.trivy.release.errors import ReleaseError

SIGNATURE_LIMIT = 1024 * 1024
BUNDLE_ENDING = ".sigstore.json"
OLD_ENDINGS = (".sig", ".pem")
ISSUER = "https://token.actions.githubusercontent.com"
WORKFLOW = "https://github.com/aquasecurity/trivy/.github/workflows/reusable-release.yaml@refs/tags/v"
ISSUER_OID = ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
OLD_ISSUER_OID = ObjectIdentifier("1.3.6.1.4.1.57264.1.1")


@dataclass(frozen=True)
class Signature:
    """As the bundle states it, not verified: the digest signed, and the identity and issuer in its certificate."""

    digest: str
    identity: str
    issuer: str


def identity_of(version: str) -> str:
    """Who signs Trivy's releases, as Trivy documents it."""
    return f"{WORKFLOW}{version}"


def verify_command(file: str, version: str) -> str:
    """The lines with which a person verifies a file; for cosign 3 (2.4 and later: with --new-bundle-format)."""
    options = (
        f"--bundle {file}{BUNDLE_ENDING}",
        f"--certificate-oidc-issuer {ISSUER}",
        f"--certificate-identity {identity_of(version)}",
    )
    return " \\\n    ".join([f"cosign verify-blob {file}", *options])


def read_bundle(raw: bytes) -> Signature:
    """Raises ReleaseError (`signature`) for what is no bundle over one file."""
    try:
        document = json.loads(raw)
        material = document["verificationMaterial"]
        certificate = _certificate(material)
        stated = document["messageSignature"]["messageDigest"]
        if stated["algorithm"] != "SHA2_256":
            raise ValueError("another algorithm than SHA-256")
        value = base64.b64decode(stated["digest"], validate=True)
        if len(value) != 32:
            raise ValueError("no SHA-256 digest")
        return Signature(f"sha256:{value.hex()}", _identity(certificate), _issuer(certificate))
    except (ValueError, TypeError, KeyError, LookupError, AttributeError, RecursionError) as error:
        raise ReleaseError("signature", f"It is no sigstore bundle over a file ({type(error).__name__}).") from error


def _certificate(material: Any) -> x509.Certificate:
    """Of bundle versions 0.1 and 0.2 (a chain) or 0.3 (one certificate)."""
    held = material.get("certificate") or material["x509CertificateChain"]["certificates"][0]
    return x509.load_der_x509_certificate(base64.b64decode(held["rawBytes"], validate=True))


def _identity(certificate: x509.Certificate) -> str:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ""
    for kind in (x509.UniformResourceIdentifier, x509.RFC822Name):
        if found := names.get_values_for_type(kind):
            return _line(str(found[0]))
    return ""


def _issuer(certificate: x509.Certificate) -> str:
    for oid in (ISSUER_OID, OLD_ISSUER_OID):
        try:
            value = certificate.extensions.get_extension_for_oid(oid).value
        except x509.ExtensionNotFound:
            continue
        data = value.value if isinstance(value, x509.UnrecognizedExtension) else b""
        # The newer one is a DER string of less than 128 bytes, the older one bare text.
        if data[:1] == b"\x0c" and len(data) == data[1] + 2:
            data = data[2:]
        return _line(data.decode("utf-8", "replace"))
    return ""


def _line(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)[:300]
