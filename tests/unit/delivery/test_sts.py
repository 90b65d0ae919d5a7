"""MTA-STS policies: fetched from a real HTTPS server, kept, and never given up for trouble."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.certificates import Certificate
from tests.support.static_resolver import StaticResolver
from tests.support.sts_site import GOOD, Site
from waypost.delivery.sts import AGAIN_S, StsPolicies
from waypost.dns.resolver import Trouble
from waypost.http.client import HttpClient
from waypost.mail.address import Domain
from waypost.net.gate import Gate, Origin
from waypost.net.interfaces import OwnAddresses
from waypost.net.networks import NOWHERE
from waypost.tls.sts import Mode, StsPolicy

DOMAIN = Domain("plant.test")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Certificate(tmp_path_factory.mktemp("ca"), "ca", is_authority=True)


@pytest.fixture
def site(authority: Certificate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """What this system trusts is `authority`."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    leaf = Certificate(tmp_path, "leaf", issuer=authority, names=["mta-sts.plant.test"])
    with Site(leaf).serving() as running:
        yield running


class World:
    """Policies, with a clock and a resolver in the test's hand."""

    def __init__(self, path: Path, port: int, origin: Origin = Origin.OPERATOR) -> None:
        self.now = 1_000_000.0
        self.path = path
        self.resolver = StaticResolver(
            {
                ("_mta-sts.plant.test", "TXT"): ["v=STSv1; id=1"],
                ("mta-sts.plant.test", "A"): ["127.0.0.1"],
            }
        )
        own = OwnAddresses(follow_interfaces=False, extra=())
        gate = Gate(trusted=NOWHERE, own=own, listening=frozenset)
        self._client = HttpClient(gate, self.resolver, origin)
        self._port = port

    def policies(self) -> StsPolicies:
        return StsPolicies(self.path, self._client, port=self._port, clock=lambda: self.now)

    def ask(self, policies: StsPolicies | None = None) -> StsPolicy | None:
        """As a hub would that was just started."""

        async def asked() -> StsPolicy | None:
            used = policies or self.policies()
            found = await used.policy(DOMAIN, self.resolver)
            while used._fetching:
                await asyncio.sleep(0.01)
            return found

        return asyncio.run(asked())


@pytest.fixture
def world(tmp_path: Path, site: Site) -> World:
    return World(tmp_path / "tls" / "mta-sts.db", site.server.server_port)


EXPECTED = StsPolicy(Mode.ENFORCE, 100_000, ("mx.plant.test",))


def test_fetched_once_and_kept(world: World, site: Site) -> None:
    policies = world.policies()
    assert world.ask(policies) == EXPECTED
    assert site.asked == ["/.well-known/mta-sts.txt"]
    assert world.ask(policies) == EXPECTED
    assert world.ask() == EXPECTED
    assert len(site.asked) == 1
    assert stat.S_IMODE(world.path.stat().st_mode) == 0o600


def test_no_record_no_question(world: World, site: Site) -> None:
    del world.resolver.records["_mta-sts.plant.test", "TXT"]
    assert world.ask() is None
    assert site.asked == []


def test_a_new_id_is_a_new_policy(world: World, site: Site) -> None:
    world.ask()
    site.body = GOOD.replace("mx.plant", "mx2.plant").encode()
    assert world.ask() == EXPECTED
    world.resolver.records["_mta-sts.plant.test", "TXT"] = ["v=STSv1; id=2"]
    found = world.ask()
    assert found is not None
    assert found.mx == ("mx2.plant.test",)


def test_at_half_of_its_life_it_is_fetched_again(world: World, site: Site) -> None:
    world.ask()
    site.body = GOOD.replace("mx.plant", "mx2.plant").encode()
    world.now += 49_000
    assert world.ask() == EXPECTED
    assert len(site.asked) == 1
    world.now += 2_000
    assert world.ask() == EXPECTED  # what is known holds while the new one is fetched
    assert len(site.asked) == 2
    found = world.ask()
    assert found is not None
    assert found.mx == ("mx2.plant.test",)


@pytest.mark.parametrize("trouble", ["record gone", "dns", "web", "bad policy"])
def test_what_was_seen_holds_until_it_is_over(world: World, site: Site, trouble: str) -> None:
    world.ask()
    record = ("_mta-sts.plant.test", "TXT")
    if trouble == "record gone":
        del world.resolver.records[record]
    elif trouble == "dns":
        world.resolver.troubles[record] = Trouble.SERVFAIL
    else:
        world.resolver.records[record] = ["v=STSv1; id=2"]
        site.status, site.body = (500, b"") if trouble == "web" else (200, b"mode: none\n")
    assert world.ask() == EXPECTED
    world.now += 99_000
    assert world.ask() == EXPECTED
    world.now += 1_000
    assert world.ask() is None


@pytest.mark.parametrize(
    "how", ["redirect", "missing", "html", "untyped", "oversize", "no policy", "name", "authority"]
)
def test_what_is_not_taken(
    world: World,
    site: Site,
    how: str,
    tmp_path: Path,
    authority: Certificate,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if how == "redirect":
        site.status = 302
        site.headers["Location"] = "https://127.0.0.1/"
    elif how == "missing":
        site.status = 404
    elif how in ("html", "untyped"):
        site.headers = {"Content-Type": "text/html"} if how == "html" else {}
    elif how == "oversize":
        site.body = GOOD.encode() + b"x: y\n" * 13_200
    elif how == "no policy":
        site.body = b"<html>"
    elif how == "name":
        world.resolver.records["mta-sts.other.test", "A"] = ["127.0.0.1"]
        world.resolver.records["_mta-sts.other.test", "TXT"] = ["v=STSv1; id=1"]
        found = asyncio.run(world.policies().policy(Domain("other.test"), world.resolver))
        assert found is None
        assert site.asked == []
        return
    else:
        other = Certificate(tmp_path / "other", "other", is_authority=True)
        monkeypatch.setenv("SSL_CERT_FILE", str(other.file))
    policies = world.policies()
    assert world.ask(policies) is None
    # Nor asked for with each message.
    count = len(site.asked)
    assert count == (how != "authority")
    assert world.ask(policies) is None
    assert len(site.asked) == count
    site.status, site.body = 200, GOOD.encode()
    site.headers = {"Content-Type": "text/plain"}
    world.now += AGAIN_S
    assert world.ask(policies) == (None if how == "authority" else EXPECTED)


def test_just_small_enough(world: World, site: Site) -> None:
    site.body = (GOOD + "x: y\n" * 13_200).encode()[:65_536].rpartition(b"\n")[0]
    assert world.ask() == EXPECTED


def test_a_private_address_is_not_asked(tmp_path: Path, site: Site) -> None:
    world = World(tmp_path / "sts.db", site.server.server_port, Origin.STRANGER)
    assert world.ask() is None
    assert site.asked == []


def test_many_ask_at_once(world: World, site: Site) -> None:
    async def asked() -> list[StsPolicy | None]:
        policies = world.policies()
        return await asyncio.gather(*(policies.policy(DOMAIN, world.resolver) for _ in range(20)))

    assert asyncio.run(asked()) == [EXPECTED] * 20
    assert len(site.asked) == 1
