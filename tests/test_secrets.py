"""Passwords at rest: readable with the key, worthless without."""

from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from mirrors.secrets import SecretError, Vault


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return Vault(tmp_path / "keys" / "secrets.key")


def test_it_gives_back_what_it_was_given(vault: Vault) -> None:
    kept = vault.encrypt("pässword")
    assert "pässword" not in kept
    assert vault.decrypt(kept) == "pässword"
    assert Vault(vault.key_file).decrypt(kept) == "pässword"


def test_the_same_text_never_looks_the_same(vault: Vault) -> None:
    assert vault.encrypt("a") != vault.encrypt("a")


def test_nothing_stays_nothing(vault: Vault) -> None:
    assert vault.encrypt("") == ""
    assert vault.decrypt("") == ""
    assert not vault.key_file.exists()


def test_the_key_file_is_for_its_owner_only(vault: Vault) -> None:
    vault.encrypt("a")
    assert vault.key_file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in vault.key_file.parent.iterdir()] == ["secrets.key"]


def test_a_key_that_is_there_is_never_replaced(vault: Vault) -> None:
    vault.encrypt("a")
    key = vault.key_file.read_bytes()
    assert vault._make_key() == key.split()


def test_old_keys_in_the_file_still_decrypt(vault: Vault) -> None:
    old = vault.encrypt("a")
    vault.key_file.write_bytes(Fernet.generate_key() + b"\n" + vault.key_file.read_bytes())
    new = vault.encrypt("b")
    assert (vault.decrypt(old), vault.decrypt(new)) == ("a", "b")


def test_a_missing_key_is_a_sentence(vault: Vault) -> None:
    kept = vault.encrypt("hunter2")
    vault.key_file.unlink()
    with pytest.raises(SecretError, match=r"is missing\. Restore it from a backup"):
        vault.decrypt(kept)
    assert not vault.key_file.exists()


@pytest.mark.parametrize("kept", [None, "no ciphertext", "gAAAAA=="])
def test_another_key_or_garbage_is_a_sentence_without_the_secret(vault: Vault, kept: str | None) -> None:
    kept = kept or vault.encrypt("hunter2")
    vault.key_file.unlink(missing_ok=True)
    vault.encrypt("makes another key")
    with pytest.raises(SecretError, match="cannot be decrypted with the key in") as caught:
        vault.decrypt(kept)
    assert "hunter2" not in str(caught.value)
    assert kept not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"not a key\n"])
def test_a_spoilt_key_file_is_a_sentence(vault: Vault, content: bytes) -> None:
    vault.key_file.parent.mkdir()
    vault.key_file.write_bytes(content)
    with pytest.raises(SecretError, match="is not a key file"):
        vault.encrypt("a")


def test_a_place_that_cannot_be_used_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SecretError, match=r"cannot be used: Not a directory\."):
        Vault(tmp_path / "file" / "key").encrypt("a")
