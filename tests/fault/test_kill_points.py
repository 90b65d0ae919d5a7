"""A hub killed at each system call that changes what is on the disk or tells somebody.

The law is that of test_kill.
"""

from __future__ import annotations

import itertools
import os
import random
import re
import signal
import smtplib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.fault.clients import submit
from tests.fault.collecting import collect
from tests.fault.ledger import MAILBOX, RELAY, Ledger
from tests.fault.mail import LARGE, SMALL
from tests.fault.sink import Sink, relay_config, running_sink
from tests.fault.tracing import deadly, is_alive, tasks_of, traced
from tests.fault.waiting import (
    QUICK_RETRY,
    check_log,
    is_drained,
    wait_until,
    wait_until_drained,
)
from tests.support.hub import Hub

Say = Callable[[str], None]

# At every system call. Which calls: all that change what is on the disk or tell somebody.
CALLS = (
    "openat",
    "write",
    "pwrite64",
    "fsync",
    "fdatasync",
    "ftruncate",
    "rename",
    "unlink",
    "mkdir",
)


class Points:
    """Kills a hub at one system call after the other and sees what is left of its mail."""

    def __init__(self, hub: Hub, sink: Sink, rng: random.Random) -> None:
        self.hub = hub
        self.sink = sink
        self.ledger = Ledger()
        self.rng = rng
        self.killed_at: Counter[str] = Counter()
        self._count = 0

    def send(self) -> None:
        """One small and one large mail to a mailbox, and a large one to the sink."""
        self._count += 1
        mails = (("small", SMALL, MAILBOX), ("large", LARGE, MAILBOX), ("relayed", LARGE, RELAY))
        # Where it is killed the rest of them goes nowhere.
        with suppress(OSError, smtplib.SMTPException), self.hub.smtp() as session:
            for kind, size, place in mails:
                ident = f"{kind}-{self._count}"
                submit(self.hub, self.ledger, ident, size, place, rng=self.rng, session=session)

    @contextmanager
    def killing(self) -> Iterator[None]:
        """The hub is killed in here."""
        before = time.time()
        yield
        self.ledger.kills.append((before, time.time()))

    def settle(self) -> None:
        """Wait for the queue to be empty and check."""
        wait_until_drained(self.hub)
        collect(self.hub, self.sink, self.ledger)
        assert self.ledger.problems(self.hub.data) == []
        check_log(self.hub)

    def summary(self) -> str:
        """For the end of the run."""
        by_call = ", ".join(f"{call} {count}" for call, count in sorted(self.killed_at.items()))
        return (
            f"{self.killed_at.total()} points ({by_call}): {self.ledger.acknowledged} mails"
            f" acknowledged, {len(self.ledger.lost())} lost, {len(self.ledger.damaged)} damaged,"
            f" {self.ledger.extra_copies} extra copies"
        )


def wait_until_idle_or_dead(hub: Hub, task: int) -> None:
    """Until the hub has nothing left to do, or is dead; it dies soon after its `task` does."""

    def is_over() -> bool:
        return not is_alive(hub.pid) or (is_alive(task) and is_drained(hub))

    wait_until(is_over, lambda: hub.log_text()[-4000:])


# The hub's threads in the order they are made: the loop's, the log's, then those that write files,
# then helpers that come as they are needed.
LOG_THREAD = "hub 1"


def calls_of_tasks(points: Points, record: Path) -> list[tuple[str, str]]:
    """Which tasks make which of CALLS during one accept and delivery, by watching one."""
    names = {task: name for name, task in tasks_of(points.hub.pid).items()}
    with traced(
        points.hub.pid, "-e", f"trace={','.join(CALLS)}", output=record, whole_process=True
    ):
        points.send()
        points.settle()
    seen = set(re.findall(r"^(\d+) +(\w+)\(", record.read_text(), re.MULTILINE))
    return sorted(
        (name, call)
        for task, call in seen
        if (name := names.get(int(task))) is not None and name != LOG_THREAD
    )


@pytest.mark.timeout(600)
def test_killed_at_each_call_of_an_accept_and_a_delivery(
    start_hub: Callable[..., Hub], tmp_path: Path, say: Say
) -> None:
    with running_sink() as sink:
        hub = start_hub(relay_config(sink) + QUICK_RETRY)
        points = Points(hub, sink, random.Random(1))
        points.send()  # makes the mailboxes and the connections
        points.settle()
        for task, call in calls_of_tasks(points, tmp_path / "calls"):
            for number in itertools.count(1):
                if task not in (tasks := tasks_of(hub.pid)):
                    break  # a helper that was not needed this time
                with points.killing(), deadly(tasks[task], call, number):
                    points.send()
                    wait_until_idle_or_dead(hub, tasks[task])
                if is_alive(hub.pid):
                    points.ledger.kills.pop()
                    points.settle()
                    break
                points.killed_at[call] += 1
                hub.kill()  # it is dead already; this takes note of it
                hub.start()
                points.settle()
    say(points.summary())
    assert points.killed_at.total() > 40


# What a start or a stop changes on the disk; openat and write would be those of the interpreter.
CALLS_OF_START_AND_STOP = ("pwrite64", "fsync", "fdatasync", "ftruncate", "rename", "unlink")


def leave_rubbish(hub: Hub) -> None:
    """What crashes leave in the spool: half a content, and one whose message was never kept."""
    for path in ("content/tmp/half", "content/orphan"):
        (hub.data / path).write_bytes(b"x")


@pytest.mark.timeout(600)
def test_killed_at_each_call_of_a_start(
    absent_sink: Sink, start_hub: Callable[..., Hub], say: Say
) -> None:
    config = relay_config(absent_sink) + QUICK_RETRY
    hub = start_hub(config)
    points = Points(hub, absent_sink, random.Random(2))
    points.send()
    for call in CALLS_OF_START_AND_STOP:
        for number in itertools.count(1):
            with points.killing():
                hub.kill()
            leave_rubbish(hub)
            under_strace = (
                *("strace", "-D", "-f", "-o", os.devnull, "-e", f"trace={call}"),
                *("-e", f"inject={call}:signal=KILL:when={number}"),
            )
            traced_hub = Hub(hub.directory, config, port=hub.port, prefix=under_strace)
            with points.killing():
                try:
                    traced_hub.start()
                except AssertionError:
                    points.killed_at[call] += 1
                else:
                    traced_hub.kill()
                    break
    # Killed, or without its writer, each time: it never refused to start.
    complaints = set(re.findall("^waypost: .*", hub.log_text(), re.MULTILINE))
    assert complaints <= {
        "waypost: the process that writes queue.db has ended",
        "waypost: stopped by a fault in the queue's writer; the log has it",
    }
    absent_sink.start()
    hub.start()
    points.settle()
    assert not list((hub.data / "content").glob("orphan"))
    say(points.summary())
    assert points.killed_at.total() >= 5


@pytest.mark.timeout(600)
def test_killed_at_each_call_of_a_stop(
    absent_sink: Sink, start_hub: Callable[..., Hub], say: Say
) -> None:
    hub = start_hub(relay_config(absent_sink) + QUICK_RETRY)
    points = Points(hub, absent_sink, random.Random(3))
    for call in CALLS_OF_START_AND_STOP:
        for number in itertools.count(1):
            points.send()
            with points.killing(), deadly(hub.pid, call, number, whole_process=True):
                hub.send_signal(signal.SIGTERM)
                wait_until(lambda: not is_alive(hub.pid), lambda: hub.log_text()[-4000:])
            hub.stop()
            has_stopped = " stopped" in hub.log_text()
            check_log(hub)
            hub.start()
            if has_stopped:
                break
            points.killed_at[call] += 1
    absent_sink.start()
    points.settle()
    say(points.summary())
    assert points.killed_at.total() >= 5
