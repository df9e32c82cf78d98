"""The second step: whoever must log in, and how (go-containerregistry transport: ping.go, bearer.go, basic.go)."""

import json
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from mirrors.doctor.asking import Answer
from mirrors.doctor.findings import Finding, Level
from mirrors.doctor.reach import Line
from mirrors.doctor.rules import SSRF_SINCE, after, realm_fault
from mirrors.registry.challenges import ChallengeError, may_have_password, parse_challenges, token_from
from mirrors.registry.errors import RegistryError, clean, redact_url, status_words
from mirrors.registry.transport import Connection

TOKEN_LIMIT = 64 * 1024
DOCKER_CONFIG = (
    "Give Trivy a login: trivy registry login (0.57 and later) or docker login, kept in ~/.docker/config.json."
)


def log_in(line: Line, repository: str, connection: Connection) -> tuple[list[Finding], str | None]:
    """The Authorization of what follows; None where Trivy would get no further."""
    basic = connection.basic() if line.trusted else ""
    if connection.token and line.trusted:
        return [_own_token(line)], f"Bearer {connection.token}"
    if line.ping.status == 200:
        return [], basic
    asked = f"GET {line.url('/v2/')}"
    challenges = parse_challenges(line.ping.headers.get("WWW-Authenticate", ""))
    scheme, parameters = next((found for found in challenges if found[0] in ("basic", "bearer")), ("", {}))
    if not scheme:
        names = ", ".join(clean(name, 30) for name, _ in challenges[:3])
        return [
            Finding(
                "challenge",
                Level.STOPS,
                asked,
                f"401, asking for {names}" if names else "401 without saying how to log in (WWW-Authenticate)",
                "Trivy knows Basic and Bearer only, and goes on without a login, to be refused at the manifest.",
                "Make the registry offer Basic or Bearer.",
            )
        ], None
    if scheme == "basic":
        return _basic(asked, basic)
    return _bearer(line, repository, connection, parameters)


def _own_token(line: Line) -> Finding:
    return Finding(
        "login",
        Level.NOTE,
        f"GET {line.url('/v2/')}",
        "a token of your own is sent with every request",
        "Trivy does so with TRIVY_REGISTRY_TOKEN, to every registry of the same run.",
    )


def _basic(asked: str, basic: str) -> tuple[list[Finding], str | None]:
    if basic:
        return [Finding("login", Level.OK, asked, "401, asking for Basic", "Trivy sends user and password.")], basic
    return [
        Finding(
            "login",
            Level.STOPS,
            asked,
            "401, asking for Basic",
            "Without a login Trivy is refused at the manifest.",
            DOCKER_CONFIG,
        )
    ], None


def _bearer(
    line: Line, repository: str, connection: Connection, parameters: dict[str, str]
) -> tuple[list[Finding], str | None]:
    realm = parameters.get("realm", "")
    shown = redact_url(realm)
    asked = f"GET {shown}"
    if not realm:
        return [
            Finding(
                "realm",
                Level.STOPS,
                f"GET {line.url('/v2/')}",
                "401 with Bearer, but no token server (realm)",
                "Trivy stops.",
                "Make the registry name its token server.",
            )
        ], None
    fault = realm_fault(realm, line.registry, line.scheme)
    if fault:
        return [
            Finding(
                "realm",
                Level.STOPS,
                asked,
                f"the token server is {shown}: {fault}",
                f"Trivy {SSRF_SINCE} and later refuse to ask it.",
                "Give the token server an https address by name, or the registry's own.",
            )
        ], None
    findings, authorization = [], connection.basic() if line.trusted else ""
    if authorization and not may_have_password(realm, line.registry):
        findings.append(
            Finding(
                "password",
                Level.TRIPS,
                asked,
                f"the token server {shown} belongs to another party than the registry",
                "Trivy would show it the password. It was not shown it now.",
                "Check that this token server is meant to see your passwords.",
            )
        )
        authorization = ""
    more, token = _token(line, repository, parameters, authorization)
    return findings + more, token


def _token(
    line: Line, repository: str, parameters: dict[str, str], authorization: str
) -> tuple[list[Finding], str | None]:
    url = _token_url(parameters, repository)
    asked = f"GET {redact_url(url)}"
    try:
        answer = line.asker.get(url, "GET token", authorization=authorization, limit=TOKEN_LIMIT)
    except RegistryError as error:
        return [Finding("token", Level.STOPS, asked, error.what, "Trivy stops here.", error.advice)], None
    if answer.status != 200:
        return [_refused(asked, answer, bool(authorization))], None
    try:
        token, _ = token_from(json.loads(answer.body))
    except (ChallengeError, ValueError, RecursionError):
        return [
            Finding(
                "token",
                Level.STOPS,
                asked,
                "200, but neither token nor access_token in it",
                "Trivy stops here.",
                "Look what really answers at this address.",
            )
        ], None
    who = "for the login that was given" if authorization else "without a login"
    return [Finding("token", Level.OK, asked, f"a token, {who}", "Trivy goes on with it.")], f"Bearer {token}"


def _refused(asked: str, answer: Answer, with_login: bool) -> Finding:
    cure = "Check user and password." if with_login else DOCKER_CONFIG
    return Finding("token", Level.STOPS, asked, status_words(answer.status), after(answer.status, answer.codes), cure)


def _token_url(parameters: dict[str, str], repository: str) -> str:
    parts = urlsplit(parameters["realm"])
    query = parse_qsl(parts.query, keep_blank_values=True)
    query.append(("scope", f"repository:{repository}:pull"))
    if parameters.get("service"):
        query.append(("service", parameters["service"]))
    return urlunsplit((parts.scheme, parts.netloc, parts.path, urlencode(query), ""))
