"""What the operator says of TLS."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from waypost.tls.policy import Rule

# A leaf of our own is looked at this often.
LOOK_S = 43_200.0


class Profile(StrEnum):
    """How old a client may be."""

    MODERN = "modern"  # TLS 1.2 and later
    LEGACY = "legacy"  # TLS 1.0 and later, for the networks of its listener only


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """The [tls] table."""

    certificate: Path | None = None  # None, both: issued by the hub's own authority
    key: Path | None = None
    rules: tuple[Rule, ...] = ()  # for mail on its way out, in order
