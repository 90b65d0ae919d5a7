"""The hub's end of the process that notifies (delivery/notifier_worker).

Apprise opens its own connections and blocks, so it works in a process of its own: one for each
[notify.NAME], started by the first notification and ended when there is nothing to tell.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence
from typing import NamedTuple

from waypost.delivery.attachments import Enclosed
from waypost.delivery.notice import Notice
from waypost.smtp.auth import Secret

# Of a request: its JSON's length, and that of all files behind it.
HEADER = struct.Struct("!II")
# One URL is given this long, the process's start included.
NOTIFY_S = 60.0
# A process with nothing to do is ended after so long.
IDLE_S = 300.0
# Longer answers are none of ours.
MAX_ANSWER_BYTES = 65_536

# Not the hub's other variables: secrets may stand there. These say which way out is.
_KEPT_VARIABLES = (
    *("LD_LIBRARY_PATH", "PATH", "REQUESTS_CA_BUNDLE"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
)


class Told(NamedTuple):
    """What became of one URL's notification."""

    is_done: bool
    service: str = ""  # how Apprise calls the service; empty: nobody knows
    is_known: bool = True  # False: Apprise takes no such URL
    status: int | None = None  # of HTTP, when it failed; None: it got no such answer
    why: str = ""  # in words, without anything of the URL


class Notifier:
    """One process; one notification at a time."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._turn = asyncio.Lock()
        self._idle: asyncio.TimerHandle | None = None  # None: at work, or not running
        self._leaving: asyncio.Task[None] | None = None  # None: it was never idle for long

    async def tell(self, url: Secret, notice: Notice, files: Sequence[Enclosed]) -> Told:
        """Notify by one URL; trouble of any kind is in what it gives."""
        about = [(file.name, file.type, len(file.octets)) for file in files]
        words = [url.revealed, notice.title, notice.text, about]
        return await self._told(words, [file.octets for file in files])

    async def service(self, url: Secret) -> Told:
        """Which service a URL means; nobody is told, and nothing connected to."""
        return await self._told([url.revealed], [])

    async def _told(self, words: Sequence[object], octets: Sequence[bytes]) -> Told:
        async with self._turn:
            self._stay()
            try:
                async with asyncio.timeout(NOTIFY_S):
                    told = await self._ask(words, octets)
            except TimeoutError:
                await self._end()
                return Told(False, why=f"no end in {NOTIFY_S:.0f} s")
            except (OSError, EOFError, ValueError, TypeError):
                await self._end()
                return Told(False, why="the process that notifies has ended")
            except BaseException:
                await self._end()  # its answer must not be taken for the next one's
                raise
            self._idle = asyncio.get_running_loop().call_later(IDLE_S, self._leave)
            return told

    async def close(self) -> None:
        """End the process, after the notification that is under way."""
        async with self._turn:
            self._stay()
            await self._end()

    async def _ask(self, words: Sequence[object], octets: Sequence[bytes]) -> Told:
        reader, writer = await self._connected()
        request = json.dumps(words).encode("ascii")
        writer.writelines((HEADER.pack(len(request), sum(map(len, octets))), request, *octets))
        await writer.drain()
        line = await reader.readline()
        if not line:
            raise EOFError
        return Told(*json.loads(line))

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._process is not None and self._process.poll() is not None:
            await self._end()
        if self._streams is None:
            ours, theirs = socket.socketpair()
            with theirs:
                self._process = await asyncio.to_thread(_started, theirs)
            self._streams = await asyncio.open_connection(sock=ours, limit=MAX_ANSWER_BYTES)
        return self._streams

    def _stay(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _leave(self) -> None:
        self._idle = None
        self._leaving = asyncio.get_running_loop().create_task(self.close())

    async def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
            self._process = None
        if self._streams is not None:
            _, writer = self._streams
            self._streams = None
            writer.close()
            with contextlib.suppress(OSError):  # it was killed with something unsent
                await writer.wait_closed()


def _started(connection: socket.socket) -> subprocess.Popen[bytes]:
    """The process at the other end of `connection`, with this very code."""
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    return subprocess.Popen(
        [
            *(sys.executable, "-P", "-m", "waypost.delivery.notifier_worker"),
            str(connection.fileno()),
        ],
        pass_fds=(connection.fileno(),),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**kept, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
