"""The result: tables for people, and JSON with the raw runs for everyone who doubts them."""

import dataclasses
import datetime
import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.addresses import Reading
from benchmarks.destinations import Destinations
from benchmarks.devices import LATE_S, Crowd
from benchmarks.fanout import FanOut
from benchmarks.load import CONNECTIONS, MESSAGE_BYTES, Mode
from benchmarks.memory import Memory
from benchmarks.peers import Aiosmtpd, Peer, PostfixPeer, Task, TunedPostfix
from benchmarks.ratios import Ratio, ratio_of
from benchmarks.runs import Plan, Rounds, Run
from benchmarks.syncs import Syncs

# Whom the others are measured against.
_YARDSTICKS: dict[Task, tuple[type[Peer], ...]] = {
    Task.ACCEPT: (PostfixPeer, Aiosmtpd),
    Task.RELAY: (PostfixPeer, TunedPostfix),
    Task.STARTTLS: (PostfixPeer,),
}
_MIB = 1 << 20


@dataclass(frozen=True)
class Row:
    """One peer in one table: medians over the rounds."""

    task: str
    mode: str
    peer: str
    rate: float
    ratios: dict[str, Ratio]  # by yardstick
    server_cpu_us: float
    generator_cpu_us: float
    sink_cpu_us: float
    peak_resident_bytes: int
    shared_fairly_bytes: int


@dataclass(frozen=True)
class Result:
    machine: dict[str, str | int]
    versions: dict[str, str]
    cpu_method: str
    plan: Plan
    rounds: Rounds | None  # None, here and below: not measured this time
    syncs: tuple[Syncs, ...] | None
    memory: Memory | None
    addresses: tuple[Reading, ...] | None
    destinations: Destinations | None
    fanout: tuple[FanOut, ...] | None
    devices: tuple[Crowd, ...] | None

    def rows(self) -> list[Row]:
        if self.rounds is None:
            return []
        return [
            row
            for task in Task
            for mode in Mode
            for row in _rows(self.rounds.runs, task, mode, self.plan.seed)
        ]


def as_text(result: Result) -> str:
    lines = [
        f"{result.machine['cores']} cores, {result.machine['kernel']},"
        f" {result.machine['file_system']}, {result.machine['python']};"
        f" {', '.join(f'{name} {version}' for name, version in result.versions.items())}",
    ]
    if result.rounds is not None:
        lines += [
            f"{result.plan.messages} messages of {MESSAGE_BYTES} bytes by {CONNECTIONS} connections"
            f" in each run; {result.plan.rounds} rounds, seed {result.plan.seed};"
            f" an fdatasync takes {statistics.median(result.rounds.sync_latency_us):.0f} us",
            "x NAME: messages per second as a multiple of NAME's in the same round,"
            " median [95 % interval]",
        ]
    rows = result.rows()
    for task in Task:
        for mode in Mode:
            table = [row for row in rows if (row.task, row.mode) == (task.value, mode.value)]
            if table:
                lines += ["", f"{task.value}, {mode.value}", *_rate_table(task, table)]
    if result.syncs is not None:
        lines += ["", "asked of the disk, per message (not timed)", *_sync_table(result.syncs)]
    if result.memory is not None:
        lines += ["", "memory", *_memory_table(result.memory)]
    if result.addresses is not None:
        lines += ["", "to read one address, us (syntax only)", *_address_table(result.addresses)]
    if result.destinations is not None:
        lines += ["", *_destination_lines(result.destinations)]
    if result.fanout is not None:
        lines += ["", *_fanout_lines(result.fanout)]
    if result.devices is not None:
        lines += ["", *_device_lines(result.devices)]
    return "\n".join(lines)


def save(result: Result, directory: Path, *, quick: bool) -> Path:
    """Write the JSON under a name that tells the day and what was measured; keep older ones."""
    measured = [task.value for task in Task if any(row.task == task.value for row in result.rows())]
    measured += ["syncs"] if result.syncs is not None else []
    measured += ["memory"] if result.memory is not None else []
    measured += ["addresses"] if result.addresses is not None else []
    measured += ["destinations"] if result.destinations is not None else []
    measured += ["fanout"] if result.fanout is not None else []
    measured += ["devices"] if result.devices is not None else []
    measured += ["quick"] if quick else []
    stem = "-".join([datetime.datetime.now(datetime.UTC).date().isoformat(), *measured])
    path = directory / f"{stem}.json"
    number = 2
    while path.exists():
        path = directory / f"{stem}-{number}.json"
        number += 1
    directory.mkdir(exist_ok=True)
    path.write_text(json.dumps(_as_json(result), indent=1) + "\n")
    return path


def _as_json(result: Result) -> dict[str, object]:
    found = dataclasses.asdict(result)
    found["load"] = {"message_bytes": MESSAGE_BYTES, "connections": CONNECTIONS}
    found["summary"] = [dataclasses.asdict(row) for row in result.rows()]
    return found


def _rows(runs: Sequence[Run], task: Task, mode: Mode, seed: int) -> list[Row]:
    by_peer: dict[str, list[Run]] = {}
    for run in runs:
        if (run.task, run.mode) == (task.value, mode.value):
            by_peer.setdefault(run.peer, []).append(run)
    rows = []
    for peer, its in by_peer.items():
        ratios = {}
        for yardstick in _YARDSTICKS[task]:
            theirs = by_peer.get(yardstick.name)
            if theirs is not None and yardstick.name != peer:
                # Both lists are in the order of the rounds: each round has one run of each.
                rates = [run.rate for run in its], [run.rate for run in theirs]
                ratios[yardstick.name] = ratio_of(*rates, seed)
        rows.append(
            Row(
                task=task.value,
                mode=mode.value,
                peer=peer,
                rate=statistics.median(run.rate for run in its),
                ratios=ratios,
                server_cpu_us=_median_us((run, run.server_cpu_s) for run in its),
                generator_cpu_us=_median_us((run, run.generator_cpu_s) for run in its),
                sink_cpu_us=_median_us((run, run.sink_cpu_s) for run in its),
                peak_resident_bytes=max(run.peak_resident_bytes for run in its),
                shared_fairly_bytes=max(run.shared_fairly_bytes for run in its),
            )
        )
    return sorted(rows, key=lambda row: row.rate, reverse=True)


def _median_us(seconds_by_run: Iterable[tuple[Run, float]]) -> float:
    return statistics.median(run.per_message_us(seconds) for run, seconds in seconds_by_run)


def _rate_table(task: Task, rows: Sequence[Row]) -> list[str]:
    yardsticks = [yardstick.name for yardstick in _YARDSTICKS[task]]
    head = ["", "msg/s", *(f"x {name}" for name in yardsticks)]
    head += ["CPU us/msg", "generator", "sink", "peak RSS MiB", "PSS MiB"]
    return _table(
        head,
        [
            [
                row.peer,
                f"{row.rate:,.0f}",
                *(_ratio_text(row.ratios.get(name)) for name in yardsticks),
                f"{row.server_cpu_us:,.0f}",
                f"{row.generator_cpu_us:,.0f}",
                f"{row.sink_cpu_us:,.0f}",
                f"{row.peak_resident_bytes / _MIB:,.0f}",
                f"{row.shared_fairly_bytes / _MIB:,.0f}",
            ]
            for row in rows
        ],
    )


def _ratio_text(ratio: Ratio | None) -> str:
    if ratio is None:
        return ""
    return f"{ratio.median:.2f} [{ratio.low:.2f}-{ratio.high:.2f}]"


def _sync_table(found: Sequence[Syncs]) -> list[str]:
    return _table(
        ["", "", "syncs", "files created", "calls"],
        [
            [
                syncs.peer,
                syncs.task,
                f"{syncs.syncs:.3f}",
                f"{syncs.files_created:.3f}",
                ", ".join(f"{call} {count:.3f}" for call, count in syncs.syncs_by_call.items()),
            ]
            for syncs in found
        ],
    )


def _address_table(readings: Sequence[Reading]) -> list[str]:
    rows = [
        [
            reading.kind,
            f"{reading.waypost_us:.2f}",
            f"{reading.email_validator_us:.2f}",
            f"{reading.ratio:.1f} x",
        ]
        for reading in readings
    ]
    return _table(["", "Waypost", "email-validator", "faster"], rows)


def _destination_lines(found: Destinations) -> list[str]:
    return [
        f"delivery by name of {found.messages} messages held before, in messages per second",
        *_table(
            ["", "rate", "of", "ratio"],
            [
                ["to one destination", f"{found.to_one:.0f}", "", ""],
                [
                    f"to {found.messages} destinations",
                    f"{found.to_many:.0f}",
                    "one destination",
                    f"{found.many_to_one_ratio:.2f}",
                ],
                ["to 50 healthy destinations", f"{found.healthy:.0f}", "", ""],
                [
                    "the same beside a dead one",
                    f"{found.healthy_beside_dead:.0f}",
                    "without it",
                    f"{found.beside_dead_ratio:.2f}",
                ],
            ],
        ),
    ]


def _fanout_lines(found: Sequence[FanOut]) -> list[str]:
    yardsticks = list(dict.fromkeys(name for one in found for name in one.ratios))
    head = ["", "msg/s", *(f"x {name}" for name in yardsticks)]
    rows = [
        [
            one.peer,
            f"{one.rate:.1f}",
            *(_ratio_text(one.ratios.get(name)) for name in yardsticks),
            f"{one.last_arrival_s * 1000:.0f}",
            f"{one.latest_last_arrival_s * 1000:.0f}",
        ]
        for one in found
    ]
    return [
        f"one message to {found[0].targets} targets, {found[0].messages} messages in each run:"
        " messages a second that are everywhere, and ms from the 250 of one that is alone to its"
        " last arrival",
        *_table([*head, "last arrival, ms", "at most"], rows),
    ]


def _device_lines(found: Sequence[Crowd]) -> list[str]:
    rows = [
        [
            crowd.peer if number == 0 else "",
            waits.answer,
            *(f"{s * 1000:.1f}" for s in (waits.median, waits.percentile_99, waits.longest)),
            f"{waits.late} of {waits.count}",
        ]
        for crowd in found
        for number, waits in enumerate((*crowd.waits, crowd.session))
    ]
    memory = [
        [
            crowd.peer,
            f"{crowd.peak_resident_bytes / _MIB:,.0f}",
            f"{crowd.shared_fairly_bytes / _MIB:,.0f}",
        ]
        for crowd in found
    ]
    return [
        f"{found[0].devices} devices at the same moment, each with a picture of"
        f" {found[0].picture_bytes / 1000:.0f} KB: ms until an answer",
        *_table(["", "", "half", "99 %", "all", f"over {LATE_S * 1000:.0f} ms"], rows),
        "",
        *_table(["", "peak RSS MiB", "PSS MiB"], memory),
    ]


def _memory_table(memory: Memory) -> list[str]:
    large = [
        [
            large.peer,
            f"one message of {large.message_bytes / 1e6:.0f} MB, {large.task}",
            f"+{large.growth_bytes / _MIB:.2f} MiB",
        ]
        for large in memory.large
    ]
    idle = [
        [
            idle.peer,
            f"{idle.connections:,} idle connections",
            f"{idle.bytes_per_connection / 1024:.2f} KiB each",
        ]
        for idle in memory.idle
    ]
    return _table(["", "", "resident memory"], large + idle)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return [
        "  ".join(
            text.rjust(width) if column else text.ljust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (head, *rows)
    ]
