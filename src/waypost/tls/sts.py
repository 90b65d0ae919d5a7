"""MTA-STS (RFC 8461): its record and its policy, without I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

from waypost.errors import AddressError
from waypost.mail.address import Domain

# RFC 8461 §3.2.
MAX_AGE_S = 31_557_600
# No honest domain has so many; the rest of a longer list is not looked at.
MAX_PATTERNS = 1_000

_VERSION = re.compile(r"v=STSv1[ \t]*(?:;|$)")
_ID = re.compile(r"[A-Za-z0-9]{1,32}")


class Mode(StrEnum):
    """What a domain wants of senders."""

    ENFORCE = "enforce"
    TESTING = "testing"
    NONE = "none"


class StsPolicy(NamedTuple):
    """What a domain says of its hosts."""

    mode: Mode
    max_age_s: int
    mx: tuple[str, ...]  # names, or "*." and a name; A-labels, lower case

    def allows(self, host: str) -> bool:
        """Whether a host is one of the domain's; "*." is one label (RFC 8461 §4.1)."""
        _, _, parent = host.partition(".")
        return host in self.mx or f"*.{parent}" in self.mx


def policy_id(texts: Iterable[str]) -> str | None:
    """The id in a domain's TXT records (RFC 8461 §3.1); None: it has no policy."""
    records = [text for text in texts if _VERSION.match(text) is not None]
    if len(records) != 1:
        return None
    for part in records[0].split(";")[1:]:
        key, _, value = part.strip(" \t").partition("=")
        if key.rstrip(" \t") == "id":
            value = value.lstrip(" \t")
            return value if _ID.fullmatch(value) is not None else None
    return None


def parse_policy(octets: bytes) -> StsPolicy:
    """A policy as it is fetched (RFC 8461 §3.2). Raises ValueError that says what is wrong."""
    fields: dict[str, str] = {}
    patterns: list[str] = []
    for line in octets.decode("utf-8", "replace").splitlines():
        key, colon, value = line.partition(":")
        key, value = key.strip(" \t"), value.strip(" \t")
        if not colon:
            if key:
                raise ValueError(f"a line is no field: {key[:40]!r}")
        elif key == "mx":
            patterns.append(value)
        else:
            fields.setdefault(key, value)  # of several the first counts
    if fields.get("version") != "STSv1":
        raise ValueError("it does not say version: STSv1")
    try:
        mode = Mode(fields.get("mode", ""))
    except ValueError:
        raise ValueError("mode is not enforce, testing or none") from None
    age = fields.get("max_age", "")
    if not age.isascii() or not age.isdigit() or len(age) > 10:
        raise ValueError("max_age is no number of seconds")
    if not patterns and mode is not Mode.NONE:
        raise ValueError("it names no mx")
    names = tuple(_pattern(text) for text in patterns[:MAX_PATTERNS])
    return StsPolicy(mode, min(int(age), MAX_AGE_S), names)


def _pattern(text: str) -> str:
    stem = text.removeprefix("*.")
    try:
        name = Domain.parse(stem.removesuffix(".")).ascii
    except AddressError as error:
        raise ValueError(f"mx {text[:80]!r} is no name: {error}") from None
    return text[: len(text) - len(stem)] + name
