"""How this instance reaches a source: built from its row, and tried out without touching what is held.

A test fetches the manifest and one byte of a layer through its redirect, because the classic fault is a registry that
answers while the host it sends blobs from is blocked.
"""

from mirrors import content
from mirrors.models import Mirror, Source
from mirrors.registry.client import RegistryClient
from mirrors.registry.references import Reference
from mirrors.registry.transport import Connection, Listener, Timeouts
from mirrors.stopping import StopSignal


def connection_for(source: Source, mirror: Mirror) -> Connection:
    """The source's connection settings with its password readable. Raises SecretError when the key is missing."""
    return Connection(
        insecure=source.insecure,
        ca_pem=source.ca_pem,
        proxy=mirror.proxy,
        username=source.username,
        password=content.vault().decrypt(source.password_sealed),
    )


def reference_of(source: Source, mirror: Mirror) -> Reference:
    """The OCI reference of a source; without a tag it has the kind's own."""
    return Reference.parse(source.reference, default_tag=mirror.asset.default_tag or None)


def client_for(
    source: Source,
    mirror: Mirror,
    registry: str = "",
    *,
    stop: StopSignal,
    listener: Listener | None = None,
    timeouts: Timeouts | None = None,
) -> RegistryClient:
    """A client for an OCI source that starts with what was remembered of the registry (`source.memory`)."""
    return RegistryClient(
        registry or reference_of(source, mirror).registry,
        connection_for(source, mirror),
        stop=stop,
        listener=listener,
        timeouts=timeouts or Timeouts(),
        memory=dict(source.memory),
    )
