"""Where a bundle's blobs go while it is read: into the content store, under their own name only when they are right."""

from contextlib import ExitStack
from typing import BinaryIO

from mirrors.blobs import BlobStore
from mirrors.bundle.composition import Member
from mirrors.bundle.parsed import OnBlob


class StoreSink:
    """One blob on its way into the store. Left without `commit`, nothing of it stays."""

    def __init__(self, store: BlobStore, member: Member) -> None:
        self._store = store
        self._member = member
        self._open = ExitStack()
        self._incoming = self._open.enter_context(store.incoming(member.size))

    def write(self, chunk: bytes) -> None:
        self._incoming.write(chunk)

    def commit(self) -> None:
        """Durable under its digest. Raises DigestError for other bytes, StoreError."""
        with self._open:
            self._incoming.require(self._member.digest)
            self._incoming.commit()

    def discard(self) -> None:
        self._open.close()

    def reading(self) -> BinaryIO:
        return self._store.open(self._member.digest)


def into(store: BlobStore) -> OnBlob:
    """For `read_bundle`: takes what the store has not, or has but not intact.

    A blob that was not written to since it was verified is believed; any other is hashed once more.
    """

    def on_blob(member: Member) -> StoreSink | None:
        if store.is_pristine(member.digest, member.size):
            return None
        if store.has(member.digest) and store.verify(member.digest) == "ok":
            return None
        return StoreSink(store, member)

    return on_blob
