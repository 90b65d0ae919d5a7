"""An SMTP server in this process that takes everything and remembers it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.fault.mail import Copy, read_copy
from tests.support.ports import free_port


class Sink:
    """Lives in a thread of its own; what it has answered with 250 is in `copies`."""

    def __init__(self) -> None:
        self.port = free_port()
        self._copies: list[Copy] = []
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None  # None: not listening
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def target(self) -> str:
        """It as a target of a [[route]]."""
        return f"smtp:[127.0.0.1]:{self.port}"

    @property
    def has_copies(self) -> bool:
        """True when something came since the last call of `take_copies`."""
        with self._lock:
            return bool(self._copies)

    def take_copies(self) -> list[Copy]:
        """What came since the last call."""
        with self._lock:
            copies, self._copies = self._copies, []
        return copies

    def start(self) -> None:
        """Listen."""
        if not self._thread.is_alive():
            self._thread.start()

        async def listen() -> asyncio.Server:
            return await asyncio.start_server(
                self._serve, "127.0.0.1", self.port, limit=1 << 24, backlog=256
            )

        self._server = asyncio.run_coroutine_threadsafe(listen(), self._loop).result()

    def close(self) -> None:
        """End all of it."""
        if not self._thread.is_alive():
            self._loop.close()
            return

        async def end() -> None:
            if self._server is not None:
                self._server.close()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            await asyncio.sleep(0)  # transports close in the next turn

        asyncio.run_coroutine_threadsafe(end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(b"220 sink.test\r\n")
            while line := await reader.readline():
                verb = line[:4].upper()
                if verb == b"EHLO":
                    writer.write(b"250-sink.test\r\n250-PIPELINING\r\n250 8BITMIME\r\n")
                elif verb == b"DATA":
                    writer.write(b"354 Go on\r\n")
                    stuffed = await reader.readuntil(b"\r\n.\r\n")
                    content = stuffed[:-3].replace(b"\r\n..", b"\r\n.")
                    with self._lock:
                        self._copies.append(read_copy(content))
                    writer.write(b"250 Taken\r\n")
                else:
                    writer.write(b"221 Bye\r\n" if verb == b"QUIT" else b"250 Ok\r\n")
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the hub was killed, or the test is over
        finally:
            writer.transport.abort()


@contextmanager
def absent() -> Iterator[Sink]:
    """A sink that does not listen yet, and ends with the block."""
    sink = Sink()
    try:
        yield sink
    finally:
        sink.close()


@contextmanager
def running_sink() -> Iterator[Sink]:
    """A sink that listens and ends with the block."""
    with absent() as sink:
        sink.start()
        yield sink


def relay_config(sink: Sink) -> str:
    """A [[route]] that sends all mail for sink.test to a sink."""
    return (
        '[[route]]\nname = "sink"\nmatch = { recipient = "*@sink.test" }\n'
        f'to = ["{sink.target}"]\n'
    )
