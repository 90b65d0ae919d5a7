"""What devices leave out or get wrong is repaired on the way to a relay, and only there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.devices.test_catalogue import Device
from tests.support.hub import Hub
from tests.support.mail import content_of
from tests.support.scripted_peer import ScriptedPeer
from tests.support.toml import route

DATE = rb"Date: \w{3}, \d{1,2} \w{3} 20\d\d \d\d:\d\d:\d\d \+0000\r\n"
MESSAGE_ID = rb"Message-ID: <[0-9a-z]{13}@\[127\.0\.0\.1\]>\r\n"
SOUND = b"From: cam@[127.0.0.2]\r\nDate: Sun, 22 Nov 2026 12:00:00 +0100\r\nMessage-ID: <1@cam>\r\n"
OLD = b"From: cam@[127.0.0.2]\r\nDate: Thu, 01 Jan 1970 00:04:12 +0000\r\nMessage-ID: <1@cam>\r\n"

_TRACE = re.compile(
    rb"Received: [^\r\n]*\r\n(?:\t[^\r\n]*\r\n)*"
    rb"Authentication-Results: [^\r\n]*\r\n(?:\t[^\r\n]*\r\n)*"
)


@dataclass(frozen=True)
class Repair:
    """One thing that is wrong."""

    name: str
    sent: bytes  # behind DATA, with its end mark
    relayed: bytes  # a pattern for what follows the trace fields
    stored: bytes = b""  # empty: as it was sent


REPAIRS = (
    Repair(
        "nothing is wrong",
        SOUND + b"Subject: x\r\n\r\ny\r\n.\r\n",
        re.escape(SOUND + b"Subject: x\r\n\r\ny\r\n"),
    ),
    Repair(
        "no Date, no Message-ID",
        b"From: cam@[127.0.0.2]\r\nSubject: x\r\n\r\ny\r\n.\r\n",
        rb"From: cam@\[127\.0\.0\.2\]\r\nSubject: x\r\n" + DATE + MESSAGE_ID + rb"\r\ny\r\n",
    ),
    Repair(
        "1970",
        OLD + b"\r\ny\r\n.\r\n",
        rb"From: cam@\[127\.0\.0\.2\]\r\n"
        + DATE
        + rb"X-Original-Date: Thu, 01 Jan 1970 00:04:12 \+0000\r\nMessage-ID: <1@cam>\r\n\r\ny\r\n",
    ),
    Repair(
        "From of cron",
        SOUND.replace(b"cam@[127.0.0.2]", b"root (Cron Daemon)") + b"\r\ny\r\n.\r\n",
        rb"From: \"?Cron Daemon\"? <root@\[127\.0\.0\.2\]>\r\n"
        + rb"X-Original-From: root \(Cron Daemon\)\r\n"
        + re.escape(SOUND.partition(b"\r\n")[2] + b"\r\ny\r\n"),
    ),
    Repair(
        "GBK",
        SOUND + b"Subject: \xd2\xc6\xb6\xaf\r\n\r\n\xd2\xc6\r\n.\r\n",
        re.escape(SOUND + b"Subject: =?gb2312?B?0sa2rw==?=\r\n\r\n\xd2\xc6\r\n"),
    ),
    Repair(
        "Latin-1",
        SOUND.replace(b"cam@", b"K\xfcche <cam@", 1).replace(b"]\r\n", b"]>\r\n", 1)
        + b"\r\nK\xfcche\r\n.\r\n",
        re.escape(
            SOUND.replace(b"cam@", b"=?windows-1252?B?S/xjaGU=?= <cam@", 1).replace(
                b"]\r\n", b"]>\r\n", 1
            )
            + b"\r\nK\xfcche\r\n"
        ),
    ),
    Repair(
        "bare CR and LF",
        SOUND + b"Subject: x\n\na\nb\rc\r\n.\r\n",
        re.escape(SOUND + b"Subject: x\r\n\r\na\r\nb\r\nc\r\n"),
        SOUND + b"Subject: x\r\n\r\na\r\nb\r\nc\r\n",
    ),
    Repair(
        "a long line",
        SOUND + b"\r\n" + b"z" * 1_500 + b"\r\n.\r\n",
        re.escape(
            SOUND
            + b"Content-Transfer-Encoding: quoted-printable\r\n"
            + b"Content-Type: text/plain; charset=us-ascii\r\nMIME-Version: 1.0\r\n\r\n"
        )
        + rb"(?:z{70,75}=\r\n)+z+\r\n",
    ),
    Repair(
        "no header",
        b"dry run\r\n.\r\n",
        DATE + MESSAGE_ID + rb"From: <cam@\[127\.0\.0\.2\]>\r\n\r\ndry run\r\n",
    ),
)


@pytest.fixture(scope="module")
def peers() -> Iterator[tuple[ScriptedPeer, ScriptedPeer]]:
    """A relay, and a host near by."""
    with ScriptedPeer() as relay, ScriptedPeer() as near:
        yield relay, near


@pytest.fixture(scope="module")
def hub(
    tmp_path_factory: pytest.TempPathFactory, peers: tuple[ScriptedPeer, ScriptedPeer]
) -> Iterator[Hub]:
    relay, near = peers
    config = route("mailbox:kept", "relay:far", near.target, match='recipient = "*@far.example"')
    config += f'[relay.far]\nhost = "127.0.0.1"\nport = {relay.port}\ntls = "none"\n'
    with Hub(tmp_path_factory.mktemp("repairs"), config) as running:
        yield running


def behind_trace(relayed: bytes) -> bytes:
    """What the hub has put its own fields before."""
    trace = _TRACE.match(relayed)
    assert trace is not None, relayed
    return relayed[trace.end() :]


@pytest.mark.parametrize("repair", REPAIRS, ids=lambda repair: repair.name)
def test_the_octets_that_are_stored_and_those_a_relay_gets(
    hub: Hub, peers: tuple[ScriptedPeer, ScriptedPeer], repair: Repair
) -> None:
    relay, near = peers
    before = len(relay.mails), len(near.mails), len(hub.mailbox("kept"))
    device = Device(hub, "127.0.0.2")
    with device.socket:
        device.hears("220")
        for command in ("EHLO d", "MAIL FROM:<cam@[127.0.0.2]>", "RCPT TO:<ann@far.example>"):
            device.send([command.encode() + b"\r\n"])
            device.hears("250")
        device.send([b"DATA\r\n"])
        device.hears("354")
        device.send([repair.sent])
        device.hears("250 2.0.0 queued as")
    stored = hub.wait_for_mail("kept", before[2] + 1)[-1]
    wanted = repair.stored or repair.sent.removesuffix(b".\r\n")
    assert content_of(stored) == wanted
    # A host the operator named gets what is stored; a relay of the outside world what it takes.
    assert behind_trace(near.wait_for_mails(before[1] + 1)[-1].content) == wanted
    relayed = behind_trace(relay.wait_for_mails(before[0] + 1)[-1].content)
    assert re.fullmatch(repair.relayed, relayed), relayed
