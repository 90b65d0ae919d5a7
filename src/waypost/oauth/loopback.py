"""Where a browser on this host comes back to after a login (RFC 8252 §7.3): one request is taken,
on loopback only.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from urllib.parse import parse_qs, urlsplit

import h11

_REQUEST_S = 10.0
_MAX_BYTES = 65_536

_PAGE = """\
<!doctype html><html lang="en"><meta charset="utf-8"><title>Waypost</title>
<p>{}</p></html>
"""
_DONE = _PAGE.format("The answer has come. You may close this page; the command says the rest.")
_NOTHING = _PAGE.format("There is nothing here.")


class Loopback:
    """Listens between `start()` and `close()`."""

    def __init__(self, redirect_url: str, port: int) -> None:
        """`port` 0: a free one."""
        parts = urlsplit(redirect_url)
        self._host = parts.hostname or ""
        self._path = parts.path
        self._port = port
        self._state = ""
        self._returned: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._servers: list[asyncio.Server] = []

    @property
    def url(self) -> str:
        """What is given to the server as redirect_uri."""
        return f"http://{self._host}:{self._port}{self._path}"

    async def start(self) -> None:
        """Listen. Raises OSError."""
        await self._listen("127.0.0.1")
        if self._host == "localhost":
            # Browsers ask ::1 first where there is IPv6.
            with contextlib.suppress(OSError):
                await self._listen("::1")

    async def returned(self, state: str) -> str:
        """The URL the browser came back with; `state` tells it from other requests."""
        self._state = state
        return await self._returned

    def close(self) -> None:
        """Stop listening."""
        for server in self._servers:
            server.close()

    async def _listen(self, address: str) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        server = await asyncio.start_server(self._serve, address, self._port, family=family)
        self._servers.append(server)
        self._port = server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_REQUEST_S):
                await self._answer(reader, writer)
        except (OSError, TimeoutError, ValueError, h11.ProtocolError):
            pass  # no browser of ours; whoever it was has gone, or is sent away
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        engine = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_BYTES)
        while (event := engine.next_event()) is h11.NEED_DATA:
            engine.receive_data(await reader.read(_MAX_BYTES))
        if not isinstance(event, h11.Request):
            return
        target = event.target.decode("ascii", "replace")
        is_ours = self._is_ours(target)
        page = (_DONE if is_ours else _NOTHING).encode()
        headers = [
            ("Content-Type", "text/html; charset=utf-8"),
            ("Content-Length", str(len(page))),
            ("Referrer-Policy", "no-referrer"),  # the URL holds the code
            ("Cache-Control", "no-store"),
            ("Connection", "close"),
        ]
        head = h11.Response(status_code=200 if is_ours else 404, headers=headers)
        for part in (head, h11.Data(data=page), h11.EndOfMessage()):
            writer.write(engine.send(part) or b"")
        await writer.drain()
        if is_ours and not self._returned.done():
            self._returned.set_result(f"http://{self._host}:{self._port}{target}")

    def _is_ours(self, target: str) -> bool:
        """Browsers ask for an icon, others for anything; none of them has the state."""
        parts = urlsplit(target)
        fields = parse_qs(parts.query)
        return (
            bool(self._state)
            and parts.path.rstrip("/") == self._path.rstrip("/")
            and fields.get("state") == [self._state]
        )
