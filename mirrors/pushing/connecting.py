"""How a destination is reached: built from its row."""

from mirrors import content, logins
from mirrors.models import Destination
from mirrors.registry.pushing import PushClient
from mirrors.registry.transport import Connection, Listener, Timeouts
from mirrors.stopping import StopSignal

# As patient as a sync's; a constant of its own, for tests.
TIMEOUTS = Timeouts()


def connection_for(destination: Destination) -> Connection:
    """Its connection settings with the login readable. Raises SecretError when the key is missing."""
    plain = Connection(insecure=destination.insecure, ca_pem=destination.ca_pem, proxy=destination.proxy)
    return logins.onto(plain, destination, destination.registry, content.vault())


def client_for(
    destination: Destination,
    *,
    stop: StopSignal,
    listener: Listener | None = None,
    timeouts: Timeouts | None = None,
) -> PushClient:
    """A client that starts with what was remembered of the registry (`destination.memory`)."""
    return PushClient(
        destination.registry,
        connection_for(destination),
        stop=stop,
        listener=listener,
        timeouts=timeouts or TIMEOUTS,
        memory=dict(destination.memory),
    )
