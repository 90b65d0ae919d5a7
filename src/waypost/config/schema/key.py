"""What a key and a section of the configuration are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from waypost.config.readers import Read, read_secret_file


@dataclass(frozen=True, slots=True)
class Key:
    """One key."""

    name: str
    read: Read
    default: Any  # REQUIRED: there is none
    expected: str  # in words, for errors and the reference
    meaning: str


@dataclass(frozen=True, slots=True)
class Section:
    """A [table], or an array of [[tables]]."""

    name: str  # empty: the top of the file; "a.b": [[a.b]], below [a]
    keys: tuple[Key, ...]
    meaning: str
    is_array: bool = False  # [[name]]
    is_named: bool = False  # [name.SOMETHING], as many as there are; SOMETHING is the key "name"

    def key(self, name: str) -> Key | None:
        """The key of this name; None: there is none."""
        return next((key for key in self.keys if key.name == name), None)


REQUIRED: Any = object()


def same_in_file(name: str, read: Read = read_secret_file) -> Key:
    """Beside a secret: the key by which a file holds it."""
    meaning = "The same, in a file that only the hub's user may read."
    return Key(f"{name}_file", read, None, "a file", meaning)
