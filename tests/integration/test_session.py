"""The hub as an SMTP server: commands, extensions, limits, and addresses taken as they are."""

from __future__ import annotations

import signal
import smtplib
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.support.hub import Hub
from tests.support.mail import (
    accepted,
    fields_of,
    message,
    next_reply,
    parsed,
    queue_id_in,
    reply_to,
    stuffed,
    submit,
    submit_content,
    wire,
)
from tests.support.toml import route
from tests.support.waiting import wait_until

from .conftest import StartHub


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A hub with small limits, but for recipients, where the default holds."""
    config = "[limits]\nmessage_bytes = 20000\n"
    with Hub(tmp_path_factory.mktemp("session") / "hub", config) as running:
        yield running


@pytest.fixture
def session(hub: Hub) -> Iterator[smtplib.SMTP]:
    """A session that has been greeted."""
    with hub.smtp(local_hostname="client.test") as smtp:
        smtp.ehlo()
        yield smtp


# Commands.


def test_greeting_and_extensions(hub: Hub) -> None:
    with hub.smtp(local_hostname="client.test") as smtp:
        code, said = smtp.ehlo()
    assert code == 250
    name, *words = said.decode().splitlines()
    assert name == "[127.0.0.1]"
    assert {
        "PIPELINING",
        "SIZE 20000",
        "8BITMIME",
        "BINARYMIME",
        "CHUNKING",
        "SMTPUTF8",
        "ENHANCEDSTATUSCODES",
        "DSN",
        "LIMITS RCPTMAX=1000",
    } <= set(words)


def test_a_host_name_is_used_where_there_is_one(start_hub: StartHub) -> None:
    hub = start_hub('hostname = "hub.lan"\n')
    with hub.smtp(local_hostname="x") as smtp:
        assert smtp.ehlo()[1].decode().splitlines()[0] == "hub.lan"
        submit(smtp, "ann@hub.lan", "ann@[127.0.0.1]")
        assert b" by hub.lan (Waypost) " in b" ".join(hub.wait_for_mail("ann")[0].split())


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        ("NOOP", "250 2.0.0"),
        ("NOOP whatever", "250 2.0.0"),
        ("noop", "250 2.0.0"),
        ("RSET", "250 2.0.0"),
        ("VRFY ann", "252 2.1.5"),
        ("HELP", "214 2.0.0"),
        ("EXPN list", "502 5.5.1"),
        ("STARTTLS now", "501 5.5.4"),
        ("AUTH PLAIN", "502 5.5.1"),
        ("TURN", "500 5.5.2"),
        ("RCPT TO:<ann@[127.0.0.1]>", "503 5.5.1"),
        ("DATA", "503 5.5.1"),
        ("MAIL FROM:<a@[1.2.3.4]> SIZE=nine", "501 5.5.4"),
        ("MAIL FROM:<a@[1.2.3.4]> BODY=9BIT", "501 5.5.4"),
        ("MAIL FROM:<a@[1.2.3.4]> RET=SOME", "501 5.5.4"),
        ("MAIL FROM:<a@@b>", "501 5.1.7"),
        ("MAIL TO:<a@b>", "501 5.5.4"),
        ("QUIT", "221 2.0.0"),
    ],
)
def test_replies(session: smtplib.SMTP, command: str, reply: str) -> None:
    assert reply_to(session, command).startswith(reply)


def test_helo_and_no_greeting_at_all(hub: Hub) -> None:
    with hub.smtp() as smtp:
        assert reply_to(smtp, "MAIL FROM:<>").startswith("503 5.5.1")
        assert smtp.helo("client.test") == (250, b"[127.0.0.1]")
        submit(smtp, "helo@[127.0.0.1]")
    (stored,) = hub.wait_for_mail("helo")
    (received,) = fields_of(stored, "received")
    assert "from client.test ([127.0.0.1])" in received
    assert " with SMTP id " in received


def test_rset_forgets_the_transaction(session: smtplib.SMTP) -> None:
    accepted(session, "MAIL FROM:<>")
    accepted(session, "RCPT TO:<rset@[127.0.0.1]>")
    accepted(session, "RSET")
    assert reply_to(session, "DATA").startswith("503")
    assert reply_to(session, "RCPT TO:<rset@[127.0.0.1]>").startswith("503")


def test_a_half_closed_client_gets_its_answers(hub: Hub) -> None:
    """As `printf … | nc` has it."""
    with socket.create_connection(("127.0.0.1", hub.port), timeout=20) as client:
        envelope = wire("HELO x", "MAIL FROM:<>", "RCPT TO:<nc@[127.0.0.1]>", "DATA")
        client.sendall(envelope + stuffed(message()) + b"QUIT\r\n")
        client.shutdown(socket.SHUT_WR)
        said = b""
        while piece := client.recv(4096):
            said += piece
    assert said.count(b"queued as") == 1
    assert b"\r\n221 " in said
    hub.wait_for_mail("nc")


def test_trace_fields(session: smtplib.SMTP, hub: Hub) -> None:
    queue_id = submit(session, "trace@[127.0.0.1]", sender="cam@plant.example")
    (stored,) = hub.wait_for_mail("trace")
    lines = stored.split(b"\r\n")
    assert lines[0] == b"Return-Path: <cam@plant.example>"
    assert lines[1] == b"Delivered-To: trace@[127.0.0.1]"
    assert lines[2] == b"Received: from client.test ([127.0.0.1])"
    assert lines[3] == f"\tby [127.0.0.1] (Waypost) with ESMTP id {queue_id}".encode()
    assert lines[4].startswith(b"\tfor <trace@[127.0.0.1]>; ")
    assert parsed(stored)["date"] is None  # nothing else is added


def test_recipients_are_not_told_of_each_other(session: smtplib.SMTP, hub: Hub) -> None:
    submit(session, "one@[127.0.0.1]", "two@[127.0.0.1]")
    assert b"two@" not in hub.wait_for_mail("one")[0]
    assert b"one@" not in hub.wait_for_mail("two")[0]


# Addresses.


@pytest.mark.parametrize(
    ("path", "mailbox"),
    [
        ("plain@[127.0.0.1]", "plain"),
        ("Fold.Me@[127.0.0.1]", "fold.me"),
        ("tagged+anything@[127.0.0.1]", "tagged"),
        ("percent%elsewhere.example@[127.0.0.1]", "percent%elsewhere.example"),
        ("elsewhere.example!bang@[127.0.0.1]", "elsewhere.example!bang"),
        ('"quoted local"@[127.0.0.1]', "quoted local"),
        ('"at@sign"@[127.0.0.1]', '"at@sign"'),
        ('"simple"@[127.0.0.1]', "simple"),
        ("@elsewhere.example:routed@[127.0.0.1]", "routed"),
        ("@[10.1.2.3],@b.example:routed2@[127.0.0.1]", "routed2"),
        ('"../../escape"@[127.0.0.1]', "../../escape"),
        ('".."@[127.0.0.1]', ".."),
        ('"a/b"@[127.0.0.1]', "a/b"),
        ("postmaster", "postmaster"),
        ("PostMaster@[IPv6:::ffff:127.0.0.1]", "postmaster"),
        ("loopback@[127.9.9.9]", "loopback"),
        ("x" * 64 + "@[127.0.0.1]", "x" * 64),
    ],
)
def test_attack_66_local_parts_are_taken_as_they_are(
    session: smtplib.SMTP, hub: Hub, path: str, mailbox: str
) -> None:
    submit(session, path)
    directory = quote(mailbox, safe="+=@-_.")
    if directory.startswith("."):
        directory = "%2E" + directory[1:]
    assert len(hub.wait_for_mail(directory)) == 1
    # One level below the root, whatever the local part holds.
    assert (hub.data / "mail" / directory).parent.resolve() == (hub.data / "mail").resolve()


@pytest.mark.parametrize(
    "path", ["x" * 65 + "@[127.0.0.1]", "a..b@[127.0.0.1]", "@[127.0.0.1]", "a b@[127.0.0.1]", ""]
)
def test_what_is_no_address_is_refused(session: smtplib.SMTP, path: str) -> None:
    accepted(session, "MAIL FROM:<>")
    assert reply_to(session, f"RCPT TO:<{path}>").startswith("501 5.1.3")


def test_percent_and_bang_travel_unchanged(start_hub: StartHub) -> None:
    hub = start_hub()
    (told,) = hub.json("route", "a%b.example@[10.9.9.9]")
    assert told["recipient"] == "a%b.example@[10.9.9.9]"
    assert told["hops"] == {"direct": ["[10.9.9.9]:25"]}


def test_an_unknown_mailbox_is_refused_at_once(start_hub: StartHub) -> None:
    closed = '[mailboxes]\nauto_create = false\n[[mailbox]]\nname = "ann"\naliases = ["root"]\n'
    hub = start_hub(closed)
    with hub.smtp(local_hostname="x") as smtp:
        accepted(smtp, "EHLO x")
        accepted(smtp, "MAIL FROM:<cam@[127.0.0.1]>")
        assert reply_to(smtp, "RCPT TO:<nobody@[127.0.0.1]>").startswith("550 5.1.1")
        for path in ("ann@[127.0.0.1]", "ROOT@[127.0.0.1]", "ann+x@[127.0.0.1]", "postmaster"):
            accepted(smtp, f"RCPT TO:<{path}>")
        submit_content(smtp, message())
    # Three names of one mailbox are one delivery.
    hub.wait_for_mail("postmaster")
    assert len(hub.wait_for_mail("ann")) == 1


@pytest.mark.parametrize("case", ["fold", "exact"])
def test_mailbox_settings(start_hub: StartHub, case: str) -> None:
    hub = start_hub(f'[mailboxes]\ncase = "{case}"\nsubaddress = "-"\n')
    with hub.smtp(local_hostname="x") as smtp:
        submit(smtp, "Ann-list@[127.0.0.1]")
        hub.wait_for_mail("Ann" if case == "exact" else "ann")
        submit(smtp, "ann+x@[127.0.0.1]")
        hub.wait_for_mail("ann+x")


def test_names_of_ours_in_any_script_and_case(start_hub: StartHub) -> None:
    hub = start_hub('[addresses]\ndomains = ["plant.example", "bücher.example"]\n')
    with hub.smtp(local_hostname="x") as smtp:
        submit(smtp, "ann@PLANT.Example")
        submit(smtp, "ann@xn--bcher-kva.example")
        submit(smtp, "ann@BÜCHER.example", mail="SMTPUTF8")
        hub.wait_for_mail("ann", 3)
        accepted(smtp, "MAIL FROM:<>")
        assert reply_to(smtp, "RCPT TO:<ann@sub.plant.example>").startswith("550 5.7.1")


def test_bare_addresses_can_be_switched_off(start_hub: StartHub) -> None:
    hub = start_hub('[addresses]\nbare_ip = "never"\n')
    with hub.smtp(local_hostname="x") as smtp:
        smtp.ehlo()
        accepted(smtp, "MAIL FROM:<>")
        assert reply_to(smtp, "RCPT TO:<ann@127.0.0.1>").startswith("550 5.7.1")
        accepted(smtp, "RCPT TO:<ann@[127.0.0.1]>")


# Limits.


def test_size_is_checked_when_it_is_announced(session: smtplib.SMTP) -> None:
    assert reply_to(session, "MAIL FROM:<> SIZE=20001").startswith("552 5.3.4")
    assert reply_to(session, "MAIL FROM:<> SIZE=20000").startswith("250")


@pytest.mark.parametrize("by_chunks", [False, True])
def test_attack_58_size_is_checked_as_it_comes(
    hub: Hub, session: smtplib.SMTP, by_chunks: bool
) -> None:
    accepted(session, "MAIL FROM:<> SIZE=100")
    accepted(session, "RCPT TO:<size@[127.0.0.1]>")
    content = message("big", *["x" * 70] * 20_000)
    if by_chunks:
        session.send(b"BDAT %d LAST\r\n" % len(content) + content)
    else:
        assert reply_to(session, "DATA").startswith("354")
        session.send(stuffed(content))
    assert next_reply(session).startswith("552 5.3.4")
    # In step: what follows is read as commands, and the next message is taken.
    submit(session, "size@[127.0.0.1]", content=message("after"))
    assert b"Subject: after" in hub.wait_for_mail("size")[-1]
    assert not any(b"Subject: big" in stored for stored in hub.mailbox("size"))
    assert [path.name for path in (hub.data / "content").iterdir()] == ["tmp"]


def test_exactly_the_limit_is_taken(hub: Hub, session: smtplib.SMTP) -> None:
    content = message("limit")
    content += b"x" * (20_000 - len(content) - 2) + b"\r\n"
    assert len(content) == 20_000
    submit(session, "limit@[127.0.0.1]", content=content)
    hub.wait_for_mail("limit")


def test_attack_57_the_thousand_and_first_recipient_waits(hub: Hub, session: smtplib.SMTP) -> None:
    commands = [f"RCPT TO:<many+{number}@[127.0.0.1]>" for number in range(1002)]
    session.send(wire("MAIL FROM:<>", *commands))
    replies = [next_reply(session) for _ in range(1003)]
    assert all(reply.startswith("250") for reply in replies[:1001])
    assert all(reply.startswith("452 4.5.3") for reply in replies[1001:])
    submit_content(session, message())
    (stored,) = hub.wait_for_mail("many")
    assert stored.count(b"Delivered-To:") == 1000


@pytest.mark.parametrize(("hops", "reply"), [(49, "250 2.0.0"), (50, "554 5.4.6")])
def test_attack_64_fifty_received_fields_are_a_loop(
    hub: Hub, session: smtplib.SMTP, hops: int, reply: str
) -> None:
    trace = [f"Received: from a by b id {number}; x" for number in range(hops)]
    accepted(session, "MAIL FROM:<>")
    accepted(session, "RCPT TO:<loop@[127.0.0.1]>")
    assert reply_to(session, "DATA").startswith("354")
    session.send(stuffed(wire(*trace, "", "Received: in the body does not count")))
    assert next_reply(session).startswith(reply)
    assert reply_to(session, "NOOP").startswith("250")


def test_attack_64_two_hubs_that_point_at_each_other_end_their_loop(start_hub: StartHub) -> None:
    first, second = (
        start_hub(
            f'[addresses]\nown = ["127.0.0.{number}"]\n[policy]\nvouchers = ["loopback"]\n',
            host=f"127.0.0.{number}",
        )
        for number in (11, 12)
    )
    for hub, other in ((first, second), (second, first)):
        hub.stop()
        target = f"smtp:[{other.host}]:{other.port}"
        text = hub.config_file.read_text()
        hub.config_file.write_text(text + route(target, match='recipient = "*@loop.example"'))
        hub.start()
    with first.smtp(local_hostname="x") as smtp:
        submit(smtp, "ann@loop.example", sender="bob@[127.0.0.11]")
    # The report says so, from whichever hub gave up on the other.
    for hub in (first, second):
        hub.wait_for_log("554 5.4.6")
    sent = first.log_text().count(" received ") + second.log_text().count(" received ")
    assert 50 <= sent <= 52


def test_one_connection_too_many(start_hub: StartHub) -> None:
    hub = start_hub("[limits]\nconnections = 5\n")
    sessions = [hub.smtp(local_hostname="x") for _ in range(5)]
    with pytest.raises(smtplib.SMTPConnectError) as refused:
        hub.smtp()
    assert refused.value.smtp_code == 421
    assert "4.3.2 " in str(refused.value.smtp_error)
    sessions.pop().quit()
    wait_until(lambda: has_room(hub))
    for session in sessions:
        session.quit()


def has_room(hub: Hub) -> bool:
    try:
        hub.smtp().close()
    except smtplib.SMTPConnectError:
        return False
    return True


def test_a_second_hub_on_the_same_data_refuses(hub: Hub, start_hub: StartHub) -> None:
    done = hub.run("serve")
    assert done.returncode == 2
    assert b"in use by another hub" in done.stderr
    with hub.smtp(local_hostname="x") as smtp:
        queue_id_in(accepted_message(smtp))


def accepted_message(smtp: smtplib.SMTP) -> str:
    accepted(smtp, "EHLO x")
    accepted(smtp, "MAIL FROM:<>")
    accepted(smtp, "RCPT TO:<still@[127.0.0.1]>")
    assert reply_to(smtp, "DATA").startswith("354")
    smtp.send(stuffed(message()))
    return next_reply(smtp)


def test_a_port_that_is_taken_is_named(hub: Hub, start_hub: StartHub) -> None:
    other = Hub(hub.directory.parent / "other", port=hub.port)
    done = other.run("serve")
    assert done.returncode == 2
    assert f"cannot bind 127.0.0.1:{hub.port}".encode() in done.stderr
    assert b"[[listener]]" in done.stderr


def test_data_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    hub = Hub(tmp_path / "hub")
    (tmp_path / "file").write_text("not a directory")
    done = hub.run("serve", "--data", str(tmp_path / "file"))
    assert done.returncode == 2
    assert f"{tmp_path}/file: File exists".encode() in done.stderr
    hub.data.mkdir()
    (hub.data / "queue.db").write_text("not a database" * 1000)
    for arguments, status in ((("serve",), 2), (("trace",), 75), (("queue", "list"), 75)):
        done = hub.run(*arguments)
        assert done.returncode == status
        assert b"queue.db: file is not a database" in done.stderr
        assert b"Traceback" not in done.stderr


def test_stopping_lets_a_transaction_end(start_hub: StartHub) -> None:
    hub = start_hub()
    idle = hub.smtp(local_hostname="x")
    with hub.smtp(local_hostname="x") as smtp:
        accepted(smtp, "EHLO x")
        accepted(smtp, "MAIL FROM:<>")
        accepted(smtp, "RCPT TO:<ann@[127.0.0.1]>")
        assert reply_to(smtp, "DATA").startswith("354")
        hub.send_signal(signal.SIGTERM)
        assert next_reply(idle).startswith("421 4.3.2")
        idle.close()
        smtp.send(stuffed(message()))
        assert next_reply(smtp).startswith("250")
        # Then it says goodbye by itself.
        assert next_reply(smtp).startswith("421")
        smtp.close()
    hub.stop()
    hub.start()
    hub.wait_for_mail("ann")
