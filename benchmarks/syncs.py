"""What a server asks of the disk for each message, seen by strace, in runs that are not timed.

The numbered recipients of these runs also prove that each message reaches the sink exactly once.
"""

import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.errors import BenchmarkError
from benchmarks.load import RECIPIENT, Mode
from benchmarks.peers import IN_CLEAR, NoServer, Peer, Task
from benchmarks.runs import Say
from benchmarks.stage import stage

MESSAGES = 1000
_WARM_UP = 100
_SYNCS = ("fsync", "fdatasync", "sync_file_range", "syncfs", "sync", "msync")
_OPENS = ("open", "openat", "openat2", "creat")
_TRACER_S = 10.0
# "PID TIME call(arguments) = result"; a call that another thread interrupts takes two lines, the
# first ends in "<unfinished ...>", the second has no arguments.
_LINE = re.compile(r"^\d+ +(?P<at>[\d.]+) (?P<call>\w+)\((?P<rest>.*)$")
_PATH = re.compile(r'"(?P<path>[^"]*)"')
_RECIPIENT = re.compile(r"^X-Rcpt-Args: *<(?P<number>\d+)" + re.escape(RECIPIENT) + ">", re.M)


@dataclass(frozen=True)
class Syncs:
    """Of one peer and task; counts are per message."""

    peer: str
    task: str
    messages: int
    syncs: float
    syncs_by_call: dict[str, float]
    files_created: float


def measure_syncs(peers: Sequence[type[Peer]], scratch: Path, say: Say) -> tuple[Syncs, ...]:
    found = []
    for task in IN_CLEAR:
        for kind in peers:
            if task in kind.tasks and kind is not NoServer:
                found.append(_syncs_of(kind, task, scratch))
                say(
                    f"  {task.value}: {kind.name} {found[-1].syncs:.2f} syncs,"
                    f" {found[-1].files_created:.2f} files created per message"
                )
    return tuple(found)


def _syncs_of(kind: type[Peer], task: Task, scratch: Path) -> Syncs:
    trace = scratch / "trace"
    wanted = ",".join((*_SYNCS, *_OPENS))
    # -D: the server stays our own child; --seccomp-bpf: other calls run at full speed.
    wrap = ["strace", "-D", "-f", "--seccomp-bpf", "-q", "-ttt"]
    wrap += ["-e", f"trace={wanted}", "-o", str(trace)]
    dump = scratch / "arrived"
    with stage(kind, task, scratch, wrap=wrap, dump=dump) as on:
        on.send(_WARM_UP, Mode.ONE)
        on.let_settle()
        started_at = time.time()
        on.send(MESSAGES, Mode.ONE, numbered=True)
        on.let_settle()
        ended_at = time.time()
        on.prove()
        pid = on.peer.pid
    if task is Task.RELAY:
        _prove_each_arrived_once(dump)
    calls: Counter[str] = Counter()
    created: set[str] = set()
    for call, rest in _calls(_finished(trace, pid), started_at, ended_at):
        if call in _SYNCS:
            calls[call] += 1
        elif (call == "creat" or "O_CREAT" in rest) and (path := _PATH.search(rest)):
            # A lock file that is opened for every message counts once: its name stays the same.
            created.add(path["path"])
    trace.unlink()
    return Syncs(
        peer=kind.name,
        task=task.value,
        messages=MESSAGES,
        syncs=calls.total() / MESSAGES,
        syncs_by_call={call: count / MESSAGES for call, count in sorted(calls.items())},
        files_created=len(created) / MESSAGES,
    )


def _finished(trace: Path, pid: int) -> str:
    """The whole trace: the tracer writes on for a moment after the server has ended."""
    deadline = time.monotonic() + _TRACER_S
    last_line = re.compile(rf"^{pid} .*\+\+\+ ", re.M)
    while not last_line.search(text := trace.read_text(errors="replace")):
        if time.monotonic() > deadline:
            raise BenchmarkError("strace did not come to an end")
        time.sleep(0.05)
    return text


def _calls(text: str, started_at: float, ended_at: float) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        found = _LINE.match(line)
        if found and started_at <= float(found["at"]) <= ended_at and " = -1 " not in line:
            yield found["call"], found["rest"]


def _prove_each_arrived_once(dump: Path) -> None:
    arrived: Counter[int] = Counter()
    for path in dump.iterdir():
        text = path.read_text(errors="replace")
        arrived.update(int(found["number"]) for found in _RECIPIENT.finditer(text))
        path.unlink()
    dump.rmdir()
    lost = [n for n in range(1, MESSAGES + 1) if n not in arrived]
    doubled = [n for n, count in arrived.items() if count > 1]
    if lost or doubled:
        raise BenchmarkError(f"messages lost: {lost}; arrived more than once: {doubled}")
