"""The embedded store: one SQLite database, one writer thread, group commit.

WAL with synchronous=FULL: a commit is a synced append (SQLite documentation, "pragma
synchronous"); NORMAL would not sync it. All requests that wait when the writer becomes free
share one transaction and one sync. Leases live in memory: one hub owns the database (lock file),
so whatever is marked leased when it is opened was lent by a process that is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import sqlite3
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from waypost.batching import BatchWorker
from waypost.errors import QueueFull, StoreUnavailable, TemporaryError, WaypostError
from waypost.mail import reply as replies
from waypost.mail.envelope import OutcomeKind, QueuedRecipient, QueueId, RecipientStatus
from waypost.mail.message import QueuedMessage
from waypost.mail.reply import Reply
from waypost.queue import schema
from waypost.queue.spool import Spool
from waypost.queue.store import (
    Action,
    QueueIdSource,
    Refusal,
    Settlement,
    decode_queue_id,
    first_number_at,
)

# A 4 KiB message fits a page with three others; with pages of 4 KiB it would take two.
PAGE_BYTES = 16_384
# Checkpoints copy pages into the database and sync twice: rarely, then.
CHECKPOINT_PAGES = 2_000
# Content of accepted mail kept in memory on its way to the first attempt.
FRESH_BYTES = 33_554_432
# Room kept free on the disk so that outcomes can still be recorded when mail is refused.
RESERVE_BYTES = 67_108_864
RESERVE_SHARE = 0.05
ROOM_CHECK_S = 1.0
# Rows of one INSERT; with the widest table well below SQLite's 32,766 bound values.
MAX_ROWS = 100
# After an I/O error the store is tried afresh this often.
REVIVE_S = 1.0
# Refusals are written down together, this long after the first.
NOTE_AFTER_S = 0.5
MAX_NOTED_REFUSALS = 1_000
# Finished mail and refusals stay in the trace this long.
TRACE_S = 30 * 86_400.0
PRUNE_EVERY_S = 600.0

_WAITING = int(RecipientStatus.WAITING)
_LEASED = int(RecipientStatus.LEASED)
_HELD = int(RecipientStatus.HELD)
_FINISHED = int(RecipientStatus.FINISHED)


class StoreInUse(WaypostError):
    """Another process owns this data directory."""


@dataclass(slots=True)
class _Accept:
    message: QueuedMessage
    is_lent: bool  # goes straight to the dispatcher, from memory


@dataclass(slots=True)
class _Lease:
    limit: int
    now: float


@dataclass(slots=True)
class _Act:
    action: Action
    numbers: list[int] | None  # None: all
    unlent: list[tuple[int, int]]  # were waiting in memory, are free again
    now: float


@dataclass(slots=True)
class _Note:
    """Refusals, pruning and settings: small things that ride along."""

    statements: list[tuple[str, tuple[Any, ...]]]


_Request = _Accept | Settlement | _Lease | _Act | _Note


@dataclass(slots=True)
class _Leased:
    messages: list[QueuedMessage]
    next_due_at: float | None  # None: nothing waits


class SqliteStore:
    """QueueStore on SQLite. Made and used on the event loop's thread."""

    def __init__(self, directory: Path, spool: Spool) -> None:
        """Opens or makes queue.db. Raises StoreInUse, StoreUnavailable or OSError."""
        self._path = directory / "queue.db"
        self._directory = directory
        self._spool = spool
        self._lock = _lock(directory / "queue.lock")
        self._ids = QueueIdSource()
        self._next_revival = 0.0
        # The writer's thread alone uses these three once it runs.
        self._disowned: list[int] = []  # refused to their clients after a commit went wrong
        self._lending: list[tuple[int, int]] = []  # recipients lent by the transaction under way
        self._adrift: list[tuple[int, int]] = []  # perhaps marked as lent, to nobody
        try:
            # None while unwell. The writer's thread alone uses it once that runs.
            self._connection: sqlite3.Connection | None = self._open(is_first=True)
        except sqlite3.Error as error:
            self._lock.close()
            raise StoreUnavailable(f"{self._path.name}: {error}") from error
        self._is_well = True
        self._fresh: deque[QueuedMessage] = deque()
        self._fresh_bytes = 0
        self._changed = asyncio.Event()
        self._next_due_at: float | None = 0.0
        # Held while recipients pass from the database to the dispatcher: an operator's action
        # in between would find them neither waiting nor under way.
        self._handing_out = asyncio.Lock()
        self._wishes: dict[QueueId, Action] = {}
        self._lent: dict[QueueId, int] = {}  # recipients under way, for operators' wishes
        self._refusals: list[Refusal] = []
        self._next_prune = 0.0
        self._room_checked = 0.0
        self._free_bytes = 0
        self.is_held = self._setting("held") == "1"
        self._worker: BatchWorker[_Request, Any] = BatchWorker("queue", self._run)

    # On the event loop's thread.

    def next_id(self) -> QueueId:
        """See QueueStore."""
        return self._ids.next_id()

    def refusal(self, size: int) -> Reply | None:
        """See QueueStore."""
        if not self._is_well:
            return replies.STORE_AWAY
        now = time.monotonic()
        if now - self._room_checked >= ROOM_CHECK_S:
            self._room_checked = now
            self._free_bytes = _free_bytes(self._directory)
        return replies.QUEUE_FULL if size >= self._free_bytes else None

    def accept(self, message: QueuedMessage) -> asyncio.Future[None]:
        """See QueueStore."""
        # Mail that fits in memory is lent to the dispatcher at once and never read back.
        is_lent = not self.is_held and self._fresh_bytes < FRESH_BYTES
        kept = message.content.size if message.content.inline is not None else 0
        if is_lent:
            self._fresh_bytes += kept
        future = self._worker.submit(_Accept(message, is_lent))

        def accepted(done: asyncio.Future[None]) -> None:
            if done.cancelled() or done.exception() is not None:
                self._fresh_bytes -= kept if is_lent else 0
                self._changed.set()  # whoever waits is to look after a store that is unwell
                return
            if is_lent:
                self._fresh.append(message)
            else:
                self._next_due_at = 0.0
            self._changed.set()

        future.add_done_callback(accepted)
        return future

    async def lease(self, limit: int) -> list[QueuedMessage]:
        """See QueueStore."""
        async with self._handing_out:
            return await self._lend(limit)

    async def _lend(self, limit: int) -> list[QueuedMessage]:
        self._changed.clear()
        if self.is_held:
            return []
        messages: list[QueuedMessage] = []
        now = time.time()
        room = limit - len(self._fresh)
        if room > 0 and self._next_due_at is not None and self._next_due_at <= now:
            try:
                leased: _Leased = await self._worker.submit(_Lease(room, now))
            except TemporaryError:
                if not self._fresh:
                    raise
            else:
                self._next_due_at = leased.next_due_at
                messages = leased.messages
        while self._fresh and len(messages) < limit:
            messages.append(self._take_fresh())
        for message in messages:
            self._lent[message.queue_id] = self._lent.get(message.queue_id, 0) + len(
                message.recipients
            )
        return messages

    async def wait(self) -> None:
        """See QueueStore."""
        if self._fresh and not self.is_held:
            return
        delay = 30.0 if self._is_well else REVIVE_S
        if self._next_due_at is not None and not self.is_held:
            delay = min(delay, max(0.0, self._next_due_at - time.time()))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), delay)
        if time.monotonic() >= self._next_prune or not self._is_well:
            self._write_notes()

    def settle(self, settlement: Settlement) -> asyncio.Future[None]:
        """See QueueStore."""
        queue_id = settlement.message.queue_id
        wish = self._wishes.get(queue_id)
        if wish is not None:
            self._grant(wish, settlement)
        future = self._worker.submit(settlement)

        def settled(done: asyncio.Future[None]) -> None:
            if done.cancelled() or done.exception() is not None:
                return
            left = self._lent.get(queue_id, 0) - len(settlement.results)
            if left > 0:
                self._lent[queue_id] = left
            else:
                self._lent.pop(queue_id, None)
                self._wishes.pop(queue_id, None)
            self._settled(settlement)

        future.add_done_callback(settled)
        return future

    async def act(self, action: Action, ids: Sequence[QueueId] | None) -> int:
        """See QueueStore. Raises ValueError for a text that is no queue id."""
        numbers = None if ids is None else [decode_queue_id(queue_id) for queue_id in ids]
        async with self._handing_out:
            try:
                return await self._do(action, ids, numbers)
            finally:
                self._next_due_at = 0.0
                self._changed.set()

    async def _do(
        self, action: Action, ids: Sequence[QueueId] | None, numbers: list[int] | None
    ) -> int:
        wanted = None if ids is None else set(ids)
        unlent: list[tuple[int, int]] = []
        for message in list(self._fresh):
            if wanted is None or message.queue_id in wanted:
                self._fresh.remove(message)
                self._forget_fresh(message)
                number = decode_queue_id(message.queue_id)
                unlent += [(number, recipient.number) for recipient in message.recipients]
        under_way = [queue_id for queue_id in self._lent if wanted is None or queue_id in wanted]
        for queue_id in under_way:
            if action in (Action.HOLD, Action.CANCEL):
                self._wishes[queue_id] = action
            else:
                self._wishes.pop(queue_id, None)
        changed: int = await self._worker.submit(_Act(action, numbers, unlent, time.time()))
        return changed + sum(self._lent.get(queue_id, 0) for queue_id in under_way)

    async def hold_all_new(self, *, held: bool) -> None:
        """See QueueStore."""
        sql = "INSERT OR REPLACE INTO setting VALUES ('held', ?)"
        await self._worker.submit(_Note([(sql, ("1" if held else "0",))]))
        self.is_held = held
        self._changed.set()

    def note_refusal(self, refusal: Refusal) -> None:
        """See QueueStore. Under a flood the surplus is dropped: the log has every line."""
        if not self._refusals:
            asyncio.get_running_loop().call_later(NOTE_AFTER_S, self._write_notes)
        if len(self._refusals) < MAX_NOTED_REFUSALS:
            self._refusals.append(refusal)

    async def close(self) -> None:
        """See QueueStore."""
        self._write_notes()
        await self._worker.close()
        if self._connection is not None:
            self._connection.close()
        self._lock.close()

    def live_content(self, names: Iterable[str]) -> set[str]:
        """Which of these spool files belong to a message; before any work has begun only."""
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

    def _take_fresh(self) -> QueuedMessage:
        message = self._fresh.popleft()
        self._forget_fresh(message)
        return message

    def _forget_fresh(self, message: QueuedMessage) -> None:
        if message.content.inline is not None:
            self._fresh_bytes -= message.content.size

    def _grant(self, wish: Action, settlement: Settlement) -> None:
        """Hold or cancel, now that the attempt under way has ended without success."""
        for result in settlement.results:
            if result.next_attempt_at is not None:
                result.next_attempt_at = None
                result.recipient.status = (
                    RecipientStatus.HELD if wish is Action.HOLD else RecipientStatus.FINISHED
                )

    def _settled(self, settlement: Settlement) -> None:
        for report in settlement.reports:
            self._fresh.append(report)
            if report.content.inline is not None:
                self._fresh_bytes += report.content.size
        waits = [
            result.next_attempt_at
            for result in settlement.results
            if result.next_attempt_at is not None
        ]
        if waits:
            soonest = min(waits)
            if self._next_due_at is None or soonest < self._next_due_at:
                self._next_due_at = soonest
        if waits or settlement.reports:
            self._changed.set()

    def _write_notes(self) -> None:
        """Write down refusals and prune the trace, when there is something to do."""
        statements: list[tuple[str, tuple[Any, ...]]] = []
        refusals, self._refusals = self._refusals, []
        for refusal in refusals:
            client = None if refusal.client_ip is None else schema.ip_text(refusal.client_ip)
            row = (
                *(refusal.at, client, refusal.listener, refusal.helo),
                *(refusal.reverse_path, refusal.forward_path, str(refusal.reply)),
            )
            statements.append(("INSERT INTO refusal VALUES (?, ?, ?, ?, ?, ?, ?)", row))
        now = time.monotonic()
        if now >= self._next_prune:
            self._next_prune = now + PRUNE_EVERY_S
            statements += _pruning(time.time() - TRACE_S)
        if statements or not self._is_well:
            # Refusals lost with a sick store are still in the log.
            future = self._worker.submit(_Note(statements))
            future.add_done_callback(lambda done: done.cancelled() or done.exception())

    # In the writer's thread.

    def _run(self, requests: list[_Request]) -> list[Any]:
        try:
            self._revive()
            return self._transact(requests)
        except TemporaryError as error:
            return [error] * len(requests)
        except Exception as error:  # a bug in one request; those beside it are tried alone
            trouble = self._trouble(error, requests)
        if self._connection is None or isinstance(trouble, QueueFull) or len(requests) == 1:
            return [trouble] * len(requests)
        # One bad request must not fail the others that happened to share its batch.
        return [self._run([request])[0] for request in requests]

    def _transact(self, requests: list[_Request]) -> list[Any]:
        connection = self._connection
        assert connection is not None
        accepts = [request for request in requests if isinstance(request, _Accept)]
        rows = sum(len(accept.message.recipients) for accept in accepts)
        if len(accepts) == len(requests) and rows <= MAX_ROWS and not self._adrift:
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
            if isinstance(request, _Lease):
                results.append(self._lease(request))
            elif isinstance(request, _Act):
                changed, stale = self._act(request)
                stale_files += stale
                results.append(changed)
            else:
                if isinstance(request, _Note):
                    for sql, values in request.statements:
                        connection.execute(sql, values)
                results.append(None)
        connection.execute("COMMIT")
        self._lending, self._adrift = [], []
        self._spool.discard(stale_files)
        return results

    def _trouble(self, error: Exception, requests: list[_Request]) -> TemporaryError:
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
            if isinstance(request, _Act):
                self._adrift += request.unlent
        if code == sqlite3.SQLITE_FULL:
            return QueueFull("no room for the queue's database")
        if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            # After a failed fsync nothing written since the last good one can be trusted, and
            # a commit that reported failure may yet be found in the log.
            self._is_well = False
            self._disowned += [
                decode_queue_id(request.message.queue_id)
                for request in requests
                if isinstance(request, _Accept)
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
        self._is_well = True

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
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
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

    def _setting(self, name: str) -> str | None:
        assert self._connection is not None
        row = self._connection.execute(
            "SELECT value FROM setting WHERE name = ?", (name,)
        ).fetchone()
        return None if row is None else str(row[0])

    def _insert(self, accepts: list[_Accept], verb: str = "INSERT") -> None:
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
        reports: list[_Accept] = []
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
            reports += [_Accept(report, is_lent=True) for report in settlement.reports]
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

    def _lease(self, request: _Lease) -> _Leased:
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
        return _Leased(messages, next_due_at)

    def _take_back(self, pairs: list[tuple[int, int]], now: float) -> None:
        """What is marked as lent, and is with nobody, waits again."""
        for pair in pairs:
            self._execute(
                f"UPDATE recipient SET status = {_WAITING}, next_attempt_at = ?"
                f" WHERE queue_id = ? AND number = ? AND status = {_LEASED}",
                (now, *pair),
            )

    def _act(self, request: _Act) -> tuple[int, list[str]]:
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


def _pruning(before: float) -> list[tuple[str, tuple[Any, ...]]]:
    # Queue ids grow with time, so old ones are found without an index on time; a thousand at a
    # time, so that accepts never wait long behind it.
    bound = (first_number_at(before),)
    old = (
        "(SELECT queue_id FROM message WHERE queue_id < ? AND finished_at IS NOT NULL"
        " ORDER BY queue_id LIMIT 1000)"
    )
    return [
        (f"DELETE FROM recipient WHERE queue_id IN {old}", bound),
        (f"DELETE FROM attempt WHERE queue_id IN {old}", bound),
        (f"DELETE FROM message WHERE queue_id IN {old}", bound),
        ("DELETE FROM refusal WHERE at < ?", (before,)),
    ]


def _demand(connection: sqlite3.Connection, pragma: str, value: str, expected: object) -> None:
    connection.execute(f"PRAGMA {pragma} = {value}")
    found = connection.execute(f"PRAGMA {pragma}").fetchone()[0]
    if found != expected:
        raise StoreUnavailable(f"the database refuses {pragma} = {value}: it is {found}")


def _free_bytes(directory: Path) -> int:
    """Octets that mail may use: what the disk has free, less the reserve."""
    state = os.statvfs(directory)
    reserve = min(RESERVE_BYTES, int(state.f_blocks * state.f_frsize * RESERVE_SHARE))
    return max(0, state.f_bavail * state.f_frsize - reserve)


def _lock(path: Path) -> Any:
    lock = path.open("w")
    path.chmod(0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise StoreInUse(f"{path.parent} is in use by another hub") from None
    return lock


def _number_or_none(name: str) -> int | None:
    try:
        return decode_queue_id(name)
    except ValueError:
        return None
