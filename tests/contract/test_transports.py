"""The Transport seam (delivery/transport.py): one Outcome for each recipient, refusals included;
and what Maildirs must withstand besides.
"""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.contract.mail import TEXT, new_message, on_loop
from tests.fault.small_disk import small_disk
from waypost.delivery import maildir as maildir_module
from waypost.delivery.discard import DiscardTransport
from waypost.delivery.events import EventReader
from waypost.delivery.maildir import MaildirTransport, directory_name, mailbox_names
from waypost.delivery.notify import NotifyTransport
from waypost.delivery.transport import DeliveryJob, Transport
from waypost.delivery.webhook import WebhookTransport
from waypost.devices.names import DeviceNames
from waypost.mail.address import Address
from waypost.mail.envelope import Outcome, OutcomeKind
from waypost.mail.message import Content
from waypost.mail.reply import Reply
from waypost.net.gate import Gate
from waypost.net.networks import Networks
from waypost.observe import Log
from waypost.queue.spool import FileContent, InlineContent
from waypost.queue.store import QueueIdSource
from waypost.reading.process import MailReader
from waypost.routing.targets import Target

IDS = QueueIdSource()

# Names a sender may try, none of which may lead anywhere but to a directory below the root.
HOSTILE = (
    "..",
    ".",
    "...",
    ".hidden",
    ".Trash",
    "../../etc/cron.d/x",
    "/etc/passwd",
    "a/b",
    "a//b",
    "a\\b",
    "a\0b",
    "\0",
    "a\nb",
    "a\x7fb",
    "~root",
    "-rf",
    " ",
    "a b",
    "%2e%2e",
    "%",
    "%00",
    "a:2,S",
    "tmp",
    "new",
    "cur",
    "",
    "jörg",
    "ångström",
    "日本",
    "\u202egpj.exe",
    "\u2024\u2024",
    "\uff0e\uff0e\uff0f",
    "x" * 64,
)


def job(
    mailbox: str,
    *,
    content: Content | None = None,
    to: Sequence[str] = ("bob@[127.0.0.1]",),
    reverse_path: Address | None = None,
) -> DeliveryJob:
    """A message for one mailbox."""
    message = new_message(IDS.next_id(), to=to, content=content, reverse_path=reverse_path)
    return DeliveryJob(message, message.recipients, Target("mailbox", mailbox))


@asynccontextmanager
async def opened(root: Path) -> AsyncIterator[MaildirTransport]:
    """A transport that ends in good order."""
    transport = MaildirTransport(root, on_created=lambda name: None)
    try:
        yield transport
    finally:
        await transport.close()


def mails(root: Path, mailbox: str, part: str = "new") -> list[Path]:
    """The files of a mailbox."""
    directory = root / directory_name(mailbox) / part
    return sorted(directory.iterdir()) if directory.is_dir() else []


def reply_of(outcomes: Sequence[Outcome]) -> Reply:
    """The reply all recipients share."""
    [reply] = {outcome.reply for outcome in outcomes}
    return reply


# Every transport that needs no peer.


@pytest.mark.parametrize("name", ["maildir", "discard"])
@pytest.mark.parametrize("count", [1, 3])
@on_loop
async def test_each_recipient_gets_an_outcome(tmp_path: Path, name: str, count: int) -> None:
    to = [f"box{number}@[127.0.0.1]" for number in range(count)]
    async with opened(tmp_path) as maildir:
        transport: Transport = maildir if name == "maildir" else DiscardTransport()
        outcomes = await transport.deliver(job("bob", to=to))
    assert [outcome.kind for outcome in outcomes] == [OutcomeKind.DELIVERED] * count
    assert all(outcome.reply.is_positive for outcome in outcomes)
    assert transport.window() >= 1


# Maildirs.


@on_loop
async def test_mail_is_whole_and_says_from_whom_for_whom(tmp_path: Path) -> None:
    async with opened(tmp_path) as transport:
        await transport.deliver(
            job(
                "bob",
                to=("bob@[127.0.0.1]", "bob+x@[127.0.0.1]"),
                reverse_path=Address.parse("ann@[10.0.0.1]"),
            )
        )
        await transport.deliver(job("bob"))
    first, second = (path.read_bytes() for path in mails(tmp_path, "bob"))
    assert first == (
        b"Return-Path: <ann@[10.0.0.1]>\r\n"
        b"Delivered-To: bob@[127.0.0.1]\r\nDelivered-To: bob+x@[127.0.0.1]\r\n"
        b"Received: from client.test by hub.test\r\n" + TEXT
    )
    assert second.startswith(b"Return-Path: <>\r\n")
    assert mails(tmp_path, "bob", "tmp") == mails(tmp_path, "bob", "cur") == []


@pytest.mark.parametrize("size", [0, 1, 262_144, 1_000_001])
@on_loop
async def test_content_in_a_file_is_copied_octet_for_octet(tmp_path: Path, size: int) -> None:
    source = tmp_path / "content"
    source.write_bytes(os.urandom(size))
    async with opened(tmp_path / "mail") as transport:
        await transport.deliver(job("bob", content=FileContent(source, size)))
    [mail] = mails(tmp_path / "mail", "bob")
    assert mail.read_bytes().endswith(b"\r\n" + source.read_bytes())


@on_loop
async def test_concurrent_deliveries_are_files_of_their_own(tmp_path: Path) -> None:
    async with opened(tmp_path) as transport:
        contents = [InlineContent(b"%d\r\n" % number) for number in range(200)]
        jobs = [job(f"box{number % 3}", content=content) for number, content in enumerate(contents)]
        await asyncio.gather(*(transport.deliver(entry) for entry in jobs))
    found = [path.read_bytes() for box in range(3) for path in mails(tmp_path, f"box{box}")]
    assert sorted(int(octets.split()[-1]) for octets in found) == list(range(200))


@on_loop
async def test_nobody_else_can_read_mail(tmp_path: Path) -> None:
    async with opened(tmp_path / "mail") as transport:
        await transport.deliver(job("bob"))
    modes = {
        stat.S_IMODE(path.stat().st_mode)
        for path in (tmp_path / "mail", *(tmp_path / "mail").rglob("*"))
        if path.is_dir()
    }
    assert modes == {0o700}
    [mail] = mails(tmp_path / "mail", "bob")
    assert stat.S_IMODE(mail.stat().st_mode) == 0o600


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
@on_loop
async def test_no_name_leads_out_of_the_root(tmp_path: Path, name: str) -> None:
    root = tmp_path / "mail"
    async with opened(root) as transport:
        outcomes = await transport.deliver(job(name))
    assert reply_of(outcomes).is_positive
    assert [path.name for path in tmp_path.iterdir()] == ["mail"]
    [directory] = root.iterdir()
    assert not directory.name.startswith(".")
    assert directory.name.isascii()
    [mail] = (directory / "new").iterdir()
    assert mail.read_bytes().endswith(TEXT)
    assert list(mailbox_names(root)) == [name]


def test_no_two_names_share_a_directory() -> None:
    names = [*HOSTILE, "a%2Fb", "%2E.", "%2E%2E", "jo\u0308rg", "X" * 64]
    assert len({directory_name(name) for name in names}) == len(names)


@on_loop
async def test_a_name_too_long_for_the_disk_is_no_crash(tmp_path: Path) -> None:
    async with opened(tmp_path) as transport:
        reply = reply_of(await transport.deliver(job("日" * 100)))
        assert reply.is_transient
        assert (await transport.deliver(job("bob")))[0].reply.is_positive


@pytest.mark.parametrize("part", ["", "tmp", "new", "cur"])
@pytest.mark.parametrize("is_known", [False, True])
@on_loop
async def test_a_symbolic_link_in_place_is_refused(
    tmp_path: Path, part: str, is_known: bool
) -> None:
    root, elsewhere = tmp_path / "mail", tmp_path / "elsewhere"
    for name in ("tmp", "new", "cur"):
        (elsewhere / name).mkdir(parents=True)
    async with opened(root) as transport:
        if is_known:
            await transport.deliver(job("bob"))
        place = root / "bob" / part
        if place.exists():
            place.rename(tmp_path / "moved")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(elsewhere / part)
        reply = reply_of(await transport.deliver(job("bob")))
        assert reply.is_transient
        assert [path for path in elsewhere.rglob("*") if path.is_file()] == []
        place.unlink()
        assert reply_of(await transport.deliver(job("bob"))).is_positive


@on_loop
async def test_a_link_to_a_directory_is_no_mailbox(tmp_path: Path) -> None:
    async with opened(tmp_path) as transport:
        await transport.deliver(job("bob"))
    (tmp_path / "eve").symlink_to(tmp_path / "bob")
    assert list(mailbox_names(tmp_path)) == ["bob"]


@on_loop
async def test_a_mailbox_removed_by_its_owner_is_made_again(tmp_path: Path) -> None:
    async with opened(tmp_path) as transport:
        await transport.deliver(job("bob"))
        for part in ("new", "tmp"):
            (tmp_path / "bob" / part).rename(tmp_path / f"old-{part}")
            replies = [reply_of(await transport.deliver(job("bob"))) for _ in range(2)]
            assert replies[-1].is_positive
            assert len(mails(tmp_path, "bob")) >= 1


@on_loop
async def test_no_room_defers_and_leaves_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 4) as ballast:
        root = ballast.directory / "mail"
        async with opened(root) as transport:
            await transport.deliver(job("bob"))
            ballast.fill()
            # The directories of another mailbox, and the octets of a mail, find no room.
            for mailbox in ("bob", "eve"):
                [outcome] = await transport.deliver(
                    job(mailbox, content=InlineContent(b"x" * 60_000))
                )
                assert outcome.kind is OutcomeKind.DEFERRED
                assert (outcome.reply.code, outcome.reply.enhanced) == (452, "4.2.2")
                assert mails(root, mailbox, "tmp") == []
            ballast.drop()
            for mailbox in ("bob", "eve"):
                assert reply_of(await transport.deliver(job(mailbox))).is_positive
            assert [len(mails(root, mailbox)) for mailbox in ("bob", "eve")] == [2, 1]


@pytest.mark.parametrize("call", ["write", "fsync", "rename", "sync_directory"])
@on_loop
async def test_trouble_at_any_step_defers_and_leaves_no_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    async with opened(tmp_path) as transport:
        await transport.deliver(job("bob"))
        with monkeypatch.context() as patched:
            patched.setattr(maildir_module if call == "sync_directory" else os, call, fail)
            outcomes = await asyncio.gather(*(transport.deliver(job("bob")) for _ in range(3)))
        assert {outcome.kind for [outcome] in outcomes} == {OutcomeKind.DEFERRED}
        assert len(mails(tmp_path, "bob")) == 1
        assert mails(tmp_path, "bob", "tmp") == []
        assert reply_of(await transport.deliver(job("bob"))).is_positive


@on_loop
async def test_content_that_cannot_be_read_defers_that_mail_alone(tmp_path: Path) -> None:
    async with opened(tmp_path) as transport:
        lost = FileContent(tmp_path / "no-such-file", 100_000)
        outcomes = await asyncio.gather(
            *(transport.deliver(job("bob", content=content)) for content in (None, lost, None))
        )
        assert [outcome.kind for [outcome] in outcomes] == [
            OutcomeKind.DELIVERED,
            OutcomeKind.DEFERRED,
            OutcomeKind.DELIVERED,
        ]
        assert len(mails(tmp_path, "bob")) == 2
        assert mails(tmp_path, "bob", "tmp") == []


@on_loop
async def test_what_dead_deliveries_left_goes_after_36_hours(tmp_path: Path) -> None:
    async with opened(tmp_path) as transport:
        await transport.deliver(job("bob"))
    old, young = tmp_path / "bob/tmp/old", tmp_path / "bob/tmp/young"
    for path, age_h in ((old, 37), (young, 35)):
        path.touch()
        os.utime(path, (time.time() - age_h * 3_600,) * 2)
    async with opened(tmp_path) as transport:
        await transport.deliver(job("bob"))
    assert mails(tmp_path, "bob", "tmp") == [young]


# Webhooks and notifications; with real servers: tests/integration/test_webhooks, test_notify.


@pytest.mark.parametrize("kind", ["webhook", "notify"])
@pytest.mark.parametrize("count", [1, 3])
@on_loop
async def test_mail_for_what_is_configured_no_more_waits(
    kind: str, count: int, tmp_path: Path
) -> None:
    events = EventReader(MailReader(), DeviceNames)
    log = Log(os.open(os.devnull, os.O_WRONLY))
    transports: dict[str, Transport] = {
        "webhook": WebhookTransport(events, gate_of=no_gate, log=log),
        "notify": NotifyTransport(events, tmp_path / "notify.json"),
    }
    transport = transports[kind]
    work = job("bob", to=[f"box{number}@[127.0.0.1]" for number in range(count)])
    gone = DeliveryJob(work.message, work.recipients, Target(kind, "gone"))
    assert {transport.destination(gone.target, one) for one in gone.recipients} == {f"{kind}:gone"}
    outcomes = await transport.deliver(gone)
    assert [outcome.kind for outcome in outcomes] == [OutcomeKind.DEFERRED] * count
    assert f"[{kind}.gone]" in reply_of(outcomes).text
    assert transport.window() >= 1


def no_gate(networks: Networks) -> Gate:
    raise AssertionError("nothing is to be connected to")
