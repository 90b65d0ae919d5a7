"""What a server costs: CPU time and memory of all its processes; and what the disk costs.

CPU time comes from a control group where one can be made, which is exact and includes processes
that have ended; else from the process table, in steps of 10 ms.
"""

import contextlib
import os
import resource
import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path

_PROC = Path("/proc")
_LAST_PROCESS_S = 5.0  # a tracer ends a moment after what it has traced
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Account(ABC):
    """The processes of one server, from its first pid down; pid 0 stands for no server."""

    method: str
    wrap: tuple[str, ...]  # start the server with this before its command

    @abstractmethod
    def cpu_s(self, pid: int) -> float:
        """CPU time used so far by all of them, the ended ones too."""

    @abstractmethod
    def pids(self, pid: int) -> list[int]:
        """Those that live."""

    @abstractmethod
    def close(self) -> None: ...


class GroupAccount(Account):
    """A control group (version 2) of its own."""

    method = "cgroup v2 cpu.stat"

    def __init__(self, mount: Path) -> None:
        self._directory = mount / f"waypost-bench-{os.getpid()}-{time.monotonic_ns()}"
        self._directory.mkdir()
        # The server enters the group itself before it becomes the server: nothing is missed.
        self.wrap = (
            "sh",
            "-c",
            'echo $$ >"$0/cgroup.procs" && exec "$@"',
            str(self._directory),
        )

    def cpu_s(self, pid: int) -> float:
        fields = dict(line.split() for line in _lines(self._directory / "cpu.stat"))
        return int(fields["usage_usec"]) / 1e6

    def pids(self, pid: int) -> list[int]:
        return [int(line) for line in _lines(self._directory / "cgroup.procs")]

    def close(self) -> None:
        deadline = time.monotonic() + _LAST_PROCESS_S
        while self.pids(0) and time.monotonic() < deadline:
            time.sleep(0.01)
        self._directory.rmdir()


class TreeAccount(Account):
    """The process table."""

    method = "sum over /proc/PID/stat of the process tree, ended children included"
    wrap = ()

    def cpu_s(self, pid: int) -> float:
        ticks = 0
        for member in self.pids(pid):
            # user, system, and the same of children it has waited for
            ticks += sum(int(field) for field in _stat(member)[11:15])
        return ticks / _TICKS_PER_S

    def pids(self, pid: int) -> list[int]:
        children: dict[int, list[int]] = {}
        for entry in _PROC.iterdir():
            if entry.name.isdecimal() and (fields := _stat(int(entry.name))):
                children.setdefault(int(fields[1]), []).append(int(entry.name))
        found = [pid] if pid else []
        for member in found:  # grows while it is walked
            found.extend(children.get(member, ()))
        return found

    def close(self) -> None:
        pass


def open_account() -> Account:
    """The best kind that this machine allows."""
    for line in _lines(_PROC / "mounts"):
        _, mount, kind, *_ = line.split()
        if kind == "cgroup2":
            with contextlib.suppress(OSError):
                return GroupAccount(Path(mount))
    return TreeAccount()


def cpu_method() -> str:
    """In words, which kind `open_account` gives."""
    account = open_account()
    account.close()
    return account.method


def resident_bytes(pids: Iterable[int]) -> int:
    """Resident memory now; a page that processes share counts once for each of them."""
    return sum(_field_bytes(pid, "status", "VmRSS") for pid in pids)


def peak_resident_bytes(pids: Iterable[int]) -> int:
    """The sum of each process's highest resident memory since its start or `forget_peak`."""
    return sum(_field_bytes(pid, "status", "VmHWM") for pid in pids)


def shared_fairly_bytes(pids: Iterable[int]) -> int:
    """Resident memory now; a page shared by n processes counts 1/n for each ("PSS")."""
    return sum(_field_bytes(pid, "smaps_rollup", "Pss") for pid in pids)


def forget_peak(pids: Iterable[int]) -> None:
    """Let `peak_resident_bytes` start from now."""
    for pid in pids:
        (_PROC / str(pid) / "clear_refs").write_text("5")


def thread_cpu_s(pid: int) -> float:
    """CPU time of a process with one thread, to the nanosecond."""
    return int((_PROC / str(pid) / "schedstat").read_text().split()[0]) / 1e9


@contextlib.contextmanager
def files_allowed(count: int) -> Iterator[None]:
    """Let this process, and the servers it starts meanwhile, have that many open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), max(hard, count)))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def settle_disk(limit_bytes: int = 10 << 20, patience_s: float = 10.0) -> None:
    """Write out what earlier runs left, so that no run pays for another."""
    os.sync()
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        dirty = next(line for line in _lines(_PROC / "meminfo") if line.startswith("Dirty:"))
        if int(dirty.split()[1]) * 1024 < limit_bytes:
            return
        time.sleep(0.1)


def sync_latency_us(directory: Path, writes: int = 200, size: int = 4096) -> float:
    """The median time of an append of `size` bytes and its fdatasync, one after the other."""
    path = directory / "sync-probe"
    block = b"x" * size
    took = []
    with path.open("wb", buffering=0) as file:
        for _ in range(writes):
            file.write(block)
            before = time.perf_counter()
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - before)
    path.unlink()
    return statistics.median(took) * 1e6


def _stat(pid: int) -> list[str]:
    """The fields after the program's name, the state first; empty when the process is gone."""
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return text.rpartition(")")[2].split()


def _field_bytes(pid: int, file: str, name: str) -> int:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for line in _lines(_PROC / str(pid) / file):
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
        return 0  # a process that has ended but is not buried yet has no memory
    return 0


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines()
