"""The signature of a bundle whose key is kept outside: what has to be signed, and the signature a person brings.

Only before the first byte was sent: afterwards a bundle has the same bytes for ever.
"""

from datetime import datetime

from django.db import transaction

from mirrors import content, keys, record, retention
from mirrors.blobs import BlobStore, StoreError
from mirrors.bundle.compose import SIGNATURE, SUMS, with_signature
from mirrors.bundle.composition import Composition, Recipe
from mirrors.bundle.contents import BundleError
from mirrors.models import Bundle, BundleBlob, SigningKey
from mirrors.signing import SignatureError, check, tidied

State = Bundle.State


class NotTaken(Exception):
    """The signature is not taken; the sentence says why."""


def document(bundle: Bundle, name: str, store: BlobStore | None = None) -> bytes | None:
    """SHA256SUMS or SHA256SUMS.sig of this bundle; None where it has none (yet) or is not kept. Raises StoreError."""
    if bundle.expired_at is not None or bundle.profile == Bundle.Profile.CACHE or name not in (SUMS, SIGNATURE):
        return None
    if bundle.state in (State.PREPARING, State.FAILED):
        return None
    members = Recipe.from_dict(bundle.recipe).members
    found = next((member for member in members if member.name == name), None)
    return (store or content.store()).read(found.digest, found.size) if found else None


def key_of(bundle: Bundle) -> SigningKey | None:
    """The key that signs this bundle, current or not; None where none does."""
    return SigningKey.objects.filter(fingerprint=bundle.signer).first() if bundle.signer else None


def attach(
    bundle: Bundle, signature: bytes, *, by: str, now: datetime, address: str = "", store: BlobStore | None = None
) -> None:
    """Put this signature into the bundle, which may be sent from then on. Raises NotTaken."""
    store = store or content.store()
    _require_waiting(bundle)
    with store.in_use():
        try:
            recipe = with_signature(Recipe.from_dict(bundle.recipe), _verified(bundle, signature, store), store)
        except (BundleError, StoreError) as error:
            raise NotTaken(str(error)) from error
        composition = Composition(recipe, store)
        with transaction.atomic():
            retention.lock_references()
            _require_waiting(Bundle.objects.select_for_update().get(pk=bundle.pk))
            BundleBlob.objects.bulk_create(
                (BundleBlob(bundle=bundle, digest=digest) for digest in recipe.rendered), ignore_conflicts=True
            )
            bundle.state, bundle.recipe = State.READY, recipe.as_dict()
            bundle.size_bytes, bundle.etag = composition.size, composition.etag
            bundle.save(update_fields=["state", "recipe", "size_bytes", "etag"])
            record.write(by, "bundle signed", bundle.filename, bundle.signer, address, at=now)


def send_unsigned(bundle: Bundle, *, by: str, now: datetime, address: str = "") -> None:
    """Let the bundle be sent without the signature that it was made for. Raises NotTaken."""
    with transaction.atomic():
        _require_waiting(Bundle.objects.select_for_update().get(pk=bundle.pk))
        bundle.state, bundle.signer = State.READY, ""
        bundle.save(update_fields=["state", "signer"])
        record.write(by, "bundle left unsigned", bundle.filename, "", address, at=now)


def _require_waiting(bundle: Bundle) -> None:
    if bundle.expired_at is not None:
        raise NotTaken(f"{bundle.filename} is no longer kept. Make a new bundle of what is current.")
    if bundle.state != State.UNSIGNED:
        raise NotTaken(f"{bundle.filename} does not wait for a signature: its bytes are settled.")


def _verified(bundle: Bundle, signature: bytes, store: BlobStore) -> bytes:
    """The signature in the one form that is carried. Raises NotTaken unless it is the right one."""
    key, sums = key_of(bundle), document(bundle, SUMS, store)
    if key is None or sums is None:
        raise NotTaken(f"The key that was to sign {bundle.filename} is not known any more. Make a new bundle.")
    try:
        armored = tidied(signature)
        signed_by = check(sums, armored)
    except SignatureError as error:
        raise NotTaken(f"{error} Sign the SHA256SUMS of this very bundle, with -n airgap-bundle.") from None
    if signed_by != keys.public_of(key):
        raise NotTaken(f"It is signed with {signed_by.fingerprint}; this bundle wants {bundle.signer}.")
    return armored
