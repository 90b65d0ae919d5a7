"""The process that writes queue.db: `python -m waypost.queue.writer`, started by queue/process.

It takes one batch of requests at a time from its socket, makes it durable in one transaction and
one sync, and answers. WAL with synchronous=FULL: a commit is a synced append (SQLite documentation,
"pragma synchronous"); NORMAL would not sync it. Why this is a process: docs/decisions/0005.
"""

from __future__ import annotations

import contextlib
import gc
import pickle
import signal
import socket
import sqlite3
import sys
import time
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from waypost.errors import QueueFull, StoreUnavailable, TemporaryError
from waypost.mail.envelope import OutcomeKind, RecipientStatus
from waypost.queue import schema
from waypost.queue.requests import (
    HEADER,
    REVIVE_S,
    Accept,
    Act,
    Lease,
    Leased,
    Live,
    Note,
    Opened,
    Order,
    Report,
    Request,
    Row,
    Settle,
    frame,
)
from waypost.queue.room import reserve_bytes

# A 4 KiB message fits a page with three others; with pages of 4 KiB it would take two.
PAGE_BYTES = 16_384
# Checkpoints copy pages into the database and sync twice: rarely, then. On a small disk more
# often: what is in the log must still find room in the database, out of the reserve.
CHECKPOINT_PAGES = 2_000
MIN_CHECKPOINT_PAGES = 16
# While the disk is nearly full the database gives back free pages no more often than this.
SHRINK_EVERY_S = 10.0

_WAITING = int(RecipientStatus.WAITING)
_LEASED = int(RecipientStatus.LEASED)
_FINISHED = int(RecipientStatus.FINISHED)


class Writer:
    """Owns the connection that writes."""

    def __init__(self, path: Path, content_directory: Path) -> None:
        """Opens or makes the database. Raises OSError, sqlite3.Error or StoreUnavailable.

        `content_directory`: where the spool's files lie; those of finished mail are deleted.
        """
        self._path = path
        self._content_directory = content_directory
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
        connection.execute("BEGIN IMMEDIATE")
        self._lending = []
        self._take_back(self._adrift, time.time())
        settlements = [request for request in requests if isinstance(request, Settle)]
        self._insert_messages(accepts)
        stale_files = self._settle(settlements)
        results: list[Any] = []
        for request in requests:
            if isinstance(request, Lease):
                results.append(self._lease(request))
            elif isinstance(request, Act):
                changed, stale = self._act(request)
                stale_files += stale
                results.append(changed)
            elif isinstance(request, Live):
                results.append(self._live(request))
            else:
                if isinstance(request, Note):
                    for sql, values in request.statements:
                        connection.execute(sql, values)
                results.append(None)
        connection.execute("COMMIT")
        self._lending, self._adrift = [], []
        for name in stale_files:
            # What cannot be deleted now is swept at the next start.
            with contextlib.suppress(OSError):
                (self._content_directory / name).unlink()
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
            # SQLite checkpoints after a commit only. If a reader was in the way of the last one,
            # no commit would ever find room again in a log that could start afresh.
            with contextlib.suppress(sqlite3.Error):
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
            return QueueFull("no room for the queue's database")
        if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            # After a failed fsync nothing written since the last good one can be trusted, and
            # a commit that reported failure may yet be found in the log.
            self.is_well = False
            self._disowned += [
                request.message[0] for request in requests if isinstance(request, Accept)
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
        connection = sqlite3.connect(self._path, isolation_level=None)
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
        if version not in (0, *schema.UPGRADES, schema.VERSION):
            raise StoreUnavailable(
                f"{self._path.name} has version {version}; this Waypost knows {schema.VERSION}"
            )
        if version != schema.VERSION:
            later = (text for known, text in schema.UPGRADES.items() if known >= version)
            statements = "".join(later) if version else schema.TABLES
            connection.executescript(
                f"BEGIN;{statements}PRAGMA user_version = {schema.VERSION};COMMIT"
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

    def _insert_messages(self, accepts: list[Accept], verb: str = "INSERT") -> None:
        self._execute_many(
            f"{verb} {schema.INSERT_MESSAGE}", [accept.message for accept in accepts]
        )
        self._execute_many(
            f"{verb} {schema.INSERT_CONTENT}",
            [(accept.message[0], accept.octets) for accept in accepts if accept.octets is not None],
        )
        self._execute_many(
            f"{verb} {schema.INSERT_RECIPIENT}",
            list(chain.from_iterable(accept.recipients for accept in accepts)),
        )

    def _finish(self, outcomes: list[Row]) -> None:
        """Recipients that are done, and the messages whose last they were."""
        self._execute_many(schema.FINISH_RECIPIENT, outcomes)
        ends = {number: at for *_, at, number, _ in outcomes}
        self._execute_many(schema.FINISH_MESSAGE, [(at, number) for number, at in ends.items()])
        self._execute_many(schema.DROP_CONTENT, [(number,) for number in ends])

    def _execute_many(self, sql: str, rows: list[Row]) -> None:
        if rows:
            assert self._connection is not None
            self._connection.executemany(sql, rows)

    def _execute(self, sql: str, values: Sequence[Any]) -> sqlite3.Cursor:
        assert self._connection is not None
        return self._connection.execute(sql, values)

    def _settle(self, settlements: list[Settle]) -> list[str]:
        """Record outcomes; returns the spool files nobody needs any more."""
        self._finish(list(chain.from_iterable(one.finished for one in settlements)))
        waiting = [row for one in settlements for row in one.waiting]
        self._execute_many(schema.RETRY_RECIPIENT, waiting)
        attempts = [row for one in settlements for row in one.attempts]
        self._execute_many(schema.INSERT_ATTEMPT, attempts)
        # A settlement is offered again after an I/O error, and may have been kept the first time.
        reports = [report for one in settlements for report in one.reports]
        self._insert_messages(reports, "INSERT OR REPLACE")
        return self._stale_files(list(chain.from_iterable(one.in_files for one in settlements)))

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
        by_message: dict[int, list[Row]] = {}
        for row in rows:
            by_message.setdefault(row[0], []).append(row)
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
            messages.append((row, recipients))
        next_due_at = self._execute(
            "SELECT min(next_attempt_at) FROM recipient WHERE next_attempt_at IS NOT NULL", ()
        ).fetchone()[0]
        return Leased(messages, next_due_at)

    def _live(self, request: Live) -> list[str]:
        """The names of those files that are needed."""
        return [
            name
            for number, name in request.files
            if self._execute(
                "SELECT 1 FROM message WHERE queue_id = ? AND content_name = ?"
                " AND finished_at IS NULL",
                (number, name),
            ).fetchone()
        ]

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
        due_at = request.now if request.status == _WAITING else None
        sql = (
            "UPDATE recipient SET status = ?, next_attempt_at = ?"
            f" WHERE status IN ({','.join(map(str, request.eligible))})"
        )
        changed: list[tuple[int, int]] = []
        if request.numbers is None:
            changed = self._execute(
                f"{sql} RETURNING queue_id, number", (request.status, due_at)
            ).fetchall()
        else:
            for number in request.numbers:
                changed += self._execute(
                    f"{sql} AND queue_id = ? RETURNING queue_id, number",
                    (request.status, due_at, number),
                ).fetchall()
        self._execute_many(
            schema.INSERT_ATTEMPT,
            [(*pair, request.now, request.word, None, None) for pair in changed],
        )
        stale: list[str] = []
        if request.status == _FINISHED:
            outcome = OutcomeKind.CANCELLED.value
            self._finish([(0, None, None, outcome, request.now, *pair) for pair in changed])
            stale = self._stale_files(sorted({message for message, _ in changed}))
        return len(changed), stale


def _demand(connection: sqlite3.Connection, pragma: str, value: str, expected: object) -> None:
    connection.execute(f"PRAGMA {pragma} = {value}")
    found = connection.execute(f"PRAGMA {pragma}").fetchone()[0]
    if found != expected:
        raise StoreUnavailable(f"the database refuses {pragma} = {value}: it is {found}")


def serve(connection: socket.socket, directory: Path) -> None:
    """Open queue.db in `directory` and do what comes from the hub, until it hangs up."""
    try:
        writer = Writer(directory / "queue.db", directory / "content")
    except (sqlite3.Error, OSError, StoreUnavailable) as error:
        connection.sendall(frame(StoreUnavailable(f"queue.db: {error}")))
        return
    connection.sendall(frame(Opened(writer.setting("held"))))
    while (order := _next_order(connection)) is not None:
        writer.is_tight = order.is_tight
        results = writer.run(order.requests)
        connection.sendall(frame(Report(results, writer.is_well, writer.spare_bytes)))
    writer.close()


def _next_order(connection: socket.socket) -> Order | None:
    """The hub's next batch; None: it has hung up, or died."""
    header = connection.recv(HEADER.size, socket.MSG_WAITALL)
    if len(header) < HEADER.size:
        return None
    (size,) = HEADER.unpack(header)
    body = bytearray(size)
    view = memoryview(body)
    while view:
        received = connection.recv_into(view, 0, socket.MSG_WAITALL)
        if not received:
            return None
        view = view[received:]
    order: Order = pickle.loads(body)  # noqa: S301 # from the hub that started this process
    return order


def main() -> None:
    """Arguments: the number of the socket's descriptor, and the data directory."""
    # Signals for all of a terminal's or a service's processes are the hub's to act on: it still
    # has work to hand over before it hangs up.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    gc.freeze()
    gc.disable()  # batches hold no cycles
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the hub died meanwhile
        serve(socket.socket(fileno=int(sys.argv[1])), Path(sys.argv[2]))


if __name__ == "__main__":
    main()
