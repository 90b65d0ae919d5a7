"""A real NSD and a real Unbound from the Debian packages, as private instances.

Each owns its configuration, its directory and its process, and removes them all at the end.
Neither reads or touches a server, a zone or a root key that belongs to this machine.
`signed_tree` makes the zones with which tests see what a validating resolver says.
"""

from __future__ import annotations

import contextlib
import errno
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import textwrap
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import dns.exception
import dns.message
import dns.query
import dns.rdataclass
import dns.rdatatype
import psutil

from tests.support.netns import Namespace
from tests.support.ports import free_port
from tests.support.postfix import install

_START_S = 15.0
_STOP_S = 10.0
_ANSWER_S = 1.0
_LIFETIME_S = "3600"  # a test run that was killed leaves no server behind for ever
_TTL_S = 300

# An SOA record at the start of a line: owner, TTL and class may be there or not.
_SOA = re.compile(r"^\S*[ \t]+(?:(?:IN|\d\w*)[ \t]+){0,2}SOA[ \t]", re.IGNORECASE | re.MULTILINE)

# What Unbound would answer by itself, beside the LAN zones, which have a switch of their own.
_UNBOUND_DEFAULTS = (
    "localhost.", "test.", "invalid.", "onion.", "home.arpa.", "127.in-addr.arpa.",
    "1." + "0." * 31 + "ip6.arpa.",
)  # fmt: skip


class DnsServerError(Exception):
    """A server could not be started or told to do something; the text says why."""


class _Server(ABC):
    """A server of DNS between `with` and its end; it can be stopped and started in between."""

    package: str

    def __init__(self, *, address: str, port: int | None, netns: str | None) -> None:
        if port is None:
            port = _free_port(address) if netns is None else 53
        self.address = address
        self.port = port
        self._netns = netns
        self._process: subprocess.Popen[bytes] | None = None
        self.directory = Path()  # set by start()

    def __enter__(self) -> Self:
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
        install(self.package)
        self.directory = Path(tempfile.mkdtemp(prefix=f"{self.package}-"))
        try:
            self._write_files()
            inside = [] if self._netns is None else ["ip", "netns", "exec", self._netns]
            # In the foreground, timeout(1) passes signals on to the server and to nobody else.
            guard = ["timeout", "--foreground", _LIFETIME_S]
            with (self.directory / "log").open("wb") as output:
                self._process = subprocess.Popen(
                    [*inside, *guard, *self._command()],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            self._wait_until_ready("start")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the server by its pid, wait for all of its processes, and remove the directory."""
        if self._process is not None:
            children = _children_of(self._process)
            self._process.terminate()
            try:
                self._process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                _kill(children)
                self._process.kill()
                self._process.wait()
            if not _ended(children):
                _kill(children)
            self._process = None
        if self.directory != Path():
            shutil.rmtree(self.directory)
            self.directory = Path()

    def log_text(self) -> str:
        """All it has logged since it was started."""
        return (self.directory / "log").read_text(encoding="utf-8", errors="replace")

    @abstractmethod
    def _write_files(self) -> None:
        """Write its configuration into `directory`."""

    @abstractmethod
    def _command(self) -> list[str]:
        """What runs it in the foreground, logging to standard error."""

    @abstractmethod
    def _is_ready(self) -> bool:
        """Whether it answers, and with what it has been given last."""

    def _wait_until_ready(self, task: str) -> None:
        assert self._process is not None
        deadline = time.monotonic() + _START_S
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise DnsServerError(f"{self.package} did not {task}:\n{self.log_text()}")
            time.sleep(0.01)

    def _ask(self, query: dns.message.Message) -> dns.message.Message | None:
        """What it answers over UDP, asked from its own namespace; None if it does not."""
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        with contextlib.ExitStack() as stack:
            if self._netns is not None:
                stack.enter_context(Namespace(self._netns).entered())
            probe = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
            probe.setblocking(False)
            try:
                # Connected, so that a closed port is known at once.
                probe.connect((self.address, self.port))
                return dns.query.udp(query, self.address, _ANSWER_S, self.port, sock=probe)
            except (OSError, dns.exception.DNSException):
                return None


class Nsd(_Server):
    """An authoritative server for the zones given, which refuses to answer for all others.

    A zone is the text of a master file with names relative to the zone; `$TTL` is set, and an SOA
    and an NS record are added when there is no SOA in it: `{"plant.test": "@ MX 10 mx"}`.
    Text that is indented as a whole is as good as text that is not.
    """

    package = "nsd"

    def __init__(
        self,
        zones: Mapping[str, str],
        *,
        broken: Sequence[str] = (),  # zones without a file: SERVFAIL, until reload() brings one
        address: str = "127.0.0.1",
        port: int | None = None,  # None: one free for UDP and TCP; 53 inside a network namespace
        netns: str | None = None,  # the name of an existing network namespace; None: ours
    ) -> None:
        super().__init__(address=address, port=port, netns=netns)
        self._zones = {_absolute(name): text for name, text in zones.items()}
        self._names = list(dict.fromkeys([*self._zones, *map(_absolute, broken)]))
        self._serial = 0

    @property
    def _marker(self) -> str:
        """A zone that nobody else serves; its serial says which zone files are in use."""
        return f"{self.directory.name}.invalid."

    def reload(self, zones: Mapping[str, str]) -> None:
        """Replace these zones, leave the others alone, and return when that is being served.

        Only zones that have been there from the start, or were named in `broken`. The serial of
        an added SOA rises.
        """
        if self._process is None:
            raise DnsServerError("nsd is not running")
        changed = {_absolute(name): text for name, text in zones.items()}
        if unknown := sorted(changed.keys() - set(self._names)):
            raise DnsServerError(f"nsd has not been started with these zones: {unknown}")
        self._write_zones(changed)
        self._zones.update(changed)
        # The process that answers is replaced, and for a moment both of them answer.
        answering = [process for process in _children_of(self._process) if not process.children()]
        self._process.send_signal(signal.SIGHUP)
        self._wait_until_ready("reload")
        if not _ended(answering):
            raise DnsServerError(f"nsd did not end its old process:\n{self.log_text()}")

    def _write_files(self) -> None:
        here = self.directory
        self._write_zones(self._zones)
        _write(
            here / "nsd.conf",
            [
                "server:",
                f"  ip-address: {self.address}@{self.port}",
                "  server-count: 1",
                '  username: ""',
                '  chroot: ""',
                '  database: ""',
                '  pidfile: ""',
                f'  zonesdir: "{here}"',
                f'  xfrdir: "{here}"',
                f'  xfrdfile: "{here}/xfrd.state"',
                f'  zonelistfile: "{here}/zone.list"',
                "  xfrd-reload-timeout: 0",
                "  rrl-ratelimit: 0",
                "  rrl-whitelist-ratelimit: 0",
                "remote-control:",
                "  control-enable: no",
                *(
                    f'zone:\n  name: "{name}"\n  zonefile: "{self._zone_file(name)}"'
                    for name in [self._marker, *self._names]
                ),
            ],
        )

    def _command(self) -> list[str]:
        return ["nsd", "-d", "-c", f"{self.directory}/nsd.conf"]

    def _is_ready(self) -> bool:
        answer = self._ask(dns.message.make_query(self._marker, dns.rdatatype.SOA))
        if answer is None or not answer.answer:
            return False
        return bool(answer.answer[0][0].serial == self._serial)

    def _write_zones(self, zones: Mapping[str, str]) -> None:
        """Put the files in place, all of them or, if there is a mistake in one, none."""
        serial = self._serial + 1
        written = []
        for name, text in {self._marker: "", **zones}.items():
            path = self._zone_file(name)
            fresh = path.with_suffix(".new")
            _write(fresh, [_completed(name, text, serial)])
            _run("nsd-checkzone", name, str(fresh))
            written.append((fresh, path))
        for fresh, path in written:
            fresh.rename(path)
        self._serial = serial

    def _zone_file(self, name: str) -> Path:
        return self.directory / f"{quote(name, safe='')}zone"


class Unbound(_Server):
    """A validating recursive resolver that asks one NSD for everything, and nobody else.

    It answers nothing by itself, neither for `test` nor for the reverse zones of a LAN. What it
    has learned it keeps for as long as the TTL says: a test that changes zones needs a new one.
    """

    package = "unbound"

    def __init__(
        self,
        nsd: Nsd,
        *,
        trust_anchors: Sequence[str] = (),  # DS or DNSKEY records; none: nothing is validated
        address: str = "127.0.0.1",
        port: int | None = None,  # None: one free for UDP and TCP; 53 inside a network namespace
        netns: str | None = None,  # the name of an existing network namespace; None: ours
    ) -> None:
        super().__init__(address=address, port=port, netns=netns)
        self._nsd = nsd
        self._trust_anchors = tuple(trust_anchors)

    def _write_files(self) -> None:
        _write(
            self.directory / "unbound.conf",
            [
                "server:",
                f"  interface: {self.address}@{self.port}",
                "  access-control: 0.0.0.0/0 allow",
                "  access-control: ::/0 allow",
                "  num-threads: 1",
                '  username: ""',
                '  chroot: ""',
                '  pidfile: ""',
                f'  directory: "{self.directory}"',
                "  use-syslog: no",
                "  log-servfail: yes",
                "  do-daemonize: no",
                '  module-config: "validator iterator"',
                "  val-log-level: 2",
                "  qname-minimisation: no",
                "  trust-anchor-signaling: no",
                f"  identity: {self.directory.name}",
                "  do-not-query-localhost: no",
                "  unblock-lan-zones: yes",
                "  insecure-lan-zones: yes",
                *(f'  local-zone: "{name}" nodefault' for name in _UNBOUND_DEFAULTS),
                *(f'  trust-anchor: "{record}"' for record in self._trust_anchors),
                "remote-control:",
                "  control-enable: no",
                # With a stub zone it would follow the NS records it sees, away from NSD.
                "forward-zone:",
                '  name: "."',
                f"  forward-addr: {self._nsd.address}@{self._nsd.port}",
            ],
        )

    def _command(self) -> list[str]:
        return ["unbound", "-d", "-p", "-c", f"{self.directory}/unbound.conf"]

    def _is_ready(self) -> bool:
        # It knows the answer by itself, whether NSD is there or not.
        query = dns.message.make_query("id.server.", dns.rdatatype.TXT, dns.rdataclass.CH)
        answer = self._ask(query)
        return answer is not None and self.directory.name in answer.to_text()


@dataclass(frozen=True)
class SignedZone:
    """The text of a zone with its keys and signatures, and the DS record its parent needs."""

    text: str
    ds: str


@dataclass(frozen=True)
class SignedTree:
    """Zones for `Nsd`, the root among them, and the root's DS record for `Unbound`."""

    zones: dict[str, str]
    trust_anchor: str


def signed(name: str, text: str) -> SignedZone:
    """Sign a zone with a new key; `text` as for `Nsd`."""
    install("ldnsutils")
    name = _absolute(name)
    with tempfile.TemporaryDirectory(prefix="signed-") as directory:
        plain, result = f"{directory}/plain", Path(directory, "signed")
        _write(Path(plain), [_completed(name, text, serial=1)])
        key = _run("ldns-keygen", "-k", "-a", "ECDSAP256SHA256", name, cwd=directory).strip()
        _run("ldns-signzone", "-o", name, "-f", str(result), plain, key, cwd=directory)
        ds = Path(directory, f"{key}.ds").read_text(encoding="ascii")
        return SignedZone(result.read_text(encoding="utf-8"), ds.strip())


def signed_tree(
    *,
    secure: Mapping[str, str] | None = None,  # signed, with their DS records in the root
    insecure: Mapping[str, str] | None = None,  # not signed, and the root says so
    bogus: Mapping[str, str] | None = None,  # signed, with DS records that fit another key
) -> SignedTree:
    """A signed root that delegates all these zones; none may lie inside another.

    Names outside of them do not exist, and what NSD says of them all the same is bogus, except
    for the reverse zones of LANs, which are always insecure.
    """
    zones: dict[str, str] = {}
    delegations: list[str] = []
    for name, text in (secure or {}).items():
        zone = signed(name, text)
        zones[name] = zone.text
        delegations.append(zone.ds)
    for name, text in (bogus or {}).items():
        zones[name] = signed(name, text).text
        delegations.append(signed(name, text).ds)
    zones.update(insecure or {})
    delegations += [f"{_absolute(name)} NS ns.invalid." for name in zones]
    root = signed(".", "\n".join(delegations))
    return SignedTree({".": root.text, **zones}, root.ds)


def _absolute(name: str) -> str:
    return name.rstrip(".") + "."


def _completed(name: str, text: str, serial: int) -> str:
    """A whole master file for a zone."""
    text = textwrap.dedent(text)
    head = f"$ORIGIN {name}\n$TTL {_TTL_S}\n"
    if not _SOA.search(text):
        head += f"@ SOA ns.invalid. hostmaster.invalid. {serial} 3600 600 86400 {_TTL_S}\n"
        head += "@ NS ns.invalid.\n"
    return head + text


def _children_of(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """All processes below this one; none if it has ended."""
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _ended(processes: Iterable[psutil.Process]) -> bool:
    """Wait for the end of processes that need not be our own children; whether it came."""
    deadline = time.monotonic() + _STOP_S
    while any(_runs(process) for process in processes):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def _runs(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _kill(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        # One that ended by itself meanwhile is what was wanted.
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def _free_port(address: str) -> int:
    """A port that is free for TCP and for UDP; take it soon, it is not reserved."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    while True:
        port = free_port(address)
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind((address, port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                continue
        return port


def _run(*command: str, cwd: str | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = done.stderr.strip() or done.stdout.strip()
        raise DnsServerError(f"{' '.join(command)}: {said}")
    return done.stdout


def _write(path: Path, lines: Iterable[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
