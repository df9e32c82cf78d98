"""Signing with a key in an ssh-agent, and agents that misbehave."""

import contextlib
import os
import socket
import threading
from pathlib import Path

import pytest

from mirrors.signing import Agent, AgentError, Key, PublicKey, sign, verify
from mirrors.signing.wire import string
from tests.signing.conftest import load_into

pytestmark = pytest.mark.peers


def public(path: Path) -> PublicKey:
    return PublicKey.from_text(path.with_suffix(".pub").read_text())


@pytest.mark.parametrize(("kind", "bits"), [("ed25519", 0), ("ecdsa", 256), ("rsa", 2048)])
def test_a_key_in_a_real_agent_signs(openssh, ssh_agent, kind, bits):
    path = openssh.key(kind, bits)
    load_into(ssh_agent, path)
    agent = Agent(ssh_agent, public(path))
    assert agent.holds()
    signature = sign(b"sums", agent)
    assert verify(b"sums", signature, [public(path)]) == public(path)
    assert openssh.verifies(b"sums", signature, public(path).allowed_signers("airgap", "airgap-bundle"))


def test_a_key_that_the_agent_lacks_is_named(openssh, ssh_agent):
    load_into(ssh_agent, openssh.key())
    agent = Agent(ssh_agent, Key.generate().public)
    assert not agent.holds()
    with pytest.raises(AgentError, match=r"it did not sign with SHA256:.* Is the key loaded \(ssh-add -l\)"):
        agent.signed(b"x")


def test_a_missing_agent_is_named():
    with pytest.raises(AgentError, match=r"at /nowhere/agent cannot be used: No such file or directory\."):
        Agent("/nowhere/agent", Key.generate().public).signed(b"x")


@contextlib.contextmanager
def answering(folder: Path, answer: bytes | None):
    """An agent that says this to whatever it is asked; None: nothing at all."""
    path = folder / "fake"
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()
    done = threading.Event()

    def serve() -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(65536)
            if answer is None:
                done.wait(5)
            else:
                connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield path
    finally:
        done.set()
        thread.join(10)
        server.close()
        os.unlink(path)


OTHER = Key.generate()


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (string(b"\x05"), "it did not sign with"),
        (b"", "it broke off"),
        (b"\0\0", "it broke off"),
        (string(b""), "a length that no answer has"),
        (b"\xff\xff\xff\xff", "a length that no answer has"),
        (string(b"\x0e\0\0\0\xff"), "it ends too early"),
        (string(b"\x0e" + string(OTHER.signed(b"x"))), "its signature is not one of"),
        (string(b"\x0e" + string(OTHER.signed(b"x")) + b"x"), "something follows its end"),
    ],
    ids=["refused", "nothing", "half a length", "empty", "endless", "cut off", "of another key", "trailing"],
)
def test_a_strange_answer_is_refused(tmp_path, answer, sentence):
    with answering(tmp_path, answer) as path, pytest.raises(AgentError) as caught:
        Agent(path, Key.generate().public).signed(b"x")
    assert sentence in str(caught.value)


def test_a_silent_agent_is_not_waited_for_long(tmp_path):
    with answering(tmp_path, None) as path, pytest.raises(AgentError, match=r"it said nothing for 0\.1 s"):
        Agent(path, Key.generate().public, patience=0.1).signed(b"x")
