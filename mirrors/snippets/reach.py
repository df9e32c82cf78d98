"""Whether scanners can reach this instance, by the rules of mirrors/trivy/hosts.py, in words."""

from dataclasses import dataclass

from mirrors.trivy.hosts import speaks_plain_http, without_port


@dataclass(frozen=True)
class Reach:
    """Whether scanners can reach the instance, in words. `state` is ok, warning or broken."""

    state: str
    sentence: str
    explanation: str = ""


def reach_of(scheme: str, host: str, *, private_ca: bool) -> Reach:
    """`host` as scanners write it."""
    bare = without_port(host)
    if bare == "localhost" or bare.endswith(".localhost") or bare == "[::1]" or bare.startswith("127."):
        return Reach(
            "warning",
            f"Only scanners on this very machine reach {host}.",
            "You opened this page by a loopback address, so the lines below carry it. Open it by the name scanners "
            "use, or set AIRGAP_BASE_URL and AIRGAP_BIND.",
        )
    if scheme == "https":
        if private_ca:
            return Reach(
                "ok",
                f"Scanners reach {host} by TLS, once they trust its certificate authority.",
                "The lines below name the CA file; fetch it first.",
            )
        return Reach(
            "ok",
            f"Scanners reach {host} by TLS.",
            "If its certificate comes from an authority of your own, each scanner must trust that authority: put it "
            "into the system's store, or name it with SSL_CERT_FILE (any Trivy) or --cacert (0.68 and later).",
        )
    if speaks_plain_http(host):
        return Reach(
            "warning",
            f"Scanners reach {host} by plain HTTP, because it is a private address.",
            "Trivy speaks plain HTTP to RFC 1918 addresses without being told to. Nobody on the way is kept from "
            "changing what it reads there: a certificate is better (AIRGAP_TLS_CERT and AIRGAP_TLS_KEY, or nginx in "
            "front).",
        )
    return Reach(
        "broken",
        f"Trivy refuses plain HTTP to {host}.",
        "It speaks plain HTTP to loopback and RFC 1918 addresses only; to any name it insists on TLS. The cure is a "
        "certificate: set AIRGAP_TLS_CERT and AIRGAP_TLS_KEY, or put nginx with TLS in front. Until then every line "
        "below carries --insecure or its like. That also switches off the check of every other certificate in the "
        "same run, so a stranger on the way could hand the scanner whatever they like.",
    )


def reach_elsewhere(scheme: str, host: str) -> Reach:
    """The same for a registry that we push to, of which we know less."""
    login = (
        f"If reading there needs a login, give it to Trivy with docker login {without_port(host)} or trivy registry "
        "login (0.57 and later); both keep it in ~/.docker/config.json."
    )
    if scheme == "https":
        return Reach(
            "ok",
            f"Scanners pull from {host}.",
            "If its certificate comes from an authority of your own, name that with SSL_CERT_FILE (any Trivy) or "
            f"--cacert (0.68 and later). {login}",
        )
    if speaks_plain_http(host):
        return Reach("warning", f"Scanners pull from {host} by plain HTTP, because it is a private address.", login)
    return Reach(
        "broken",
        f"Trivy refuses plain HTTP to {host}.",
        "Give that registry a certificate. Until then every line below carries --insecure or its like, which also "
        f"switches off the check of every other certificate in the same run. {login}",
    )
