"""SMTP clients that keep count: what was acknowledged, what was cut off, what was refused."""

from __future__ import annotations

import asyncio
import random
import smtplib
from contextlib import nullcontext

from tests.fault.ledger import MAILBOX, RELAY, Ledger, Sent
from tests.fault.mail import make_mail, random_size
from tests.support.hub import Hub

BOXES = 4
# Far beyond what any answer takes; only a hang gets there.
ANSWER_S = 60.0
_PAUSE_S = 0.08


def recipients_of(sent: Sent, rng: random.Random) -> list[str]:
    """The forward-paths that lead to a mail's places."""
    paths = {MAILBOX: f"box{rng.randrange(BOXES)}@[127.0.0.1]", RELAY: "all@sink.test"}
    return [paths[place] for place in sent.places]


def submit(
    hub: Hub,
    ledger: Ledger,
    ident: str,
    size: int,
    *places: str,
    rng: random.Random,
    session: smtplib.SMTP | None = None,  # None: one for this mail alone
) -> str | None:
    """Send one mail; its final reply, or None: cut off."""
    sent = ledger.open(ident, *places)
    mail = make_mail(ident, size, rng)
    has_begun = False
    try:
        with hub.smtp() if session is None else nullcontext(session) as session:
            session.ehlo_or_helo_if_needed()
            for code, text in (
                session.mail("client@[127.0.0.1]"),
                *(session.rcpt(path) for path in recipients_of(sent, rng)),
            ):
                if code >= 400:
                    return _note(sent, code, text)
            has_begun = True
            return _note(sent, *session.data(mail))
    except smtplib.SMTPDataError as error:
        return _note(sent, error.smtp_code, error.smtp_error)
    except (OSError, smtplib.SMTPException) as error:
        if "timed out" in str(error):
            raise AssertionError(f"no answer:\n{hub.log_text()[-4000:]}") from error
        sent.cut += has_begun
        return None


def _note(sent: Sent, code: int, text: bytes | str) -> str:
    reply = f"{code} {text.decode() if isinstance(text, bytes) else text}"
    if code == 250:
        sent.acknowledged.append(reply.rpartition(" ")[2])
    elif code == 421:
        sent.cut += 1  # the hub is going down: what became of the mail, it cannot say
    else:
        sent.refused.append(reply)
    return reply


class _Cut(ConnectionError):
    """The hub has gone."""


class Client:
    """One client of a load: session after session, each mail until it is acknowledged."""

    def __init__(self, number: int, port: int, ledger: Ledger, rng: random.Random) -> None:
        self._name = f"c{number}"
        self._port = port
        self._ledger = ledger
        self._rng = rng
        self._count = 0
        self._pending: tuple[Sent, bytes, list[str]] | None = None  # None: the next one is new
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter
        self.is_stopping = False

    async def run(self) -> None:
        """Until told to stop and the mail in hand is acknowledged."""
        while not self.is_stopping or self._pending is not None:
            try:
                self._reader, self._writer = await asyncio.open_connection(
                    "127.0.0.1", self._port, limit=1 << 20
                )
            except OSError:
                await asyncio.sleep(0.02)
                continue
            try:
                await self._session()
            except OSError:
                pass  # killed; the mail in hand goes again
            finally:
                self._writer.transport.abort()

    async def _session(self) -> None:
        await self._reply()
        self._writer.write(b"EHLO client.test\r\n")
        await self._reply()
        for _ in range(self._rng.randrange(1, 12)):
            if self._pending is None and self.is_stopping:
                break
            await self._send()
            await asyncio.sleep(self._rng.uniform(0, _PAUSE_S))
        self._writer.write(b"QUIT\r\n")
        await self._reply()

    async def _send(self) -> None:
        if self._pending is None:
            self._pending = self._new_mail()
        sent, mail, paths = self._pending
        commands = ["MAIL FROM:<client@[127.0.0.1]>", *(f"RCPT TO:<{path}>" for path in paths)]
        is_chunked = self._rng.random() < 0.3
        if not is_chunked:
            commands.append("DATA")
        self._writer.write("".join(f"{command}\r\n" for command in commands).encode())
        replies = [await self._reply() for _ in commands]
        if any(reply.startswith("421") for reply in replies):
            raise _Cut
        assert all(reply[0] in "23" for reply in replies), replies
        sent.cut += 1  # until the answer is here
        if is_chunked:
            half = len(mail) // 2
            for piece, last in ((mail[:half], ""), (mail[half:], " LAST")):
                self._writer.write(f"BDAT {len(piece)}{last}\r\n".encode() + piece)
            await self._reply()
        else:
            self._writer.write(mail.replace(b"\r\n.", b"\r\n..") + b".\r\n")
        reply = await self._reply()
        if reply.startswith("421"):
            raise _Cut  # the hub is going down: what became of it, it cannot say
        sent.cut -= 1
        assert reply.startswith("250"), reply
        sent.acknowledged.append(reply.rpartition(" ")[2])
        self._pending = None

    def _new_mail(self) -> tuple[Sent, bytes, list[str]]:
        self._count += 1
        ident = f"{self._name}-{self._count}"
        places = self._rng.choice(((MAILBOX,), (MAILBOX,), (RELAY,), (RELAY,), (MAILBOX, RELAY)))
        sent = self._ledger.open(ident, *places)
        mail = make_mail(ident, random_size(self._rng), self._rng)
        return sent, mail, recipients_of(sent, self._rng)

    async def _reply(self) -> str:
        while True:
            try:
                async with asyncio.timeout(ANSWER_S):
                    line = await self._reader.readline()
            except TimeoutError:
                raise AssertionError(f"no answer in {ANSWER_S:.0f} s") from None
            if not line.endswith(b"\r\n"):
                raise _Cut
            if line[3:4] != b"-":
                return line.decode().rstrip()


class Load:
    """Many clients at once, in the running loop."""

    def __init__(self, count: int, port: int, ledger: Ledger, rng: random.Random) -> None:
        self._clients = [
            Client(number, port, ledger, random.Random(rng.random())) for number in range(count)
        ]
        self._tasks = [asyncio.create_task(client.run()) for client in self._clients]

    def check(self) -> None:
        """Raise what a client has to complain about."""
        for task in self._tasks:
            if task.done():
                task.result()

    async def stop(self) -> None:
        """Let every client finish the mail it has in hand."""
        for client in self._clients:
            client.is_stopping = True
        await asyncio.gather(*self._tasks)
