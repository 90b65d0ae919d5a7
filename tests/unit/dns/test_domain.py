"""What the name service says of a domain (check/domain.py): SPF, DMARC, MTA-STS, and verdicts."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Sequence
from ipaddress import ip_address

import pytest

from tests.support.static_resolver import StaticResolver
from waypost.check.domain import (
    Dmarc,
    Dnssec,
    DomainFacts,
    Spf,
    findings_of,
    host_findings,
    look_up,
)
from waypost.check.findings import weigh
from waypost.dns.blocklist import Listed, Listing
from waypost.dns.resolver import Trouble
from waypost.dns.reverse import Confirmation, ReverseNames
from waypost.net.special import special_block

IP = ip_address("8.8.8.8")


def look(resolver: StaticResolver, name: str = "a.test") -> DomainFacts:
    return asyncio.run(look_up(resolver, name))


def spf_of(*texts: str) -> Spf:
    facts = look(StaticResolver({("a.test", "TXT"): texts}))
    assert facts.spf is not None
    return facts.spf


def dmarc_of(records: dict[str, str | Sequence[str]], name: str = "a.test") -> Dmarc:
    tables = {
        (f"_dmarc.{at}", "TXT"): [texts] if isinstance(texts, str) else list(texts)
        for at, texts in records.items()
    }
    facts = look(StaticResolver(tables), name)
    assert facts.dmarc is not None
    return facts.dmarc


def codes_of(resolver: StaticResolver, name: str = "a.test") -> list[str]:
    """Codes of what was found, the deciding one first."""
    findings = findings_of(name, look(resolver, name), lambda ip: special_block(ip) is None)
    assert weigh(findings) is findings[0]
    return [finding.code for finding in findings]


@pytest.mark.parametrize(
    ("text", "every"),
    [
        ("v=spf1 -all", "-all"),
        ("V=SPF1 mx ~ALL", "~all"),
        ("v=spf1 all", "all"),
        ("v=spf1  mx   ?all ", "?all"),
        ("v=spf1", None),
        ("v=spf1 ", None),
        ("v=spf1 redirect=_spf.b.test", None),
        ("v=spf1 -all ~all", "-all"),  # RFC 7208 §5.1: what follows it is never tested
        ("v=spf1 a a:b.test a/24 a//64 a:b.test/24//64 mx mx:b.test ptr ptr:b.test -all", "-all"),
        ("v=spf1 ip4:192.0.2.0/24 ip4:192.0.2.1 ip6:2001:db8::/32 ip6:::1 +all", "+all"),
        ("v=spf1 exists:%{ir}.%{l1r+-}._spf.%{d} include:_spf.b.test exp=e.b.test x-y=1", None),
    ],
)
def test_spf_records(text: str, every: str | None) -> None:
    assert spf_of("other", text) == Spf(True, every, is_valid=True)


@pytest.mark.parametrize(
    "texts",
    [
        ("v=spf1 -all", "v=spf1 ~all"),
        ("v=spf1 ip4: -all",),
        ("v=spf1 all:b.test",),
        ("v=spf1 include: -all",),
        ("v=spf1 -al",),
        ("v=spf1 \\xff -all",),
        ("v=spf1 a/abc",),
    ],
)
def test_spf_records_of_wrong_form(texts: tuple[str, ...]) -> None:
    found = spf_of(*texts)
    assert (found.is_present, found.is_valid) == (True, False)


@pytest.mark.parametrize("text", ["v=spf10 -all", " v=spf1 -all", "v=spf1;-all", "spf2.0/pra -all"])
def test_texts_that_are_no_spf(text: str) -> None:
    assert spf_of(text) == Spf(is_present=False)


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("v=DMARC1; p=reject", "reject"),
        ("v=DMARC1;p=none;", "none"),
        ("v = DMARC1 ; p = Quarantine ; rua=mailto:x@a.test", "quarantine"),
        ("v=DMARC1; rua=mailto:x@a.test", None),
        ("v=DMARC1", None),
        ("v=DMARC1; p=\x1b[31mreject", None),
        ("v=DMARC1; sp=reject", None),  # for those below only
        ("v=DMARC1; pct=50; p=reject; sp=none", "reject"),
    ],
)
def test_dmarc_records(text: str, policy: str | None) -> None:
    assert dmarc_of({"a.test": text}) == Dmarc(True, policy, "_dmarc.a.test")


@pytest.mark.parametrize(
    "texts", ["v=DMARC2; p=none", "v=dmarc1; p=none", "p=none; v=DMARC1", "v=DMARC1x", ""]
)
def test_texts_that_are_no_dmarc(texts: str) -> None:
    assert dmarc_of({"a.test": texts}) == Dmarc(is_present=False)


def test_several_dmarc_records_are_none() -> None:
    twice = ["v=DMARC1; p=none", "v=DMARC1; p=reject"]
    assert dmarc_of({"a.test": twice}) == Dmarc(is_present=False)
    assert dmarc_of({"a.test": [twice[0], "other"]}).policy == "none"
    found = dmarc_of({"x.a.test": twice, "a.test": "v=DMARC1; p=reject"}, "x.a.test")
    assert found == Dmarc(True, "reject", "_dmarc.a.test")


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("test", ["test"]),
        ("a.test", ["a.test", "test"]),
        ("d.c.b.a.test", ["d.c.b.a.test", "c.b.a.test", "b.a.test", "a.test", "test"]),
        (
            "1.2.3.4.5.6.7.test",
            [
                *("1.2.3.4.5.6.7.test", "2.3.4.5.6.7.test", "3.4.5.6.7.test", "4.5.6.7.test"),
                *("5.6.7.test", "6.7.test", "7.test", "test"),
            ],
        ),
        (
            "1.2.3.4.5.6.7.8.9.10.11.test",
            [
                *("1.2.3.4.5.6.7.8.9.10.11.test", "6.7.8.9.10.11.test", "7.8.9.10.11.test"),
                *("8.9.10.11.test", "9.10.11.test", "10.11.test", "11.test", "test"),
            ],
        ),
    ],
)
def test_the_walk_up_the_tree(name: str, asked: list[str]) -> None:
    """RFC 9989 §4.10: eight questions at most, from names of any length."""
    resolver = StaticResolver()
    assert look(resolver, name).dmarc == Dmarc(is_present=False)
    walked = [at.removeprefix("_dmarc.") for at, _ in resolver.asked if at.startswith("_dmarc.")]
    assert walked == asked
    assert len(walked) <= 8


def test_the_walk_ends_where_the_domain_has_its_own() -> None:
    resolver = StaticResolver({("_dmarc.x.a.test", "TXT"): ["v=DMARC1; p=none"]})
    look(resolver, "x.a.test")
    assert resolver.asked["_dmarc.a.test", "TXT"] == 0


@pytest.mark.parametrize(
    ("records", "at", "policy"),
    [
        ({"a.test": "v=DMARC1; p=reject"}, "a.test", "reject"),
        ({"a.test": "v=DMARC1; p=reject; sp=quarantine"}, "a.test", "quarantine"),
        ({"a.test": "v=DMARC1; sp=none; p=reject; np=reject"}, "a.test", "none"),
        # The organization is the highest with a record, unless one says otherwise.
        (
            {"mail.a.test": "v=DMARC1; p=none", "a.test": "v=DMARC1; p=reject"},
            *("a.test", "reject"),
        ),
        (
            {"mail.a.test": "v=DMARC1; p=none; psd=n", "a.test": "v=DMARC1; p=reject"},
            *("mail.a.test", "none"),
        ),
        # A registry's record gives way to one right below it, and to no other.
        (
            {"a.test": "v=DMARC1; p=none", "test": "v=DMARC1; p=reject; psd=y"},
            *("a.test", "none"),
        ),
        ({"test": "v=DMARC1; p=reject; psd=y; sp=quarantine"}, "test", "quarantine"),
        (
            {"mail.a.test": "v=DMARC1; p=none", "test": "v=DMARC1; p=reject; psd=y"},
            *("test", "reject"),
        ),
        ({"a.test": "v=DMARC1; p=none; psd=u"}, "a.test", "none"),
    ],
)
def test_policies_of_parents(records: dict[str, str | Sequence[str]], at: str, policy: str) -> None:
    assert dmarc_of(records, "x.mail.a.test") == Dmarc(True, policy, f"_dmarc.{at}")


def test_trouble_on_the_walk() -> None:
    """Above a record it makes no difference worth not knowing; below one it does."""
    records = {("_dmarc.a.test", "TXT"): ["v=DMARC1; p=none"]}
    resolver = StaticResolver(records, troubles={"_dmarc.test": Trouble.REFUSED})
    assert look(resolver, "x.mail.a.test").dmarc == Dmarc(True, "none", "_dmarc.a.test")
    resolver = StaticResolver(records, troubles={"_dmarc.mail.a.test": Trouble.REFUSED})
    assert look(resolver, "x.mail.a.test").dmarc is None


def test_who_gives_up_early_leaves_nothing_behind(recwarn: pytest.WarningsRecorder) -> None:
    async def run() -> None:
        looking = asyncio.create_task(look_up(StaticResolver(), "a.test"))
        await asyncio.sleep(0)  # its questions are there, and none has begun
        looking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await looking

    asyncio.run(run())
    gc.collect()
    assert not recwarn.list


def test_a_walk_from_the_longest_name() -> None:
    """With _dmarc before it the name is too long to be; its parents are asked all the same."""
    name = ".".join(["x" * 61] * 4) + ".test"
    facts = look(StaticResolver({("_dmarc.test", "TXT"): ["v=DMARC1; p=none"]}), name)
    assert facts.dmarc == Dmarc(True, "none", "_dmarc.test")


@pytest.mark.parametrize(
    ("texts", "has_policy"),
    [
        (["v=STSv1; id=1"], True),
        (["v=STSv1; id=1", "other"], True),
        (["v=STSv1; id=1", "v=STSv1; id=2"], False),
        (["v=STSv2; id=1"], False),
        ([], False),
    ],
)
def test_mta_sts(texts: list[str], has_policy: bool) -> None:
    facts = look(StaticResolver({("_mta-sts.a.test", "TXT"): texts}))
    assert facts.has_mta_sts is has_policy


def test_all_is_looked_up() -> None:
    resolver = StaticResolver(
        {
            ("a.test", "MX"): ["10 mx.a.test", "20 mx2.a.test"],
            ("mx.a.test", "A"): ["8.8.8.8"],
            ("mx.a.test", "AAAA"): ["2606:4700::1"],
            ("mx2.a.test", "A"): ["8.8.8.8"],
        }
    )
    facts = look(resolver)
    assert facts.places == [
        ("mx.a.test", ip_address("2606:4700::1")),
        ("mx.a.test", ip_address("8.8.8.8")),
        ("mx2.a.test", ip_address("8.8.8.8")),
    ]
    assert max(resolver.asked.values()) == 1


@pytest.mark.parametrize(
    ("resolver", "dnssec"),
    [
        (StaticResolver(names=["a.test"], secure=["a.test"], validates=True), Dnssec.SECURE),
        (StaticResolver(names=["a.test"], validates=True), Dnssec.INSECURE),
        (StaticResolver(names=["a.test"]), Dnssec.UNKNOWN),
        (StaticResolver(troubles={"a.test": Trouble.BOGUS}, validates=True), Dnssec.BOGUS),
        (StaticResolver(troubles={"a.test": Trouble.TIMEOUT}, validates=True), Dnssec.UNKNOWN),
    ],
)
def test_signatures(resolver: StaticResolver, dnssec: Dnssec) -> None:
    assert look(resolver).dnssec is dnssec


def test_what_cannot_be_had_is_not_known() -> None:
    texts: list[str | tuple[str, str]] = [("a.test", "TXT"), "_dmarc.test", "_mta-sts.a.test"]
    resolver = StaticResolver(
        {("a.test", "A"): ["8.8.8.8"]}, troubles=dict.fromkeys(texts, Trouble.SERVFAIL)
    )
    facts = look(resolver)
    assert (facts.spf, facts.dmarc, facts.has_mta_sts) == (None, None, None)
    assert facts.exchanges is not None
    assert codes_of(resolver) == ["dns.ok"]


@pytest.mark.parametrize(
    ("records", "codes"),
    [
        ({("mx.a.test", "A"): ["8.8.8.8"]}, ["dns.ok"]),
        ({("mx.a.test", "A"): ["10.0.0.1", "8.8.8.8"]}, ["dns.ok"]),
        ({("mx.a.test", "A"): ["10.0.0.1"], ("mx2.a.test", "A"): ["8.8.8.8"]}, ["dns.ok"]),
        (
            {("mx.a.test", "A"): ["10.0.0.1"], ("mx2.a.test", "A"): ["127.0.0.1"]},
            ["dns.mx_nonglobal"],
        ),
        ({("mx.a.test", "AAAA"): ["fe80::1"]}, ["dns.mx_nonglobal"]),
        (
            {("mx.a.test", "CNAME"): ["b.test"], ("b.test", "A"): ["8.8.8.8"]},
            ["dns.ok", "dns.mx_is_cname"],
        ),
        ({}, ["dns.no_address"]),
        ({("a.test", "MX"): ["0 ."]}, ["dns.null_mx"]),
        ({("a.test", "MX"): ["0 8.8.8.8."]}, ["dns.mx_is_ip"]),
        ({("a.test", "MX"): ["0 8.8.8.8.", "10 none.a.test"]}, ["dns.mx_is_ip"]),
        (
            {("a.test", "MX"): ["0 8.8.8.8.", "10 mx.a.test"], ("mx.a.test", "A"): ["8.8.8.8"]},
            ["dns.ok"],
        ),
    ],
)
def test_where_mail_goes(records: dict[tuple[str, str], list[str]], codes: list[str]) -> None:
    resolver = StaticResolver(
        {
            ("a.test", "MX"): ["10 mx.a.test", "20 mx2.a.test"],
            ("a.test", "TXT"): ["v=spf1 -all"],
            ("_dmarc.a.test", "TXT"): ["v=DMARC1; p=none"],
            **records,
        }
    )
    assert codes_of(resolver) == codes


def test_what_a_domain_does_not_say() -> None:
    resolver = StaticResolver({("a.test", "A"): ["8.8.8.8"]})
    assert codes_of(resolver) == ["dns.ok", "no_spf", "no_dmarc"]
    assert codes_of(StaticResolver()) == ["dns.nxdomain"]


@pytest.mark.parametrize(
    ("trouble", "code"),
    [
        (Trouble.TIMEOUT, "dns.timeout"),
        (Trouble.SERVFAIL, "dns.servfail"),
        (Trouble.REFUSED, "dns.servfail"),
        (Trouble.BOGUS, "dns.bogus"),
        (Trouble.NO_SERVERS, "dns.no_servers"),
    ],
)
def test_troubles(trouble: Trouble, code: str) -> None:
    assert codes_of(StaticResolver(troubles={"a.test": trouble})) == [code]
    behind = StaticResolver(
        {("a.test", "MX"): ["10 mx.a.test"], ("a.test", "TXT"): ["v=spf1 -all"]},
        troubles={"mx.a.test": trouble},
    )
    assert codes_of(behind) == [code, "no_dmarc"]


@pytest.mark.parametrize(
    ("ip", "code"), [("8.8.8.8", "dns.ok"), ("10.0.0.1", "dns.timeout"), (None, "dns.timeout")]
)
def test_trouble_with_one_host_counts_where_no_other_can_be_reached(
    ip: str | None, code: str
) -> None:
    """What is not known may well be within reach: it is no reason to give up a domain."""
    resolver = StaticResolver(
        {
            ("a.test", "MX"): ["10 ill.a.test", "20 mx.a.test"],
            ("mx.a.test", "A"): [] if ip is None else [ip],
        },
        names=["mx.a.test"],
        troubles={"ill.a.test": Trouble.TIMEOUT},
    )
    assert codes_of(resolver)[0] == code


def listing(listed: Listed, zone: str = "bl.test") -> Listing:
    return Listing(zone, IP, listed, "127.0.0.2", "spam")


@pytest.mark.parametrize(
    ("confirmation", "codes"),
    [
        (Confirmation.PASS, []),
        (Confirmation.UNKNOWN, []),
        (Confirmation.NONE, ["no_ptr"]),
        (Confirmation.FAIL, ["fcrdns_mismatch"]),
    ],
)
def test_names_of_hosts(confirmation: Confirmation, codes: list[str]) -> None:
    found = host_findings(IP, ReverseNames(("mx.a.test",), (), confirmation), [])
    assert [finding.code for finding in found] == codes


def test_only_listings_count() -> None:
    names = ReverseNames(("mx.a.test",), ("mx.a.test",), Confirmation.PASS)
    [found] = host_findings(IP, names, [listing(listed, listed.value) for listed in Listed])
    assert (found.code, found.text) == ("listed_dnsbl", "8.8.8.8 is on yes (127.0.0.2) spam")
