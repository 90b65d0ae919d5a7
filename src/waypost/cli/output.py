"""How the command line talks: plain columns for people, JSON for programs, colour on terminals."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

EXIT_YES = 0
EXIT_NO = 1  # refused, undeliverable, not found
EXIT_USAGE = 2  # usage or configuration error
EXIT_LATER = 75  # sysexits' EX_TEMPFAIL: try again

_COLOURS = {"red": "31", "green": "32", "yellow": "33", "dim": "2", "bold": "1"}


def _colours_wanted() -> bool:
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ


def paint(text: str, colour: str) -> str:
    """`text` in a colour where standard output is a terminal that wants it."""
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if _colours_wanted() else text


def say(text: str = "") -> None:
    """A line for the user."""
    sys.stdout.write(text + "\n")


def complain(text: str) -> None:
    """A line about trouble."""
    sys.stderr.write(f"waypost: {text}\n")


def reason_of(error: OSError) -> str:
    """What the system refused, and for which file."""
    text = error.strerror or str(error)
    return text if error.filename is None else f"{error.filename}: {text}"


def say_json(value: Any) -> None:
    """One JSON document on one line."""
    # In ASCII: what strangers wrote must not steer a terminal.
    sys.stdout.write(json.dumps(value, default=str) + "\n")


def printable(text: str) -> str:
    """What a stranger wrote, safe for a terminal: controls are shown, not obeyed."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def table(rows: Sequence[Sequence[str]], heads: Sequence[str]) -> None:
    """Rows in aligned columns under their heads."""
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]
    widths[-1] = 0
    say(
        paint(
            "  ".join(head.ljust(width) for head, width in zip(heads, widths, strict=True)), "bold"
        )
    )
    for row in rows:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))


def local_time(at: float | None) -> str:
    """A moment in local time; empty for None."""
    return "" if at is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def iso_time(at: float | None) -> str | None:
    """A moment in UTC for JSON; None stays None."""
    return None if at is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
