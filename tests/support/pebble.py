"""A real Pebble from the Debian package: Let's Encrypt's own ACME server for tests.

Owns its configuration, its directory and its process, and removes them all at the end.
"""

from __future__ import annotations

import datetime
import json
import os
import shutil
import ssl
import subprocess
import tempfile
import urllib.request
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType

from tests.support.ports import free_port
from tests.support.postfix import install
from tests.support.waiting import wait_until
from waypost.durable import write_public, write_secret
from waypost.tls.authority import Authority, Subjects

_STOP_S = 10.0
_LIFETIME_S = "3600"  # a test run that was killed leaves no Pebble behind for ever


class Pebble:
    """Looks for challenges at `http_port` and `tls_port` of whatever it is to certify."""

    def __init__(
        self,
        *,
        address: str = "127.0.0.1",
        namespace: str | None = None,
        http_port: int | None = None,
        tls_port: int | None = None,
        valid_s: int = 3_600,
        bad_nonces: int = 0,
        port: int | None = None,
        dns_server: str | None = None,
    ) -> None:
        """`bad_nonces`: the share of good nonces it refuses, in percent."""
        self.port = port or free_port()
        self.http_port = http_port or free_port()
        self.tls_port = tls_port or free_port()
        self._address = address
        self._management_port = free_port()
        self._namespace = namespace
        self._valid_s = valid_s
        self._dns_server = dns_server
        self._environment = {
            **os.environ,
            "PEBBLE_VA_NOSLEEP": "1",
            "PEBBLE_WFE_NONCEREJECT": str(bad_nonces),
            "PEBBLE_AUTHZREUSE": "0",  # each order is proven anew
        }
        self.directory = Path(tempfile.mkdtemp(prefix="pebble-"))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"https://{self._address}:{self.port}/dir"

    @property
    def ca(self) -> Path:
        """Who vouches for its own HTTPS."""
        return self.directory / "ca" / "ca.pem"

    def __enter__(self) -> Pebble:
        install("pebble")
        subjects = Subjects(frozenset({ip_address(self._address)}), frozenset())
        now = datetime.datetime.now(datetime.UTC)
        leaf = Authority.create(self.directory / "ca", subjects, now=now).issue(
            subjects, is_rsa=False, now=now
        )
        write_public(self.directory / "pebble.pem", leaf.certificate)
        write_secret(self.directory / "pebble.key", leaf.key)
        config = {
            "listenAddress": f"{self._address}:{self.port}",
            "managementListenAddress": f"{self._address}:{self._management_port}",
            "certificate": str(self.directory / "pebble.pem"),
            "privateKey": str(self.directory / "pebble.key"),
            "httpPort": self.http_port,
            "tlsPort": self.tls_port,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": False,
            "certificateValidityPeriod": self._valid_s,
        }
        (self.directory / "config.json").write_text(json.dumps({"pebble": config}))
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        shutil.rmtree(self.directory)

    def start(self) -> None:
        """Begin with nothing: it keeps neither accounts nor its root."""
        inside = [] if self._namespace is None else ["ip", "netns", "exec", self._namespace]
        names = [] if self._dns_server is None else ["-dnsserver", self._dns_server]
        with (self.directory / "log").open("ab") as log:
            start = log.tell()
            self._process = subprocess.Popen(
                [
                    *(*inside, "timeout", "--foreground", _LIFETIME_S),
                    *("pebble", "-strict", "-config", str(self.directory / "config.json"), *names),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
            )
        wait_until(lambda: "ACME directory available" in self.log_text()[start:], self.log_text)

    def stop(self) -> None:
        """End it by its pid."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(_STOP_S)
            self._process = None

    def log_text(self) -> str:
        """All it has logged."""
        return (self.directory / "log").read_text(errors="replace")

    def root(self) -> Path:
        """The root its certificates end in, as a file."""
        file = self.directory / "root.pem"
        url = f"https://{self._address}:{self._management_port}/roots/0"
        if self._namespace is None:
            context = ssl.create_default_context(cafile=str(self.ca))
            with urllib.request.urlopen(url, context=context, timeout=10) as response:
                file.write_bytes(response.read())
        else:
            subprocess.run(
                [
                    *("ip", "netns", "exec", self._namespace),
                    *("curl", "-sf", "--cacert", str(self.ca), "-o", str(file), url),
                ],
                check=True,
                timeout=20,
            )
        return file
