"""What the operator says of ACME."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

AUTO = "auto"  # among identifiers: our own public addresses, and the hub's name
LETS_ENCRYPT = "https://acme-v02.api.letsencrypt.org/directory"
# Let's Encrypt certifies addresses under this profile only (draft-ietf-acme-profiles).
SHORT_LIVED = "shortlived"


class ChallengeKind(StrEnum):
    """How the server is shown that an address or a name is ours."""

    HTTP_01 = "http-01"  # RFC 8555 §8.3
    TLS_ALPN_01 = "tls-alpn-01"  # RFC 8737


# Where servers come to look; RFC 8555 §8.3 and RFC 8737 §3 leave no choice on the Internet.
PORTS = {ChallengeKind.HTTP_01: 80, ChallengeKind.TLS_ALPN_01: 443}


@dataclass(frozen=True, slots=True)
class AcmeSettings:
    """The [acme] table."""

    directory: str  # an https URL
    contact: tuple[str, ...] = ()
    identifiers: tuple[str, ...] = (AUTO,)  # addresses, names as A-labels, and AUTO
    challenge: ChallengeKind = ChallengeKind.HTTP_01
    bind: tuple[tuple[str, int], ...] = ()  # where challenges are answered
    profile: str | None = None  # None: SHORT_LIVED for addresses, where the server knows it
    ca: Path | None = None  # who vouches for the server; None: whom this system trusts
