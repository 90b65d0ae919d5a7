"""The hub's end of the writer's process (queue/writer): batches go out, what became of them comes
back, all without blocking the event loop.

Mail must never be acknowledged by a hub that cannot write, so a writer that dies takes the hub
down, and a supervisor starts both afresh.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from waypost.errors import StoreLost, StoreUnavailable
from waypost.queue.requests import HEADER, Opened, Order, Report, Request, frame

_READ_BYTES = 65_536

Done = Callable[[list[Any]], None]


class WriterProcess:
    """One writer, from its start to its end. Made and used on the event loop's thread."""

    def __init__(self, directory: Path, lock: int, on_lost: Callable[[], None] | None) -> None:
        """Starts it and waits until it has the database. Raises StoreUnavailable or OSError.

        `lock`: a descriptor that shares the lock on the directory, so that it is held until the
        writer, too, has ended. `on_lost` is called when it ends unasked.
        """
        self._on_lost = on_lost
        self._socket, theirs = socket.socketpair()
        try:
            self._process = start_writer(theirs, directory, lock)
        finally:
            theirs.close()
        self.is_well = True
        self.is_lost = False
        self.is_tight = False  # to be set by the owner: there is little room on the disk
        self.spare_bytes = 0  # while it is tight: room inside the database
        self._incoming = bytearray()
        self._outgoing = memoryview(b"")
        self._is_waiting_to_send = False
        self._batch: tuple[int, Done] | None = None  # how many requests; None: none is under way
        opened = self._receive_blocking()
        if not isinstance(opened, Opened):
            self._socket.close()
            self._process.wait()
            raise opened if isinstance(opened, StoreUnavailable) else _lost()
        self.held = opened.held
        self._socket.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._readable)

    def start(self, requests: list[Request], done: Done) -> None:
        """Begin a batch; `done` gets a result, or an exception, for each request in order.

        One batch at a time.
        """
        if self.is_lost:
            self._loop.call_soon(done, [_lost() for _ in requests])
            return
        self._batch = (len(requests), done)
        self._outgoing = memoryview(frame(Order(requests, self.is_tight)))
        self._writable()

    async def close(self) -> None:
        """Hang up when no batch is under way, and wait for the end.

        Raises StoreLost when it did not end in good order.
        """
        if not self.is_lost:
            self._loop.remove_reader(self._socket)
        self._socket.close()
        if await asyncio.to_thread(self._process.wait) and not self.is_lost:
            raise _lost()

    def _receive_blocking(self) -> Any:
        """The first thing it says; None: it ended instead."""
        while (value := self._next_value()) is None:
            received = self._socket.recv(_READ_BYTES)
            if not received:
                return None
            self._incoming += received
        return value

    def _next_value(self) -> Any:
        """What came in whole; None: not all of it is here yet."""
        incoming = self._incoming
        if len(incoming) < HEADER.size:
            return None
        end = HEADER.size + HEADER.unpack_from(incoming)[0]
        if len(incoming) < end:
            return None
        value = pickle.loads(memoryview(incoming)[HEADER.size : end])  # noqa: S301 # from our writer
        del incoming[:end]
        return value

    def _writable(self) -> None:
        """Send what the socket takes; the rest when it takes more."""
        try:
            sent = self._socket.send(self._outgoing)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._lose()
            return
        self._outgoing = self._outgoing[sent:]
        if self._outgoing and not self._is_waiting_to_send:
            self._loop.add_writer(self._socket, self._writable)
        elif self._is_waiting_to_send and not self._outgoing:
            self._loop.remove_writer(self._socket)
        self._is_waiting_to_send = bool(self._outgoing)

    def _readable(self) -> None:
        try:
            received = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        if not received:
            self._lose()
            return
        self._incoming += received
        report: Report | None = self._next_value()
        if report is not None:
            assert self._batch is not None
            _, done = self._batch
            self._batch = None
            self.is_well = report.is_well
            self.spare_bytes = report.spare_bytes
            done(report.results)

    def _lose(self) -> None:
        self.is_lost = True
        self.is_well = False
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        batch, self._batch = self._batch, None
        if batch is not None:
            count, done = batch
            done([_lost() for _ in range(count)])
        if self._on_lost is not None:
            self._on_lost()


def start_writer(connection: socket.socket, directory: Path, lock: int) -> subprocess.Popen[bytes]:
    """The process at the other end of `connection`, with this very code."""
    command = [sys.executable, "-P", "-m", "waypost.queue.writer"]
    return subprocess.Popen(
        [*command, str(connection.fileno()), str(directory)],
        pass_fds=(connection.fileno(), lock),
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


def _lost() -> StoreLost:
    return StoreLost("the process that writes queue.db has ended")
