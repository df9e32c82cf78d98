"""A key in an ssh-agent: asked over its socket to sign, so that the private key is never here.

The two requests that are needed, of draft-ietf-sshm-ssh-agent sections 3.5 and 3.6. The agent's answers are bounded and
every signature is verified before it is used.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mirrors.signing.keys import RSA, PublicKey
from mirrors.signing.wire import Reader, WireError, string

FAILURE, IDENTITIES, IDENTITIES_ANSWER, SIGN, SIGN_RESPONSE = 5, 11, 12, 13, 14
RSA_SHA2_512 = 4
LONGEST = 256 * 1024
MOST_KEYS = 2048
# Somebody may have to touch a token or confirm a question.
PATIENCE = 30.0


class AgentError(Exception):
    """The agent did not sign; the sentence says why and what to do."""


class Agent:
    """One key of the agent behind `path`."""

    def __init__(self, path: str | Path, public: PublicKey, patience: float = PATIENCE) -> None:
        self.path, self.public, self._patience = str(path), public, patience

    def holds(self) -> bool:
        """Whether the agent has this key. Raises AgentError."""
        with self._connected() as connection:
            kind, reader = self._ask(connection, bytes([IDENTITIES]))
            if kind != IDENTITIES_ANSWER:
                raise self._trouble("it does not tell which keys it holds")
            keys = []
            for _ in range(min(reader.uint32(), MOST_KEYS)):
                keys.append(reader.string())
                reader.string()
        return self.public.blob in keys

    def signed(self, message: bytes) -> bytes:
        """This key's signature of `message`, verified. Raises AgentError."""
        flags = RSA_SHA2_512 if self.public.kind == RSA else 0
        request = bytes([SIGN]) + string(self.public.blob) + string(message) + flags.to_bytes(4, "big")
        with self._connected() as connection:
            kind, reader = self._ask(connection, request)
            if kind != SIGN_RESPONSE:
                raise self._trouble(
                    f"it did not sign with {self.public.fingerprint}. Is the key loaded (ssh-add -l) and confirmed?"
                )
            signature = reader.string()
            reader.end()
        if not self.public.has_signed(signature, message):
            raise self._trouble(f"its signature is not one of {self.public.fingerprint}")
        return signature

    @contextmanager
    def _connected(self) -> Iterator[socket.socket]:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(self._patience)
                connection.connect(self.path)
                yield connection
        except TimeoutError:
            raise self._trouble(f"it said nothing for {self._patience:g} s") from None
        except WireError as error:
            raise self._trouble(f"its answer cannot be read: {error}") from None
        except OSError as error:
            raise self._trouble(error.strerror or str(error)) from None

    def _ask(self, connection: socket.socket, request: bytes) -> tuple[int, Reader]:
        connection.sendall(string(request))
        size = int.from_bytes(_exactly(connection, 4), "big")
        if not 0 < size <= LONGEST:
            raise WireError("it has a length that no answer has")
        answer = _exactly(connection, size)
        return answer[0], Reader(answer[1:])

    def _trouble(self, reason: str) -> AgentError:
        end = "" if reason.endswith("?") else "."
        return AgentError(f"The ssh-agent at {self.path} cannot be used: {reason}{end}")


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = connection.recv(min(65536, size - len(data)))
        if not piece:
            raise WireError("it broke off")
        data += piece
    return data
