from datetime import date

import pytest

from mirrors.receipts import NAMESPACE, Receipt, signed_text
from mirrors.signing import Key, sign

SECRET = "00112233445566778899aabbccddeeff"


@pytest.fixture(scope="session")
def key():
    return Key.generate()


@pytest.fixture
def receipt(key):
    return Receipt("ab12cd34", "received", date(2026, 11, 30), key.fingerprint, "NORD-2")


@pytest.fixture
def signed(key, receipt):
    return signed_text(receipt, sign(receipt.text(), key, NAMESPACE))
