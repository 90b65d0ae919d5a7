"""A web server for webhooks and notifications: answers every POST with 200, and counts them.

A GET is answered with the count.
"""

import asyncio
import re
import sys
from typing import ClassVar, cast

import uvloop

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_END = b"\r\n\r\n"


class Session(asyncio.Protocol):
    """One connection, kept for as many requests as the client likes."""

    received: ClassVar[int] = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are asyncio.Transport by their methods, not by their class.
        self._transport = cast("asyncio.Transport", transport)
        self._unread = b""

    def data_received(self, data: bytes) -> None:
        self._unread += data
        while (end := self._unread.find(_END)) >= 0:
            length = _LENGTH.search(self._unread, 0, end)
            size = end + len(_END) + (int(length[1]) if length else 0)
            if len(self._unread) < size:
                return
            is_asking = self._unread.startswith(b"GET ")
            self._unread = self._unread[size:]
            Session.received += not is_asking
            said = b"%d" % Session.received if is_asking else b""
            self._transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
                b"Content-Length: %d\r\n\r\n%b" % (len(said), said)
            )


async def serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Session, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
