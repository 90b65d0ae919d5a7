"""TLSA records against certificates (RFC 6698, RFC 7671, RFC 7672)."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.certificates import Certificate
from tests.support.static_resolver import StaticResolver
from waypost.delivery.connection import TlsUnmet
from waypost.delivery.dane import Anchors, anchors_of, match
from waypost.dns.resolver import ResolverUnavailable, TlsaRecord, Trouble
from waypost.tls.evidence import Evidence

HOST = "mx.plant.test"
AT = f"_25._tcp.{HOST}"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Certificate(tmp_path_factory.mktemp("ca"), "ca", is_authority=True)


Issue = Callable[..., Certificate]


@pytest.fixture
def issue(authority: Certificate, tmp_path: Path) -> Issue:
    options = {"issuer": authority, "names": [HOST]}
    return lambda name="leaf", **more: Certificate(tmp_path, name, **{**options, **more})


def seen(*chain: Certificate) -> Evidence:
    return Evidence("TLSv1.3", "x", tuple(entry.der for entry in chain))


def record(usage: int, selector: int, matching: int, of: Certificate) -> TlsaRecord:
    octets = of.spki if selector else of.der
    digests = {0: octets, 1: hashlib.sha256(octets).digest(), 2: hashlib.sha512(octets).digest()}
    return TlsaRecord(usage, selector, matching, digests[matching])


def holds(evidence: Evidence, *records: TlsaRecord, names: tuple[str, ...] = (HOST,)) -> bool:
    try:
        return match(evidence, records, names) in records
    except TlsUnmet:
        return False


@pytest.mark.parametrize("selector", [0, 1])
@pytest.mark.parametrize("matching", [0, 1, 2])
@pytest.mark.parametrize("usage", [2, 3])
def test_every_kind(
    issue: Issue, authority: Certificate, usage: int, selector: int, matching: int
) -> None:
    leaf, other = issue(), issue("other")
    of = leaf if usage == 3 else authority
    assert holds(seen(leaf, authority), record(usage, selector, matching, of))
    assert holds(
        seen(leaf, authority),
        record(usage, selector, matching, other),
        record(usage, selector, matching, of),
    )
    assert not holds(seen(leaf, authority), record(usage, selector, matching, other))
    assert not holds(seen(), record(usage, selector, matching, of))


def test_an_end_entity_needs_nothing_else(issue: Issue, tmp_path: Path) -> None:
    """RFC 7672 §3.1.1: neither name, nor date, nor who signed it."""
    leaf = Certificate(tmp_path, "self", names=["elsewhere.test"], expired=True)
    assert holds(seen(leaf), record(3, 1, 1, leaf))


def test_an_anchor_is_no_end_entity(issue: Issue, authority: Certificate) -> None:
    leaf = issue()
    assert not holds(seen(leaf, authority), record(3, 1, 1, authority))
    assert not holds(seen(leaf, authority), record(2, 1, 1, leaf))


def test_below_an_anchor_name_date_and_signature_count(
    issue: Issue, authority: Certificate, tmp_path: Path
) -> None:
    anchor = record(2, 0, 1, authority)
    elsewhere = issue("elsewhere", names=["elsewhere.test"])
    assert not holds(seen(elsewhere, authority), anchor)
    assert holds(seen(elsewhere, authority), anchor, names=(HOST, "elsewhere.test"))
    assert holds(seen(issue("wild", names=["*.plant.test"]), authority), anchor)
    assert not holds(seen(issue("expired", expired=True), authority), anchor)
    # Whoever sends the anchor along has not been signed by it.
    thief = Certificate(tmp_path, "thief", names=[HOST])
    assert not holds(seen(thief, authority), anchor)
    namesake = Certificate(tmp_path, "ca", is_authority=True)
    forged = Certificate(tmp_path, "forged", names=[HOST], issuer=namesake)
    assert not holds(seen(forged, authority), anchor)
    # Nor may a host sign for another.
    issued = Certificate(tmp_path, "issued", names=[HOST], issuer=elsewhere)
    assert not holds(seen(issued, elsewhere, authority), anchor)


def test_by_one_between(authority: Certificate, tmp_path: Path) -> None:
    middle = Certificate(tmp_path, "middle", issuer=authority, is_authority=True)
    leaf = Certificate(tmp_path, "leaf", issuer=middle, names=[HOST])
    assert holds(seen(leaf, middle, authority), record(2, 1, 1, authority))
    assert holds(seen(leaf, middle), record(2, 1, 1, middle))
    # Whole in the record, an anchor need not be sent.
    assert holds(seen(leaf, middle), record(2, 0, 0, authority))
    assert not holds(seen(leaf, middle), record(2, 0, 1, authority))


def test_what_cannot_be_read() -> None:
    with pytest.raises(TlsUnmet, match="cannot be read"):
        match(Evidence("", "", (b"nothing",)), (TlsaRecord(3, 1, 1, b"x" * 32),), (HOST,))


# What the zone says.

FINE = "3 1 1 " + "ab" * 32
RECORDS = {(HOST, "A"): ["192.0.2.5"], (AT, "TLSA"): [FINE]}


def ask(resolver: StaticResolver, host: str = HOST) -> Anchors | None:
    return asyncio.run(anchors_of(resolver, host, 25))


def test_only_what_is_validated_counts() -> None:
    both = ask(StaticResolver(RECORDS, secure=[HOST, AT]))
    assert both == Anchors(HOST, (TlsaRecord(3, 1, 1, b"\xab" * 32),))
    assert ask(StaticResolver(RECORDS, secure=[HOST])) is None
    insecure = StaticResolver(RECORDS, secure=[AT])
    assert ask(insecure) is None
    # RFC 7672 §2.1.3: not even asked for, as some servers fail on it.
    assert not [kind for _, kind in insecure.asked if kind == "TLSA"]


def test_who_keeps_it_back_does_not_get_his_way() -> None:
    resolver = StaticResolver(RECORDS, secure=[HOST, AT], troubles={AT: Trouble.BOGUS})
    with pytest.raises(ResolverUnavailable):
        ask(resolver)


def test_behind_an_alias() -> None:
    records = {
        ("alias.test", "CNAME"): [HOST],
        **RECORDS,
        ("_25._tcp.alias.test", "TLSA"): ["3 1 1 " + "cd" * 32],
    }
    everything = ["alias.test", HOST, AT, "_25._tcp.alias.test"]
    found = ask(StaticResolver(records, secure=everything), "alias.test")
    assert found is not None
    assert found.base == HOST
    del records[AT, "TLSA"]
    found = ask(StaticResolver(records, secure=everything), "alias.test")
    assert found is not None
    assert found.base == "alias.test"


@pytest.mark.parametrize(
    "text",
    [
        "0 1 1 " + "ab" * 32,
        "1 1 1 " + "ab" * 32,
        "4 1 1 " + "ab" * 32,
        "3 2 1 " + "ab" * 32,
        "3 1 3 " + "ab" * 32,
        "3 1 1 " + "ab" * 31,
        "3 1 2 " + "ab" * 32,
        "3 0 0 abab",
        "2 1 0 abab",
    ],
)
def test_what_is_of_no_use(text: str) -> None:
    records = {**RECORDS, (AT, "TLSA"): [text]}
    assert ask(StaticResolver(records, secure=[HOST, AT])) == Anchors(HOST, ())
    records[AT, "TLSA"].append(FINE)
    found = ask(StaticResolver(records, secure=[HOST, AT]))
    assert found is not None
    assert len(found.usable) == 1
