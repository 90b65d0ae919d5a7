"""Which level holds for which place: rules in order, then trusted authorities, then the default."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import pytest

from waypost.config.readers import read_tls_policy
from waypost.mail.address import AddressLiteral, Domain
from waypost.tls.policy import Level, Rule, Scope, TlsPolicy, TrustedAuthority, is_like

SITE = Path("/site.pem")
OTHER = Path("/other.pem")


def place(text: str) -> AddressLiteral | Domain:
    try:
        return AddressLiteral(ip_address(text))
    except ValueError:
        return Domain.parse(text)


POLICY = TlsPolicy(
    [
        Rule(Scope(["10.1.1.0/24"]), Level.PIN),
        Rule(Scope(["10.1.0.0/16", "*.plant.example"]), Level.VERIFY),
        Rule(Scope(["10.2.0.0/16"]), Level.VERIFY, OTHER),
        Rule(Scope(["private", "clear.example"]), Level.NONE),
        Rule(Scope(["bank.example"]), Level.VERIFY, None, ("*.host.example",)),
    ],
    [
        TrustedAuthority(Scope(["10.0.0.0/8", "2001:db8::/32", "plant.example"]), SITE),
        TrustedAuthority(Scope(["2001:db8:1::/48"]), OTHER),
    ],
)


@pytest.mark.parametrize(
    ("host", "level", "because", "ca"),
    [
        ("10.1.1.5", Level.PIN, "tls.policy[1]", (SITE,)),
        ("10.1.2.5", Level.VERIFY, "tls.policy[2]", (SITE,)),
        ("10.2.0.1", Level.VERIFY, "tls.policy[3]", (OTHER,)),
        ("10.3.0.1", Level.NONE, "tls.policy[4]", (SITE,)),
        ("fd00::1", Level.NONE, "tls.policy[4]", ()),
        ("2001:db8::1", Level.VERIFY, "tls trust", (SITE,)),
        ("2001:db8:1::1", Level.VERIFY, "tls trust", (SITE, OTHER)),
        ("198.51.100.1", Level.OPPORTUNISTIC, "default", ()),
        ("mx.plant.example", Level.VERIFY, "tls.policy[2]", ()),
        ("PLANT.example", Level.VERIFY, "tls trust", (SITE,)),
        ("notplant.example", Level.OPPORTUNISTIC, "default", ()),
        ("clear.example", Level.NONE, "tls.policy[4]", ()),
        ("a.clear.example", Level.OPPORTUNISTIC, "default", ()),
    ],
)
def test_the_first_that_matches(
    host: str, level: Level, because: str, ca: tuple[Path, ...]
) -> None:
    choice = POLICY.choice(place(host))
    assert (choice.level, choice.because, choice.ca) == (level, because, ca)
    assert choice.may_rise == (because == "default" and host != "198.51.100.1")


def test_an_address_is_no_name() -> None:
    """Neither do networks match names, nor "*" literals."""
    everything = TlsPolicy([Rule(Scope(["*"]), Level.NONE), Rule(Scope(["any"]), Level.PIN)])
    assert everything.choice(place("10.0.0.1")).level is Level.PIN
    assert everything.choice(place("::1")).level is Level.PIN
    assert everything.choice(place("a.example")).level is Level.NONE


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("a.example", "a.example", True),
        ("a.example", "b.a.example", False),
        ("*.a.example", "a.example", False),
        ("*.a.example", "b.a.example", True),
        ("*.a.example", "c.b.a.example", True),
        ("*.a.example", "ba.example", False),
        ("*", "a.example", True),
    ],
)
def test_patterns(pattern: str, name: str, expected: bool) -> None:
    assert is_like(pattern, name) is expected


@pytest.mark.parametrize("word", ["10.0.0.1/8", "10.0.0.0/33", "a b", "10.0.0.300", "*.", "a..b"])
def test_words_that_are_no_scope(word: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Scope([word])


def test_the_configuration_reads_rules() -> None:
    rules = read_tls_policy(
        [
            {"match": ["10.0.0.0/8", "Bücher.example"], "level": "verify", "ca": "/ca.pem"},
            {"match": ["*"], "level": "pin", "hosts": ["*.Host.example"]},
        ]
    )
    assert rules[0].ca == Path("/ca.pem")
    assert rules[0].scope.domains == ("xn--bcher-kva.example",)
    assert (rules[1].level, rules[1].hosts) == (Level.PIN, ("*.host.example",))


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("x", "a list of tables"),
        ([{"level": "pin"}], "match missing"),
        ([{}], "level and match missing"),
        ([{"match": [], "level": "pin"}], "with an entry"),
        ([{"match": ["*"], "level": "strict"}], "expected one of"),
        ([{"match": ["*"], "level": "pin", "cas": 1}], "unknown: cas"),
        ([{"match": ["*"], "level": "encrypt", "ca": "/x"}], "ca is for"),
        ([{"match": ["*"], "level": "encrypt", "hosts": ["x"]}], "hosts is for"),
        ([{"match": ["*"], "level": "pin"}, {"match": ["1/2"], "level": "pin"}], "policy]] 2: "),
    ],
)
def test_the_configuration_refuses(value: object, problem: str) -> None:
    with pytest.raises(ValueError, match=problem.replace("]", r"\]")):
        read_tls_policy(value)
