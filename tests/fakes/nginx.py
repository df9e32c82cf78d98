"""deploy/nginx.conf made to run here: other ports, paths and certificates, and what an nginx needs around it."""

import os
import shutil
from pathlib import Path

from tests.fakes.tls import Authority

OURS = Path(__file__).resolve().parents[2] / "deploy" / "nginx.conf"


def program() -> str | None:
    """nginx's path; Debian has it where only root looks."""
    return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def set_up(folder: Path, *, data: Path, upstream: str, port: int, plain_port: int, workers: str = "1") -> list[str]:
    """Write configuration, certificate and `ca.pem` into `folder`; returns the command. `upstream`: http://host:port."""
    authority = Authority()
    issued = authority.issue()
    (folder / "ca.pem").write_text(authority.pem)
    (folder / "cert.pem").write_text(issued.certificate_pem)
    (folder / "key.pem").write_text(issued.key_pem)
    text = OURS.read_text()
    for theirs, here in {
        "listen 443 ": f"listen 127.0.0.1:{port} ",
        "listen 80;": f"listen 127.0.0.1:{plain_port};",
        "/etc/ssl/airgap/certificate.pem": f"{folder}/cert.pem",
        "/etc/ssl/airgap/key.pem": f"{folder}/key.pem",
        "/srv/airgap/data/": f"{data}/",
        "/var/log/nginx/": f"{folder}/",
        "http://127.0.0.1:8000": upstream,
    }.items():
        if theirs not in text:
            raise ValueError(f"deploy/nginx.conf no longer has {theirs!r}")
        text = text.replace(theirs, here)
    temporary = "".join(
        f"{name}_temp_path {folder}/temp-{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"{'user root;' if os.geteuid() == 0 else ''} daemon off; pid {folder}/pid; error_log {folder}/error.log;\n"
        f"worker_processes {workers}; events {{ worker_connections 1024; }}\n"
        f"http {{ access_log off; {temporary} {text} }}\n"
    )
    return [program() or "nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")]
