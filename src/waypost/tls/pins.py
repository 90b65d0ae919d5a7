"""Pins: the key a host showed first, by which it is known from then on.

Kept in `tls/pins.db` of the data directory, written before mail is sent. The hub and the command
line work on the same file. Every method blocks.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from waypost.tls.kept import kept

_SCHEMA = """
CREATE TABLE IF NOT EXISTS pin (
    place TEXT PRIMARY KEY,
    key TEXT NOT NULL,
    since REAL NOT NULL,
    offered TEXT,
    offered_at REAL,
    told INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID
"""
_COLUMNS = "place, key, since, offered, offered_at, told"


class Pin(NamedTuple):
    """What is known of one place."""

    place: str  # literal:port or name:port
    key: str  # SHA-256 of the SubjectPublicKeyInfo, in hex
    since: float
    offered: str | None = None  # another key it showed since; None: none
    offered_at: float | None = None  # when first
    told: bool = False  # the operator was


class Pins:
    """See the module text."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        """The file is made at first use."""
        self._path = path
        self._clock = clock

    def meet(self, place: str, key: str) -> Pin:
        """What is known of a place that shows this key now; the first key is kept.

        The place may be trusted when `offered` is None. Raises KeptUnavailable.
        """
        with self._opened() as database:
            pin = _find(database, place)
            if pin is None:
                database.execute(
                    "INSERT INTO pin (place, key, since) VALUES (?, ?, ?)",
                    (place, key, self._clock()),
                )
                return Pin(place, key, self._clock())
            offered = None if key == pin.key else key
            if offered != pin.offered:
                at = None if offered is None else self._clock()
                database.execute(
                    "UPDATE pin SET offered = ?, offered_at = ?, told = 0 WHERE place = ?",
                    (offered, at, place),
                )
                return pin._replace(offered=offered, offered_at=at, told=False)
            return pin

    def told(self, place: str, offered: str) -> None:
        """The operator knows of this change. Raises KeptUnavailable."""
        with self._opened() as database:
            database.execute(
                "UPDATE pin SET told = 1 WHERE place = ? AND offered = ?", (place, offered)
            )

    def all(self) -> list[Pin]:
        """Every pin, by place. Raises KeptUnavailable."""
        if not self._path.exists():
            return []
        with self._opened() as database:
            rows = database.execute(f"SELECT {_COLUMNS} FROM pin ORDER BY place")
            return [_pin(row) for row in rows]

    def find(self, place: str) -> Pin | None:
        """The pin of a place; None: there is none. Raises KeptUnavailable."""
        if not self._path.exists():
            return None
        with self._opened() as database:
            return _find(database, place)

    def accept(self, place: str, offered: str) -> bool:
        """The key shown last is the place's from now on; False: it shows another one by now.

        Raises KeptUnavailable.
        """
        with self._opened() as database:
            done = database.execute(
                "UPDATE pin SET key = offered, since = ?, offered = NULL, offered_at = NULL,"
                " told = 0 WHERE place = ? AND offered = ?",
                (self._clock(), place, offered),
            )
            return done.rowcount == 1

    def forget(self, place: str) -> bool:
        """Know nothing of a place any more; False: nothing was known. Raises KeptUnavailable."""
        if not self._path.exists():
            return False
        with self._opened() as database:
            return database.execute("DELETE FROM pin WHERE place = ?", (place,)).rowcount == 1

    def _opened(self) -> contextlib.AbstractContextManager[sqlite3.Connection]:
        return kept(self._path, _SCHEMA)


def _find(database: sqlite3.Connection, place: str) -> Pin | None:
    row = database.execute(f"SELECT {_COLUMNS} FROM pin WHERE place = ?", (place,)).fetchone()
    return None if row is None else _pin(row)


def _pin(row: tuple[str, str, float, str | None, float | None, int]) -> Pin:
    place, key, since, offered, offered_at, told = row
    return Pin(place, key, since, offered, offered_at, bool(told))
