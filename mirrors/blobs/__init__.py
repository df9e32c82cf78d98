"""The content store: immutable files named by the SHA-256 of their bytes.

A blob appears under its name only when it is complete, verified and on disk (fsync, rename, fsync of the folder).
Nothing here knows what a blob means or who refers to it; rows do.

    <root>/blobs/sha256/ab/<hex>     finished blobs, mode 0444
    <root>/partial/<hex>             a download under way or interrupted, held under flock while it is written
    <root>/partial/incoming-*        bytes whose digest is not known yet
    <root>/damaged/<hex>             set aside because the bytes were not what the name says
"""

from mirrors.blobs.faults import StoreError
from mirrors.blobs.store import STAMP_NS, BlobStore, Partial
from mirrors.blobs.writing import CHUNK, IncomingBlob, Observer, PartialBlob

__all__ = ["CHUNK", "STAMP_NS", "BlobStore", "IncomingBlob", "Observer", "Partial", "PartialBlob", "StoreError"]
