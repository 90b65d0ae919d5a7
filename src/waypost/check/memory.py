"""What probing has found, and how much of it was done: check.db in the data directory.

Answers are used again for as long as Exim keeps those of its callouts; what was asked is counted,
so that neither a loop in a shell nor several programs at once ask more than the operator allows.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from waypost.errors import TemporaryError
from waypost.mail.address import IPAddress, as_value

# Exim's defaults (spec, "Callout verification"): an address for a day when it exists and two hours
# when not; a domain for a week, and three hours when it refused us.
ADDRESS_YES_S = 86_400.0
ADDRESS_NO_S = 7_200.0
DOMAIN_YES_S = 604_800.0
DOMAIN_NO_S = 10_800.0

_MINUTE_S = 60.0
_DAY_S = 86_400.0
# Another process may write for a moment.
_LOCKED_S = 10.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS remembered (
    subject TEXT NOT NULL,
    what TEXT NOT NULL,
    found TEXT NOT NULL,
    until REAL NOT NULL,
    PRIMARY KEY (subject, what)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS asked (at REAL NOT NULL, host TEXT NOT NULL, network TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS asked_at ON asked (at);
"""


@dataclass(frozen=True, slots=True)
class Budget:
    """Sessions that may be begun: with one host, one network (/24, /64), and in all."""

    host_per_minute: int = 6
    network_per_minute: int = 12
    per_minute: int = 60
    per_day: int = 10_000


class MemoryUnavailable(TemporaryError):
    """The file cannot be read or written now."""


class Memory:
    """See the module text. Every method is quick, but works on a file: MemoryUnavailable."""

    def __init__(self, path: Path | None, *, clock: Callable[[], float] = time.time) -> None:
        """`path` None: in memory only. Raises OSError, MemoryUnavailable."""
        if path is not None:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        self._path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(
            ":memory:" if path is None else path,
            timeout=_LOCKED_S,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            with self._opened() as database:
                database.executescript(_SCHEMA)
        except MemoryUnavailable:
            self._connection.close()
            raise

    def close(self) -> None:
        """Forget what is over, and let go of the file."""
        try:
            with self._opened() as database:
                now = self._clock()
                database.execute("DELETE FROM remembered WHERE until <= ?", (now,))
                database.execute("DELETE FROM asked WHERE at <= ?", (now - _DAY_S,))
        finally:
            with self._lock:
                self._connection.close()

    def recall(self, subject: str, what: str) -> Any:
        """What was kept of a subject; None: nothing that still holds."""
        with self._opened() as database:
            row = database.execute(
                "SELECT found FROM remembered WHERE subject = ? AND what = ? AND until > ?",
                (subject, what, self._clock()),
            ).fetchone()
        return None if row is None else json.loads(row[0])

    def keep(self, subject: str, what: str, found: Any, lives_s: float) -> None:
        """Remember something JSON can hold."""
        with self._opened() as database:
            database.execute(
                "INSERT OR REPLACE INTO remembered VALUES (?, ?, ?, ?)",
                (subject, what, json.dumps(found), self._clock() + lives_s),
            )

    def subjects_of(self, what: str, limit: int) -> list[str]:
        """Some of the subjects of which this is remembered."""
        with self._opened() as database:
            rows = database.execute(
                "SELECT subject FROM remembered WHERE what = ? AND until > ?"
                " ORDER BY until DESC LIMIT ?",
                (what, self._clock(), limit),
            ).fetchall()
        return [subject for (subject,) in rows]

    def take(self, ip: IPAddress, budget: Budget) -> float:
        """Count a session with a host. 0: begin it; else the seconds until it may be, uncounted."""
        host, network = str(as_value(ip)), network_of(ip)
        with self._opened() as database:
            database.execute("BEGIN IMMEDIATE")
            now = self._clock()  # others may have written until this moment
            try:
                wait_s = max(
                    _wait(database, now, _MINUTE_S, budget.host_per_minute, "host", host),
                    _wait(database, now, _MINUTE_S, budget.network_per_minute, "network", network),
                    _wait(database, now, _MINUTE_S, budget.per_minute),
                    _wait(database, now, _DAY_S, budget.per_day),
                )
                if not wait_s:
                    database.execute("INSERT INTO asked VALUES (?, ?, ?)", (now, host, network))
            finally:
                database.execute("COMMIT")
        return wait_s

    @contextlib.contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._connection
            except sqlite3.Error as error:
                raise MemoryUnavailable(f"{self._path}: {error}") from error


def _wait(
    database: sqlite3.Connection,
    now: float,
    window_s: float,
    limit: int,
    column: str = "",
    value: str = "",
) -> float:
    where, values = ("", ()) if not column else (f" AND {column} = ?", (value,))
    row = database.execute(
        f"SELECT at FROM asked WHERE at > ?{where} ORDER BY at DESC LIMIT 1 OFFSET ?",
        (now - window_s, *values, limit - 1),
    ).fetchone()
    return 0.0 if row is None else row[0] + window_s - now


def network_of(ip: IPAddress) -> str:
    """The network a host shares its budget with: /24, or /64."""
    ip = as_value(ip)
    return str(ip_network((ip, 24 if ip.version == 4 else 64), strict=False))
