"""Attacks 43 to 46 and 70 by HTTP: the client of webhooks, MTA-STS and reports, told any URL.

Every page of this world says that it has moved to where nobody may go.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from ipaddress import IPv4Address, ip_address
from pathlib import Path

import pytest

from tests.attacks.addresses import may_reach, spellings, target
from tests.attacks.conftest import Say
from tests.attacks.test_ssrf import ALL, ONE_SPELT, PLAIN
from tests.attacks.world import HONEST, OWN, PAGE_PORT, ZONE, World, hexed
from waypost.delivery.sts import StsPolicies
from waypost.dns.caching import CachingResolver
from waypost.errors import ConnectForbidden
from waypost.http.client import HttpClient, HttpFailed
from waypost.mail.address import Domain
from waypost.net.gate import Gate, Origin
from waypost.net.interfaces import OwnAddresses
from waypost.net.networks import Networks
from waypost.tls.sts import StsPolicy

ORIGINS = {
    "stranger": Origin.STRANGER,
    "named": Origin.NAMED,  # a webhook's host, with no networks listed
    "operator": Origin.OPERATOR,
}


def hubs_gate() -> Gate:
    """A hub's gate."""
    own = OwnAddresses(follow_interfaces=False, extra=[ip_address(ip) for ip in OWN])
    return Gate(trusted=Networks(("private",)), own=own, listening=lambda: frozenset())


def fetched(world: World, who: str, urls: Iterable[str]) -> tuple[set[str], set[str]]:
    """The connections that asking for all of these causes, and how each of them ended."""
    gate = hubs_gate()
    ends: set[str] = set()

    async def ask_for_all() -> None:
        client = HttpClient(gate, CachingResolver(["127.0.0.1:53"]), ORIGINS[who])
        for url in urls:
            try:
                response = await client.fetch("POST", url, allows_clear=True, timeout_s=5)
                ends.add(str(response.status))
            except (ConnectForbidden, HttpFailed, ValueError) as error:
                ends.add(type(error).__name__)

    world.reached.clear()
    with world.namespace.watched() as attempts, world.namespace.entered():
        asyncio.run(ask_for_all())
    return {attempt for attempt in attempts if attempt != "127.0.0.1:53"}, ends


def wanted(who: str) -> set[str]:
    """The connections that may be caused, and can be: not those that need a zone, or broadcast."""
    ips = [ip for ip in ALL if not (ip.version == 6 and ip.is_link_local)]
    return {target(ip, PAGE_PORT) for ip in ips if may_reach(ip, who)} - {"127.255.255.255:80"}


@pytest.mark.parametrize("who", ORIGINS)
def test_attacks_43_to_46_and_70_urls_with_any_address(world: World, say: Say, who: str) -> None:
    """By its literal, by a name, and by a name that is an alias; no redirect is followed."""
    urls = [f"http://[{ip}]/" if ip.version == 6 else f"http://{ip}/" for ip in ALL]
    urls += [f"http://web-{hexed(ip)}.a.{ZONE}/" for ip in ALL]
    urls += [f"http://web-{hexed(ip)}.cname.{ZONE}./" for ip in PLAIN]
    connections, ends = fetched(world, who, urls)
    assert connections == wanted(who)
    assert {target(ip, PAGE_PORT) for ip in world.reached} == connections
    # An operator's may be tried that need a zone.
    assert ends - {"NoConnection" if who == "operator" else ""} == {"302", "ConnectForbidden"}
    say(len(urls), f"URL on the word of the {who}, and as many redirects")


def test_attacks_43_to_46_policies_of_domains(world: World, say: Say, tmp_path: Path) -> None:
    """MTA-STS: who names a domain has the hub ask a host of it, which may be anywhere."""
    domains = [Domain(f"{hexed(ip)}.sts.{ZONE}") for ip in ALL]

    async def ask_for_all() -> list[StsPolicy | None]:
        client = HttpClient(hubs_gate(), CachingResolver([]), Origin.STRANGER)
        policies = StsPolicies(tmp_path / "mta-sts.db", client, None, port=PAGE_PORT)
        resolver = CachingResolver(["127.0.0.1:53"])
        return [await policies.policy(domain, resolver) for domain in domains]

    world.reached.clear()
    with world.namespace.watched() as attempts, world.namespace.entered():
        found = asyncio.run(ask_for_all())
    assert found == [None] * len(ALL)  # who answers there speaks no TLS
    connections = {attempt for attempt in attempts if attempt != "127.0.0.1:53"}
    assert connections == wanted("stranger")
    say(len(ALL), "policy of a domain whose host is anywhere")


def test_attacks_43_and_70_urls_whose_name_moves(world: World, say: Say) -> None:
    """Asked for once while honest, and again when it is not."""
    moving = [ip for ip in PLAIN if not may_reach(ip, "stranger")]
    urls = [f"http://web-{hexed(ip)}.moves.{ZONE}/" for ip in moving]
    connections, ends = fetched(world, "stranger", urls)
    assert connections == {f"{HONEST}:{PAGE_PORT}"}
    assert ends == {"302"}
    # An answer without a life serves for a second (dns/caching): another resolver has none.
    connections, ends = fetched(world, "stranger", urls)
    assert connections == set()
    assert ends == {"ConnectForbidden"}
    say(2 * len(urls), "URL whose name moves")


def test_attacks_41_and_70_urls_with_odd_hosts(world: World, say: Say) -> None:
    hosts = [text for v4 in ONE_SPELT for text in spellings(IPv4Address(v4))]
    urls = [f"http://{form}/" for host in hosts for form in (host, f"[{host}]", f"a@{host}")]
    urls += [f"http://a:b@{host}/" for host in hosts]
    urls += [f"{scheme}://127.0.0.1/" for scheme in ("file", "gopher", "dict", "ftp", "ldap", "")]
    urls += ["http://127.0.0.1:0/", "http://127.0.0.1:65536/", "http://127.0.0.1:-1/", "http:///"]
    connections, ends = fetched(world, "stranger", urls)
    # Of some, what stands behind the address is a port or a path.
    assert connections <= {"8.8.8.8:80", "8.8.8.8:25"}
    assert ends <= {"302", "ConnectForbidden", "HttpFailed", "NoConnection", "ValueError"}
    say(len(urls), "URL with an odd host")
