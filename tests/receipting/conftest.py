"""A bundle that was prepared for a site, the key of that site, and imports that ended over there."""

import pytest

from mirrors import exporting, keys, sites, transfers
from mirrors.models import Import
from mirrors.receipting import giving
from mirrors.receipts import NAMESPACE, Receipt, make_code, signed_text
from mirrors.signing import Key, sign
from mirrors.sites import Wish
from tests.kept import keep_build

SECRET = "00112233445566778899aabbccddeeff"


@pytest.fixture
def nord(db, now):
    return sites.add_site("plant-nord", Wish(label="Plant Nord", code="NORD-2"), by="ada", now=now)


@pytest.fixture
def prepare(store, nord, make_mirror, now):
    """prepare(site=…) -> Transfer of one bundle with one database."""
    mirror = make_mirror("trivy-db", label="Vulnerability DB")
    keep_build(store, mirror, now)

    def make(site=nord):
        return transfers.prepare(site, exporting.current_snapshots(), by="otto", now=now, store=store)

    return make


@pytest.fixture
def transfer(prepare):
    return prepare()


@pytest.fixture(scope="session")
def their_key():
    return Key.generate()


@pytest.fixture
def trusted(db, data_dir, their_key, now):
    return keys.trust("nord", their_key.public_line("nord"), by="ada", now=now)


@pytest.fixture
def fact(transfer, their_key, now):
    """fact(**changes) -> Receipt, as the site would make it of the transfer."""

    def make(**changes):
        facts = {
            "bundle": transfer.bundle_id,
            "outcome": "received",
            "date": now.date(),
            "key_id": their_key.fingerprint,
            "site": "NORD-2",
        }
        return Receipt(**{**facts, **changes})

    return make


@pytest.fixture
def signed(fact, their_key):
    def make(key=their_key, **changes):
        receipt = fact(**changes)
        return signed_text(receipt, sign(receipt.text(), key, NAMESPACE))

    return make


@pytest.fixture
def code(fact, transfer):
    def make(secret=transfer.receipt_secret, **changes):
        return make_code(fact(**changes), secret).encode()

    return make


@pytest.fixture
def on(db, now):
    """Receipts may leave."""
    giving.switch(True, by="ada", now=now)


@pytest.fixture
def ended(db, now):
    """ended(**changes) -> Import, by default one that succeeded."""

    def make(**changes):
        fields = {
            "state": "succeeded",
            "origin": "directory",
            "name": "airgap-x.tar",
            "queued_at": now,
            "finished_at": now,
            "bundle": "ab12cd34",
            "site": "NORD-2",
            "transfer": "0123456789ab",
            "receipt_secret": SECRET,
        }
        return Import.objects.create(**{**fields, **changes})

    return make
