"""The HTTP port's keys: how they are read, what must stand together, and what they mean."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from waypost.config.readers import LABEL, Read, read_domain, read_secret_file, read_text
from waypost.config.relays import Fault
from waypost.errors import AddressError
from waypost.intake.smtp_listener import split_bind
from waypost.mail.address import Address
from waypost.mail.template import Template
from waypost.smtp.auth import Secret
from waypost.web.settings import (
    HOOK_NAMES,
    HOOK_TREES,
    MIN_SECRET,
    WAYPOST,
    ApiToken,
    HttpSettings,
    InboundHook,
)

_NAME_FAULT = "a name has at most 48 letters, digits, - and _"


def read_http_bind(value: Any) -> str:
    text = read_text(value)
    split_bind(text)
    if text.startswith("/"):
        raise ValueError(f"{text!r}: expected address:port or [v6]:port")
    return text


def read_http_host(value: Any) -> str:
    return read_domain(value).ascii


def read_token(value: Any) -> Secret:
    text = read_text(value)
    if len(text) < MIN_SECRET or not text.isascii() or " " in text:
        # Not the text: it is a secret.
        raise ValueError(
            f"expected at least {MIN_SECRET} characters of ASCII without blanks; one that is good:"
            " openssl rand -hex 32"
        )
    return Secret(text)


def read_token_file(value: Any) -> Secret:
    return read_token(read_secret_file(value).revealed)


def read_mailbox_or_address(value: Any) -> str:
    """An address, or a local part of ours."""
    text = read_text(value)
    try:
        Address.parse(text if "@" in text else f"{text}@localhost")
    except AddressError as error:
        raise ValueError(f"expected an address, or the name of a mailbox: {error}") from None
    return text


def template_over(names: tuple[str, ...], trees: tuple[str, ...]) -> Read:
    """Reads a template; it may have several lines."""

    def read(value: Any) -> Template:
        if not isinstance(value, str) or not value.replace("\n", "").isprintable():
            raise ValueError("expected a text without control characters")
        return Template.parse(value, names, trees)

    return read


read_hook_template = template_over(HOOK_NAMES, HOOK_TREES)


def token_faults(token: dict[str, Any]) -> Iterator[Fault]:
    """What is wrong between the keys of an [api_token.NAME]; a value at fault itself is None."""
    if LABEL.fullmatch(token["name"]) is None:
        yield "", _NAME_FAULT
    if (token["token"] is None) == (token["token_file"] is None):
        yield "", "expected either token or token_file"


def hook_faults(hook: dict[str, Any], routes: list[str]) -> Iterator[Fault]:
    """As `token_faults`, of an [inbound.NAME]; `routes` are the names there are."""
    if LABEL.fullmatch(hook["name"]) is None:
        yield "", _NAME_FAULT
    keys = ("token", "token_file", "secret", "secret_file")
    given = [key for key in keys if hook[key] is not None]
    if not given:
        yield "", "a hook needs a token, or a secret for senders that sign: anybody could post else"
    elif len(given) > 1:
        yield given[1], f"one of {', '.join(keys)}, not more"
    if hook["signature"] != WAYPOST and not {"secret", "secret_file"} & set(given):
        yield "signature", "is for hooks with a secret"
    if bool(hook["to"]) == bool(hook["route"]):
        yield "", "either to or route says where it goes"
    elif hook["route"] is not None and hook["route"] not in routes:
        yield "route", f"there is no [[route]] {hook['route']!r}"


def http_of(http: dict[str, Any]) -> HttpSettings:
    """The [http] table that these values, found without fault, mean."""
    return HttpSettings(http["bind"], http["hosts"])


def token_of(token: dict[str, Any]) -> ApiToken:
    """As `http_of`."""
    given = {name: value for name, value in token.items() if name != "token_file"}
    return ApiToken(**given | {"token": token["token"] or token["token_file"]})


def hook_of(hook: dict[str, Any]) -> InboundHook:
    """As `http_of`."""
    return InboundHook(
        name=hook["name"],
        token=hook["token"] or hook["token_file"],
        secret=hook["secret"] or hook["secret_file"],
        signature=hook["signature"],
        sender=hook["from"],
        to=hook["to"],
        route=hook["route"],
        subject=hook["subject"],
        text=hook["text"],
        networks=hook["networks"],
    )
