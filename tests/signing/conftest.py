import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

HERE = bool(shutil.which("ssh-keygen"))
needs_openssh = pytest.mark.skipif(not HERE, reason="needs ssh-keygen (openssh-client)")


class OpenSSH:
    """The real program, with files in a folder of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, *arguments: object, data: bytes = b"", **options) -> subprocess.CompletedProcess:
        command = ["ssh-keygen", *map(str, arguments)]
        return subprocess.run(command, input=data, capture_output=True, timeout=30, cwd=self.root, **options)

    def key(self, kind: str = "ed25519", bits: int = 0, name: str = "key", passphrase: str = "") -> Path:
        size = ["-b", bits] if bits else []
        done = self.run("-q", "-t", kind, *size, "-N", passphrase, "-C", "of a person", "-f", self.root / name)
        assert done.returncode == 0, done.stderr
        return self.root / name

    def sign(self, key: Path, data: bytes, namespace: str = "airgap-bundle", *options: str) -> bytes:
        done = self.run("-q", "-Y", "sign", "-f", key, "-n", namespace, *options, data=data)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def verifies(self, data: bytes, signature: bytes, signers: str, namespace: str = "airgap-bundle") -> bool:
        (self.root / "signers").write_text(signers + "\n")
        (self.root / "sig").write_bytes(signature)
        done = self.run("-Y", "verify", "-f", "signers", "-I", "airgap", "-n", namespace, "-s", "sig", data=data)
        return done.returncode == 0


@pytest.fixture
def openssh(tmp_path: Path) -> OpenSSH:
    if not HERE:
        pytest.skip("needs ssh-keygen (openssh-client)")
    folder = tmp_path / "openssh"
    folder.mkdir(mode=0o700)
    return OpenSSH(folder)


@pytest.fixture
def ssh_agent(tmp_path: Path):
    """The socket of a real agent that holds nothing."""
    if not shutil.which("ssh-agent"):
        pytest.skip("needs ssh-agent (openssh-client)")
    path = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL)
    try:
        for _ in range(500):
            with socket.socket(socket.AF_UNIX) as connection:
                try:
                    connection.connect(str(path))
                    break
                except OSError:
                    time.sleep(0.01)
        yield path
    finally:
        process.terminate()
        process.wait(10)


def load_into(agent: Path, *keys: Path) -> None:
    environment = {**os.environ, "SSH_AUTH_SOCK": str(agent)}
    subprocess.run(["ssh-add", "-q", *map(str, keys)], env=environment, check=True, capture_output=True, timeout=30)
