"""Requests to one registry, logged in, over the scheme that it speaks; what reads and what pushes share it."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from requests import Response

from mirrors.registry.bodies import Body
from mirrors.registry.errors import RegistryError
from mirrors.registry.exchange import Exchange
from mirrors.registry.faults import HUNG_UP, NO_TLS
from mirrors.registry.login import Login
from mirrors.registry.references import api_host
from mirrors.registry.transport import Connection, Listener, Timeouts
from mirrors.stopping import StopSignal


class Conversation:
    """One run's requests to one registry. `memory` survives it: the scheme found and the challenge, no secrets.

    `actions` is what tokens are asked for: `pull`, or `pull,push`.
    """

    def __init__(
        self,
        registry: str,
        connection: Connection,
        *,
        stop: StopSignal,
        listener: Listener | None = None,
        timeouts: Timeouts | None = None,
        memory: dict[str, Any] | None = None,
        actions: str = "pull",
    ) -> None:
        self.memory: dict[str, Any] = dict(memory or {})
        self._api_host = api_host(registry)
        self._insecure = connection.insecure
        self.exchange = Exchange(registry, self._api_host, connection, stop=stop, listener=listener, timeouts=timeouts)
        self.login = Login(self.exchange, self.memory, actions)
        kept = self.memory.get("scheme")
        # The scheme that was answered in, last time or now; "" until then.
        self._spoken: str = kept if kept == "https" or (kept == "http" and self._insecure) else ""
        self._is_settled = False
        self.scheme: str = self._spoken or "https"
        # How the last request was authorized: "", "Basic" or "Bearer".
        self.shown = ""

    def url(self, path: str) -> str:
        return f"{self.scheme}://{self._api_host}{path}"

    def ask(
        self,
        method: str,
        path: str,
        repository: str,
        operation: str,
        headers: Mapping[str, str],
        *,
        body: Body | None = None,
        also: str = "",
        follow: bool = True,
        patient: bool = False,
    ) -> Response:
        """An answer that is no 401 which a login could have cured. For an insecure registry the scheme is found here.

        `path` begins with /v2/ (or is a whole URL on this registry, once the scheme is found). `also` names another
        repository that is read from. A body is sent again, from its beginning, only after a 401 or a redirect.
        """

        def asked() -> Response:
            return self._logged_in(method, path, repository, operation, headers, body, also, follow, patient)

        first, failure = self.scheme, None
        while True:
            try:
                response = asked()
            except RegistryError as error:
                other = self._other_scheme(error)
                if not other or other == first:
                    self.scheme = self._spoken or first
                    # What was spoken before failed for a reason of its own.
                    raise (failure if failure and self._spoken == first else error) from None
                failure = error
            else:
                if not self._wants_tls(response):
                    return response
                if first == "https":
                    self.scheme = first
                    return response
                self.exchange.drain(response)
                other = "https"
            self.scheme = other

    def _wants_tls(self, response: Response) -> bool:
        """Whether this is how TLS servers answer plain HTTP ("Client sent an HTTP request to an HTTPS server")."""
        return self.scheme == "http" and response.status_code == 400 and not self._is_settled

    def _other_scheme(self, error: RegistryError) -> str:
        """For an insecure registry: the scheme to try where this one seems not to be spoken there, else ""."""
        if not self._insecure or self._is_settled or error.host != self._api_host or error.status is not None:
            return ""
        if self.scheme == "http":
            return "https" if error.code in ("malformed", "server", "refused", "timeout") else ""
        if error.code == "tls" and error.detail == NO_TLS:
            return "http"
        if self._spoken == "https":
            # TLS was spoken there before: one broken handshake is no reason to go without.
            return ""
        no_port = urlsplit(f"//{self._api_host}").port is None
        is_silent = no_port and error.code in ("refused", "timeout")
        return "http" if is_silent or (error.code == "tls" and error.detail == HUNG_UP) else ""

    def _logged_in(
        self,
        method: str,
        path: str,
        repository: str,
        operation: str,
        headers: Mapping[str, str],
        body: Body | None,
        also: str,
        follow: bool,
        patient: bool,
    ) -> Response:
        again = False
        while True:
            authorization = self.login.header(repository, self.scheme, also=also)
            self.shown = authorization.partition(" ")[0]
            response = self.exchange.send(
                method,
                path if "://" in path else self.url(path),
                operation,
                headers=headers,
                authorization=authorization,
                body=body,
                follow=follow,
                patient=patient,
            )
            if not self._wants_tls(response):
                # Whatever comes from now on, this scheme is spoken there.
                self._is_settled = True
                self._spoken = self.memory["scheme"] = self.scheme
            if response.status_code != 401:
                return response
            if not self.login.refused(response, repository, authorization, again=again, also=also):
                return response
            self.exchange.drain(response)
            again = True

    def is_at_home(self, url: str) -> bool:
        """Whether a URL is on the registry itself, over the scheme that is spoken there."""
        parts = urlsplit(url)
        return parts.scheme == self.scheme and self.exchange.is_home(parts)
