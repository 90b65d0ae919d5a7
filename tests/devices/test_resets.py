"""Clients that reset the connection behind their content: a mail counts from our 250."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.devices.test_catalogue import Device
from tests.support.hub import Hub
from tests.support.waiting import wait_until

TIMES = 40


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with Hub(tmp_path_factory.mktemp("resets")) as running:
        yield running


def begun(hub: Hub) -> Device:
    device = Device(hub, "127.0.0.1")
    device.hears("220")
    for command in ("EHLO d", "MAIL FROM:<>", "RCPT TO:<cam@[127.0.0.1]>"):
        device.send([command.encode() + b"\r\n"])
        device.hears("250")
    device.send([b"DATA\r\n"])
    device.hears("354")
    return device


@pytest.mark.parametrize("end", [b".\r\n", b".\r\nQUIT\r\n"], ids=["dot", "dot-and-quit"])
@pytest.mark.parametrize("size", [100, 20_000])
def test_a_reset_behind_the_last_dot_makes_one_mail_at_most(
    hub: Hub, size: int, end: bytes
) -> None:
    """What the log says was received is there, once; and the log says nothing else."""
    log_before = len(hub.log_text())
    first = len(hub.mailbox("cam"))
    for number in range(TIMES):
        device = begun(hub)
        content = f"Subject: {number}-{size}-{len(end)}\r\n\r\n".encode()
        device.send([content + b"x" * size + b"\r\n" + end])
        device.reset()
    device = begun(hub)  # behind all others
    with device.socket:
        device.send([b"Subject: last\r\n\r\n.\r\n"])
        device.hears("250 2.0.0 queued as")
    wait_until(lambda: any(b"Subject: last" in each for each in hub.mailbox("cam")[first:]))

    def received() -> int:
        return len(re.findall(r" received ", hub.log_text()[log_before:]))

    wait_until(lambda: len(hub.mailbox("cam")) - first == received())
    stored = [
        match[0]
        for message in hub.mailbox("cam")[first:]
        if (match := re.search(rb"Subject: [0-9\-]+\r\n", message))
    ]
    assert len(set(stored)) == len(stored)
    print(f"\n{len(stored)} of {TIMES} mails of {size} octets stored")
    assert not re.search(r" (bug|error|warning) |Traceback|reset", hub.log_text()[log_before:])
