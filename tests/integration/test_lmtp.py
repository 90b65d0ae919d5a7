"""LMTP (RFC 2033) both ways: listeners on TCP and Unix sockets, and lmtp: targets."""

from __future__ import annotations

import smtplib
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.hub import Hub
from tests.support.mail import (
    accepted,
    content_of,
    fields_of,
    message,
    next_reply,
    queue_id_in,
    reply_to,
    stuffed,
    submit,
)
from tests.support.ports import free_port
from tests.support.scripted_peer import EXTENSIONS, ScriptedPeer
from tests.support.toml import retry, route

from .conftest import StartHub, StartPeer

FAR = 'recipient = "*@far.example"'


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory for sockets, whose paths must be short."""
    with tempfile.TemporaryDirectory(prefix="wp-") as directory:
        yield Path(directory)


@pytest.fixture
def hub(start_hub: StartHub, short_path: Path) -> Hub:
    """A hub that speaks LMTP on TCP (its port) and on a Unix socket, and SMTP nowhere."""
    port = free_port()
    binds = f'"127.0.0.1:{port}", "{short_path}/in.sock"'
    listener = f'[[listener]]\nname = "lmtp"\nrole = "lmtp"\nbind = [{binds}]\n'
    closed = (
        '[mailboxes]\nauto_create = false\n[[mailbox]]\nname = "ann"\n[[mailbox]]\nname = "bob"\n'
    )
    domains = '[addresses]\ndomains = ["plant.example"]\n'
    return start_hub(closed + domains, listener=listener, port=port)


@pytest.fixture(params=["tcp", "unix"])
def lmtp(request: pytest.FixtureRequest, hub: Hub, short_path: Path) -> Iterator[smtplib.LMTP]:
    """A session with it."""
    if request.param == "tcp":
        session = smtplib.LMTP("127.0.0.1", hub.port)
    else:
        session = smtplib.LMTP(str(short_path / "in.sock"))
    with session:
        yield session


def test_smtplib_hands_mail_over(hub: Hub, lmtp: smtplib.LMTP) -> None:
    assert lmtp.sendmail("cam@plant.example", ["ann@plant.example"], message()) == {}
    (stored,) = hub.wait_for_mail("ann")
    assert content_of(stored) == message()
    (received,) = fields_of(stored, "received")
    assert " with LMTP id " in received


def test_the_session(lmtp: smtplib.LMTP) -> None:
    assert lmtp.docmd("EHLO", "x")[0] == 500
    assert lmtp.docmd("HELO", "x")[0] == 500
    code, said = lmtp.docmd("LHLO", "x")
    assert code == 250
    words = said.decode().splitlines()
    for word in ("PIPELINING", "ENHANCEDSTATUSCODES", "8BITMIME", "CHUNKING", "DSN", "SMTPUTF8"):
        assert word in words


def test_a_reply_for_each_recipient(hub: Hub, lmtp: smtplib.LMTP) -> None:
    lmtp.docmd("LHLO", "x")
    accepted(lmtp, "MAIL FROM:<cam@plant.example>")
    accepted(lmtp, "RCPT TO:<ann@plant.example>")
    assert reply_to(lmtp, "RCPT TO:<nobody@plant.example>").startswith("550 5.1.1")
    accepted(lmtp, "RCPT TO:<bob@plant.example>")
    assert reply_to(lmtp, "DATA").startswith("354")
    lmtp.send(stuffed(message()))
    # One reply for each recipient that was accepted, and then the session is in step.
    ids = {queue_id_in(next_reply(lmtp)) for _ in range(2)}
    assert len(ids) == 1
    assert reply_to(lmtp, "NOOP").startswith("250")
    hub.wait_for_mail("ann")
    hub.wait_for_mail("bob")


def test_a_reply_for_each_recipient_after_bdat(hub: Hub, lmtp: smtplib.LMTP) -> None:
    lmtp.docmd("LHLO", "x")
    accepted(lmtp, "MAIL FROM:<>")
    accepted(lmtp, "RCPT TO:<ann@plant.example>")
    accepted(lmtp, "RCPT TO:<bob@plant.example>")
    content = message()
    lmtp.send(b"BDAT 5\r\n" + content[:5] + b"BDAT %d LAST\r\n" % len(content[5:]) + content[5:])
    assert next_reply(lmtp).startswith("250")
    for _ in range(2):
        queue_id_in(next_reply(lmtp))
    assert reply_to(lmtp, "NOOP").startswith("250")
    assert content_of(hub.wait_for_mail("ann")[0]) == content


def test_a_refused_message_is_refused_for_each_recipient(
    start_hub: StartHub, short_path: Path
) -> None:
    listener = f'[[listener]]\nname = "l"\nrole = "lmtp"\nbind = ["{short_path}/l.sock"]\n'
    start_hub("[limits]\nmessage_bytes = 1000\n", listener=listener)
    with smtplib.LMTP(str(short_path / "l.sock")) as lmtp:
        lmtp.docmd("LHLO", "x")
        accepted(lmtp, "MAIL FROM:<>")
        accepted(lmtp, "RCPT TO:<ann@[127.0.0.1]>")
        accepted(lmtp, "RCPT TO:<bob@[127.0.0.1]>")
        assert reply_to(lmtp, "DATA").startswith("354")
        lmtp.send(stuffed(message("big", "x" * 900, "x" * 900)))
        for _ in range(2):
            assert next_reply(lmtp).startswith("552 5.3.4")
        assert reply_to(lmtp, "NOOP").startswith("250")


def test_content_without_recipients(lmtp: smtplib.LMTP) -> None:
    lmtp.docmd("LHLO", "x")
    accepted(lmtp, "MAIL FROM:<>")
    assert reply_to(lmtp, "RCPT TO:<nobody@plant.example>").startswith("550")
    # RFC 2033 §4.2 and §4.3: 503, where SMTP has 554.
    assert reply_to(lmtp, "DATA").startswith("503")
    lmtp.send(b"BDAT 5 LAST\r\nhello")
    assert next_reply(lmtp).startswith("503")
    assert reply_to(lmtp, "NOOP").startswith("250")


def test_the_socket_is_for_owner_and_group(hub: Hub, short_path: Path) -> None:
    path = short_path / "in.sock"
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    # One that was left by a killed hub is no obstacle, and a clean end leaves none.
    hub.kill()
    assert path.exists()
    hub.start()
    with smtplib.LMTP(str(path)) as lmtp:
        assert lmtp.docmd("LHLO", "x")[0] == 250
    hub.stop()
    assert not path.exists()


def test_a_program_on_this_host_gets_reports_at_its_literal(
    start_hub: StartHub, short_path: Path, peer: ScriptedPeer
) -> None:
    listener = f'[[listener]]\nname = "l"\nrole = "lmtp"\nbind = ["{short_path}/l.sock"]\n'
    hub = start_hub(route(peer.target, match=FAR), listener=listener)
    peer.answer("RCPT", "550 5.1.1 Nobody here")
    with smtplib.LMTP(str(short_path / "l.sock")) as lmtp:
        lmtp.sendmail("ann@[127.0.0.1]", ["bob@far.example"], message())
        assert b"Action: failed" in hub.wait_for_mail("ann")[0]
        # But not at another host's.
        lmtp.sendmail("ann@[192.0.2.1]", ["bob@far.example"], message())
        hub.wait_for_log("report-dropped")


# Onward.


@pytest.fixture(params=["tcp", "unix"])
def sink(request: pytest.FixtureRequest, start_peer: StartPeer, short_path: Path) -> ScriptedPeer:
    """An LMTP server of somebody else."""
    path = short_path / "out.sock" if request.param == "unix" else None
    return start_peer(is_lmtp=True, path=path)


def test_mail_goes_on_by_lmtp(start_hub: StartHub, sink: ScriptedPeer) -> None:
    hub = start_hub(route(sink.target, match=FAR))
    with hub.smtp(local_hostname="x") as smtp:
        submit(smtp, "ann@far.example", "bob@far.example", content=message("lmtp", ".dots"))
    (mail,) = sink.wait_for_mails()
    assert mail.paths == ["ann@far.example", "bob@far.example"]
    assert mail.content.endswith(message("lmtp", ".dots"))
    assert sink.commands[0].startswith("LHLO ")
    hub.wait_for_log("outcome=delivered")
    (entry,) = hub.json("trace")
    assert {recipient["outcome"] for recipient in entry["recipients"]} == {"delivered"}


def test_each_recipient_is_judged_by_its_own_reply(start_hub: StartHub, sink: ScriptedPeer) -> None:
    hub = start_hub(retry(0.3) + route(sink.target, match=FAR))
    sink.answer_once("CONTENT <bob@", "452 4.2.2 Over quota")
    sink.answer("CONTENT <carl@", "550 5.2.1 Disabled")
    sink.answer("RCPT TO:<dora@", "550 5.1.1 Unknown")
    names = ("ann", "bob", "carl", "dora", "eve")
    with hub.smtp(local_hostname="x") as smtp:
        submit(smtp, *(f"{name}@far.example" for name in names))
    first, second = sink.wait_for_mails(2)
    assert first.paths == [f"{name}@far.example" for name in ("ann", "bob", "carl", "eve")]
    assert second.paths == ["bob@far.example"]
    hub.wait_for_mail("ann")
    reports = b"".join(hub.mailbox("ann"))
    assert b"carl@far.example" in reports
    assert b"5.2.1 Disabled" in reports
    assert b"dora@far.example" in reports
    assert b"eve@far.example" not in reports


@pytest.mark.parametrize("knows_dsn", [True, False])
def test_success_behind_lmtp_counts_as_delivered(
    start_hub: StartHub, start_peer: StartPeer, knows_dsn: bool
) -> None:
    extensions = [word for word in EXTENSIONS if knows_dsn or word != "DSN"]
    sink = start_peer(is_lmtp=True, extensions=extensions)
    hub = start_hub(route(sink.target, match=FAR))
    with hub.smtp(local_hostname="x") as smtp:
        submit(smtp, "bob@far.example", rcpt="NOTIFY=SUCCESS")
        hub.wait_for_log("outcome=delivered")
        if knows_dsn:
            # It was told who wants to know, and will say so itself.
            assert "NOTIFY=SUCCESS" in sink.mails[0].recipients[0]
            assert len(hub.json("trace")) == 1
        else:
            assert b"Action: delivered" in hub.wait_for_mail("ann")[0]


def test_a_socket_that_is_not_there_yet(
    start_hub: StartHub, short_path: Path, start_peer: StartPeer
) -> None:
    path = short_path / "late.sock"
    hub = start_hub(retry(0.3, max_s=0.3) + route(f"lmtp:{path}", match=FAR))
    with hub.smtp(local_hostname="x") as smtp:
        submit(smtp, "bob@far.example")
    hub.wait_for_log("outcome=deferred")
    sink = start_peer(is_lmtp=True, path=path)
    sink.wait_for_mails()
