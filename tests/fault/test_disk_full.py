"""No room: 452 and never a false 250, and a hub that goes on by itself when there is room again.

The disks are small file systems in memory (mount: needs root).
"""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fault.clients import submit
from tests.fault.ledger import MAILBOX, RELAY, Ledger
from tests.fault.mail import LARGE, SMALL, make_mail, take_copies
from tests.fault.sink import Sink, relay_config, running_sink
from tests.fault.small_disk import Ballast, small_disk
from tests.fault.waiting import QUICK_RETRY, check_log, is_drained, wait_until, wait_until_drained
from tests.support.hub import Hub

Say = Callable[[str], None]

DISK_MB = 24
INLINE = 60_000


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Ballast]:
    """The file system of the hub's data directory."""
    with small_disk(tmp_path / "hub" / "data", DISK_MB) as ballast:
        yield ballast


def is_accepted(reply: str | None) -> bool:
    """True for 250; anything but 452 4.3.1 besides is wrong."""
    assert reply is not None
    assert reply.startswith(("250 2.0.0", "452 4.3.1")), reply
    return reply.startswith("250")


def fill_by_mail(hub: Hub, ledger: Ledger, rng: random.Random, size: int) -> int:
    """Send mail that cannot be delivered until it is refused; how much was taken."""
    count = 0
    while is_accepted(submit(hub, ledger, f"fill-{size}-{count}", size, RELAY, rng=rng)):
        count += 1
    return count


def settle(hub: Hub, sink: Sink, ledger: Ledger) -> None:
    """With room, and a sink: all that was acknowledged arrives once, and nothing else."""
    wait_until_drained(hub)
    ledger.collect(MAILBOX, take_copies(hub.data / "mail"))
    ledger.collect(RELAY, sink.take_copies())
    assert ledger.problems(hub.data) == []
    assert ledger.extra_copies == 0
    check_log(hub)


@pytest.mark.parametrize("size", [SMALL, INLINE, LARGE, 1_500_000])
def test_filled_by_mail_that_cannot_leave(
    disk: Ballast, absent_sink: Sink, start_hub: Callable[..., Hub], size: int, say: Say
) -> None:
    rng = random.Random(7)
    ledger = Ledger()
    hub = start_hub(relay_config(absent_sink) + QUICK_RETRY)
    if size == SMALL:
        disk.fill(but_bytes=5_000_000)  # or it would take thousands of them
    taken = fill_by_mail(hub, ledger, rng, size)
    say(f"{taken} mails of {size} octets fit; then 452 4.3.1")
    assert taken > 2
    disk.drop()
    absent_sink.start()  # mail leaves, room comes back, nobody restarts anything
    tries = 0

    def takes_mail() -> bool:
        nonlocal tries
        tries += 1
        return is_accepted(submit(hub, ledger, f"again-{tries}", size, MAILBOX, rng=rng))

    wait_until(takes_mail, lambda: hub.log_text()[-4000:], pause_s=0.1)
    settle(hub, absent_sink, ledger)


@pytest.mark.parametrize("size", [INLINE, LARGE])
def test_filled_by_mailboxes(disk: Ballast, start_hub: Callable[..., Hub], size: int) -> None:
    """Their owners' mail and the queue share the disk; what the owners delete is room again."""
    rng = random.Random(12)
    ledger = Ledger()
    with running_sink() as sink:
        hub = start_hub(relay_config(sink) + QUICK_RETRY)
        for round_number in range(2):
            count = 0
            while is_accepted(
                submit(hub, ledger, f"{round_number}-{count}", size, MAILBOX, rng=rng)
            ):
                count += 1
            assert count > 20

            def is_empty() -> bool:
                ledger.collect(MAILBOX, take_copies(hub.data / "mail"))
                return is_drained(hub)

            wait_until(is_empty, lambda: hub.log_text()[-4000:])
        settle(hub, sink, ledger)


@pytest.mark.parametrize("size", [SMALL, INLINE, LARGE])
def test_full_in_the_middle_of_a_transaction(
    disk: Ballast, start_hub: Callable[..., Hub], size: int
) -> None:
    """MAIL and DATA still found room; the content does not."""
    rng = random.Random(8)
    ledger = Ledger()
    with running_sink() as sink:
        hub = start_hub(relay_config(sink) + QUICK_RETRY)
        for number in range(40):
            ident = f"mail-{number}"
            sent = ledger.open(ident, MAILBOX)
            with hub.smtp() as session:
                session.ehlo("client.test")
                session.mail("client@[127.0.0.1]")
                session.rcpt("bob@[127.0.0.1]")
                assert session.docmd("DATA")[0] == 354
                disk.fill()
                session.send(stuffed(make_mail(ident, size, rng)))
                code, text = session.getreply()
                disk.drop()
            reply = f"{code} {text.decode()}"
            if is_accepted(reply):
                sent.acknowledged.append(reply.rpartition(" ")[2])
            else:
                sent.refused.append(reply)
        assert any(sent.refused for sent in ledger.sent.values())
        wait_until(
            lambda: is_accepted(
                submit(hub, ledger, f"last-{len(ledger.sent)}", size, MAILBOX, rng=rng)
            ),
            lambda: hub.log_text()[-4000:],
            pause_s=0.1,
        )
        settle(hub, sink, ledger)


def stuffed(mail: bytes) -> bytes:
    """Content as it goes over the wire."""
    return mail.replace(b"\r\n.", b"\r\n..") + b".\r\n"


def test_many_clients_run_into_a_full_disk_together(
    disk: Ballast, absent_sink: Sink, start_hub: Callable[..., Hub]
) -> None:
    ledgers = [Ledger() for _ in range(12)]
    hub = start_hub(relay_config(absent_sink) + QUICK_RETRY)
    disk.fill(but_bytes=8_000_000)

    def run(number: int, ledger: Ledger) -> None:
        rng = random.Random(number)
        for count in range(20):
            size = rng.choice((SMALL, INLINE, LARGE, 1_000_000))
            is_accepted(submit(hub, ledger, f"c{number}-{count}", size, RELAY, rng=rng))

    clients = [
        threading.Thread(target=run, args=(number, ledger)) for number, ledger in enumerate(ledgers)
    ]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    whole = Ledger()
    for ledger in ledgers:
        whole.sent.update(ledger.sent)
    assert any(sent.refused for sent in whole.sent.values())
    assert len(whole.sent) == 12 * 20
    disk.drop()
    absent_sink.start()
    settle(hub, absent_sink, whole)


def test_started_on_a_full_disk(
    disk: Ballast, absent_sink: Sink, start_hub: Callable[..., Hub]
) -> None:
    """It may refuse to start, and says why; once there is room it has all its mail."""
    rng = random.Random(9)
    ledger = Ledger()
    config = relay_config(absent_sink) + QUICK_RETRY
    hub = start_hub(config)
    for number, size in enumerate((SMALL, INLINE, LARGE)):
        submit(hub, ledger, f"mail-{number}", size, RELAY, rng=rng)
    hub.kill()
    disk.fill()
    try:
        hub.start()
    except AssertionError:
        assert re.search("full|space|room", hub.log_text())
        disk.drop()
        hub.start()
    disk.drop()
    absent_sink.start()
    settle(hub, absent_sink, ledger)


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_full_disk_for_mailboxes_defers_delivery_only(
    start_hub: Callable[..., Hub], tmp_path: Path, size: int
) -> None:
    rng = random.Random(10)
    ledger = Ledger()
    with small_disk(tmp_path / "boxes", 4) as boxes, running_sink() as sink:
        root = boxes.directory / "mail"
        config = f'[mailboxes]\nroot = "{root}"\n'
        hub = start_hub(relay_config(sink) + config + QUICK_RETRY)
        submit(hub, ledger, "before", size, MAILBOX, rng=rng)
        wait_until_drained(hub)
        boxes.fill()
        for number in range(3):
            assert is_accepted(submit(hub, ledger, f"full-{number}", size, MAILBOX, rng=rng))
        submit(hub, ledger, "elsewhere", size, RELAY, rng=rng)
        hub.wait_for_log("452 4.2.2")
        wait_until(lambda: sink.has_copies, hub.log_text)
        wait_until(lambda: not list(root.glob("*/tmp/*")), hub.log_text)
        boxes.drop()
        wait_until_drained(hub)
        ledger.collect(MAILBOX, take_copies(root))
        ledger.collect(RELAY, sink.take_copies())
        assert ledger.problems(hub.data) == []
        assert ledger.extra_copies == 0


@pytest.mark.parametrize(("size", "limit"), [(INLINE, 1_000_000), (3_000_000, 2_000_000)])
def test_a_limit_on_file_sizes_is_no_false_250(
    absent_sink: Sink, start_hub: Callable[..., Hub], size: int, limit: int
) -> None:
    """As a quota: a write fails with another error than ENOSPC, in the database at first."""
    rng = random.Random(11)
    ledger = Ledger()
    config = relay_config(absent_sink) + QUICK_RETRY
    hub = start_hub(config)
    hub.kill()
    limited = Hub(hub.directory, config, port=hub.port, prefix=("prlimit", f"--fsize={limit}"))
    with limited:
        replies = [
            submit(hub, ledger, f"mail-{number}", size, RELAY, rng=rng) or ""
            for number in range(20)
        ]
        assert all(reply.startswith(("250", "451 4.3.0", "452 4.3.1")) for reply in replies)
        assert any(reply.startswith("45") for reply in replies)
        limited.kill()
    hub.start()
    absent_sink.start()
    settle(hub, absent_sink, ledger)


@pytest.mark.parametrize("left_bytes", [0, 50_000])
def test_a_start_without_room(disk: Ballast, left_bytes: int) -> None:
    """It is no fault of the configuration: whoever starts hubs may try again (EX_TEMPFAIL)."""
    disk.fill(but_bytes=left_bytes)
    hub = Hub(disk.directory.parent)
    done = hub.run("serve")
    assert done.returncode == 75, done.stderr
    assert b"make room on that of" in done.stderr
    disk.drop()
    hub.start()
    hub.stop()
