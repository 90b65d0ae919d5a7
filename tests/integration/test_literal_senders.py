"""Senders at literals are proven by the address of the client, on hosts of their own.

The hub is 10.9.0.1 and fd00:9::1; devices are 10.9.0.2, 10.9.0.3 and fd00:9::2; 10.9.0.4 vouches,
and 10.9.0.5 is not trusted.
"""

from __future__ import annotations

import contextlib
import smtplib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.hub import Hub
from tests.support.mail import fields_of, reply_to, submit, wire
from tests.support.netns import Namespace, joined_namespaces
from tests.support.toml import retry, route
from tests.support.waiting import wait_until

from .conftest import HOST_A, HOST_B

PORT, LMTP_PORT, CLEAR_PORT = 2525, 2424, 2526
DEVICE, OTHER, VOUCHER, STRANGER = "10.9.0.2", "10.9.0.3", "10.9.0.4", "10.9.0.5"
DEVICE_6 = "fd00:9::2"
DUAL, DUAL_6 = "10.9.0.6", "fd00:9::6"  # one device, as the operator says
LISTENERS = (
    f'[[listener]]\nname = "smtp"\nbind = ["0.0.0.0:{PORT}", "[::]:{PORT}"]\n'
    f'[[listener]]\nname = "clear"\nbind = ["0.0.0.0:{CLEAR_PORT}"]\n'
    'login_in_clear = ["10.9.0.0/24"]\n'
    f'[[listener]]\nname = "lmtp"\nbind = ["0.0.0.0:{LMTP_PORT}"]\nrole = "lmtp"\n'
)
NETWORKS = (
    "[networks]\naccept_from_strangers = true\n"
    'trusted = ["loopback", "10.9.0.0/30", "10.9.0.4/32", "fd00:9::/64"]\n'
    '[[mailbox]]\nname = "alerts"\n'
)


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[Namespace, Namespace]]:
    """The hub's host, and one with all the devices."""
    with joined_namespaces(HOST_A, HOST_B) as namespaces:
        for number in (3, 4, 5, 6):
            namespaces[1].add_address(f"10.9.0.{number}/24")
        namespaces[1].add_address(f"{DUAL_6}/64")
        yield namespaces


class Site:
    """A hub on the first host, and sessions from addresses of the second."""

    def __init__(self, pair: tuple[Namespace, Namespace], hub: Hub) -> None:
        self.pair = pair
        self.hub = hub

    @contextlib.contextmanager
    def session(
        self, client: str = DEVICE, *, port: int = PORT, helo: str = "cam.test"
    ) -> Iterator[smtplib.SMTP]:
        """A session that has been greeted, from one of the devices or the hub's own host."""
        is_here = client in ("10.9.0.1", "127.0.0.1", "::1")
        hub = "fd00:9::1" if ":" in client else "10.9.0.1"
        with self.pair[0 if is_here else 1].entered():
            made = smtplib.LMTP if port == LMTP_PORT else smtplib.SMTP
            smtp = made(
                client if is_here else hub, port, local_hostname=helo, source_address=(client, 0)
            )
        with smtp:
            smtp.ehlo(helo)
            yield smtp

    def said(self, client: str, sender: str, **options: str) -> str:
        with self.session(client, **options) as smtp:  # type: ignore[arg-type]
            return reply_to(smtp, f"MAIL FROM:<{sender}>")

    def results(
        self, client: str, sender: str, mailbox: str, author: str = "", port: int = PORT
    ) -> str:
        """What Authentication-Results says of a message, as one text; and the trace as well."""
        content = wire(f"From: {author or 'x@plant.example'}", "", "x")
        with self.session(client, port=port) as smtp:
            queue_id = submit(smtp, f"{mailbox}@[10.9.0.1]", sender=sender, content=content)
        (stored,) = self.hub.wait_for_mail(mailbox)
        found = fields_of(stored, "authentication-results")
        (shown,) = self.hub.json("queue", "show", queue_id)
        name, _, results = found[0].partition("; ") if found else ("", "", "")
        assert shown["auth_results"] == results
        assert name in ("", '"[10.9.0.1]"', '"[IPv6:fd00:9::1]"')
        return results


def make_site(pair: tuple[Namespace, Namespace], directory: Path, config: str) -> Hub:
    return Hub(directory, config, listener=LISTENERS, namespace=pair[0].name, port=PORT)


@pytest.fixture(scope="module")
def site(
    pair: tuple[Namespace, Namespace], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """A hub that proves, with a voucher."""
    config = NETWORKS + f'[policy]\nvouchers = ["{VOUCHER}/32"]\n'
    config += f'[[device]]\naddress = ["10.9.0.6", "{DUAL_6}"]\nname = "dual"\n'
    hub = make_site(pair, tmp_path_factory.mktemp("literal") / "hub", config)
    done = hub.run(
        *("user", "add", "cam", "--sender", "*@[10.9.0.0/24]", "--password-file", "-"),
        stdin=b"secret\n",
    )
    assert done.returncode == 0, done.stderr
    with hub:
        yield Site(pair, hub)


SENDERS = [
    # The host itself, in every spelling of its address.
    (DEVICE, f"cam@[{DEVICE}]", "pass"),
    (DEVICE, f"cam@[IPv6:::ffff:{DEVICE}]", "pass"),
    (DEVICE, "cam@[IPv6:::ffff:a09:2]", "pass"),
    (DEVICE, "cam@[IPv6:0:0:0:0:0:FFFF:0A09:0002]", "pass"),
    (DEVICE, f"cam@{DEVICE}", "pass"),  # addresses.bare_ip
    (DEVICE_6, f"cam@[IPv6:{DEVICE_6}]", "pass"),
    (DEVICE_6, "cam@[IPv6:FD00:0009:0:0:0:0:0:2]", "pass"),
    (STRANGER, f"cam@[{STRANGER}]", "pass"),
    # One device by its other address; that says nothing of third ones.
    (DUAL, f"cam@[IPv6:{DUAL_6}]", "pass"),
    (DUAL_6, f"cam@[{DUAL}]", "pass"),
    (DUAL_6, f"cam@[IPv6:::ffff:{DUAL}]", "pass"),
    (DUAL, f"cam@[IPv6:{DEVICE_6}]", ""),
    (DUAL_6, f"cam@[{DEVICE}]", ""),
    (DEVICE, f"cam@[{DUAL}]", ""),
    # Another host, trusted or not.
    (DEVICE, f"cam@[{OTHER}]", ""),
    (DEVICE, f"cam@{OTHER}", ""),
    (DEVICE, f"cam@[IPv6:::ffff:{OTHER}]", ""),
    (DEVICE, f"cam@[IPv6:{DEVICE_6}]", ""),
    (DEVICE, "cam@[IPv6:2002:a09:2::]", ""),
    (DEVICE, f"cam@[IPv6:64:ff9b::{DEVICE}]", ""),
    (DEVICE_6, f"cam@[{DEVICE}]", ""),
    (DEVICE_6, "cam@[IPv6:fd00:9::3]", ""),
    (STRANGER, f"cam@[{DEVICE}]", ""),
    (STRANGER, "cam@[127.0.0.1]", ""),
    (STRANGER, "cam@[10.9.0.1]", ""),
    # The hub's own: of its own programs, or of those it trusts.
    ("127.0.0.1", "cron@[127.0.0.1]", "pass"),
    ("127.0.0.1", "cron@[10.9.0.1]", "pass"),
    ("10.9.0.1", "cron@[IPv6:fd00:9::1]", "pass"),
    ("127.0.0.1", f"cron@[{DEVICE}]", ""),
    (DEVICE, "cam@[10.9.0.1]", "neutral"),
    (DEVICE, "cam@[IPv6:fd00:9::1]", "neutral"),
    # Whose word counts.
    (VOUCHER, f"cam@[{DEVICE}]", "pass"),
    (VOUCHER, "cam@[203.0.113.7]", "pass"),
    # Names are not proven by this.
    (STRANGER, "cam@plant.example", "none"),
    (STRANGER, "", "none"),
]


@pytest.mark.parametrize(("client", "sender", "result"), SENDERS)
def test_who_may_say_so(site: Site, client: str, sender: str, result: str) -> None:
    with site.session(client) as smtp:
        said = reply_to(smtp, f"MAIL FROM:<{sender}>")
        if not result:
            assert said.startswith("550 5.7.1 You are not the host"), said
            # Refused is that sender, not the client.
            assert reply_to(smtp, "MAIL FROM:<cam@plant.example>").startswith("250")
            return
        assert said.startswith("250"), said
        assert reply_to(smtp, "RCPT TO:<alerts@[10.9.0.1]>").startswith("250")


@pytest.mark.parametrize(
    ("client", "sender", "expected"),
    [
        (DEVICE, f"cam@[IPv6:::ffff:{DEVICE}]", f'pass smtp.mailfrom="cam@[{DEVICE}]"'),
        (DEVICE_6, f"cam6@[IPv6:{DEVICE_6}]", f'pass smtp.mailfrom="cam6@[IPv6:{DEVICE_6}]"'),
        (
            DEVICE,
            "ours@[10.9.0.1]",
            'neutral reason="an address of this hub, used by a trusted client"'
            ' smtp.mailfrom="ours@[10.9.0.1]"',
        ),
        (
            VOUCHER,
            f"passed-on@[{DEVICE}]",
            f'pass reason="by a hub whose word counts" smtp.mailfrom="passed-on@[{DEVICE}]"',
        ),
        (
            "10.9.0.1",
            "cron@[127.0.0.1]",
            'pass reason="by a program of that host" smtp.mailfrom="cron@[127.0.0.1]"',
        ),
    ],
)
def test_what_is_written_down(site: Site, client: str, sender: str, expected: str) -> None:
    mailbox = f"of-{sender.partition('@')[0]}"
    assert site.results(client, sender, mailbox) == f"x-literal={expected}"


def test_a_login_vouches_for_its_own(site: Site) -> None:
    with site.session(STRANGER, port=CLEAR_PORT) as smtp:
        smtp.login("cam", "secret", initial_response_ok=False)
        assert reply_to(smtp, "MAIL FROM:<x@[10.8.0.2]>").startswith("553 5.7.1")
        content = wire(f"From: x@[{OTHER}], boss@[10.8.0.7]", "", "x")
        submit(smtp, "by-login@[10.9.0.1]", sender=f"x@[{DEVICE}]", content=content)
    (stored,) = site.hub.wait_for_mail("by-login")
    assert fields_of(stored, "authentication-results") == [
        '"[10.9.0.1]"; auth=pass smtp.auth=cam;'
        f' x-literal=pass reason="by a login" smtp.mailfrom="x@[{DEVICE}]";'
        f' x-literal=pass reason="by a login" header.from="x@[{OTHER}]";'
        ' x-literal=fail header.from="boss@[10.8.0.7]"'
    ]
    assert fields_of(stored, "sender") == [f"x@[{DEVICE}]"]


def test_the_header_is_compared_and_refuses_nothing(site: Site) -> None:
    results = site.results(
        *(DEVICE, "x@plant.example", "header1"), f"Cam <cam@[IPv6:::ffff:{DEVICE}]>"
    )
    assert results == f'x-literal=pass header.from="cam@[{DEVICE}]"'
    results = site.results(DEVICE, f"cam@[{DEVICE}]", "header2", f"Boss <boss@[{OTHER}]>")
    assert results == (
        f'x-literal=pass smtp.mailfrom="cam@[{DEVICE}]";'
        f' x-literal=fail header.from="boss@[{OTHER}]"'
    )
    assert site.results(DEVICE, "x@plant.example", "header3") == ""


@pytest.mark.parametrize("client", [DEVICE, STRANGER])
@pytest.mark.parametrize(
    "helo", ["[10.9.0.77]", "[IPv6:fd00:9::77]", "[10.9.0.1]", "10.9.0.77", "[not-one]", "x"]
)
def test_the_greeting_never_refuses(site: Site, client: str, helo: str) -> None:
    """RFC 5321 §4.1.4."""
    with site.session(client, helo=helo) as smtp:
        assert reply_to(smtp, f"MAIL FROM:<cam@[{client}]>").startswith("250")
        assert reply_to(smtp, "RCPT TO:<alerts@[10.9.0.1]>").startswith("250")
    # Nor does it prove anything.
    assert site.said(client, "cam@[10.9.0.77]", helo="[10.9.0.77]").startswith("550 5.7.1")


def test_lmtp_is_not_judged(site: Site) -> None:
    with site.session(DEVICE, port=LMTP_PORT) as lmtp:
        assert reply_to(lmtp, "MAIL FROM:<cam@[203.0.113.7]>").startswith("250")


FORGED = (
    'Authentication-Results: "[10.9.0.1]"; x-literal=pass smtp.mailfrom=a1',
    "Authentication-Results: [10.9.0.1]; x-literal=pass smtp.mailfrom=a2",
    "AUTHENTICATION-RESULTS:",
    '\t"[10.9.0.1]";',
    "\tx-literal=pass smtp.mailfrom=a3",
    'Authentication-Results: (a (nested) comment) "\\[10.9.0.1]"; auth=pass smtp.auth=a4',
    "Authentication-Results: [IPv6:fd00:9::1]; auth=pass smtp.auth=a5",  # ours to others
    "Authentication-Results: [127.0.0.1]; auth=pass smtp.auth=a6",
    "Authentication-Results: [IPv6:::FFFF:10.9.0.1]; auth=pass smtp.auth=a7",
)
FOREIGN = "Authentication-Results: mx.example; spf=pass smtp.mailfrom=plant.example"


@pytest.mark.parametrize("client", [DEVICE, STRANGER, VOUCHER])
def test_attack_72_nobody_else_speaks_in_our_name(site: Site, client: str) -> None:
    mailbox = "alerts" if client == STRANGER else f"forged-{client[-1]}"
    content = wire(*FORGED, FOREIGN, "From: x@plant.example", "", *FORGED)
    with site.session(client) as smtp:
        submit(smtp, f"{mailbox}@[10.9.0.1]", sender="x@plant.example", content=content)
    (stored,) = site.hub.wait_for_mail(mailbox)
    head, _, body = stored.partition(b"\r\n\r\n")
    assert fields_of(stored, "authentication-results") == [FOREIGN.partition(": ")[2]]
    assert not any(f"=a{number}".encode() in head for number in range(1, 8))
    assert body == wire(*FORGED)


def test_the_trace_tells_of_refusals(site: Site) -> None:
    assert site.said(STRANGER, "trace@[10.9.0.99]").startswith("550 5.7.1")
    wait_until(lambda: site.hub.json("trace", "--address", "trace@[10.9.0.99]"))
    (entry, *_) = site.hub.json("trace", "--address", "trace@[10.9.0.99]")
    assert "policy.literal_sender" in str(entry)
    assert "policy.literal_sender" in site.hub.log_text()


@pytest.mark.parametrize("mode", ["record", "off"])
def test_other_ways(pair: tuple[Namespace, Namespace], tmp_path: Path, mode: str) -> None:
    config = NETWORKS + f'[policy]\nliteral_sender = "{mode}"\n'
    # The ports of the other hub are taken.
    with Hub(
        tmp_path / "hub",
        config,
        listener='[[listener]]\nname = "s"\nbind = ["0.0.0.0:2600"]\n',
        namespace=pair[0].name,
        port=2600,
    ) as hub:
        other = Site(pair, hub)
        results = other.results(*(DEVICE, f"cam@[{OTHER}]", "seen", f"boss@[{OTHER}]"), port=2600)
        expected = (
            f'x-literal=fail smtp.mailfrom="cam@[{OTHER}]";'
            f' x-literal=fail header.from="boss@[{OTHER}]"'
        )
        assert results == (expected if mode == "record" else "")


def test_answers_to_a_device_that_only_sends(
    pair: tuple[Namespace, Namespace], tmp_path: Path
) -> None:
    """The how-to's route: answers, and bounces that the hub would take to the device itself."""
    config = (
        NETWORKS
        + retry(0.3, max_s=0.3, give_up_after_s=1, warn_after_s=0.5)
        + route("mailbox:cam1", name="answers to cameras", match=f'recipient = "*@[{DEVICE}]"')
        + route("smtp:[10.9.0.2]:2999", name="nowhere", match='recipient = "*@far.example"')
    )
    with Hub(
        tmp_path / "hub",
        config,
        listener='[[listener]]\nname = "s"\nbind = ["0.0.0.0:2601"]\n',
        namespace=pair[0].name,
        port=2601,
    ) as hub:
        here = Site(pair, hub)
        with pair[0].watched() as attempts:
            with here.session(OTHER, port=2601) as smtp:
                submit(smtp, f"cam1@[{DEVICE}]", sender="ann@plant.example")
            hub.wait_for_mail("cam1")
            with here.session(DEVICE, port=2601) as smtp:
                submit(smtp, "x@far.example", sender=f"cam1@[{DEVICE}]")
            bounce = hub.wait_for_mail("cam1", 2)[1]
        assert b"multipart/report" in bounce
        assert bounce.startswith(b"Return-Path: <>\r\n")
        # Nobody was connected to at port 25 of the camera.
        assert [attempt for attempt in attempts if attempt.endswith(":25")] == []
