"""The load: Postfix's smtp-source in front of a peer, and its smtp-sink behind it.

The same two programs with the same arguments for every peer. The sink's own counter, not the
server under test, says how many messages have come through and when the last one did.
"""

import contextlib
import enum
import fcntl
import os
import re
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from benchmarks.errors import BenchmarkError
from benchmarks.measure import thread_cpu_s
from tests.support.ports import free_port

SENDER = "sender@bench.example"
RECIPIENT = "rcpt@bench.example"
HOST = "127.0.0.1"
MESSAGE_BYTES = 4096
CONNECTIONS = 50
STALLED_S = 60.0

_ROOT = Path(__file__).resolve().parent.parent
_COUNTER = re.compile(rb"mesg=(\d+)\s")
_SINK_PIPE_BYTES = 1 << 20
# More than any peer opens; at its limit the sink would let them wait.
SINK_SESSIONS = 4000


class Mode(enum.Enum):
    """How the generator uses its connections."""

    ONE = "one message per connection"
    MANY = "many messages per connection"


class Generator:
    """smtp-source at work; it ends with an error at the first reply that is not the expected one,
    so its good end proves that the peer answered 250 to every message."""

    def __init__(
        self,
        port: int,
        messages: int,
        mode: Mode,
        *,
        numbered: bool = False,
        certificate: Path | None = None,
    ) -> None:
        """`numbered` puts 1, 2, 3… before the recipient's name, so each message can be told.

        `certificate` is the server's: a program of our own then sends over STARTTLS.
        """
        many = ["-d"] if mode is Mode.MANY else []
        command = [
            "smtp-source",
            *many,
            *(["-N"] if numbered else []),
            *("-s", str(CONNECTIONS), "-l", str(MESSAGE_BYTES), "-m", str(messages)),
            *("-M", "bench.example", "-f", SENDER, "-t", RECIPIENT, f"{HOST}:{port}"),
        ]
        if certificate is not None:
            command = [sys.executable, "-m", "benchmarks.tls_source"]
            command += [str(port), str(messages), str(certificate), *many]
        self._cpu_before_s = _children_cpu_s()
        self.started_at = time.monotonic()
        self._process = subprocess.Popen(
            command,
            cwd=_ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    def check(self) -> None:
        """Raise if it has failed by now."""
        if self._process.poll():
            assert self._process.stderr is not None
            raise BenchmarkError(self._process.stderr.read().decode().strip())

    def wait(self) -> tuple[float, float]:
        """When it ended, and the CPU seconds it took."""
        try:
            self._process.wait(STALLED_S * 10)
        except subprocess.TimeoutExpired:
            raise BenchmarkError("the generator did not come to an end") from None
        ended_at = time.monotonic()
        self.check()
        self.stop()
        # Nothing else of ours ends between its start and here, so the difference is its own.
        return ended_at, _children_cpu_s() - self._cpu_before_s

    def stop(self) -> None:
        """End it if it is still there."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        assert self._process.stderr is not None
        self._process.stderr.close()


class Sink:
    """smtp-sink between `with` and its end, counting."""

    def __init__(self, dump: Path | None = None, *, host: str = HOST) -> None:
        """`dump` is a directory to write every message to; None: throw them away.

        `host` is where it listens; at HOST in any case.
        """
        self._host = host
        self.port = free_port(HOST)
        self._dump = dump
        self._count = 0
        self._unread = b""

    def __enter__(self) -> "Sink":
        keep: list[str] = []
        if self._dump is not None:
            self._dump.mkdir()
            self._dump.chmod(0o777)  # it runs as nobody
            keep = ["-d", f"{self._dump}/message."]
        self._process = subprocess.Popen(
            [
                *("smtp-sink", "-u", "nobody", "-c", *keep, "-m", str(SINK_SESSIONS)),
                *(f"{self._host}:{self.port}", "1000"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # it complains of every client that leaves without QUIT
        )
        assert self._process.stdout is not None
        self._pipe = self._process.stdout.fileno()
        # It writes its counter for each step of each session, and must never wait for us to read.
        fcntl.fcntl(self._pipe, fcntl.F_SETPIPE_SZ, _SINK_PIPE_BYTES)
        os.set_blocking(self._pipe, False)
        while not greets(self.port) and self._process.poll() is None:
            time.sleep(0.01)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def count(self) -> int:
        """The messages received so far."""
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(self._pipe, _SINK_PIPE_BYTES):
                said = self._unread + chunk
                if found := _COUNTER.findall(said):
                    self._count = int(found[-1])
                # The last counter may be cut off.
                self._unread = said[-64:]
        return self._count

    def wait_for(self, messages: int, check: Callable[[], None] = lambda: None) -> float:
        """The time at which it had that many; raises when nothing has come for a minute.

        `check` raises when there is nothing to wait for any more.
        """
        last_count, last_at = self.count(), time.monotonic()
        while last_count < messages:
            time.sleep(0.002)
            check()
            if (count := self.count()) != last_count:
                last_count, last_at = count, time.monotonic()
            elif time.monotonic() > last_at + STALLED_S:
                raise BenchmarkError(f"only {count} of {messages} messages reached the sink")
        return time.monotonic()

    def cpu_s(self) -> float:
        return thread_cpu_s(self._process.pid)


def greets(port: int) -> bool:
    """Whether a mail server answers there."""
    try:
        with socket.create_connection((HOST, port), timeout=5) as client:
            return client.recv(3) == b"220"
    except OSError:
        return False


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
