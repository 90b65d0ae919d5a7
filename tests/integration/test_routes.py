"""[[route]]: where mail goes, and that `waypost route` tells beforehand what the hub then does."""

from __future__ import annotations

import smtplib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.hub import Hub
from tests.support.mail import accepted, message, reply_to, submit, submit_content
from tests.support.netns import Namespace, joined_namespaces
from tests.support.ports import free_port
from tests.support.toml import route

from .conftest import StartHub, StartPeer


def test_copies_to_mailbox_and_hosts(start_hub: StartHub, start_peer: StartPeer) -> None:
    """The picture recorder's story: keep it, and pass it on to two places."""
    nvr, office = start_peer(), start_peer()
    office.answer("RCPT", "550 5.1.1 Nobody here")
    hub = start_hub(
        route("mailbox:alerts", nvr.target, office.target, match='recipient = "cam*@*"')
    )
    with hub.smtp(local_hostname="x") as smtp:
        queue_id = submit(smtp, "cam1@[127.0.0.1]")
    hub.wait_for_mail("alerts")
    assert nvr.wait_for_mails()[0].paths == ["cam1@[127.0.0.1]"]
    # Each target has a fate of its own.
    assert b"5.1.1" in hub.wait_for_mail("ann")[0]
    (entry,) = hub.json("trace", "--id", queue_id)
    assert [(r["target"], r["outcome"]) for r in entry["recipients"]] == [
        ("mailbox:alerts", "delivered"),
        (nvr.target, "relayed"),
        (office.target, "failed"),
    ]
    assert {recipient["rule"] for recipient in entry["recipients"]} == {"route"}


def test_a_message_for_recipients_with_different_routes(
    start_hub: StartHub, start_peer: StartPeer
) -> None:
    first, second = start_peer(), start_peer()
    hub = start_hub(
        route(first.target, name="one", match='recipient = "*@one.example"')
        + route(second.target, name="two", match='recipient = "*@two.example"')
    )
    recipients = ("a@one.example", "b@two.example", "c@one.example", "d@[127.0.0.1]")
    with hub.smtp(local_hostname="x") as smtp:
        submit(smtp, *recipients)
    assert first.wait_for_mails()[0].paths == ["a@one.example", "c@one.example"]
    assert second.wait_for_mails()[0].paths == ["b@two.example"]
    hub.wait_for_mail("d")


def test_first_match_wins_unless_it_goes_on(start_hub: StartHub) -> None:
    hub = start_hub(
        route("mailbox:copy", name="copy", match='sender = "cam*@*"', goes_on=True)
        + route("mailbox:first", name="first", match='recipient = "door@*"')
        + route("mailbox:second", name="second", match='recipient = "door@*"')
    )
    with hub.smtp(local_hostname="x") as smtp:
        submit(smtp, "door@[127.0.0.1]", sender="cam1@[127.0.0.1]")
        hub.wait_for_mail("copy")
        hub.wait_for_mail("first")
        submit(smtp, "door@[127.0.0.1]", sender="ann@[127.0.0.1]")
        hub.wait_for_mail("first", 2)
        assert len(hub.mailbox("copy")) == 1
        # Where only routes match that go on, mail goes its usual way, too.
        submit(smtp, "other@[127.0.0.1]", sender="cam1@[127.0.0.1]")
        hub.wait_for_mail("copy", 2)
        hub.wait_for_mail("other")
    assert hub.mailbox("second") == []


def test_discard_and_reject(start_hub: StartHub) -> None:
    hub = start_hub(
        route("discard", name="d", match='recipient = "noise@*"')
        + route("reject:5.7.1 not here", name="r", match='recipient = "spam@*"')
        + route("reject:4.7.1 not now", name="t", match='recipient = "busy@*"')
        + route("reject:", name="plain", match='sender = "<>", recipient = "robot@*"')
    )
    with hub.smtp(local_hostname="x") as smtp:
        smtp.ehlo()
        accepted(smtp, "MAIL FROM:<>")
        assert reply_to(smtp, "RCPT TO:<spam@[127.0.0.1]>") == "550 5.7.1 not here"
        assert reply_to(smtp, "RCPT TO:<busy@[127.0.0.1]>") == "450 4.7.1 not now"
        assert reply_to(smtp, "RCPT TO:<robot@[127.0.0.1]>").startswith("550 5.7.1 ")
        accepted(smtp, "RCPT TO:<noise@[127.0.0.1]>")
        submit_content(smtp, message())
    hub.wait_for_log("outcome=delivered")
    assert hub.json("mailbox", "list") == []
    assert hub.json("queue", "list") == []


def test_matching_by_client_and_listener(start_hub: StartHub) -> None:
    ports = [free_port() for _ in range(2)]
    listeners = "".join(
        f'[[listener]]\nname = "{name}"\nbind = ["127.0.0.1:{port}"]\n'
        for name, port in zip(("doors", "lifts"), ports, strict=True)
    )
    hub = start_hub(
        route("mailbox:doors", name="by-listener", match='listener = "doors"')
        + route("mailbox:nine", name="by-client", match='client = ["127.0.0.9/32"]'),
        listener=listeners,
        port=ports[1],
    )
    with smtplib.SMTP("127.0.0.1", ports[0], local_hostname="x") as smtp:
        submit(smtp, "ann@[127.0.0.1]")
    hub.wait_for_mail("doors")
    with hub.smtp(local_hostname="x", source_address=("127.0.0.9", 0)) as smtp:
        submit(smtp, "ann@[127.0.0.1]")
    hub.wait_for_mail("nine")
    with hub.smtp(local_hostname="x") as smtp:
        submit(smtp, "ann@[127.0.0.1]")
    hub.wait_for_mail("ann")


def test_patterns_take_brackets_as_they_stand(start_hub: StartHub) -> None:
    hub = start_hub(route("mailbox:loop", match='recipient = "*@[127.0.0.*]"'))
    with hub.smtp(local_hostname="x") as smtp:
        submit(smtp, "ann@[127.0.0.1]")
    hub.wait_for_mail("loop")


def test_direct_as_a_target(hosts: tuple[Namespace, Namespace], start_hub: StartHub) -> None:
    """A route may name targets beside the way mail for literals takes by itself."""
    here, there = (
        start_hub(
            route("mailbox:copies", "direct", match=f'recipient = "*@[{far}]"'),
            host=near,
            port=25,
            namespace=host.name,
        )
        for host, near, far in (
            (hosts[0], "10.9.0.1", "10.9.0.2"),
            (hosts[1], "10.9.0.2", "10.9.0.1"),
        )
    )
    with hosts[0].entered():
        smtp = here.smtp(local_hostname="x")
    with smtp:
        submit(smtp, "ann@[10.9.0.2]")
    here.wait_for_mail("copies")
    there.wait_for_mail("ann")


# What `waypost route` says is what happens.

TABLE = (
    '[addresses]\ndomains = ["plant.example"]\nown = ["auto", "198.51.100.9"]\n'
    "[mailboxes]\nauto_create = true\n"
    '[[mailbox]]\nname = "ann"\naliases = ["root"]\n'
    + route("mailbox:cams", name="cameras", match='recipient = "cam*@*", client = ["private"]')
    + route("discard", name="noise", match='recipient = "noise@plant.example"')
    + route("reject:5.7.1 closed", name="closed", match='recipient = "closed@*"')
    + route("reject:4.7.1 later", name="later", match='sender = "<>", recipient = "later@*"')
    + route("mailbox:a", "mailbox:b", name="two", match='recipient = "two@*"')
)
TRUSTED, STRANGER = "10.9.0.2", "203.0.113.7"
RECIPIENTS = [
    "ann@[10.9.0.1]",
    "ann@plant.example",
    "root@[IPv6:fd00:9::1]",
    "new+tag@[198.51.100.9]",
    "cam1@[10.9.0.1]",
    "cam1@elsewhere.example",
    "noise@plant.example",
    "closed@plant.example",
    "later@plant.example",
    "two@plant.example",
    "x@10.9.0.9",
    "x@[10.9.0.9]",
    "x@[203.0.113.9]",
    "x@[224.0.0.1]",
    "x@elsewhere.example",
    "x@[foo:bar]",
    "postmaster",
]


@pytest.fixture(scope="module")
def far_hub(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Hub, Namespace]]:
    """A hub with TABLE at 10.9.0.1 and 203.0.113.1, and the host on the other side."""
    near = ("10.9.0.1/24", "203.0.113.1/24", "fd00:9::1/64")
    far = ("10.9.0.2/24", "203.0.113.7/24", "fd00:9::2/64")
    with (
        joined_namespaces(near, far) as (here, there),
        Hub(
            tmp_path_factory.mktemp("table"),
            TABLE,
            listener='[[listener]]\nname = "smtp"\nbind = ["0.0.0.0:25"]\n',
            port=25,
            namespace=here.name,
        ) as hub,
    ):
        # Nothing leaves: only what RCPT says, and where the mail would go, is looked at.
        hub.run("queue", "hold", "--all")
        yield hub, there


CASES = [
    *((TRUSTED, "bob@plant.example", recipient) for recipient in RECIPIENTS),
    *((STRANGER, "bob@elsewhere.example", recipient) for recipient in RECIPIENTS[::3]),
    (TRUSTED, "", "later@plant.example"),
    (STRANGER, "", "postmaster"),
]


@pytest.fixture(scope="module")
def happened(far_hub: tuple[Hub, Namespace]) -> list[tuple[str, dict[str, Any] | None]]:
    """For each of CASES: the reply to RCPT, and what was queued where that was yes."""
    hub, there = far_hub
    ids: list[str] = []
    replies: list[str] = []
    for client, sender, recipient in CASES:
        with there.entered():
            server = "10.9.0.1" if client == TRUSTED else "203.0.113.1"
            smtp = smtplib.SMTP(server, 25, local_hostname="x", timeout=20)
        with smtp:
            smtp.ehlo()
            accepted(smtp, f"MAIL FROM:<{sender}>")
            replies.append(reply_to(smtp, f"RCPT TO:<{recipient}>"))
            taken = replies[-1].startswith("250")
            ids.append(submit_content(smtp, message()) if taken else "")
    entries = {entry["id"]: entry for entry in hub.json("queue", "list")}
    return [(reply, entries.get(queue_id)) for reply, queue_id in zip(replies, ids, strict=True)]


@pytest.mark.parametrize("index", range(len(CASES)), ids=lambda index: " ".join(CASES[index]))
def test_route_agrees_with_the_hub(
    far_hub: tuple[Hub, Namespace],
    happened: list[tuple[str, dict[str, Any] | None]],
    index: int,
) -> None:
    client, sender, recipient = CASES[index]
    told = tell(far_hub[0], recipient, sender, client)
    reply, entry = happened[index]
    assert reply.startswith("250") == told["accepted"]
    if entry is None:
        assert reply == told["reply"]
        return
    assert [queued["target"] for queued in entry["recipients"]] == told["targets"]
    assert {queued["address"] for queued in entry["recipients"]} == {told["recipient"]}


def tell(hub: Hub, recipient: str, sender: str, client: str) -> dict[str, Any]:
    arguments = [recipient, "--client", client, *(("--from", sender) if sender else ())]
    (told,) = hub.json("route", *arguments)
    assert told["steps"]
    return told


def test_route_explains_itself(far_hub: tuple[Hub, Namespace]) -> None:
    hub, _ = far_hub
    done = hub.run("route", "cam1@elsewhere.example", "--client", TRUSTED)
    assert done.returncode == 0
    text = done.stdout.decode()
    for words in ("10.9.0.2 is trusted", "route 'cameras'", "accepted: mailbox:cams"):
        assert words in text
    done = hub.run("route", "x@elsewhere.example", "--client", STRANGER)
    assert done.returncode == 1
    assert "a stranger may not relay" in done.stdout.decode()
    assert "refused: 550 5.7.1" in done.stdout.decode()
