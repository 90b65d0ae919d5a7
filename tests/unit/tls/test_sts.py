"""MTA-STS without I/O: records, policies, and which hosts a policy allows (RFC 8461)."""

from __future__ import annotations

import pytest

from waypost.tls.sts import MAX_AGE_S, Mode, StsPolicy, parse_policy, policy_id


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["v=STSv1; id=20160831085700Z;"], "20160831085700Z"),
        (["v=STSv1;id=1"], "1"),
        (["v=STSv1 ; ext=x; id = a1 ; id=2"], "a1"),
        (["something else", "v=STSv1; id=7"], "7"),
        ([], None),
        (["v=STSv1"], None),
        (["v=STSv1; id="], None),
        (["v=STSv1; id=a-b"], None),
        (["v=STSv1; id=" + "1" * 33], None),
        (["v=STSv2; id=1"], None),
        (["v=STSv10; id=1"], None),
        (["v=STSv1; id=1", "v=STSv1; id=2"], None),
    ],
)
def test_records(texts: list[str], expected: str | None) -> None:
    assert policy_id(texts) == expected


GOOD = b"version: STSv1\r\nmode: enforce\r\nmx: mail.example\r\nmx: *.example.net\r\nmax_age: 9\r\n"


def test_a_policy() -> None:
    expected = StsPolicy(Mode.ENFORCE, 9, ("mail.example", "*.example.net"))
    assert parse_policy(GOOD) == expected
    assert parse_policy(GOOD.replace(b"\r\n", b"\n")) == expected
    assert parse_policy(GOOD + b"later: words\n\nmode: none\n") == expected
    assert parse_policy(b"version:STSv1\nmode:none\nmax_age:1") == StsPolicy(Mode.NONE, 1, ())
    long = parse_policy(GOOD.replace(b"max_age: 9", b"max_age: 9999999999"))
    assert long.max_age_s == MAX_AGE_S
    unicode = "mx: *.Bücher.Example.\n".encode() + GOOD
    assert parse_policy(unicode).mx[0] == "*.xn--bcher-kva.example"


@pytest.mark.parametrize(
    ("octets", "problem"),
    [
        (b"", "version"),
        (GOOD.replace(b"STSv1", b"STSv2"), "version"),
        (GOOD.replace(b"enforce", b"Enforce!"), "mode"),
        (GOOD.replace(b"max_age: 9", b"max_age: -9"), "max_age"),
        (GOOD.replace(b"max_age: 9", b"max_age: 1e9"), "max_age"),
        (GOOD.replace(b"max_age", b"maxage"), "max_age"),
        (b"version: STSv1\nmode: testing\nmax_age: 1", "no mx"),
        (GOOD.replace(b"mail.example", b"mail..example"), "is no name"),
        (GOOD.replace(b"mail.example", b"*"), "is no name"),
        (GOOD + b"<html>", "no field"),
        (b"\xff" * 100, "no field"),
    ],
)
def test_what_is_no_policy(octets: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_policy(octets)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("mail.example", True),
        ("a.example.net", True),
        ("a.b.example.net", False),
        ("example.net", False),
        ("other.example", False),
        ("xexample.net", False),
        ("localhost", False),
        ("", False),
    ],
)
def test_hosts(host: str, expected: bool) -> None:
    assert parse_policy(GOOD).allows(host) is expected
