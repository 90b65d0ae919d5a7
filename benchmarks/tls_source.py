"""Sends as smtp-source does, over STARTTLS, which that program does not know.

`python -m benchmarks.tls_source PORT MESSAGES CERTIFICATE [-d]`: one message per connection, or
with -d many. Every connection makes a whole TLS 1.3 handshake. It ends with an error at the first
reply that is not the expected one, and when a peer uses another cipher or an older session.
"""

from __future__ import annotations

import argparse
import select
import socket
import ssl
import sys
from collections.abc import Generator
from pathlib import Path

from benchmarks.load import CONNECTIONS, HOST, MESSAGE_BYTES, RECIPIENT, SENDER

_CIPHER = ("TLS_AES_256_GCM_SHA384", "TLSv1.3")
_LINE = b"x" * 78 + b"\r\n"
_STALLED_S = 60.0

# Each step waits until its socket has something to read.
_Steps = Generator[socket.socket, None, None]


class _Failed(Exception):
    """The peer did something else than it should; the text says what."""


class _Source:
    """All connections of a run."""

    def __init__(self, port: int, messages: int, certificate: Path, *, is_many: bool) -> None:
        self._port = port
        self._left = messages
        self._is_many = is_many
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_3
        self._context.load_verify_locations(certificate)
        head = f"From: <{SENDER}>\r\nTo: <{RECIPIENT}>\r\nSubject: bench\r\n\r\n".encode()
        body = _LINE * ((MESSAGE_BYTES - len(head)) // len(_LINE))
        self._content = head + body + b"\r\n.\r\n"

    def run(self) -> None:
        """Return when the last message has been accepted. Raises _Failed, OSError."""
        poll = select.epoll()
        waiting: dict[int, _Steps] = {}
        starting = [self._lane() for _ in range(CONNECTIONS)]
        while starting or waiting:
            for steps in starting:
                connection = next(steps, None)
                if connection is not None:
                    poll.register(connection, select.EPOLLIN | select.EPOLLONESHOT)
                    waiting[connection.fileno()] = steps
            starting = []
            if waiting:
                ready = poll.poll(_STALLED_S)
                if not ready:
                    raise _Failed("the peer says nothing any more")
                for descriptor, _ in ready:
                    steps = waiting.pop(descriptor)
                    poll.unregister(descriptor)
                    starting.append(steps)

    def _lane(self) -> _Steps:
        """One connection after the other, as long as messages are left."""
        while self._left:
            yield from self._connection()

    def _connection(self) -> _Steps:
        with socket.create_connection((HOST, self._port)) as clear:
            clear.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            clear.setblocking(False)
            yield from _expect(clear, b"220")
            yield from _say(clear, b"EHLO bench.example\r\n", b"250")
            yield from _say(clear, b"STARTTLS\r\n", b"220")
            with self._context.wrap_socket(
                clear, server_hostname=HOST, do_handshake_on_connect=False
            ) as encrypted:
                yield from _shake_hands(encrypted)
                yield from _say(encrypted, b"EHLO bench.example\r\n", b"250")
                while self._left:
                    self._left -= 1
                    yield from _say(encrypted, f"MAIL FROM:<{SENDER}>\r\n".encode(), b"250")
                    yield from _say(encrypted, f"RCPT TO:<{RECIPIENT}>\r\n".encode(), b"250")
                    yield from _say(encrypted, b"DATA\r\n", b"354")
                    yield from _say(encrypted, self._content, b"250")
                    if not self._is_many:
                        break
                yield from _say(encrypted, b"QUIT\r\n", b"221")


def _shake_hands(connection: ssl.SSLSocket) -> _Steps:
    while True:
        try:
            connection.do_handshake()
        except ssl.SSLWantReadError:
            yield connection
        else:
            break
    cipher = connection.cipher()
    if cipher is None or cipher[:2] != _CIPHER or connection.session_reused:
        raise _Failed(f"{cipher} in place of {_CIPHER}, or a session from before")


def _say(connection: socket.socket, octets: bytes, code: bytes) -> _Steps:
    connection.sendall(octets)  # far less than fits into the system's buffers
    yield from _expect(connection, code)


def _expect(connection: socket.socket, code: bytes) -> _Steps:
    """The whole of one reply."""
    said = b""
    while True:
        try:
            piece = connection.recv(16_384)
        except (BlockingIOError, ssl.SSLWantReadError):
            yield connection
            continue
        said += piece
        last = said[said.rfind(b"\n", 0, -1) + 1 :]
        if not piece or (said.endswith(b"\n") and last[3:4] != b"-"):
            break
    if not last.startswith(code):
        raise _Failed(f"{said!r} where {code!r} was expected")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tls_source")
    parser.add_argument("port", type=int)
    parser.add_argument("messages", type=int)
    parser.add_argument("certificate", type=Path)
    parser.add_argument("-d", action="store_true", dest="is_many")
    options = parser.parse_args()
    source = _Source(options.port, options.messages, options.certificate, is_many=options.is_many)
    try:
        source.run()
    except (_Failed, OSError) as error:
        print(f"tls_source: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
