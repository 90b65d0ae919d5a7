"""One message to fifty targets: how many a second arrive everywhere, and when the last one does.

A message counts once its last target has it, by the targets' own counts. Postfix has no route with
many targets; what comes nearest is an alias of fifty addresses, each at a host of its own. So the
two are compared over fifty SMTP hosts, and Waypost is measured over targets of all kinds besides.
"""

import contextlib
import http.client
import random
import smtplib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from benchmarks import measure
from benchmarks.errors import BenchmarkError
from benchmarks.load import (
    HOST,
    MESSAGE_BYTES,
    RECIPIENT,
    SENDER,
    SINK_SESSIONS,
    STALLED_S,
    Generator,
    Mode,
)
from benchmarks.peers import ROOT, Peer, PostfixPeer, Setup, Task, TunedPostfix, Waypost
from benchmarks.ratios import Ratio, ratio_of
from benchmarks.runs import Say
from benchmarks.stage import Stage, stage
from tests.support.mosquitto import Listener, Mosquitto
from tests.support.ports import free_port

TARGETS = 50
# With 50 targets each, so that a run takes as long as the others do.
_MESSAGES_SHARE = 50
_WARM_UP = 10
_ALONE = 20  # messages sent one after the other, each when the one before is everywhere
_LOOK_S = 0.001  # how exact the time of the last arrival is
_READY_S = 20.0
_EVERYWHERE = "0.0.0.0"
_MEMBERS = 5  # of the list
_OTHERS = 5  # mailbox, list, webhook, notification, MQTT
_CONTENT = b"Subject: bench\r\n\r\n" + (b"x" * 78 + b"\r\n") * (MESSAGE_BYTES // 80)


@dataclass(frozen=True)
class FanOut:
    """Of one peer: medians over the rounds, and over all messages sent alone."""

    peer: str
    targets: int
    messages: int  # in each run
    rate: float  # messages per second, each at all its targets
    ratios: dict[str, Ratio]  # of the rate, by yardstick
    last_arrival_s: float  # behind the 250, of a message that is alone
    latest_last_arrival_s: float


def _host(number: int) -> str:
    return f"127.0.2.{number + 1}"


def _smtp_targets(count: int, port: int) -> list[str]:
    return [f"smtp:[{_host(number)}]:{port}" for number in range(count)]


class _Spread(Peer):
    """A peer that passes each message on to TARGETS targets."""

    targets_elsewhere: ClassVar[int] = 0  # that are not the sink
    at_sink: ClassVar[int] = TARGETS  # arrivals there for each message

    def elsewhere(self) -> int:
        """What has arrived at targets that are not the sink."""
        return 0


class _SpreadWaypost(Waypost, _Spread):
    """One route with an SMTP host for each target."""

    def routes(self, setup: Setup) -> str:
        return _route(_smtp_targets(TARGETS, setup.sink_port))


class _AllKinds(Waypost, _Spread):
    """One route with targets of all kinds; brings the servers they need."""

    name = "Waypost, all kinds"
    targets_elsewhere = _OTHERS - 1
    at_sink = TARGETS - _OTHERS + 1  # the list's members are at one host: one transaction

    def __init__(self) -> None:
        self._servers = contextlib.ExitStack()

    def start(self, setup: Setup) -> None:
        self._mailbox = setup.directory / "data" / "mail" / "alerts" / "new"
        self._broker = self._servers.enter_context(Mosquitto())
        self._hooks = self._servers.enter_context(_Hooks())
        super().start(setup)
        self._listener: Listener = self._servers.enter_context(
            self._broker.listener("waypost/+/event")
        )

    def routes(self, setup: Setup) -> str:
        targets = ["mailbox:alerts", "list:people", "webhook:plc", "notify:phones", "mqtt:motion"]
        targets += _smtp_targets(TARGETS - _OTHERS, setup.sink_port)
        members = ", ".join(f'"m{number}@people.example"' for number in range(_MEMBERS))
        onward = f'match = {{ recipient = "*@people.example" }}\nto = ["{_onward(setup)}"]\n'
        return (
            f'[[route]]\nname = "people"\n{onward}{_route(targets)}'
            f"[list.people]\nmembers = [{members}]\n"
            f'[mqtt]\nurl = "mqtt://{HOST}:{self._broker.port}"\n'
            f'[webhook.plc]\nurl = "http://{HOST}:{self._hooks.port}/plc"\n'
            f'[notify.phones]\nurls = ["json://{HOST}:{self._hooks.port}/phones"]\n'
        )

    def elsewhere(self) -> int:
        events = sum(got.topic.endswith("/event") for got in self._listener.got())
        kept = len(list(self._mailbox.iterdir())) if self._mailbox.exists() else 0
        return events + kept + self._hooks.count()

    def stop(self) -> None:
        super().stop()
        self._servers.close()


class _SpreadPostfix(PostfixPeer, _Spread):
    """An alias of as many addresses, each at an SMTP host of its own."""

    def settings(self, setup: Setup) -> dict[str, str]:
        return super().settings(setup) | _aliases(setup)


class _SpreadTunedPostfix(TunedPostfix, _Spread):
    """As above."""

    def settings(self, setup: Setup) -> dict[str, str]:
        return super().settings(setup) | _aliases(setup)


_PEERS: tuple[type[_Spread], ...] = (
    *(_SpreadWaypost, _AllKinds),
    *(_SpreadPostfix, _SpreadTunedPostfix),
)
# The same fifty hosts; targets of other kinds are nobody else's.
_COMPARED = (_SpreadWaypost.name, _SpreadPostfix.name, _SpreadTunedPostfix.name)
_YARDSTICKS = (_SpreadPostfix.name, _SpreadTunedPostfix.name)


class _Hooks:
    """The web server of servers/hooks.py."""

    def __enter__(self) -> "_Hooks":
        self.port = free_port(HOST)
        command = [sys.executable, "-m", "benchmarks.servers.hooks", str(self.port)]
        self._process = subprocess.Popen(command, cwd=ROOT)
        self._client = http.client.HTTPConnection(HOST, self.port, timeout=_READY_S)
        deadline = time.monotonic() + _READY_S
        while True:
            try:
                self._client.connect()
            except OSError:
                if time.monotonic() > deadline:
                    self.__exit__()
                    raise
                time.sleep(0.02)
            else:
                return self

    def __exit__(self, *_: object) -> None:
        self._client.close()
        self._process.kill()
        self._process.wait()

    def count(self) -> int:
        """The POSTs so far."""
        self._client.request("GET", "/")
        return int(self._client.getresponse().read())


def measure_fanout(
    rounds: int, messages: int, seed: int, peers: Sequence[type[Peer]], scratch: Path, say: Say
) -> tuple[FanOut, ...]:
    """Each peer once in each round, in random order."""
    kinds = [kind for kind in _PEERS if issubclass(kind, tuple(peers))]
    count = max(messages // _MESSAGES_SHARE, 1)
    order = random.Random(seed)
    rates: dict[str, list[float]] = {kind.name: [] for kind in kinds}
    last: dict[str, list[float]] = {kind.name: [] for kind in kinds}
    for number in range(1, rounds + 1):
        say(f"fan-out, round {number} of {rounds}")
        for kind in order.sample(kinds, len(kinds)):
            rate, alone = _run(kind, count, scratch)
            rates[kind.name].append(rate)
            last[kind.name] += alone
            say(
                f"  {kind.name}: {rate:.1f} messages/s at {TARGETS} targets;"
                f" alone the last has it after {statistics.median(alone) * 1000:.0f} ms"
            )
    return tuple(
        FanOut(
            peer=kind.name,
            targets=TARGETS,
            messages=count,
            rate=statistics.median(rates[kind.name]),
            ratios={
                name: ratio_of(rates[kind.name], rates[name], seed)
                for name in _YARDSTICKS
                if kind.name in _COMPARED and name != kind.name
            },
            last_arrival_s=statistics.median(last[kind.name]),
            latest_last_arrival_s=max(last[kind.name]),
        )
        for kind in kinds
    )


def _run(kind: type[_Spread], messages: int, scratch: Path) -> tuple[float, list[float]]:
    """Messages per second, and how long the last arrival took of each that was alone."""
    with (
        measure.files_allowed(SINK_SESSIONS + 1000),
        stage(kind, Task.RELAY, scratch, sink_host=_EVERYWHERE) as on,
    ):
        _burst(on, kind, _WARM_UP)
        alone = _alone(on, kind)
        seconds = _burst(on, kind, messages)
        on.let_settle()
        if (found := _elsewhere(on)) != kind.targets_elsewhere * on.sent // kind.at_sink:
            raise BenchmarkError(f"{found} arrived that are not the sink's: too many")
        on.prove()
    return messages / seconds, alone


def _burst(on: Stage, kind: type[_Spread], messages: int) -> float:
    """Seconds from the first message to the last arrival."""
    on.sent += messages * kind.at_sink
    generator = Generator(on.peer.port, messages, Mode.MANY)
    try:
        arrived_at = _wait(on, kind, generator.check)
        generator.wait()
    finally:
        generator.stop()
    return arrived_at - generator.started_at


def _alone(on: Stage, kind: type[_Spread]) -> list[float]:
    """Seconds from the 250 of a message to its last arrival, one message after the other."""
    took = []
    with smtplib.SMTP(HOST, on.peer.port, local_hostname="bench.example") as client:
        for _ in range(_ALONE):
            on.sent += kind.at_sink
            client.sendmail(SENDER, RECIPIENT, _CONTENT)
            accepted_at = time.monotonic()
            took.append(_wait(on, kind) - accepted_at)
    return took


def _wait(on: Stage, kind: type[_Spread], check: Callable[[], None] = lambda: None) -> float:
    """The time at which all targets had all that was sent."""
    assert on.sink is not None
    arrived_at = on.sink.wait_for(on.sent, check)
    wanted = kind.targets_elsewhere * on.sent // kind.at_sink
    deadline = arrived_at + STALLED_S
    while (found := _elsewhere(on)) < wanted:
        check()
        if time.monotonic() > deadline:
            raise BenchmarkError(f"only {found} of {wanted} arrived that are not the sink's")
        time.sleep(_LOOK_S)
        arrived_at = time.monotonic()
    return arrived_at


def _elsewhere(on: Stage) -> int:
    assert isinstance(on.peer, _Spread)
    return on.peer.elsewhere()


def _route(targets: Sequence[str]) -> str:
    quoted = ", ".join(f'"{target}"' for target in targets)
    match = f'match = {{ recipient = "{RECIPIENT}" }}'
    return f'[[route]]\nname = "bench"\n{match}\nto = [{quoted}]\n'


def _onward(setup: Setup) -> str:
    return f"smtp:[{HOST}]:{setup.sink_port}"


def _aliases(setup: Setup) -> dict[str, str]:
    names = [f"h{number}.fan.example" for number in range(TARGETS)]
    hosts = ", ".join(
        f"{{ {name} = smtp:[{_host(number)}]:{setup.sink_port} }}"
        for number, name in enumerate(names)
    )
    addresses = ", ".join(f"u@{name}" for name in names)
    return {
        "virtual_alias_maps": f"inline:{{ {{ {RECIPIENT} = {addresses} }} }}",
        "transport_maps": f"inline:{{ {hosts} }}",
    }
