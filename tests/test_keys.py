"""The key that signs, and what the signatures of others are worth."""

from datetime import timedelta

import pytest
from django.db import IntegrityError, transaction

from mirrors import content, key_rotation, keys
from mirrors.keys import KeysError, Taken, UnknownName, WasRevoked
from mirrors.models import AuditEntry, SigningKey, TrustedKey
from mirrors.signing import BUNDLE, Key, Standing, sign, verify
from mirrors.signing.keys import PublicKey
from tests.signing.conftest import load_into, openssh, ssh_agent

__all__ = ["openssh", "ssh_agent"]

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("data_dir")]
SUMS = b"0" * 64 + b"  README.txt\n"
OTHER = Key.generate()


def recorded() -> list[tuple[str, str, str]]:
    return list(AuditEntry.objects.order_by("pk").values_list("actor", "action", "subject"))


class TestOurKey:
    def test_it_is_made_at_first_need_and_stays(self):
        first = keys.current()
        assert keys.current() == first
        assert first.kept == "own"
        assert keys.own_key().fingerprint == first.fingerprint
        assert recorded() == [("system", "signing key made", first.fingerprint)]

    def test_of_two_processes_that_need_it_at_once_one_wins(self, monkeypatch, now):
        """The other one has made a key, too, when it finds that there is one."""
        won = keys._made("system", now)
        real = keys._made

        def slowly(by, moment):
            made = real(by, moment)
            won.save(force_insert=True)
            return made

        monkeypatch.setattr(keys, "_made", slowly)
        assert keys.current().fingerprint == won.fingerprint
        assert SigningKey.objects.count() == 1
        assert recorded() == []

    def test_there_can_be_one_current_key_only(self, now):
        keys.current()
        with pytest.raises(IntegrityError), transaction.atomic():
            keys._made("ada", now).save(force_insert=True)

    def test_the_private_part_is_sealed(self):
        row = keys.current()
        assert "PRIVATE" not in row.private_sealed
        assert content.vault().decrypt(row.private_sealed).startswith("-----BEGIN OPENSSH PRIVATE KEY-----")

    def test_it_signs_and_says_who(self):
        signer = keys.signer()
        public = keys.public_of(keys.current())
        assert signer.fingerprint == public.fingerprint
        assert verify(SUMS, signer.sign(SUMS), [public]) == public
        assert verify(SUMS, keys.sign(SUMS, "airgap-receipt"), [public], "airgap-receipt") == public

    def test_the_line_for_the_other_side_is_read_there(self):
        line = keys.allowed_signers(keys.current())
        assert line.startswith('airgap namespaces="airgap-bundle,airgap-kit" ssh-ed25519 AAAA')
        assert PublicKey.from_text(line) == keys.public_of(keys.current())

    def test_rotating_makes_another_and_destroys_the_private_part_of_the_first(self, now):
        first = keys.current()
        second = keys.rotate(by="ada", now=now, address="10.0.0.7")
        assert second.fingerprint != first.fingerprint
        assert keys.current() == second
        first.refresh_from_db()
        assert (first.private_sealed, first.retired_at, first.retired_by) == ("", now, "ada")
        assert keys.retired() == [first]
        assert recorded()[-1] == ("ada", "signing key rotated", second.fingerprint)
        assert AuditEntry.objects.latest("pk").detail == f"instead of {first.fingerprint}; kept in this instance"

    def test_a_new_key_for_the_stored_secrets_opens_it_as_well(self, now):
        fingerprint = keys.current().fingerprint
        key_rotation.rotate(by="ada", now=now)
        assert keys.own_key().fingerprint == fingerprint

    def test_a_lost_key_for_the_stored_secrets_is_said(self, data_dir):
        fingerprint = keys.current().fingerprint
        (data_dir / "credentials-key").unlink()
        with pytest.raises(KeysError) as caught:
            keys.sign(SUMS, BUNDLE)
        assert f"The signing key {fingerprint} cannot be opened. The key of the stored passwords" in str(caught.value)
        assert "rotate it, and give the new public key to the other side" in str(caught.value)

    def test_it_is_exported_under_a_passphrase_only(self, now):
        with pytest.raises(KeysError, match="at least 12 characters"):
            keys.export_private("too short", by="ada", now=now)
        text = keys.export_private("correct horse battery", by="ada", now=now)
        assert Key.from_openssh(text, "correct horse battery").fingerprint == keys.current().fingerprint
        assert recorded()[-1] == ("ada", "signing key exported", keys.current().fingerprint)


class TestKeysKeptElsewhere:
    def test_one_outside_signs_nothing_here(self, now):
        keys.use_elsewhere(OTHER.public_line("safe"), "outside", by="ada", now=now)
        assert keys.signer().sign is None
        assert keys.signer().fingerprint == OTHER.fingerprint
        for forbidden in (lambda: keys.sign(SUMS, BUNDLE), keys.own_key):
            with pytest.raises(KeysError, match="is kept outside"):
                forbidden()
        assert recorded()[-1] == ("ada", "signing key chosen", OTHER.fingerprint)

    def test_our_own_can_be_made_again_afterwards(self, now):
        keys.use_elsewhere(OTHER.public_line(), "outside", by="ada", now=now)
        assert keys.rotate(by="ada", now=now).is_own
        keys.use_elsewhere(OTHER.public_line(), "outside", by="ada", now=now)
        assert keys.current().fingerprint == OTHER.fingerprint

    def test_the_same_again_is_refused(self, now):
        keys.use_elsewhere(OTHER.public_line(), "outside", by="ada", now=now)
        with pytest.raises(KeysError, match="is the key that is used already"):
            keys.use_elsewhere(OTHER.public_line("other comment"), "outside", by="ada", now=now)

    def test_what_is_no_public_key_is_refused(self, now):
        with pytest.raises(KeysError, match="private key, which must stay where it is") as caught:
            keys.use_elsewhere(OTHER.private_openssh(), "outside", by="ada", now=now)
        assert caught.value.setting == "key"

    @pytest.mark.peers
    def test_one_in_an_agent_signs(self, now, openssh, ssh_agent, settings):
        settings.AIRGAP_SSH_AUTH_SOCK = ssh_agent
        path = openssh.key()
        text = path.with_suffix(".pub").read_text()
        with pytest.raises(KeysError, match="The ssh-agent does not hold"):
            keys.use_elsewhere(text, "agent", by="ada", now=now)
        load_into(ssh_agent, path)
        row = keys.use_elsewhere(text, "agent", by="ada", now=now)
        public = keys.public_of(row)
        assert verify(SUMS, keys.signer().sign(SUMS), [public]) == public
        settings.AIRGAP_SSH_AUTH_SOCK = "/nowhere"
        with pytest.raises(KeysError, match=r"The ssh-agent at /nowhere cannot be used: .*\. Nothing was signed\."):
            keys.sign(SUMS, BUNDLE)

    def test_one_in_an_agent_needs_to_know_where_that_is(self, now):
        with pytest.raises(KeysError, match="AIRGAP_SSH_AUTH_SOCK does not say where"):
            keys.use_elsewhere(OTHER.public_line(), "agent", by="ada", now=now)
        assert not SigningKey.objects.exists()


def trust(name="outside", key=OTHER, **how):
    how.setdefault("by", "ada")
    return keys.trust(name, key.public_line("x"), **how)


class TestTrust:
    def test_a_key_gets_a_name(self, now):
        key = trust(now=now, note=" by  phone ", address="10.0.0.7")
        assert (key.fingerprint, key.note, key.added_by) == (OTHER.fingerprint, "by phone", "ada")
        assert keys.trusted() == [key]
        assert recorded() == [("ada", "key trusted", "outside")]

    @pytest.mark.parametrize("name", ["", "Outside", "-x", "a b", "x" * 81])
    def test_a_name_has_a_form(self, now, name):
        with pytest.raises(KeysError, match="A name is") as caught:
            trust(name, now=now)
        assert caught.value.setting == "name"

    def test_names_and_keys_are_taken_once(self, now):
        trust(now=now)
        with pytest.raises(Taken, match="This key is trusted already, as outside"):
            trust(now=now)
        with pytest.raises(Taken, match="This key is trusted already, as outside"):
            trust("other", now=now)
        with pytest.raises(Taken, match=r"already another key called outside.*another name"):
            trust(key=Key.generate(), now=now)

    def test_revoking_needs_a_name_there_is(self, now):
        trust(now=now)
        with pytest.raises(UnknownName, match=r"There is no trusted key called nobody\. There are: outside"):
            keys.revoke("nobody", by="ada", now=now)
        keys.revoke("outside", by="ada", now=now)
        with pytest.raises(UnknownName, match="There are: none"):
            keys.revoke("outside", by="ada", now=now)
        assert recorded()[-1] == ("ada", "key revoked", "outside")
        assert [key.name for key in keys.revoked()] == ["outside"]

    def test_a_revoked_key_is_trusted_again_only_by_saying_so(self, now):
        trust(now=now)
        keys.revoke("outside", by="ada", now=now)
        with pytest.raises(WasRevoked, match="This key was called outside and revoked on 2026-11-20 12:00 UTC by ada"):
            trust("new-name", now=now)
        trust("new-name", now=now, again=True)
        assert keys.check_signature(SUMS, sign(SUMS, OTHER)).name == "new-name"


class TestWhatArrives:
    def test_a_trusted_key_is_named(self, now):
        trust("nobody-else", Key.generate(), now=now)
        trust(now=now)
        found = keys.check_signature(SUMS, sign(SUMS, OTHER))
        assert (found.standing, found.name, found.fingerprint) == (Standing.TRUSTED, "outside", OTHER.fingerprint)
        assert found.is_trusted and not found.sentence

    def test_nothing_is_unsigned(self):
        found = keys.check_signature(SUMS, None)
        assert (found.standing, found.sentence) == (Standing.UNSIGNED, "It is not signed.")
        assert found.may_be_allowed and not found.is_trusted

    def test_a_key_nobody_trusts_is_unknown(self):
        found = keys.check_signature(SUMS, sign(SUMS, OTHER))
        assert found.standing is Standing.UNKNOWN
        assert found.fingerprint == OTHER.fingerprint
        assert found.may_be_allowed and not found.is_trusted
        assert "which nobody trusts here" in found.sentence

    def test_our_own_key_is_not_trusted_by_itself(self):
        own = keys.check_signature(SUMS, keys.sign(SUMS, BUNDLE))
        assert own.standing is Standing.UNKNOWN
        assert "this instance's own: it was made here" in own.sentence

    def test_a_revoked_key_is_refused_also_for_what_it_signed_before(self, now):
        trust(now=now)
        keys.revoke("outside", by="ada", now=now + timedelta(days=1))
        found = keys.check_signature(SUMS, sign(SUMS, OTHER))
        assert found.standing is Standing.REVOKED
        assert not found.may_be_allowed and not found.is_trusted
        assert f"{OTHER.fingerprint} (outside), which ada revoked 2026-11-21 12:00 UTC" in found.sentence

    @pytest.mark.parametrize(
        "signature",
        [b"", b"x", b"\xff" * 20_000, sign(b"other", OTHER), sign(SUMS, OTHER, "file"), sign(SUMS, OTHER)[:-1]],
        ids=["nothing", "a letter", "too long", "of other bytes", "for something else", "cut off"],
    )
    def test_a_wrong_signature_is_never_allowed(self, now, signature):
        trust(now=now)
        found = keys.check_signature(SUMS, signature)
        assert found.standing is Standing.WRONG
        assert found.sentence and not found.may_be_allowed and not found.is_trusted

    def test_a_namespace_is_looked_at(self, now):
        trust(now=now)
        receipt = sign(SUMS, OTHER, "airgap-receipt")
        assert keys.check_signature(SUMS, receipt, "airgap-receipt").is_trusted
        assert keys.check_signature(SUMS, receipt).standing is Standing.WRONG

    def test_one_that_borrows_a_fingerprint_is_not_believed(self, now):
        row = trust(now=now)
        TrustedKey.objects.filter(pk=row.pk).update(public_line=Key.generate().public_line())
        assert keys.check_signature(SUMS, sign(SUMS, OTHER)).standing is Standing.UNKNOWN

    def test_it_asks_as_often_for_many_keys_as_for_one(self, now, django_assert_max_num_queries):
        for number in range(5):
            trust(f"k{number}", Key.generate(), now=now)
        with django_assert_max_num_queries(3):
            keys.check_signature(SUMS, sign(SUMS, OTHER))
