"""Impatient devices: answered while others crowd the hub, before DNS, and before delivery.

What is asserted is order and counts; the times are printed (pytest -s).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from tests.devices.test_catalogue import Device
from tests.support.hub import Hub
from tests.support.toml import route

CROWD = 50
PROBES = 60
# In what order a device hears what; each waits for the one before.
DIALOGUE = (
    ("220", b""),
    ("250", b"EHLO ups\r\n"),
    ("250 2.1.0", b"MAIL FROM:<ups@power.lan>\r\n"),
    ("250 2.1.5", b"RCPT TO:<%s@[127.0.0.1]>\r\n"),
    ("354", b"DATA\r\n"),
    ("250 2.0.0 queued as", b"Subject: on battery\r\n\r\non battery\r\n.\r\n"),
    ("221", b"QUIT\r\n"),
)
# While a device waits for one reply, so many others are given at most, for each of the crowd: a
# client that waits for each reply gets few before it has to wait for the disk, too.
REPLIES_EACH = 2 * len(DIALOGUE)


@dataclass
class Run:
    """What the devices of one run had to wait for."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    overtaken: list[int] = field(default_factory=list)  # replies to others meanwhile
    sent: int = 0

    def figures(self) -> str:
        lines = []
        for said, seconds in self.seconds.items():
            cuts = statistics.quantiles(seconds, n=100, method="inclusive")
            lines.append(
                f"  {said:<20} p50 {cuts[49] * 1e3:7.2f}  p95 {cuts[94] * 1e3:7.2f}"
                f"  p99 {cuts[98] * 1e3:7.2f}  max {max(seconds) * 1e3:7.2f} ms"
            )
        everything = [second for seconds in self.seconds.values() for second in seconds]
        late = sum(second > 0.1 for second in everything)
        lines.append(f"  {len(everything)} replies, {late} of them after 100 ms")
        return "\n".join(lines)


class Crowd:
    """Clients that send one mail after the other, each waiting for every reply."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._is_over = False
        self.replies = 0
        self.sent = 0

    async def client(self) -> None:
        while not self._is_over:
            await self.send(b"crowd", None)
            self.sent += 1

    async def send(self, mailbox: bytes, run: Run | None) -> None:
        """One mail; into `run` goes what was waited for."""
        began_at, others = time.perf_counter(), self.replies
        reader, writer = await asyncio.open_connection(self._hub.host, self._hub.port)
        for said, command in DIALOGUE:
            if command:
                began_at, others = time.perf_counter(), self.replies
                writer.write(command % mailbox if b"%s" in command else command)
            line = await reader.readline()
            while line[3:4] == b"-":
                line = await reader.readline()
            assert line.startswith(said.encode()), line
            if run is None:
                self.replies += 1
                continue
            key = said if command[:4] != b"EHLO" else "250 (EHLO)"
            run.seconds.setdefault(key, []).append(time.perf_counter() - began_at)
            run.overtaken.append(self.replies - others)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    def end(self) -> None:
        self._is_over = True


async def measured(hub: Hub, crowd_size: int) -> tuple[Run, int]:
    """One device after the other, beside a crowd; and how many mails that has sent."""
    crowd, run = Crowd(hub), Run()
    async with asyncio.TaskGroup() as group:
        for _ in range(crowd_size):
            group.create_task(crowd.client())
        while crowd.sent < crowd_size:  # until it is under way
            await asyncio.sleep(0.01)
        for _ in range(PROBES):
            await crowd.send(b"device", run)
        crowd.end()
    return run, crowd.sent


def test_a_device_is_answered_in_its_turn_under_load(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with Hub(tmp_path_factory.mktemp("crowded")) as hub:
        alone, _ = asyncio.run(measured(hub, 0))
        loaded, crowd_sent = asyncio.run(measured(hub, CROWD))
        print(f"\nalone:\n{alone.figures()}\nbeside {CROWD} clients, {crowd_sent} mails of theirs:")
        print(loaded.figures())
        print(f"  most replies to others while it waited for one: {max(loaded.overtaken)}")
        assert crowd_sent >= CROWD
        assert max(loaded.overtaken) <= REPLIES_EACH * CROWD
        assert statistics.median(loaded.overtaken) <= CROWD
        hub.wait_for_mail("device", 2 * PROBES)
        hub.wait_for_mail("crowd", crowd_sent)
        assert len(hub.mailbox("device")) == 2 * PROBES
        assert len(hub.mailbox("crowd")) == crowd_sent


@pytest.fixture
def silent_peers() -> Iterator[tuple[int, socket.socket]]:
    """The port of a host that takes connections and says nothing, and a DNS server alike."""
    with (
        socket.create_server(("127.0.0.1", 0)) as host,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as dns,
    ):
        dns.bind(("127.0.0.1", 0))
        dns.setblocking(False)
        yield host.getsockname()[1], dns


def test_no_dns_and_no_delivery_comes_before_a_reply(
    tmp_path_factory: pytest.TempPathFactory, silent_peers: tuple[int, socket.socket]
) -> None:
    """All is said, although nothing can be looked up and the mail goes nowhere."""
    port, dns = silent_peers
    config = f'[dns]\nservers = ["127.0.0.1:{dns.getsockname()[1]}"]\n'
    config += route(f"smtp:[127.0.0.1]:{port}", match='recipient = "onward@*"')
    with Hub(tmp_path_factory.mktemp("silent"), config) as hub:
        device = Device(hub, "127.0.0.2")
        with device.socket:
            for said, command in DIALOGUE:
                if command:
                    device.send([command.replace(b"%s", b"onward")])
                device.hears(said)
        assert len(hub.json("queue", "list")) == 1
        with pytest.raises(BlockingIOError):
            dns.recv(512)


@pytest.mark.parametrize(
    "command", [b"EHLO ups\r\n", b"HELP\r\n", b"VRFY x\r\n", b"MAIL FROM:<>\r\n"]
)
def test_a_reply_comes_in_one_piece(
    tmp_path_factory: pytest.TempPathFactory, command: bytes
) -> None:
    """A device that reads once has all of it, however many lines there are."""
    with Hub(tmp_path_factory.mktemp("pieces")) as hub:
        for _ in range(20):
            with socket.create_connection((hub.host, hub.port), 20) as connection:
                assert connection.recv(65_536).endswith(b"\r\n")
                connection.sendall(b"EHLO ups\r\n")
                said = connection.recv(65_536)
                if not command.startswith(b"EHLO"):
                    connection.sendall(command)
                    said = connection.recv(65_536)
                lines = said.split(b"\r\n")
                assert lines.pop() == b""
                assert [line[3:4] for line in lines] == [b"-"] * (len(lines) - 1) + [b" "]
