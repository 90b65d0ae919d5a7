"""What is known of who sent a message, and Authentication-Results, where it is told (RFC 8601)."""

from __future__ import annotations

import re
from typing import NamedTuple

_TOKEN = re.compile(r"[!#$%&'*+\-./0-9A-Z^_`a-z{|}~]+")  # RFC 2045 §5.1
# Proof of a literal sender is ours to name (RFC 8601 §2.7.7).
LITERAL = "x-literal"


class AuthResult(NamedTuple):
    """One method's result, about one identity."""

    method: str  # as "auth", or LITERAL
    result: str  # pass | fail | neutral | none
    property: str  # as "smtp.mailfrom"
    value: str
    reason: str = ""

    def __str__(self) -> str:
        reason = f" reason={_quoted(self.reason)}" if self.reason else ""
        return f"{self.method}={self.result}{reason} {self.property}={_value(self.value)}"


def results_text(results: list[AuthResult]) -> str:
    """Results as they stand in the field and in the trace; empty: there is none."""
    return "; ".join(map(str, results))


def results_field(authserv_id: str, results: list[AuthResult], *, smtputf8: bool) -> bytes:
    """The field for results; nothing for none. Without `smtputf8` it is ASCII (RFC 6532 §3)."""
    if not results:
        return b""
    lines = ";\r\n\t".join(map(str, results))
    field = f"Authentication-Results: {_value(authserv_id)};\r\n\t{lines}\r\n"
    return field.encode() if smtputf8 else field.encode("ascii", "replace")


def _value(text: str) -> str:
    return text if _TOKEN.fullmatch(text) is not None else _quoted(text)


def _quoted(text: str) -> str:
    harmless = "".join(character if character.isprintable() else "?" for character in text)
    escaped = harmless.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
