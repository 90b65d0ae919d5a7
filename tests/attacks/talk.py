"""A client that says exactly what a test wants it to say, when it wants."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator

LIMIT_S = 20.0


class Talk:
    """One connection to a hub, greeted."""

    def __init__(self, host: str, port: int, *, source: str | None = None) -> None:
        """`source` is the address it comes from; None: the kernel chooses."""
        came_from = None if source is None else (source, 0)
        self.socket: socket.socket = socket.create_connection((host, port), LIMIT_S, came_from)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._said = self.socket.makefile("rb")
        self.greeting = self.reply()

    def __enter__(self) -> Talk:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Go without a word."""
        self._said.close()
        self.socket.close()

    def over(self, context: ssl.SSLContext, name: str) -> Talk:
        """This session from now on, over TLS with a hub that proves a name or an address."""
        self._said.close()
        self.socket = context.wrap_socket(self.socket, server_hostname=name)
        self._said = self.socket.makefile("rb")
        return self

    def send(self, octets: bytes) -> None:
        """Send octets as they are."""
        self.socket.sendall(octets)

    def reply(self) -> str:
        """The next reply, its lines joined by LF; "" when the hub has closed."""
        lines = []
        while line := self._said.readline():
            assert line.endswith(b"\r\n"), line
            lines.append(line[:-2].decode())
            if line[3:4] != b"-":
                break
        return "\n".join(lines)

    def say(self, *commands: str) -> list[str]:
        """Commands in one write; a reply to each."""
        self.send("".join(f"{command}\r\n" for command in commands).encode())
        return [self.reply() for _ in commands]

    def begin(self, *recipients: str, sender: str = "", mail: str = "") -> list[str]:
        """A transaction up to its recipients; the replies to these."""
        commands = [f"MAIL FROM:<{sender}> {mail}".rstrip()]
        taken, *replies = self.say(*commands, *(f"RCPT TO:<{path}>" for path in recipients))
        assert taken.startswith("250"), taken
        return replies

    def content(self, *pieces: bytes) -> str:
        """DATA, and after the 354 each piece in a write of its own; the reply."""
        (ready,) = self.say("DATA")
        assert ready.startswith("354"), ready
        for piece in pieces:
            self.send(piece)
        return self.reply()

    def replies(self, most: int) -> list[str]:
        """So many replies, or fewer where the hub closes before."""
        found: list[str] = []
        with contextlib.suppress(ConnectionResetError):
            while len(found) < most and (reply := self.reply()):
                found.append(reply)
        return found

    def rest(self) -> bytes:
        """All the hub says until it closes."""
        with contextlib.suppress(ConnectionResetError):
            return self._said.read()
        return b""


@contextlib.contextmanager
def greeted(host: str, port: int, *, source: str | None = None) -> Iterator[Talk]:
    """One that has said EHLO."""
    with Talk(host, port, source=source) as talk:
        assert talk.greeting.startswith("220"), talk.greeting
        (said,) = talk.say("EHLO client.example")
        assert said.startswith("250"), said
        yield talk
