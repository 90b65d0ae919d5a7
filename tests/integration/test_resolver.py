"""CachingResolver before real name servers: what it keeps, merges, waits for and calls trouble."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import dns.message
import dns.rcode
import pytest

from tests.support.dns_servers import Nsd, Unbound, signed_tree
from tests.support.netns import Namespace
from tests.support.ports import free_port
from waypost.dns import caching
from waypost.dns.caching import CachingResolver
from waypost.dns.resolver import Answer, MailExchange, ResolverUnavailable, Trouble

Hosts = tuple[Namespace, Namespace]

BIG = [f"{number:03d} {'x' * 90}" for number in range(60)]
PLANT = """
    @      MX  10 mx
    mx     A   192.0.2.5
    late   1   TXT "one"
    zero   0   TXT "zero"
    bytes  TXT "\\255\\254 \\007\\027[31m \\194\\155"
    many   MX  0 mx0
""" + "".join(f'    big TXT "{text}"\n' for text in BIG)
SIGNED = """
    @   MX 10 mx
    mx  A  192.0.2.5
"""


def where(*servers: Nsd | Unbound) -> list[str]:
    """Servers as the configuration names them."""
    return [f"{server.address}:{server.port}" for server in servers]


@pytest.fixture(scope="module")
def nsd() -> Iterator[Nsd]:
    with Nsd({"plant.test": PLANT}, broken=["broken.test"]) as running:
        yield running


@pytest.fixture(scope="module")
def unbound() -> Iterator[Unbound]:
    """A resolver that validates, in front of zones of each kind."""
    tree = signed_tree(
        secure={"secure.test": SIGNED},
        insecure={"plain.test": SIGNED},
        bogus={"bogus.test": SIGNED},
    )
    with (
        Nsd(tree.zones, broken=["broken.test"]) as nsd,
        Unbound(nsd, trust_anchors=[tree.trust_anchor]) as running,
    ):
        yield running


@pytest.fixture
def is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dead servers cost less time than in earnest."""
    monkeypatch.setattr(caching, "SERVER_S", 0.2)
    monkeypatch.setattr(caching, "LIFETIME_S", 0.8)


@contextmanager
def silent_server() -> Iterator[str]:
    """One that takes questions and never answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
        holder.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{holder.getsockname()[1]}"


def text_of(answer: Answer[str]) -> str:
    return " ".join(answer.records)


def trouble_of(resolver: CachingResolver, name: str) -> Trouble:
    """What keeps it from answering."""
    with pytest.raises(ResolverUnavailable) as caught:
        asyncio.run(resolver.mx(name))
    return caught.value.trouble


def test_an_answer_is_kept_as_long_as_it_may_be() -> None:
    def zone(text: str) -> dict[str, str]:
        return {"a.test": f'@ 1 TXT "{text}"\nkept 100 TXT "{text}"'}

    async def run(nsd: Nsd) -> list[str]:
        resolver = CachingResolver(where(nsd))
        names = ("a.test", "kept.a.test")
        texts = [text_of(await resolver.txt(name)) for name in names]
        await asyncio.to_thread(nsd.reload, zone("new"))
        texts += [text_of(await resolver.txt(name)) for name in names]
        await asyncio.sleep(1.1)
        texts += [text_of(await resolver.txt(name)) for name in names]
        assert resolver.asked == 3
        return texts

    with Nsd(zone("old")) as nsd:
        [first, *_, after, kept] = asyncio.run(run(nsd))
    assert (first, after, kept) == ("old", "new", "old")


def test_that_nothing_is_there_is_kept_too() -> None:
    soa = "@ SOA ns.invalid. hostmaster.invalid. {serial} 3600 600 86400 1\n@ NS ns.invalid.\n"

    async def run(nsd: Nsd) -> list[bool]:
        resolver = CachingResolver(where(nsd))

        async def look() -> tuple[bool, bool]:
            return (await resolver.ipv4("new.a.test")).exists, bool(
                (await resolver.txt("a.test")).records
            )

        seen = [*await look(), *await look()]
        assert resolver.asked == 2
        there = soa.format(serial=9) + 'new A 192.0.2.1\n@ TXT "x"'
        await asyncio.to_thread(nsd.reload, {"a.test": there})
        await asyncio.sleep(1.1)
        return [*seen, *await look()]

    with Nsd({"a.test": soa.format(serial=1)}) as nsd:
        assert asyncio.run(run(nsd)) == [False, False, False, False, True, True]


@pytest.mark.parametrize("rcode", [dns.rcode.NOERROR, dns.rcode.NXDOMAIN])
def test_that_nothing_is_there_is_not_kept_where_nobody_says_how_long(
    rcode: dns.rcode.Rcode,
) -> None:
    """RFC 2308 §5: without an SOA record, as small routers answer, it holds for the moment only."""

    def answer(server: socket.socket) -> None:
        for _ in range(2):
            octets, client = server.recvfrom(65_535)
            response = dns.message.make_response(dns.message.from_wire(octets))
            response.set_rcode(rcode)
            server.sendto(response.to_wire(), client)

    async def run(port: int) -> int:
        resolver = CachingResolver([f"127.0.0.1:{port}"])
        for _ in range(2):
            assert not (await resolver.ipv4("new.a.test")).records
        assert resolver.asked == 1
        await asyncio.sleep(1.1)
        await resolver.ipv4("new.a.test")
        return resolver.asked

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=answer, args=(server,), daemon=True)
        thread.start()
        assert asyncio.run(run(server.getsockname()[1])) == 2
        thread.join()


def test_an_answer_without_a_life_serves_those_who_ask_at_once(nsd: Nsd) -> None:
    async def run() -> int:
        resolver = CachingResolver(where(nsd))
        await asyncio.gather(*(resolver.txt("zero.plant.test") for _ in range(50)))
        await resolver.txt("zero.plant.test")
        return resolver.asked

    assert asyncio.run(run()) == 1


def test_one_question_goes_out_for_all_who_ask(nsd: Nsd) -> None:
    async def run() -> None:
        resolver = CachingResolver(where(nsd))
        names = ["plant.test", "PLANT.test", "Plant.Test"]
        answers = await asyncio.gather(*(resolver.mx(names[n % 3]) for n in range(1_000)))
        assert {tuple(answer.records) for answer in answers} == {
            (MailExchange(10, "mx.plant.test"),)
        }
        assert resolver.asked == 1
        await asyncio.gather(resolver.mx("plant.test"), resolver.txt("plant.test"))
        assert resolver.asked == 2

    asyncio.run(run())


def test_who_gives_up_takes_the_answer_from_nobody() -> None:
    """The server is silent, so all of them wait at once; it comes to life when some have left."""

    async def run(address: str, port: int) -> None:
        resolver = CachingResolver([f"{address}:{port}"])
        waiting = [asyncio.create_task(resolver.mx("a.test")) for _ in range(10)]
        await asyncio.sleep(0.1)
        for waiter in waiting[:9]:
            waiter.cancel()
        with Nsd({"a.test": "@ MX 10 mx"}, port=port):
            [*given_up, answer] = await asyncio.gather(*waiting, return_exceptions=True)
            assert all(isinstance(one, asyncio.CancelledError) for one in given_up)
            assert isinstance(answer, Answer)
            assert tuple(answer.records) == (MailExchange(10, "mx.a.test"),)
            assert resolver.asked == 1

    with silent_server() as server:
        port = int(server.partition(":")[2])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(caching, "SERVER_S", 0.3)
        asyncio.run(run("127.0.0.1", port))


def test_when_all_have_given_up_nothing_is_left_to_complain(is_quick: None) -> None:
    complaints: list[dict[str, Any]] = []

    async def run(server: str) -> None:
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: complaints.append(context)
        )
        resolver = CachingResolver([server])
        waiting = [asyncio.create_task(resolver.mx(f"a{n}.test")) for n in range(10)]
        await asyncio.sleep(0.05)
        for waiter in waiting:
            waiter.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await asyncio.sleep(1.0)  # the troubles come, and nobody waits for them
        gc.collect()

    with silent_server() as server:
        asyncio.run(run(server))
    assert not complaints


def test_a_server_that_refuses_connections_is_passed_over(nsd: Nsd, is_quick: None) -> None:
    resolver = CachingResolver([f"127.0.0.1:{free_port()}", *where(nsd)])
    assert asyncio.run(resolver.ipv4("mx.plant.test")).records == (ip_address("192.0.2.5"),)


def test_a_silent_server_is_passed_over(nsd: Nsd, is_quick: None) -> None:
    with silent_server() as server:
        resolver = CachingResolver([server, *where(nsd)])
        assert asyncio.run(resolver.ipv4("mx.plant.test")).records == (ip_address("192.0.2.5"),)


@pytest.mark.parametrize("is_silent", [True, False])
def test_with_dead_servers_only_trouble_comes_in_time(is_quick: None, is_silent: bool) -> None:
    with silent_server() as silent:
        server = silent if is_silent else f"127.0.0.1:{free_port()}"
        assert trouble_of(CachingResolver([server, server]), "plant.test") is Trouble.TIMEOUT


def test_trouble_is_kept_for_a_while_only(is_quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caching, "TROUBLE_TTL_S", 0.5)

    async def run(nsd: Nsd) -> None:
        resolver = CachingResolver(where(nsd))
        for _ in range(3):
            with pytest.raises(ResolverUnavailable):
                await resolver.mx("a.test")
        assert resolver.asked == 1
        nsd.start()
        await asyncio.sleep(0.6)
        assert (await resolver.mx("a.test")).records

    nsd = Nsd({"a.test": "@ MX 10 mx"})
    try:
        asyncio.run(run(nsd))
    finally:
        nsd.stop()


def test_each_who_meets_trouble_gets_an_exception_of_their_own() -> None:
    async def run() -> list[BaseException | Answer[MailExchange]]:
        resolver = CachingResolver([])
        return await asyncio.gather(
            *(resolver.mx("plant.test") for _ in range(100)), return_exceptions=True
        )

    found = asyncio.run(run())
    assert {str(one) for one in found} == {"DNS: no servers for plant.test MX"}
    assert len({id(one) for one in found}) == 100


def test_refused(nsd: Nsd) -> None:
    assert trouble_of(CachingResolver(where(nsd)), "far.example") is Trouble.REFUSED


def test_a_broken_zone(nsd: Nsd) -> None:
    assert trouble_of(CachingResolver(where(nsd)), "broken.test") is Trouble.SERVFAIL


def test_a_broken_server_before_one_in_order(nsd: Nsd) -> None:
    with Nsd({"broken.test": "@ MX 10 mx"}) as other:
        resolver = CachingResolver(where(nsd, other))
        assert asyncio.run(resolver.mx("broken.test")).records


def test_broken_zones_do_not_block_each_other(nsd: Nsd, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each asks a second question, whether it is bogus; all places may be taken by the first."""
    monkeypatch.setattr(caching, "MAX_ASKING", 2)

    async def run() -> None:
        resolver = CachingResolver(where(nsd))
        found = await asyncio.wait_for(
            asyncio.gather(
                *(resolver.mx(f"a{number}.broken.test") for number in range(20)),
                return_exceptions=True,
            ),
            timeout=10,
        )
        assert [one.trouble for one in found if isinstance(one, ResolverUnavailable)] == (
            [Trouble.SERVFAIL] * 20
        )

    asyncio.run(run())


def test_what_does_not_fit_into_a_datagram_comes_over_tcp(nsd: Nsd) -> None:
    answer = asyncio.run(CachingResolver(where(nsd)).txt("big.plant.test"))
    assert sorted(answer.records) == BIG


def test_texts_that_are_no_utf8(nsd: Nsd) -> None:
    answer = asyncio.run(CachingResolver(where(nsd)).txt("bytes.plant.test"))
    assert answer.records == ("\\xff\\xfe \x07\x1b[31m \x9b",)


def test_what_is_kept_has_a_limit(nsd: Nsd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caching, "MAX_ANSWERS", 10)

    async def run() -> None:
        resolver = CachingResolver(where(nsd))
        # More under way at once than may be kept, too.
        await asyncio.gather(*(resolver.ipv4(f"a{number}.plant.test") for number in range(50)))
        assert resolver.asked == 50
        assert len(resolver._answers) == 10
        await resolver.ipv4("a49.plant.test")
        assert resolver.asked == 50
        await resolver.ipv4("a0.plant.test")
        assert resolver.asked == 51

    asyncio.run(run())


def test_signatures_that_hold(unbound: Unbound) -> None:
    async def run() -> None:
        resolver = CachingResolver(where(unbound))
        assert await resolver.validates()
        answer = await resolver.mx("secure.test")
        assert answer.is_secure
        assert answer.records == (MailExchange(10, "mx.secure.test"),)
        missing = await resolver.mx("missing.secure.test")
        assert (missing.exists, missing.is_secure) == (False, True)

    asyncio.run(run())


def test_no_signatures(unbound: Unbound) -> None:
    answer = asyncio.run(CachingResolver(where(unbound)).mx("plain.test"))
    assert (bool(answer.records), answer.is_secure) == (True, False)


@pytest.mark.parametrize("name", ["bogus.test", "missing.bogus.test"])
def test_signatures_that_do_not_hold(unbound: Unbound, name: str) -> None:
    assert trouble_of(CachingResolver(where(unbound)), name) is Trouble.BOGUS


def test_broken_is_not_bogus(unbound: Unbound) -> None:
    assert trouble_of(CachingResolver(where(unbound)), "broken.test") is Trouble.SERVFAIL


def test_who_validates(nsd: Nsd) -> None:
    assert not asyncio.run(CachingResolver(where(nsd)).validates())
    assert not asyncio.run(CachingResolver([]).validates())


def test_no_servers() -> None:
    assert trouble_of(CachingResolver([]), "plant.test") is Trouble.NO_SERVERS


@pytest.fixture
def resolv_conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A resolv.conf of the test's own, not written yet."""
    path = tmp_path / "resolv.conf"
    monkeypatch.setattr(caching, "_RESOLV_CONF", str(path))
    monkeypatch.setattr(caching, "_LOOK_S", 0.0)
    monkeypatch.setattr(caching, "TROUBLE_TTL_S", 0.0)
    return path


def test_the_servers_of_the_system_are_followed(
    hosts: Hosts, resolv_conf: Path, is_quick: None
) -> None:
    """It begins without any, gets a dead one, then others, and loses them all."""

    async def run() -> list[str]:
        resolver = CachingResolver()
        seen = []
        for number, nameservers in enumerate(
            (None, "10.9.0.9", "10.9.0.1", "10.9.0.9 10.9.0.2", "", None)
        ):
            if nameservers is None:
                resolv_conf.unlink(missing_ok=True)
            else:
                lines = "".join(f"nameserver {one}\n" for one in nameservers.split())
                resolv_conf.write_text(f"# {number}\nsearch plant.test\n{lines}")
                os.utime(resolv_conf, ns=(number, number))
            try:
                seen.append(text_of(await resolver.txt(f"x{number}.plant.test")))
            except ResolverUnavailable as error:
                seen.append(error.trouble.value)
        return seen

    with (
        Nsd({"plant.test": '* TXT "first"'}, address="10.9.0.1", netns=hosts[0].name),
        Nsd({"plant.test": '* TXT "second"'}, address="10.9.0.2", netns=hosts[1].name),
        hosts[0].entered(),
    ):
        seen = asyncio.run(run())
    assert seen == ["no servers", "timeout", "first", "second", "no servers", "no servers"]


def test_a_system_file_with_mistakes_is_read_as_far_as_can_be(resolv_conf: Path) -> None:
    resolv_conf.write_bytes(
        b"# B\xfcro\nnameserver\nnameserver dns.example\nnameserver 192.0.2.300\n"
        b"search " + b"x" * 70 + b".test\noptions edns0 timeout:x\n"
        b"nameserver 192.0.2.1 # inside\n\tnameserver 2001:db8::1\nnameserver fe80::1%eth0\n"
    )
    assert caching._system_servers() == ["192.0.2.1", "2001:db8::1", "fe80::1%eth0"]


def test_own_servers_come_beside_those_of_the_system(nsd: Nsd, resolv_conf: Path) -> None:
    resolv_conf.write_text("nameserver not.an.address\n")
    resolver = CachingResolver(["system", *where(nsd)])
    assert asyncio.run(resolver.mx("plant.test")).records
