"""Where this instance keeps bytes and keys: the floor-0 rooms, built from settings."""

from django.conf import settings

from mirrors.blobs import BlobStore
from mirrors.secrets import Vault


def store() -> BlobStore:
    return BlobStore(settings.AIRGAP_DATA_DIR)


def vault() -> Vault:
    return Vault(settings.AIRGAP_CREDENTIALS_KEY_FILE)
