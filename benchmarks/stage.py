"""One peer, set up for one task with all that belongs to it, and a load sent through it."""

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import measure
from benchmarks.errors import BenchmarkError
from benchmarks.load import HOST, STALLED_S, Generator, Mode, Sink
from benchmarks.peers import Certificate, Peer, Setup, Task
from tests.support.ports import free_port

_LATE_S = 0.3  # a message delivered twice would come within this time


@dataclass(frozen=True)
class Passage:
    """How a load went through."""

    seconds: float  # from its start to the last arrival (RELAY), or the last reply
    generator_cpu_s: float


@dataclass
class Stage:
    task: Task
    peer: Peer
    account: measure.Account
    sink: Sink | None  # None where nothing is passed on
    certificate: Certificate | None  # None: in clear
    sent: int = 0

    def server_cpu_s(self) -> float:
        return self.account.cpu_s(self.peer.pid)

    def server_pids(self) -> list[int]:
        return self.account.pids(self.peer.pid)

    def sink_cpu_s(self) -> float:
        return 0.0 if self.sink is None else self.sink.cpu_s()

    def send(self, messages: int, mode: Mode, *, numbered: bool = False) -> Passage:
        """Return when all of them have been accepted, and for RELAY have arrived."""
        self.sent += messages
        shown = None if self.certificate is None else self.certificate.certificate
        generator = Generator(self.peer.port, messages, mode, numbered=numbered, certificate=shown)
        try:
            arrived_at = (
                None if self.sink is None else self.sink.wait_for(self.sent, generator.check)
            )
            accepted_at, cpu_s = generator.wait()
        finally:
            generator.stop()
        return Passage((arrived_at or accepted_at) - generator.started_at, cpu_s)

    def let_settle(self) -> None:
        """Wait for what comes after the last reply or arrival."""
        if self.sink is not None:
            time.sleep(_LATE_S)

    def prove(self) -> None:
        """Raise unless every message is where it must be, once."""
        if self.sink is None:
            if (held := self.peer.held()) != self.sent:
                raise BenchmarkError(f"holds {held} messages of {self.sent} it has accepted")
            return
        deadline = time.monotonic() + STALLED_S
        while held := self.peer.held():
            if time.monotonic() > deadline:
                raise BenchmarkError(f"still holds {held} messages that have been delivered")
            time.sleep(0.1)
        if (count := self.sink.count()) != self.sent:
            raise BenchmarkError(f"{count} messages reached the sink, {self.sent} were sent")


@contextlib.contextmanager
def stage(
    kind: type[Peer],
    task: Task,
    scratch: Path,
    *,
    wrap: Sequence[str] = (),
    dump: Path | None = None,  # where the sink writes the messages; None: nowhere
    sink_host: str = HOST,
) -> Iterator[Stage]:
    """The peer, started; its directory and its processes are gone afterwards."""
    with contextlib.ExitStack() as stack:
        measure.settle_disk()
        directory = scratch / "peer"
        directory.mkdir()
        directory.chmod(0o755)  # for servers that give up root
        stack.callback(shutil.rmtree, directory)
        account = measure.open_account()
        stack.callback(account.close)
        sink = stack.enter_context(Sink(dump, host=sink_host)) if task is Task.RELAY else None
        sink_port = free_port(HOST) if sink is None else sink.port
        certificate = _issue(directory) if task is Task.STARTTLS else None
        peer = kind()
        stack.callback(peer.stop)
        try:
            peer.start(Setup(task, directory, sink_port, certificate, (*account.wrap, *wrap)))
            yield Stage(task, peer, account, sink, certificate)
        except BenchmarkError as error:
            raise BenchmarkError(f"{peer.name}, {task.value}: {error}") from error


def _issue(directory: Path) -> Certificate:
    """A certificate for HOST, signed by itself."""
    shown = Certificate(directory / "server.pem", directory / "server.key")
    command = [
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
        *("-nodes", "-days", "2", "-subj", "/CN=bench.example"),
        *("-addext", f"subjectAltName=IP:{HOST}"),
        *("-keyout", str(shown.key), "-out", str(shown.certificate)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchmarkError(f"openssl: {done.stderr.strip()}")
    return shown
