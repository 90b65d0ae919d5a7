"""A real Postfix, at a literal of its own, on the other side of a link."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.hub import Hub
from tests.support.mail import fields_of, message, parsed, submit
from tests.support.netns import Namespace
from tests.support.postfix import Postfix
from tests.support.toml import PORT_25
from tests.support.waiting import wait_until

from .conftest import StartHub

Hosts = tuple[Namespace, Namespace]


@pytest.fixture
def postfix(hosts: Hosts) -> Iterator[Postfix]:
    """Postfix on the second host, at all its addresses."""
    with Postfix(
        address="10.9.0.2",
        more_addresses=("fd00:9::2",),
        mailboxes=("postmaster", "ann"),
        mynetworks=("10.9.0.0/24", "[fd00:9::]/64"),
        netns=hosts[1].name,
    ) as running:
        yield running


@pytest.fixture
def hub(hosts: Hosts, start_hub: StartHub) -> Hub:
    """A hub on the first host."""
    return start_hub(host="10.9.0.1", port=25, listener=PORT_25, namespace=hosts[0].name)


def stored_by(postfix: Postfix, user: str) -> bytes:
    """The one message Postfix has stored for a user."""
    new = postfix.mailbox(user) / "new"

    def look() -> list[Path]:
        return list(new.iterdir()) if new.exists() else []

    (path,) = wait_until(look, postfix.log_text)
    return path.read_bytes()


@pytest.mark.parametrize("literal", ["[10.9.0.2]", "[IPv6:fd00:9::2]"])
def test_a_hub_delivers_straight_to_postfix(hub: Hub, postfix: Postfix, literal: str) -> None:
    done = hub.run("send", "--to", f"ann@{literal}", "--subject", "hi", "--body", "Hello.")
    assert done.returncode == 0, done.stderr
    stored = stored_by(postfix, "ann")
    assert parsed(stored)["subject"] == "hi"
    assert parsed(stored)["x-original-to"] == f"ann@{literal}"
    wait_until(lambda: hub.json("queue", "list") == [], hub.log_text)
    (entry,) = hub.json("trace")
    assert entry["recipients"][0]["outcome"] == "relayed"


@pytest.mark.parametrize("literal", ["[10.9.0.1]", "[IPv6:fd00:9::1]"])
def test_postfix_delivers_to_a_hubs_literal(hub: Hub, postfix: Postfix, literal: str) -> None:
    # Handed to Postfix on its own host, which has no route but to the literal itself.
    alone = hub.run(
        *("send", "--to", f"alerts@{literal}", "--from", "ann@plant.example"),
        *("--subject", "hi", "--body", "Hello.", "--via", "10.9.0.2:25"),
    )
    assert alone.returncode == 0, alone.stderr
    (stored,) = hub.wait_for_mail("alerts")
    received = parsed(stored)
    assert received["subject"] == "hi"
    assert received["delivered-to"] == f"alerts@{literal}"
    assert "Postfix" in fields_of(stored, "received")[1]
    assert received["return-path"] == "<ann@plant.example>"


def test_what_postfix_refuses_comes_back_to_the_sender(
    hub: Hub, hosts: Hosts, postfix: Postfix
) -> None:
    with hosts[0].entered():
        smtp = hub.smtp(local_hostname="x")
    with smtp:
        submit(
            smtp,
            "nobody@[10.9.0.2]",
            sender="bob@[10.9.0.1]",
            content=message("lost"),
        )
    report = parsed(hub.wait_for_mail("bob")[0])
    assert report.get_content_type() == "multipart/report"
    assert "550 5.1.1" in report.as_string()
    assert "[10.9.0.2] said" in report.as_string()


def test_postfix_answers_a_hub_that_asked_for_a_report(
    hub: Hub, hosts: Hosts, postfix: Postfix
) -> None:
    """DSN parameters travel on, so the next hop reports and the hub does not."""
    with hosts[0].entered():
        smtp = hub.smtp(local_hostname="x")
    with smtp:
        submit(
            smtp,
            "ann@[10.9.0.2]",
            sender="bob@[10.9.0.1]",
            mail="RET=HDRS ENVID=job+2B7",
            rcpt="NOTIFY=SUCCESS ORCPT=rfc822;first@example.test",
        )
    report = hub.wait_for_mail("bob")[0].decode()
    assert "postfix.test" in report
    assert "Original-Envelope-Id: job+7" in report
    assert "Original-Recipient: rfc822;first@example.test" in report
    assert "Action: delivered" in report


def test_a_hub_waits_for_a_postfix_that_is_not_there_yet(hosts: Hosts, start_hub: StartHub) -> None:
    hub = start_hub(
        "[retry]\nfirst_s = 0.5\nmax_s = 0.5\n",
        listener=PORT_25,
        port=25,
        host="10.9.0.1",
        namespace=hosts[0].name,
    )
    assert hub.run("send", "--to", "ann@[10.9.0.2]", "--body", "Hello.").returncode == 0
    hub.wait_for_log("outcome=deferred")
    with Postfix(address="10.9.0.2", mailboxes=("ann",), netns=hosts[1].name) as postfix:
        assert b"Hello." in stored_by(postfix, "ann")
