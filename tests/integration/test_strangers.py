"""A stranger, at 203.0.113.7, and a hub at 203.0.113.1: no relaying, and no hand on our sockets."""

from __future__ import annotations

import smtplib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.hub import Hub
from tests.support.mail import (
    accepted,
    content_of,
    message,
    next_reply,
    reply_to,
    stuffed,
    submit,
    wire,
)
from tests.support.netns import Namespace, joined_namespaces
from tests.support.scripted_peer import ScriptedPeer
from tests.support.toml import route
from tests.support.waiting import wait_until

Connect = Callable[..., smtplib.SMTP]

CLOSED_PORT, OPEN_PORT, SUBMISSION_PORT, PRIVATE_PORT = 25, 26, 587, 27

MAILBOXES = """
[addresses]
domains = ["plant.example"]
[[mailbox]]
name = "ann"
aliases = ["postmaster"]
[[mailbox]]
name = "broken"
"""


@pytest.fixture(scope="module")
def hosts() -> Iterator[tuple[Namespace, Namespace]]:
    """The hub's host and the stranger's, which also has a private, trusted address."""
    with joined_namespaces(
        ("203.0.113.1/24", "10.9.0.1/24", "2001:db8::1/64"),
        ("203.0.113.7/24", "10.9.0.2/24", "2001:db8::7/64"),
    ) as namespaces:
        yield namespaces


@pytest.fixture(scope="module")
def hub(
    hosts: tuple[Namespace, Namespace], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Hub]:
    """A hub for trusted networks only."""
    listeners = ""
    for name, port, more in (
        ("smtp", CLOSED_PORT, ""),
        ("submission", SUBMISSION_PORT, 'role = "submission"\n'),
        ("private", PRIVATE_PORT, 'networks = ["private"]\n'),
    ):
        bind = f'bind = ["0.0.0.0:{port}", "[::]:{port}"]\n'
        listeners += f'[[listener]]\nname = "{name}"\n{bind}{more}'
    with Hub(
        tmp_path_factory.mktemp("closed"),
        MAILBOXES,
        listener=listeners,
        port=CLOSED_PORT,
        namespace=hosts[0].name,
    ) as running:
        yield running


@pytest.fixture(scope="module")
def public_hub(
    hosts: tuple[Namespace, Namespace], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Hub]:
    """A hub that takes mail for its mailboxes from anybody; that for `broken` fails later."""
    directory = tmp_path_factory.mktemp("open")
    with (
        tempfile.TemporaryDirectory(prefix="wp-") as short,  # socket paths must be
        ScriptedPeer(path=Path(short) / "lmtp.sock", is_lmtp=True) as peer,
    ):
        peer.answer("CONTENT", "554 5.3.0 Broken")
        config = MAILBOXES + "[networks]\naccept_from_strangers = true\n"
        # Literals that are not theirs are let in here: reports must not follow them even so.
        config += '[policy]\nliteral_sender = "record"\n'
        config += route(peer.target, match='recipient = "broken@*"')
        listener = f'[[listener]]\nname = "smtp"\nbind = ["0.0.0.0:{OPEN_PORT}"]\n'
        with Hub(
            directory, config, listener=listener, port=OPEN_PORT, namespace=hosts[0].name
        ) as running:
            yield running


@pytest.fixture
def connect(hosts: tuple[Namespace, Namespace]) -> Iterator[Connect]:
    """Opens sessions from the stranger's host."""
    sessions = []

    def open_session(port: int = CLOSED_PORT, host: str = "203.0.113.1") -> smtplib.SMTP:
        with hosts[1].entered():
            session = smtplib.SMTP(host, port, local_hostname="stranger.test", timeout=20)
        sessions.append(session)
        session.ehlo()
        return session

    yield open_session
    for session in sessions:
        session.close()


ELSEWHERE = [
    "x@elsewhere.example",
    "x@[203.0.113.7]",
    "x@[10.9.0.2]",
    "x@10.9.0.2",
    "x@[169.254.169.254]",
    "x@[IPv6:2001:db8::7]",
    "x@[IPv6:::ffff:10.9.0.2]",
    "x@[IPv6:64:ff9b::a09:2]",
    "x@[IPv6:2002:a09:2::1]",
    "x@[0.0.0.0]",
    "x@[255.255.255.255]",
    "x@[224.0.0.1]",
    "@[203.0.113.1]:x@[10.9.0.2]",
    "@plant.example,@[203.0.113.1]:x@elsewhere.example",
    "x@[foo:bar]",
    "x@localhost",
]


@pytest.mark.parametrize("port", [CLOSED_PORT, OPEN_PORT])
def test_attack_47_nobody_relays_to_names_or_literals(
    hosts: tuple[Namespace, Namespace], hub: Hub, public_hub: Hub, connect: Connect, port: int
) -> None:
    with hosts[0].watched() as attempts:
        session = connect(port)
        accepted(session, "MAIL FROM:<x@elsewhere.example>")
        for recipient in ELSEWHERE:
            assert reply_to(session, f"RCPT TO:<{recipient}>").startswith("550 5.7.1"), recipient
        assert reply_to(session, "DATA").startswith("554")
        session.quit()
    assert attempts == []


def test_own_mailboxes_are_for_trusted_clients(hub: Hub, connect: Connect) -> None:
    session = connect()
    accepted(session, "MAIL FROM:<x@elsewhere.example>")
    for recipient in (
        "ann@[203.0.113.1]",
        "ann@[IPv6:2001:db8::1]",
        "ann@[10.9.0.1]",
        "ann@plant.example",
        "new@[203.0.113.1]",
        "ann@203.0.113.1",
    ):
        assert reply_to(session, f"RCPT TO:<{recipient}>").startswith("550 5.7.1"), recipient
    told = wait_until(lambda: hub.json("trace", "--client", "203.0.113.7", "--address", "new@"))
    assert [entry["forward_path"] for entry in told] == ["new@[203.0.113.1]"]
    assert not (hub.data / "mail" / "new").exists()


def test_a_trusted_client_may_do_all_that(hub: Hub, connect: Connect) -> None:
    session = connect(host="10.9.0.1")
    accepted(session, "MAIL FROM:<>")
    for recipient in ("ann@[203.0.113.1]", "ann@plant.example", "made@[10.9.0.1]", "x@10.9.0.2"):
        accepted(session, f"RCPT TO:<{recipient}>")


def test_attack_51_trusted_clients_reach_trusted_networks_only(
    hosts: tuple[Namespace, Namespace], hub: Hub, connect: Connect
) -> None:
    with hosts[0].watched() as attempts:
        session = connect(host="10.9.0.1")
        accepted(session, "MAIL FROM:<>")
        for recipient in (
            "x@[203.0.113.7]",
            "x@[169.254.169.254]",
            "x@[IPv6:fe80::1]",
            "x@[IPv6:64:ff9b::a09:2]",
            "x@[224.0.0.1]",
            "x@[0.0.0.0]",
            "x@elsewhere.example",
        ):
            assert reply_to(session, f"RCPT TO:<{recipient}>").startswith("550 5.7.1"), recipient
    assert attempts == []


def test_the_watch_sees_what_a_trusted_client_causes(
    hosts: tuple[Namespace, Namespace], hub: Hub, connect: Connect
) -> None:
    with hosts[0].watched() as attempts:
        submit(connect(host="10.9.0.1"), "x@[10.9.0.2]", sender="")
        hub.wait_for_log("to=x@[10.9.0.2]")
    assert attempts == ["10.9.0.2:25"]
    hub.run("queue", "cancel", "--all")  # or it would be tried again under another test's watch


@pytest.mark.parametrize("port", [CLOSED_PORT, OPEN_PORT])
def test_postmaster_always(hub: Hub, public_hub: Hub, connect: Connect, port: int) -> None:
    running = hub if port == CLOSED_PORT else public_hub
    before = len(running.mailbox("ann"))
    recipients = (
        "postmaster",
        "Postmaster",
        "POSTMASTER@[203.0.113.1]",
        "postmaster@plant.example",
    )
    for number, recipient in enumerate(recipients, 1):
        submit(connect(port), recipient, sender="x@elsewhere.example")
        running.wait_for_mail("ann", before + number)


def test_accept_from_strangers(public_hub: Hub, connect: Connect) -> None:
    session = connect(OPEN_PORT)
    accepted(session, "MAIL FROM:<x@elsewhere.example>")
    assert reply_to(session, "RCPT TO:<nobody@[203.0.113.1]>").startswith("550 5.1.1")
    assert reply_to(session, "RCPT TO:<nobody@plant.example>").startswith("550 5.1.1")
    before = len(public_hub.mailbox("ann"))
    for recipient in ("ann@[203.0.113.1]", "Ann+news@plant.example"):
        submit(connect(OPEN_PORT), recipient, sender="x@elsewhere.example")
    public_hub.wait_for_mail("ann", before + 2)
    assert not (public_hub.data / "mail" / "nobody").exists()


@pytest.mark.parametrize(
    "sender", ["victim@[10.9.0.2]", "victim@[127.0.0.1]", "victim@elsewhere.example", ""]
)
def test_no_report_goes_where_a_stranger_points(
    hosts: tuple[Namespace, Namespace], public_hub: Hub, connect: Connect, sender: str
) -> None:
    with hosts[0].watched() as attempts:
        queue_id = submit(connect(OPEN_PORT), "broken@[203.0.113.1]", sender=sender)
        public_hub.wait_for_log(f"attempt id={queue_id}")
        if sender:
            public_hub.wait_for_log(f"report-dropped id={queue_id}")
    assert attempts == []
    assert not (public_hub.data / "mail" / "victim").exists()


def test_a_report_goes_back_to_the_very_host_that_sent(
    hosts: tuple[Namespace, Namespace], public_hub: Hub, connect: Connect
) -> None:
    with (
        hosts[0].watched() as attempts,
        ScriptedPeer(host="203.0.113.7", port=25, namespace=hosts[1]) as own_server,
    ):
        submit(connect(OPEN_PORT), "broken@[203.0.113.1]", sender="x@[203.0.113.7]")
        (report,) = own_server.wait_for_mails()
    assert report.sender.startswith("FROM:<> ")
    assert attempts == ["203.0.113.7:25"]


RAGGED = {
    "bare-lf": b"Subject: x\r\n\r\nfirst\nsecond\r\n",
    "bare-cr": b"Subject: x\r\n\r\nfirst\rsecond\r\n",
    "nul": b"Subject: x\r\n\r\nfirst\0second\r\n",
    "lf-dot-lf": b"Subject: x\r\n\r\nfirst\n.\n"
    + wire("MAIL FROM:<>", "RCPT TO:<ann@plant.example>"),
    "lf-dot-crlf": b"Subject: x\r\n\r\nfirst\n.\r\n" + wire("MAIL FROM:<>"),
    "cr-dot-cr": b"Subject: x\r\n\r\nfirst\r.\r" + wire("RSET"),
}


@pytest.mark.parametrize("name", RAGGED)
def test_ragged_content_is_refused_and_the_session_ends(
    public_hub: Hub, connect: Connect, name: str
) -> None:
    session = connect(OPEN_PORT)
    accepted(session, "MAIL FROM:<x@elsewhere.example>")
    accepted(session, "RCPT TO:<ann@plant.example>")
    assert reply_to(session, "DATA").startswith("354")
    session.send(RAGGED[name])
    # Nothing is said before the true end has come.
    assert session.sock is not None
    session.sock.settimeout(0.3)
    with pytest.raises(TimeoutError):
        session.sock.recv(1)
    session.sock.settimeout(20)
    session.send(b".\r\n" + wire("RSET", "MAIL FROM:<>", "RCPT TO:<postmaster>"))
    said = b""
    while piece := session.sock.recv(4096):
        said += piece
    assert said.startswith(b"550 5.6.0 ")
    # One reply: none of the commands in or behind the content was obeyed.
    assert said.count(b"\r\n") == 1
    assert not any(b"first" in stored for stored in public_hub.mailbox("ann"))


def test_ragged_content_in_a_chunk_is_refused(public_hub: Hub, connect: Connect) -> None:
    session = connect(OPEN_PORT)
    accepted(session, "MAIL FROM:<x@elsewhere.example>")
    accepted(session, "RCPT TO:<ann@plant.example>")
    content = RAGGED["bare-lf"]
    session.send(b"BDAT %d LAST\r\n" % len(content) + content)
    assert next_reply(session).startswith("550 5.6.0")


def test_the_same_content_from_a_trusted_client_is_mended(hub: Hub, connect: Connect) -> None:
    session = connect(host="10.9.0.1")
    accepted(session, "MAIL FROM:<>")
    accepted(session, "RCPT TO:<mended@[10.9.0.1]>")
    assert reply_to(session, "DATA").startswith("354")
    session.send(RAGGED["bare-lf"] + b".\r\n")
    assert next_reply(session).startswith("250")
    (stored,) = hub.wait_for_mail("mended")
    assert content_of(stored) == wire("Subject: x", "", "first", "second")


def test_binary_from_a_stranger_is_taken_as_it_is(public_hub: Hub, connect: Connect) -> None:
    session = connect(OPEN_PORT)
    accepted(session, "MAIL FROM:<x@elsewhere.example> BODY=BINARYMIME")
    accepted(session, "RCPT TO:<ann@plant.example>")
    content = wire("Subject: binary", "") + b"\0 \n \r \xff"
    before = len(public_hub.mailbox("ann"))
    session.send(b"BDAT %d LAST\r\n" % len(content) + content)
    assert next_reply(session).startswith("250")
    assert content_of(public_hub.wait_for_mail("ann", before + 1)[-1]) == content


def test_ragged_commands_end_the_session(public_hub: Hub, connect: Connect) -> None:
    session = connect(OPEN_PORT)
    # One line, which only CRLF ends, and so one reply.
    session.send(b"NOOP\nMAIL FROM:<>\r\nNOOP\r\n")
    assert next_reply(session).startswith("500 ")
    assert next_reply(session).startswith("250 ")
    session.send(b"NOOP\n")
    assert next_reply(session).startswith("421 ")


def test_a_submission_port_wants_a_login(hub: Hub, connect: Connect) -> None:
    session = connect(SUBMISSION_PORT)
    assert reply_to(session, "MAIL FROM:<x@elsewhere.example>").startswith("530 5.7.0")
    submit(connect(SUBMISSION_PORT, "10.9.0.1"), "ann@[10.9.0.1]")


def test_a_listener_for_some_networks(hub: Hub, connect: Connect) -> None:
    with pytest.raises(smtplib.SMTPConnectError) as refused:
        connect(PRIVATE_PORT)
    assert refused.value.smtp_code == 554
    submit(connect(PRIVATE_PORT, "10.9.0.1"), "ann@[10.9.0.1]")


def test_a_stranger_learns_nothing(public_hub: Hub, connect: Connect) -> None:
    session = connect(OPEN_PORT)
    for name in ("ann", "nobody"):
        assert reply_to(session, f"VRFY {name}@plant.example").startswith("252 ")
    assert reply_to(session, "EXPN staff").startswith("502 ")


def test_a_guesser_is_shown_the_door(public_hub: Hub, connect: Connect) -> None:
    session = connect(OPEN_PORT)
    accepted(session, "MAIL FROM:<x@elsewhere.example>")
    replies = ["550"]
    while replies[-1].startswith("550"):
        replies.append(reply_to(session, f"RCPT TO:<guess{len(replies)}@plant.example>"))
    assert replies[-1].startswith("421 ")
    assert len(replies) < 30


def test_a_dotless_end_from_a_stranger_keeps_its_dots(public_hub: Hub, connect: Connect) -> None:
    before = len(public_hub.mailbox("ann"))
    content = message("dots", ".", "..", ".end")
    session = connect(OPEN_PORT)
    accepted(session, "MAIL FROM:<x@elsewhere.example>")
    accepted(session, "RCPT TO:<ann@plant.example>")
    assert reply_to(session, "DATA").startswith("354")
    session.send(stuffed(content))
    assert next_reply(session).startswith("250")
    assert content_of(public_hub.wait_for_mail("ann", before + 1)[-1]) == content
