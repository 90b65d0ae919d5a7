"""What memory a server needs: for one large message, and for ten thousand idle connections."""

import contextlib
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import measure
from benchmarks.errors import BenchmarkError
from benchmarks.load import HOST, RECIPIENT, SENDER, Mode
from benchmarks.peers import IN_CLEAR, Aiosmtpd, Bare, Peer, PostfixPeer, Task, Waypost
from benchmarks.runs import Say
from benchmarks.stage import stage

LARGE_BYTES = 50_000_000
IDLE_CONNECTIONS = 10_000
_LARGE_PEERS: tuple[type[Peer], ...] = (Waypost, PostfixPeer, Aiosmtpd)
# Without Postfix: it gives each connection a process, a hundred of them at most.
_IDLE_PEERS: tuple[type[Peer], ...] = (Waypost, Aiosmtpd, Bare)
_WARM_UP = 300  # messages, so that nothing is loaded for the first time while we measure
_LINE = b"x" * 78 + b"\r\n"
_TIMEOUT_S = 60.0
# Every connection needs an address and port of its own, and a peer may limit each address.
_SOURCES = ("127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5")


@dataclass(frozen=True)
class LargeMessage:
    peer: str
    task: str
    message_bytes: int
    resident_before_bytes: int
    growth_bytes: int  # the highest while it passed, less what was there before


@dataclass(frozen=True)
class IdleConnections:
    peer: str
    connections: int
    resident_before_bytes: int
    bytes_per_connection: float


@dataclass(frozen=True)
class Memory:
    large: tuple[LargeMessage, ...]
    idle: tuple[IdleConnections, ...]


def measure_memory(peers: Sequence[type[Peer]], scratch: Path, say: Say) -> Memory:
    large = []
    for kind in _LARGE_PEERS:
        for task in IN_CLEAR:
            if kind in peers and task in kind.tasks:
                large.append(_large_message(kind, task, scratch))
                say(f"  50 MB, {task.value}: {kind.name} grew by {large[-1].growth_bytes:,} bytes")
    idle = []
    for kind in _IDLE_PEERS:
        if kind in peers:
            idle.append(_idle_connections(kind, scratch))
            say(f"  idle: {kind.name} {idle[-1].bytes_per_connection:,.0f} bytes per connection")
    return Memory(tuple(large), tuple(idle))


def _large_message(kind: type[Peer], task: Task, scratch: Path) -> LargeMessage:
    with stage(kind, task, scratch) as on:
        on.send(_WARM_UP, Mode.ONE)
        on.let_settle()
        pids = on.server_pids()
        before = measure.resident_bytes(pids)
        measure.forget_peak(pids)
        _send_large(on.peer.port)
        on.sent += 1
        if on.sink is not None:
            on.sink.wait_for(on.sent)
        on.let_settle()
        growth = measure.peak_resident_bytes(on.server_pids()) - before
        on.prove()
    return LargeMessage(kind.name, task.value, LARGE_BYTES, before, growth)


def _send_large(port: int) -> None:
    block = _LINE * 1000
    with _connect(port, "127.0.0.1") as client:
        _command(client, b"EHLO bench.example", b"250")
        _command(client, b"MAIL FROM:<" + SENDER.encode() + b">", b"250")
        _command(client, b"RCPT TO:<" + RECIPIENT.encode() + b">", b"250")
        _command(client, b"DATA", b"354")
        client.sendall(b"Subject: large\r\n\r\n")
        for _ in range(LARGE_BYTES // len(block)):
            client.sendall(block)
        _command(client, b".", b"250")
        _command(client, b"QUIT", b"221")


def _idle_connections(kind: type[Peer], scratch: Path) -> IdleConnections:
    with (
        measure.files_allowed(IDLE_CONNECTIONS + 1000),
        stage(kind, Task.ACCEPT, scratch) as on,
        contextlib.ExitStack() as crowd,
    ):
        on.send(_WARM_UP, Mode.ONE)
        before = measure.resident_bytes(on.server_pids())
        for number in range(IDLE_CONNECTIONS):
            source = _SOURCES[number % len(_SOURCES)]
            client = crowd.enter_context(_connect(on.peer.port, source))
            _command(client, b"EHLO bench.example", b"250")
        grown = measure.resident_bytes(on.server_pids()) - before
    return IdleConnections(kind.name, IDLE_CONNECTIONS, before, grown / IDLE_CONNECTIONS)


def _connect(port: int, source: str) -> socket.socket:
    client = socket.create_connection((HOST, port), _TIMEOUT_S, source_address=(source, 0))
    _expect(client, b"220")
    return client


def _command(client: socket.socket, line: bytes, code: bytes) -> None:
    client.sendall(line + b"\r\n")
    _expect(client, code)


def _expect(client: socket.socket, code: bytes) -> None:
    reply = b""
    # The last line of a reply has a space after its code.
    while not (reply.endswith(b"\n") and reply.splitlines()[-1][3:4] == b" "):
        chunk = client.recv(4096)
        if not chunk:
            raise BenchmarkError("the server closed the connection")
        reply += chunk
    if not reply.startswith(code):
        raise BenchmarkError(f"expected {code.decode()}, got {reply.decode().strip()}")
