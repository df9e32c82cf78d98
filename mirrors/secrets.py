"""Passwords encrypted at rest, with a key that lives in a file outside the database.

The key file holds one Fernet key a line: the first encrypts, all decrypt. A rotation puts a new key on top, has every
stored secret sealed anew, and drops the old lines. The file is read for every secret, so that running programs follow.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet


class SecretError(Exception):
    """A stored password cannot be read or kept; the text says what to do and never holds the secret."""


class Vault:
    """Encrypts and decrypts with the keys of `key_file`, which is made (mode 0600) when it is first needed."""

    def __init__(self, key_file: Path) -> None:
        self.key_file = Path(key_file)

    def encrypt(self, text: str) -> str:
        """Printable ciphertext. An empty text stays empty. Raises SecretError."""
        if not text:
            return ""
        return self._keys(make=True).encrypt(text.encode()).decode("ascii")

    def decrypt(self, ciphertext: str) -> str:
        """The text again. Raises SecretError when the key is missing or another one."""
        if not ciphertext:
            return ""
        try:
            return self._keys(make=False).decrypt(ciphertext.encode()).decode()
        except (InvalidToken, UnicodeError):
            raise SecretError(
                f"A stored password cannot be decrypted with the key in {self.key_file}. "
                "Put the key back that it was saved with, or enter the password again."
            ) from None

    # Rotation

    def key_count(self) -> int:
        """How many keys the file holds; 0 where there is no file. Raises SecretError for a spoilt one."""
        if not self.key_file.exists():
            return 0
        self._keys(make=False)
        return len(self._lines())

    def add_key(self) -> None:
        """Put a new key on top, which encrypts from now on. Raises SecretError where there is no key yet."""
        self._keys(make=False)
        self._replace([Fernet.generate_key(), *self._lines()])

    def drop_old_keys(self) -> int:
        """Keep the first key only; how many went."""
        first, *old = self._lines()
        if old:
            self._replace([first])
        return len(old)

    def reseal(self, ciphertext: str) -> str:
        """The same secret sealed with the first key; the same text where it is so already. Raises as `decrypt`."""
        if not ciphertext or self._is_current(ciphertext):
            return ciphertext
        self.decrypt(ciphertext)
        return self._keys(make=False).rotate(ciphertext.encode()).decode("ascii")

    @contextmanager
    def rotating(self) -> Iterator[None]:
        """Nobody else on this machine rotates the key meanwhile. Raises SecretError where somebody does."""
        try:
            descriptor = os.open(self.key_file.resolve().parent, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise self._trouble(error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise SecretError("Another rotation of this key is under way. Wait until it has ended.") from None
        finally:
            os.close(descriptor)

    def _is_current(self, ciphertext: str) -> bool:
        try:
            Fernet(self._lines()[0]).decrypt(ciphertext.encode())
        except (InvalidToken, UnicodeError):
            return False
        return True

    def _lines(self) -> list[bytes]:
        try:
            return self.key_file.read_bytes().split()
        except OSError as error:
            raise self._trouble(error) from error

    def _replace(self, lines: list[bytes]) -> None:
        """Put these keys in place of the file in one step; it stays its owner's (root may be who rotates)."""
        target = self.key_file.resolve()
        draft = target.with_name(f".{target.name}.{os.urandom(4).hex()}")
        try:
            owner = target.stat()
            self._write(draft, b"".join(line + b"\n" for line in lines))
            if (owner.st_uid, owner.st_gid) != (os.geteuid(), os.getegid()):
                os.chown(draft, owner.st_uid, owner.st_gid)
            draft.replace(target)
            folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            draft.unlink(missing_ok=True)
            raise self._trouble(error) from error

    @staticmethod
    def _write(path: Path, data: bytes) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    # The file

    def _keys(self, *, make: bool) -> MultiFernet:
        try:
            lines = self.key_file.read_bytes().split()
        except FileNotFoundError:
            if not make:
                raise SecretError(
                    f"The key of the stored passwords, {self.key_file}, is missing. "
                    "Restore it from a backup, or enter the passwords again."
                ) from None
            lines = self._make_key()
        except OSError as error:
            raise self._trouble(error) from error
        try:
            return MultiFernet([Fernet(line) for line in lines])
        except ValueError:
            raise SecretError(
                f"{self.key_file} is not a key file (one Fernet key a line). Restore it from a backup, "
                "or remove it and enter the passwords again."
            ) from None

    def _make_key(self) -> list[bytes]:
        """A new key, unless another process was quicker: then that one's."""
        draft = self.key_file.with_name(f".{self.key_file.name}.{os.urandom(4).hex()}")
        try:
            self.key_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            draft.unlink(missing_ok=True)
            self._write(draft, Fernet.generate_key() + b"\n")
            with suppress(FileExistsError):
                os.link(draft, self.key_file)  # unlike a rename, never replaces a key that is there
            draft.unlink()
            return self.key_file.read_bytes().split()
        except OSError as error:
            raise self._trouble(error) from error

    def _trouble(self, error: OSError) -> SecretError:
        reason = os.strerror(error.errno) if error.errno else str(error)
        return SecretError(
            f"The key file {self.key_file} cannot be used: {reason}. "
            "Give the user who runs Airgap the right to read it and to write beside it."
        )
