"""Asks the token endpoint of one login; one method for each grant."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

from waypost.errors import ConnectForbidden
from waypost.http.client import HttpClient, HttpResponse
from waypost.http.url import Url
from waypost.oauth import messages
from waypost.oauth.messages import (
    Attempt,
    DeviceCode,
    GrantRefused,
    Tokens,
    TokenTrouble,
)
from waypost.oauth.settings import Grant, OAuthSettings
from waypost.smtp.auth import Secret

LIMIT_BYTES = 65_536
TIMEOUT_S = 30.0
# RFC 8628 §3.5: each slow_down adds so much.
SLOWER_S = 5.0


class TokenEndpoint:
    """The servers behind `token_url` and `device_url`."""

    def __init__(self, settings: OAuthSettings, http: HttpClient) -> None:
        self.settings = settings
        self._http = http
        self._host = Url.parse(settings.token_url).authority

    async def renewed(self, tokens: Tokens | None) -> Tokens:
        """The next tokens, by the grant or by the refresh token.

        Raises GrantRefused, and TemporaryError for what may pass.
        """
        settings = self.settings
        if settings.grant is Grant.CLIENT_CREDENTIALS:
            return await self._tokens(messages.client_fields(settings))
        if settings.grant is Grant.SERVICE_ACCOUNT:
            assertion = await asyncio.to_thread(_assertion, settings)
            return await self._tokens(messages.assertion_fields(settings, assertion))
        if tokens is None or tokens.refresh is None:
            raise GrantRefused("invalid_grant", "there is no refresh token")
        fields = messages.refresh_fields(settings, tokens.refresh)
        return await self._tokens(fields, before=tokens.refresh)

    async def exchange(self, attempt: Attempt, code: Secret) -> Tokens:
        """The tokens for an authorization code. Raises as `renewed`."""
        return await self._tokens(messages.code_fields(self.settings, attempt, code))

    async def device_code(self) -> DeviceCode:
        """Begin a login on another device. Raises as `renewed`."""
        assert self.settings.device_url is not None  # the configuration was checked
        fields = messages.device_fields(self.settings)
        response = await self._ask(self.settings.device_url, fields)
        host = Url.parse(self.settings.device_url).authority
        return messages.read_device_code(response.status, response.body, host=host, said=fields)

    async def device_tokens(self, code: DeviceCode) -> Tokens:
        """Wait until the person has agreed. Raises GrantRefused; TokenTrouble when it is late."""
        interval_s = code.interval_s
        deadline = time.monotonic() + code.lives_s
        while time.monotonic() + interval_s < deadline:
            await asyncio.sleep(interval_s)
            try:
                return await self._tokens(messages.device_token_fields(self.settings, code))
            except GrantRefused as error:
                if error.code == "slow_down":
                    interval_s += SLOWER_S
                elif error.code != "authorization_pending":
                    raise
        raise TokenTrouble("nobody entered the code in time; begin again")

    async def _tokens(self, fields: dict[str, str], before: Secret | None = None) -> Tokens:
        now = time.time()
        response = await self._ask(self.settings.token_url, fields)
        return messages.read_tokens(
            *(response.status, response.body),
            now=now,
            before=before,
            host=self._host,
            said=fields,
        )

    async def _ask(self, url: str, fields: dict[str, str]) -> HttpResponse:
        try:
            return await self._http.fetch(
                "POST",
                url,
                headers={
                    "Content-Type": "application/x-www-form-urlencoded",
                    "Accept": "application/json",
                },
                body=urlencode(fields).encode(),
                ca=self.settings.ca,
                limit_bytes=LIMIT_BYTES,
                timeout_s=TIMEOUT_S,
            )
        except ConnectForbidden as error:
            # A name service that answers 0.0.0.0 is no reason to send mail back.
            raise TokenTrouble(f"{Url.parse(url).authority}: {error}") from error


class ServiceKey(NamedTuple):
    """The key file of a service account, in Google's form."""

    issuer: str
    key_id: str
    pem: Secret


def read_service_key(path: Path) -> ServiceKey:
    """Read a key file that only its owner may read. Raises ValueError in plain words; blocks."""
    try:
        if path.stat().st_mode & 0o077:
            raise ValueError(f"{path} may be read by others than its owner; chmod 600 it")
        found = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except json.JSONDecodeError:
        raise ValueError(f"{path} is no JSON; use the key file as it was downloaded") from None
    names = ("client_email", "private_key_id", "private_key")
    values = [found.get(name) for name in names] if isinstance(found, dict) else []
    issuer, key_id, pem = (value if isinstance(value, str) else "" for value in values or names)
    if not values or not (issuer and key_id and pem):
        raise ValueError(f"{path} has no {', '.join(names)}")
    return ServiceKey(issuer, key_id, Secret(pem))


def _assertion(settings: OAuthSettings) -> Secret:
    """A signed assertion (RFC 7523 §3). Raises TokenTrouble; blocks."""
    # cryptography takes a while to load, and only service accounts need it.
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import padding, rsa

    assert settings.key_file is not None  # the configuration was checked
    try:
        found = read_service_key(settings.key_file)
        key = serialization.load_pem_private_key(found.pem.revealed.encode(), None)
    except UnsupportedAlgorithm as error:
        raise TokenTrouble(f"{settings.key_file}: {error}") from error
    except (ValueError, TypeError) as error:  # what cryptography says of a key holds none of it
        raise TokenTrouble(f"the key of the service account cannot be used: {error}") from error
    if not isinstance(key, rsa.RSAPrivateKey):
        raise TokenTrouble(f"{settings.key_file} holds no RSA key")
    claims = messages.assertion_claims(settings, found.issuer, now=time.time())
    text = messages.signing_input({"alg": "RS256", "typ": "JWT", "kid": found.key_id}, claims)
    return messages.signed(text, key.sign(text, padding.PKCS1v15(), hashes.SHA256()))
