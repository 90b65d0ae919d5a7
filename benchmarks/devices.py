"""Two hundred devices at once, each with a picture: how long each waits for each answer.

Every server also passes the mail on to the sink meanwhile, except aiosmtpd, which keeps nothing.
The devices are one program (device_source.py) that shares the machine with the server: its own
delays are in all the figures, and the same for all.
"""

import json
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import measure
from benchmarks.device_source import ANSWERS, DEVICES, PICTURE_BYTES, SESSION
from benchmarks.errors import BenchmarkError
from benchmarks.load import Mode
from benchmarks.peers import ROOT, Aiosmtpd, Peer, PostfixPeer, Task, Waypost
from benchmarks.runs import Say
from benchmarks.stage import stage

LATE_S = 0.1
_PEERS: tuple[type[Peer], ...] = (Waypost, PostfixPeer, Aiosmtpd)
_WARM_UP = 100  # messages, so that nothing is loaded for the first time while we measure
_LIMIT_S = 180.0


@dataclass(frozen=True)
class Waits:
    """For one kind of answer, over all devices and rounds, in seconds."""

    answer: str
    median: float
    percentile_99: float
    longest: float
    late: int  # longer than LATE_S
    count: int


@dataclass(frozen=True)
class Crowd:
    """One peer."""

    peer: str
    task: str
    devices: int
    picture_bytes: int
    waits: tuple[Waits, ...]  # of each kind of answer, and of all together
    session: Waits
    peak_resident_bytes: int  # all processes, the highest of the rounds
    shared_fairly_bytes: int  # just after


def measure_devices(
    rounds: int, seed: int, peers: Sequence[type[Peer]], scratch: Path, say: Say
) -> tuple[Crowd, ...]:
    """Each peer once in each round, in random order."""
    order = random.Random(seed)
    kinds = [kind for kind in _PEERS if kind in peers]
    found: dict[str, list[tuple[dict[str, list[float]], int, int]]] = {
        kind.name: [] for kind in kinds
    }
    for number in range(1, rounds + 1):
        say(f"devices, round {number} of {rounds}")
        for kind in order.sample(kinds, len(kinds)):
            waits, peak, fair = _run(kind, scratch)
            found[kind.name].append((waits, peak, fair))
            together = _waits("", [one for answer in ANSWERS for one in waits[answer]])
            say(
                f"  {kind.name}: half of the answers within {together.median * 1000:.1f} ms, all"
                f" within {together.longest * 1000:.0f} ms"
            )
    return tuple(_crowd(kind, found[kind.name]) for kind in kinds)


def _crowd(kind: type[Peer], runs: Sequence[tuple[dict[str, list[float]], int, int]]) -> Crowd:
    times = {
        answer: [one for waits, _, _ in runs for one in waits[answer]]
        for answer in (*ANSWERS, SESSION)
    }
    together = [one for answer in ANSWERS for one in times[answer]]
    return Crowd(
        peer=kind.name,
        task=_task_of(kind).value,
        devices=DEVICES,
        picture_bytes=PICTURE_BYTES,
        waits=(*(_waits(answer, times[answer]) for answer in ANSWERS), _waits("all", together)),
        session=_waits(SESSION, times[SESSION]),
        peak_resident_bytes=max(peak for _, peak, _ in runs),
        shared_fairly_bytes=max(fair for _, _, fair in runs),
    )


def _task_of(kind: type[Peer]) -> Task:
    return Task.RELAY if Task.RELAY in kind.tasks else Task.ACCEPT


def _run(kind: type[Peer], scratch: Path) -> tuple[dict[str, list[float]], int, int]:
    """How long the devices waited, by answer; the peak of memory, and the fair share after."""
    with stage(kind, _task_of(kind), scratch) as on:
        on.send(_WARM_UP, Mode.ONE)
        on.let_settle()
        measure.forget_peak(on.server_pids())
        command = [sys.executable, "-m", "benchmarks.device_source", str(on.peer.port)]
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=_LIMIT_S
        )
        if done.returncode != 0:
            raise BenchmarkError(f"{kind.name}, devices: {done.stderr.strip()[-500:]}")
        on.sent += DEVICES
        if on.sink is not None:
            on.sink.wait_for(on.sent)
        on.let_settle()
        pids = on.server_pids()
        peak, fair = measure.peak_resident_bytes(pids), measure.shared_fairly_bytes(pids)
        on.prove()
    waits: dict[str, list[float]] = json.loads(done.stdout)
    return waits, peak, fair


def _waits(answer: str, times: Sequence[float]) -> Waits:
    ordered = sorted(times)
    return Waits(
        answer=answer,
        median=_percentile(ordered, 50),
        percentile_99=_percentile(ordered, 99),
        longest=ordered[-1],
        late=sum(time > LATE_S for time in ordered),
        count=len(ordered),
    )


def _percentile(ordered: Sequence[float], percent: int) -> float:
    """The least of the values that so many percent are not above."""
    return ordered[max(-(-len(ordered) * percent // 100) - 1, 0)]
