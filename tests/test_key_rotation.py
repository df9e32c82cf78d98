"""A new key for the stored secrets: whole, resumable wherever it is killed, and never without what opens them."""

import pytest
from cryptography.fernet import Fernet
from django.apps import apps
from django.db import models

from mirrors import content, key_rotation, mirroring
from mirrors.key_rotation import SEALED
from mirrors.mirror_rules import SourceSpec
from mirrors.models import AuditEntry, Source
from mirrors.secrets import SecretError, Vault
from tests.test_mirror_command import manage  # noqa: F401


class Killed(BaseException):
    pass


@pytest.fixture
def key_file(data_dir, make_mirror):
    """Three sources with secrets, one without."""
    mirror = make_mirror(sources=[f"{name}.example/db:2" for name in ("one", "two", "three", "four")])
    for position, (kind, secret) in enumerate([("basic", "geheim-0"), ("token", "geheim-1"), ("docker", "geheim-2")]):
        sealed = content.vault().encrypt(secret)
        mirror.sources.filter(position=position).update(login=kind, username="robot", secret_sealed=sealed)
    return data_dir / "credentials-key"


def rotate(now, **how):
    return key_rotation.rotate(by="ada", now=now, **how)


def secrets(vault=None) -> list[str]:
    vault = vault or content.vault()
    return [
        vault.decrypt(sealed) for sealed in Source.objects.order_by("position").values_list("secret_sealed", flat=True)
    ]


ALL = ["geheim-0", "geheim-1", "geheim-2", ""]


def test_every_sealed_column_of_every_model_is_registered():
    found = {
        (model.__name__, field.name)
        for model in apps.get_app_config("mirrors").get_models()
        for field in model._meta.get_fields()
        if isinstance(field, models.Field) and field.name.endswith("_sealed")
    }
    assert set(SEALED) == found


def test_everything_is_sealed_with_the_new_key_and_the_old_one_is_gone(key_file, now):
    old = key_file.read_bytes()
    before = list(Source.objects.values_list("secret_sealed", flat=True))
    done = rotate(now)
    assert (done.resealed, done.dropped_keys, done.kept_keys, done.resumed) == (3, 1, 0, False)
    assert secrets() == ALL
    assert old not in key_file.read_bytes() and key_file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in key_file.parent.glob("*credentials*")] == ["credentials-key"]
    key_file.write_bytes(old)
    with pytest.raises(SecretError):
        secrets()
    key_file.write_bytes(old)
    assert not set(before) & set(Source.objects.exclude(secret_sealed="").values_list("secret_sealed", flat=True))


def test_it_is_recorded_without_a_key_or_a_secret(key_file, now):
    rotate(now)
    entry = AuditEntry.objects.get(action="credentials key rotated")
    assert (entry.actor, entry.detail) == ("ada", "3 secrets sealed anew, 1 old key dropped")


@pytest.mark.parametrize("keep_old", [False, True])
def test_it_may_be_killed_at_any_moment_and_the_next_call_finishes_it(key_file, now, monkeypatch, keep_old):
    monkeypatch.setattr(key_rotation, "AT_ONCE", 1)
    step = 0
    while True:
        told = iter(range(step))

        def tell(sentence, told=told):
            if next(told, None) is None:
                raise Killed

        try:
            rotate(now, tell=tell, keep_old=keep_old)
            break
        except Killed:
            assert secrets() == ALL
            step += 1
    assert step == 3
    while content.vault().key_count() > 1:
        rotate(now)
    assert secrets(Vault(key_file)) == ALL and content.vault().key_count() == 1


def test_killed_while_the_key_file_is_written_nothing_is_lost(key_file, now, monkeypatch):
    before = key_file.read_bytes()

    def killed(path, data):
        path.write_bytes(data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Vault, "_write", staticmethod(killed))
    with pytest.raises(SecretError, match="cannot be used: No space left"):
        rotate(now)
    assert key_file.read_bytes() == before and secrets() == ALL
    assert [path.name for path in key_file.parent.glob("*credentials*")] == ["credentials-key"]


def test_an_interrupted_rotation_makes_no_further_key(key_file, now):
    key_file.write_bytes(Fernet.generate_key() + b"\n" + key_file.read_bytes())
    new = key_file.read_bytes().split()[0]
    done = rotate(now)
    assert (done.resealed, done.dropped_keys, done.resumed) == (3, 1, True)
    assert key_file.read_bytes().split() == [new] and secrets() == ALL


def test_old_keys_are_kept_for_other_hosts_until_the_next_call(key_file, now):
    theirs = Vault(key_file.with_name("theirs"))
    theirs.key_file.write_bytes(key_file.read_bytes())
    done = rotate(now, keep_old=True)
    assert (done.resealed, done.dropped_keys, done.kept_keys) == (3, 0, 1)
    Source.objects.filter(position=3).update(login="token", secret_sealed=theirs.encrypt("geheim-3"))
    done = rotate(now)
    assert (done.resealed, done.dropped_keys) == (1, 1)
    assert secrets() == [*ALL[:3], "geheim-3"]


def test_an_edit_between_two_batches_is_neither_undone_nor_lost(key_file, now, monkeypatch):
    monkeypatch.setattr(key_rotation, "AT_ONCE", 1)
    old = Vault(key_file.with_name("read-before"))
    old.key_file.write_bytes(key_file.read_bytes())
    seen = []

    def tell(sentence):
        seen.append(sentence)
        if len(seen) == 2:  # the first row is done: it is written again by a program that still has the old keys
            Source.objects.filter(position=0).update(secret_sealed=old.encrypt("anders-0"), username="eve")
            Source.objects.filter(position=2).update(secret_sealed="", login="none")

    rotate(now, tell=tell)
    assert secrets() == ["anders-0", "geheim-1", "", ""]
    assert Source.objects.get(position=0).username == "eve"


def test_a_form_that_was_open_meanwhile_is_told_and_does_not_bring_the_old_key_back(key_file, now):
    mirror = Source.objects.first().mirror
    seen, specs = mirroring.fingerprint(mirror), mirroring.specs_of(mirror)
    rotate(now)
    wish = mirroring.Settings(sources=[*specs[:3], SourceSpec("five.example/db:2")])
    with pytest.raises(mirroring.ChangedMeanwhile):
        mirroring.edit_mirror(mirror.name, wish, by="ada", now=now, seen=seen)
    assert secrets() == ALL


def test_a_wrong_key_is_refused_by_name_and_nothing_is_changed(key_file, now):
    Source.objects.filter(position=1).update(secret_sealed=Fernet(Fernet.generate_key()).encrypt(b"x").decode())
    before = key_file.read_bytes(), list(Source.objects.values_list("secret_sealed", flat=True))
    with pytest.raises(SecretError, match=r"1 stored secret cannot be decrypted: source two\.example/db:2 of trivy-db"):
        rotate(now)
    assert (key_file.read_bytes(), list(Source.objects.values_list("secret_sealed", flat=True))) == before
    done = rotate(now, leave_unreadable=True)
    assert (done.resealed, done.unreadable) == (2, ("source two.example/db:2 of trivy-db",))
    assert content.vault().key_count() == 1


@pytest.mark.parametrize("spoilt", [None, b"", b"no key\n"])
def test_a_missing_or_spoilt_key_file_is_a_sentence_and_nothing_is_changed(key_file, now, spoilt):
    key_file.unlink()
    if spoilt is not None:
        key_file.write_bytes(spoilt)
    with pytest.raises(SecretError, match=r"is missing|is not a key file"):
        rotate(now)
    assert key_file.exists() == (spoilt is not None)


def test_only_one_rotation_at_a_time(key_file, now):
    with content.vault().rotating(), pytest.raises(SecretError, match="under way"):
        rotate(now)
    assert rotate(now).resealed == 3


def test_without_secrets_there_is_nothing_to_rotate(data_dir, db, now):
    assert rotate(now) is None
    assert not (data_dir / "credentials-key").exists()


def test_the_command_rotates_and_tells(key_file, manage):  # noqa: F811
    status, out, err = manage("rotate_credentials_key", "--keep-old")
    assert status == 0 and "3 secrets sealed with the new key." in out and "Run this again" in out
    status, out, err = manage("rotate_credentials_key")
    assert status == 0 and "was finished" in out and "1 old key dropped." in out
    assert "geheim" not in out + err and key_file.read_text().strip() not in out + err
    assert secrets() == ALL


def test_the_command_lists_what_cannot_be_decrypted(key_file, manage):  # noqa: F811
    assert manage("rotate_credentials_key", "--check")[:2] == (0, "Every stored secret can be decrypted.\n")
    Source.objects.filter(position=2).update(secret_sealed="x")
    status, out, _ = manage("rotate_credentials_key", "--check")
    assert status == 1 and out == "cannot be decrypted: source three.example/db:2 of trivy-db\n"
    status, _, err = manage("rotate_credentials_key")
    assert status == 1 and "Nothing was changed" in err
    key_file.unlink()
    status, _, err = manage("rotate_credentials_key", "--check")
    assert status == 1 and "is missing" in err
