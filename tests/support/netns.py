"""Network namespaces joined by veth: hosts of their own, with addresses as a test wants them.

They have no way out and no DNS, and they go at the end of the `with`. Needs root and iproute2.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from pathlib import Path

_CLONE_NEWNET = 0x4000_0000
_ETH_P_ALL = 3
_SYN, _ACK = 0x02, 0x10  # flags of a TCP header
_LINK = "mail0"
_OVERLAYS = Path("/etc/netns")  # ip-netns(8) puts these files over those of /etc
_numbers = itertools.count(1)
_libc = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """One namespace; `joined_namespaces` makes them."""

    def __init__(self, name: str) -> None:
        self.name = name

    def run(self, *command: str) -> str:
        """Run a command inside; its output. Raises AssertionError with what it complained of."""
        return _run("ip", "netns", "exec", self.name, *command)

    def add_address(self, address: str) -> None:
        """Give the link one more address, as in "10.9.0.3/24"."""
        # Without nodad an IPv6 address cannot be used for a second or two.
        nodad = ["nodad"] if ":" in address else []
        self._ip("address", "add", address, "dev", _LINK, *nodad)

    def delete_address(self, address: str) -> None:
        """Take an address away."""
        self._ip("address", "del", address, "dev", _LINK)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Sockets that this thread makes now belong to the namespace, and stay there."""
        with (
            open("/proc/thread-self/ns/net", "rb") as home,
            open(f"/run/netns/{self.name}", "rb") as there,
        ):
            _set_namespace(there.fileno())
            try:
                yield
            finally:
                _set_namespace(home.fileno())

    @contextlib.contextmanager
    def watched(self) -> Iterator[list[str]]:
        """Who this host tries to reach, as "address:port": filled when the `with` ends.

        Each TCP connection it opens, and each UDP datagram it sends, also to itself.
        """
        attempts: list[str] = []
        with self.entered():
            watch = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL))
        with watch:
            yield attempts
            watch.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    packet, (_, _, kind, *_) = watch.recvfrom(65_536)
                    if kind == socket.PACKET_OUTGOING:
                        attempts += _attempt_of(packet)

    def _ip(self, *arguments: str) -> None:
        _run("ip", "-n", self.name, *arguments)


@contextlib.contextmanager
def joined_namespaces(
    first: Sequence[str], second: Sequence[str]
) -> Iterator[tuple[Namespace, Namespace]]:
    """Two namespaces with a link between them; the sequences are their addresses with prefix."""
    if os.geteuid() != 0:
        raise AssertionError("network namespaces need root: run these tests as root (sudo)")
    prefix = f"waypost-{os.getpid()}-{next(_numbers)}"
    names = [f"{prefix}{side}" for side in "ab"]
    with contextlib.ExitStack() as stack:
        for name in names:
            stack.callback(_remove, name)
            # Empty: a resolver then asks this very host, where nobody answers.
            overlay = _OVERLAYS / name / "resolv.conf"
            overlay.parent.mkdir(parents=True)
            overlay.touch()
            _run("ip", "netns", "add", name)
        _run(
            *("ip", "link", "add", _LINK, "netns", names[0]),
            *("type", "veth", "peer", "name", _LINK, "netns", names[1]),
        )
        namespaces = Namespace(names[0]), Namespace(names[1])
        for namespace, addresses in zip(namespaces, (first, second), strict=True):
            for link in ("lo", _LINK):
                _run("ip", "-n", namespace.name, "link", "set", link, "up")
            for address in addresses:
                namespace.add_address(address)
        yield namespaces


def _attempt_of(packet: bytes) -> list[str]:
    """Where an IP packet wants to open something; nothing for any other packet."""
    if packet[0] >> 4 == 4:
        protocol, payload = packet[9], packet[(packet[0] & 15) * 4 :]
        target = str(ip_address(packet[16:20]))
    elif packet[0] >> 4 == 6:
        protocol, payload = packet[6], packet[40:]
        target = f"[{ip_address(packet[24:40])}]"
    else:
        return []
    begins = protocol == socket.IPPROTO_TCP and payload[13] & (_SYN | _ACK) == _SYN
    if not begins and protocol != socket.IPPROTO_UDP:
        return []
    return [f"{target}:{int.from_bytes(payload[2:4], 'big')}"]


def _remove(name: str) -> None:
    if (Path("/run/netns") / name).exists():
        _run("ip", "netns", "delete", name)
    shutil.rmtree(_OVERLAYS / name, ignore_errors=True)
    with contextlib.suppress(OSError):
        _OVERLAYS.rmdir()  # unless others have something there


def _set_namespace(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns failed")


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
