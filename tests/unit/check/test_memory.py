"""What probing remembers, and how much of it may be done: check.db."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from waypost.check.memory import Budget, Memory, MemoryUnavailable, network_of

IP = ip_address("5.9.0.1")
DAY_S = 86_400.0


class Clock:
    """Stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def memory(clock: Clock, tmp_path: Path) -> Iterator[Memory]:
    opened = Memory(tmp_path / "check.db", clock=clock)
    yield opened
    opened.close()


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# What is remembered.


def test_what_is_kept_lives_as_long_as_it_was_told(memory: Memory, clock: Clock) -> None:
    memory.keep("ann@x.dev", "answer", {"code": 250}, 60.0)
    clock.now += 59.9
    assert memory.recall("ann@x.dev", "answer") == {"code": 250}
    clock.now += 0.1
    assert memory.recall("ann@x.dev", "answer") is None


def test_what_is_kept_later_replaces_what_was(memory: Memory, clock: Clock) -> None:
    memory.keep("x.dev", "catch_all", "yes", 1_000.0)
    memory.keep("x.dev", "catch_all", "no", 10.0)
    assert memory.recall("x.dev", "catch_all") == "no"
    clock.now += 10
    assert memory.recall("x.dev", "catch_all") is None


def test_subjects_and_kinds_do_not_mix(memory: Memory) -> None:
    memory.keep("x.dev", "catch_all", "yes", 60.0)
    assert memory.recall("x.dev", "refused") is None
    assert memory.recall("X.dev", "catch_all") is None
    assert memory.recall("ann@x.dev", "catch_all") is None
    memory.keep('"a@x.dev"@y.dev', "answer", 1, 60.0)
    assert memory.recall("a@x.dev", "answer") is None


def test_the_latest_subjects_come_first(memory: Memory, clock: Clock) -> None:
    for number in range(5):
        memory.keep(f"5.9.0.{number}", "reached", "", 100.0)
        clock.now += 1
    memory.keep("5.9.9.9", "refused", "", 1_000.0)
    assert memory.subjects_of("reached", 3) == ["5.9.0.4", "5.9.0.3", "5.9.0.2"]
    clock.now += 97
    assert memory.subjects_of("reached", 3) == ["5.9.0.4", "5.9.0.3"]


def test_another_run_remembers(clock: Clock, tmp_path: Path) -> None:
    for _ in range(2):
        memory = Memory(tmp_path / "check.db", clock=clock)
        before = memory.recall("ann@x.dev", "answer")
        memory.keep("ann@x.dev", "answer", [["smtp.rcpt_ok", "é\n"]], 60.0)
        memory.take(IP, Budget(host_per_minute=2))
        memory.close()
    assert before == [["smtp.rcpt_ok", "é\n"]]
    memory = Memory(tmp_path / "check.db", clock=clock)
    assert memory.take(IP, Budget(host_per_minute=2)) == 60
    memory.close()


def test_what_is_over_is_forgotten_at_the_end(clock: Clock, tmp_path: Path) -> None:
    path = tmp_path / "check.db"
    memory = Memory(path, clock=clock)
    memory.keep("old.dev", "refused", 1, 10.0)
    memory.keep("new.dev", "refused", 1, 2 * DAY_S)
    memory.take(IP, Budget())
    clock.now += DAY_S
    memory.take(IP, Budget())
    memory.close()
    database = sqlite3.connect(path)
    assert database.execute("SELECT subject FROM remembered").fetchall() == [("new.dev",)]
    assert database.execute("SELECT count(*) FROM asked").fetchone() == (1,)
    database.close()


def test_a_memory_without_a_file() -> None:
    memory = Memory(None)
    memory.keep("x.dev", "refused", True, 60.0)
    assert memory.recall("x.dev", "refused") is True
    memory.close()


# Budgets.


def test_a_host_is_asked_so_often_a_minute(memory: Memory, clock: Clock) -> None:
    budget = Budget(host_per_minute=2, network_per_minute=100)
    assert memory.take(IP, budget) == 0
    clock.now += 10
    assert memory.take(IP, budget) == 0
    clock.now += 10
    assert memory.take(IP, budget) == 40
    assert memory.take(ip_address("5.9.0.2"), budget) == 0
    clock.now += 39
    assert memory.take(IP, budget) == 1
    clock.now += 1
    assert memory.take(IP, budget) == 0
    assert memory.take(IP, budget) == 10


def test_what_was_not_begun_is_not_counted(memory: Memory, clock: Clock) -> None:
    budget = Budget(host_per_minute=1)
    memory.take(IP, budget)
    for _ in range(10):
        assert memory.take(IP, budget) == 60
    clock.now += 60
    assert memory.take(IP, budget) == 0


@pytest.mark.parametrize(
    ("first", "neighbour", "stranger"),
    [
        ("5.9.0.1", "5.9.0.254", "5.9.1.1"),
        ("2a00:1450::1", "2a00:1450::ffff:0:0:1", "2a00:1450:0:1::1"),
    ],
)
def test_a_network_shares_a_budget(
    memory: Memory, first: str, neighbour: str, stranger: str
) -> None:
    budget = Budget(host_per_minute=5, network_per_minute=1)
    assert memory.take(ip_address(first), budget) == 0
    assert memory.take(ip_address(neighbour), budget) == 60
    assert memory.take(ip_address(stranger), budget) == 0


def test_a_mapped_address_is_the_same_host(memory: Memory) -> None:
    budget = Budget(host_per_minute=1)
    memory.take(IP, budget)
    assert memory.take(ip_address("::ffff:5.9.0.1"), budget) == 60
    assert network_of(ip_address("::ffff:5.9.0.1")) == network_of(IP) == "5.9.0.0/24"


def test_all_hosts_share_a_budget_of_the_minute_and_the_day(memory: Memory, clock: Clock) -> None:
    budget = Budget(per_minute=2, per_day=3)
    ips = [ip_address(f"5.{number}.0.1") for number in range(4)]
    assert [memory.take(ip, budget) for ip in ips] == [0, 0, 60, 60]
    clock.now += 60
    assert memory.take(ips[2], budget) == 0
    clock.now += 60
    assert memory.take(ips[3], budget) == DAY_S - 120
    clock.now += DAY_S - 120
    assert memory.take(ips[3], budget) == 0


_TAKER = """
import sys
from ipaddress import ip_address
from pathlib import Path
from waypost.check.memory import Budget, Memory
memory = Memory(Path(sys.argv[1]))
budget = Budget(host_per_minute=25, network_per_minute=100, per_minute=100)
print(sum(memory.take(ip_address("5.9.0.1"), budget) == 0 for _ in range(20)))
memory.close()
"""


def test_programs_at_the_same_time_share_a_budget(tmp_path: Path) -> None:
    """They open a file that is not there yet, too."""
    command = [sys.executable, "-c", _TAKER, str(tmp_path / "check.db")]
    programs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    taken = [int(program.communicate(timeout=60)[0]) for program in programs]
    assert sum(taken) == 25


# The file.


def test_others_may_not_read_it(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        Memory(tmp_path / "new" / "check.db").close()
    finally:
        os.umask(before)
    assert mode_of(tmp_path / "new" / "check.db") == 0o600
    assert mode_of(tmp_path / "new") == 0o700


def test_a_run_that_was_killed_leaves_a_file_to_go_on_with(clock: Clock, tmp_path: Path) -> None:
    path = tmp_path / "check.db"
    Memory(path, clock=clock).close()
    script = (
        "import os, sqlite3, sys\n"
        "database = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "database.execute('PRAGMA cache_size = 1')\n"
        "database.execute('BEGIN IMMEDIATE')\n"
        "for number in range(2000):\n"
        "    database.execute('INSERT INTO asked VALUES (?, ?, ?)', (1e6, '5.9.0.1', 'x' * 500))\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert path.with_name("check.db-journal").exists()
    memory = Memory(path, clock=clock)
    assert memory.take(IP, Budget(host_per_minute=1)) == 0
    memory.close()


def test_an_empty_file_is_a_new_one(tmp_path: Path) -> None:
    """As a run leaves it that was stopped between making it and writing to it."""
    path = tmp_path / "check.db"
    path.touch(0o600)
    memory = Memory(path)
    assert memory.take(IP, Budget()) == 0
    memory.close()


def test_trouble_with_the_file_is_told_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "check.db"
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(MemoryUnavailable, match=r"check\.db: file is not a database"):
        Memory(path)
    with pytest.raises(OSError, match="directory"):
        Memory(tmp_path)


def test_a_file_somebody_else_holds_is_trouble_that_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("waypost.check.memory._LOCKED_S", 0.05)
    path = tmp_path / "check.db"
    memory = Memory(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(MemoryUnavailable, match="locked"):
        memory.take(IP, Budget())
    other.execute("ROLLBACK")
    other.close()
    assert memory.take(IP, Budget()) == 0
    memory.close()
