"""How requests to one registry are authorized: nothing, Basic, a token fetched for a repository, or a fixed token.

A token is fetched by GET with the password (distribution, spec/auth/token.md), or by POST with an identity token
(spec/auth/oauth.md), which is what `docker login` keeps for Azure's registry and others.

What the registry asked for is remembered (never a secret), so that the next run asks for its token at once instead of
being refused first.
"""

import json
import time
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from requests import Response

from mirrors.registry.bodies import Text
from mirrors.registry.challenges import (
    Challenge,
    ChallengeError,
    check_realm,
    choose,
    may_have_password,
    scope_of,
    token_from,
)
from mirrors.registry.errors import RegistryError, clean
from mirrors.registry.exchange import Exchange

TOKEN_LIMIT = 64 * 1024
_OPERATION = "GET token"


class Login:
    """Authorization for one registry during one run. `memory["challenge"]` survives the run.

    `actions` is what tokens are asked for: `pull`, or `pull,push`.
    """

    def __init__(self, exchange: Exchange, memory: dict[str, Any], actions: str = "pull") -> None:
        self._actions = actions
        self._exchange = exchange
        self._memory = memory
        self._connection = exchange.connection
        self._challenge = Challenge.recall(memory.get("challenge"))
        self._is_fresh = False
        self._tokens: dict[tuple[str, ...], tuple[str, float]] = {}

    @property
    def realm(self) -> str:
        """Where the registry sends us for a token, "" where that is not known or not so."""
        return self._challenge.realm if self._challenge and self._challenge.scheme == "bearer" else ""

    def header(self, repository: str, scheme: str, *, also: str = "") -> str:
        """The Authorization for a request about this repository, "" for none; a token is fetched where needed.

        `also` names a second repository, which is only read from (a mount).
        """
        if self._connection.token:
            return f"Bearer {self._connection.token}"
        challenge = self._challenge
        if challenge is None:
            return ""
        if challenge.scheme == "basic":
            return self._connection.basic()
        try:
            return f"Bearer {self._token(challenge, self._scopes(challenge, repository, also), scheme)}"
        except RegistryError as error:
            if self._is_fresh or error.temporary:
                raise
            # What was remembered from an earlier run may be out of date: ask the registry itself again.
            self._forget()
            return ""

    def refused(self, response: Response, repository: str, sent: str, *, again: bool, also: str = "") -> bool:
        """Learn from a 401. True if the request is worth sending once more; `again`: it was sent again already."""
        if again or self._connection.token:
            return False
        header = response.headers.get("WWW-Authenticate", "")
        try:
            challenge = choose(header)
        except ChallengeError as error:
            raise self._exchange.error(
                "auth",
                f"{self._exchange.who()} asks for a login, but {error}",
                "login",
                "Check that this address is a registry.",
                status=401,
            ) from None
        if challenge.scheme == "basic" and (not self._connection.username or sent.startswith("Basic ")):
            return False
        self._tokens.pop(self._scopes(challenge, repository, also), None)
        self._challenge, self._is_fresh = challenge, True
        self._memory["challenge"] = challenge.remembered()
        return True

    def _forget(self) -> None:
        self._challenge = None
        self._tokens.clear()
        self._memory.pop("challenge", None)

    def _scopes(self, challenge: Challenge, repository: str, also: str) -> tuple[str, ...]:
        own = scope_of(challenge, repository, self._actions)
        return (own, scope_of(challenge, also, "pull")) if also and not challenge.scope else (own,)

    def _token(self, challenge: Challenge, scopes: tuple[str, ...], scheme: str) -> str:
        kept = self._tokens.get(scopes)
        if kept and time.monotonic() < kept[1]:
            return kept[0]
        exchange = self._exchange
        authorization, identity = self._connection.basic(), self._connection.identity_token
        try:
            check_realm(challenge.realm, exchange.home, scheme, insecure=self._connection.insecure)
            if (authorization or identity) and not may_have_password(challenge.realm, exchange.home):
                host = clean(urlsplit(challenge.realm).hostname or "", 80)
                raise ChallengeError(f"its token server {host} is another party, which must not see the password")
        except ChallengeError as error:
            raise self._error(f"{exchange.name} asks for a login, but {error}") from None
        if identity:
            response = self._exchange_identity(challenge, scopes, identity)
        else:
            response = exchange.send(
                "GET",
                _token_url(challenge, scopes),
                _OPERATION,
                headers={"Accept": "application/json"},
                authorization=authorization,
            )
        if response.status_code != 200:
            raise exchange.refusal(response, _OPERATION)
        try:
            token, seconds = token_from(json.loads(exchange.read(response, TOKEN_LIMIT, _OPERATION)))
        except (ChallengeError, RecursionError, ValueError):
            raise self._error(f"{exchange.name} asks for a login, but its token server sent no usable token") from None
        # A little early, so that it does not expire on the way.
        self._tokens[scopes] = (token, time.monotonic() + seconds * 0.9)
        return token

    def _exchange_identity(self, challenge: Challenge, scopes: tuple[str, ...], identity: str) -> Response:
        """No redirect is followed: the secret is in the body, which would go along."""
        form = {
            "grant_type": "refresh_token",
            "service": challenge.service,
            "client_id": "airgap",
            "scope": " ".join(scopes),
            "refresh_token": identity,
        }
        return self._exchange.send(
            "POST",
            challenge.realm,
            _OPERATION,
            headers={"Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded"},
            body=Text(urlencode(form).encode()),
            follow=False,
        )

    def _error(self, what: str) -> RegistryError:
        advice = "Tell the registry's owner, or give a token that needs no token server."
        return self._exchange.error("auth", what, _OPERATION, advice)


def _token_url(challenge: Challenge, scopes: tuple[str, ...]) -> str:
    parts = urlsplit(challenge.realm)
    query = parse_qsl(parts.query, keep_blank_values=True)
    if challenge.service:
        query.append(("service", challenge.service))
    query += [("scope", scope) for scope in scopes]
    return urlunsplit((parts.scheme, parts.netloc, parts.path, urlencode(query), ""))
