"""What the operator says of a login by OAuth2."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from waypost.smtp.auth import Secret


class Grant(StrEnum):
    """How tokens are come by."""

    CODE = "code"  # a browser comes back with a code (RFC 6749 §4.1, RFC 7636)
    DEVICE = "device"  # a code is typed on another device (RFC 8628)
    CLIENT_CREDENTIALS = "client_credentials"  # the program speaks for itself (RFC 6749 §4.4)
    SERVICE_ACCOUNT = "service_account"  # a signed assertion (RFC 7523)

    @property
    def needs_login(self) -> bool:
        """True when a person has to agree once."""
        return self in (Grant.CODE, Grant.DEVICE)


@dataclass(frozen=True, slots=True)
class OAuthSettings:
    """The OAuth2 keys of a [relay.NAME]; URLs are whole, and https."""

    grant: Grant
    account: str  # whose mail it is: the username of the relay
    token_url: str
    client_id: str | None  # None: a service account, whose key file says who asks
    client_secret: Secret | None = None  # None: a public client
    scopes: tuple[str, ...] = ()
    authorization_url: str | None = None  # None: no browser can be sent anywhere
    device_url: str | None = None  # None: there are no device codes
    redirect_url: str = "http://127.0.0.1"  # a port is put behind the host
    key_file: Path | None = None  # of a service account
    ca: Path | None = None  # who may vouch for the servers; None: whom this system trusts
