"""Verdicts at depth "syntax": what an address says by itself."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waypost.check.checker import SANDBOX, assess
from waypost.check.findings import Finding, weigh
from waypost.check.reasons import REASONS
from waypost.check.verdict import Advice, Outcome, Verdict
from waypost.net.networks import Networks

NOBODY = Networks([])
HOME = Networks(["private"])


@pytest.mark.parametrize(
    ("text", "verdict", "primary", "suggestion"),
    [
        ("ann@waypost.dev", "unknown", "syntax.ok", None),
        ("ann@[8.8.8.8]", "unknown", "syntax.ok", None),
        ("ann@[IPv6:2606:4700::1]", "unknown", "syntax.ok", None),
        ("Ann <ann@waypost.dev>", "unknown", "syntax.ok", None),
        ("ann@[10.0.0.5]", "undeliverable", "ip.private", None),
        ("ann@[IPv6:fd00::5]", "undeliverable", "ip.private", None),
        ("ann@[127.0.0.1]", "undeliverable", "ip.loopback", None),
        ("ann@[IPv6:::1]", "undeliverable", "ip.loopback", None),
        ("ann@[169.254.1.1]", "undeliverable", "ip.link_local", None),
        ("ann@[IPv6:fe80::1]", "undeliverable", "ip.link_local", None),
        ("ann@[224.0.0.1]", "undeliverable", "ip.multicast", None),
        ("ann@[192.0.2.1]", "undeliverable", "ip.documentation", None),
        ("ann@[IPv6:2001:db8::1]", "undeliverable", "ip.documentation", None),
        ("ann@[100.64.0.1]", "undeliverable", "ip.cgnat", None),
        ("ann@[0.0.0.0]", "undeliverable", "ip.unspecified", None),
        ("ann@[IPv6:::]", "undeliverable", "ip.unspecified", None),
        ("ann@[240.0.0.1]", "undeliverable", "ip.reserved", None),
        ("ann@[IPv6:64:ff9b::10.0.0.5]", "undeliverable", "ip.private", None),
        ("ann@[IPv6:::ffff:10.0.0.5]", "undeliverable", "ip.private", None),
        ("ann@[tag:text]", "undeliverable", "literal.unknown_tag", None),
        ("ann@10.0.0.5", "malformed", "literal.bare_ip_domain", "ann@[10.0.0.5]"),
        ("ann@2001:db8::1", "malformed", "syntax.bad_char", "ann@[IPv6:2001:db8::1]"),
        ("ann@[2001:db8::1]", "malformed", "literal.untagged_ipv6", "ann@[IPv6:2001:db8::1]"),
        ("a..b@x.example", "malformed", "syntax.dot_double", '"a..b"@x.example'),
        ("ann", "malformed", "syntax.no_at", None),
        ("", "malformed", "syntax.local_empty", None),
        ("ann@a_b.example", "malformed", "syntax.bad_char", None),
    ],
)
def test_verdicts(text: str, verdict: str, primary: str, suggestion: str | None) -> None:
    found = assess(text, NOBODY)
    assert (found.verdict, found.primary.code, found.suggestion) == (verdict, primary, suggestion)


def test_an_address_of_a_trusted_network_is_within_reach() -> None:
    assert assess("cam@[10.0.0.5]", HOME).primary.code == "ip.trusted"
    assert assess("cam@[127.0.0.1]", HOME).primary.code == "ip.loopback"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("postmaster@x.dev", "role"),
        ("No-Reply@x.dev", "role"),
        ("info+list@x.dev", "role"),
        ("ann@0-mail.com", "disposable"),
        ("ann@mx.0-mail.com", "disposable"),
        ("ann+x@x.dev", "subaddressed"),
        ('"a b"@x.dev', "quoted_local"),
        ("añn@x.dev", "non_ascii_local"),
        ("ann@printer.local", "special_use_domain"),
        ("ann@x.example.com", "special_use_domain"),
        ("ann@nas.home.arpa", "special_use_domain"),
        ("root@localhost", "dotless"),
        ('"a".b@x.dev', "obsolete_form"),
    ],
)
def test_flags(text: str, code: str) -> None:
    found = assess(text, NOBODY)
    assert code in [finding.code for finding in found.findings]
    assert found.verdict is Verdict.UNKNOWN


@pytest.mark.parametrize("text", ["ann@x.dev", "annexample@x.dev", "+x@x.dev"])
def test_no_flags(text: str) -> None:
    assert [finding.code for finding in assess(text, NOBODY).findings] == ["syntax.ok"]


def test_sandbox_addresses_force_every_verdict() -> None:
    for code, reason in REASONS.items():
        local_part = code.replace(".", "-").replace("_", "-")
        found = assess(f"{local_part}@{SANDBOX}", NOBODY)
        if reason.verdict is not None:
            assert found.primary.code == code
            assert found.verdict is reason.verdict


def test_the_worst_decides() -> None:
    findings = [Finding("role", ""), Finding("syntax.ok", ""), Finding("ip.private", "")]
    assert weigh(findings).code == "ip.private"
    with pytest.raises(ValueError, match="nothing"):
        weigh([Finding("role", "")])


@given(st.text(max_size=60) | st.text('@.<>()[]",:;\\ a1:%/é', max_size=40))
def test_every_text_gets_a_verdict(text: str) -> None:
    found = assess(text, NOBODY)
    document = json.loads(json.dumps(found.as_json()))
    assert document["verdict"] in set(Verdict)
    assert document["outcome"] in set(Outcome)
    assert document["advice"] in set(Advice)
    assert document["primary"] in [reason["code"] for reason in document["reasons"]]
    assert (document["verdict"] == "malformed") >= (document["address"] is None)
