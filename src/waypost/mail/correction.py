"""What was probably meant by a text that is no address."""

from __future__ import annotations

import re
from ipaddress import ip_address

from waypost.errors import AddressError
from waypost.mail.address import AddressLiteral, parse_exactly, render_local_part
from waypost.mail.matching import PROVIDERS

# Longer texts were not typed by a person who would like to be helped.
MAX_TEXT = 512

_IPV4_WITH_ZEROS = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}")
_AT_SIGNS = str.maketrans({"\uff20": "@", "\ufe6b": "@"})


def suggest(text: str) -> str | None:
    """An address near to `text`, rendered; None: none comes to mind."""
    if len(text) > MAX_TEXT:
        return None
    tidied = _tidy(text)
    for correct in (_as_it_is, _as_literal, _without_dot, _quoted):
        corrected = correct(tidied)
        if corrected is None or corrected == text:
            continue
        try:
            return str(parse_exactly(corrected))
        except AddressError:
            continue
    return None


def _tidy(text: str) -> str:
    """Without what copying leaves around an address."""
    text = text.strip().translate(_AT_SIGNS)
    if text[:7].lower() == "mailto:":
        text = text[7:]
    if text.startswith("<") and text.endswith(">"):
        text = text[1:-1]
    return text


def _as_it_is(text: str) -> str | None:
    return text


def _as_literal(text: str) -> str | None:
    """user@10.0.0.5, user@2001:db8::1, user@[2001:db8::1], user@[10.0.0.5 and the like."""
    local_part, at, domain = text.rpartition("@")
    if not at:
        return None
    inner = domain.strip("[] ")
    for tag in ("ipv6:", "ipv4:"):
        if inner.lower().startswith(tag):
            inner = inner[len(tag) :]
    inner = inner.partition("%")[0].partition("/")[0]
    if _IPV4_WITH_ZEROS.fullmatch(inner) is not None:
        inner = ".".join(str(int(number)) for number in inner.split("."))
    try:
        return f"{local_part}@{AddressLiteral(ip_address(inner))}"
    except ValueError:
        return None


def _without_dot(text: str) -> str | None:
    """A dot at the end of the domain, as DNS writes names, or two in a row."""
    local_part, at, domain = text.rpartition("@")
    if not at:
        return None
    return f"{local_part}@{re.sub(r'[.]+', '.', domain).strip('.')}"


def _quoted(text: str) -> str | None:
    """Spaces and stray dots in a local part are fine between quotes."""
    local_part, at, domain = text.rpartition("@")
    if not at or not local_part or '"' in local_part or "@" in local_part:
        return None
    return f"{render_local_part(local_part)}@{domain}"


def near_provider(name: str) -> str | None:
    """A large provider's name one keystroke away from `name`; None: there is none."""
    return next((known for known in PROVIDERS if _is_one_keystroke(name, known)), None)


def _is_one_keystroke(one: str, other: str) -> bool:
    """One letter changed, missing, added, or two neighbours swapped."""
    if one == other or abs(len(one) - len(other)) > 1:
        return False
    start = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
    if start is None:
        return True  # one letter more at the end
    rest, other_rest = one[start:], other[start:]
    return (
        rest[1:] == other_rest[1:]
        or rest[1:] == other_rest
        or rest == other_rest[1:]
        or (rest[1::-1] == other_rest[:2] and rest[2:] == other_rest[2:])
    )
