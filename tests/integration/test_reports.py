"""Delivery status notifications: who gets one, when, and what it says (RFC 3461, RFC 3464)."""

from __future__ import annotations

from email.message import EmailMessage, Message
from typing import cast

import pytest

from tests.support.hub import Hub
from tests.support.mail import message, parsed, submit, wire
from tests.support.netns import Namespace
from tests.support.scripted_peer import EXTENSIONS, ScriptedPeer
from tests.support.toml import PORT_25, retry, route

from .conftest import StartHub, StartPeer

FAR = 'recipient = "*@far.example"'
BOB = "bob@far.example"
REFUSAL = "550 5.1.1 Nobody of that name"
CONTENT = message("precious", *[f"line {number}" for number in range(50)])
# Lets in what no report must go to.
RECORDED = '[policy]\nliteral_sender = "record"\n'


@pytest.fixture
def refusing(start_hub: StartHub, peer: ScriptedPeer) -> Hub:
    """A hub whose next host refuses every recipient."""
    peer.answer("RCPT", REFUSAL)
    return start_hub(RECORDED + route(peer.target, match=FAR))


def send(hub: Hub, *recipients: str, mail: str = "", rcpt: str = "", sender: str = "") -> str:
    with hub.smtp(local_hostname="x") as smtp:
        return submit(
            smtp,
            *(recipients or (BOB,)),
            sender=sender or "ann@[127.0.0.1]",
            content=CONTENT,
            mail=mail,
            rcpt=rcpt,
        )


def parts_of(report: EmailMessage) -> tuple[str, list[Message], EmailMessage]:
    """Human text, groups of status fields, and what is returned."""
    assert report.get_content_type() == "multipart/report"
    assert report.get_param("report-type") == "delivery-status"
    assert not report.defects
    text, status, returned = report.iter_parts()
    assert not any(part.defects for part in (text, status, returned))
    assert text.get_content_type() == "text/plain"
    assert status.get_content_type() == "message/delivery-status"
    groups = cast(list[Message], status.get_payload())
    return text.get_content(), groups, cast(EmailMessage, returned)


def test_a_failure_report(refusing: Hub) -> None:
    queue_id = send(refusing)
    (stored,) = refusing.wait_for_mail("ann")
    assert stored.startswith(b"Return-Path: <>\r\nDelivered-To: ann@[127.0.0.1]\r\n")
    report = parsed(stored)
    assert report["from"] == "Mail Delivery <postmaster@[127.0.0.1]>"
    assert report["to"] == "ann@[127.0.0.1]"
    assert report["auto-submitted"] == "auto-replied"
    assert report["date"].datetime is not None
    assert report["message-id"]
    text, (message_fields, fields), returned = parts_of(report)
    # For people first: what happened, to whom, why, in words.
    assert text.startswith("Your message could not be delivered")
    assert BOB in text
    assert "Nobody of that name" in text
    assert queue_id in text
    assert message_fields["reporting-mta"] == "dns; [127.0.0.1]"
    assert message_fields["arrival-date"]
    assert message_fields["original-envelope-id"] is None
    assert fields["final-recipient"] == f"rfc822; {BOB}"
    assert fields["action"] == "failed"
    assert fields["status"] == "5.1.1"
    assert fields["remote-mta"] == "dns; [127.0.0.1]"
    assert fields["diagnostic-code"] == f"smtp; {REFUSAL}"
    assert fields["last-attempt-date"]
    # Headers only, unless all was asked for.
    assert returned.get_content_type() == "text/rfc822-headers"
    headers = returned.get_content()
    assert "Subject: precious" in headers
    assert "Received: from x ([127.0.0.1])" in headers
    assert b"line 7" not in stored


@pytest.mark.parametrize("ret", ["RET=FULL", "RET=HDRS", ""])
def test_ret(refusing: Hub, ret: str) -> None:
    send(refusing, mail=ret)
    (stored,) = refusing.wait_for_mail("ann")
    _, _, returned = parts_of(parsed(stored))
    if ret == "RET=FULL":
        assert returned.get_content_type() == "message/rfc822"
        assert CONTENT in stored
    else:
        assert returned.get_content_type() == "text/rfc822-headers"
        assert b"line 7" not in stored


def test_envid_and_orcpt_come_back(refusing: Hub) -> None:
    send(refusing, mail="ENVID=job+2B7", rcpt="ORCPT=rfc822;First+2BLast@old.example")
    _, (message_fields, fields), _ = parts_of(parsed(refusing.wait_for_mail("ann")[0]))
    assert message_fields["original-envelope-id"] == "job+7"
    assert fields["original-recipient"] == "rfc822; First+Last@old.example"
    assert fields["final-recipient"] == f"rfc822; {BOB}"


@pytest.mark.parametrize("notify", ["NEVER", "SUCCESS", "DELAY", "SUCCESS,DELAY"])
def test_no_failure_report_for_who_did_not_ask_for_one(
    refusing: Hub, peer: ScriptedPeer, notify: str
) -> None:
    send(refusing, rcpt=f"NOTIFY={notify}")
    refusing.wait_for_log("outcome=failed")
    # A report would come in the same moment; one that is asked for does.
    send(refusing, "carl@far.example", rcpt="NOTIFY=FAILURE")
    (stored,) = refusing.wait_for_mail("ann")
    assert b"carl@far.example" in stored
    assert BOB.encode() not in stored


def test_several_recipients_share_a_report(refusing: Hub) -> None:
    send(refusing, BOB, "carl@far.example", "dora@far.example")
    text, groups, _ = parts_of(parsed(refusing.wait_for_mail("ann")[0]))
    assert [fields["final-recipient"] for fields in groups[1:]] == [
        f"rfc822; {name}@far.example" for name in ("bob", "carl", "dora")
    ]
    assert text.count("@far.example") == 3
    assert len(refusing.mailbox("ann")) == 1


def test_success_is_reported_as_delivered_to_a_mailbox(hub: Hub) -> None:
    send(hub, "bob@[127.0.0.1]", mail="RET=FULL", rcpt="NOTIFY=SUCCESS")
    text, (_, fields), returned = parts_of(parsed(hub.wait_for_mail("ann")[0]))
    assert fields["action"] == "delivered"
    assert fields["status"].startswith("2.")
    assert text.startswith("Your message was delivered")
    # RFC 3461 §4.3: RET is about failures only.
    assert returned.get_content_type() == "text/rfc822-headers"


def test_success_is_reported_as_relayed_to_a_host_without_dsn(
    start_hub: StartHub, start_peer: StartPeer
) -> None:
    peer = start_peer(extensions=[word for word in EXTENSIONS if word != "DSN"])
    hub = start_hub(route(peer.target, match=FAR))
    send(hub, mail="RET=FULL ENVID=job7", rcpt="NOTIFY=SUCCESS ORCPT=rfc822;first@old.example")
    _, (message_fields, fields), _ = parts_of(parsed(hub.wait_for_mail("ann")[0]))
    assert fields["action"] == "relayed"
    assert message_fields["original-envelope-id"] == "job7"
    # Nothing of DSN went to a host that does not know it.
    (mail,) = peer.mails
    assert mail.sender.startswith("FROM:<ann@[127.0.0.1]>")
    assert not {"RET=FULL", "ENVID=job7"} & set(mail.sender.split())
    assert mail.recipients == [f"TO:<{BOB}>"]


def test_a_host_with_dsn_takes_the_duty_over(start_hub: StartHub, peer: ScriptedPeer) -> None:
    hub = start_hub(route(peer.target, match=FAR))
    send(hub, mail="RET=FULL ENVID=job+2B7", rcpt="NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a+2Bb@c")
    (mail,) = peer.wait_for_mails()
    assert {"RET=FULL", "ENVID=job+2B7"} <= set(mail.sender.split())
    assert mail.recipients == [f"TO:<{BOB}> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a+2Bb@c"]
    hub.wait_for_log("outcome=relayed")
    assert hub.mailbox("ann") == []


def test_orcpt_is_made_where_the_client_gave_none(start_hub: StartHub, peer: ScriptedPeer) -> None:
    hub = start_hub(route(peer.target, match=FAR))
    send(hub, rcpt="NOTIFY=NEVER")
    (mail,) = peer.wait_for_mails()
    # RFC 3461 §5.2.1: the first who relays DSN parameters states the original recipient.
    assert mail.recipients == [f"TO:<{BOB}> NOTIFY=NEVER ORCPT=rfc822;{BOB}"]


@pytest.mark.parametrize("notify", ["", "NOTIFY=DELAY", "NOTIFY=FAILURE", "NOTIFY=NEVER"])
def test_delay_reports(start_hub: StartHub, peer: ScriptedPeer, notify: str) -> None:
    hub = start_hub(
        retry(0.2, max_s=0.2, warn_after_s=0.3, give_up_after_s=900) + route(peer.target, match=FAR)
    )
    peer.answer("MAIL", "451 4.3.0 Come back")
    send(hub, rcpt=notify)
    peer.wait_for_commands("MAIL", 6)
    if notify in ("NOTIFY=FAILURE", "NOTIFY=NEVER"):
        assert hub.mailbox("ann") == []
        return
    text, (_, fields), returned = parts_of(parsed(hub.wait_for_mail("ann")[0]))
    assert text.startswith("Your message has not been delivered yet")
    assert fields["action"] == "delayed"
    assert fields["status"] == "4.3.0"
    assert fields["will-retry-until"]
    assert returned.get_content_type() == "text/rfc822-headers"


def test_attack_63_the_null_sender_is_never_answered(refusing: Hub) -> None:
    with refusing.smtp(local_hostname="x") as smtp:
        submit(smtp, BOB, sender="", rcpt="NOTIFY=SUCCESS,FAILURE,DELAY")
    refusing.wait_for_log("outcome=failed")
    send(refusing)
    refusing.wait_for_mail("ann")
    # Two messages, and a report of the second.
    assert len(refusing.json("trace")) == 3


def test_an_unproven_literal_gets_no_report(refusing: Hub) -> None:
    """The sender claims another host's address: a report there would be an attack by us."""
    queue_id = send(refusing, sender="victim@[10.9.0.99]")
    refusing.wait_for_log("report-dropped")
    (line,) = [line for line in refusing.log_text().splitlines() if "report-dropped" in line]
    assert queue_id in line
    assert "victim@[10.9.0.99]" in line
    assert "unproven" in line
    assert refusing.json("queue", "list") == []
    assert len(refusing.json("trace")) == 1


def test_attack_63_a_report_that_fails_is_not_reported(
    start_hub: StartHub, start_peer: StartPeer
) -> None:
    refusing, away = start_peer(), start_peer()
    refusing.answer("RCPT", REFUSAL)
    away.answer("RCPT", REFUSAL)
    hub = start_hub(
        route(refusing.target, name="far", match=FAR)
        + route(away.target, name="sender", match='recipient = "ann@home.example"')
    )
    send(hub, sender="ann@home.example")
    away.wait_for_commands("RCPT TO:<ann@home.example>")
    assert "MAIL FROM:<>" in away.commands[1]
    hub.wait_for_log("to=ann@home.example")
    assert hub.json("queue", "list") == []
    assert hub.json("mailbox", "list") == []


def test_a_report_with_names_beyond_ascii(start_hub: StartHub, start_peer: StartPeer) -> None:
    peer = start_peer()
    peer.answer("RCPT", "550 5.1.1 Niemand da")
    hub = start_hub(route(peer.target, match=FAR))
    with hub.smtp(local_hostname="x") as smtp:
        submit(
            smtp,
            "jürgen@far.example",
            mail="SMTPUTF8 RET=FULL",
            content=wire("Subject: Grüße", "", "Text"),
        )
    (stored,) = hub.wait_for_mail("ann")
    report = parsed(stored)
    text, status, returned = report.iter_parts()
    assert status.get_content_type() == "message/global-delivery-status"
    assert returned.get_content_type() == "message/global"
    assert "jürgen@far.example" in text.get_content()
    assert "Final-Recipient: utf-8; jürgen@far.example".encode() in stored


@pytest.fixture
def hosts_with_hubs(
    hosts: tuple[Namespace, Namespace], start_hub: StartHub, start_peer: StartPeer
) -> tuple[Hub, Hub]:
    """Two hubs; the second one's next host for far.example refuses every recipient."""
    peer = start_peer(namespace=hosts[1])
    peer.answer("RCPT", REFUSAL)
    here = start_hub(listener=PORT_25, host="10.9.0.1", port=25, namespace=hosts[0].name)
    there = start_hub(
        RECORDED + route(peer.target, match=FAR),
        listener=PORT_25,
        host="10.9.0.2",
        port=25,
        namespace=hosts[1].name,
    )
    return here, there


def test_a_report_goes_back_to_the_host_the_message_came_from(
    hosts: tuple[Namespace, Namespace], hosts_with_hubs: tuple[Hub, Hub]
) -> None:
    here, there = hosts_with_hubs
    for own, other in (("[10.9.0.1]", "10.9.0.2"), ("[IPv6:fd00:9::1]", "fd00:9::2")):
        there.host = other
        with hosts[0].entered():
            smtp = there.smtp(local_hostname="x")
        with smtp:
            submit(smtp, BOB, sender=f"ann@{own}")
    reports = [parsed(stored) for stored in here.wait_for_mail("ann", 2)]
    assert {report["to"] for report in reports} == {"ann@[10.9.0.1]", "ann@[IPv6:fd00:9::1]"}
    for report in reports:
        assert report["return-path"] == "<>"
        parts_of(report)


def test_a_report_goes_nowhere_else(
    hosts: tuple[Namespace, Namespace], hosts_with_hubs: tuple[Hub, Hub]
) -> None:
    here, there = hosts_with_hubs
    # fd00:9::1 is the very same host, but the hub cannot know that.
    with hosts[0].entered():
        smtp = there.smtp(local_hostname="x")
    with smtp:
        submit(smtp, BOB, sender="ann@[IPv6:fd00:9::1]")
    there.wait_for_log("report-dropped")
    assert here.log_text().count(" received ") == 0
