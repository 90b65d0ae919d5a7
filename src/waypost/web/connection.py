"""One client's connection: its requests one after the other, each within limits (RFC 9112).

h11 reads and writes HTTP. It takes some heads that others might read otherwise; those are refused
before it sees them, since two servers that disagree about where a request ends can be made to see
two (request smuggling).
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from email.utils import formatdate

import h11

from waypost.mail.address import IPAddress
from waypost.web.message import Refused, Request, Response, Serve, phrase, problem, refused

# Request line and fields together.
MAX_HEAD_BYTES = 16_384
# A head has to be there this long after the connection, or after its first octet.
HEAD_S = 10.0
# A client that has its response may come back on the same connection.
IDLE_S = 60.0
# A body has to come at this pace on average, once so many seconds have gone.
PACE_BYTES_S = 8_192
PACE_AFTER_S = 15.0
# What a client does not take in this time is not for it.
WRITE_S = 30.0
# What comes behind a refusal is read away, so that the client sees the refusal and not a reset.
LINGER_S = 2.0
LINGER_BYTES = 4_194_304
MAX_REQUESTS = 1_000  # of one connection

_PIECE_BYTES = 65_536
# RFC 9112 §6.3: what two servers could read in two ways.
_ONCE = (b"content-length", b"host", b"transfer-encoding", b"authorization", b"content-type")
_NAME = re.compile(rb"^([^\r\n:]*):", re.MULTILINE)
_ABSOLUTE = re.compile(r"https?://([^/?#]*)", re.IGNORECASE)

# On every response: nothing here is for other sites, to be guessed at, or to be kept.
SECURITY_FIELDS = (
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
)


class ClientGone(ConnectionError):
    """The client has ended the connection in the middle of something."""


class Connection:
    """Serves one client until it goes, or has to."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        client_ip: IPAddress,
        local_ip: IPAddress,
        serve: Serve,
    ) -> None:
        """`serve` gives the response to each request; it raises nothing but bugs."""
        self._reader = reader
        self._writer = writer
        self._client_ip = client_ip
        self._local_ip = local_ip
        self._serve = serve
        self._engine = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        self.is_idle = True  # no request has begun
        self.is_last = False  # the response under way is the last one

    async def run(self) -> None:
        """Until the end. Raises OSError when the client breaks off, and what `serve` raises."""
        for number in range(1, MAX_REQUESTS + 1):
            self.is_last |= number == MAX_REQUESTS
            request: Request | None = None  # None: nobody knows what is asked
            try:
                request = await self._next(IDLE_S if number > 1 else HEAD_S)
                if request is None:
                    return
                self.is_idle = False
                response = await self._serve(request)
            except Refused as refusal:
                self.is_last = True
                response = refusal.response
            except h11.RemoteProtocolError as error:
                self.is_last = True
                # Without what h11 says: it repeats the request.
                response = problem(error.error_status_hint, "this is no request of HTTP/1.1")
            await self._send(response, has_body=request is None or request.method != "HEAD")
            if not self._may_go_on():
                await self._linger()
                return
            self._engine.start_next_cycle()
            self.is_idle = True

    def _may_go_on(self) -> bool:
        states = self._engine.states
        return not self.is_last and states == {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}

    # In.

    async def _next(self, wait_s: float) -> Request | None:
        """The next request's head; None: there is none. Raises Refused, RemoteProtocolError."""
        if not self._engine.trailing_data[0]:
            try:
                async with asyncio.timeout(wait_s):
                    await self._receive()
            except (TimeoutError, ClientGone):
                return None
        self.is_idle = False
        try:
            async with asyncio.timeout(HEAD_S):
                while not _is_whole_head(self._engine.trailing_data[0]):
                    await self._receive()
        except TimeoutError:
            raise refused(408, f"the head of a request has to come within {HEAD_S:.0f} s") from None
        event = self._engine.next_event()
        assert isinstance(event, h11.Request)  # the head is whole
        return self._request(event)

    def _request(self, head: h11.Request) -> Request:
        if head.http_version >= b"2":
            raise refused(505, "this is for HTTP/1.1")
        headers = {name.decode(): value.decode("latin-1") for name, value in head.headers}
        if head.http_version < b"1.1" and "transfer-encoding" in headers:
            raise refused(400, "HTTP/1.0 has no Transfer-Encoding")  # RFC 9112 §6.1
        target = head.target.decode("ascii")
        absolute = _ABSOLUTE.match(target)
        if absolute is not None:  # RFC 9112 §3.2.2: its host counts
            headers["host"] = absolute[1]
            target = target[absolute.end() :] or "/"
        path, _, query = target.partition("?")
        return Request(
            method=head.method.decode("ascii"),
            path=path,
            query=query,
            headers=headers,
            client_ip=self._client_ip,
            local_ip=self._local_ip,
            read=lambda limit: self._read_body(headers, limit),
        )

    async def _read_body(self, headers: Mapping[str, str], limit: int) -> bytes:
        """See ReadBody."""
        too_large = refused(413, f"a body here has at most {limit} octets")
        if len(length := headers.get("content-length", "0")) > 15 or int(length) > limit:
            raise too_large
        if self._engine.they_are_waiting_for_100_continue:
            go_on = h11.InformationalResponse(status_code=100, reason=phrase(100), headers=[])
            await self._write(self._engine.send(go_on) or b"")
        body = bytearray()
        began_at = time.monotonic()
        while True:
            try:
                event = self._engine.next_event()
            except h11.RemoteProtocolError:
                raise refused(400, "the body is not as its head says") from None
            if event is h11.NEED_DATA:
                left_s = began_at + PACE_AFTER_S + len(body) / PACE_BYTES_S - time.monotonic()
                try:
                    async with asyncio.timeout(left_s):
                        await self._receive()
                except TimeoutError:
                    raise refused(408, "the body comes too slowly") from None
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > limit:
                    raise too_large
            elif isinstance(event, h11.EndOfMessage):
                return bytes(body)
            else:
                raise ClientGone

    async def _receive(self) -> None:
        octets = await self._reader.read(_PIECE_BYTES)
        if not octets:
            raise ClientGone
        self._engine.receive_data(octets)

    # Out.

    async def _send(self, response: Response, *, has_body: bool) -> None:
        """Send a response; one to HEAD has no body, though it says how long one would be."""
        # A body that nobody has read is not worth reading for what may come behind it.
        self.is_last |= self._engine.their_state is not h11.DONE and not self._has_ended()
        head = h11.Response(
            status_code=response.status,
            reason=phrase(response.status),
            headers=[
                ("Date", formatdate(usegmt=True)),
                ("Server", "Waypost"),
                ("Content-Type", response.type),
                ("Content-Length", str(len(response.body))),
                *SECURITY_FIELDS,
                *response.fields,
                *([("Connection", "close")] if self.is_last else []),
            ],
        )
        octets = self._engine.send(head) or b""
        if has_body:
            octets += self._engine.send(h11.Data(data=response.body)) or b""
        octets += self._engine.send(h11.EndOfMessage()) or b""
        await self._write(octets)

    def _has_ended(self) -> bool:
        """Whether the request is over when looked at once more: one without a body is."""
        if self._engine.their_state is h11.SEND_BODY:
            try:
                return isinstance(self._engine.next_event(), h11.EndOfMessage)
            except h11.RemoteProtocolError:
                return False
        return self._engine.their_state is h11.DONE

    async def _write(self, octets: bytes) -> None:
        self._writer.write(octets)
        try:
            async with asyncio.timeout(WRITE_S):
                await self._writer.drain()
        except TimeoutError:
            raise ClientGone from None

    async def _linger(self) -> None:
        """Let the client read what it was told (RFC 9112 §9.6)."""
        if not self._writer.can_write_eof():
            return
        self._writer.write_eof()
        left = LINGER_BYTES
        try:
            async with asyncio.timeout(LINGER_S):
                while left > 0 and (octets := await self._reader.read(_PIECE_BYTES)):
                    left -= len(octets)
        except TimeoutError:
            return


def _is_whole_head(octets: bytes) -> bool:
    """Whether the head of a request is there. Raises Refused for one that is not plain."""
    end = octets.find(b"\r\n\r\n")
    head = octets if end < 0 else octets[: end + 4]
    if head.count(b"\n") != head.count(b"\r\n"):
        raise refused(400, "lines of a request end in CRLF")
    if end < 0:
        if len(octets) > MAX_HEAD_BYTES:
            raise refused(431, f"request line and fields have at most {MAX_HEAD_BYTES} octets")
        return False
    if end > MAX_HEAD_BYTES:
        raise refused(431, f"request line and fields have at most {MAX_HEAD_BYTES} octets")
    if head.count(b"\r") != head.count(b"\r\n") or b"\0" in head:
        raise refused(400, "there are control characters in the head")
    if b"\r\n " in head or b"\r\n\t" in head:
        raise refused(400, "fields are not folded")  # RFC 9112 §5.2
    names = [name.lower().strip() for name in _NAME.findall(head.partition(b"\r\n")[2])]
    for name in _ONCE:
        if names.count(name) > 1:
            raise refused(400, f"{name.decode()} is there twice")
    if b"transfer-encoding" in names and b"content-length" in names:
        raise refused(400, "either Content-Length or Transfer-Encoding says how long a body is")
    return True
