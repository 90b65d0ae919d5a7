"""The login of a relay, out of the keys of [relay.NAME]: what must stand together, and what not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from waypost.config.presets import PRESETS
from waypost.http.url import Url
from waypost.oauth.endpoint import read_service_key
from waypost.oauth.settings import Grant, OAuthSettings
from waypost.routing.hops import Oversize, PaceSettings, Relay
from waypost.routing.targets import Target, parse_target
from waypost.smtp.auth import Mechanism

Fault = tuple[str, str]  # the key, empty: the table as a whole; and what is wrong

_OAUTH_KEYS = (
    *("grant", "client_id", "client_secret", "client_secret_file", "tenant"),
    *("token_url", "authorization_url", "device_url", "redirect_url", "scopes", "key_file"),
    "token_ca",
)
_URLS = ("token_url", "authorization_url", "device_url")
# Tenants that stand for many: a program that speaks for itself belongs to one.
_SHARED_TENANTS = frozenset({"common", "organizations", "consumers"})
# What alarms may go to: the rest has no place for mail, or no recipient.
_ALARM_KINDS = frozenset({"mailbox", "smtp", "lmtp", "relay", "list"})


def relay_faults(relay: dict[str, Any]) -> Iterator[Fault]:
    """What is wrong between the keys of one relay; a value at fault itself is None."""
    username = relay["username"]
    mechanism = _mechanism(relay)
    passwords = [name for name in ("password", "password_file") if relay[name] is not None]
    if relay["tls"] in ("none", "opportunistic") and username is not None:
        yield "", 'a login needs tls = "verify", or "encrypt" at the least'
    if mechanism is not None and mechanism.is_bearer:
        if relay["tls"] == "encrypt":
            yield "tls", 'an access token is given to a proven host only: use tls = "verify"'
        if username is None:
            yield "", f'auth = "{relay["auth"]}" needs a username: the account, as me@gmail.com'
        if passwords:
            yield passwords[0], f'auth = "{relay["auth"]}" takes no password, but access tokens'
        yield from _oauth_faults(relay)
    else:
        given = [name for name in _OAUTH_KEYS if _is_given(relay, name)]
        if given:
            yield given[0], f'{given[0]} needs auth = "xoauth2" or "oauthbearer"'
        if username is None and passwords:
            yield "", f"{passwords[0]} needs a username"
        elif username is not None and len(passwords) != 1:
            yield "", "username needs either password or password_file"
        elif username is None and relay["auth"] is not None:
            yield "", f'auth = "{relay["auth"]}" needs a username'
    alarm = None if relay["alarm"] is None else parse_target(relay["alarm"])
    if alarm == Target("relay", relay["name"]):
        yield "alarm", "what tells of a lost login cannot go by that login"
    elif alarm is not None and alarm.kind not in _ALARM_KINDS:
        yield "alarm", f"expected one of: {', '.join(sorted(_ALARM_KINDS))}"


def _oauth_faults(relay: dict[str, Any]) -> Iterator[Fault]:
    grant = None if relay["grant"] is None else Grant(relay["grant"])
    if grant is None:
        yield "", f"grant is missing: expected one of {', '.join(Grant)}, or a preset"
        return
    needed = ["token_url", "scopes"]
    if grant is Grant.SERVICE_ACCOUNT:
        needed.append("key_file")
    else:
        needed.append("client_id")
    if grant is Grant.CODE:
        needed.append("authorization_url")
    elif grant is Grant.DEVICE:
        needed.append("device_url")
    for name in needed:
        if not relay[name]:
            yield "", f'{name} is missing: grant = "{grant}" needs it'
    secrets = [name for name in ("client_secret", "client_secret_file") if relay[name] is not None]
    if len(secrets) > 1:
        yield secrets[1], "give either client_secret or client_secret_file"
    if grant is Grant.CLIENT_CREDENTIALS and not secrets:
        yield "", 'grant = "client_credentials" needs client_secret or client_secret_file'
    for name in _URLS:
        text = relay[name]
        if text is None:
            continue
        if "{tenant}" in text and relay["tenant"] is None:
            yield "", f"tenant is missing: {name} needs it"
            continue
        try:
            Url.parse(_with_tenant(text, relay))
        except ValueError as error:
            yield name, str(error)
    if grant is Grant.CLIENT_CREDENTIALS and relay["tenant"] in _SHARED_TENANTS:
        yield "tenant", "a program that speaks for itself needs the tenant's own id or domain"
    if relay["redirect_url"] is not None and not _is_loopback(relay["redirect_url"]):
        yield "redirect_url", "expected http://127.0.0.1 or http://localhost, without a port"
    if grant is Grant.SERVICE_ACCOUNT and relay["key_file"] is not None:
        try:
            read_service_key(relay["key_file"])
        except ValueError as error:
            yield "key_file", str(error)


def relay_of(relay: dict[str, Any]) -> Relay:
    """The relay that these values, found without fault, mean."""
    mechanism = _mechanism(relay)
    return Relay(
        *(relay["name"], relay["host"], relay["port"], relay["tls"], relay["ca"]),
        relay["username"],
        relay["password"] or relay["password_file"],
        mechanism,
        _oauth(relay) if mechanism is not None and mechanism.is_bearer else None,
        None if relay["alarm"] is None else parse_target(relay["alarm"]),
        rewrite_from=relay["rewrite_from"],
        max_message=relay["max_message"],
        oversize=Oversize(relay["oversize"]),
        pace=PaceSettings(
            relay["connections"], relay["messages_per_minute"], relay["messages_per_day"]
        ),
        fallback=relay["fallback"],
    )


def _oauth(relay: dict[str, Any]) -> OAuthSettings:
    token_url, authorization_url, device_url = (
        None if relay[name] is None else _with_tenant(relay[name], relay) for name in _URLS
    )
    return OAuthSettings(
        grant=Grant(relay["grant"]),
        account=relay["username"],
        token_url=token_url or "",
        client_id=relay["client_id"],
        client_secret=relay["client_secret"] or relay["client_secret_file"],
        scopes=relay["scopes"],
        authorization_url=authorization_url,
        device_url=device_url,
        redirect_url=relay["redirect_url"] or "http://127.0.0.1",
        key_file=relay["key_file"],
        ca=relay["token_ca"],
    )


def _mechanism(relay: dict[str, Any]) -> Mechanism | None:
    return None if relay["auth"] is None else Mechanism(relay["auth"].upper())


def _with_tenant(url: str, relay: dict[str, Any]) -> str:
    return url.replace("{tenant}", relay["tenant"] or "")


def _is_given(relay: dict[str, Any], name: str) -> bool:
    """Whether the operator wrote the key, rather than a preset."""
    if not relay[name]:
        return False
    preset = PRESETS.get(relay["preset"] or "", {}).get(name)
    return bool(relay[name] != (tuple(preset) if isinstance(preset, list) else preset))


def _is_loopback(url: str) -> bool:
    """RFC 8252 §7.3; some servers know one of the two only."""
    parts = urlsplit(url)
    return (
        parts.scheme == "http"
        and parts.netloc in ("127.0.0.1", "localhost")
        and not parts.query
        and not parts.fragment
    )
