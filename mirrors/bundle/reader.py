"""Reads a bundle in one pass and believes nothing: either every byte is as the format says, or it is refused."""

from collections.abc import Callable
from typing import Protocol

from mirrors.bundle.parsed import CheckSignature, Contents, OnBlob
from mirrors.stopping import StopSignal
from mirrors.trivy.layers import LayerFacts


class Readable(Protocol):
    """Anything with `read`: a file, a request's body, joined volumes."""

    def read(self, count: int, /) -> bytes: ...


def read_bundle(
    stream: Readable,
    *,
    check_signature: CheckSignature,
    on_blob: OnBlob | None = None,
    total_size: int | None = None,
    facts_of: Callable[[str], LayerFacts | None] | None = None,
    progress: Callable[[int, str], object] | None = None,
    stop: StopSignal | None = None,
) -> Contents:
    """Everything about the bundle in `stream`, whose blobs went where `on_blob` said.

    1. bundle.json and SHA256SUMS are read and compared; `check_signature(sums, signature or None)` decides whether
    they are believed: it raises SignatureRefused if not. Before that no blob is taken.
    2. Every blob named in bundle.json is offered once to `on_blob`: it answers with a sink, or None for one that is
    only to be verified (a dry run, or what the store has already). Once a problem is known no more is offered.
    3. What is in the blobs is compared with what bundle.json says of them. `facts_of(layer digest)` spares looking
    into a layer that was read before.

    `total_size` (bytes, if known) finds a cut-off file before it is read. `progress(bytes so far, member)`.
    Raises BundleReadError with all problems, StoreError as the sinks do, Stopped.
    """
    raise NotImplementedError
