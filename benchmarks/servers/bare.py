"""The roofline: a uvloop Protocol that answers by rote, parses nothing and stores nothing.

No Python mail server on one core can beat it; how near one comes says what its work costs.
"""

import asyncio
import sys
from typing import ClassVar, cast

import uvloop

GREETING = b"220 bare.bench.example ESMTP\r\n"
OK = b"250 2.0.0 Ok\r\n"
GO_AHEAD = b"354 go ahead\r\n"
BYE = b"221 2.0.0 Bye\r\n"
END_OF_CONTENT = b"\r\n.\r\n"


class Session(asyncio.Protocol):
    """Knows commands by their first letter only, in which those of our clients differ."""

    __slots__ = ("_in_content", "_tail", "_transport")
    received: ClassVar[int] = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are asyncio.Transport by their methods, not by their class.
        self._transport = cast("asyncio.Transport", transport)
        self._in_content = False
        self._tail = b""
        self._transport.write(GREETING)

    def data_received(self, data: bytes) -> None:
        if self._in_content:
            # The end may come in two reads.
            self._tail = (self._tail + data[-5:])[-5:]
            if self._tail == END_OF_CONTENT:
                self._in_content = False
                Session.received += 1
                self._transport.write(OK)
            return
        match data[:1]:
            case b"D":
                self._in_content = True
                self._tail = b"\r\n"
                self._transport.write(GO_AHEAD)
            case b"Q":
                self._transport.write(BYE)
                self._transport.close()
            case b"N":
                self._transport.write(b"250 %d\r\n" % Session.received)
            case _:
                self._transport.write(OK)


async def serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Session, "127.0.0.1", port, backlog=1000)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
