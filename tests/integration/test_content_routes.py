"""Routes that match by what the mail says: subject, header, size."""

from __future__ import annotations

import smtplib
from pathlib import Path

import pytest

from tests.support.hub import Hub
from tests.support.mail import (
    accepted,
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
from tests.support.ports import free_port
from tests.support.toml import route
from tests.support.waiting import wait_until

from .conftest import StartHub

RULES = (
    '[addresses]\ndomains = ["plant.test"]\n[mailboxes]\nauto_create = true\n'
    + route("mailbox:big", name="big", match="larger_than = 100000")
    + route("mailbox:motion", name="motion", match='subject = "*motion*", recipient = "cam*@*"')
    + route("mailbox:scans", name="scan", match='header = { "X-Mailer" = "canon*" }')
    + route("mailbox:copies", name="copy", match='subject = "copy me"', goes_on=True)
    + route(
        "reject:5.7.1 not today", name="no", match='recipient = "*@plant.test", subject = "buy*"'
    )
    + route("reject:4.7.1 not now", name="later", match='subject = "later*"')
    + route("discard", name="out", match='recipient = "*@far.example", subject = "ok"')
)


@pytest.fixture
def hub(start_hub: StartHub) -> Hub:
    return start_hub(RULES)


def data(
    smtp: smtplib.SMTP, content: bytes, *recipients: str, sender: str = "bob@plant.test"
) -> str:
    """A whole transaction; the reply to its content."""
    smtp.ehlo_or_helo_if_needed()
    accepted(smtp, f"MAIL FROM:<{sender}>")
    for recipient in recipients:
        accepted(smtp, f"RCPT TO:<{recipient}>")
    assert reply_to(smtp, "DATA").startswith("354")
    smtp.send(stuffed(content))
    return next_reply(smtp)


def test_sorting(hub: Hub) -> None:
    with hub.smtp(local_hostname="x") as smtp:
        submit(smtp, "cam1@plant.test", content=message("Motion at gate 3"))
        hub.wait_for_mail("motion")
        submit(smtp, "cam1@plant.test", content=message("all is well"))
        hub.wait_for_mail("cam1")
        submit(smtp, "ann@plant.test", content=message("Motion at gate 3"))
        hub.wait_for_mail("ann")
        # Decoded, unfolded, and of several fields of a name any.
        encoded = wire("Subject: =?utf-8?Q?M=6Ftion?=", " =?iso-8859-1?Q?_=FCberall?=", "", "x")
        submit(smtp, "cam1@plant.test", content=encoded)
        hub.wait_for_mail("motion", 2)
        submit(smtp, "ann@plant.test", content=wire("X-Mailer: none", "x-MAILER: Canon 7", "", "x"))
        hub.wait_for_mail("scans")
        # What stands in the body is no header.
        submit(smtp, "ann@plant.test", content=wire("Subject: x", "", "X-Mailer: Canon 7"))
        hub.wait_for_mail("ann", 2)
        submit(smtp, "ann@plant.test", content=message("copy me"))
        hub.wait_for_mail("copies")
        hub.wait_for_mail("ann", 3)
        submit(smtp, "ann@plant.test", content=message("large", *["x" * 998] * 101))
        hub.wait_for_mail("big")
        # In a file by now, and its header in the part that was kept in memory.
        submit(smtp, "cam1@plant.test", content=message("motion", *["x" * 998] * 90))
        hub.wait_for_mail("motion", 3)
    (entry,) = hub.json("trace", "--limit", "1")
    assert entry["recipients"][0]["rule"] == "motion"


def test_refused_for_all_is_refused_after_the_content(hub: Hub) -> None:
    with hub.smtp(local_hostname="x") as smtp:
        spam = message("buy now")
        assert data(smtp, spam, "ann@plant.test", "carl@plant.test") == "550 5.7.1 not today"
        assert data(smtp, message("later"), "ann@plant.test") == "450 4.7.1 not now"
        # The way that only another content would have opened is closed.
        assert data(smtp, message("no"), "x@far.example").startswith("550 5.7.1 No route")
        assert data(smtp, message("ok"), "x@far.example").startswith("250 ")
        large = message("buy", *["x" * 998] * 70)
        assert data(smtp, large, "ann@plant.test") == "550 5.7.1 not today"
        # The session goes on.
        assert data(smtp, message("fine"), "ann@plant.test").startswith("250 ")
    hub.wait_for_mail("ann")
    assert hub.mailbox("bob") == []
    assert [path for path in (hub.data / "content").iterdir() if path.is_file()] == []
    (refusal, *_) = wait_until(lambda: hub.json("trace", "--address", "carl@plant.test"))
    assert refusal["reply"] == "550 5.7.1 not today"


def test_refused_for_one_of_two_is_reported(hub: Hub) -> None:
    with hub.smtp(local_hostname="x") as smtp:
        assert data(smtp, message("buy"), "ann@plant.test", "carl@[127.0.0.1]").startswith("250 ")
    hub.wait_for_mail("carl")
    report = hub.wait_for_mail("bob")[0].decode()
    assert "Final-Recipient: rfc822; ann@plant.test" in report
    assert "Status: 5.7.1" in report
    assert "not today" in report
    assert "carl@" not in report.partition("Final-Recipient")[2].partition("\n--")[0]
    assert hub.mailbox("ann") == []


def test_by_bdat(hub: Hub) -> None:
    spam = message("buy now")
    with hub.smtp(local_hostname="x") as smtp:
        smtp.ehlo()
        for recipient, said in (("ann@plant.test", "550 5.7.1"), ("carl@[127.0.0.1]", "250")):
            accepted(smtp, "MAIL FROM:<bob@plant.test>")
            accepted(smtp, f"RCPT TO:<{recipient}>")
            smtp.send(b"BDAT 9\r\n" + spam[:9])
            assert next_reply(smtp).startswith("250")
            smtp.send(b"BDAT %d LAST\r\n" % len(spam[9:]) + spam[9:])
            assert next_reply(smtp).startswith(said)
    hub.wait_for_mail("carl")


def test_lmtp_has_a_reply_for_each_recipient(start_hub: StartHub) -> None:
    port = free_port()
    listener = f'[[listener]]\nname = "l"\nrole = "lmtp"\nbind = ["127.0.0.1:{port}"]\n'
    hub = start_hub(RULES, listener=listener, port=port)
    with smtplib.LMTP("127.0.0.1", port) as lmtp:
        lmtp.docmd("LHLO", "x")
        assert data(lmtp, message("buy"), "ann@plant.test", "carl@plant.test").startswith("550")
        assert next_reply(lmtp) == "550 5.7.1 not today"
        # One of two: the queue takes all or none, and the sender gets a report.
        said = data(lmtp, message("buy"), "ann@plant.test", "carl@[127.0.0.1]")
        assert queue_id_in(said) == queue_id_in(next_reply(lmtp))
        assert reply_to(lmtp, "NOOP").startswith("250")
    hub.wait_for_mail("carl")
    hub.wait_for_mail("bob")


def test_a_report_is_sorted_by_its_content_and_never_lost(start_hub: StartHub) -> None:
    hub = start_hub(
        route("mailbox:reports", name="own", match='subject = "Mail not *", sender = "<>"')
        + route("discard", name="all", match='subject = "nothing like this"')
        + route("reject:5.1.1 gone", name="gone", match='recipient = "gone@*", subject = "*"')
    )
    with hub.smtp(local_hostname="x") as smtp:
        submit(smtp, "gone@[127.0.0.1]", "ann@[127.0.0.1]", sender="bob@[127.0.0.1]")
        hub.wait_for_mail("ann")
        assert b"Status: 5.1.1" in hub.wait_for_mail("reports")[0]
        submit(smtp, "ann@[127.0.0.1]", sender="bob@[127.0.0.1]", rcpt="NOTIFY=SUCCESS")
    assert b"Action: delivered" in hub.wait_for_mail("bob")[0]


def test_odd_headers_are_no_trouble(hub: Hub) -> None:
    contents = [
        b"",
        b"\r\n",
        b"no header at all\r\n",
        wire("Subject: =?x-unknown?B?////?=", "", "x"),
        wire("Subject: =?utf-8?B?=FF?= =?utf-8?Q?=FF=FE?=", "", "x"),
        wire("Subject:", " \t", ": nothing", "X" * 900 + ":", "", "x"),
        b"Subject: \xff\xfe\x80 motion\r\n\r\nx\r\n",
        wire(*[f"Subject: {number}" for number in range(3_000)], "", "x"),
        wire("Subject: motion"),  # a header without an end
    ]
    with hub.smtp(local_hostname="x") as smtp:
        for number, content in enumerate(contents):
            smtp.ehlo()
            accepted(smtp, "MAIL FROM:<bob@plant.test> BODY=8BITMIME")
            accepted(smtp, f"RCPT TO:<cam{number}@plant.test>")
            submit_content(smtp, content)
    hub.wait_for_mail("motion", 2)
    for number in range(6):
        hub.wait_for_mail(f"cam{number}")
    assert " bug " not in hub.log_text()


def test_route_sorts_a_file_the_same_way(hub: Hub, tmp_path: Path) -> None:
    for subject, recipient, said in (
        ("Motion!", "cam1@plant.test", ["mailbox:motion"]),
        ("copy me", "ann@plant.test", ["mailbox:copies", "mailbox:ann"]),
        ("buy this", "ann@plant.test", []),
    ):
        path = tmp_path / "mail.eml"
        path.write_bytes(message(subject).replace(b"\r\n", b"\n"))
        (told,) = hub.json("route", recipient, "--message", str(path))
        assert told["targets"] == said
        assert told["needs_content"] is False
        assert (told["reply"] == "550 5.7.1 not today") == (said == [])
    (told,) = hub.json("route", "ann@plant.test")
    assert told["needs_content"] is True
    assert told["accepted"] is True


def test_reports_and_stored_mail_are_whole(hub: Hub) -> None:
    with hub.smtp(local_hostname="x") as smtp:
        submit(smtp, "cam1@plant.test", content=message("Motion", ".dot", "end"))
    (stored,) = hub.wait_for_mail("motion")
    assert parsed(stored).get_content().split() == [".dot", "end"]
