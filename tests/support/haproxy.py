"""HAProxy from the Debian package, before a mail server: a private instance."""

from __future__ import annotations

import socket
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tests.support.postfix import install
from tests.support.waiting import wait_until

_STOP_S = 10.0

_DEFAULTS = """\
defaults
  mode tcp
  timeout connect 10s
  timeout client 60s
  timeout server 60s
"""


@dataclass(frozen=True)
class Front:
    """A port of the proxy, and where it leads; places as "address:port", "[v6]:port"."""

    bind: str
    server: str
    options: str = "send-proxy"  # of the server line


class HAProxy:
    """Running between `with` and its end."""

    def __init__(self, fronts: Sequence[Front], *, namespace: str | None = None) -> None:
        self._fronts = tuple(fronts)
        self._namespace = namespace
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> HAProxy:
        install("haproxy")
        self._directory = tempfile.TemporaryDirectory(prefix="haproxy-")
        here = Path(self._directory.name)
        config = _DEFAULTS
        for number, front in enumerate(self._fronts):
            config += (
                f"listen front{number}\n"
                f"  bind {_bare(front.bind)}\n"
                f"  server hub {_bare(front.server)} {front.options}\n"
            )
        (here / "haproxy.cfg").write_text(config)
        inside = ("ip", "netns", "exec", self._namespace) if self._namespace else ()
        with (here / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [*inside, "haproxy", "-db", "-f", str(here / "haproxy.cfg")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        if self._namespace is None:
            wait_until(self._is_up, lambda: (here / "log").read_text())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(_STOP_S)
        self._directory.cleanup()

    def _is_up(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None
        host, _, port = self._fronts[-1].bind.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
        except OSError:
            return False
        return True


def _bare(place: str) -> str:
    """HAProxy takes IPv6 addresses without brackets: the last colon counts."""
    return place.replace("[", "").replace("]", "")
