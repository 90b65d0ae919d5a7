"""Dovecot's login service from the Debian package, for Postfix to ask: a private instance.

Only its `auth` runs, in a temporary directory. Needs root: Dovecot does.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from tests.support.postfix import install
from tests.support.waiting import wait_until

_STOP_S = 10.0

_CONFIG = """\
base_dir = {here}/run
state_dir = {here}/state
log_path = {here}/dovecot.log
protocols =
ssl = no
auth_mechanisms = plain login{mechanisms}
auth_failure_delay = 0
{passdbs}passdb {{
  driver = passwd-file
  args = scheme=PLAIN {here}/users
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home=/nonexistent
}}
service auth {{
  unix_listener {here}/sasl {{
    mode = 0666
  }}
}}
"""

# Access tokens are judged by the server that gave them (RFC 7662).
_PASSDB = """\
passdb {{
  driver = oauth2
  mechanisms = xoauth2 oauthbearer
  args = {file}
  result_failure = continue
}}
"""
_TOKENS = """\
introspection_mode = post
introspection_url = {url}
username_attribute = {attribute}
active_attribute = active
active_value = true
tls_ca_cert_file = {ca}
"""


class Introspection(NamedTuple):
    """Where tokens are asked about."""

    url: str  # with the name and password of who asks
    attribute: str  # which one of the answer is the user
    ca: Path


class Dovecot:
    """Running between `with` and its end; `socket` is for Postfix' smtpd_sasl_path."""

    def __init__(
        self, users: Mapping[str, str], introspections: Sequence[Introspection] = ()
    ) -> None:
        """`users`: passwords by name."""
        self._users = dict(users)
        self._introspections = introspections
        self._process: subprocess.Popen[bytes] | None = None
        self.directory = Path()  # set by start()

    @property
    def socket(self) -> Path:
        return self.directory / "sasl"

    def __enter__(self) -> Dovecot:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Return when it answers."""
        install("dovecot-core")
        self.directory = Path(tempfile.mkdtemp(prefix="dovecot-"))
        # Postfix' smtpd gives up root and must still reach the socket.
        self.directory.chmod(0o755)
        users = self.directory / "users"
        users.write_text("".join(f"{name}:{{PLAIN}}{word}\n" for name, word in self._users.items()))
        shutil.chown(users, user="dovecot")
        users.chmod(0o600)
        config = self.directory / "dovecot.conf"
        passdbs = ""
        for number, place in enumerate(self._introspections):
            file = self.directory / f"tokens{number}"
            # Dovecot's auth gives up root and must still read them.
            ca = self.directory / f"ca{number}"
            ca.write_bytes(place.ca.read_bytes())
            file.write_text(_TOKENS.format(**place._replace(ca=ca)._asdict()))
            passdbs += _PASSDB.format(file=file)
        mechanisms = " xoauth2 oauthbearer" if passdbs else ""
        config.write_text(
            _CONFIG.format(here=self.directory, passdbs=passdbs, mechanisms=mechanisms)
        )
        try:
            with (self.directory / "start.log").open("wb") as output:
                self._process = subprocess.Popen(
                    ["dovecot", "-F", "-c", str(config)],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={"PATH": os.environ["PATH"]},
                )
            wait_until(self._has_started, self._complaint)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the master, which ends the others, and remove the directory."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self.directory != Path():
            shutil.rmtree(self.directory)
            self.directory = Path()

    def log_text(self) -> str:
        """All it has logged so far."""
        path = self.directory / "dovecot.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def _has_started(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._complaint()
        return self.socket.exists()

    def _complaint(self) -> str:
        return (self.directory / "start.log").read_text(errors="replace") + self.log_text()
