"""What a client sends first, looked at where it waits (MSG_PEEK): TLS, or whoever is meant, reads
it afterwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket

from waypost.tls.hello import HELLO_BYTES


async def _readable(connected: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    is_readable = asyncio.Event()
    loop.add_reader(connected, is_readable.set)
    try:
        await is_readable.wait()
    finally:
        loop.remove_reader(connected)


async def first_octets(connected: socket.socket) -> bytes:
    """The first of what a client sends, and leave it there; empty: it has closed.

    Nobody else may read meanwhile. Raises OSError.
    """
    while True:
        await _readable(connected)
        with contextlib.suppress(BlockingIOError):
            return connected.recv(HELLO_BYTES, socket.MSG_PEEK)
