"""A bundle's page on its signature: who signed, what can be fetched, and the signature that somebody brings."""

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from mirrors import bundle_signing, exporting, keys, sites
from mirrors.models import AuditEntry, Bundle
from mirrors.signing import Key, sign
from tests.kept import keep_build

pytestmark = pytest.mark.django_db
OUTSIDE = Key.generate()


@pytest.fixture(autouse=True)
def held(store, make_mirror, now):
    return keep_build(store, make_mirror(), now)


def make(now, store, profile="full") -> Bundle:
    return exporting.create_bundle(exporting.current_snapshots(), profile=profile, now=now, by="otto", store=store)


@pytest.fixture
def waiting(now, store):
    keys.use_elsewhere(OUTSIDE.public_line(), "outside", by="ada", now=now)
    return make(now, store)


@pytest.fixture
def signature(waiting, store):
    return sign(bundle_signing.document(waiting, "SHA256SUMS", store), OUTSIDE)


def test_the_page_names_the_key_and_gives_out_what_is_needed(as_viewer, now, store):
    bundle = make(now, store)
    text = as_viewer.get(f"/bundles/{bundle.pk}/").text
    assert f"with <code>{bundle.signer}</code>, kept in this instance" in text
    assert "ssh-keygen -Y verify -f ALLOWED_SIGNERS -I airgap -n airgap-bundle" in text
    assert text.index("ssh-keygen -Y verify") < text.index("sh install.sh")
    for name in ("SHA256SUMS", "SHA256SUMS.sig", "allowed_signers"):
        path = f"/bundles/{bundle.pk}/{name}"
        assert f'href="{path}"' in text
        answer = as_viewer.get(path)
        assert answer["Content-Disposition"] == f'attachment; filename="{name}"'
    sums = as_viewer.get(f"/bundles/{bundle.pk}/SHA256SUMS").content
    assert keys.check_signature(sums, as_viewer.get(f"/bundles/{bundle.pk}/SHA256SUMS.sig").content).fingerprint
    assert as_viewer.get(f"/bundles/{bundle.pk}/allowed_signers").text == keys.allowed_signers(keys.current()) + "\n"


def test_a_former_key_is_said_to_be_one(as_viewer, now, store):
    bundle = make(now, store)
    line = keys.allowed_signers(keys.current())
    keys.rotate(by="ada", now=now)
    assert "(a former key of ours)" in as_viewer.get(f"/bundles/{bundle.pk}/").text
    assert as_viewer.get(f"/bundles/{bundle.pk}/allowed_signers").text == line + "\n"


@pytest.mark.parametrize("profile", ["old", "cache"])
def test_an_unsigned_one_says_so(as_viewer, now, store, profile):
    bundle = make(now, store, "cache" if profile == "cache" else "full")
    if profile == "old":
        members = [member for member in bundle.recipe["members"] if member[0] != "SHA256SUMS.sig"]
        Bundle.objects.filter(pk=bundle.pk).update(signer="", recipe={**bundle.recipe, "members": members})
    text = as_viewer.get(f"/bundles/{bundle.pk}/").text
    assert ("a cache archive carries no signature" if profile == "cache" else '<span class="muted">no</span>') in text
    assert "ssh-keygen" not in text
    for name in ("SHA256SUMS.sig", "allowed_signers"):
        assert as_viewer.get(f"/bundles/{bundle.pk}/{name}").status_code == 404


def test_documents_need_a_login_and_a_bundle(client, as_viewer, now, store):
    assert as_viewer.get("/bundles/nothing/SHA256SUMS").status_code == 404
    assert as_viewer.get(f"/bundles/{make(now, store).pk}/bundle.json").status_code == 404
    as_viewer.logout()
    assert client.get("/bundles/x/SHA256SUMS").status_code == 302


def test_exporting_leads_to_the_page_that_takes_the_signature(as_operator, now):
    keys.use_elsewhere(OUTSIDE.public_line(), "outside", by="ada", now=now)
    answer = as_operator.post("/bundles/create", {"all": "1"}, follow=True)
    bundle = Bundle.objects.get()
    assert answer.redirect_chain == [(f"/bundles/{bundle.pk}/", 303)]
    assert "<h1>This transfer bundle waits for its signature.</h1>" in answer.text
    assert f'href="/bundles/{bundle.pk}/sign"' in answer.text
    assert "waits for its signature" in as_operator.get("/bundles/").text
    assert as_operator.get(f"/bundles/{bundle.pk}/download").status_code == 409


def test_a_viewer_sees_that_it_waits_and_can_do_nothing(as_viewer, waiting):
    text = as_viewer.get(f"/bundles/{waiting.pk}/").text
    assert "not yet; to be signed with" in text and "/sign" not in text
    for path in ("sign", "unsigned"):
        assert as_viewer.get(f"/bundles/{waiting.pk}/{path}").status_code == 403
        assert as_viewer.post(f"/bundles/{waiting.pk}/{path}").status_code == 403


def test_the_page_says_how_to_sign(as_operator, waiting):
    text = as_operator.get(f"/bundles/{waiting.pk}/sign").text
    assert "ssh-keygen -Y sign -f KEY -n airgap-bundle SHA256SUMS" in text
    assert f'href="/bundles/{waiting.pk}/SHA256SUMS"' in text and OUTSIDE.fingerprint in text


@pytest.mark.parametrize("how", ["text", "file"])
def test_a_signature_is_taken(as_operator, waiting, signature, how):
    sent = {how: signature.decode().replace("\n", "\r\n") if how == "text" else SimpleUploadedFile("s.sig", signature)}
    text = as_operator.post(f"/bundles/{waiting.pk}/sign", sent, follow=True).text
    assert "is signed, and can be carried" in text and "Download" in text
    assert b"".join(as_operator.get(f"/bundles/{waiting.pk}/download")).count(signature) == 1
    entry = AuditEntry.objects.filter(action="bundle signed").get()
    assert (entry.actor, entry.address) == ("otto", "127.0.0.1")
    text = as_operator.post(f"/bundles/{waiting.pk}/sign", sent, follow=True).text
    assert "does not wait for a signature" in text


@pytest.mark.parametrize(
    ("sent", "sentence"),
    [
        ({}, "Paste the signature, or choose the file SHA256SUMS.sig."),
        ({"text": "hello"}, "This is no signature of OpenSSH"),
        ({"text": sign(b"other", OUTSIDE).decode()}, "did not sign these bytes"),
        ({"text": "ü" * 100}, "This is no signature of OpenSSH"),
        ({"text": "x" * 20_000}, "at most 16384 characters"),
    ],
    ids=["nothing", "no signature", "of other bytes", "umlauts", "long"],
)
def test_another_is_refused_with_the_reason(as_operator, waiting, sent, sentence):
    answer = as_operator.post(f"/bundles/{waiting.pk}/sign", sent)
    assert answer.status_code == 422 and sentence in answer.text
    assert Bundle.objects.get().state == "unsigned"


def test_a_file_that_is_none_is_refused(as_operator, waiting):
    file = SimpleUploadedFile("x", bytes(range(256)) * 80)
    answer = as_operator.post(f"/bundles/{waiting.pk}/sign", {"file": file})
    assert answer.status_code == 422 and "too long for a signature" in answer.text


def test_sending_it_without_asks_first(as_operator, waiting):
    path = f"/bundles/{waiting.pk}/unsigned"
    assert "Send this bundle without a signature?" in as_operator.get(path).text
    assert Bundle.objects.get().state == "unsigned"
    text = as_operator.post(path, follow=True).text
    assert "is sent without a signature" in text
    assert as_operator.get(f"/bundles/{waiting.pk}/download").status_code == 200
    assert as_operator.get(path).status_code == 302
    assert "its bytes are settled" in as_operator.post(path, follow=True).text


def test_single_files_that_are_still_being_prepared_have_no_sums_yet(as_viewer, now, store):
    bundle = make(now, store, "files")
    assert bundle.state == "preparing"
    for name in ("SHA256SUMS", "SHA256SUMS.sig"):
        assert as_viewer.get(f"/bundles/{bundle.pk}/{name}").status_code == 404


def test_single_files_wait_for_their_signature_too(as_operator, now, store):
    keys.use_elsewhere(OUTSIDE.public_line(), "outside", by="ada", now=now)
    bundle = make(now, store, "files")
    exporting.prepare(bundle.pk, store=store)
    bundle.refresh_from_db()
    assert bundle.state == "unsigned"
    signature = sign(bundle_signing.document(bundle, "SHA256SUMS", store), OUTSIDE)
    as_operator.post(f"/bundles/{bundle.pk}/sign", {"text": signature.decode()})
    assert b"".join(as_operator.get(f"/bundles/{bundle.pk}/download")).count(signature) == 1


def test_a_bundle_for_a_site_leads_to_the_page_that_takes_its_signature(as_operator, now):
    keys.use_elsewhere(OUTSIDE.public_line(), "outside", by="ada", now=now)
    sites.add_site("plant-7", sites.Wish(), by="ada", now=now)
    answer = as_operator.post("/sites/plant-7/prepare", {"what": "full"})
    assert (answer.status_code, answer["Location"]) == (303, f"/bundles/{Bundle.objects.get().pk}/")
