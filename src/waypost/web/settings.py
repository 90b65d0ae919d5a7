"""What the HTTP port is told: [http], [api_token.NAME] and [inbound.NAME]."""

from __future__ import annotations

from dataclasses import dataclass

from waypost.mail.template import Template
from waypost.routing.patterns import AddressGlob
from waypost.smtp.auth import Secret

DEFAULT_BIND = ("127.0.0.1:2580",)
# A token or secret shorter than this can be guessed.
MIN_SECRET = 16

# How a sender with a secret signs.
WAYPOST = "waypost"  # as [webhook.NAME] secret does
GITHUB = "github"  # X-Hub-Signature-256, without a time

# What templates of hooks may name, and those with places below.
HOOK_NAMES = ("payload", "hook", "client")
HOOK_TREES = ("json", "form")
SUBJECT = Template.parse("$hook", HOOK_NAMES, HOOK_TREES)
TEXT = Template.parse("$payload", HOOK_NAMES, HOOK_TREES)


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """The [http] table."""

    bind: tuple[str, ...] = DEFAULT_BIND
    hosts: tuple[str, ...] = ()  # names, in lower case, besides hostname


@dataclass(frozen=True, slots=True)
class ApiToken:
    """One [api_token.NAME]."""

    name: str
    token: Secret
    senders: tuple[AddressGlob, ...] = ()  # empty: any
    networks: tuple[str, ...] | None = None  # None: those of networks.trusted


@dataclass(frozen=True, slots=True)
class InboundHook:
    """One [inbound.NAME]; it has a token or a secret."""

    name: str
    token: Secret | None = None
    secret: Secret | None = None
    signature: str = WAYPOST
    sender: str | None = None  # None: its name, as an address of ours
    to: tuple[str, ...] = ()  # empty: `route` says
    route: str | None = None  # None: `to` says
    subject: Template = SUBJECT
    text: Template = TEXT
    networks: tuple[str, ...] | None = None  # as above
