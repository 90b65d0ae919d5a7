"""What a store's contract needs to know about each implementation: how to open it, cut it off,
make it fail, and look at what it keeps.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, ClassVar, Protocol

import pytest

from tests.fault.small_disk import Ballast, small_disk
from waypost.mail.envelope import QueueId
from waypost.queue import process, writer
from waypost.queue.history import Entry, History, RefusalEntry, Search
from waypost.queue.spool import ContentWriter, FileContent, Spool
from waypost.queue.sqlite import SqliteStore
from waypost.queue.store import QueueStore, decode_queue_id


class StoreBench(Protocol):
    """One store on a test bench. A second implementation is added to IMPLEMENTATIONS."""

    async def open(self) -> QueueStore:
        """Start it, as a new process would."""
        ...

    async def close(self) -> None:
        """End it in good order."""
        ...

    def after_crash(self) -> StoreBench:
        """A bench with what would be found had the process been killed at this moment."""
        ...

    async def large_content(self, name: str, size: int) -> FileContent:
        """Durable content that is too large to be kept inline."""
        ...

    def content_is_kept(self, queue_id: QueueId) -> bool:
        """True while the store holds the octets of a message, inline or in a file."""
        ...

    def entry(self, queue_id: QueueId) -> Entry | None:
        """What the trace knows; None: nothing."""
        ...

    def refusals(self) -> list[RefusalEntry]:
        """The refusals the trace knows."""
        ...

    @property
    def commits(self) -> int:
        """Transactions made durable so far."""
        ...

    def failing(self, *, keeps_commit: bool) -> AbstractContextManager[None]:
        """While inside, every commit reports an I/O error.

        `keeps_commit`: what was reported as failed is found after all when the store is opened
        again, as happens when only the sync failed.
        """
        ...

    def on_small_disk(self) -> AbstractContextManager[tuple[StoreBench, Ballast]]:
        """A bench on a file system of its own that can be filled up."""
        ...


class _Connection(sqlite3.Connection):
    """Counts commits and can fail at them."""

    commits: ClassVar[int] = 0
    trouble: ClassVar[str | None] = None  # "before" or "after" the commit; None: all is well

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        # A statement outside of a transaction is one by itself.
        writes = sql.startswith(("INSERT", "UPDATE", "DELETE"))
        if sql != "COMMIT" and (self.in_transaction or not writes):
            return super().execute(sql, *values)
        if _Connection.trouble == "before":
            raise _io_error()
        done = super().execute(sql, *values)
        _Connection.commits += 1
        if _Connection.trouble == "after":
            raise _io_error()
        return done


class _WriterThread:
    """The writer as a thread of the test, where its connection can be counted and made to fail."""

    def __init__(self, connection: socket.socket, directory: Path, lock: int) -> None:
        self._thread = threading.Thread(target=self._serve, args=(connection.dup(), directory))
        self._thread.start()

    def _serve(self, connection: socket.socket, directory: Path) -> None:
        with connection:
            writer.serve(connection, directory)

    def wait(self) -> None:
        self._thread.join()


def _io_error() -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
    error.sqlite_errorname = "SQLITE_IOERR_FSYNC"
    return error


class SqliteBench:
    """StoreBench of the embedded store."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        self._monkeypatch = monkeypatch
        self._store: SqliteStore | None = None  # None: not open
        self._spool: Spool | None = None  # None: not open
        self._copies = 0
        directory.mkdir(exist_ok=True)
        connect = sqlite3.connect

        def connect_counted(*args: Any, **kwargs: Any) -> sqlite3.Connection:
            kwargs.setdefault("factory", _Connection)
            return connect(*args, **kwargs)

        monkeypatch.setattr(sqlite3, "connect", connect_counted)
        monkeypatch.setattr(process, "start_writer", _WriterThread)

    async def open(self) -> SqliteStore:
        self._spool = Spool(self.directory / "content")
        self._store = SqliteStore(self.directory, self._spool)
        return self._store

    async def close(self) -> None:
        if self._spool is not None:
            await self._spool.close()
        if self._store is not None:
            await self._store.close()
        self._store = self._spool = None

    def after_crash(self) -> SqliteBench:
        self._copies += 1
        copy = self.directory.with_name(f"{self.directory.name}-crash{self._copies}")
        # The -shm file is memory, not storage: whoever opens the database makes it anew.
        shutil.copytree(self.directory, copy, ignore=shutil.ignore_patterns("*-shm"))
        return SqliteBench(copy, self._monkeypatch)

    async def large_content(self, name: str, size: int) -> FileContent:
        assert self._spool is not None
        incoming: ContentWriter = self._spool.create(name, lambda: None)
        incoming.write(b"x" * size)
        content = incoming.finish()
        assert isinstance(content, asyncio.Future)
        stored = await content
        assert isinstance(stored, FileContent)
        return stored

    def content_is_kept(self, queue_id: QueueId) -> bool:
        if (self.directory / "content" / queue_id).exists():
            return True
        connection = sqlite3.connect(self.directory / "queue.db")
        try:
            row = connection.execute(
                "SELECT 1 FROM content WHERE queue_id = ?", (decode_queue_id(queue_id),)
            ).fetchone()
        finally:
            connection.close()
        return row is not None

    def entry(self, queue_id: QueueId) -> Entry | None:
        found = History(self.directory).find(Search(queue_id=queue_id))
        return found[0] if found else None

    def refusals(self) -> list[RefusalEntry]:
        return History(self.directory).refusals(Search())

    @property
    def commits(self) -> int:
        return _Connection.commits

    @contextmanager
    def failing(self, *, keeps_commit: bool) -> Iterator[None]:
        _Connection.trouble = "after" if keeps_commit else "before"
        try:
            yield
        finally:
            _Connection.trouble = None

    @contextmanager
    def on_small_disk(self) -> Iterator[tuple[StoreBench, Ballast]]:
        with small_disk(self.directory.with_name("small-disk"), 16) as ballast:
            yield SqliteBench(ballast.directory / "data", self._monkeypatch), ballast


IMPLEMENTATIONS: dict[str, Callable[[Path, pytest.MonkeyPatch], StoreBench]] = {
    "sqlite": SqliteBench,
}
