"""The hub's end of the process that reads mail (reading/worker).

What the process cannot do becomes a `fault` in words, never an exception: a mail that nobody can
read is still a mail, with its queue id and its octets.
"""

from __future__ import annotations

import asyncio
import io
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import BinaryIO, TypeVar

from waypost.durable import write_all
from waypost.reading.values import Attachment, Limits, ReadMail
from waypost.reading.wire import (
    ANSWER_HEADER,
    FAILED,
    MAX_ANSWER,
    NOTHING,
    Allowance,
    OctetsRequest,
    ReadRequest,
    Request,
    ThumbnailRequest,
    mail_of,
    request_frame,
)

# How a mail is read that could not be: without its HTML, which is laid out by a library and so
# the likeliest cause; then only its header and what is near.
_MODESTLY = (
    ({"html": 0}, "its HTML was left alone"),
    ({"html": 0, "octets": 65_536}, "only its beginning was read, and no HTML"),
)
_KEPT_VARIABLES = ("LD_LIBRARY_PATH", "PATH")
_READ_BYTES = 1_048_576

_T = TypeVar("_T")


class _Lost(Exception):
    """No answer; the text says why. Never leaves this module."""


class Reader:
    """Reads mail in a process of its own. Blocks, and is for one thread at a time.

    The process starts with the first request, and afresh after it was ended.
    """

    def __init__(self, limits: Limits | None = None, allowance: Allowance | None = None) -> None:
        self._limits = limits or Limits()
        self._allowance = allowance or Allowance()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, content: bytes | BinaryIO) -> ReadMail:
        """What a mail says; as much of it as can be read."""
        try:
            return self._read(content, self._limits)
        except _Lost as lost:
            why = str(lost)
        for less, words in _MODESTLY:
            try:
                mail = self._read(content, self._limits._replace(**less))
            except _Lost:
                continue
            return mail._replace(fault="; ".join(filter(None, (why, words, mail.fault))))
        return ReadMail(fault=why)

    def octets(self, content: bytes | BinaryIO, attachment: Attachment) -> bytes | None:
        """The octets of one attachment of the same content; None: they cannot be read."""
        try:
            return self._ask(OctetsRequest(attachment), content)
        except _Lost:
            return None

    def thumbnail(self, octets: bytes | BinaryIO, max_px: int) -> bytes | None:
        """A JPEG of at most `max_px` in width and height; None: this is no picture to it."""
        try:
            return self._ask(ThumbnailRequest(max_px), octets)
        except _Lost:
            return None

    def close(self) -> None:
        """End the process."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _read(self, content: bytes | BinaryIO, limits: Limits) -> ReadMail:
        answer = self._ask(ReadRequest(limits), content)
        try:
            return mail_of(answer or b"")
        except ValueError as error:
            self.close()
            raise _Lost("the process that reads mail gave no sensible answer") from error

    def _ask(self, request: Request, content: bytes | BinaryIO) -> bytes | None:
        """The answer's octets; None: there are none. Raises _Lost."""
        deadline = time.monotonic() + self._allowance.wall_s
        try:
            with _descriptor_of(content) as descriptor:
                connection = self._connected()
                connection.settimeout(self._allowance.wall_s)
                socket.send_fds(connection, [request_frame(request)], [descriptor])
                kind, size = ANSWER_HEADER.unpack(
                    _received(connection, ANSWER_HEADER.size, deadline)
                )
                if size > MAX_ANSWER:
                    raise _Lost("the process that reads mail gave no sensible answer")
                body = _received(connection, size, deadline)
        except TimeoutError as error:
            self.close()
            raise _Lost(f"it took longer than {self._allowance.wall_s:g} s to read") from error
        except (EOFError, ConnectionError) as error:
            raise _Lost(self._how_it_ended()) from error
        except OSError as error:
            self.close()
            raise _Lost(f"it cannot be read: {error.strerror or error}") from error
        except _Lost:
            self.close()
            raise
        if kind == FAILED:
            self.close()  # who knows what it left behind
            raise _Lost(f"it cannot be read whole: {body.decode('utf-8', 'replace')}")
        return None if kind == NOTHING else body

    def _connected(self) -> socket.socket:
        if self._process is not None and self._process.poll() is not None:
            self.close()
        if self._socket is None:
            self._socket, theirs = socket.socketpair()
            with theirs:
                self._process = _start(theirs, self._allowance)
        return self._socket

    def _how_it_ended(self) -> str:
        assert self._process is not None
        try:
            status = self._process.wait(1)
        except subprocess.TimeoutExpired:
            status = None  # it hung up and lives: close() ends it
        self.close()
        if status == -signal.SIGXCPU:
            return f"it took more than {self._allowance.cpu_s} s of processor time to read"
        return f"the process that reads mail ended (status {status})"


class MailReader:
    """A `Reader` for the event loop: requests wait for each other in a thread of their own."""

    def __init__(self, limits: Limits | None = None, allowance: Allowance | None = None) -> None:
        self._reader = Reader(limits, allowance)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reading")

    async def read(self, content: bytes | BinaryIO) -> ReadMail:
        """As `Reader.read`."""
        return await self._run(partial(self._reader.read, content))

    async def octets(self, content: bytes | BinaryIO, attachment: Attachment) -> bytes | None:
        """As `Reader.octets`."""
        return await self._run(partial(self._reader.octets, content, attachment))

    async def thumbnail(self, octets: bytes | BinaryIO, max_px: int) -> bytes | None:
        """As `Reader.thumbnail`."""
        return await self._run(partial(self._reader.thumbnail, octets, max_px))

    async def close(self) -> None:
        """End the process, after the request that is under way."""
        await self._run(self._reader.close)
        self._thread.shutdown(wait=False)

    async def _run(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _start(connection: socket.socket, allowance: Allowance) -> subprocess.Popen[bytes]:
    """The process at the other end of `connection`, with this very code."""
    command = [sys.executable, "-P", "-m", "waypost.reading.worker", str(connection.fileno())]
    return subprocess.Popen(
        [*command, str(allowance.cpu_s), str(allowance.memory)],
        pass_fds=(connection.fileno(),),
        stdin=subprocess.DEVNULL,
        env=_environment(),
    )


def _environment() -> dict[str, str]:
    # Nothing else: secrets may stand there, and strangers' octets are handled.
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    return {**kept, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


@contextmanager
def _descriptor_of(content: bytes | BinaryIO) -> Iterator[int]:
    """A descriptor of a file that holds the octets; they cross without being copied again."""
    if not isinstance(content, bytes):
        try:
            descriptor = content.fileno()
        except io.UnsupportedOperation:
            content = content.read()
        else:
            yield descriptor
            return
    descriptor = os.memfd_create("mail")
    try:
        write_all(descriptor, content)
        yield descriptor
    finally:
        os.close(descriptor)


def _received(connection: socket.socket, size: int, deadline: float) -> bytes:
    """So many octets. Raises EOFError, TimeoutError or OSError."""
    found = bytearray()
    while len(found) < size:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        more = connection.recv(min(size - len(found), _READ_BYTES))
        if not more:
            raise EOFError
        found += more
    return bytes(found)
