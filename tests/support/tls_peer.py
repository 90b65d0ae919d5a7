"""An SMTP server with STARTTLS that keeps what it took, and whether it was encrypted."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from tests.support.netns import Namespace
from tests.support.waiting import wait_until


class Taken(NamedTuple):
    """One message."""

    commands: list[str]  # of its session, up to its end
    content: bytes
    is_encrypted: bool


class TlsPeer:
    """Takes everything from `with` on.

    `offers_tls`: STARTTLS is in the answer to EHLO; `refuses_tls`: and is then refused;
    `is_implicit`: TLS comes first.
    """

    def __init__(
        self,
        certificate: Path,
        key: Path,
        *,
        host: str = "127.0.0.1",
        port: int = 0,  # 0: a free one
        namespace: Namespace | None = None,  # None: ours
        extensions: Iterable[str] = ("8BITMIME",),
        offers_tls: bool = True,
        refuses_tls: bool = False,
        is_implicit: bool = False,
    ) -> None:
        self.taken: list[Taken] = []
        self.commands: list[str] = []  # of all sessions
        self.greeted = 0  # sessions
        self.host = host
        self.port = port
        self.offers_tls = offers_tls
        self.refuses_tls = refuses_tls
        self.extensions = list(extensions)
        self._is_implicit = is_implicit
        self._namespace = namespace
        self.show(certificate, key)
        self._threads: list[threading.Thread] = []
        self._open: set[socket.socket] = set()
        self._listening: socket.socket | None = None

    def show(self, certificate: Path, key: Path) -> None:
        """Show another certificate from the next handshake on."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._context = context

    def __enter__(self) -> TlsPeer:
        inside = contextlib.nullcontext() if self._namespace is None else self._namespace.entered()
        with inside:
            family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
            self._listening = socket.create_server((self.host, self.port), family=family)
        self.port = self._listening.getsockname()[1]
        self._start(self._accept, self._listening)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._listening is not None
        for entry in (self._listening, *self._open):
            with contextlib.suppress(OSError):
                entry.shutdown(socket.SHUT_RDWR)
            entry.close()
        for thread in self._threads:
            thread.join(10)

    @property
    def target(self) -> str:
        """It as a target of a [[route]]."""
        host = f"IPv6:{self.host}" if ":" in self.host else self.host
        return f"smtp:[{host}]:{self.port}"

    def wait_for_mail(self, count: int = 1) -> list[Taken]:
        """What was taken, once there is so much."""
        return wait_until(lambda: self.taken if len(self.taken) >= count else [], self.__repr__)

    def __repr__(self) -> str:
        return f"TlsPeer({self.commands})"

    def _start(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self, listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connected, _ = listening.accept()
                connected.settimeout(60)
                self._open.add(connected)
                self._start(self._serve, connected)

    def _serve(self, connected: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if self._is_implicit:
                connected = self._context.wrap_socket(connected, server_side=True)
                self._open.add(connected)
            self._talk(connected)
        connected.close()

    def _talk(self, connected: socket.socket) -> None:
        connected.sendall(b"220 peer\r\n")
        self.greeted += 1
        reader = connected.makefile("rb")
        commands: list[str] = []
        while line := reader.readline():
            command = line.decode("utf-8", "replace").rstrip("\r\n")
            commands.append(command)
            self.commands.append(command)
            verb = command.partition(" ")[0].upper()
            is_encrypted = isinstance(connected, ssl.SSLSocket)
            if verb == "EHLO":
                words = [word for word in self.extensions if is_encrypted or word != "REQUIRETLS"]
                if self.offers_tls and not is_encrypted:
                    words.append("STARTTLS")
                connected.sendall("".join(f"250-{word}\r\n" for word in ["peer", *words]).encode())
                connected.sendall(b"250 HELP\r\n")
            elif verb == "STARTTLS" and self.refuses_tls:
                connected.sendall(b"454 not now\r\n")
            elif verb == "STARTTLS":
                connected.sendall(b"220 go\r\n")
                connected = self._context.wrap_socket(connected, server_side=True)
                self._open.add(connected)
                reader = connected.makefile("rb")
            elif verb == "DATA":
                connected.sendall(b"354 go\r\n")
                content = b""
                while (part := reader.readline()) != b".\r\n":
                    if not part:
                        return
                    content += part
                self.taken.append(Taken(list(commands), content, is_encrypted))
                connected.sendall(b"250 2.0.0 taken\r\n")
            elif verb == "QUIT":
                connected.sendall(b"221 bye\r\n")
                return
            else:
                connected.sendall(b"250 2.0.0 fine\r\n")
