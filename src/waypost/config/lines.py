"""On which line of a TOML text each key stands.

tomllib reads values but forgets places. This looks at a text tomllib has already accepted, so it
may trust the grammar and only has to keep track of tables, keys and what spans lines.
"""

from __future__ import annotations

import re
import tomllib

KeyPath = tuple[str | int, ...]

_HEADER = re.compile(r"\s*(\[\[?)\s*([^\[\]#]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(
    r"\s*((?:\"[^\"]*\"|'[^']*'|[A-Za-z0-9_\-]+)(?:\s*\.\s*(?:\"[^\"]*\"|'[^']*'|[A-Za-z0-9_\-]+))*)\s*="
)
_KEY_PART = re.compile(r"\"([^\"]*)\"|'([^']*)'|([A-Za-z0-9_\-]+)")


def line_numbers(text: str) -> dict[KeyPath, int]:
    """Line (from 1) of every table header and key, by path; members of [[arrays]] by index."""
    found: dict[KeyPath, int] = {}
    table: KeyPath = ()
    counts: dict[KeyPath, int] = {}
    lines = text.split("\n")  # splitlines() knows line ends that TOML does not
    index = 0
    while index < len(lines):
        line = lines[index]
        header = _HEADER.match(line)
        key = _KEY.match(line)
        number = index + 1
        index += 1
        if key is not None:
            path = table + _parts(key[1])
            for length in range(len(table) + 1, len(path)):
                found.setdefault(path[:length], number)  # tables that a dotted key makes
            found[path] = number
            # A value that spans lines ends where the text from its key on is whole TOML.
            statement = line
            while not _is_whole(statement) and index < len(lines):
                statement += "\n" + lines[index]
                index += 1
        elif header is not None:
            path = _below_arrays(_parts(header[2]), counts)
            if header[1] == "[[":
                position = counts.get(path, 0)
                counts[path] = position + 1
                path = (*path, position)
            table = path
            found[path] = number
    return found


def _below_arrays(path: KeyPath, counts: dict[KeyPath, int]) -> KeyPath:
    """The path of a header: a table below an array belongs to its last member so far."""
    found: KeyPath = path[:1]
    for part in path[1:]:
        if found in counts:
            found = (*found, counts[found] - 1)
        found = (*found, part)
    return found


def _parts(dotted: str) -> KeyPath:
    return tuple(match[1] or match[2] or match[3] for match in _KEY_PART.finditer(dotted))


def _is_whole(statement: str) -> bool:
    try:
        tomllib.loads(statement)
    except tomllib.TOMLDecodeError:
        return False
    return True
