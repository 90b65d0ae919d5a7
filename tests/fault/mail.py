"""Mail that can be recognised, and checked for damage, wherever it turns up."""

from __future__ import annotations

import hashlib
import random
import re
from dataclasses import dataclass
from pathlib import Path

# The first line of every mail: who it is, and the digest of all that follows the line.
_MARK = re.compile(rb"^X-Fault: (\S+) ([0-9a-f]{64})\r\n", re.MULTILINE)
_QUEUE_ID = re.compile(rb"\(Waypost\) with \S+ id ([0-9a-z]{13})")

INLINE_BYTES = 65_536
SMALL, LARGE = 2_000, 150_000


@dataclass(frozen=True, slots=True)
class Copy:
    """A mail as it was found."""

    ident: str
    queue_id: str
    is_intact: bool


def make_mail(ident: str, size: int, rng: random.Random) -> bytes:
    """A mail of about `size` octets; lines with dots in front are among them."""
    lines = [b"Subject: fault test", b""]
    text = rng.randbytes(size // 2).hex().encode()
    lines += [text[start : start + 76] for start in range(0, len(text), 76)]
    for dots in (b".", b"..", b".x"):
        lines.insert(rng.randrange(2, len(lines) + 1), dots)
    rest = b"".join(line + b"\r\n" for line in lines)
    return f"X-Fault: {ident} {hashlib.sha256(rest).hexdigest()}\r\n".encode() + rest


def random_size(rng: random.Random) -> int:
    """Mostly small; some around the size where content moves to a file; some well above it."""
    kind = rng.random()
    if kind < 0.86:
        return rng.randrange(100, 6_000)
    if kind < 0.92:
        return rng.randrange(INLINE_BYTES - 300, INLINE_BYTES + 300)
    return rng.randrange(INLINE_BYTES + 1, 3 * INLINE_BYTES)


def read_copy(octets: bytes) -> Copy:
    """What `octets`, with the trace fields in front, is a copy of."""
    mark = _MARK.search(octets)
    if mark is None:
        return Copy("?", "?", is_intact=False)
    queue_id = _QUEUE_ID.search(octets[: mark.start()])
    digest = hashlib.sha256(octets[mark.end() :]).hexdigest()
    return Copy(
        mark[1].decode(),
        "?" if queue_id is None else queue_id[1].decode(),
        is_intact=digest.encode() == mark[2] and queue_id is not None,
    )


def take_copies(mail_root: Path) -> list[Copy]:
    """Read and remove all mail below a Maildir root, as its owner would."""
    copies = []
    for path in sorted(mail_root.glob("*/new/*")):
        copies.append(read_copy(path.read_bytes()))
        path.unlink()
    return copies
