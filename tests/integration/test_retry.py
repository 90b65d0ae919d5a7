"""The other side is down, busy or unwilling: what is tried again, when, and what is not."""

from __future__ import annotations

import re
from datetime import datetime

import pytest

from tests.support.hub import Hub
from tests.support.mail import message, parsed, submit
from tests.support.scripted_peer import DROP, ScriptedPeer
from tests.support.toml import retry, route
from tests.support.waiting import wait_until

from .conftest import StartHub, StartPeer, mailbox_of

FAR = 'recipient = "*@far.example"'
QUICK = retry(0.3, max_s=0.3)
SENDER = "ann@[127.0.0.1]"


def send(hub: Hub, *recipients: str, sender: str = SENDER) -> str:
    """Hand over a message; its queue id."""
    with hub.smtp(local_hostname="x") as smtp:
        return submit(smtp, *(recipients or ("bob@far.example",)), sender=sender)


def wait_until_empty(hub: Hub) -> None:
    wait_until(lambda: hub.json("queue", "list") == [], hub.log_text)


def attempts_in_log(hub: Hub) -> list[datetime]:
    """When attempts ended."""
    found = re.findall(r"^(\S+) attempt ", hub.log_text(), re.MULTILINE)
    return [datetime.fromisoformat(at) for at in found]


def outcomes(hub: Hub, queue_id: str) -> list[str]:
    """What attempts came to, so far."""
    return re.findall(rf" attempt id={queue_id} .* outcome=(\w+) ", hub.log_text())


def test_a_temporary_refusal_is_tried_again_by_schedule(
    start_hub: StartHub, peer: ScriptedPeer
) -> None:
    hub = start_hub(retry(0.4, max_s=0.9) + route(peer.target, match=FAR))
    peer.answer("MAIL", *["451 4.3.0 Not now"] * 3)
    queue_id = send(hub)
    assert peer.wait_for_mails()[0].paths == ["bob@far.example"]
    wait_until_empty(hub)
    assert sum(command.startswith("MAIL") for command in peer.commands) == 4
    (entry,) = hub.json("trace", "--id", queue_id)
    (recipient,) = entry["recipients"]
    assert recipient["attempts"] == 4
    assert recipient["outcome"] == "relayed"
    assert [step["outcome"] for step in recipient["story"]] == ["deferred"] * 3
    assert recipient["story"][0]["reply"] == "451 4.3.0 Not now"
    # Each wait doubles up to the longest, spread by a fifth: 0.4, 0.8, 0.9.
    first, second, third, last = attempts_in_log(hub)
    for before, after, wait_s in ((first, second, 0.4), (second, third, 0.8), (third, last, 0.9)):
        assert (after - before).total_seconds() >= wait_s * 0.79
    assert hub.mailbox("ann") == []


def test_the_waits_are_jittered(start_hub: StartHub, peer: ScriptedPeer) -> None:
    hub = start_hub(retry(4000, max_s=4000, give_up_after_s=9000) + route(peer.target, match=FAR))
    peer.answer("MAIL", "451 4.3.0 Not now")
    for _ in range(8):
        send(hub)
    wait_until(lambda: len(attempts_in_log(hub)) == 8)
    due = [entry["recipients"][0]["next_attempt_at"] for entry in hub.json("queue", "list")]
    assert len(due) == 8
    assert len(set(due)) > 1


@pytest.mark.parametrize(
    ("step", "reply"),
    [
        ("GREETING", "421 4.3.2 Busy"),
        ("GREETING", DROP),
        ("EHLO", "421 4.3.2 Busy"),
        ("EHLO", DROP),
        ("RCPT", "450 4.2.1 Greylisted"),
        ("DATA", "451 4.3.0 No"),
        ("CONTENT", "452 4.3.1 Disk full"),
        ("CONTENT", "421 4.3.2 Going down"),
        ("CONTENT", DROP),
        ("MAIL", "what is this"),
    ],
)
def test_trouble_that_may_pass(
    relay: Hub, next_host: ScriptedPeer, sender: str, step: str, reply: str
) -> None:
    next_host.answer_once(step, reply)
    queue_id = send(relay, sender=sender)
    wait_until(lambda: "relayed" in outcomes(relay, queue_id), relay.log_text)
    assert outcomes(relay, queue_id) == ["deferred", "relayed"]
    assert next_host.mails[-1].paths == ["bob@far.example"]
    assert relay.mailbox(mailbox_of(sender)) == []


@pytest.mark.parametrize(
    ("step", "reply"),
    [
        ("GREETING", "554 5.7.1 Go away"),
        ("MAIL", "550 5.7.1 Not from you"),
        ("RCPT", "550 5.1.1 Nobody here"),
        ("DATA", "554 5.6.0 No"),
        ("CONTENT", "554 5.7.1 Spam"),
    ],
)
def test_a_permanent_refusal_fails_at_once(
    relay: Hub, next_host: ScriptedPeer, sender: str, step: str, reply: str
) -> None:
    next_host.answer(step, reply)
    queue_id = send(relay, sender=sender)
    report = parsed(relay.wait_for_mail(mailbox_of(sender))[0])
    assert reply in report.as_string()
    (entry,) = relay.json("trace", "--id", queue_id)
    assert entry["finished_at"] is not None
    assert entry["recipients"][0]["outcome"] == "failed"
    assert entry["recipients"][0]["attempts"] == 1
    assert entry["recipients"][0]["last_reply"] == reply


def test_a_host_that_is_down_gets_its_mail_when_it_is_back(
    start_hub: StartHub, start_peer: StartPeer
) -> None:
    peer = start_peer()
    peer.stop()
    hub = start_hub(QUICK + route(peer.target, match=FAR))
    queue_id = send(hub)
    hub.wait_for_log("outcome=deferred")
    (entry,) = hub.json("queue", "list")
    assert entry["id"] == queue_id
    assert "Connection refused" in entry["recipients"][0]["last_reply"]
    assert entry["recipients"][0]["last_reply"].startswith("451 4.4.1")
    peer.start()
    assert len(peer.wait_for_mails()) == 1


def test_each_recipient_has_a_fate_of_its_own(start_hub: StartHub, peer: ScriptedPeer) -> None:
    hub = start_hub(QUICK + route(peer.target, match=FAR))
    peer.answer_once("RCPT TO:<late@", "450 4.2.1 Later")
    peer.answer("RCPT TO:<never@", "550 5.1.1 Nobody here")
    queue_id = send(hub, "now@far.example", "late@far.example", "never@far.example")
    first, second = peer.wait_for_mails(2)
    assert first.paths == ["now@far.example"]
    assert second.paths == ["late@far.example"]
    hub.wait_for_mail("ann")
    wait_until(lambda: hub.json("trace", "--id", queue_id)[0]["finished_at"])
    fates = {
        entry["address"]: entry["outcome"]
        for entry in hub.json("trace", "--id", queue_id)[0]["recipients"]
    }
    assert fates == {
        "now@far.example": "relayed",
        "late@far.example": "relayed",
        "never@far.example": "failed",
    }
    (report,) = hub.mailbox("ann")
    assert b"never@far.example" in report
    assert b"now@far.example" not in report


def test_the_sender_is_told_once_that_mail_is_late(start_hub: StartHub, peer: ScriptedPeer) -> None:
    hub = start_hub(
        retry(0.2, max_s=0.2, warn_after_s=0.5, give_up_after_s=600) + route(peer.target, match=FAR)
    )
    peer.answer("MAIL", "451 4.3.0 Not now")
    queue_id = send(hub)
    hub.wait_for_mail("ann")
    so_far = len(attempts_in_log(hub))
    wait_until(lambda: len(attempts_in_log(hub)) > so_far + 5)
    (report,) = hub.mailbox("ann")
    assert b"Action: delayed" in report
    assert hub.json("queue", "show", queue_id)[0]["recipients"][0]["status"] != "finished"
    # Nor again after a restart.
    hub.stop()
    hub.start()
    so_far = len(attempts_in_log(hub))
    wait_until(lambda: len(attempts_in_log(hub)) > so_far + 3)
    assert hub.mailbox("ann") == [report]


def test_giving_up(start_hub: StartHub, peer: ScriptedPeer) -> None:
    hub = start_hub(
        retry(0.3, max_s=0.4, warn_after_s=60, give_up_after_s=1) + route(peer.target, match=FAR)
    )
    peer.answer("MAIL", "451 4.3.0 Not now")
    queue_id = send(hub)
    (report,) = hub.wait_for_mail("ann")
    assert b"Action: failed" in report
    assert b"Not now" in report
    assert b"given up after" in report
    assert hub.json("queue", "list") == []
    (entry,) = hub.json("trace", "--id", queue_id)
    assert entry["recipients"][0]["outcome"] == "failed"
    assert entry["recipients"][0]["attempts"] >= 3


def test_mail_that_waits_outlives_the_hub(start_hub: StartHub, peer: ScriptedPeer) -> None:
    hub = start_hub(retry(1.5) + route(peer.target, match=FAR))
    peer.answer_once("MAIL", "451 4.3.0 Not now")
    large = message("large", *["x" * 70] * 3000)
    with hub.smtp(local_hostname="x") as smtp:
        submit(smtp, "bob@far.example", content=large)
    hub.wait_for_log("outcome=deferred")
    hub.stop()
    assert hub.json("queue", "list")[0]["recipients"][0]["status"] == "waiting"
    hub.start()
    assert peer.wait_for_mails()[0].content.endswith(large)
    wait_until_empty(hub)
    assert list((hub.data / "content").iterdir()) == [hub.data / "content" / "tmp"]


def test_mail_for_one_dead_host_does_not_hold_up_another(
    start_hub: StartHub, start_peer: StartPeer
) -> None:
    slow, sound = start_peer(), start_peer()
    hub = start_hub(
        route(slow.target, name="slow", match='recipient = "*@slow.example"')
        + route(sound.target, name="sound", match='recipient = "*@sound.example"')
    )
    pause = slow.pause_at("MAIL")
    for _ in range(30):
        send(hub, "bob@slow.example")
    pause.wait_until_reached()
    send(hub, "bob@sound.example")
    assert len(sound.wait_for_mails()) == 1
    pause.go_on()
    slow.wait_for_mails(30)


def test_one_connection_carries_many_messages(start_hub: StartHub, peer: ScriptedPeer) -> None:
    hub = start_hub(route(peer.target, match=FAR))
    for number in range(1, 6):
        send(hub)
        wait_until(lambda: hub.log_text().count("outcome=relayed") == number)  # noqa: B023
    assert len(peer.mails) == 5
    assert peer.connections == 1
