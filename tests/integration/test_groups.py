"""Domain groups and moved hosts: one machine that stands for several domains."""

from __future__ import annotations

import signal
import smtplib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.dns_servers import Nsd
from tests.support.hub import Hub
from tests.support.mail import accepted, fields_of, message, reply_to, submit, submit_content
from tests.support.netns import Namespace
from tests.support.ports import free_port
from tests.support.scripted_peer import ScriptedPeer
from tests.support.toml import PORT_25, retry, route
from tests.support.waiting import wait_until

from .conftest import StartHub

PLANT, SHOP = "127.0.0.11", "127.0.0.12"
ADDRESSES = """
hostname = "hub.test"
[addresses]
domains = ["hub-too.test"]
[addresses.groups]
"127.0.0.11" = ["plant.test"]
"127.0.0.12" = ["shop.test", "DEPOT.test"]
"192.0.2.77" = ["absent.test"]
[addresses.names]
"127.0.0.12" = "mail.shop.test"
[addresses.moved]
"10.0.0.50" = "127.0.0.11"
"10.0.0.51" = "nas.test"
"10.0.0.52" = "10.0.0.53"
[dns]
servers = []
"""
MAILBOXES = """
[[mailbox]]
name = "sales"
domain = "shop.test"
aliases = ["info"]
[[mailbox]]
name = "both"
domain = "shop.test"
[[mailbox]]
name = "both"
domain = "depot.test"
[[mailbox]]
name = "hubs"
"""
REST = '[[mailbox]]\nname = "rest"\ndomain = "depot.test"\ncatch_all = true\n'


def listener(port: int) -> str:
    binds = ", ".join(f'"{ip}:{port}"' for ip in ("127.0.0.1", PLANT, SHOP))
    return f'[[listener]]\nname = "smtp"\nbind = [{binds}]\n'


@pytest.fixture
def hub(start_hub: StartHub) -> Hub:
    """A hub with two groups and no way out."""
    port = free_port()
    return start_hub(ADDRESSES + MAILBOXES, listener=listener(port), port=port)


def session(hub: Hub, host: str = "127.0.0.1") -> smtplib.SMTP:
    return smtplib.SMTP(host, hub.port, local_hostname="x", timeout=20)


def rcpt(hub: Hub, path: str, host: str = "127.0.0.1") -> str:
    with session(hub, host) as smtp:
        smtp.ehlo()
        accepted(smtp, "MAIL FROM:<ann@hub.test>")
        return reply_to(smtp, f"RCPT TO:<{path}>")


def test_an_address_stands_for_its_domains(hub: Hub) -> None:
    with session(hub) as smtp:
        submit(smtp, f"Sales+x@[{SHOP}]", "info@SHOP.test", f"hubs@[{SHOP}]")
        submit(smtp, f"pump@[{PLANT}]", "valve@plant.test", "sales@hub.test")
    (stored,) = hub.wait_for_mail("sales@shop.test")
    assert fields_of(stored, "delivered-to") == [f"Sales+x@[{SHOP}]", "info@shop.test"]
    for mailbox in ("hubs", "pump@plant.test", "valve@plant.test", "sales"):
        hub.wait_for_mail(mailbox)
    assert rcpt(hub, f"both@[{SHOP}]").startswith("550 5.1.4 ")
    assert rcpt(hub, f"nobody@[{SHOP}]").startswith("550 5.1.1 ")
    done = hub.run("mailbox", "show", "pump@plant.test")
    assert done.returncode == 0
    assert b"Hello." in done.stdout


def test_a_bare_name_goes_to_the_group_connected_to(hub: Hub) -> None:
    for host in ("127.0.0.1", PLANT):
        with session(hub, host) as smtp:
            submit(smtp, "pump", sender="cam")
    with session(hub, SHOP) as smtp:
        submit(smtp, "sales", sender="cam")
        assert rcpt(hub, "both", SHOP).startswith("550 5.1.4 ")
        submit(smtp, "postmaster", sender="cam")
    assert fields_of(hub.wait_for_mail("pump")[0], "return-path") == ["<cam@hub.test>"]
    (stored,) = hub.wait_for_mail("pump@plant.test")
    assert fields_of(stored, "delivered-to") == [f"pump@[{PLANT}]"]
    assert fields_of(stored, "return-path") == [f"<cam@[{PLANT}]>"]
    hub.wait_for_mail("sales@shop.test")
    hub.wait_for_mail("postmaster")


def test_mailboxes_of_domains_outlive_a_restart(hub: Hub) -> None:
    with session(hub, PLANT) as smtp:
        submit(smtp, "Pump", '"a@b"@plant.test')
    hub.wait_for_mail("pump@plant.test")
    hub.wait_for_mail("%22a@b%22@plant.test")
    text = hub.config_file.read_text()
    hub.config_file.write_text(text + "[mailboxes]\nauto_create = false\n")
    hub.stop()
    hub.start()
    with session(hub, PLANT) as smtp:
        submit(smtp, "pump", "PUMP+x@plant.test", '"a@b"@plant.test')
        accepted(smtp, "MAIL FROM:<>")
        assert reply_to(smtp, "RCPT TO:<pump@hub.test>").startswith("550 5.1.1")
    hub.wait_for_mail("pump@plant.test", 2)
    hub.wait_for_mail("%22a@b%22@plant.test", 2)


def test_groups_change_while_the_hub_runs(hub: Hub) -> None:
    assert rcpt(hub, f"nobody@[{SHOP}]").startswith("550 5.1.1 ")
    assert rcpt(hub, "x@new.test").startswith("550 5.7.1 ")
    text = hub.config_file.read_text()
    text = text.replace('["plant.test"]', '["plant.test", "new.test"]') + REST
    hub.config_file.write_text(text)
    hub.send_signal(signal.SIGHUP)
    hub.wait_for_log(" reloaded ")
    with session(hub) as smtp:
        submit(smtp, f"nobody@[{SHOP}]", "x@new.test")
    hub.wait_for_mail("rest@depot.test")
    hub.wait_for_mail("x@new.test")
    assert rcpt(hub, f"pump@[{PLANT}]").startswith("550 5.1.1 ")  # which of two, nobody can say


# Outward.


@pytest.fixture
def receiver(start_hub: StartHub) -> Hub:
    """The other side, which writes down who came and how they called themselves."""
    return start_hub('[addresses]\nown = ["127.0.0.1"]\ndomains = ["far.example"]\n')


def came_from(stored: bytes) -> str:
    return fields_of(stored, "received")[0].partition(" by ")[0].partition(" (using ")[0]


def test_mail_leaves_by_the_address_of_its_domain(start_hub: StartHub, receiver: Hub) -> None:
    port = free_port()
    out = route(f"smtp:[127.0.0.1]:{receiver.port}", match='recipient = "*@far.example"')
    hub = start_hub(ADDRESSES + out, listener=listener(port), port=port)
    senders = {
        "plant": ("ann@PLANT.test", "from [127.0.0.11] ([127.0.0.11])"),
        "shop": ("ann@shop.test", "from mail.shop.test ([127.0.0.12])"),
        "depot": ("ann@depot.test", "from mail.shop.test ([127.0.0.12])"),
        "literal": (f"ann@[{SHOP}]", "from mail.shop.test ([127.0.0.12])"),
        "hub": ("ann@hub.test", "from hub.test ([127.0.0.1])"),
        "elsewhere": ("ann@elsewhere.test", "from hub.test ([127.0.0.1])"),
        "null": ("", "from hub.test ([127.0.0.1])"),
    }
    with session(hub) as smtp:
        # Twice, so that connections that are still open are there to be mistaken.
        for count in (1, 2):
            for mailbox, (sender, said) in senders.items():
                submit(smtp, f"{mailbox}@far.example", sender=sender)
                assert came_from(receiver.wait_for_mail(mailbox, count)[-1]) == said


def test_an_address_that_is_away_holds_up_its_own_mail_only(
    start_hub: StartHub, receiver: Hub
) -> None:
    out = route(f"smtp:[127.0.0.1]:{receiver.port}", match='recipient = "*@far.example"')
    hub = start_hub(ADDRESSES + retry(60) + out)
    with hub.smtp(local_hostname="x") as smtp:
        submit(smtp, "one@far.example", sender="ann@absent.test")
        hub.wait_for_log("outcome=deferred")
        submit(smtp, "two@far.example", sender="ann@plant.test")
    receiver.wait_for_mail("two")
    (entry,) = hub.json("queue", "list")
    assert entry["recipients"][0]["address"] == "one@far.example"
    assert "Cannot assign requested address" in entry["recipients"][0]["last_reply"]


@pytest.fixture
def six_and_four(hosts: tuple[Namespace, Namespace]) -> Iterator[tuple[Namespace, Namespace]]:
    """Two hosts, the first with a name server that knows both addresses of the second."""
    hosts[0].add_address("10.9.0.3/24")
    zone = {"far.test": "@ MX 10 mx\nmx A 10.9.0.2\nmx AAAA fd00:9::2"}
    with Nsd(zone, netns=hosts[0].name):
        yield hosts


def test_a_group_without_ipv6_address_sends_by_ipv4(
    six_and_four: tuple[Namespace, Namespace], start_hub: StartHub
) -> None:
    """Or its mail would leave by an address that is not its own."""
    near, far = six_and_four
    config = (
        'hostname = "near.test"\n[addresses.groups]\n"10.9.0.3" = ["plant.test"]\n'
        '[dns]\nservers = ["127.0.0.1"]\n' + route("direct", match='recipient = "*@far.test"')
    )
    hub = start_hub(config, host="10.9.0.1", port=25, listener=PORT_25, namespace=near.name)
    there = start_hub(
        '[addresses]\ndomains = ["far.test"]\n',
        host="10.9.0.2",
        port=25,
        listener=PORT_25,
        namespace=far.name,
    )
    for mailbox, sender in (("four", "ann@plant.test"), ("six", "ann@near.test")):
        with near.entered():
            smtp = hub.smtp(local_hostname="x")
        with smtp:
            submit(smtp, f"{mailbox}@far.test", sender=sender)
    assert came_from(there.wait_for_mail("four")[0]) == "from [10.9.0.3] ([10.9.0.3])"
    assert came_from(there.wait_for_mail("six")[0]) == "from near.test ([IPv6:fd00:9::1])"
    told = hub.json("route", "four@far.test", "--from", "ann@plant.test")[0]
    assert told["hops"] == {"direct": ["mx.far.test[10.9.0.2]:25"]}


# Moved hosts.


def trace(hub: Hub, queue_id: str) -> dict[str, Any]:
    (entry,) = wait_until(lambda: hub.json("trace", "--id", queue_id))
    recipient: dict[str, Any] = entry["recipients"][0]
    return recipient


def test_mail_for_a_host_that_has_moved_finds_it(hub: Hub) -> None:
    with session(hub) as smtp:
        queue_id = submit(smtp, "pump@[10.0.0.50]")
        (stored,) = hub.wait_for_mail("pump@plant.test")
        assert fields_of(stored, "delivered-to") == [f"pump@[{PLANT}]"]
        assert trace(hub, queue_id)["rule"] == "moved from [10.0.0.50], own address"
        submit(smtp, "pump@10.0.0.50")  # without brackets it means the same
    hub.wait_for_mail("pump@plant.test", 2)


def test_a_report_speaks_of_the_address_that_was_written(
    start_hub: StartHub, peer: ScriptedPeer
) -> None:
    peer.answer("RCPT TO:<gone@", "550 5.1.1 Nobody here")
    hub = start_hub(
        ADDRESSES
        + route(peer.target, name="nas", match='recipient = "*@nas.test", subject = "*"')
        + route(peer.target, name="new", match='recipient = "*@[10.0.0.53]"')
    )
    with hub.smtp(local_hostname="x") as smtp:
        queue_id = submit(smtp, "gone@[10.0.0.51]", sender="bob@hub.test")
        report = hub.wait_for_mail("bob")[0].decode()
        assert "Original-Recipient: rfc822; gone@[10.0.0.51]" in report
        assert "Final-Recipient: rfc822; gone@nas.test" in report
        # Also where the content decided.
        assert trace(hub, queue_id)["rule"] == "moved from [10.0.0.51], nas"
        # What the sender had said itself stays as it is.
        submit(smtp, "gone@[10.0.0.52]", sender="carl@hub.test", rcpt="ORCPT=rfc822;x@y.test")
        report = hub.wait_for_mail("carl")[0].decode()
        assert "Original-Recipient: rfc822; x@y.test" in report
        smtp.ehlo()
        accepted(smtp, "MAIL FROM:<dora@hub.test> SMTPUTF8")
        accepted(smtp, "RCPT TO:<gone@[10.0.0.52]>")
        submit_content(smtp, message())
    hub.wait_for_mail("dora")


def test_an_address_behind_nat_is_left_to_the_router(
    start_hub: StartHub, peer: ScriptedPeer
) -> None:
    """It is ours by `addresses.own`, and on no interface: the kernel chooses, mail goes on."""
    hub = start_hub(
        '[addresses]\nown = ["auto", "203.0.113.7"]\n'
        '[addresses.groups]\n"203.0.113.7" = ["shop.example"]\n'
        + route(f"smtp:[127.0.0.1]:{peer.port}", match='recipient = "*@far.example"')
    )
    with smtplib.SMTP("127.0.0.1", hub.port) as client:
        client.sendmail("ann@shop.example", "bob@far.example", "Subject: x\r\n\r\nhi\r\n")
    peer.wait_for_mails()
