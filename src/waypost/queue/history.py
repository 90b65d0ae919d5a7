"""What the queue holds and what became of mail: read-only questions to queue.db.

Works beside a running hub and without one; SQLite's WAL lets readers in at any time.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from waypost.errors import StoreUnavailable
from waypost.mail.envelope import QueuedRecipient, QueueId, RecipientStatus
from waypost.mail.message import QueuedMessage
from waypost.queue import schema
from waypost.queue.rows import read_message, read_recipient
from waypost.queue.store import decode_queue_id, encode_queue_id


@dataclass(frozen=True, slots=True)
class Attempt:
    """One entry of a recipient's story: an attempt, or what an operator did."""

    number: int  # of the recipient
    at: float
    outcome: str
    reply: str | None  # None: no host said anything
    hop: str | None  # None: as above


@dataclass(frozen=True, slots=True)
class Entry:
    """A message, all its recipients, and their stories; the content is not read."""

    message: QueuedMessage
    size: int  # octets of the content
    finished_at: float | None  # None: still in the queue
    recipients: tuple[QueuedRecipient, ...]
    attempts: tuple[Attempt, ...]


@dataclass(frozen=True, slots=True)
class RefusalEntry:
    """A refusal as it was noted."""

    at: float
    client_ip: str | None
    listener: str
    helo: str
    reverse_path: str
    forward_path: str
    reply: str


@dataclass(frozen=True, slots=True)
class Search:
    """What to look for; fields that are None match everything."""

    queue_id: QueueId | None = None
    client_ip: str | None = None
    address: str | None = None  # part of the sender or of a recipient
    only_unfinished: bool = False
    limit: int = 50


class History:
    """Reader of one queue.db."""

    def __init__(self, data_directory: Path) -> None:
        self._path = data_directory / "queue.db"

    def find(self, search: Search) -> list[Entry]:
        """Messages that match, newest first. Raises StoreUnavailable, ValueError for a bad id."""
        conditions: list[str] = []
        values: list[Any] = []
        if search.queue_id is not None:
            conditions.append("message.queue_id = ?")
            values.append(decode_queue_id(search.queue_id))
        if search.client_ip is not None:
            conditions.append("client_ip = ?")
            values.append(search.client_ip)
        if search.only_unfinished:
            conditions.append("finished_at IS NULL")
        if search.address is not None:
            conditions.append(
                "(instr(lower(coalesce(reverse_path, '<>')), ?) OR EXISTS (SELECT 1 FROM recipient"
                " WHERE recipient.queue_id = message.queue_id"
                " AND instr(lower(forward_path), ?)))"
            )
            values += [search.address.lower()] * 2
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        with self._reading() as connection:
            rows = connection.execute(
                f"{schema.SELECT_MESSAGE} FROM message{where} ORDER BY queue_id DESC LIMIT ?",
                [*values, search.limit],
            ).fetchall()
            return [self._entry(connection, row) for row in rows]

    def waiting_for(self, target: str) -> list[QueueId]:
        """Messages with recipients that wait for a target, or for any of its kind.

        Raises StoreUnavailable.
        """
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT DISTINCT queue_id FROM recipient"
                " WHERE next_attempt_at IS NOT NULL AND (target = ?1 OR target GLOB ?1 || ':*')",
                (target,),
            )
            return [encode_queue_id(number) for (number,) in rows]

    def refusals(self, search: Search) -> list[RefusalEntry]:
        """Refusals that match, newest first. Raises StoreUnavailable."""
        conditions: list[str] = []
        values: list[Any] = []
        if search.client_ip is not None:
            conditions.append("client_ip = ?")
            values.append(search.client_ip)
        if search.address is not None:
            conditions.append("(instr(lower(reverse_path), ?) OR instr(lower(forward_path), ?))")
            values += [search.address.lower()] * 2
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        with self._reading() as connection:
            rows = connection.execute(
                f"SELECT * FROM refusal{where} ORDER BY rowid DESC LIMIT ?",
                [*values, search.limit],
            )
            return [RefusalEntry(*row) for row in rows]

    def counts(self) -> dict[str, int]:
        """Recipients in the queue by status."""
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT status, count(*) FROM recipient WHERE status <> ? GROUP BY status",
                (int(RecipientStatus.FINISHED),),
            )
            return {RecipientStatus(status).name.lower(): count for status, count in rows}

    def is_held(self) -> bool:
        """True when nothing is being delivered by an operator's wish."""
        with self._reading() as connection:
            row = connection.execute("SELECT value FROM setting WHERE name = 'held'").fetchone()
            return row is not None and row[0] == "1"

    def exists(self) -> bool:
        """False: no hub has ever run with this data directory."""
        return self._path.exists()

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self._path, isolation_level=None)) as connection:
                connection.execute("PRAGMA query_only = ON")
                connection.execute("BEGIN")
                yield connection
        except sqlite3.Error as error:
            raise StoreUnavailable(f"{self._path}: {error}") from error

    def _entry(self, connection: sqlite3.Connection, row: Sequence[Any]) -> Entry:
        recipients = tuple(
            read_recipient(found)
            for found in connection.execute(
                f"{schema.SELECT_RECIPIENT} WHERE queue_id = ? ORDER BY number", (row[0],)
            )
        )
        attempts = tuple(
            Attempt(*found)
            for found in connection.execute(
                "SELECT number, at, outcome, reply, hop FROM attempt"
                " WHERE queue_id = ? ORDER BY rowid",
                (row[0],),
            )
        )
        message = read_message(row, None, None, recipients)
        return Entry(message, row[16], row[2], recipients, attempts)
