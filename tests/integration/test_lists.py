"""Lists: one to many, bounces to the owner, no loops, nothing lost or doubled."""

from __future__ import annotations

import signal
from collections import Counter
from typing import Any

import pytest

from tests.support.hub import Hub
from tests.support.mail import accepted, fields_of, message, parsed, submit, wire
from tests.support.ports import free_port
from tests.support.scripted_peer import ScriptedPeer
from tests.support.toml import retry, route
from tests.support.waiting import wait_until

from .conftest import StartHub, StartPeer

# Loopback addresses are other servers here, not the hub's own.
BASE = '[addresses]\nown = ["203.0.113.7"]\ndomains = ["plant.test", "other.test"]\n'


def listed(name: str, *members: str, more: str = "") -> str:
    quoted = ", ".join(f'"{member}"' for member in members)
    return f"[list.{name}]\nmembers = [{quoted}]\n{more}"


def send(hub: Hub, *recipients: str, **options: Any) -> str:
    with hub.smtp(local_hostname="x") as smtp:
        return submit(smtp, *recipients, **options)


def wait_until_quiet(hub: Hub) -> None:
    """Until nothing waits or is under way."""
    wait_until(lambda: not hub.json("queue", "list"), hub.log_text)


def delivered(hub: Hub) -> Counter[str]:
    """How often each mailbox was written to."""
    return Counter(
        {box["mailbox"]: len(hub.mailbox(box["mailbox"])) for box in hub.json("mailbox", "list")}
    )


def test_each_member_gets_it_its_own_way(start_hub: StartHub, start_peer: StartPeer) -> None:
    """Local, at a literal, at a name, and through another list; the list is the sender."""
    named = start_peer()
    literal = start_peer(host="127.0.0.2", port=free_port("127.0.0.2"))
    hub = start_hub(
        BASE
        + f"[delivery]\nport = {literal.port}\n"
        + listed(
            "ops", "ann@plant.test", "bob@[127.0.0.2]", "c@far.example", "Night-Shift@plant.test"
        )
        + listed("night-shift", "dora@plant.test", "ANN@plant.test")
        + route(named.target, match='recipient = "*@far.example"')
    )
    content = message("to all")
    queue_id = send(
        hub,
        "ops+tag@plant.test",
        sender="poster@plant.test",
        content=content,
        rcpt="NOTIFY=SUCCESS",
    )
    for peer, path in ((named, "c@far.example"), (literal, "bob@[127.0.0.2]")):
        (mail,) = peer.wait_for_mails()
        assert mail.paths == [path]
        assert mail.sender.startswith("FROM:<ops-bounces@plant.test>")
        # What the poster wants to know ends at the list (RFC 3461 §5.2.7.3).
        assert "NOTIFY" not in mail.recipients[0]
        assert mail.content.endswith(content)
        assert fields_of(mail.content, "list-id") == ["<ops.127.0.0.1>"]
        assert fields_of(mail.content, "list-post") == ["<mailto:ops@plant.test>"]
        assert len(fields_of(mail.content, "received")) == 1
    assert len(hub.wait_for_mail("ann", 2)) == 2
    (dora,) = hub.wait_for_mail("dora")
    assert fields_of(dora, "return-path") == ["<night-shift-bounces@plant.test>"]
    report = hub.wait_for_mail("poster")[0].decode()
    assert "Action: delivered" in report
    wait_until_quiet(hub)
    (entry,) = hub.json("trace", "--id", queue_id)
    assert [recipient["target"] for recipient in entry["recipients"]] == ["list:ops"]
    assert " for 4 members" in entry["recipients"][0]["last_reply"]


def test_two_names_of_a_list_are_one(start_hub: StartHub) -> None:
    hub = start_hub(BASE + listed("ops", "ann@plant.test", "ann@plant.test", "bob@plant.test"))
    send(hub, "ops@plant.test", "OPS@other.test", "ops@[127.0.0.1]")
    for mailbox in ("ann", "bob"):
        hub.wait_for_mail(mailbox)
    wait_until_quiet(hub)
    assert delivered(hub) == {"ann": 1, "bob": 1}


def test_a_list_of_a_domain(start_hub: StartHub) -> None:
    hub = start_hub(
        BASE
        + listed("ops", "ann@plant.test", more='domain = "other.test"\n')
        + listed("all", "bob@plant.test")
        + route("list:all", match='recipient = "door@elsewhere.example"')
    )
    with hub.smtp(local_hostname="x") as smtp:
        submit(smtp, "ops@other.test")
        submit(smtp, "ops@plant.test")  # a mailbox like any other
        submit(smtp, "door@elsewhere.example")
    (stored,) = hub.wait_for_mail("ann")
    assert fields_of(stored, "list-id") == ["<ops.other.test>"]
    assert fields_of(stored, "return-path") == ["<ops-bounces@other.test>"]
    hub.wait_for_mail("ops")
    # Used by a route, it is still a list of this hub.
    assert fields_of(hub.wait_for_mail("bob")[0], "return-path") == ["<all-bounces@[127.0.0.1]>"]


# Bounces.


def test_what_comes_back_reaches_the_owner_alone(start_hub: StartHub, peer: ScriptedPeer) -> None:
    peer.answer("RCPT TO:<gone@", "550 5.1.1 Nobody here")
    hub = start_hub(
        BASE
        + listed(
            "ops",
            *("ann@plant.test", "gone@far.example", "x@nowhere.example"),
            more='owner = "boss@plant.test"\n',
        )
        + listed("quiet", "gone@far.example")
        + route(peer.target, match='recipient = "*@far.example"')
    )
    send(hub, "ops@plant.test", sender="poster@plant.test")
    reports = b"".join(hub.wait_for_mail("boss", 2)).decode()
    assert "gone@far.example" in reports
    assert "x@nowhere.example" in reports  # no route leads there
    assert "ops-bounces@plant.test" in reports
    # Without an owner it is postmaster.
    send(hub, "quiet@plant.test", sender="poster@plant.test")
    hub.wait_for_mail("postmaster")
    # A bounce that comes to the list itself is not for everybody, nor is mail to its owner.
    send(hub, "ops@plant.test", sender="", content=message("a bounce"))
    send(hub, "ops-owner@plant.test", sender="poster@plant.test", content=message("a word"))
    subjects = {parsed(stored)["subject"] for stored in hub.wait_for_mail("boss", 4)}
    assert {"a bounce", "a word"} <= subjects
    wait_until_quiet(hub)
    assert delivered(hub) == {"boss": 4, "ann": 1, "postmaster": 1}


def test_an_owner_that_is_the_list_itself_ends(start_hub: StartHub, peer: ScriptedPeer) -> None:
    peer.answer("RCPT", "550 5.1.1 Nobody here")
    hub = start_hub(
        BASE
        + listed("ops", "gone@far.example", more='owner = "ops@other.test"\n')
        + listed("one", "gone@far.example", more='owner = "two@plant.test"\n')
        + listed("two", "gone@far.example", more='owner = "one@plant.test"\n')
        + listed("postmaster", "gone@far.example")
        + route(peer.target, match='recipient = "*@far.example"')
    )
    for name in ("ops", "one", "postmaster"):
        send(hub, f"{name}@plant.test", sender="poster@plant.test")
    wait_until_quiet(hub)
    assert hub.log_text().count("5.4.6") >= 3
    assert len(hub.json("trace", "--limit", "100")) < 20
    assert delivered(hub) == {}


# Loops.


def test_attack_64_lists_that_contain_each_other_end(start_hub: StartHub) -> None:
    hub = start_hub(
        BASE
        + listed("one", "ann@plant.test", "two@plant.test", more='owner = "boss1@plant.test"\n')
        + listed("two", "bob@plant.test", "one@other.test", more='owner = "boss2@plant.test"\n')
    )
    send(hub, "one@[127.0.0.1]", sender="poster@plant.test")
    assert b"5.4.6" in hub.wait_for_mail("boss2")[0]
    wait_until_quiet(hub)
    assert delivered(hub) == {"ann": 1, "bob": 1, "boss2": 1}


def test_a_list_that_contains_itself_by_other_names_is_expanded_once(start_hub: StartHub) -> None:
    hub = start_hub(
        BASE
        + listed("ops", "ann@plant.test", "ops@other.test", "ops@plant.test", "ops@[127.0.0.1]")
    )
    send(hub, "ops@other.test")
    hub.wait_for_mail("ann")
    wait_until_quiet(hub)
    assert delivered(hub)["ann"] == 1


def test_attack_64_mail_that_has_passed_the_list_elsewhere_is_not_taken_again(
    start_hub: StartHub,
) -> None:
    hub = start_hub(BASE + listed("ops", "ann@plant.test", more='domain = "plant.test"\n'))
    content = wire("List-Id: The operators", " <ops.plant.test>", "Subject: again", "", "x")
    send(hub, "ops@plant.test", sender="poster@plant.test", content=content)
    assert b"5.4.6" in hub.wait_for_mail("poster")[0]
    assert delivered(hub) == {"poster": 1}


# Sizes.


def test_content_in_a_file_is_shared(start_hub: StartHub, peer: ScriptedPeer) -> None:
    """The first message ends at once, the second when its last member has it."""
    peer.answer("RCPT", "451 4.3.0 Later")
    hub = start_hub(
        BASE
        + retry(0.5, max_s=0.5)
        + listed("ops", "ann@plant.test", "c@far.example", "more@plant.test")
        + listed("more", "bob@plant.test")
        + route(peer.target, match='recipient = "*@far.example"')
    )
    content = message("large", *["x" * 998] * 1_000)
    send(hub, "ops@plant.test", content=content)
    for mailbox in ("ann", "bob"):
        assert hub.wait_for_mail(mailbox)[0].endswith(content)
    hub.wait_for_log("outcome=deferred")
    spool = hub.data / "content"
    wait_until(lambda: len([p for p in spool.iterdir() if p.is_file()]) == 1)
    # Over a restart, too.
    hub.kill()
    hub.start()
    peer.answer("RCPT", "250 2.1.5 Ok")
    assert peer.wait_for_mails()[0].content.endswith(content)
    wait_until_quiet(hub)
    wait_until(lambda: not [path for path in spool.iterdir() if path.is_file()])
    assert delivered(hub) == {"ann": 1, "bob": 1}


def test_thousands_of_members(start_hub: StartHub, peer: ScriptedPeer) -> None:
    members = [f"m{number}@far.example" for number in range(3_000)]
    hub = start_hub(
        BASE
        + listed("ops", *members)
        + listed("nobody")
        + route(peer.target, match='recipient = "*@far.example"')
    )
    send(hub, "ops@plant.test", "nobody@plant.test")
    wait_until(lambda: sum(len(mail.paths) for mail in peer.mails) == 3_000)
    assert Counter(path for mail in peer.mails for path in mail.paths) == Counter(members)
    wait_until_quiet(hub)
    hub.wait_for_log("The list has no members")


# Members and routes.


def test_a_route_by_content_loses_no_member(start_hub: StartHub) -> None:
    hub = start_hub(
        BASE
        + listed("ops", "ann@plant.test", "bob@plant.test", "carl@plant.test")
        + route("mailbox:alarms", name="a", match='recipient = "ann@*", subject = "alarm*"')
        + route("discard", name="b", match='recipient = "bob@*", header = { "List-Id" = "*" }')
    )
    send(hub, "ops@plant.test", content=message("Alarm"))
    for mailbox in ("alarms", "carl"):
        hub.wait_for_mail(mailbox)
    send(hub, "ops@plant.test", content=message("all is well"))
    for mailbox, count in (("ann", 1), ("carl", 2)):
        hub.wait_for_mail(mailbox, count)
    wait_until_quiet(hub)
    assert delivered(hub) == {"alarms": 1, "carl": 2, "ann": 1}


def test_lists_change_while_the_hub_runs(start_hub: StartHub) -> None:
    hub = start_hub(BASE + retry(0.5, max_s=0.5) + listed("ops", "ann@plant.test"))
    send(hub, "ops@plant.test")
    hub.wait_for_mail("ann")
    hub.run("queue", "hold", "--all")
    send(hub, "ops@plant.test")
    text = hub.config_file.read_text()

    def reload(config: str, times: int) -> None:
        hub.config_file.write_text(config)
        hub.send_signal(signal.SIGHUP)
        wait_until(lambda: hub.log_text().count(" reloaded ") == times, hub.log_text)

    # A list that is gone keeps its mail waiting; one that comes back has its members of now.
    reload(text.replace("[list.ops]", "[list.others]"), 1)
    hub.run("queue", "release", "--all")
    hub.wait_for_log("451 4.3.5 no [list.ops] is configured any more")
    reload(text.replace("ann@", "bob@"), 2)
    hub.wait_for_mail("bob")
    wait_until_quiet(hub)
    assert delivered(hub) == {"ann": 1, "bob": 1}


@pytest.mark.parametrize("local_part", ["ops", "jürgen"])
def test_members_with_names_beyond_ascii(
    start_hub: StartHub, peer: ScriptedPeer, local_part: str
) -> None:
    hub = start_hub(
        BASE
        + listed("ops", f"{local_part}@bücher.example")
        + route(peer.target, match='recipient = "*@xn--bcher-kva.example"')
    )
    send(hub, "ops@plant.test")
    (mail,) = peer.wait_for_mails()
    assert mail.paths == [f"{local_part}@xn--bcher-kva.example"]
    assert ("SMTPUTF8" in mail.sender) == (not local_part.isascii())


def test_a_poster_is_told_what_the_list_itself_refuses(start_hub: StartHub) -> None:
    hub = start_hub(
        BASE
        + listed("ops", "ann@plant.test")
        + route("reject:5.7.1 closed", match='recipient = "ops@*", sender = "spam@*"')
    )
    with hub.smtp(local_hostname="x") as smtp:
        smtp.ehlo()
        accepted(smtp, "MAIL FROM:<spam@plant.test>")
        code, text = smtp.docmd("RCPT", "TO:<ops@plant.test>")
        assert (code, text) == (550, b"5.7.1 closed")
        smtp.rset()
        submit(smtp, "ops@plant.test", sender="ham@plant.test")
    hub.wait_for_mail("ann")
