"""A new key for the stored secrets: put on top of the key file, every secret sealed anew with it, the old ones dropped.

It may be killed at any moment. The key file always opens what is in the database, and the next call goes on: with more
than one key in the file it seals with the first what is not sealed so yet, and drops the others.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from django.apps import apps
from django.db import connection, models, transaction

from mirrors import content, logins, record, wording
from mirrors.secrets import SecretError, Vault

AT_ONCE = 100
# Every column that is sealed.
SEALED = (*logins.SEALED, ("SigningKey", "private_sealed"))


class Unreadable(SecretError):
    """Stored secrets that no key in the file opens. `places` says whose they are."""

    def __init__(self, places: list[str]) -> None:
        count = wording.counted(len(places), "stored secret")
        super().__init__(
            f"{wording.capitalized(count)} cannot be decrypted: {wording.joined(places[:10])}"
            f"{f' and {len(places) - 10} more' if len(places) > 10 else ''}. Nothing was changed. Put the key back "
            "that they were saved with, enter them again, or leave them as they are with --leave-unreadable."
        )
        self.places = places


@dataclass(frozen=True)
class Rotation:
    """What was done. `resumed`: an earlier rotation was finished, no new key was made."""

    resealed: int
    dropped_keys: int
    kept_keys: int
    unreadable: tuple[str, ...]
    resumed: bool


def nothing_told(sentence: str) -> None:
    pass


def rotate(
    *,
    by: str,
    now: datetime,
    keep_old: bool = False,
    leave_unreadable: bool = False,
    tell: Callable[[str], None] = nothing_told,
) -> Rotation | None:
    """Rotate the key, or finish a rotation that was broken off; None where no secret and no key is there.

    `keep_old` leaves the old keys in the file, for other hosts that still seal with them; the next call drops them.
    Raises Unreadable, or SecretError where the key file is missing, spoilt or cannot be written: nothing is changed.
    """
    vault = content.vault()
    if not vault.key_count() and not has_secrets():
        return None
    with vault.rotating():
        places = tuple(unreadable(vault))
        if places and not leave_unreadable:
            raise Unreadable(list(places))
        resumed = vault.key_count() > 1
        if not resumed:
            vault.add_key()
            tell("A new key is in the key file; the old one still opens what was sealed with it.")
        resealed = sum(_reseal_all(vault, tell))
        dropped = 0
        if not keep_old:
            more, dropped = _drop_old(vault, tell)
            resealed += more
        kept = vault.key_count() - 1
        detail = f"{wording.counted(resealed, 'secret')} sealed anew, {wording.counted(dropped, 'old key')} dropped"
        record.write(by, "credentials key rotated", "", detail, at=now)
        return Rotation(resealed, dropped, kept, places, resumed)


def has_secrets() -> bool:
    return any(_sealed(model, column).exists() for model, column in sealed_columns())


def unreadable(vault: Vault | None = None) -> Iterator[str]:
    """Whose secrets no key in the file opens. Raises SecretError where the key file itself is missing or spoilt."""
    vault = vault or content.vault()
    if has_secrets() and not vault.key_count():
        vault.decrypt("any")  # says that the file is missing
    for model, column in sealed_columns():
        for row in _sealed(model, column).iterator(AT_ONCE):
            try:
                vault.decrypt(getattr(row, column))
            except SecretError:
                yield place_of(row)


def sealed_columns() -> list[tuple[type[models.Model], str]]:
    return [(apps.get_model("mirrors", name), column) for name, column in SEALED]


def place_of(row: models.Model) -> str:
    """`source ghcr.io/x:2 of trivy-db`, `destination harbor`."""
    owner = getattr(row, "mirror", None)
    return f"{row._meta.verbose_name} {row}" + (f" of {owner}" if owner else "")


def _sealed(model: type[models.Model], column: str) -> "models.QuerySet[models.Model]":
    return model._default_manager.exclude(**{column: ""}).order_by("pk")


def _reseal_all(vault: Vault, tell: Callable[[str], None]) -> Iterator[int]:
    """How many were sealed anew, a batch at a time, each batch a transaction with its rows locked."""
    for model, column in sealed_columns():
        keys = list(_sealed(model, column).values_list("pk", flat=True))
        for start in range(0, len(keys), AT_ONCE):
            batch = keys[start : start + AT_ONCE]
            with transaction.atomic():
                count = _reseal(vault, _sealed(model, column).filter(pk__in=batch), column)
            yield count
            noun = str(model._meta.verbose_name)
            tell(f"{min(start + AT_ONCE, len(keys))} of {wording.counted(len(keys), noun)} done.")


def _reseal(vault: Vault, rows: "models.QuerySet[models.Model]", column: str) -> int:
    """Seal these rows anew; how many needed it. Of a row nothing but the column is written."""
    count = 0
    for row in rows.select_for_update():
        before = getattr(row, column)
        try:
            after = vault.reseal(before)
        except SecretError:
            continue  # told before, and left as it is
        if after != before:
            type(row)._default_manager.filter(pk=row.pk).update(**{column: after})
            count += 1
    return count


def _drop_old(vault: Vault, tell: Callable[[str], None]) -> tuple[int, int]:
    """(sealed anew, keys dropped). The keys go while nobody can write, and only when nothing needs them any more.

    What a program wrote meanwhile with keys that it had read before is sealed anew first, and committed: keys that were
    dropped by a transaction which then fails would be missed.
    """
    resealed = 0
    while True:
        with transaction.atomic():
            _keep_writers_out()
            if not any(_needs_resealing(vault)):
                return resealed, vault.drop_old_keys()
        resealed += sum(_reseal_all(vault, tell))


def _keep_writers_out() -> None:
    """Until the transaction ends. Those of SQLite take the whole database by themselves."""
    if connection.vendor != "postgresql":
        return
    for model, _ in sealed_columns():
        with connection.cursor() as cursor:
            cursor.execute(f"LOCK TABLE {connection.ops.quote_name(model._meta.db_table)} IN SHARE ROW EXCLUSIVE MODE")


def _needs_resealing(vault: Vault) -> Iterator[bool]:
    for model, column in sealed_columns():
        for sealed in _sealed(model, column).values_list(column, flat=True).iterator(AT_ONCE):
            with suppress(SecretError):
                yield vault.reseal(sealed) != sealed
