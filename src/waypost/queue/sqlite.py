"""The embedded store: one SQLite database, one process that writes it, group commit.

All requests that wait when the writer becomes free share one transaction and one sync
(queue/process, queue/writer). Leases live in memory: one hub owns the database (lock file), so
whatever is marked leased when it is opened was lent by a process that is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from waypost.batching import Batches
from waypost.durable import sync_directory
from waypost.errors import QueueFull, TemporaryError, WaypostError
from waypost.mail import reply as replies
from waypost.mail.address import ip_text
from waypost.mail.envelope import QueueId, RecipientStatus
from waypost.mail.message import QueuedMessage
from waypost.mail.reply import Reply
from waypost.queue.process import WriterProcess
from waypost.queue.requests import REVIVE_S, Lease, Leased, Live, Note, Request
from waypost.queue.room import free_bytes
from waypost.queue.rows import (
    accept_request,
    act_request,
    hold_unreadable,
    read_message,
    read_recipient,
    settle_request,
)
from waypost.queue.spool import INLINE_BYTES, Spool
from waypost.queue.store import (
    Action,
    QueueIdSource,
    Refusal,
    Settlement,
    decode_queue_id,
    encode_queue_id,
    first_number_at,
)

# A hub that was killed may leave a writer that is just ending its last batch.
LOCK_WAIT_S = 5.0
LOCK_POLL_S = 0.02
# Content of accepted mail kept in memory on its way to the first attempt.
FRESH_BYTES = 33_554_432
# The room on the disk is looked at this often, and each time when there is less than this left.
ROOM_CHECK_S = 1.0
NEARLY_FULL_BYTES = 67_108_864
# Refusals are written down together, this long after the first.
NOTE_AFTER_S = 0.5
MAX_NOTED_REFUSALS = 1_000
# Finished mail and refusals stay in the trace this long.
TRACE_S = 30 * 86_400.0
PRUNE_EVERY_S = 600.0


class StoreInUse(WaypostError):
    """Another process owns this data directory."""


class SqliteStore:
    """QueueStore on SQLite. Made and used on the event loop's thread."""

    def __init__(
        self,
        directory: Path,
        spool: Spool,
        on_lost: Callable[[], None] | None = None,
        on_unreadable: Callable[[QueueId, str], None] | None = None,
    ) -> None:
        """Opens or makes queue.db. Raises StoreInUse, StoreUnavailable or OSError.

        `on_lost` is called should the writer's process end by itself: nothing can be kept any
        more, and only a new store helps. `on_unreadable` is told of mail that was written by
        other rules than ours, and why it cannot be read: it is held.
        """
        self._directory = directory
        self._on_unreadable = on_unreadable
        self._lock = _lock(directory / "queue.lock")
        self._ids = QueueIdSource()
        self._spool = spool
        try:
            self._writer = WriterProcess(directory, self._lock.fileno(), on_lost)
        except BaseException:
            self._lock.close()
            raise
        # The database was synced under its name; the directory's own name may be new, too.
        with contextlib.suppress(PermissionError):
            sync_directory(directory.parent)
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
        self._arriving_bytes = 0  # room that accepts under way will take
        self.is_held = self._writer.held == "1"
        self._batches: Batches[Request, Any] = Batches(self._writer.start)

    # On the event loop's thread.

    def next_id(self) -> QueueId:
        """See QueueStore."""
        return self._ids.next_id()

    def refusal(self, size: int) -> Reply | None:
        """See QueueStore."""
        if not self._writer.is_well:
            return replies.SHUTTING_DOWN if self._writer.is_lost else replies.STORE_AWAY
        now = time.monotonic()
        if now - self._room_checked >= ROOM_CHECK_S or self._free_bytes < NEARLY_FULL_BYTES:
            self._room_checked = now
            self._free_bytes = free_bytes(self._directory)
            self._writer.is_tight = self._free_bytes < NEARLY_FULL_BYTES
        room = self._free_bytes
        if self._writer.is_tight and size <= 2 * INLINE_BYTES:
            room += self._writer.spare_bytes
        return replies.QUEUE_FULL if size + self._arriving_bytes >= room else None

    def accept(self, message: QueuedMessage) -> asyncio.Future[None]:
        """See QueueStore."""
        # Mail that fits in memory is lent to the dispatcher at once and never read back.
        is_lent = not self.is_held and self._fresh_bytes < FRESH_BYTES
        kept = message.content.size if message.content.inline is not None else 0
        needed = 2 * kept  # in the log, and then in the database
        if self.refusal(needed) is replies.QUEUE_FULL:
            refused: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            refused.set_exception(QueueFull("no room for the message"))
            return refused
        self._arriving_bytes += needed
        if is_lent:
            self._fresh_bytes += kept
        future = self._batches.submit(accept_request(message, is_lent=is_lent))

        def accepted(done: asyncio.Future[None]) -> None:
            self._arriving_bytes -= needed
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
                leased: Leased = await self._batches.submit(Lease(room, now))
            except TemporaryError:
                if not self._fresh:
                    raise
            else:
                self._next_due_at = leased.next_due_at
                messages = self._read(leased)
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
        delay = 30.0 if self._writer.is_well else REVIVE_S
        if self._next_due_at is not None and not self.is_held:
            delay = min(delay, max(0.0, self._next_due_at - time.time()))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), delay)
        if time.monotonic() >= self._next_prune or not self._writer.is_well:
            self._write_notes()

    def settle(self, settlement: Settlement) -> asyncio.Future[None]:
        """See QueueStore."""
        return self.settle_together((settlement,))

    def settle_together(self, settlements: Sequence[Settlement]) -> asyncio.Future[None]:
        """See QueueStore."""
        for settlement in settlements:
            wish = self._wishes.get(settlement.message.queue_id)
            if wish is not None:
                self._grant(wish, settlement)
        future = self._batches.submit(settle_request(settlements))

        def settled(done: asyncio.Future[None]) -> None:
            if done.cancelled() or done.exception() is not None:
                return
            for settlement in settlements:
                queue_id = settlement.message.queue_id
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
        changed: int = await self._batches.submit(act_request(action, numbers, unlent, time.time()))
        return changed + sum(self._lent.get(queue_id, 0) for queue_id in under_way)

    async def hold_all_new(self, *, held: bool) -> None:
        """See QueueStore."""
        sql = "INSERT OR REPLACE INTO setting VALUES ('held', ?)"
        await self._batches.submit(Note([(sql, ("1" if held else "0",))]))
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
        await self._batches.finish()
        try:
            await self._writer.close()
        finally:
            self._lock.close()

    async def live_content(self, names: Iterable[str]) -> set[str]:
        """Which of these spool files belong to a message. Raises TemporaryError."""
        files = [(number, name) for name in names if (number := _number_or_none(name)) is not None]
        return set(await self._batches.submit(Live(files)))

    def _read(self, leased: Leased) -> list[QueuedMessage]:
        messages: list[QueuedMessage] = []
        unreadable: list[int] = []
        for row, recipient_rows in leased.messages:
            try:
                recipients = [read_recipient(one) for one in recipient_rows]
                message = read_message(row, row[-1], self._spool, recipients)
            except ValueError as error:
                # Written by other rules than ours: kept for a Waypost that can read it.
                unreadable.append(row[0])
                if self._on_unreadable is not None:
                    self._on_unreadable(encode_queue_id(row[0]), str(error))
                continue
            for recipient in recipients:
                recipient.status = RecipientStatus.LEASED
            messages.append(message)
        if unreadable:
            _heedless(self._batches.submit(hold_unreadable(unreadable, time.time())))
        return messages

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
            client = None if refusal.client_ip is None else ip_text(refusal.client_ip)
            row = (
                *(refusal.at, client, refusal.listener, refusal.helo),
                *(refusal.reverse_path, refusal.forward_path, str(refusal.reply)),
            )
            statements.append(("INSERT INTO refusal VALUES (?, ?, ?, ?, ?, ?, ?)", row))
        now = time.monotonic()
        if now >= self._next_prune:
            self._next_prune = now + PRUNE_EVERY_S
            statements += _pruning(time.time() - TRACE_S)
        if statements or not self._writer.is_well:
            # Refusals lost with a sick store are still in the log.
            _heedless(self._batches.submit(Note(statements)))


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


def _heedless(future: asyncio.Future[Any]) -> None:
    """Nobody waits for this one, nor misses it should it fail."""
    future.add_done_callback(lambda done: done.cancelled() or done.exception())


def _number_or_none(name: str) -> int | None:
    try:
        return decode_queue_id(name)
    except ValueError:
        return None


def _lock(path: Path) -> Any:
    lock = path.open("w")
    path.chmod(0o600)
    deadline = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except BlockingIOError:
            if time.monotonic() > deadline:
                lock.close()
                raise StoreInUse(f"{path.parent} is in use by another hub") from None
        time.sleep(LOCK_POLL_S)
