"""HTTP/1.1 requests of the hub's own (RFC 9112): one request, one connection, one response.

Names are resolved by our own resolver, and each address passes the gate at the moment it is
connected to. Redirects are not followed: a 3xx is a response like any other. Nothing that is
sent, and no query, gets into an error.
"""

from __future__ import annotations

import asyncio
import math
import os
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import h11

from waypost.dns.addresses import addresses_of
from waypost.dns.resolver import Resolver
from waypost.errors import ConnectForbidden, TemporaryError
from waypost.http.url import Url
from waypost.mail.address import Domain, IPAddress
from waypost.net.gate import Gate, Origin, connect
from waypost.tls.contexts import client_context

# Status line and fields together.
MAX_HEAD_BYTES = 32_768
# One address of several is given this long to answer.
CONNECT_S = 10.0
# A context is used for this long, as certificates of authorities change.
CONTEXT_S = 3_600.0
GOODBYE_S = 2.0

_PIECE_BYTES = 65_536


class HttpFailed(TemporaryError):
    """No usable response; the text says at which step, and why."""

    status = (4, 4)


class NoConnection(HttpFailed):
    """None of the host's addresses could be connected to."""


class ResponseTooBig(HttpFailed):
    """The server said more than it was asked for; what it did is done."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code  # the response's status code


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """What came back."""

    status: int
    headers: Mapping[str, str] = field(repr=False)  # lower-case names; of several, the last
    body: bytes = field(repr=False)
    fields: tuple[tuple[str, str], ...] = field(default=(), repr=False)  # all headers, in order


class HttpClient:
    """Asks on somebody's word: see Origin."""

    def __init__(self, gate: Gate, resolver: Resolver, origin: Origin) -> None:
        """`resolver` may be replaced while running (reload)."""
        self._gate = gate
        self.resolver = resolver
        self._origin = origin
        self._contexts: dict[Path | None, tuple[float, ssl.SSLContext]] = {}

    async def fetch(
        self,
        method: str,
        url: str | Url,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        ca: Path | None = None,
        allows_clear: bool = False,
        limit_bytes: int = 1_048_576,
        timeout_s: float = 30.0,
    ) -> HttpResponse:
        """Ask once; the peer proves its name or IP address where the URL is https.

        `ca`: who may vouch for the peer; None: whom this system trusts. `allows_clear`: http: may
        be asked too. `timeout_s` is for all of it. Raises HttpFailed, ConnectForbidden,
        ResolverUnavailable, and ValueError for a URL that is none.
        """
        place = url if isinstance(url, Url) else Url.parse(url, allows_clear=allows_clear)
        if not place.is_secure and not allows_clear:
            raise ValueError("expected https:// in front")
        request = h11.Request(
            method=method,
            target=place.target,
            headers=[
                ("Host", place.authority),
                ("User-Agent", "Waypost"),
                ("Accept-Encoding", "identity"),
                ("Connection", "close"),
                *([("Content-Length", str(len(body)))] if body or method != "GET" else []),
                *(headers or {}).items(),
            ],
        )
        try:
            async with asyncio.timeout(timeout_s):
                return await self._exchange(place, request, body, ca, limit_bytes)
        except TimeoutError:
            raise HttpFailed(f"{place}: no whole response in {timeout_s:.0f} s") from None

    async def _exchange(
        self, place: Url, request: h11.Request, body: bytes, ca: Path | None, limit_bytes: int
    ) -> HttpResponse:
        connected = await self._connected(place)
        try:
            context = await self._context(ca) if place.is_secure else None
            reader, writer = await asyncio.open_connection(
                sock=connected,
                ssl=context,
                server_hostname=None if context is None else place.name,
                ssl_shutdown_timeout=None if context is None else GOODBYE_S,
            )
        except BaseException as error:
            connected.close()
            if isinstance(error, OSError | ValueError) and not isinstance(error, TimeoutError):
                why = getattr(error, "verify_message", None) or getattr(error, "reason", None)
                why = why or error.args[-1]
                raise HttpFailed(f"{place}: TLS failed: {why}") from error
            raise
        try:
            engine = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
            writer.write(engine.send(request) or b"")
            writer.write(engine.send(h11.Data(data=body)) or b"")
            writer.write(engine.send(h11.EndOfMessage()) or b"")
            return await _response(place, engine, reader, limit_bytes)
        except (OSError, h11.ProtocolError) as error:
            if isinstance(error, TimeoutError):
                raise
            # What h11 says of a broken response holds none of it that could not be shown.
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise HttpFailed(f"{place}: no HTTP response: {why or error}") from error
        finally:
            # Whoever keeps the connection open after the response does it alone.
            writer.transport.abort()

    async def _connected(self, place: Url) -> socket.socket:
        """The first address that answers. Raises as `fetch`."""
        addresses = [place.host] if not isinstance(place.host, Domain) else []
        if isinstance(place.host, Domain):
            addresses = await addresses_of(self.resolver, place.host.ascii)
        if not addresses:
            raise NoConnection(f"{place}: {place.host} has no address")
        troubles: list[str] = []
        forbidden: ConnectForbidden | None = None
        for ip in addresses:
            try:
                return await self._connect(ip, place, is_last=ip == addresses[-1])
            except ConnectForbidden as error:
                forbidden = error
            except TimeoutError:
                troubles.append(f"{ip}: no connection in {CONNECT_S:.0f} s")
            except OSError as error:
                troubles.append(f"{ip}: {os.strerror(error.errno) if error.errno else error}")
        if not troubles and forbidden is not None:
            raise forbidden
        raise NoConnection(f"{place}: {'; '.join(troubles)}")

    async def _connect(self, ip: IPAddress, place: Url, *, is_last: bool) -> socket.socket:
        # The last may use up what time there is for all of it.
        async with asyncio.timeout(None if is_last else CONNECT_S):
            return await connect(self._gate, ip, place.port, self._origin)

    async def _context(self, ca: Path | None) -> ssl.SSLContext:
        made_at, context = self._contexts.get(ca, (-math.inf, None))
        if context is None or time.monotonic() - made_at > CONTEXT_S:
            context = await asyncio.to_thread(client_context, verifies=True, ca=ca)
            self._contexts[ca] = (time.monotonic(), context)
        return context


async def _response(
    place: Url, engine: h11.Connection, reader: asyncio.StreamReader, limit_bytes: int
) -> HttpResponse:
    """The final response; informational ones before it count as its head (RFC 9110 §15.2)."""
    head: h11.Response | None = None
    body = bytearray()
    received = 0
    while True:
        event = engine.next_event()
        if event is h11.NEED_DATA:
            if head is None and received > MAX_HEAD_BYTES:
                raise HttpFailed(f"{place}: the head of the response has no end")
            piece = await reader.read(_PIECE_BYTES)
            received += len(piece)
            engine.receive_data(piece)
        elif isinstance(event, h11.Response):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > limit_bytes:
                assert head is not None  # the engine keeps the order
                text = f"{place}: the response is larger than {limit_bytes} bytes"
                raise ResponseTooBig(text, head.status_code)
        elif isinstance(event, h11.EndOfMessage):
            assert head is not None
            fields = tuple((name.decode(), value.decode("latin-1")) for name, value in head.headers)
            return HttpResponse(head.status_code, dict(fields), bytes(body), fields)
        elif not isinstance(event, h11.InformationalResponse):
            raise HttpFailed(f"{place}: the connection ended before the response did")
