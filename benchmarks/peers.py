"""The servers that are compared: how each is started for a task, and what it says it holds."""

import enum
import signal
import smtplib
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from benchmarks.errors import BenchmarkError
from benchmarks.load import HOST, greets
from tests.support.ports import free_port
from tests.support.postfix import Postfix

ROOT = Path(__file__).resolve().parent.parent
WAYPOST = ROOT / ".venv" / "bin" / "waypost"
SIZE_LIMIT_BYTES = 50 * 1024 * 1024
_START_S = 20.0
_STOP_S = 20.0


class Task(enum.Enum):
    ACCEPT = "accept"  # take messages and keep them; nothing is delivered
    RELAY = "relay"  # take messages and pass them on to the sink
    STARTTLS = "starttls"  # as ACCEPT, over TLS


IN_CLEAR = (Task.ACCEPT, Task.RELAY)


@dataclass(frozen=True)
class Certificate:
    """What a server shows to clients: the same for all."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class Setup:
    task: Task
    directory: Path  # empty, on the disk that is measured
    sink_port: int  # where nothing is passed on, a port where nobody listens
    certificate: Certificate | None  # None: not STARTTLS
    wrap: Sequence[str] = ()  # a command that becomes the command after it


class Peer(ABC):
    """One server with one configuration. Started, measured once, and thrown away."""

    name: ClassVar[str]
    tasks: ClassVar[frozenset[Task]]
    stretch: ClassVar[int] = 1  # times as many messages, where a run would be over in no time
    port: int
    pid: int  # the first of its processes; 0 where there is none

    @abstractmethod
    def start(self, setup: Setup) -> None:
        """Return when it greets clients."""

    @abstractmethod
    def held(self) -> int:
        """By its own account: the messages it has taken (ACCEPT) or not passed on yet (RELAY)."""

    @abstractmethod
    def stop(self) -> None:
        """End it and all its processes, as far as it was started."""


class ProcessPeer(Peer):
    """A server that is one command."""

    _process: subprocess.Popen[bytes] | None = None

    def _spawn(self, command: Sequence[str], setup: Setup) -> None:
        log = setup.directory / "server.log"
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [*setup.wrap, *command],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.pid = self._process.pid
        deadline = time.monotonic() + _START_S
        while not greets(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise BenchmarkError(f"did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.02)

    def stop(self) -> None:
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


class Waypost(ProcessPeer):
    """Our own, as a user has it, with everything at its default but the route to the sink."""

    name = "Waypost"
    tasks = frozenset(Task)

    def start(self, setup: Setup) -> None:
        self.port = free_port(HOST)
        self._data = setup.directory / "data"
        config = setup.directory / "waypost.toml"
        shown = setup.certificate
        tls = (
            ""
            if shown is None
            else f"""\
[tls]
certificate = "{shown.certificate}"
key = "{shown.key}"
"""
        )
        config.write_text(
            f"""\
data_dir = "{self._data}"
[[listener]]
name = "smtp"
bind = ["{HOST}:{self.port}"]
role = "hub"
{self.routes(setup)}{tls}"""
        )
        self._spawn([str(WAYPOST), "serve", "--config", str(config)], setup)
        if setup.task is not Task.RELAY:
            self._queue("hold", "--all")

    def routes(self, setup: Setup) -> str:
        """Where mail goes, in the configuration."""
        return f"""\
[[route]]
name = "bench"
match = {{ recipient = "*" }}
to = ["smtp:[{HOST}]:{setup.sink_port}"]
"""

    def held(self) -> int:
        # One line for each message that is not finished.
        return len(self._queue("list", "--json", "--limit", "1000000").splitlines())

    def _queue(self, *arguments: str) -> str:
        command = [str(WAYPOST), "queue", *arguments, "--data", str(self._data)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise BenchmarkError(f"waypost queue {arguments[0]}: {done.stderr.strip()}")
        return done.stdout


class CountingPeer(ProcessPeer):
    """A server of ours that answers NOOP with the number of messages it has taken."""

    tasks = frozenset({Task.ACCEPT})
    module: ClassVar[str]
    arguments: ClassVar[tuple[str, ...]] = ()

    def start(self, setup: Setup) -> None:
        self.port = free_port(HOST)
        command = [sys.executable, "-m", self.module, str(self.port), *self.arguments]
        self._spawn(command, setup)

    def held(self) -> int:
        with smtplib.SMTP(HOST, self.port, local_hostname="bench.example") as client:
            return int(client.docmd("NOOP")[1])


class Aiosmtpd(CountingPeer):
    name = "aiosmtpd"
    module = "benchmarks.servers.aiosmtpd_sink"
    arguments = (str(SIZE_LIMIT_BYTES),)


class Bare(CountingPeer):
    name = "bare uvloop (roof)"
    stretch = 4
    module = "benchmarks.servers.bare"


class PostfixPeer(Peer):
    """Debian's Postfix with the package's defaults, without DNS, filters and chroots."""

    name = "Postfix"
    tasks = frozenset(Task)
    extra: ClassVar[dict[str, str]] = {}
    _postfix: Postfix | None = None

    def settings(self, setup: Setup) -> dict[str, str]:
        """What differs from the defaults, in main.cf."""
        settings = {
            "default_transport": f"smtp:[{HOST}]:{setup.sink_port}",
            "message_size_limit": str(SIZE_LIMIT_BYTES),
            "mailbox_size_limit": "0",
            **self.extra,
        }
        if setup.certificate is not None:
            settings |= {
                "smtpd_tls_security_level": "may",
                "smtpd_tls_cert_file": str(setup.certificate.certificate),
                "smtpd_tls_key_file": str(setup.certificate.key),
                # Nobody comes back with an old session, so none is made ready for that.
                "smtpd_tls_session_cache_timeout": "0s",
            }
        if setup.task is not Task.RELAY:
            # On hold no queue manager ever looks at the message. Without a queue manager at work
            # nothing refills the tokens of in_flow_delay, and every message would wait for it.
            settings |= {
                "smtpd_recipient_restrictions": "check_client_access static:HOLD",
                "in_flow_delay": "0s",
            }
        return settings

    def start(self, setup: Setup) -> None:
        self._postfix = Postfix(
            main_cf=self.settings(setup), parent=setup.directory, wrap=setup.wrap
        )
        self._postfix.start()
        self.port = self._postfix.port
        self.pid = self._postfix.pid

    def held(self) -> int:
        assert self._postfix is not None
        queue = self._postfix.queue_directory
        names = ("maildrop", "incoming", "active", "deferred", "hold")
        return sum(path.is_file() for name in names for path in (queue / name).rglob("*"))

    def stop(self) -> None:
        if self._postfix is not None:
            self._postfix.stop()


class TunedPostfix(PostfixPeer):
    """Postfix set for this very load, after its TUNING_README and CONNECTION_CACHE_README."""

    name = "Postfix tuned"
    # Accept is left out: its cheapest path has nothing left to tune.
    tasks = frozenset({Task.RELAY})
    extra: ClassVar[dict[str, str]] = {
        "default_process_limit": "100",
        "in_flow_delay": "0s",
        "initial_destination_concurrency": "20",
        "default_destination_concurrency_limit": "50",
        "smtp_connection_cache_destinations": "static:all",
    }


class NoServer(Peer):
    """The generator straight to the sink: what the two can do when nothing is in between."""

    name = "no server (roof)"
    tasks = frozenset({Task.RELAY})
    stretch = 4
    pid = 0

    def start(self, setup: Setup) -> None:
        self.port = setup.sink_port

    def held(self) -> int:
        return 0

    def stop(self) -> None:
        pass


ALL: tuple[type[Peer], ...] = (Waypost, PostfixPeer, TunedPostfix, Aiosmtpd, Bare, NoServer)


def present() -> list[type[Peer]]:
    """Those that can run here: all, but Waypost only where it has been installed."""
    return [peer for peer in ALL if peer is not Waypost or WAYPOST.exists()]


def program_versions() -> dict[str, str]:
    """What was measured, by program."""
    versions = {"postfix": _said("postconf", "-dh", "mail_version")}
    for package in ("aiosmtpd", "email-validator", "uvloop"):
        code = f"import importlib.metadata as m; print(m.version({package!r}))"
        versions[package] = _said(sys.executable, "-c", code)
    if WAYPOST.exists():
        versions["waypost"] = _said(str(WAYPOST), "version").split()[-1]
    return versions


def _said(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()
