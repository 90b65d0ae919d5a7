"""The writer of queue.db: one thread's work, a batch of requests at a time.

Each batch is one transaction and one sync. WAL with synchronous=FULL: a commit is a synced append
(SQLite documentation, "pragma synchronous"); NORMAL would not sync it. Knows nothing of the event
loop; what has to be decided there is in queue/sqlite.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from waypost.errors import QueueFull, StoreUnavailable, TemporaryError
from waypost.mail.envelope import OutcomeKind, QueuedRecipient, RecipientStatus
from waypost.mail.message import QueuedMessage
from waypost.queue import schema
from waypost.queue.room import reserve_bytes
from waypost.queue.spool import Spool
from waypost.queue.store import Action, Settlement, decode_queue_id

# A 4 KiB message fits a page with three others; with pages of 4 KiB it would take two.
PAGE_BYTES = 16_384
# Checkpoints copy pages into the database and sync twice: rarely, then. On a small disk more
# often: what is in the log must still find room in the database, out of the reserve.
CHECKPOINT_PAGES = 2_000
MIN_CHECKPOINT_PAGES = 16
# Rows of one INSERT; with the widest table well below SQLite's 32,766 bound values.
MAX_ROWS = 100
# While the disk is nearly full the database gives back free pages no more often than this.
SHRINK_EVERY_S = 10.0
# After an I/O error the database is tried afresh this often.
REVIVE_S = 1.0

_WAITING = int(RecipientStatus.WAITING)
_LEASED = int(RecipientStatus.LEASED)
_HELD = int(RecipientStatus.HELD)
_FINISHED = int(RecipientStatus.FINISHED)


@dataclass(slots=True)
class Accept:
    """Keep a message."""

    message: QueuedMessage
    is_lent: bool  # goes straight to the dispatcher, from memory


@dataclass(slots=True)
class Lease:
    """Lend what is due."""

    limit: int
    now: float


@dataclass(slots=True)
class Act:
    """Do what an operator asks."""

    action: Action
    numbers: list[int] | None  # None: all
    unlent: list[tuple[int, int]]  # were waiting in memory, are free again
    now: float


@dataclass(slots=True)
class Note:
    """Refusals, pruning and settings: small things that ride along."""

    statements: list[tuple[str, tuple[Any, ...]]]


Request = Accept | Settlement | Lease | Act | Note


@dataclass(slots=True)
class Leased:
    """The answer to Lease."""

    messages: list[QueuedMessage]
    next_due_at: float | None  # None: nothing waits


class Writer:
    """Owns the connection that writes. After it was made, only one thread may use it."""

    def __init__(self, path: Path, spool: Spool) -> None:
        """Opens or makes the database. Raises sqlite3.Error or StoreUnavailable."""
        self._path = path
        self._spool = spool
        self._next_revival = 0.0
        self._disowned: list[int] = []  # refused to their clients after a commit went wrong
        self._lending: list[tuple[int, int]] = []  # recipients lent by the transaction under way
        self._adrift: list[tuple[int, int]] = []  # perhaps marked as lent, to nobody
        self.is_well = True  # False: after an I/O error, until writing has been proved again
        self.is_tight = False  # told from outside: there is little room on the disk
        self.spare_bytes = 0  # while it is tight: room inside the database
        self._next_shrinking = 0.0
        # None while unwell.
        self._connection: sqlite3.Connection | None = self._open(is_first=True)

    def close(self) -> None:
        """Let go of the database."""
        if self._connection is not None:
            self._connection.close()

    def setting(self, name: str) -> str | None:
        """A value kept in the database; None: it was never set."""
        assert self._connection is not None
        row = self._connection.execute(
            "SELECT value FROM setting WHERE name = ?", (name,)
        ).fetchone()
        return None if row is None else str(row[0])

    def live_content(self, names: Iterable[str]) -> set[str]:
        """Which of these spool files belong to a message."""
        assert self._connection is not None
        in_use: set[str] = set()
        for name in names:
            row = self._connection.execute(
                "SELECT 1 FROM message WHERE queue_id = ? AND content_name = ?"
                " AND finished_at IS NULL",
                (_number_or_none(name), name),
            ).fetchone()
            if row is not None:
                in_use.add(name)
        return in_use

    def run(self, requests: list[Request]) -> list[Any]:
        """Do all of these in one transaction; a result, or an exception, for each in order."""
        try:
            self._revive()
            return self._transact(requests)
        except TemporaryError as error:
            return [error] * len(requests)
        except Exception as error:  # a bug in one request, or no room for all of them at once
            trouble = self._trouble(error, requests)
        if self._connection is None or len(requests) == 1:
            return [trouble] * len(requests)
        # One bad request must not fail the others that happened to share its batch; and where a
        # large transaction finds no room, outcomes one by one may find it, and so make some.
        middle = len(requests) // 2
        return [*self.run(requests[:middle]), *self.run(requests[middle:])]

    def _transact(self, requests: list[Request]) -> list[Any]:
        connection = self._connection
        assert connection is not None
        accepts = [request for request in requests if isinstance(request, Accept)]
        rows = sum(len(accept.message.recipients) for accept in accepts)
        is_plain = not self._adrift and not self.is_tight
        if len(accepts) == len(requests) and rows <= MAX_ROWS and is_plain:
            # A single statement is a transaction by itself.
            self._insert(accepts)
            return [None] * len(requests)
        connection.execute("BEGIN IMMEDIATE")
        self._lending = []
        self._take_back(self._adrift, time.time())
        settlements = [request for request in requests if isinstance(request, Settlement)]
        self._insert(accepts)
        stale_files = self._settle(settlements)
        results: list[Any] = []
        for request in requests:
            if isinstance(request, Lease):
                results.append(self._lease(request))
            elif isinstance(request, Act):
                changed, stale = self._act(request)
                stale_files += stale
                results.append(changed)
            else:
                if isinstance(request, Note):
                    for sql, values in request.statements:
                        connection.execute(sql, values)
                results.append(None)
        connection.execute("COMMIT")
        self._lending, self._adrift = [], []
        self._spool.discard(stale_files)
        if self.is_tight:
            self._look_for_room()
        return results

    def _look_for_room(self) -> None:
        """Count the pages that mail has left behind, and give them back to the disk if they are
        most of a small database: it does not shrink by itself, and mailboxes need room too.
        """
        connection = self._connection
        assert connection is not None
        spare = PAGE_BYTES * connection.execute("PRAGMA freelist_count").fetchone()[0]
        used = PAGE_BYTES * connection.execute("PRAGMA page_count").fetchone()[0] - spare
        self.spare_bytes = spare
        # What is used is copied, in memory and through the log.
        is_worth_it = used < reserve_bytes(self._path.parent) < spare
        if not is_worth_it or time.monotonic() < self._next_shrinking:
            return
        self._next_shrinking = time.monotonic() + SHRINK_EVERY_S
        try:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:
            self._trouble(error, [])

    def _trouble(self, error: Exception, requests: list[Request]) -> TemporaryError:
        """Roll back; decide whether the store can go on."""
        connection = self._connection
        assert connection is not None
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error:
            code = sqlite3.SQLITE_IOERR
        self._adrift += self._lending
        for request in requests:
            if isinstance(request, Act):
                self._adrift += request.unlent
        if code == sqlite3.SQLITE_FULL:
            return QueueFull("no room for the queue's database")
        if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            # After a failed fsync nothing written since the last good one can be trusted, and
            # a commit that reported failure may yet be found in the log.
            self.is_well = False
            self._disowned += [
                decode_queue_id(request.message.queue_id)
                for request in requests
                if isinstance(request, Accept)
            ]
            connection.close()
            self._connection = None
            self._next_revival = time.monotonic() + REVIVE_S
        return StoreUnavailable(f"queue database: {error}")

    def _revive(self) -> None:
        """After an I/O error: open afresh, prove that writing works, disown what we refused."""
        if self._connection is not None:
            return
        if time.monotonic() < self._next_revival:
            raise StoreUnavailable("the queue database had an I/O error; trying again soon")
        self._next_revival = time.monotonic() + REVIVE_S
        try:
            self._connection = self._open(is_first=False)
        except (sqlite3.Error, OSError, StoreUnavailable) as error:
            raise StoreUnavailable(f"queue database: {error}") from error
        self.is_well = True

    def _open(self, *, is_first: bool) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, isolation_level=None, check_same_thread=False, cached_statements=512
        )
        try:
            self._prepare(connection, is_first=is_first)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection, *, is_first: bool) -> None:
        self._path.chmod(0o600)
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        _demand(connection, "journal_mode", "WAL", "wal")
        _demand(connection, "synchronous", "FULL", 2)
        pages = reserve_bytes(self._path.parent) // 2 // PAGE_BYTES
        pages = max(MIN_CHECKPOINT_PAGES, min(CHECKPOINT_PAGES, pages))
        connection.execute(f"PRAGMA wal_autocheckpoint = {pages}")
        connection.execute("PRAGMA cache_size = -16384")
        connection.execute("PRAGMA temp_store = MEMORY")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, schema.VERSION):
            raise StoreUnavailable(
                f"{self._path.name} has version {version}; this Waypost knows {schema.VERSION}"
            )
        if version == 0:
            connection.executescript(
                f"BEGIN;{schema.TABLES}PRAGMA user_version = {schema.VERSION};COMMIT"
            )
        if not is_first:
            # Copies what the log holds into the database and syncs that, so that nothing rests
            # on log pages whose sync had failed.
            busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            if busy:
                raise StoreUnavailable("the log cannot be checkpointed")
        connection.execute("BEGIN IMMEDIATE")
        for number in self._disowned:
            for table in ("message", "content", "recipient"):
                connection.execute(f"DELETE FROM {table} WHERE queue_id = ?", (number,))
        if is_first:
            connection.execute(
                "UPDATE recipient SET status = ?, next_attempt_at = ? WHERE status = ?",
                (_WAITING, time.time(), _LEASED),
            )
        connection.execute(
            "INSERT OR REPLACE INTO setting VALUES ('opened_at', ?)", (str(time.time()),)
        )
        connection.execute("COMMIT")
        self._disowned.clear()

    def _insert(self, accepts: list[Accept], verb: str = "INSERT") -> None:
        rows: list[tuple[Any, ...]] = []
        for accept in accepts:
            message = accept.message
            number = decode_queue_id(message.queue_id)
            rows += (
                schema.new_message_rows(number, message, RecipientStatus.LEASED, None)
                if accept.is_lent
                else schema.new_message_rows(
                    number, message, RecipientStatus.WAITING, message.accepted_at
                )
            )
        self._insert_rows("new_message", schema.NEW_MESSAGE_COLUMNS, rows, verb)

    def _insert_rows(
        self, table: str, columns: int, rows: list[tuple[Any, ...]], verb: str = "INSERT"
    ) -> None:
        """Many rows in one statement, so that it pays to run it at all."""
        one = f"({','.join('?' * columns)})"
        for start in range(0, len(rows), MAX_ROWS):
            part = rows[start : start + MAX_ROWS]
            self._execute(
                f"{verb} INTO {table} VALUES {','.join([one] * len(part))}",
                list(chain.from_iterable(part)),
            )

    def _execute(self, sql: str, values: Sequence[Any]) -> sqlite3.Cursor:
        assert self._connection is not None
        return self._connection.execute(sql, values)

    def _settle(self, settlements: list[Settlement]) -> list[str]:
        """Record outcomes; returns the spool files nobody needs any more."""
        finished: list[tuple[Any, ...]] = []
        waiting: list[tuple[Any, ...]] = []
        attempts: list[tuple[Any, ...]] = []
        reports: list[Accept] = []
        in_files: list[int] = []
        for settlement in settlements:
            number = decode_queue_id(settlement.message.queue_id)
            for result in settlement.results:
                outcome, recipient = result.outcome, result.recipient
                reply = str(outcome.reply)
                hop = None if outcome.hop is None else str(outcome.hop)
                is_held = recipient.status is RecipientStatus.HELD
                if result.next_attempt_at is None and not is_held:
                    kind = outcome.kind
                    if kind is OutcomeKind.DEFERRED:
                        kind = OutcomeKind.CANCELLED
                    finished.append((number, recipient.number, 1, reply, hop, kind, settlement.at))
                else:
                    waiting.append(
                        (
                            *(_HELD if is_held else _WAITING, result.next_attempt_at),
                            *(recipient.warned or result.warned, reply, hop),
                            *(number, recipient.number),
                        )
                    )
                    attempts.append(
                        (number, recipient.number, settlement.at, outcome.kind, reply, hop)
                    )
            if settlement.message.content.inline is None:
                in_files.append(number)
            reports += [Accept(report, is_lent=True) for report in settlement.reports]
        self._insert_rows("new_outcome", schema.NEW_OUTCOME_COLUMNS, finished)
        if waiting:
            assert self._connection is not None
            self._connection.executemany(
                "UPDATE recipient SET status = ?, attempts = attempts + 1, next_attempt_at = ?,"
                " warned = ?, last_reply = ?, last_hop = ? WHERE queue_id = ? AND number = ?",
                waiting,
            )
            self._insert_rows("attempt", 6, attempts)
        # A settlement is offered again after an I/O error, and may have been kept the first time.
        self._insert(reports, "INSERT OR REPLACE")
        return self._stale_files(in_files)

    def _stale_files(self, numbers: list[int]) -> list[str]:
        """The spool files of those of these messages that are finished."""
        names = [
            self._execute(
                "SELECT content_name FROM message WHERE queue_id = ? AND finished_at IS NOT NULL",
                (number,),
            ).fetchone()
            for number in numbers
        ]
        return [name[0] for name in names if name is not None and name[0] is not None]

    def _lease(self, request: Lease) -> Leased:
        rows = self._execute(
            f"{schema.SELECT_RECIPIENT} WHERE next_attempt_at <= ?"
            " ORDER BY next_attempt_at LIMIT ?",
            (request.now, request.limit),
        ).fetchall()
        by_message: dict[int, list[QueuedRecipient]] = {}
        for row in rows:
            recipient = schema.read_recipient(row)
            recipient.status = RecipientStatus.LEASED
            by_message.setdefault(row[0], []).append(recipient)
            self._lending.append(row[:2])
            self._execute(
                f"UPDATE recipient SET status = {_LEASED}, next_attempt_at = NULL"
                " WHERE queue_id = ? AND number = ?",
                row[:2],
            )
        messages = []
        for number, recipients in by_message.items():
            row = self._execute(
                f"{schema.SELECT_MESSAGE}, octets FROM message LEFT JOIN content USING (queue_id)"
                " WHERE message.queue_id = ?",
                (number,),
            ).fetchone()
            messages.append(schema.read_message(row, row[-1], self._spool, recipients))
        next_due_at = self._execute(
            "SELECT min(next_attempt_at) FROM recipient WHERE next_attempt_at IS NOT NULL", ()
        ).fetchone()[0]
        return Leased(messages, next_due_at)

    def _take_back(self, pairs: list[tuple[int, int]], now: float) -> None:
        """What is marked as lent, and is with nobody, waits again."""
        for pair in pairs:
            self._execute(
                f"UPDATE recipient SET status = {_WAITING}, next_attempt_at = ?"
                f" WHERE queue_id = ? AND number = ? AND status = {_LEASED}",
                (now, *pair),
            )

    def _act(self, request: Act) -> tuple[int, list[str]]:
        self._take_back(request.unlent, request.now)
        status, eligible = _ACTIONS[request.action]
        due_at = request.now if status == _WAITING else None
        sql = (
            "UPDATE recipient SET status = ?, next_attempt_at = ?"
            f" WHERE status IN ({','.join(map(str, eligible))})"
        )
        changed: list[tuple[int, int]] = []
        if request.numbers is None:
            changed = self._execute(
                f"{sql} RETURNING queue_id, number", (status, due_at)
            ).fetchall()
        else:
            for number in request.numbers:
                changed += self._execute(
                    f"{sql} AND queue_id = ? RETURNING queue_id, number", (status, due_at, number)
                ).fetchall()
        self._insert_rows(
            "attempt",
            6,
            [(*pair, request.now, _DONE[request.action], None, None) for pair in changed],
        )
        stale: list[str] = []
        if request.action is Action.CANCEL:
            self._insert_rows(
                "new_outcome",
                schema.NEW_OUTCOME_COLUMNS,
                [(*pair, 0, None, None, OutcomeKind.CANCELLED, request.now) for pair in changed],
            )
            stale = self._stale_files(sorted({message for message, _ in changed}))
        return len(changed), stale


# What an action makes of recipients, and which it applies to.
_ACTIONS: dict[Action, tuple[int, tuple[int, ...]]] = {
    Action.RETRY: (_WAITING, (_WAITING,)),
    Action.RELEASE: (_WAITING, (_HELD,)),
    Action.HOLD: (_HELD, (_WAITING,)),
    Action.CANCEL: (_FINISHED, (_WAITING, _HELD)),
}

# How the trace names what an operator did.
_DONE = {
    Action.RETRY: "retried",
    Action.HOLD: "held",
    Action.RELEASE: "released",
    Action.CANCEL: "cancelled",
}


def _demand(connection: sqlite3.Connection, pragma: str, value: str, expected: object) -> None:
    connection.execute(f"PRAGMA {pragma} = {value}")
    found = connection.execute(f"PRAGMA {pragma}").fetchone()[0]
    if found != expected:
        raise StoreUnavailable(f"the database refuses {pragma} = {value}: it is {found}")


def _number_or_none(name: str) -> int | None:
    try:
        return decode_queue_id(name)
    except ValueError:
        return None
