"""What a server's certificate says of itself, for people who look for the box that intercepts their TLS."""

from datetime import datetime

from cryptography import x509
from cryptography.x509.oid import NameOID

from mirrors.registry.errors import clean


def read_certificate(der: bytes) -> tuple[str, datetime | None]:
    """Issuer (organization, else common name) and end of validity of a certificate; "" and None if unreadable."""
    if not der:
        return "", None
    try:
        certificate = x509.load_der_x509_certificate(der)
        names = [
            str(attribute.value)
            for oid in (NameOID.ORGANIZATION_NAME, NameOID.COMMON_NAME)
            for attribute in certificate.issuer.get_attributes_for_oid(oid)
        ]
        return clean(", ".join(dict.fromkeys(names)), 120), certificate.not_valid_after_utc
    except (ValueError, TypeError, x509.InvalidVersion):
        return "", None
