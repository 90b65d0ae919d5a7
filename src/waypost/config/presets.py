"""Relays of well-known providers: what they want, so that nobody has to look it up.

A preset only stands in for keys that are not given. `{tenant}` in a URL is the key `tenant`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_GOOGLE: Mapping[str, Any] = {
    "host": "smtp.gmail.com",
    "port": 587,
    "tls": "verify",
    "auth": "xoauth2",
    "token_url": "https://oauth2.googleapis.com/token",
    # The only scope that lets a program log in over SMTP (Google, "OAuth 2.0 Mechanism for
    # Gmail").
    "scopes": ["https://mail.google.com/"],
}
_MICROSOFT: Mapping[str, Any] = {
    "port": 587,
    "tls": "verify",
    "auth": "xoauth2",
    "token_url": "https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token",
    # Three connections and 30 messages a minute (Microsoft, "Message storage and concurrent
    # connection throttling for SMTP Authenticated Submission"); a day's 10,000 are recipients.
    "connections": 3,
    "messages_per_minute": 30,
}
_MICROSOFT_PERSON: Mapping[str, Any] = {
    **_MICROSOFT,
    "grant": "device",
    "authorization_url": "https://login.microsoftonline.com/{tenant}/oauth2/v2.0/authorize",
    "device_url": "https://login.microsoftonline.com/{tenant}/oauth2/v2.0/devicecode",
    # Registered as a "mobile and desktop application", where any port will do.
    "redirect_url": "http://localhost",
    "scopes": ["https://outlook.office.com/SMTP.Send", "offline_access"],
}

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "gmail": {
        **_GOOGLE,
        "grant": "code",
        # Without these Google gives a refresh token at the first login only.
        "authorization_url": "https://accounts.google.com/o/oauth2/v2/auth"
        "?access_type=offline&prompt=consent",
        # Google, "Gmail sending limits": 500 a day for gmail.com, 2,000 for Workspace.
        "messages_per_day": 500,
    },
    "gmail-service-account": {**_GOOGLE, "grant": "service_account", "messages_per_day": 2_000},
    "microsoft365": {
        **_MICROSOFT_PERSON,
        "host": "smtp.office365.com",
        "tenant": "organizations",
    },
    "microsoft365-app": {
        **_MICROSOFT,
        "host": "smtp.office365.com",
        "grant": "client_credentials",
        "scopes": ["https://outlook.office365.com/.default"],
    },
    "outlook": {
        **_MICROSOFT_PERSON,
        "host": "smtp-mail.outlook.com",
        "tenant": "consumers",
    },
    # Its OAuth2 is for programs that Fastmail has registered; everybody else makes an app password.
    "fastmail": {"host": "smtp.fastmail.com", "port": 465, "tls": "verify", "auth": "plain"},
}


def with_preset(content: Any, known: frozenset[str]) -> Any:
    """A [relay.NAME] with what its preset says of keys that it has not; others are left as is."""
    if not isinstance(content, dict):
        return content
    name = content.get("preset")
    preset = PRESETS.get(name, {}) if isinstance(name, str) else {}
    return {**{key: value for key, value in preset.items() if key in known}, **content}
