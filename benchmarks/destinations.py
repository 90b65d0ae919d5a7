"""Delivery to many hosts, and to healthy hosts beside a dead one.

The queue is filled while all delivery is on hold and let go at once, so that delivery alone is
measured: by name, through a real DNS server, to the sink's counter. Each figure is a ratio of two
runs in the same round.
"""

import contextlib
import random
import shutil
import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import measure
from benchmarks.load import HOST, SENDER, Sink, greets
from benchmarks.peers import ROOT, WAYPOST
from tests.support.dns_servers import Nsd
from tests.support.ports import free_port

_ZONE = "bench.test"
_DEAD_HOST = "127.0.0.66"
_CONTENT = b"Subject: bench\r\n\r\n" + b"x" * 70 + b"\r\n.\r\n"
_HEALTHY = 50  # destinations of the runs with and without a dead one
_DEAD_SHARE = 10  # one message in so many more goes to the dead host
_READY_S = 20.0


@dataclass(frozen=True)
class Destinations:
    """Rates in messages per second, medians over the rounds; ratios are within a round."""

    messages: int
    to_one: float
    to_many: float  # each message to a destination of its own
    many_to_one_ratio: float
    healthy: float
    healthy_beside_dead: float
    beside_dead_ratio: float


def measure_destinations(
    rounds: int, messages: int, seed: int, scratch: Path, say: Callable[[str], None]
) -> Destinations:
    """Four runs in each round, in random order."""
    order = random.Random(seed)
    healthy = [f"u{n}@h{n % _HEALTHY}.{_ZONE}" for n in range(messages)]
    dead = [f"u{n}@dead.{_ZONE}" for n in range(messages // _DEAD_SHARE)]
    loads = {
        "one": [f"u{n}@one.{_ZONE}" for n in range(messages)],
        "many": [f"u@d{n}.{_ZONE}" for n in range(messages)],
        "healthy": healthy,
        "beside dead": order.sample(healthy + dead, len(healthy) + len(dead)),
    }
    rates: dict[str, list[float]] = {name: [] for name in loads}
    for number in range(1, rounds + 1):
        names = list(loads)
        order.shuffle(names)
        for name in names:
            rates[name].append(_rate(loads[name], messages, scratch))
        say(
            f"  round {number}: "
            + ", ".join(f"{name} {values[-1]:.0f}/s" for name, values in rates.items())
        )
    return Destinations(
        messages,
        statistics.median(rates["one"]),
        statistics.median(rates["many"]),
        _ratio(rates["many"], rates["one"]),
        statistics.median(rates["healthy"]),
        statistics.median(rates["beside dead"]),
        _ratio(rates["beside dead"], rates["healthy"]),
    )


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def _rate(recipients: Sequence[str], reachable: int, scratch: Path) -> float:
    """Messages per second that reach the sink, from the release to the last that can."""
    with contextlib.ExitStack() as stack:
        measure.settle_disk()
        directory = scratch / "destinations"
        directory.mkdir()
        stack.callback(shutil.rmtree, directory)
        sink = stack.enter_context(Sink())
        # It takes connections, and never says a word.
        silent = stack.enter_context(socket.create_server((_DEAD_HOST, sink.port)))
        silent.listen(1024)
        zone = f"* MX 10 mx\nmx A {HOST}\ndead MX 10 gone\ngone A {_DEAD_HOST}\n"
        nsd = stack.enter_context(Nsd({_ZONE: zone}))
        port = stack.enter_context(_hub(directory, sink.port, nsd.port))
        _fill(port, recipients)
        started_at = time.monotonic()
        _command(directory, "release", "--all")
        return reachable / (sink.wait_for(reachable) - started_at)


@contextlib.contextmanager
def _hub(directory: Path, sink_port: int, dns_port: int) -> Iterator[int]:
    """A hub that holds what comes in; its port."""
    port = free_port(HOST)
    config = directory / "waypost.toml"
    config.write_text(
        f"""\
data_dir = "{directory / "data"}"
[http]
bind = []
[addresses]
own = ["203.0.113.7"]
[dns]
servers = ["{HOST}:{dns_port}"]
[delivery]
port = {sink_port}
[[listener]]
name = "smtp"
bind = ["{HOST}:{port}"]
[[route]]
name = "bench"
to = ["direct"]
"""
    )
    with (directory / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [str(WAYPOST), "serve", "--config", str(config)], cwd=ROOT, stdout=log, stderr=log
        )
    try:
        deadline = time.monotonic() + _READY_S
        while not greets(port) and time.monotonic() < deadline:
            time.sleep(0.02)
        _command(directory, "hold", "--all")
        yield port
    finally:
        process.kill()  # what it still holds for the dead host is nobody's
        process.wait()


def _command(directory: Path, *arguments: str) -> None:
    command = [str(WAYPOST), "queue", *arguments, "--config", str(directory / "waypost.toml")]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)


def _fill(port: int, recipients: Sequence[str]) -> None:
    """Hand the messages in by one connection, in lockstep groups."""
    with socket.create_connection((HOST, port)) as connection, connection.makefile("rb") as replies:

        def expect(code: bytes, times: int = 1) -> None:
            for _ in range(times):
                while (line := replies.readline())[3:4] == b"-":
                    pass
                if line[:3] != code:
                    raise ValueError(f"{line!r} where {code!r} was expected")

        expect(b"220")
        connection.sendall(b"EHLO bench.example\r\n")
        expect(b"250")
        for recipient in recipients:
            head = f"MAIL FROM:<{SENDER}>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n"
            connection.sendall(head.encode())
            expect(b"250", 2)
            expect(b"354")
            connection.sendall(_CONTENT)
            expect(b"250")
