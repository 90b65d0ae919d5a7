"""How the public certificate stands: what lies on disk, when it is due, what went wrong."""

from __future__ import annotations

import datetime
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cryptography import x509

from waypost.durable import write_public
from waypost.tls.authority import Subjects, subjects_of

# The certificate with its chain, and its key: one file, so that they always fit.
CERTIFICATE = "acme.pem"
ACCOUNT = "acme-account.key"
TRIES = "acme-tries.json"

# A certificate that lives shorter is renewed at half of its life, others at two thirds: what
# Let's Encrypt asks for, and room for a few days of trouble in either.
SHORT_LIFE = datetime.timedelta(days=10)

FIRST_RETRY_S = 600.0
# Six hours leave a certificate of 160 hours a dozen tries in its second half.
MAX_RETRY_S = 21_600.0
# A server may ask for more; nothing waits longer, whatever a server or a clock that jumps says.
LONGEST_WAIT_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Held:
    """The certificate we have."""

    subjects: Subjects
    issued_at: float
    expires_at: float
    due_at: float


@dataclass(frozen=True, slots=True)
class Tries:
    """Orders that failed since the last that did not. Kept, as servers count failures too."""

    issued_by: str = ""  # the directory the certificate came from
    directory: str = ""  # the one that the rest is about
    failures: int = 0
    problem: str | None = None  # None: all is well
    failed_at: float | None = None  # None: as above
    again_at: float = 0.0


def read_held(directory: Path) -> Held | None:
    """None: there is none that could be read. Blocks."""
    try:
        return held_of((directory / CERTIFICATE).read_bytes())
    except (OSError, ValueError):
        return None  # to be ordered anew, as one that is lost


def held_of(pem: bytes) -> Held:
    """What a certificate says. Raises ValueError."""
    certificate = x509.load_pem_x509_certificates(pem)[0]
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    share = 1 / 2 if ends - begins < SHORT_LIFE else 2 / 3
    due = begins + (ends - begins) * share
    return Held(subjects_of(certificate), begins.timestamp(), ends.timestamp(), due.timestamp())


def read_tries(directory: Path) -> Tries:
    """What was written last; nothing, if that cannot be read. Blocks."""
    try:
        tries = Tries(**json.loads((directory / TRIES).read_bytes()))
        return replace(tries, failures=int(tries.failures), again_at=float(tries.again_at))
    except (OSError, ValueError, TypeError):
        return Tries()


def write_tries(directory: Path, tries: Tries) -> None:
    """Raises OSError; blocks."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_public(directory / TRIES, json.dumps(asdict(tries)).encode() + b"\n")


def after_failure(
    tries: Tries, directory: str, problem: str, *, now: float, retry_after_s: float | None
) -> Tries:
    """One more failure; each wait is twice the one before."""
    failures = tries.failures + 1
    wait_s = min(FIRST_RETRY_S * 2 ** min(failures - 1, 16), MAX_RETRY_S)
    again_at = now + max(wait_s, min(retry_after_s or 0.0, LONGEST_WAIT_S))
    return Tries(tries.issued_by, directory, failures, problem, now, again_at)


def report(wanted: Subjects, directory: str, held: Held | None, tries: Tries) -> dict[str, Any]:
    """All of it, for programs; times are epoch seconds."""
    return {
        "directory": directory,
        "identifiers": texts_of(wanted),
        "certificate": None
        if held is None
        else {
            "identifiers": texts_of(held.subjects),
            "not_before": held.issued_at,
            "not_after": held.expires_at,
        },
        "renewal_at": None if held is None else held.due_at,
        "problem": tries.problem,
        "failed_at": tries.failed_at,
        "again_at": tries.again_at if tries.problem is not None else None,
    }


def texts_of(subjects: Subjects) -> list[str]:
    """Names first, then addresses."""
    ips = sorted(subjects.ips, key=lambda ip: (ip.version, ip))
    return [*sorted(subjects.names), *map(str, ips)]
