"""Device profiles as data: what a device sends, what it hears, and what is kept of it.

A file of catalogue/ holds [[profile]] tables:

    name      also the mailbox; {box} in the dialogue
    mailbox   the mailbox, where the name is none that fits (optional)
    device    the kind of device
    evidence  where the quirk was seen, as project #issue; or "made after …": typical of the
              family, and seen by us nowhere
    quirks    rows of rows.toml
    dialogue  see below
    stored    content as it is kept, a line each; one for each message, in any order
    trace     a text in Received (optional)
    sender    the address in Return-Path (optional)
    stranger_stored   the same bytes are taken from a stranger, too, and kept alike (else: not)

Lines of a dialogue:

    C: text     the client sends text and CRLF
    C- text     the client sends text, and no CRLF
    P           a pause: what follows comes in a segment of its own
    S: text     the hub says a reply with a line that begins so
    T: text     ... to a stranger, where that differs
    T. text     ... and with that the case is decided: the stranger leaves
    T! text     ... and closes
    T~ text     a stranger hears nothing at all until it sends the true end mark, and then this
    RESET       the client resets the connection
    CLOSE       the client closes the connection

Escapes: \\r \\n \\0 \\\\ \\xHH, \\{text*N} for N times text.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from tests.protocol.test_dialogues import unescape

CATALOGUE = Path(__file__).parent / "catalogue"
ROWS = Path(__file__).parent / "rows.toml"


@dataclass(frozen=True)
class Expected:
    """One reply."""

    text: str
    to_stranger: str
    mark: str  # of the line for strangers: one of ":.!~"


@dataclass
class Turn:
    """What the client sends, segment by segment, and what it then hears or does."""

    segments: list[bytes] = field(default_factory=lambda: [b""])
    expected: list[Expected] = field(default_factory=list)
    ends: str = ""  # RESET | CLOSE | empty: it goes on


@dataclass(frozen=True)
class Profile:
    """One [[profile]]."""

    name: str
    device: str
    evidence: str
    quirks: tuple[str, ...]
    turns: tuple[Turn, ...]
    stored: tuple[bytes, ...]
    trace: str = ""
    sender: str | None = None
    box: str = ""  # empty: the name is
    stranger_stored: bool = False

    @property
    def mailbox(self) -> str:
        """Where its mail goes."""
        return self.box or self.name


def read_catalogue() -> list[Profile]:
    """All profiles of all files."""
    return [
        _profile(**table)
        for path in sorted(CATALOGUE.glob("*.toml"))
        for table in tomllib.loads(path.read_text("utf-8"))["profile"]
    ]


def _profile(
    *,
    name: str,
    dialogue: str,
    stored: list[str],
    quirks: list[str],
    mailbox: str = "",
    **more: str,
) -> Profile:
    return Profile(
        name,
        box=mailbox,
        quirks=tuple(quirks),
        turns=tuple(_turns(name, dialogue)),
        stored=tuple(_lines(text) for text in stored),
        **more,  # type: ignore[arg-type] # TOML's, and stranger_stored is a boolean
    )


def _lines(text: str) -> bytes:
    return b"".join(unescape(line) + b"\r\n" for line in text.removesuffix("\n").split("\n"))


def _turns(name: str, dialogue: str) -> list[Turn]:
    turns = [Turn()]
    for line in dialogue.strip("\n").split("\n"):
        kind, text = line[:2], line[3:].replace("{box}", name)
        turn = turns[-1]
        if kind in ("C:", "C-", "P") or line in ("RESET", "CLOSE"):
            if turn.expected or turn.ends:
                turn = Turn()
                turns.append(turn)
            if line in ("RESET", "CLOSE"):
                turn.ends = line
            elif kind == "P":
                turn.segments.append(b"")
            else:
                turn.segments[-1] += unescape(text) + (b"\r\n" if kind == "C:" else b"")
        elif kind == "S:":
            turn.expected.append(Expected(text, text, ":"))
        elif kind in ("T:", "T.", "T!", "T~"):
            turn.expected[-1] = Expected(turn.expected[-1].text, text, kind[1])
        else:
            raise AssertionError(f"{name}: {line!r}")
    return turns
