"""Storage that reports errors: never a 250 that does not hold, and a hub that comes to itself.

The errors are put in by strace at the system calls of a running hub.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest

from tests.fault.clients import submit
from tests.fault.ledger import MAILBOX, Ledger
from tests.fault.mail import LARGE, SMALL, take_copies
from tests.fault.tracing import failing, traced
from tests.fault.waiting import QUICK_RETRY, check_log, wait_until, wait_until_drained
from tests.support.hub import Hub

Say = Callable[[str], None]


def accepted_again(hub: Hub, ledger: Ledger, rng: random.Random, tag: str = "") -> None:
    """Until small and large mail gets its 250, as a client that tries again would find."""
    for kind, size in (("small", SMALL), ("large", LARGE)):
        count = 0

        def is_accepted(kind: str = kind, size: int = size) -> bool:
            nonlocal count
            count += 1
            reply = submit(hub, ledger, f"{kind}-after{tag}-{count}", size, MAILBOX, rng=rng)
            return reply is not None and reply.startswith("250")

        wait_until(is_accepted, lambda: hub.log_text()[-4000:], pause_s=0.1)


def settle(hub: Hub, ledger: Ledger) -> None:
    """When all is delivered: what was acknowledged is there once, what was refused is not."""
    wait_until_drained(hub)
    ledger.collect(MAILBOX, take_copies(hub.data / "mail"))
    assert ledger.problems(hub.data) == []
    assert ledger.extra_copies == 0
    check_log(hub)


# What fails, and what small and large mail is told then: "250" where the call is not needed to
# make such mail durable.
FAULTS = [
    ("fsync,fdatasync", "EIO", "451 4.3.0", "451 4.3.0"),
    ("fdatasync", "EIO", "451 4.3.0", "451 4.3.0"),
    ("fsync", "EIO", "250 2.0.0", "451 4.3.0"),
    ("fsync", "ENOSPC", "250 2.0.0", "452 4.3.1"),
    ("fsync", "EDQUOT", "250 2.0.0", "452 4.3.1"),
    ("pwrite64", "EIO", "451 4.3.0", "451 4.3.0"),
    ("pwrite64", "ENOSPC", "452 4.3.1", "452 4.3.1"),
    ("rename", "EIO", "250 2.0.0", "451 4.3.0"),
    ("openat", "EMFILE", "250 2.0.0", "451 4.3.0"),
    ("openat", "ENFILE", "250 2.0.0", "451 4.3.0"),
    ("unlink", "EIO", "250 2.0.0", "250 2.0.0"),
]


@pytest.mark.parametrize(
    ("calls", "error", "small", "large"),
    FAULTS,
    ids=[f"{call}-{error}" for call, error, *_ in FAULTS],
)
def test_no_false_250_while_calls_fail(
    start_hub: Callable[..., Hub], calls: str, error: str, small: str, large: str
) -> None:
    rng = random.Random(4)
    ledger = Ledger()
    hub = start_hub(QUICK_RETRY)
    for kind, size in (("small", SMALL), ("large", LARGE)):
        submit(hub, ledger, f"{kind}-before", size, MAILBOX, rng=rng)
    wait_until_drained(hub)
    with failing(hub.pid, calls, error):
        for number in range(3):
            for kind, size, expected in (("small", SMALL, small), ("large", LARGE, large)):
                reply = submit(hub, ledger, f"{kind}-{number}", size, MAILBOX, rng=rng)
                assert reply is not None
                assert reply.startswith(expected)
    accepted_again(hub, ledger, rng)
    if calls == "unlink":
        # What could not be deleted is nobody's any more; the next start sweeps it.
        before = time.time()
        hub.kill()  # perhaps in the middle of a delivery
        ledger.kills.append((before, time.time()))
        hub.start()
    settle(hub, ledger)


def test_one_failed_sync_costs_one_mail_its_250(start_hub: Callable[..., Hub]) -> None:
    rng = random.Random(5)
    ledger = Ledger()
    hub = start_hub(QUICK_RETRY)
    for number in range(3):
        once = ("-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO:when=1")
        with traced(hub.pid, *once, whole_process=True):
            reply = submit(hub, ledger, f"refused-{number}", SMALL, MAILBOX, rng=rng)
            assert reply is not None
            assert reply.startswith("451 4.3.0")
            accepted_again(hub, ledger, rng, f"-{number}")
    settle(hub, ledger)


def test_killed_before_it_has_come_to_itself(start_hub: Callable[..., Hub], say: Say) -> None:
    """The third way to a duplicate: the commit that was refused lies in the log after all."""
    rng = random.Random(6)
    ledger = Ledger()
    hub = start_hub(QUICK_RETRY)
    kept = 0
    for number in range(5):
        submit(hub, ledger, f"before-{number}", SMALL, MAILBOX, rng=rng)
        with failing(hub.pid, "fdatasync", "EIO"):
            before = time.time()
            for size in (SMALL, LARGE):
                reply = submit(hub, ledger, f"refused-{number}-{size}", size, MAILBOX, rng=rng)
                assert reply is not None
                assert reply.startswith("451")
            hub.kill()
        ledger.kills.append((before, time.time()))
        hub.start()
        accepted_again(hub, ledger, rng, f"-{number}")
        wait_until_drained(hub)
        copies = take_copies(hub.data / "mail")
        kept += sum(copy.ident.startswith("refused") for copy in copies)
        ledger.collect(MAILBOX, [c for c in copies if not c.ident.startswith("refused")])
    say(f"{len(ledger.kills)} kills after a failed sync: {kept} of 10 refused mails were kept")
    assert ledger.problems(hub.data) == []
