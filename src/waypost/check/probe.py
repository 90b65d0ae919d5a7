"""One SMTP session that asks a host about a mailbox and delivers nothing (RFC 5321 §3.3).

EHLO, STARTTLS where offered, MAIL, one RCPT, RSET, QUIT; never DATA. The null reverse-path is tried
first, since every host has to take it (RFC 5321 §4.5.5), a sender somebody reads where it is
refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import ip_address
from typing import Any

from waypost.check.answers import Stage
from waypost.errors import ConnectForbidden
from waypost.mail.address import Address, IPAddress, as_value
from waypost.mail.reply import Reply
from waypost.net.gate import Gate, Origin, connect
from waypost.smtp.replies import PeerOutOfStep, ReplyReader

CONNECT_S = 10.0
REPLY_S = 30.0
# After the answer is there, courtesy may take this long.
GOODBYE_S = 5.0
# More than a stream holds: nothing that came before a TLS handshake is left for after it.
_PIECE_BYTES = 1 << 20


@dataclass(slots=True)
class Session:
    """What was said, and how far it came."""

    host: str
    ip: IPAddress
    port: int
    stage: Stage = Stage.CONNECT
    trouble: str | None = None  # a net.* code: why there is no reply; None: there is one
    reply: Reply | None = None  # the last that counts
    banner: str | None = None
    extensions: list[str] = field(default_factory=list)
    is_encrypted: bool = False
    has_tls_failed: bool = False  # STARTTLS was taken, and the handshake broke
    mail_from: str = "<>"
    transcript: list[str] = field(default_factory=list)

    @property
    def is_accepted(self) -> bool:
        """The host takes the recipient."""
        return self.stage is Stage.RCPT and self.reply is not None and self.reply.is_positive

    def as_json(self) -> dict[str, Any]:
        """The session's part of the "smtp" object."""
        reply = self.reply
        if reply is not None and reply.is_positive and not self.is_accepted:
            reply = None  # no reply to RCPT, and no refusal in its stead
        return {
            "host": self.host,
            "ip": str(self.ip),
            "port": self.port,
            "banner": self.banner,
            "ehlo": self.extensions,
            "tls": self.is_encrypted,
            "stage": self.stage.value,
            "mail_from": self.mail_from,
            "rcpt": None
            if reply is None
            else {
                "code": reply.code,
                "enhanced": None if reply.status is None else reply.enhanced,
                "text": reply.text,
            },
            "transcript": self.transcript,
        }


class Prober:
    """Opens such sessions."""

    def __init__(
        self, gate: Gate, *, helo: Callable[[IPAddress], str], sender: Address | None, port: int
    ) -> None:
        """`helo` gives our name for a local address; `sender` None: only <> is tried."""
        self._gate = gate
        self._helo = helo
        self._sender = sender
        self.port = port

    async def ask(
        self,
        host: str,
        ip: IPAddress,
        recipient: Address,
        *,
        timeout_s: float,
        with_tls: bool = True,
    ) -> Session:
        """Ask `host`, at `ip`, about a recipient. Raises ConnectForbidden.

        Where `has_tls_failed`, a sender would begin again without TLS (RFC 7435).
        """
        session = Session(host, ip, self.port)
        await self._hold(
            session,
            lambda dialogue: self._conversation(session, dialogue, recipient, with_tls),
            timeout_s,
        )
        return session

    async def answers(self, ip: IPAddress, *, timeout_s: float) -> bool:
        """Whether anything greets us there at all. Raises ConnectForbidden."""
        session = Session("", ip, self.port)
        await self._hold(session, lambda dialogue: _greeted(session, dialogue), timeout_s)
        return session.banner is not None

    async def _hold(
        self, session: Session, talk: Callable[[_Dialogue], Awaitable[object]], timeout_s: float
    ) -> None:
        """Have a conversation; what cuts it short is noted where it came to."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        dialogue = await self._connected(session, deadline)
        if dialogue is None:
            return
        with contextlib.closing(dialogue):
            try:
                async with asyncio.timeout_at(deadline):
                    await talk(dialogue)
            except TimeoutError:
                session.trouble = "net.timeout"
            except (OSError, EOFError):
                session.trouble = "net.dropped"
            except PeerOutOfStep as error:
                session.transcript.append(f"!: {error}")
                session.trouble = "net.dropped"
            if session.trouble is not None:
                session.reply = None
            await _goodbye(session, dialogue)

    async def _connected(self, session: Session, deadline: float) -> _Dialogue | None:
        try:
            async with asyncio.timeout_at(deadline), asyncio.timeout(CONNECT_S):
                connected = await connect(self._gate, session.ip, session.port, Origin.CHECK)
        except ConnectForbidden:
            raise
        except TimeoutError:
            session.trouble = "net.timeout"
        except ConnectionRefusedError:
            session.trouble = "net.refused"
        except OSError:
            session.trouble = "net.unreachable"
        else:
            local = as_value(ip_address(connected.getsockname()[0].partition("%")[0]))
            reader, writer = await asyncio.open_connection(sock=connected)
            return _Dialogue(reader, writer, self._helo(local), session.transcript)
        return None

    async def _conversation(
        self, session: Session, dialogue: _Dialogue, recipient: Address, with_tls: bool
    ) -> None:
        if not await _greeted(session, dialogue) or not await _said_ehlo(session, dialogue):
            return
        if with_tls and "STARTTLS" in session.extensions:
            reply = await dialogue.ask("STARTTLS")
            if reply.code == 421:
                session.reply = reply  # it is about to hang up
                return
            if reply.is_positive:
                session.has_tls_failed = True
                await dialogue.encrypt(session.host)
                session.has_tls_failed, session.is_encrypted = False, True
                if not await _said_ehlo(session, dialogue):
                    return
        if not recipient.is_ascii and "SMTPUTF8" not in session.extensions:
            return  # RFC 6531 §3.2: it cannot even be asked
        if await self._sender_taken(session, dialogue, recipient):
            session.stage = Stage.RCPT
            session.reply = await dialogue.ask(f"RCPT TO:<{recipient}>")

    async def _sender_taken(
        self, session: Session, dialogue: _Dialogue, recipient: Address
    ) -> bool:
        session.stage = Stage.MAIL
        for sender in (None, self._sender):
            needs_utf8 = not recipient.is_ascii or (sender is not None and not sender.is_ascii)
            if needs_utf8 and "SMTPUTF8" not in session.extensions:
                return False  # the sender cannot be said
            session.mail_from = f"<{sender or ''}>"
            suffix = " SMTPUTF8" if needs_utf8 else ""
            session.reply = await dialogue.ask(f"MAIL FROM:{session.mail_from}{suffix}")
            if session.reply.is_positive:
                return True
            if session.reply.is_transient or session.reply.code == 530 or self._sender is None:
                return False  # another sender would fare no better, or there is none
        return False


class _Dialogue:
    """Command and reply in lockstep."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        helo: str,
        transcript: list[str],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._replies = ReplyReader()
        self._waiting: list[tuple[Reply, list[str]]] = []
        self._transcript = transcript
        self.helo = helo

    async def ask(self, command: str) -> Reply:
        """Send a command and read its reply. Raises OSError, PeerOutOfStep, EOFError."""
        self._transcript.append(f"C: {command}")
        self._writer.write(f"{command}\r\n".encode())
        async with asyncio.timeout(REPLY_S):
            await self._writer.drain()
        return await self.reply()

    async def reply(self) -> Reply:
        """Read a reply; raises as `ask()`."""
        async with asyncio.timeout(REPLY_S):
            while not self._waiting:
                received = await self._reader.read(_PIECE_BYTES)
                if not received:
                    raise EOFError
                self._waiting += self._replies.receive(received)
        if len(self._waiting) > 1:
            raise PeerOutOfStep("replies without commands")
        reply, _ = self._waiting.pop()
        self._transcript.append(f"S: {reply}")
        if 300 <= reply.code < 400:
            raise PeerOutOfStep("it waits for more, which no command here has")
        return reply

    async def encrypt(self, host: str) -> None:
        """Go on over TLS; nothing secret is said, so nobody's name is verified. Raises OSError."""
        async with asyncio.timeout(REPLY_S):
            await self._writer.start_tls(_tls_context(), server_hostname=_server_name(host))
        # What came before the handshake is nobody's word (RFC 3207 §4.2).
        self._replies = ReplyReader()

    def close(self) -> None:
        """Leave without a word."""
        self._writer.transport.abort()


@lru_cache(maxsize=1)
def _tls_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _server_name(host: str) -> str | None:
    """The name to ask a certificate for; None: it is none TLS could say (RFC 6066 §3)."""
    if host.startswith("["):
        return None
    try:
        host.encode("idna")  # as ssl will
    except UnicodeError:
        return None
    return host


async def _greeted(session: Session, dialogue: _Dialogue) -> bool:
    session.stage = Stage.GREETING
    session.reply = await dialogue.reply()
    session.banner = session.reply.text
    return session.reply.is_positive


async def _said_ehlo(session: Session, dialogue: _Dialogue) -> bool:
    session.stage = Stage.EHLO
    session.reply = await dialogue.ask(f"EHLO {dialogue.helo}")
    if session.reply.is_permanent and not session.is_encrypted:
        # Where it hangs up on that, its refusal of EHLO is what counts.
        with contextlib.suppress(OSError, EOFError):
            session.reply = await dialogue.ask(f"HELO {dialogue.helo}")
    elif session.reply.is_positive:
        session.extensions = [line.upper() for line in session.reply.text.split("\n")[1:]]
    return session.reply.is_positive


async def _goodbye(session: Session, dialogue: _Dialogue) -> None:
    """RSET and QUIT; whatever the host says to them."""
    with contextlib.suppress(OSError, EOFError, PeerOutOfStep):
        async with asyncio.timeout(GOODBYE_S):
            if session.stage is Stage.RCPT:
                await dialogue.ask("RSET")
            await dialogue.ask("QUIT")
