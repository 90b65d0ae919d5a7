"""What a reply means for a recipient, and which return paths reports may go to."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from waypost.mail.address import Address
from waypost.mail.envelope import (
    REPORT,
    Arrival,
    Hop,
    Notify,
    Outcome,
    OutcomeKind,
    sender_is_proven,
)
from waypost.mail.reply import Reply


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (250, OutcomeKind.RELAYED),
        (251, OutcomeKind.RELAYED),
        (421, OutcomeKind.DEFERRED),
        (450, OutcomeKind.DEFERRED),
        (500, OutcomeKind.FAILED),
        (554, OutcomeKind.FAILED),
    ],
)
def test_temporary_and_permanent_come_from_the_reply_code(code: int, kind: OutcomeKind) -> None:
    """RFC 5321 §4.2.1."""
    assert Outcome.of(Reply(code, "x"), success=OutcomeKind.RELAYED).kind is kind


OWN = frozenset({ip_address("192.168.1.5"), ip_address("127.0.0.1")})


@pytest.mark.parametrize(
    ("reverse_path", "client", "proven"),
    [
        ("ann@[192.168.1.7]", "192.168.1.7", True),
        ("ann@[IPv6:::ffff:192.168.1.7]", "192.168.1.7", True),
        ("ann@[IPv6:FD00:0::7]", "fd00::7", True),
        ("ann@[192.168.1.8]", "192.168.1.7", False),
        ("ann@[127.0.0.1]", "192.168.1.7", False),
        ("ann@[192.168.1.5]", "192.168.1.7", False),
        ("ann@[192.168.1.5]", "127.0.0.1", True),  # this host speaks for all its addresses
        ("ann@[192.168.1.9]", "127.0.0.1", False),
        ("ann@[192.168.1.7]", None, False),
        ("ann@plant.example", "192.168.1.7", True),
        ("ann@[tag:x]", "192.168.1.7", True),
        (None, "192.168.1.7", False),  # a DSN never answers <> (RFC 5321 §4.5.5)
    ],
)
def test_a_literal_return_path_is_believed_of_its_own_host_only(
    reverse_path: str | None, client: str | None, proven: bool
) -> None:
    path = None if reverse_path is None else Address.parse(reverse_path)
    ip = None if client is None else ip_address(client)
    assert sender_is_proven(path, ip, OWN) is proven


def test_arrival_of_a_report() -> None:
    assert Arrival("local", None, None, "", REPORT, trusted=True).is_report
    assert not Arrival("SMTP", None, None, "", "smtp", trusted=True).is_report


def test_hop_in_words() -> None:
    assert str(Hop("[192.0.2.1]", ip_address("192.0.2.1"), 25)) == "[192.0.2.1]:25"
    assert str(Hop("/run/lmtp", None, 0)) == "/run/lmtp"


def test_never_is_no_notice_at_all() -> None:
    """RFC 3461 §4.1."""
    assert not Notify.NEVER & (Notify.SUCCESS | Notify.FAILURE | Notify.DELAY)
