"""What is said to a token endpoint and what it answers, without I/O (RFC 6749, 7523, 7636, 8628).

Servers are not all exact: a refusal may come without a word of JSON, and a number as a text.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from waypost.errors import TemporaryError, WaypostError
from waypost.oauth.settings import OAuthSettings
from waypost.smtp.auth import Secret

DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
JWT_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
# RFC 6749 §5.1 only recommends that a server says how long a token lives.
UNSAID_LIFE_S = 3_600.0
# An assertion is used at once; clocks differ a little.
ASSERTION_S = 600
_MAX_TOKEN = 16_384
_MAX_TEXT = 300
# RFC 8628 §3.5 and RFC 6749 §4.1.2.1: not now, and not never.
_PASSING = frozenset({"temporarily_unavailable", "server_error"})
# RFC 6749 §5.2 answers so what it refuses; anything else is trouble of the server.
_REFUSALS = frozenset({400, 401, 403})
_SECRET = frozenset(
    {"assertion", "client_secret", "code", "code_verifier", "device_code", "refresh_token"}
)


class TokenTrouble(TemporaryError):
    """The token endpoint gave no token now."""

    status = (7, 0)


class GrantRefused(WaypostError):
    """The server refuses the grant: asking again the same way will not help."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}" if text else code)
        self.code = code  # of RFC 6749 §5.2, or one of the server's own


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a grant was exchanged for."""

    access: Secret
    refresh: Secret | None  # None: the grant itself is asked again
    obtained_at: float  # UTC epoch seconds, as the next
    expires_at: float

    @property
    def refresh_at(self) -> float:
        """When to get the next: after 80 % of the life, or 5 minutes before its end."""
        life_s = self.expires_at - self.obtained_at
        return self.expires_at - max(life_s * 0.2, min(300.0, life_s * 0.5))


@dataclass(frozen=True, slots=True)
class DeviceCode:
    """What a person is told, and how to ask whether it was done (RFC 8628 §3.2)."""

    device_code: Secret
    user_code: str
    verification_url: str
    whole_url: str | None  # with the code in it; None: the server gives none
    lives_s: float
    interval_s: float


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at an authorization code: what has to come back, and what proves it is ours."""

    redirect_url: str
    state: str
    verifier: Secret

    @classmethod
    def begin(cls, redirect_url: str) -> Attempt:
        return cls(redirect_url, secrets.token_urlsafe(24), Secret(secrets.token_urlsafe(48)))

    def url(self, settings: OAuthSettings) -> str:
        """Where the person is sent (RFC 6749 §4.1.1, RFC 7636 §4.3)."""
        assert settings.authorization_url is not None  # the configuration was checked
        digest = hashlib.sha256(self.verifier.revealed.encode()).digest()
        fields = {
            "response_type": "code",
            "client_id": settings.client_id or "",
            "redirect_uri": self.redirect_url,
            "scope": " ".join(settings.scopes),
            "state": self.state,
            "code_challenge": _url_safe(digest),
            "code_challenge_method": "S256",
            "login_hint": settings.account,
        }
        joint = "&" if urlsplit(settings.authorization_url).query else "?"
        return f"{settings.authorization_url}{joint}{urlencode(fields)}"

    def code_of(self, returned: str) -> Secret:
        """The code in the URL the person was sent back to. Raises GrantRefused."""
        try:
            fields = parse_qs(urlsplit(returned.strip()).query)
        except ValueError as error:
            raise GrantRefused("code", f"this is no URL: {error}") from error
        if not secrets.compare_digest(fields.get("state", [""])[0].encode(), self.state.encode()):
            raise GrantRefused("state", "this answer belongs to another login; begin again")
        if "error" in fields:
            raise GrantRefused(
                _words(fields["error"][0]), _words(fields.get("error_description", [""])[0])
            )
        if not fields.get("code", [""])[0]:
            raise GrantRefused("code", "the URL holds no code")
        return Secret(fields["code"][0])


def code_fields(settings: OAuthSettings, attempt: Attempt, code: Secret) -> dict[str, str]:
    """RFC 6749 §4.1.3, RFC 7636 §4.5."""
    return {
        "grant_type": "authorization_code",
        "code": code.revealed,
        "redirect_uri": attempt.redirect_url,
        "code_verifier": attempt.verifier.revealed,
        **_client(settings),
    }


def refresh_fields(settings: OAuthSettings, refresh: Secret) -> dict[str, str]:
    """RFC 6749 §6; the scopes stay what they were."""
    return {
        "grant_type": "refresh_token",
        "refresh_token": refresh.revealed,
        **_client(settings),
    }


def client_fields(settings: OAuthSettings) -> dict[str, str]:
    """RFC 6749 §4.4.2."""
    return {
        "grant_type": "client_credentials",
        "scope": " ".join(settings.scopes),
        **_client(settings),
    }


def device_fields(settings: OAuthSettings) -> dict[str, str]:
    """RFC 8628 §3.1."""
    return {"scope": " ".join(settings.scopes), **_client(settings)}


def device_token_fields(settings: OAuthSettings, code: DeviceCode) -> dict[str, str]:
    """RFC 8628 §3.4."""
    return {
        "grant_type": DEVICE_GRANT,
        "device_code": code.device_code.revealed,
        **_client(settings),
    }


def assertion_claims(settings: OAuthSettings, issuer: str, *, now: float) -> dict[str, Any]:
    """RFC 7523 §3, with the scope where Google looks for it."""
    return {
        "iss": issuer,
        "sub": settings.account,
        "aud": settings.token_url,
        "scope": " ".join(settings.scopes),
        "iat": int(now),
        "exp": int(now) + ASSERTION_S,
        "jti": secrets.token_urlsafe(16),
    }


def assertion_fields(settings: OAuthSettings, assertion: Secret) -> dict[str, str]:
    """RFC 7523 §2.1."""
    return {
        "grant_type": JWT_GRANT,
        "assertion": assertion.revealed,
        "scope": " ".join(settings.scopes),
    }


def read_tokens(
    status: int,
    body: bytes,
    *,
    now: float,
    before: Secret | None,
    host: str,
    said: Mapping[str, str],
) -> Tokens:
    """The tokens of a response; `before` is the refresh token that holds unless it brings another.

    `now` is when it was asked for, and `said` what was said: no error repeats a secret in it.
    Raises GrantRefused, TokenTrouble.
    """
    fields = _fields(status, body, host, said)
    access = fields.get("access_token")
    kind = fields.get("token_type", "bearer")
    if not _is_token(access):
        raise TokenTrouble(f"{host} sent no token")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise TokenTrouble(f"{host} sent a token of a kind that is not known here")
    refresh = fields.get("refresh_token")
    if refresh is not None and not _is_token(refresh):
        raise TokenTrouble(f"{host} sent a refresh token that is none")
    life_s = _seconds(fields.get("expires_in"), UNSAID_LIFE_S)
    return Tokens(
        Secret(str(access)), before if refresh is None else Secret(refresh), now, now + life_s
    )


def read_device_code(status: int, body: bytes, *, host: str, said: Mapping[str, str]) -> DeviceCode:
    """RFC 8628 §3.2; arguments and errors as `read_tokens()`."""
    fields = _fields(status, body, host, said)
    device_code = fields.get("device_code")
    # Google calls it verification_url.
    where = fields.get("verification_uri") or fields.get("verification_url")
    shown = (fields.get("user_code"), where)
    if not _is_token(device_code) or not all(isinstance(text, str) and text for text in shown):
        raise TokenTrouble(f"{host} sent no device code")
    whole = fields.get("verification_uri_complete")
    return DeviceCode(
        Secret(str(device_code)),
        _words(str(shown[0])),
        _words(str(shown[1])),
        _words(whole) if isinstance(whole, str) and whole else None,
        _seconds(fields.get("expires_in"), 600.0),
        _seconds(fields.get("interval"), 5.0),
    )


def signing_input(header: Mapping[str, Any], claims: Mapping[str, Any]) -> bytes:
    """What a JWT's signature covers (RFC 7515 §5.1)."""
    parts = (json.dumps(part, separators=(",", ":")).encode() for part in (header, claims))
    return ".".join(map(_url_safe, parts)).encode()


def signed(text: bytes, signature: bytes) -> Secret:
    """The JWT."""
    return Secret(f"{text.decode()}.{_url_safe(signature)}")


def _client(settings: OAuthSettings) -> dict[str, str]:
    """Who asks (RFC 6749 §2.3.1, in the body: so do Google and Microsoft in their own words)."""
    fields = {"client_id": settings.client_id or ""}
    if settings.client_secret is not None:
        fields["client_secret"] = settings.client_secret.revealed
    return fields


def _fields(status: int, body: bytes, host: str, said: Mapping[str, str]) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    fields: dict[str, Any] = found if isinstance(found, dict) else {}
    code = fields.get("error")
    if status == 200 and code is None:
        if found is None:
            raise TokenTrouble(f"{host} answered with something else than JSON")
        return fields
    description = fields.get("error_description")
    text = description if isinstance(description, str) else ""
    for name in _SECRET.intersection(said):
        text = text.replace(said[name], "***")
    text = _words(text)
    if isinstance(code, str) and code and code not in _PASSING and status in (200, *_REFUSALS):
        raise GrantRefused(_words(code), text)
    if code is None and status in _REFUSALS:
        raise GrantRefused(f"HTTP {status}", f"{host} refused it and did not say why")
    word = f" {_words(code)}" if isinstance(code, str) else ""
    raise TokenTrouble(f"{host} answered {status}{word}{': ' if text else ''}{text}")


def _is_token(value: object) -> bool:
    """A text that can travel in a SASL response without becoming a part of it (RFC 6750 §2.1)."""
    return (
        isinstance(value, str)
        and 0 < len(value) <= _MAX_TOKEN
        and all("!" <= character <= "~" for character in value)
    )


def _seconds(value: object, default: float) -> float:
    try:
        found = float(value) if isinstance(value, str | int | float) else default
    except (ValueError, OverflowError):
        return default
    return found if math.isfinite(found) and 0 < found < 1e9 else default


def _words(text: str) -> str:
    """What a server wrote: one line, not too long, without controls."""
    plain = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(plain.split())[:_MAX_TEXT]


def _url_safe(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()
