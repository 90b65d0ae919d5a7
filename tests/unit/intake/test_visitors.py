"""Strangers counted: by address or /64, in bounded memory, and with few log lines."""

from __future__ import annotations

import os
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest

from waypost.intake import visitors as module
from waypost.intake.acceptance import Limits
from waypost.intake.visitors import MINUTE_S, Visitors
from waypost.mail import reply as replies
from waypost.net.networks import client_key
from waypost.observe import Log

LIMITS = Limits(
    connections_per_client=3,
    connections_per_minute=5,
    messages_per_minute=2,
    recipients_per_minute=4,
)
ANN = ip_address("203.0.113.7")
BOB = ip_address("203.0.113.8")


class Counted(Visitors):
    """With a clock of our own and a log to read."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self._reading, writing = os.pipe2(os.O_NONBLOCK)
        self._written = Log(writing)
        super().__init__(LIMITS, self._written, lambda: self.now)

    def log_lines(self) -> list[str]:
        """All that was logged; ends the log."""
        self._written.close()
        return os.read(self._reading, 1_000_000).decode().splitlines()


@pytest.fixture
def visitors() -> Counted:
    return Counted()


def test_an_ipv6_customer_is_one_client() -> None:
    first = client_key(ip_address("2001:db8:0:1::1"))
    assert first == "2001:db8:0:1::/64"
    assert client_key(ip_address("2001:db8:0:1:ffff:ffff:ffff:ffff")) == first
    assert client_key(ip_address("2001:db8:0:2::1")) != first
    assert client_key(ANN) == "203.0.113.7"


def test_connections_at_once(visitors: Counted) -> None:
    assert [visitors.arrive(ANN) for _ in range(4)] == [
        *[None] * 3,
        replies.TOO_MANY_CONNECTIONS,
    ]
    assert visitors.arrive(BOB) is None
    visitors.leave(ANN)
    assert visitors.arrive(ANN) is None


def test_connections_in_a_minute(visitors: Counted) -> None:
    for _ in range(5):
        assert visitors.arrive(ANN) is None
        visitors.leave(ANN)
    assert visitors.arrive(ANN) is replies.TOO_MANY_CONNECTIONS_A_MINUTE
    assert visitors.arrive(BOB) is None
    visitors.now += MINUTE_S
    assert visitors.arrive(ANN) is None


def test_messages_and_recipients_in_a_minute(visitors: Counted) -> None:
    assert [visitors.mail(ANN) for _ in range(3)][1:] == [None, replies.TOO_MANY_MESSAGES_A_MINUTE]
    answers = [visitors.rcpt(ANN) for _ in range(5)]
    assert answers[3:] == [None, replies.TOO_MANY_RECIPIENTS_A_MINUTE]
    assert visitors.mail(BOB) is None
    visitors.now += MINUTE_S
    assert visitors.mail(ANN) is None
    assert visitors.rcpt(ANN) is None


def test_all_of_a_64_shares_its_counts(visitors: Counted) -> None:
    network = int(ip_address("2001:db8::"))
    answers = [visitors.arrive(IPv6Address(network + host)) for host in range(4)]
    assert answers[2:] == [None, replies.TOO_MANY_CONNECTIONS]


def test_a_million_addresses_take_no_more_memory_than_some(
    visitors: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_CLIENTS", 1_000)
    for _ in range(5):
        assert visitors.arrive(ANN) is None
        visitors.leave(ANN)
    for number in range(20_000):
        ip = IPv4Address(0x0A000000 + number)
        assert visitors.arrive(ip) is None
        visitors.leave(ip)
    assert len(visitors._minutes) == 1_000
    assert visitors._open == {}
    # Who was seen first keeps its counts through the flood.
    assert visitors.arrive(ANN) is replies.TOO_MANY_CONNECTIONS_A_MINUTE


def test_refusals_make_a_line_and_a_sum(visitors: Counted) -> None:
    for _ in range(1_000):
        visitors.turned_away(ANN, "smtp", replies.TOO_MANY_CONNECTIONS)
    visitors.turned_away(BOB, "smtp", replies.TOO_MANY_CONNECTIONS)
    visitors.now += MINUTE_S
    visitors.look()
    first, second, third = visitors.log_lines()
    assert "turned-away client=203.0.113.7" in first
    assert "421 4.7.0" in first
    assert "times" not in first
    assert "client=203.0.113.8" in second
    assert "client=203.0.113.7" in third
    assert third.endswith("times=999")


def test_refusals_of_many_are_summed_up(visitors: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_LINES", 10)
    for number in range(5_000):
        visitors.turned_away(IPv4Address(0x0A000000 + number), "smtp", replies.TOO_BUSY)
    assert len(visitors._turned_away) == 10
    visitors.now += MINUTE_S
    visitors.look()
    lines = visitors.log_lines()
    assert len(lines) == 11
    assert lines[-1].endswith("turned-away client=others times=4990")
