"""Bundles are signed when they are made, or wait for the signature that a person brings."""

import io
import tarfile
from datetime import timedelta

import pytest
from django.utils import timezone

from mirrors import bundle_signing, exporting, keys, retention
from mirrors.bundle.composition import Composition, Recipe
from mirrors.bundle_signing import NotTaken
from mirrors.exporting import ExportError
from mirrors.models import AuditEntry, Bundle, BundleBlob
from mirrors.signing import Key, sign
from tests.kept import keep_build

pytestmark = pytest.mark.django_db
OUTSIDE = Key.generate()


@pytest.fixture
def held(store, make_mirror, now):
    return keep_build(store, make_mirror(), now)


def make(store, now, profile="full", **how):
    how.setdefault("by", "otto")
    return exporting.create_bundle(exporting.current_snapshots(), profile=profile, now=now, store=store, **how)


def members(bundle, store) -> dict[str, bytes]:
    file = exporting.file_of(bundle, store)
    with tarfile.open(fileobj=io.BytesIO(b"".join(file.read(0, file.size)))) as tar:
        return {one.name.partition("/")[2]: tar.extractfile(one).read() for one in tar}


@pytest.fixture
def outside(store, now):
    return keys.use_elsewhere(OUTSIDE.public_line(), "outside", by="ada", now=now)


@pytest.fixture
def waiting(held, outside, store, now) -> Bundle:
    return make(store, now)


def signature_for(bundle, store, key=OUTSIDE, namespace="airgap-bundle") -> bytes:
    return sign(bundle_signing.document(bundle, "SHA256SUMS", store), key, namespace)


@pytest.mark.parametrize("profile", ["full", "data"])
def test_a_bundle_is_signed_with_our_key(held, store, now, profile):
    bundle = make(store, now, profile)
    inside = members(bundle, store)
    assert list(inside)[:3] == ["bundle.json", "SHA256SUMS", "SHA256SUMS.sig"]
    keys.trust("us", keys.current().public_line, by="ada", now=now)
    assert keys.check_signature(inside["SHA256SUMS"], inside["SHA256SUMS.sig"]).name == "us"
    assert bundle.signer == keys.current().fingerprint
    assert bundle_signing.document(bundle, "SHA256SUMS.sig", store) == inside["SHA256SUMS.sig"]
    assert bundle_signing.key_of(bundle) == keys.current()


def test_a_bundle_keeps_its_signature_when_the_key_is_rotated(held, store, now):
    bundle = make(store, now)
    before = members(bundle, store)
    keys.rotate(by="ada", now=now)
    assert members(bundle, store) == before
    assert bundle_signing.key_of(bundle).retired_at == now


def test_the_signature_is_kept_as_long_as_the_bundle(held, store, now):
    bundle = make(store, timezone.now())
    retention.prune(timezone.now() + timedelta(hours=3), store)
    assert exporting.checked_file_of(bundle, store).problems() == []
    digest = next(member[2] for member in bundle.recipe["members"] if member[0] == "SHA256SUMS.sig")
    assert BundleBlob.objects.filter(bundle=bundle, digest=digest).exists()


def test_a_bundle_of_an_earlier_version_keeps_its_bytes(held, store, now):
    bundle = make(store, now)
    recipe = dict(bundle.recipe)
    recipe["members"] = [member for member in recipe["members"] if member[0] != "SHA256SUMS.sig"]
    old = Composition(Recipe.from_dict(recipe), store)
    Bundle.objects.filter(pk=bundle.pk).update(recipe=recipe, signer="", size_bytes=old.size, etag=old.etag)
    bundle.refresh_from_db()
    assert "SHA256SUMS.sig" not in members(bundle, store)
    assert bundle_signing.document(bundle, "SHA256SUMS.sig", store) is None
    with pytest.raises(NotTaken, match="its bytes are settled"):
        bundle_signing.attach(bundle, signature_for(bundle, store), by="otto", now=now, store=store)


def test_a_cache_archive_is_not_signed(held, store, now):
    bundle = make(store, now, "cache")
    assert bundle.signer == ""
    assert bundle_signing.document(bundle, "SHA256SUMS", store) is None


def test_an_agent_that_is_away_makes_no_bundle(held, store, now, settings):
    settings.AIRGAP_SSH_AUTH_SOCK = "/nowhere/agent"
    keys.SigningKey.objects.create(
        kept="agent", public_line=OUTSIDE.public_line(), fingerprint=OUTSIDE.fingerprint, created_at=now
    )
    with pytest.raises(ExportError, match=r"The ssh-agent at /nowhere/agent cannot be used: .* Nothing was signed"):
        make(store, now)
    assert not Bundle.objects.exists()


class TestWaiting:
    def test_it_is_not_sent(self, waiting, store, now):
        assert waiting.state == "unsigned"
        assert waiting.signer == OUTSIDE.fingerprint
        with pytest.raises(ExportError, match=r"waits for its signature\. Its page takes it\."):
            exporting.file_of(waiting, store)
        assert exporting.unprepared(now, store) == []
        assert not exporting.prepare(waiting.pk, store=store)

    def test_a_second_click_gets_the_same_one(self, waiting, store, now):
        assert make(store, now, reuse=True) == waiting

    def test_the_right_signature_settles_it(self, waiting, store, now):
        signature = signature_for(waiting, store)
        bundle_signing.attach(waiting, signature, by="otto", now=now, store=store, address="10.0.0.7")
        waiting.refresh_from_db()
        assert waiting.state == "ready"
        inside = members(waiting, store)
        assert list(inside)[:4] == ["bundle.json", "SHA256SUMS", "SHA256SUMS.sig", "README.txt"]
        assert inside["SHA256SUMS.sig"] == signature
        assert exporting.checked_file_of(waiting, store).size == waiting.size_bytes
        assert exporting.prepare(waiting.pk, store=store)
        entry = AuditEntry.objects.latest("pk")
        assert (entry.actor, entry.action, entry.subject) == ("otto", "bundle signed", waiting.filename)

    def test_line_ends_of_a_browser_are_no_harm(self, waiting, store, now):
        signature = signature_for(waiting, store)
        bundle_signing.attach(waiting, signature.replace(b"\n", b"\r\n"), by="otto", now=now, store=store)
        assert members(waiting, store)["SHA256SUMS.sig"] == signature

    @pytest.mark.parametrize(
        ("make_signature", "sentence"),
        [
            (lambda bundle, store: b"hello", "This is no signature of OpenSSH"),
            (lambda bundle, store: sign(b"other", OUTSIDE), "did not sign these bytes"),
            (lambda bundle, store: signature_for(bundle, store, namespace="file"), "was made for 'file'"),
            (lambda bundle, store: signature_for(bundle, store, Key.generate()), "; this bundle wants SHA256:"),
        ],
    )
    def test_a_wrong_one_is_refused_and_it_goes_on_waiting(self, waiting, store, now, make_signature, sentence):
        with pytest.raises(NotTaken) as caught:
            bundle_signing.attach(waiting, make_signature(waiting, store), by="otto", now=now, store=store)
        assert sentence in str(caught.value)
        waiting.refresh_from_db()
        assert waiting.state == "unsigned"

    def test_another_is_refused_once_it_is_settled(self, waiting, store, now):
        signature = signature_for(waiting, store)
        bundle_signing.attach(waiting, signature, by="otto", now=now, store=store)
        stale = Bundle.objects.get(pk=waiting.pk)
        stale.state = "unsigned"
        for bundle in (waiting, stale):
            with pytest.raises(NotTaken):
                bundle_signing.attach(bundle, signature, by="otto", now=now, store=store)

    def test_it_is_signed_by_the_key_it_was_made_for_also_after_another_was_chosen(self, waiting, store, now):
        keys.rotate(by="ada", now=now)
        bundle_signing.attach(waiting, signature_for(waiting, store), by="otto", now=now, store=store)
        assert waiting.signer == OUTSIDE.fingerprint

    def test_it_can_be_sent_without_which_is_recorded(self, waiting, store, now):
        bundle_signing.send_unsigned(waiting, by="otto", now=now)
        assert "SHA256SUMS.sig" not in members(waiting, store)
        assert (waiting.state, waiting.signer) == ("ready", "")
        assert AuditEntry.objects.latest("pk").action == "bundle left unsigned"
        with pytest.raises(NotTaken, match="its bytes are settled"):
            bundle_signing.attach(waiting, b"", by="otto", now=now, store=store)
        with pytest.raises(NotTaken):
            bundle_signing.send_unsigned(waiting, by="otto", now=now)

    def test_a_deleted_one_takes_none(self, waiting, store, now):
        exporting.delete_bundle(waiting, by="otto", now=now)
        waiting.refresh_from_db()
        with pytest.raises(NotTaken, match="no longer kept"):
            bundle_signing.attach(waiting, b"", by="otto", now=now, store=store)
