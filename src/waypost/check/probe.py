"""One SMTP session that asks a host about a mailbox and delivers nothing (RFC 5321 §3.3).

EHLO, STARTTLS where offered, MAIL, one RCPT, RSET, QUIT; never DATA. The null reverse-path is tried
first, since every host has to take it (RFC 5321 §4.5.5), a sender somebody reads where it is
refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
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
_PIECE_BYTES = 4096


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
        """The host took the recipient."""
        return self.stage is Stage.RCPT and self.reply is not None and self.reply.is_positive

    def as_json(self) -> dict[str, Any]:
        """The session's part of the "smtp" object."""
        reply = self.reply
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

    async def ask(self, host: str, ip: IPAddress, recipient: Address) -> Session:
        """Ask `host`, at `ip`, about a recipient. Raises ConnectForbidden.

        A session in which TLS broke is begun again without, as a sender would (RFC 7435).
        """
        session = await self._session(host, ip, recipient, with_tls=True)
        if session.has_tls_failed:
            plain = await self._session(host, ip, recipient, with_tls=False)
            plain.transcript = [*session.transcript, *plain.transcript]
            return plain
        return session

    async def answers(self, ip: IPAddress) -> bool:
        """Whether anything greets us there at all. Raises ConnectForbidden."""
        session = Session("", ip, self.port)
        dialogue = await self._connected(session)
        if dialogue is None:
            return False
        with contextlib.closing(dialogue):
            await _say_all(session, _greeted(session, dialogue))
            await _goodbye(dialogue)
        return session.banner is not None

    async def _session(
        self, host: str, ip: IPAddress, recipient: Address, *, with_tls: bool
    ) -> Session:
        session = Session(host, ip, self.port)
        dialogue = await self._connected(session)
        if dialogue is None:
            return session
        with contextlib.closing(dialogue):
            await _say_all(session, self._conversation(session, dialogue, recipient, with_tls))
            await _goodbye(dialogue)
        return session

    async def _connected(self, session: Session) -> _Dialogue | None:
        try:
            async with asyncio.timeout(CONNECT_S):
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
            if reply.is_positive:
                session.has_tls_failed = True
                await dialogue.encrypt(session.host)
                session.has_tls_failed, session.is_encrypted = False, True
                if not await _said_ehlo(session, dialogue):
                    return
        if not recipient.is_ascii and "SMTPUTF8" not in session.extensions:
            return  # RFC 6531 §3.2: it cannot even be asked
        if await self._sender_taken(session, dialogue, needs_utf8=not recipient.is_ascii):
            session.stage = Stage.RCPT
            session.reply = await dialogue.ask(f"RCPT TO:<{recipient}>")

    async def _sender_taken(
        self, session: Session, dialogue: _Dialogue, *, needs_utf8: bool
    ) -> bool:
        session.stage = Stage.MAIL
        suffix = " SMTPUTF8" if needs_utf8 else ""
        senders = ["<>"] if self._sender is None else ["<>", f"<{self._sender}>"]
        for sender in senders:
            session.mail_from = sender
            session.reply = await dialogue.ask(f"MAIL FROM:{sender}{suffix}")
            if session.reply.is_positive:
                return True
            if session.reply.is_transient or session.reply.code == 530:
                return False  # another sender would fare no better
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
        self.lines: Sequence[str] = ()  # of the last reply, as they were

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
        reply, self.lines = self._waiting.pop()
        self._transcript.append(f"S: {reply}")
        return reply

    async def encrypt(self, host: str) -> None:
        """Go on over TLS; nothing secret is said, so nobody's name is verified. Raises OSError."""
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        async with asyncio.timeout(REPLY_S):
            await self._writer.start_tls(context, server_hostname=host)
        # What came before the handshake is nobody's word (RFC 3207 §4.2).
        self._replies = ReplyReader()

    def close(self) -> None:
        """Leave without a word."""
        self._writer.transport.abort()


async def _say_all(session: Session, conversation: Awaitable[object]) -> None:
    """Have a conversation; what cuts it short is noted."""
    try:
        await conversation
    except TimeoutError:
        session.trouble = "net.timeout"
    except (OSError, EOFError):
        session.trouble = "net.dropped"
    except PeerOutOfStep as error:
        session.transcript.append(f"!: {error}")
        session.trouble = "net.dropped"
    if session.trouble is not None:
        session.reply = None


async def _greeted(session: Session, dialogue: _Dialogue) -> bool:
    session.stage = Stage.GREETING
    session.reply = await dialogue.reply()
    session.banner = session.reply.text
    return session.reply.is_positive


async def _said_ehlo(session: Session, dialogue: _Dialogue) -> bool:
    session.stage = Stage.EHLO
    session.reply = await dialogue.ask(f"EHLO {dialogue.helo}")
    if session.reply.is_permanent and not session.extensions:
        session.reply = await dialogue.ask(f"HELO {dialogue.helo}")
        return session.reply.is_positive
    session.extensions = [line.strip().upper() for line in dialogue.lines[1:]]
    return session.reply.is_positive


async def _goodbye(dialogue: _Dialogue) -> None:
    """RSET and QUIT; whatever the host says to them."""
    with contextlib.suppress(OSError, EOFError, PeerOutOfStep):
        async with asyncio.timeout(GOODBYE_S):
            await dialogue.ask("RSET")
            await dialogue.ask("QUIT")
