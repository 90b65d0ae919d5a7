"""The process that writes queue.db, and the hub's end of it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from tests.contract.mail import deferred, new_message, on_loop
from tests.fault.small_disk import small_disk
from tests.fault.tracing import children_of, is_alive
from waypost.errors import QueueFull, StoreLost, StoreUnavailable
from waypost.mail.envelope import RecipientStatus
from waypost.queue import schema
from waypost.queue.history import History, Search
from waypost.queue.spool import InlineContent, Spool
from waypost.queue.sqlite import SqliteStore
from waypost.queue.store import QueueStore, decode_queue_id


class Bench:
    """A store with its real writer."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(exist_ok=True)
        self.losses = 0

    async def __aenter__(self) -> Bench:
        before = set(children_of(os.getpid()))
        self.spool = Spool(self.directory / "content")
        self.store: QueueStore = SqliteStore(self.directory, self.spool, self._lost)
        [self.writer] = set(children_of(os.getpid())) - before
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.store.close()
        await self.spool.close()
        assert not is_alive(self.writer)

    def _lost(self) -> None:
        self.losses += 1


@on_loop
async def test_batches_larger_than_the_socket_holds(tmp_path: Path) -> None:
    content = [os.urandom(60_000) for _ in range(80)]
    async with Bench(tmp_path) as bench:
        store = bench.store
        await store.hold_all_new(held=True)  # so that all of it is read back
        messages = [
            new_message(store.next_id(), content=InlineContent(octets)) for octets in content
        ]
        await asyncio.gather(*(store.accept(message) for message in messages))
        await store.hold_all_new(held=False)
        lent = await store.lease(100)
        assert [message.content.inline for message in lent] == content


@on_loop
async def test_a_writer_that_dies(tmp_path: Path) -> None:
    async with Bench(tmp_path) as bench:
        store = bench.store
        kept = new_message(store.next_id())
        await store.accept(kept)
        os.kill(bench.writer, signal.SIGSTOP)
        perhaps = store.accept(new_message(store.next_id()))
        await asyncio.sleep(0.05)  # it is under way
        waiting = store.accept(new_message(store.next_id()))
        os.kill(bench.writer, signal.SIGKILL)
        for future in (perhaps, waiting):
            with pytest.raises(StoreLost):
                await future
        with pytest.raises(StoreLost):
            await store.accept(new_message(store.next_id()))
        refusal = store.refusal(0)
        assert refusal is not None
        assert refusal.code == 421
        assert bench.losses == 1
    async with Bench(tmp_path) as bench:
        assert kept.queue_id in [message.queue_id for message in await bench.store.lease(100)]
    assert bench.losses == 0


@on_loop
async def test_signals_for_everybody_are_the_hubs(tmp_path: Path) -> None:
    async with Bench(tmp_path) as bench:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(bench.writer, number)
        await bench.store.accept(new_message(bench.store.next_id()))
        assert bench.losses == 0


@on_loop
async def test_a_hub_waits_for_the_writer_of_a_dead_one(tmp_path: Path) -> None:
    lock = (tmp_path / "queue.lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    release = threading.Timer(0.3, lock.close)
    begun = time.monotonic()
    release.start()
    async with Bench(tmp_path) as bench:
        assert time.monotonic() - begun >= 0.3
        await bench.store.accept(new_message(bench.store.next_id()))


@on_loop
async def test_the_writer_holds_the_lock_itself(tmp_path: Path) -> None:
    async with Bench(tmp_path):
        # The hub's own descriptor is one of two: were it closed by a death, this would stand.
        with (tmp_path / "queue.lock").open("w") as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


@on_loop
async def test_a_database_of_another_version_is_refused_in_words(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "queue.db")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = children_of(os.getpid())
    with pytest.raises(StoreUnavailable, match=r"queue\.db has version 99"):
        SqliteStore(tmp_path, Spool(tmp_path / "content"))
    assert children_of(os.getpid()) == before


@on_loop
async def test_a_database_of_version_1_is_brought_up_to_date(tmp_path: Path) -> None:
    added = ("login", "tls", "requiretls", "auth_results")
    async with Bench(tmp_path) as bench:
        await bench.store.accept(new_message(bench.store.next_id()))
    connection = sqlite3.connect(tmp_path / "queue.db")
    for column in added:
        connection.execute(f"ALTER TABLE message DROP COLUMN {column}")
    connection.execute("PRAGMA user_version = 1")
    connection.close()
    async with Bench(tmp_path) as bench:
        await bench.store.accept(new_message(bench.store.next_id()))
        (old, new) = reversed(History(tmp_path).find(Search()))
    assert (old.login, old.tls, old.auth_results) == (None, None, "")
    assert (new.login, new.tls, new.client_ip) == (None, None, old.client_ip)
    connection = sqlite3.connect(tmp_path / "queue.db")
    assert connection.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)
    connection.close()


@on_loop
async def test_code_of_the_working_directory_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "waypost").mkdir()
    (tmp_path / "waypost" / "__init__.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    async with Bench(tmp_path / "data") as bench:
        await bench.store.accept(new_message(bench.store.next_id()))


@on_loop
async def test_a_row_that_cannot_be_read_is_put_away(tmp_path: Path) -> None:
    async with Bench(tmp_path) as bench:
        await bench.store.hold_all_new(held=True)
        bad, good = (new_message(bench.store.next_id()) for _ in range(2))
        await bench.store.accept(bad)
        await bench.store.accept(good)
        await bench.store.hold_all_new(held=False)
    number = decode_queue_id(bad.queue_id)
    connection = sqlite3.connect(tmp_path / "queue.db")
    connection.execute("UPDATE recipient SET forward_path = '?' WHERE queue_id = ?", (number,))
    connection.commit()
    async with Bench(tmp_path) as bench:
        assert [message.queue_id for message in await bench.store.lease(100)] == [good.queue_id]
        assert await bench.store.lease(100) == []
    status = connection.execute("SELECT status FROM recipient WHERE queue_id = ?", (number,))
    assert status.fetchone() == (int(RecipientStatus.HELD),)
    word = connection.execute("SELECT outcome FROM attempt WHERE queue_id = ?", (number,))
    assert word.fetchone() == ("unreadable",)
    connection.close()
    # It is shown as it stands, beside what can be read.
    found = {entry.queue_id: entry for entry in History(tmp_path).find(Search())}
    assert set(found) == {bad.queue_id, good.queue_id}
    assert found[bad.queue_id].recipients[0].address == "?"


@on_loop
async def test_a_log_that_a_reader_kept_from_starting_afresh(tmp_path: Path) -> None:
    """Full because somebody was reading; when they are gone there is room, with no help."""
    with small_disk(tmp_path / "disk", 8) as ballast:
        async with Bench(ballast.directory / "data") as bench:
            store = bench.store
            first = new_message(store.next_id())
            await store.accept(first)
            [lent] = await store.lease(1)
            reader = sqlite3.connect(bench.directory / "queue.db", isolation_level=None)
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM message").fetchone()

            async def put_off_until_full() -> None:
                while True:  # takes log, and nothing else
                    await store.settle(deferred(lent, 9e9))

            with pytest.raises(QueueFull):
                await put_off_until_full()
            reader.close()
            async with asyncio.timeout(5):
                while True:
                    with contextlib.suppress(QueueFull):
                        await store.settle(deferred(lent, 9e9))
                        break
