"""What domains ask of senders: DANE with a real Unbound that validates, and MTA-STS."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.certificates import Certificate
from tests.support.dns_servers import Nsd, Unbound, signed_tree
from tests.support.hub import Hub
from tests.support.mail import message, submit
from tests.support.netns import Namespace, joined_namespaces
from tests.support.ports import reserved_port
from tests.support.sts_site import GOOD, Site
from tests.support.tls_peer import TlsPeer
from tests.support.toml import PORT_25, retry, route
from tests.support.waiting import wait_until

OFTEN = retry(1, max_s=1)
WORLD = route("direct", name="world", match='recipient = "*@*.test"')
OWN = '[addresses]\nown = ["203.0.113.7"]\n'
Hosts = tuple[Namespace, Namespace]


def attempt(hub: Hub, recipient: str, outcome: str = "") -> str:
    """The last line of the log on an attempt for a recipient."""

    def look() -> list[str]:
        return [
            line
            for line in hub.log_text().splitlines()
            if " attempt " in line and f"to={recipient} " in line and f"outcome={outcome}" in line
        ]

    return wait_until(look, hub.log_text)[-1]


# DANE.


class Case(NamedTuple):
    """A domain whose host shows a certificate for mx.DOMAIN, and what becomes of mail for it."""

    tlsa: str  # "usage selector matching", of the leaf for usage 3, else of its authority; or text
    expected: str  # words of the log
    zone: str = "secure"
    tls: bool = True
    names: str = "mx"  # whom the certificate is for
    wrong: bool = False  # the record is of another certificate


CASES = {
    "ee": Case("3 1 1", "DANE, its zone", names="elsewhere"),
    "whole": Case("3 0 2", "DANE, its zone"),
    "ta": Case("2 0 1", "DANE, its zone"),
    "ta-name": Case("2 0 1", "no TLSA record of its zone names", names="elsewhere"),
    "wrong": Case("3 1 1", "no TLSA record of its zone names", wrong=True),
    "stripped": Case("3 1 1", "does not offer TLS", tls=False),
    "unusable": Case("1 1 1", "unverified", wrong=True),
    "unusable-stripped": Case("1 1 1", "does not offer TLS", wrong=True, tls=False),
    "none": Case("", "unverified"),
    "none-stripped": Case("", "outcome=relayed hop", tls=False),
    "insecure": Case("3 1 1", "unverified", zone="insecure", wrong=True),
    "bogus": Case("3 1 1", "DNS: ", zone="bogus"),
}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Certificate(tmp_path_factory.mktemp("ca"), "ca", is_authority=True)


@pytest.fixture(scope="module")
def dane(
    tmp_path_factory: pytest.TempPathFactory, authority: Certificate
) -> Iterator[tuple[Hub, dict[str, TlsPeer]]]:
    directory = tmp_path_factory.mktemp("dane")
    other = Certificate(directory, "other")
    zones: dict[str, dict[str, str]] = {"secure": {}, "insecure": {}, "bogus": {}}
    peers: dict[str, TlsPeer] = {}
    with ExitStack() as stack:
        port = stack.enter_context(reserved_port())
        for number, (name, case) in enumerate(CASES.items(), 2):
            domain = f"{name}.test"
            leaf = Certificate(
                directory, name, issuer=authority, names=[f"{case.names}.{name}.test"]
            )
            text = f"@ MX 10 mx\nmx A 127.0.0.{number}\n"
            if case.tlsa:
                usage, selector, matching = case.tlsa.split()
                of = other if case.wrong else (authority if usage == "2" else leaf)
                octets = of.spki if selector == "1" else of.der
                digest = hashlib.sha256 if matching == "1" else hashlib.sha512
                text += f"_{port}._tcp.mx TLSA {case.tlsa} {digest(octets).hexdigest()}\n"
            zones[case.zone][domain] = text
            peers[name] = stack.enter_context(
                TlsPeer(
                    *(leaf.chain_file, leaf.key_file),
                    host=f"127.0.0.{number}",
                    port=port,
                    offers_tls=case.tls,
                )
            )
        tree = signed_tree(**zones)  # type: ignore[arg-type]
        nsd = stack.enter_context(Nsd(tree.zones))
        unbound = stack.enter_context(Unbound(nsd, trust_anchors=[tree.trust_anchor]))
        config = (
            f'{OWN}[dns]\nservers = ["{unbound.address}:{unbound.port}"]\n'
            f"[delivery]\nport = {port}\n" + WORLD + OFTEN
        )
        config += route("relay:out", name="relayed", match='recipient = "*@relayed.example"')
        config += f'[relay.out]\nhost = "mx.ee.test"\nport = {port}\ntls = "dane"\n'
        config += route("relay:bad", name="not", match='recipient = "*@not.example"')
        config += f'[relay.bad]\nhost = "mx.none.test"\nport = {port}\ntls = "dane"\n'
        hub = stack.enter_context(Hub(directory / "hub", config))
        with hub.smtp() as smtp:
            for name in CASES:
                submit(smtp, f"ann@{name}.test", content=message(name))
        yield hub, peers


@pytest.mark.parametrize("name", CASES)
def test_dane(dane: tuple[Hub, dict[str, TlsPeer]], name: str) -> None:
    hub, peers = dane
    case = CASES[name]
    line = attempt(hub, f"ann@{name}.test")
    assert case.expected in line
    is_through = case.expected.startswith(("DANE", "unverified", "outcome=relayed"))
    assert ("outcome=relayed" in line) == is_through
    if is_through:
        assert [mail.is_encrypted for mail in peers[name].taken] == [case.tls]
    else:
        assert peers[name].taken == []
        assert not any("MAIL" in command for command in peers[name].commands)


def test_a_relay_by_its_zone(dane: tuple[Hub, dict[str, TlsPeer]]) -> None:
    hub, _ = dane
    with hub.smtp() as smtp:
        submit(smtp, "ann@relayed.example")
        submit(smtp, "ann@not.example")
    assert "DANE, relay.out" in attempt(hub, "ann@relayed.example", "relayed")
    assert "mx.none.test has no TLSA record" in attempt(hub, "ann@not.example", "deferred")


# MTA-STS.


class Inside(NamedTuple):
    """A hub at 8.8.8.1, and at 8.8.8.8 and 8.8.8.9 the world."""

    hub: Hub
    site: Site
    peer: TlsPeer  # mx.plant.test
    issue: Callable[..., Certificate]


@pytest.fixture
def inside(tmp_path: Path, authority: Certificate) -> Iterator[Inside]:
    def issue(name: str, *names: str) -> Certificate:
        return Certificate(tmp_path, name, issuer=authority, names=names)

    zones = {
        "plant.test": '_mta-sts 1 TXT "v=STSv1; id=1"\n@ 1 MX 10 mx\nmx A 8.8.8.8\n'
        "mta-sts A 8.8.8.9\nevil A 8.8.8.8",
        # Its web server leads inside.
        "lan.test": '_mta-sts TXT "v=STSv1; id=1"\n@ MX 10 mx.plant.test.\nmta-sts A 10.9.0.2',
    }
    leaf = issue("mx", "mx.plant.test")
    web = issue("web", "mta-sts.plant.test", "mta-sts.lan.test")
    with ExitStack() as stack:
        near, far = stack.enter_context(
            joined_namespaces(
                ("8.8.8.1/24", "10.9.0.1/24"), ("8.8.8.8/24", "8.8.8.9/24", "10.9.0.2/24")
            )
        )
        stack.enter_context(Nsd(zones, netns=near.name))
        site = Site(web, address=("0.0.0.0", 443), namespace=far)
        stack.enter_context(site.serving())
        peer = stack.enter_context(
            TlsPeer(leaf.chain_file, leaf.key_file, host="8.8.8.8", port=25, namespace=far)
        )
        config = '[dns]\nservers = ["127.0.0.1"]\n' + WORLD + OFTEN
        hub = stack.enter_context(
            Hub(
                tmp_path / "hub",
                config,
                host="8.8.8.1",
                port=25,
                listener=PORT_25,
                namespace=near.name,
                environment={"SSL_CERT_FILE": str(authority.file)},
            )
        )
        yield Inside(hub, site, peer, issue)


def send(inside: Inside, recipient: str, content: bytes | None = None) -> None:
    done = inside.hub.run(
        *("send", "--to", recipient, "--from", "bob@plant.example", "--body", "Hello.")
    )
    assert done.returncode == 0, done.stderr


def test_a_policy_is_enforced(inside: Inside) -> None:
    hub, site, peer, issue = inside
    send(inside, "ann@plant.test")
    assert "verified, MTA-STS" in attempt(hub, "ann@plant.test", "relayed")
    assert len(site.asked) == 1
    # Somebody strips STARTTLS.
    peer.offers_tls = False
    hub.stop()
    hub.start()
    send(inside, "stripped@plant.test")
    assert "does not offer TLS" in attempt(hub, "stripped@plant.test", "deferred")
    # Somebody else answers there.
    peer.offers_tls = True
    other = issue("other", "evil.plant.test")
    peer.show(other.chain_file, other.key_file)
    send(inside, "name@plant.test")
    assert "Hostname mismatch" in attempt(hub, "name@plant.test", "deferred")
    assert len(peer.taken) == 1
    assert len(site.asked) == 1


def test_a_host_the_policy_does_not_name(inside: Inside) -> None:
    hub, site, peer, _ = inside
    site.body = GOOD.replace("mx.plant", "mx2.plant").encode()
    send(inside, "ann@plant.test")
    assert "mx.plant.test is none of the hosts of plant.test (MTA-STS)" in attempt(
        hub, "ann@plant.test", "deferred"
    )
    assert not peer.commands


@pytest.mark.parametrize("mode", ["testing", "none"])
def test_a_policy_that_asks_for_nothing(inside: Inside, mode: str) -> None:
    hub, site, _, _ = inside
    site.body = GOOD.replace("mx.plant", "mx2.plant").replace("enforce", mode).encode()
    send(inside, "ann@plant.test")
    assert "unverified" in attempt(hub, "ann@plant.test", "relayed")
    assert (" mta-sts-testing " in hub.log_text()) == (mode == "testing")


def test_an_author_who_would_rather_have_it_arrive(inside: Inside) -> None:
    """RFC 8689 §3: TLS-Required: No is stronger than what the domain asks for."""
    hub, site, _, _ = inside
    site.body = GOOD.replace("mx.plant", "mx2.plant").encode()
    content = b"From: <bob@plant.example>\r\nTo: <ann@plant.test>\r\nTLS-Required: No\r\n\r\nx\r\n"
    done = hub.run("sendmail", "-t", "-i", "-f", "bob@plant.example", stdin=content)
    assert done.returncode == 0, done.stderr
    assert "unverified" in attempt(hub, "ann@plant.test", "relayed")
    assert site.asked == []


def test_a_policy_from_inside_is_not_fetched(inside: Inside) -> None:
    hub, site, _, _ = inside
    send(inside, "ann@lan.test")
    assert "unverified" in attempt(hub, "ann@lan.test", "relayed")
    assert "mta-sts-trouble domain=lan.test" in hub.log_text()
    assert site.asked == []


def test_a_rule_of_the_operator_goes_first(inside: Inside) -> None:
    hub, site, _, _ = inside
    site.body = GOOD.replace("mx.plant", "mx2.plant").encode()
    with hub.config_file.open("a") as file:
        file.write('[[tls.policy]]\nmatch = ["plant.test"]\nlevel = "encrypt"\n')
    assert hub.run("reload").returncode == 0
    send(inside, "ann@plant.test")
    assert "unverified" in attempt(hub, "ann@plant.test", "relayed")
    assert site.asked == []
