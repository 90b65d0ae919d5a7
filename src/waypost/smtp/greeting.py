"""What every session says of itself at its beginning and its end, made once for each of our names.

Extensions: PIPELINING (RFC 2920), SIZE (1870), 8BITMIME (6152), BINARYMIME and CHUNKING (3030),
SMTPUTF8 (6531), ENHANCEDSTATUSCODES (2034), DSN (3461), LIMITS (9422), STARTTLS (3207), AUTH
(4954), REQUIRETLS (8689).
"""

from __future__ import annotations

from functools import lru_cache

from waypost.mail.reply import Reply


@lru_cache(maxsize=256)
def greeting(name: str, is_lmtp: bool, software: str) -> bytes:
    """220; LMTP says so in its greeting (RFC 2033 §4.1)."""
    return f"220 {name} {'LMTP' if is_lmtp else 'ESMTP'} {software}\r\n".encode()


@lru_cache(maxsize=256)
def extensions(
    name: str,
    max_message_bytes: int,
    max_recipients: int,
    offers_tls: bool,
    mechanisms: tuple[str, ...],
    is_encrypted: bool,
) -> bytes:
    """The reply to EHLO: what is offered, a line each (RFC 5321 §4.1.1.1)."""
    keywords = (
        name,
        "PIPELINING",
        f"SIZE {max_message_bytes}",
        "8BITMIME",
        "BINARYMIME",
        "CHUNKING",
        "SMTPUTF8",
        "ENHANCEDSTATUSCODES",
        "DSN",
        f"LIMITS RCPTMAX={max_recipients}",
        *(("STARTTLS",) if offers_tls else ()),
        *(("REQUIRETLS",) if is_encrypted else ()),
        *((f"AUTH {' '.join(mechanisms)}",) if mechanisms else ()),
        "HELP",
    )
    lines = [f"250-{keyword}\r\n" for keyword in keywords[:-1]]
    return "".join([*lines, f"250 {keywords[-1]}\r\n"]).encode()


@lru_cache(maxsize=256)
def closing(name: str) -> Reply:
    """The reply to QUIT."""
    return Reply(221, f"{name} closing", (0, 0))
