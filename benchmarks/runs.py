"""Timed runs, and the rounds made of them."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import measure
from benchmarks.load import Mode
from benchmarks.peers import Peer, Task
from benchmarks.stage import stage

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    rounds: int
    messages: int  # in each timed run
    warm_up: int  # messages before it
    seed: int


@dataclass(frozen=True)
class Run:
    """What one timed run showed. CPU times are for all its messages together."""

    round: int
    task: str
    mode: str
    peer: str
    messages: int
    seconds: float
    server_cpu_s: float
    generator_cpu_s: float
    sink_cpu_s: float
    peak_resident_bytes: int
    shared_fairly_bytes: int

    @property
    def rate(self) -> float:
        return self.messages / self.seconds

    def per_message_us(self, seconds: float) -> float:
        return seconds / self.messages * 1e6


@dataclass(frozen=True)
class Rounds:
    runs: tuple[Run, ...]
    sync_latency_us: tuple[float, ...]  # of the disk, probed before each round


def run_rounds(
    plan: Plan, tasks: Sequence[Task], peers: Sequence[type[Peer]], scratch: Path, say: Say
) -> Rounds:
    """Each round runs every task, mode and peer once, in an order of its own."""
    draw = random.Random(plan.seed)
    jobs = [
        (task, mode, peer)
        for task in tasks
        for mode in Mode
        for peer in peers
        if task in peer.tasks
    ]
    runs: list[Run] = []
    latencies: list[float] = []
    for number in range(1, plan.rounds + 1):
        measure.settle_disk()
        latencies.append(measure.sync_latency_us(scratch))
        say(f"round {number} of {plan.rounds}; an fdatasync takes {latencies[-1]:.0f} us")
        draw.shuffle(jobs)
        for task, mode, peer in jobs:
            run = _run(number, task, mode, peer, plan, scratch)
            runs.append(run)
            say(
                f"  {task.value}, {mode.value}: {peer.name} {run.rate:.0f}/s in {run.seconds:.1f} s"
            )
    return Rounds(tuple(runs), tuple(latencies))


def _run(number: int, task: Task, mode: Mode, kind: type[Peer], plan: Plan, scratch: Path) -> Run:
    with stage(kind, task, scratch) as on:
        on.send(plan.warm_up, mode)
        on.let_settle()
        server_before_s, sink_before_s = on.server_cpu_s(), on.sink_cpu_s()
        messages = plan.messages * kind.stretch
        passage = on.send(messages, mode)
        on.let_settle()
        server_cpu_s, sink_cpu_s = on.server_cpu_s(), on.sink_cpu_s()
        pids = on.server_pids()
        run = Run(
            round=number,
            task=task.value,
            mode=mode.value,
            peer=kind.name,
            messages=messages,
            seconds=passage.seconds,
            server_cpu_s=server_cpu_s - server_before_s,
            generator_cpu_s=passage.generator_cpu_s,
            sink_cpu_s=sink_cpu_s - sink_before_s,
            peak_resident_bytes=measure.peak_resident_bytes(pids),
            shared_fairly_bytes=measure.shared_fairly_bytes(pids),
        )
        on.prove()
    return run
