"""Network namespaces: hosts of their own joined by veth, or a whole Internet in one.

They have no way out and no DNS, and they go at the end of the `with`. Needs root and iproute2.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from pathlib import Path

_CLONE_NEWNET = 0x4000_0000
_ETH_P_ALL = 3
_SYN, _ACK = 0x02, 0x10  # flags of a TCP header
_SO_ATTACH_FILTER, _SO_RCVBUFFORCE = 26, 33  # socket(7)
_SOL_PACKET, _PACKET_STATISTICS = 263, 6  # packet(7)
_WATCH_BYTES = 64 << 20
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
            # Only what leaves and opens something is kept, so that a test may do thousands of
            # things; what came before there was a filter is of no interest.
            program = b"".join(struct.pack("HBBI", *step) for step in _FILTER)
            steps = ctypes.create_string_buffer(program)
            filter_header = struct.pack("HP", len(_FILTER), ctypes.addressof(steps))
            watch.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filter_header)
            watch.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _WATCH_BYTES)
            watch.setblocking(False)
            for _ in _packets(watch):
                pass
            yield attempts
            for packet, kind in _packets(watch):
                if kind == socket.PACKET_OUTGOING:
                    attempts += _attempt_of(packet)
            _, lost = struct.unpack("II", watch.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
            assert not lost, f"{lost} packets were not seen"

    def _ip(self, *arguments: str) -> None:
        _run("ip", "-n", self.name, *arguments)


@contextlib.contextmanager
def joined_namespaces(
    first: Sequence[str], second: Sequence[str]
) -> Iterator[tuple[Namespace, Namespace]]:
    """Two namespaces with a link between them; the sequences are their addresses with prefix."""
    with contextlib.ExitStack() as stack:
        namespaces = stack.enter_context(_namespace()), stack.enter_context(_namespace())
        _run(
            *("ip", "link", "add", _LINK, "netns", namespaces[0].name),
            *("type", "veth", "peer", "name", _LINK, "netns", namespaces[1].name),
        )
        for namespace, addresses in zip(namespaces, (first, second), strict=True):
            _run("ip", "-n", namespace.name, "link", "set", _LINK, "up")
            for address in addresses:
                namespace.add_address(address)
        yield namespaces


@contextlib.contextmanager
def whole_internet(*addresses: str) -> Iterator[Namespace]:
    """One namespace where packets to any address arrive, and any address may be a source (AnyIP).

    Whoever listens at 0.0.0.0 or [::] there is every host of the world. `addresses` are those
    of its interface, which a program takes for its own.
    """
    with _namespace() as namespace:
        for address in addresses:
            _run("ip", "-n", namespace.name, "address", "add", address, "dev", "lo")
        for network in ("0.0.0.0/0", "::/0"):
            _run("ip", "-n", namespace.name, "route", "add", "local", network, "dev", "lo")
        with namespace.entered():
            # /proc/sys/net is that of whoever opens it.
            Path("/proc/sys/net/ipv6/ip_nonlocal_bind").write_text("1")
        yield namespace


@contextlib.contextmanager
def _namespace() -> Iterator[Namespace]:
    """A namespace of its own, with a loopback and nothing else."""
    if os.geteuid() != 0:
        raise AssertionError("network namespaces need root: run these tests as root (sudo)")
    name = f"waypost-{os.getpid()}-{next(_numbers)}"
    with contextlib.ExitStack() as stack:
        stack.callback(_remove, name)
        # Empty: a resolver then asks this very host, where nobody answers.
        overlay = _OVERLAYS / name / "resolv.conf"
        overlay.parent.mkdir(parents=True)
        overlay.touch()
        _run("ip", "netns", "add", name)
        _run("ip", "-n", name, "link", "set", "lo", "up")
        yield Namespace(name)


def _packets(watch: socket.socket) -> Iterator[tuple[bytes, int]]:
    """What has been seen so far, and whether it came or went."""
    with contextlib.suppress(BlockingIOError):
        while True:
            packet, (_, _, kind, *_) = watch.recvfrom(65_536)
            yield packet, kind


# What `_attempt_of` needs to see, for the kernel (classic BPF): of packets that leave
# (PACKET_OUTGOING, at the ancillary offset of the packet's type), UDP and the first of a TCP
# connection, by IPv4 and by IPv6. Each step: code, jump if true, jump if false, operand.
_LOAD, _LOAD_INDEXED, _INDEX, _SHIFT, _AND, _EQUAL, _RETURN = 0x30, 0x50, 0xB1, 0x74, 0x54, 0x15, 6
_FILTER = (
    (_LOAD, 0, 0, 0xFFFF_F004),
    (_EQUAL, 0, 18, socket.PACKET_OUTGOING),
    (_LOAD, 0, 0, 0),
    (_SHIFT, 0, 0, 4),
    (_EQUAL, 0, 7, 4),
    (_LOAD, 0, 0, 9),
    (_EQUAL, 12, 0, socket.IPPROTO_UDP),
    (_EQUAL, 0, 12, socket.IPPROTO_TCP),
    (_INDEX, 0, 0, 0),
    (_LOAD_INDEXED, 0, 0, 13),
    (_AND, 0, 0, _SYN | _ACK),
    (_EQUAL, 7, 8, _SYN),
    (_EQUAL, 0, 7, 6),
    (_LOAD, 0, 0, 6),
    (_EQUAL, 4, 0, socket.IPPROTO_UDP),
    (_EQUAL, 0, 4, socket.IPPROTO_TCP),
    (_LOAD, 0, 0, 53),
    (_AND, 0, 0, _SYN | _ACK),
    (_EQUAL, 0, 1, _SYN),
    (_RETURN, 0, 0, 0xFFFF),
    (_RETURN, 0, 0, 0),
)


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
    # What a name server says opens nothing.
    begins = begins or (protocol == socket.IPPROTO_UDP and payload[:2] != b"\0\x35")
    if not begins:
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
