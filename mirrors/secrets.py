"""Passwords encrypted at rest, with a key that lives in a file outside the database.

The key file holds one Fernet key a line: the first encrypts, all decrypt. To rotate, put a new key on top and save
each password again; then the old line can go.
"""

import os
from contextlib import suppress
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
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(Fernet.generate_key() + b"\n")
                file.flush()
                os.fsync(file.fileno())
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
