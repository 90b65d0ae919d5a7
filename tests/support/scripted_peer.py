"""An SMTP or LMTP server that replies as it is told and records what it got.

Without instructions it accepts everything. It runs in threads of the test's process.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from tests.support.netns import Namespace
from tests.support.waiting import LIMIT_S, wait_until

EXTENSIONS = (
    "PIPELINING",
    "SIZE 104857600",
    "8BITMIME",
    "BINARYMIME",
    "CHUNKING",
    "SMTPUTF8",
    "ENHANCEDSTATUSCODES",
    "DSN",
)
# A reply that is none: the connection is dropped instead.
DROP = "DROP"

_PATH = re.compile(r"<[^>]*>")


@dataclass(slots=True)
class ReceivedMail:
    """One transaction whose content came, whatever was answered to it."""

    sender: str  # the MAIL command without its verb: "FROM:<a@b> SIZE=3"
    recipients: list[str]  # the RCPT commands that were accepted, in the same way
    content: bytes = b""  # dots unstuffed
    chunks: list[int] = field(default_factory=list)  # sizes given with BDAT; empty: DATA

    @property
    def paths(self) -> list[str]:
        """The accepted forward-paths, without brackets."""
        return [_path_of(recipient)[1:-1] for recipient in self.recipients]


class Pause:
    """A place where the peer waits: `reached` says it is there, `go_on()` lets it go."""

    def __init__(self) -> None:
        self._reached = threading.Event()
        self._released = threading.Event()

    def wait_until_reached(self) -> None:
        """Until the peer is about to answer."""
        assert self._reached.wait(LIMIT_S), "nobody came"

    def go_on(self) -> None:
        """Let the peer answer."""
        self._released.set()

    def pass_through(self) -> None:
        """The peer's side."""
        self._reached.set()
        self._released.wait(LIMIT_S)


@dataclass(slots=True)
class _Rule:
    prefix: str
    replies: list[str]
    is_forever: bool

    def matches(self, step: str) -> bool:
        return bool(self.replies) and step.upper().startswith(self.prefix.upper())

    def next_reply(self) -> str:
        return self.replies[0] if self.is_forever else self.replies.pop(0)


class ScriptedPeer:
    """Listens from `start()` (or `with`) on; on a Unix socket when `path` is given."""

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,  # 0: a free one
        path: Path | None = None,
        namespace: Namespace | None = None,  # None: ours
        extensions: Iterable[str] = EXTENSIONS,
        is_lmtp: bool = False,
    ) -> None:
        self.host = host
        self.port = port
        self.path = path
        self.mails: list[ReceivedMail] = []
        self.commands: list[str] = []
        self.connections = 0
        self.was_pipelined = False  # a command came before the one before it was answered
        self._namespace = namespace
        self._extensions = tuple(extensions)
        self._is_lmtp = is_lmtp
        self._rules: list[_Rule] = []
        self._pauses: list[tuple[str, Pause]] = []
        self._lock = threading.Lock()
        self._listening: socket.socket | None = None
        self._threads: list[threading.Thread] = []
        self._open: set[socket.socket] = set()

    def __enter__(self) -> ScriptedPeer:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def target(self) -> str:
        """It as a target of a [[route]]."""
        scheme = "lmtp" if self._is_lmtp else "smtp"
        if self.path is not None:
            return f"{scheme}:{self.path}"
        host = f"IPv6:{self.host}" if ":" in self.host else self.host
        return f"{scheme}:[{host}]:{self.port}"

    # What a test tells it.

    def answer(self, step: str, *replies: str) -> None:
        """From now on answer steps that begin with `step` so; the last instruction wins.

        A step is a whole command, or GREETING, or CONTENT with the forward-path in LMTP:
        "RCPT TO:<bob@", "MAIL", "CONTENT <bob". One reply stands until the end; several are
        given one after the other, then the next instruction holds.
        """
        with self._lock:
            self._rules.insert(0, _Rule(step, list(replies), len(replies) == 1))

    def answer_once(self, step: str, reply: str) -> None:
        """As `answer`, a single time."""
        with self._lock:
            self._rules.insert(0, _Rule(step, [reply], is_forever=False))

    def pause_at(self, step: str) -> Pause:
        """Wait, once, before the answer to a step that begins with `step`."""
        pause = Pause()
        with self._lock:
            self._pauses.append((step, pause))
        return pause

    def wait_for_mails(self, count: int = 1) -> list[ReceivedMail]:
        """The mails, once there are `count`."""
        wait_until(
            lambda: len(self.mails) >= count, lambda: f"{len(self.mails)} of {count} mails came"
        )
        return self.mails

    def wait_for_commands(self, prefix: str, count: int = 1) -> None:
        """Until `count` commands that begin with `prefix` have come."""

        def seen() -> int:
            return sum(command.startswith(prefix) for command in self.commands)

        wait_until(
            lambda: seen() >= count, lambda: f"{seen()} of {count} {prefix}: {self.commands}"
        )

    # Life.

    def start(self) -> None:
        """Listen."""
        with contextlib.ExitStack() as stack:
            if self._namespace is not None:
                stack.enter_context(self._namespace.entered())
            if self.path is not None:
                listening = socket.socket(socket.AF_UNIX)
                listening.bind(str(self.path))
            else:
                family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
                listening = socket.socket(family)
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listening.bind((self.host, self.port))
                self.port = listening.getsockname()[1]
        listening.listen(128)
        self._listening = listening
        self._spawn(self._accept, listening)

    def stop(self) -> None:
        """Stop listening and drop every connection; it may be started again."""
        if self._listening is None:
            return
        with self._lock:
            for _, pause in self._pauses:
                pause.go_on()
            # shutdown() wakes a thread that waits in accept() or recv(); close() does not.
            for connection in (self._listening, *self._open):
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(LIMIT_S)
        self._threads.clear()
        self._listening.close()
        self._listening = None
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _spawn(self, run: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=run, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with self._lock:
                self.connections += 1
                self._open.add(connection)
            self._spawn(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                _Session(self, connection).run()
            except (OSError, EOFError):
                pass  # the client has gone, or was told to
            finally:
                with self._lock:
                    self._open.discard(connection)

    # For the session.

    def reply_to(self, step: str, default: str) -> str:
        """What to answer, after waiting where that was asked for."""
        pause = None
        with self._lock:
            for index, (prefix, waiting) in enumerate(self._pauses):
                if step.upper().startswith(prefix.upper()):
                    pause = waiting
                    del self._pauses[index]
                    break
            rule = next((rule for rule in self._rules if rule.matches(step)), None)
            reply = default if rule is None else rule.next_reply()
        if pause is not None:
            pause.pass_through()
        return reply

    @property
    def is_lmtp(self) -> bool:
        """True: it speaks LMTP."""
        return self._is_lmtp

    @property
    def extensions(self) -> tuple[str, ...]:
        """What EHLO lists."""
        return self._extensions


class _Session:
    """One connection."""

    def __init__(self, peer: ScriptedPeer, connection: socket.socket) -> None:
        self._peer = peer
        self._connection = connection
        self._buffer = b""
        self._sender = ""
        self._recipients: list[str] = []
        self._chunks: list[int] = []
        self._content: list[bytes] = []

    def run(self) -> None:
        kind = "LMTP" if self._peer.is_lmtp else "ESMTP"
        if not self._say("GREETING", f"220 peer.test {kind}"):
            return
        for line in self._lines():
            self._peer.commands.append(line)
            verb = line.partition(" ")[0].upper()
            if verb == "BDAT":
                self._take_chunk(line)
            elif verb == "DATA":
                self._take_data(line)
            else:
                if self._buffer:
                    self._peer.was_pipelined = True
                self._take_command(verb, line)
            if verb == "QUIT":
                return

    def _take_command(self, verb: str, line: str) -> None:
        default = "250 2.0.0 Ok"
        if verb in ("EHLO", "LHLO"):
            lines = ["peer.test", *self._peer.extensions]
            marks = ["-"] * (len(lines) - 1) + [" "]
            default = "\r\n".join(
                f"250{mark}{text}" for mark, text in zip(marks, lines, strict=True)
            )
        elif verb == "QUIT":
            default = "221 2.0.0 Bye"
        elif verb == "RCPT" and not self._sender:
            default = "503 5.5.1 MAIL first"
        accepted = self._say(line, default)
        if verb in ("MAIL", "RSET", "EHLO", "HELO", "LHLO"):
            self._sender, self._recipients = "", []
        if accepted and verb == "MAIL":
            self._sender = line.partition(" ")[2]
        elif accepted and verb == "RCPT":
            self._recipients.append(line.partition(" ")[2])

    def _take_data(self, line: str) -> None:
        no_recipients = "554 5.5.1 No valid recipients"
        if not self._say(line, "354 Go on" if self._recipients else no_recipients):
            return
        received = [b"\r\n"]
        tail = b"\r\n"
        while b"\r\n.\r\n" not in tail:
            piece = self._buffer or self._receive()
            self._buffer = b""
            received.append(piece)
            tail = tail[-4:] + piece
        content, _, self._buffer = b"".join(received).partition(b"\r\n.\r\n")
        self._content = [(content + b"\r\n").replace(b"\r\n.", b"\r\n")[2:]]
        self._finish()

    def _take_chunk(self, line: str) -> None:
        words = line.split()
        size = int(words[1])
        while len(self._buffer) < size:
            self._buffer += self._receive()
        self._content.append(self._buffer[:size])
        self._chunks.append(size)
        self._buffer = self._buffer[size:]
        if words[-1].upper() == "LAST":
            self._finish()
        else:
            self._say(line, "250 2.0.0 More")

    def _finish(self) -> None:
        mail = ReceivedMail(self._sender, self._recipients, b"".join(self._content), self._chunks)
        self._recipients, self._content, self._chunks = [], [], []
        steps = ["CONTENT"]
        if self._peer.is_lmtp:
            steps = [f"CONTENT {_path_of(recipient)}" for recipient in mail.recipients]
        for index, step in enumerate(steps):
            reply = self._peer.reply_to(step, "250 2.0.0 Taken")
            if index == 0:
                # Recorded before it is answered, so that what a hub says of it comes later.
                self._peer.mails.append(mail)
            self._send(reply)

    def _say(self, step: str, default: str) -> bool:
        """Answer; True when that was no refusal."""
        reply = self._peer.reply_to(step, default)
        self._send(reply)
        return reply[0] in "23"

    def _send(self, reply: str) -> None:
        if reply == DROP:
            raise EOFError
        self._connection.sendall(reply.encode() + b"\r\n")

    def _lines(self) -> Iterator[str]:
        while True:
            line, end, rest = self._buffer.partition(b"\r\n")
            if end:
                self._buffer = rest
                yield line.decode()
            else:
                self._buffer += self._receive()

    def _receive(self) -> bytes:
        received = self._connection.recv(262_144)
        if not received:
            raise EOFError
        return received


def _path_of(command: str) -> str:
    found = _PATH.search(command)
    assert found is not None, command
    return found[0]
