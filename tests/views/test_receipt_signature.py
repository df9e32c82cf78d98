"""The signature of a receipt on its pages: what is signed, and the signature that somebody brings or asks for."""

import shutil
import subprocess

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from mirrors import keys
from mirrors.models import AuditEntry, IssuedReceipt
from mirrors.receipting import giving, loading
from mirrors.receipts import NAMESPACE, read
from mirrors.signing import Key, PublicKey, sign
from tests.receipting.conftest import ended, nord, on, prepare, transfer
from tests.receipting.test_signing import in_an_agent
from tests.signing.conftest import load_into, openssh, ssh_agent

__all__ = ["ended", "nord", "on", "openssh", "prepare", "ssh_agent", "transfer"]
pytestmark = pytest.mark.django_db
OUTSIDE = Key.generate()
FACTS = "airgap-receipt-ab12cd34-facts.txt"


@pytest.fixture(autouse=True)
def own_data(data_dir, settings):
    settings.AIRGAP_SIDE, settings.AIRGAP_SITE_CODE = "isolated", ""


@pytest.fixture
def outside(now):
    return keys.use_elsewhere(OUTSIDE.public_line(), "outside", by="ada", now=now)


@pytest.fixture
def run(ended, on, outside):
    return ended()


def of(run, what=""):
    return f"/import/{run.pk}/receipt/{what}"


def signature_for(run, key=OUTSIDE, namespace=NAMESPACE) -> bytes:
    return sign(giving.to_sign(run).text(), key, namespace)


def test_the_receipt_leads_to_the_page_that_takes_its_signature(as_operator, run):
    text = as_operator.get(of(run)).text
    assert "It is not signed yet." in text and f'href="{of(run, "sign")}">Bring its signature</a>' in text
    assert 'class="spelled"' in text and "BEGIN SSH SIGNATURE" not in text and 'class="qr"' not in text
    assert as_operator.get(of(run, "file")).status_code == 404


def test_what_is_said_of_the_key_is_not_on_the_print(as_operator, run):
    (line,) = [line for line in as_operator.get(of(run)).text.splitlines() if "kept outside" in line]
    assert line.startswith('<p class="notice screen-only">')


def test_the_page_says_how_to_sign(as_operator, run):
    text = as_operator.get(of(run, "sign")).text
    assert f"ssh-keygen -Y sign -f KEY -n airgap-receipt {FACTS}" in text
    assert f'href="{of(run, "facts")}"' in text and OUTSIDE.fingerprint in text
    assert giving.to_sign(run).text().decode() in text


def test_the_facts_are_what_is_signed_to_the_byte(as_operator, run):
    answer = as_operator.get(of(run, "facts"))
    assert answer.content == giving.to_sign(run).text()
    assert answer["Content-Disposition"] == f'attachment; filename="{FACTS}"'
    assert "no-store" in answer["Cache-Control"]
    assert AuditEntry.objects.get(action="receipt made").actor == "otto"


def test_it_is_for_operators(client, viewer, operator, administrator, run):
    for what in ("facts", "sign"):
        assert client.get(of(run, what)).status_code == 302
        assert client.post(of(run, what)).status_code == 302
    for person, status in ((viewer, 403), (operator, 200), (administrator, 200)):
        client.force_login(person, backend="django.contrib.auth.backends.ModelBackend")
        assert client.get(of(run, "facts")).status_code == status
        assert client.get(of(run, "sign")).status_code == status
        assert client.post(of(run, "sign")).status_code == (422 if status == 200 else 403)
        assert client.post(of(run, "facts")).status_code in (403, 405)


def test_a_form_from_elsewhere_is_refused(operator, run):
    client = Client(enforce_csrf_checks=True)
    client.force_login(operator, backend="django.contrib.auth.backends.ModelBackend")
    assert client.post(of(run, "sign"), {"text": signature_for(run).decode()}).status_code == 403
    assert not IssuedReceipt.objects.exists()


def test_the_connected_side_has_none_of_it(as_administrator, run, settings):
    settings.AIRGAP_SIDE = "connected"
    for what in ("facts", "sign"):
        assert as_administrator.get(of(run, what)).status_code == 404
    assert as_administrator.post(of(run, "sign")).status_code == 404


def test_while_receipts_are_off_nothing_is_given_and_nothing_taken(as_operator, run, now):
    signature = signature_for(run)
    giving.switch(False, by="ada", now=now)
    for what in ("facts", "sign"):
        answer = as_operator.get(of(run, what), follow=True)
        assert answer.redirect_chain == [(of(run), 302)] and "Receipts are off" in answer.text
    as_operator.post(of(run, "sign"), {"text": signature.decode()})
    assert not IssuedReceipt.objects.exists() and not AuditEntry.objects.filter(action="receipt made").exists()


@pytest.mark.parametrize("how", ["text", "file"])
def test_a_signature_is_taken(as_operator, run, how):
    signature = signature_for(run)
    sent = {how: signature.decode().replace("\n", "\r\n") if how == "text" else SimpleUploadedFile("s.sig", signature)}
    text = as_operator.post(of(run, "sign"), sent, follow=True).text
    assert "The receipt of bundle ab12cd34 is signed." in text
    assert 'class="qr"' in text and "Save the file" in text and "Bring its signature" not in text
    assert as_operator.get(of(run, "file")).content == giving.to_sign(run).text() + signature
    entry = AuditEntry.objects.get(action="receipt signed")
    assert (entry.actor, entry.subject, entry.address) == ("otto", "ab12cd34", "127.0.0.1")
    text = as_operator.post(of(run, "sign"), sent, follow=True).text
    assert "does not wait for a signature" in text
    assert IssuedReceipt.objects.count() == 1


@pytest.mark.parametrize(
    ("sent", "sentence"),
    [
        ({}, f"Paste the signature, or choose the file {FACTS}.sig."),
        ({"text": "hello"}, "This is no signature of OpenSSH"),
        ({"text": sign(b"other", OUTSIDE, NAMESPACE).decode()}, "did not sign these bytes"),
        ({"text": sign(b"other", OUTSIDE).decode()}, "was made for &#x27;airgap-bundle&#x27;"),
        ({"text": sign(b"other", Key.generate(), NAMESPACE).decode()}, f"wants {OUTSIDE.fingerprint}"),
        ({"text": "ü" * 100}, "This is no signature of OpenSSH"),
        ({"text": "x" * 20_000}, "at most 16384 characters"),
    ],
    ids=["nothing", "no signature", "of other bytes", "for bundles", "by another key", "umlauts", "long"],
)
def test_another_is_refused_with_the_reason(as_operator, run, sent, sentence):
    answer = as_operator.post(of(run, "sign"), sent)
    assert answer.status_code == 422 and sentence in answer.text
    assert not IssuedReceipt.objects.exists()


@pytest.mark.parametrize(("size", "status"), [(20_480, 422), (300_000, 413)])
def test_a_file_that_is_none_is_refused(as_operator, run, size, status):
    file = SimpleUploadedFile("x", bytes(range(256)) * (size // 256))
    answer = as_operator.post(of(run, "sign"), {"file": file})
    assert answer.status_code == status and "too l" in answer.text
    assert not IssuedReceipt.objects.exists()


def test_after_a_rotation_the_same_file_is_given_out_and_it_can_be_signed_anew(as_operator, ended, on, now):
    run = ended()
    before = as_operator.get(of(run, "file")).content
    keys.use_elsewhere(OUTSIDE.public_line(), "outside", by="ada", now=now)
    text = as_operator.get(of(run)).text
    assert f'href="{of(run, "sign")}">Sign it anew …</a>' in text and "a former key of this side" in text
    assert as_operator.get(of(run, "file")).content == before
    as_operator.post(of(run, "sign"), {"text": signature_for(run).decode()})
    assert read(as_operator.get(of(run, "file")).content).receipt.key_id == OUTSIDE.fingerprint


def test_a_key_of_our_own_signs_anew_by_a_button(as_operator, run, now):
    as_operator.post(of(run, "sign"), {"text": signature_for(run).decode()})
    keys.rotate(by="ada", now=now)
    assert ">Sign it anew</button>" in as_operator.get(of(run)).text
    assert as_operator.get(of(run, "sign")).status_code == 302
    assert giving.make(run, by="otto", now=now).receipt.key_id == OUTSIDE.fingerprint
    text = as_operator.post(of(run, "sign"), follow=True).text
    assert "is signed." in text and keys.current().fingerprint in text and "Sign it anew" not in text


def test_an_agent_that_is_away_is_told(as_operator, ended, on, now, settings):
    in_an_agent(now, settings)
    run = ended()
    text = as_operator.get(of(run)).text
    assert ">Sign it</button>" in text and "BEGIN SSH SIGNATURE" not in text
    text = as_operator.post(of(run, "sign"), follow=True).text
    assert "The ssh-agent at /nowhere/agent cannot be used" in text and ">Sign it</button>" in text
    assert not IssuedReceipt.objects.exists()


def test_looking_again_asks_no_more(as_operator, run, ended):
    def count():
        with CaptureQueriesContext(connection) as asked:
            assert as_operator.get(of(run, "sign")).status_code == 200
        return len(asked)

    count()
    few = count()
    for number in range(10):
        ended(bundle=f"0000000{number}")
    assert count() == few


def public(path) -> PublicKey:
    return PublicKey.from_text(path.with_suffix(".pub").read_text())


def crossed(as_operator, run, folder, key, now):
    """Save the file, verify it as docs/receipts.md says, and load it on the connected side, which trusts `key`."""
    text = as_operator.get(of(run, "file")).content
    (folder / "receipt.txt").write_bytes(text)
    (folder / "signers").write_text(key.allowed_signers("site", NAMESPACE) + "\n")
    script = f"""set -e
    sed -n '1,6p' receipt.txt > facts
    sed '1,6d' receipt.txt > facts.sig
    ssh-keygen -Y verify -f signers -I site -n {NAMESPACE} -s facts.sig < facts"""
    done = subprocess.run(["sh", "-c", script], cwd=folder, capture_output=True, timeout=30)
    assert done.returncode == 0, done.stderr
    keys.trust("nord", key.line(), by="ada", now=now)
    return loading.load(text, by="ida", now=now)


@pytest.fixture
def of_transfer(ended, transfer, on):
    return ended(bundle=transfer.bundle_id, transfer=transfer.pk, receipt_secret=transfer.receipt_secret)


@pytest.mark.peers
@pytest.mark.parametrize(("kind", "bits"), [("ed25519", 0), ("ecdsa", 256), ("rsa", 2048)])
def test_the_whole_way_with_a_key_that_only_ssh_keygen_has(
    as_operator, of_transfer, openssh, tmp_path, now, kind, bits
):
    path = openssh.key(kind, bits)
    keys.use_elsewhere(public(path).line(), "outside", by="ada", now=now)
    name = f"airgap-receipt-{of_transfer.bundle}-facts.txt"
    command = f"ssh-keygen -Y sign -f KEY -n airgap-receipt {name}"
    assert command in as_operator.get(of(of_transfer, "sign")).text
    (openssh.root / name).write_bytes(as_operator.get(of(of_transfer, "facts")).content)
    done = subprocess.run(command.replace("KEY", path.name).split(), cwd=openssh.root, capture_output=True, timeout=30)
    assert done.returncode == 0, done.stderr
    with (openssh.root / f"{name}.sig").open("rb") as file:
        text = as_operator.post(of(of_transfer, "sign"), {"file": file}, follow=True).text
    assert 'class="qr"' in text
    receipt = crossed(as_operator, of_transfer, tmp_path, public(path), now)
    assert receipt.is_signed and receipt.key == public(path).fingerprint
    assert receipt.transfer.state == "received" and receipt.transfer.evidence == "receipt"


@pytest.mark.peers
@pytest.mark.parametrize(("kind", "bits"), [("ed25519", 0), ("ecdsa", 256)])
def test_the_whole_way_with_a_key_in_a_real_agent(
    as_operator, of_transfer, openssh, ssh_agent, tmp_path, now, settings, kind, bits
):
    if not shutil.which("ssh-add"):
        pytest.skip("needs ssh-add (openssh-client)")
    settings.AIRGAP_SSH_AUTH_SOCK = ssh_agent
    path = openssh.key(kind, bits)
    load_into(ssh_agent, path)
    keys.use_elsewhere(public(path).line(), "agent", by="ada", now=now)
    assert 'class="qr"' not in as_operator.get(of(of_transfer)).text
    text = as_operator.post(of(of_transfer, "sign"), follow=True).text
    assert "is signed." in text and 'class="qr"' in text
    # An ECDSA key signs differently each time; what was handed out is handed out again.
    assert as_operator.get(of(of_transfer, "file")).content == as_operator.get(of(of_transfer, "file")).content
    assert AuditEntry.objects.get(action="receipt signed").actor == "otto"
    receipt = crossed(as_operator, of_transfer, tmp_path, public(path), now)
    assert receipt.is_signed and receipt.transfer.evidence == "receipt"
