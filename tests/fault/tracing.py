"""strace around a running hub: failures and kills at chosen system calls. Needs strace, root."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_STOP_S = 5.0


def children_of(pid: int) -> list[int]:
    """The processes it has started itself."""
    found: set[str] = set()
    for task in os.listdir(f"/proc/{pid}/task"):
        found |= set(Path(f"/proc/{pid}/task/{task}/children").read_text().split())
    return sorted(map(int, found))


def tasks_of(pid: int, name: str = "hub") -> dict[str, int]:
    """The threads of a hub, numbered in the order they were made, and those of its writer."""
    threads = sorted(int(entry) for entry in os.listdir(f"/proc/{pid}/task"))
    tasks = {f"{name} {number}": task for number, task in enumerate(threads)}
    for child in children_of(pid):
        tasks |= tasks_of(child, "writer")
    return tasks


def is_alive(task: int) -> bool:
    """False when a process or thread has ended, though nobody may have taken note of it yet."""
    try:
        status = Path(f"/proc/{task}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return re.search(r"^State:\t[ZX]", status, re.MULTILINE) is None


@contextmanager
def traced(
    task: int,
    *options: str,
    output: Path | None = None,  # None: nowhere
    whole_process: bool = False,
) -> Iterator[None]:
    """One thread, or its whole process and that one's children, under strace while inside."""
    traced_tasks = [task, *children_of(task)] if whole_process else [task]
    command = ["strace", "-o", str(output or os.devnull), *options]
    for one in traced_tasks:
        command += ["-p", str(one)]
    if whole_process:
        command.insert(1, "-f")
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    assert process.stderr is not None
    try:
        for _ in traced_tasks:
            line = process.stderr.readline()
            assert b"attached" in line, line
        yield
    finally:
        # Where the traced process was killed, strace ends by itself; it must not be told to let
        # go of threads that are just dying, or it waits for them for ever.
        if is_alive(task):
            process.terminate()
        try:
            process.communicate(timeout=_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


@contextmanager
def failing(task: int, calls: str, error: str, *, whole_process: bool = True) -> Iterator[None]:
    """While inside, these system calls do nothing and return an error."""
    options = ("-e", f"trace={calls}", "-e", f"inject={calls}:error={error}")
    with traced(task, *options, whole_process=whole_process):
        yield


@contextmanager
def deadly(task: int, call: str, number: int, *, whole_process: bool = False) -> Iterator[None]:
    """While inside, the process is killed on entry to the `number`-th such call of a thread."""
    options = ("-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={number}")
    with traced(task, *options, whole_process=whole_process):
        yield
