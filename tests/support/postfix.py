"""A real Postfix from the Debian package, as a private instance in a temporary directory.

Owns its configuration, its directories and its processes, and removes them all at the end.
It never reads or touches a Postfix that belongs to this machine. Needs root: Postfix does.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from tests.support.ports import free_port

_INSTALL = Path(__file__).with_name("debian.sh")
_NOBODY = 65534  # virtual(8) refuses to write mail as root
_START_S = 15.0
_STOP_S = 10.0
_LIFETIME_S = "3600"  # a test run that was killed leaves no Postfix behind for ever

# Debian's own list without its chroots: nothing has to be copied into a jail.
_SERVICES = """\
pickup    unix  n  -  n  60    1  pickup
cleanup   unix  n  -  n  -     0  cleanup
qmgr      unix  n  -  n  300   1  qmgr
tlsmgr    unix  -  -  n  1000? 1  tlsmgr
rewrite   unix  -  -  n  -     -  trivial-rewrite
bounce    unix  -  -  n  -     0  bounce
defer     unix  -  -  n  -     0  bounce
trace     unix  -  -  n  -     0  bounce
verify    unix  -  -  n  -     1  verify
flush     unix  n  -  n  1000? 0  flush
proxymap  unix  -  -  n  -     -  proxymap
smtp      unix  -  -  n  -     -  smtp
relay     unix  -  -  n  -     -  smtp
showq     unix  n  -  n  -     -  showq
error     unix  -  -  n  -     -  error
retry     unix  -  -  n  -     -  error
discard   unix  -  -  n  -     -  discard
virtual   unix  -  n  n  -     -  virtual
lmtp      unix  -  -  n  -     -  lmtp
anvil     unix  -  -  n  -     1  anvil
scache    unix  -  -  n  -     1  scache
postlog   unix-dgram n - n -   1  postlogd
"""

# The directories below queue_directory that its `postfix start` script would make, if that did not
# take two seconds for checks of permissions that nobody has changed here.
_QUEUES = (
    "active", "bounce", "corrupt", "defer", "deferred", "flush", "hold",
    "incoming", "private", "saved", "trace",
)  # fmt: skip


class PostfixError(Exception):
    """Postfix could not be installed, started or told to do something; the text says why."""


class Postfix:
    """A running Postfix between `with` and its end.

    Mail for the literals of its own addresses, for `domains` and for its host name is local: it is
    stored for the users in `mailboxes` and refused for all others. Mail for elsewhere is sent on
    without any DNS, straight to literals, or by `relayhost`. `transport_maps` wins over all this,
    over what is local, too.
    """

    def __init__(
        self,
        *,
        address: str = "127.0.0.1",
        port: int | None = None,  # None: a free one; 25 inside a network namespace
        more_addresses: Sequence[str] = (),  # where it also listens, at the same port
        mailboxes: Sequence[str] = ("postmaster",),
        domains: Sequence[str] = (),
        mynetworks: Sequence[str] = ("127.0.0.0/8", "[::1]/128"),
        relayhost: str | None = None,  # as in main.cf: "[127.0.0.1]:2525"; None: straight
        transport_maps: Mapping[str, str] | None = None,  # transport(5): "*" -> "smtp:[10.0.0.5]"
        main_cf: Mapping[str, str] | None = None,  # wins over every setting made here
        master_cf: Sequence[str] = (),  # whole lines; a later line replaces an earlier service
        netns: str | None = None,  # the name of an existing network namespace; None: ours
        parent: Path | None = None,  # searchable by everyone; None: the system's temporary one
        wrap: Sequence[str] = (),  # a command that becomes the one after it: "strace -D -f"
    ) -> None:
        if port is None:
            port = free_port(address) if netns is None else 25
        self.address = address
        self.port = port
        self._addresses = (address, *more_addresses)
        self._mailboxes = tuple(mailboxes)
        self._domains = tuple(domains)
        self._mynetworks = tuple(mynetworks)
        self._relayhost = relayhost
        self._transport_maps = dict(transport_maps or {})
        self._main_cf = dict(main_cf or {})
        self._master_cf = tuple(master_cf)
        self._netns = netns
        self._parent = parent
        self._wrap = tuple(wrap)
        self._process: subprocess.Popen[bytes] | None = None
        self.directory = Path()  # set by start(), as are those below it

    @property
    def pid(self) -> int:
        """The master's, while it runs."""
        if self._process is None:
            raise PostfixError("not running")
        return self._process.pid

    @property
    def config_directory(self) -> Path:
        return self.directory / "etc"

    @property
    def queue_directory(self) -> Path:
        return self.directory / "queue"

    def __enter__(self) -> "Postfix":
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
        """Return when it listens."""
        if os.geteuid() != 0:
            raise PostfixError("Postfix can only be started by root")
        install("postfix")
        self.directory = Path(tempfile.mkdtemp(prefix="postfix-", dir=self._parent))
        try:
            self._write_files()
            with (self.directory / "start.log").open("wb") as output:
                self._process = subprocess.Popen(
                    [*self._wrap, *self._command(_daemon("master")), "-s", "-e", _LIFETIME_S],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            self._wait_until_started()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the master by its pid, wait for all it started, and remove the directory."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            _end_session(self._process.pid)
            self._process = None
        if self.directory != Path():
            shutil.rmtree(self.directory)
            self.directory = Path()

    def log_text(self) -> str:
        """All it has logged so far."""
        return _text_of(self.directory / "log" / "mail.log")

    def mailbox(self, user: str) -> Path:
        """The Maildir of a user named in `mailboxes`; it appears with the first message."""
        return self.directory / "mail" / user

    def flush(self) -> None:
        """Try everything in the queue now."""
        command = [*self._command("postqueue"), "-f"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise PostfixError(f"postqueue -f failed: {done.stderr.strip()}")

    def _command(self, program: str) -> list[str]:
        inside = [] if self._netns is None else ["ip", "netns", "exec", self._netns]
        return [*inside, program, "-c", str(self.config_directory)]

    def _write_files(self) -> None:
        # Postfix's daemons give up root and must still reach their directories.
        self.directory.chmod(0o755)
        for name in ("etc", "queue", "queue/pid", "state", "log", "mail"):
            (self.directory / name).mkdir()
            (self.directory / name).chmod(0o755)
        shutil.chown(self.directory / "state", user="postfix")
        os.chown(self.directory / "mail", _NOBODY, _NOBODY)
        for name in _QUEUES:
            (self.queue_directory / name).mkdir(mode=0o700)
            shutil.chown(self.queue_directory / name, user="postfix")
        for name, mode in (("maildrop", 0o1730), ("public", 0o2710)):
            (self.queue_directory / name).mkdir()
            shutil.chown(self.queue_directory / name, user="postfix", group="postdrop")
            (self.queue_directory / name).chmod(mode)
        settings = {**self._settings(), **self._main_cf}
        _write(self.config_directory / "main.cf", (f"{k} = {v}" for k, v in settings.items()))
        listeners = (
            f"{f'[{address}]' if ':' in address else address}:{self.port} inet n - n - - smtpd"
            for address in self._addresses
        )
        _write(
            self.config_directory / "master.cf",
            [*listeners, *_SERVICES.splitlines(), *self._master_cf],
        )
        _write(
            self.config_directory / "mailboxes",
            (rf"/^{re.escape(user)}(\+[^@]*)?@/ {user}/" for user in self._mailboxes),
        )
        _write(
            self.config_directory / "transport",
            (f"{pattern} {transport}" for pattern, transport in self._transport_maps.items()),
        )

    def _settings(self) -> dict[str, str]:
        here = self.directory
        return {
            "compatibility_level": "3.6",
            "queue_directory": f"{here}/queue",
            "data_directory": f"{here}/state",
            "maillog_file": f"{here}/log/mail.log",
            "maillog_file_prefixes": f"{here}/log",
            "myhostname": "postfix.test",
            "myorigin": "$myhostname",
            "mydestination": " ".join(("$myhostname", *self._domains)),
            "mynetworks": " ".join(self._mynetworks),
            "inet_protocols": "all",
            # The literals of these addresses are local, too.
            "inet_interfaces": " ".join(self._addresses),
            "relayhost": self._relayhost or "",
            "transport_maps": f"texthash:{here}/etc/transport",
            "smtpd_peername_lookup": "no",
            "smtp_dns_support_level": "disabled",
            "alias_maps": "",
            "local_recipient_maps": "$virtual_mailbox_maps",
            "local_transport": "virtual",
            "virtual_mailbox_base": f"{here}/mail",
            "virtual_mailbox_maps": f"regexp:{here}/etc/mailboxes",
            "virtual_uid_maps": f"static:{_NOBODY}",
            "virtual_gid_maps": f"static:{_NOBODY}",
        }

    def _wait_until_started(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + _START_S
        # The master logs this line after it has opened its sockets, so no client is refused.
        while "daemon started" not in self.log_text():
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = _text_of(self.directory / "start.log") + self.log_text()
                raise PostfixError(f"Postfix did not start:\n{said or self._complaint()}")
            time.sleep(0.02)

    def _complaint(self) -> str:
        """What is wrong with the settings: the master tells only syslog, a command tells us."""
        command = [*self._command("postqueue"), "-p"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stderr


def install(*packages: str) -> None:
    """Install the Debian packages that are missing; this starts no service."""
    done = subprocess.run([_INSTALL, *packages], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise PostfixError(done.stderr.strip())


def _daemon(name: str) -> str:
    done = subprocess.run(
        ["postconf", "-dh", "daemon_directory"], capture_output=True, text=True, check=True
    )
    return f"{done.stdout.strip()}/{name}"


def _end_session(session: int) -> None:
    """Wait for the processes a master left behind; they notice its end by themselves."""
    deadline = time.monotonic() + _STOP_S
    while left := _pids_of_session(session):
        if time.monotonic() > deadline:
            for pid in left:
                # One that ended by itself meanwhile is what was wanted.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def _pids_of_session(session: int) -> list[int]:
    pids = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            # After the program's name in parentheses: state, parent, group, session.
            fields = _text_of(entry / "stat").rpartition(")")[2].split()
            if fields and fields[0] != "Z" and int(fields[3]) == session:
                pids.append(int(entry.name))
    return pids


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _write(path: Path, lines: Iterable[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    path.chmod(0o644)
    # Postfix waits for two seconds before it reads a file that has just been changed.
    os.utime(path, (0, 0))
