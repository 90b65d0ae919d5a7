"""What the queue holds and what became of mail: read-only questions to queue.db.

Works beside a running hub and without one; SQLite's WAL lets readers in at any time. What is
shown are texts as they were written: rows that no hub of this version could read are shown, too.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from waypost.errors import StoreUnavailable
from waypost.mail.envelope import REPORT, Arrival, QueueId, RecipientStatus
from waypost.queue import schema
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
class RecipientEntry:
    """One recipient's place in the queue."""

    number: int
    address: str
    target: str
    rule: str
    status: RecipientStatus
    attempts: int
    next_attempt_at: float | None  # None: not waiting
    last_reply: str | None  # None: no attempt has ended
    last_hop: str | None  # None: no host was reached
    outcome: str | None  # None: not finished
    finished_at: float | None  # None: not finished


@dataclass(frozen=True, slots=True)
class Entry:
    """A message, all its recipients, and their stories; the content is not read."""

    queue_id: QueueId
    accepted_at: float
    finished_at: float | None  # None: still in the queue
    sender: str | None  # None: the null reverse-path <>
    protocol: str
    client_ip: str | None  # None: a Unix socket, or the hub itself
    local_ip: str | None  # None: as above
    helo: str
    listener: str
    trusted: bool
    reports_allowed: bool
    size: int  # octets of the content
    login: str | None  # None: nobody was logged in
    tls: str | None  # None: it came in clear
    auth_results: str
    recipients: tuple[RecipientEntry, ...]
    attempts: tuple[Attempt, ...]

    @property
    def is_report(self) -> bool:
        """True for a DSN the hub wrote itself."""
        return self.listener == REPORT


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


@dataclass(frozen=True, slots=True)
class HeldBack:
    """Mails of one client that a route holds back."""

    arrival: Arrival  # whose they are; not how they came
    route: str
    until: float
    messages: int


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

    def held_back(self, begin: str) -> list[HeldBack]:
        """Mail that waits, and whose last reply begins so. Raises StoreUnavailable."""
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT client_ip, trusted, login, rule, max(next_attempt_at),"
                " count(DISTINCT queue_id) FROM recipient JOIN message USING (queue_id)"
                " WHERE next_attempt_at IS NOT NULL AND attempts = 0"
                " AND substr(last_reply, 1, ?) = ? GROUP BY 1, 2, 3, 4",
                (len(begin), begin),
            ).fetchall()
        return [
            HeldBack(
                Arrival(
                    *("", None if ip is None else ip_address(ip), None, "", ""),
                    trusted=bool(trusted),
                    login=login,
                ),
                *(rule, until, messages),
            )
            for ip, trusted, login, rule, until, messages in rows
        ]

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
            RecipientEntry(
                number=found[1],
                address=found[2],
                target=found[5],
                rule=found[6],
                status=RecipientStatus(found[7]),
                attempts=found[8],
                next_attempt_at=found[9],
                last_reply=found[11],
                last_hop=found[12],
                outcome=found[13],
                finished_at=found[14],
            )
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
        return Entry(
            queue_id=encode_queue_id(row[0]),
            accepted_at=row[1],
            finished_at=row[2],
            sender=row[3],
            protocol=row[8],
            client_ip=row[9],
            local_ip=row[10],
            helo=row[11],
            listener=row[12],
            trusted=bool(row[13]),
            reports_allowed=bool(row[14]),
            size=row[16],
            login=row[19],
            tls=row[20],
            auth_results=row[22],
            recipients=recipients,
            attempts=attempts,
        )
