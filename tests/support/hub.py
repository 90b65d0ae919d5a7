"""A real hub in a process of its own, for tests."""

from __future__ import annotations

import json
import os
import re
import signal
import smtplib
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support.ports import free_port

START_S = 20.0
STOP_S = 20.0

_READY = re.compile(rb'[ "]ready[ "]')  # the event, in a log of either format


class Hub:
    """`waypost serve` on a free loopback port, with its data below `directory`.

    `config` is TOML put behind the listener; give `listener=""` to write all of it yourself.
    `namespace` runs it inside that network namespace. `prefix` is put before the command
    (strace, for example).
    """

    def __init__(
        self,
        directory: Path,
        config: str = "",
        *,
        host: str = "127.0.0.1",
        port: int | None = None,
        listener: str | None = None,
        namespace: str | None = None,
        prefix: Sequence[str] = (),
        environment: dict[str, str] | None = None,
    ) -> None:
        self.host = host
        self.port = port or free_port(host)
        self.directory = directory
        self.data = directory / "data"
        self.config_file = directory / "waypost.toml"
        self.log_file = directory / "hub.log"
        self._namespace = namespace
        self._prefix = tuple(prefix)
        # Several hubs share the loopback address: the HTTP port is for those that name one.
        port_of_http = {} if "[http]" in config else {"WAYPOST__HTTP__BIND": "[]"}
        self._environment = {**os.environ, **port_of_http, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)
        bind = f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"
        if listener is None:
            listener = f'[[listener]]\nname = "smtp"\nbind = ["{bind}"]\n'
        self.config_file.write_text(f'data_dir = "{self.data}"\n{config}\n{listener}')

    def __enter__(self) -> Hub:
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
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def command(self, *arguments: str) -> list[str]:
        """A waypost command line for this hub's interpreter and namespace."""
        words = [sys.executable, "-m", "waypost", *arguments]
        return ["ip", "netns", "exec", self._namespace, *words] if self._namespace else words

    def start(self) -> None:
        """Start it and wait until it says it is ready."""
        log = self.log_file.open("ab")
        start = log.tell()
        self._process = subprocess.Popen(
            [*self._prefix, *self.command("serve", "--config", str(self.config_file))],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env=self._environment,
            cwd=self.directory,
        )
        log.close()
        deadline = time.monotonic() + START_S
        while _READY.search(self.log_file.read_bytes()[start:]) is None:
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise AssertionError(f"the hub did not start:\n{self.log_text()}")
            time.sleep(0.02)

    def stop(self) -> None:
        """SIGTERM, and wait for the end."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self._end(signal.SIGKILL)

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal, and go on."""
        assert self._process is not None
        self._process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(number)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"the hub did not stop:\n{self.log_text()}") from None
        finally:
            self._process = None

    def smtp(self, **options: Any) -> smtplib.SMTP:
        """A session with the hub."""
        # smtplib would ask DNS for this host's name.
        options.setdefault("local_hostname", "client.test")
        return smtplib.SMTP(self.host, self.port, timeout=20, **options)

    def log_text(self) -> str:
        """All it has logged."""
        return self.log_file.read_text(errors="replace")

    def run(self, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Run a waypost command against this hub's configuration."""
        return subprocess.run(
            [*self.command(*arguments), "--config", str(self.config_file)],
            input=stdin,
            capture_output=True,
            timeout=60,
            check=False,
            env=self._environment,
            cwd=self.directory,
        )

    def json(self, *arguments: str) -> list[dict[str, Any]]:
        """Run a command with --json; its output lines as objects."""
        done = self.run(*arguments, "--json")
        assert not done.stderr, done.stderr.decode()
        return [json.loads(line) for line in done.stdout.splitlines()]

    def mailbox(self, name: str) -> list[bytes]:
        """The messages of a Maildir, oldest first."""
        files = [
            path for part in ("new", "cur") for path in (self.data / "mail" / name / part).glob("*")
        ]
        files.sort(key=lambda path: path.stat().st_mtime_ns)
        return [path.read_bytes() for path in files]

    def wait_for_mail(self, name: str, count: int = 1, limit_s: float = 20.0) -> list[bytes]:
        """The mailbox once it has `count` messages."""
        deadline = time.monotonic() + limit_s
        while len(found := self.mailbox(name)) < count:
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"{len(found)} of {count} messages in {name}:\n{self.log_text()[-4000:]}"
                )
            time.sleep(0.02)
        return found

    def wait_for_log(self, text: str, limit_s: float = 20.0) -> None:
        """Until the log holds `text`."""
        deadline = time.monotonic() + limit_s
        while text not in self.log_text():
            if time.monotonic() > deadline:
                raise AssertionError(f"{text!r} is not in the log:\n{self.log_text()[-4000:]}")
            time.sleep(0.02)
