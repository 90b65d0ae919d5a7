"""The dialogue of a device's last session: what is kept of it, and what never."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import pytest

from waypost.devices.registry import Registry
from waypost.devices.visits import NOTE, SERVER, Visit, Visits

CAMERA = ip_address("192.0.2.7")


def visit(tmp_path: Path) -> Visit:
    begun = Visits(Registry(tmp_path / "devices.db")).begin(CAMERA)
    assert begun is not None
    return begun


def said(begun: Visit) -> list[bytes]:
    return [line.text for line in begun.lines]


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        (b"EHLO cam", b"EHLO cam"),
        (b"mail from:<a@b> SIZE=3", b"mail from:<a@b> SIZE=3"),
        (b"AUTH LOGIN", b"AUTH LOGIN"),
        (b"AUTH PLAIN AGNhbQBzZWNyZXQ=", b"AUTH PLAIN ***"),
        (b"auth plain AGNhbQBzZWNyZXQ=", b"auth plain ***"),
        (b"  AUTH\tPLAIN\tAGNhbQBzZWNyZXQ=", b"  AUTH\tPLAIN ***"),
        (b"AUTH AGNhbQBzZWNyZXQ=", b"*** (21 octets)"),
        (b"AUTH=LOGIN AGNhbQBzZWNyZXQ=", b"*** (27 octets)"),
        (b"AUTH PLAINAGNhbQBzZWNyZXQ=", b"*** (26 octets)"),
        (b"PASS secret", b"PASS *** (11 octets)"),
        (b"c2VjcmV0", b"*** (8 octets)"),
        (b"secret", b"*** (6 octets)"),
        (b"secret\n", b"*** (7 octets)"),
        (b"MAILsecret", b"*** (10 octets)"),
        (b"", b"*** (0 octets)"),
    ],
)
def test_what_may_be_a_secret_is_masked(tmp_path: Path, line: bytes, kept: bytes) -> None:
    begun = visit(tmp_path)
    begun.heard(line, is_response=False)
    assert said(begun) == [kept]


def test_answers_to_challenges_are_masked_and_what_follows_a_refused_login_too(
    tmp_path: Path,
) -> None:
    begun = visit(tmp_path)
    begun.heard(b"AUTH LOGIN", is_response=False)
    begun.said(b"334 VXNlcm5hbWU6\r\n")
    begun.heard(b"Y2Ft", is_response=True)
    begun.said(b"334 UGFzc3dvcmQ6\r\n")
    begun.heard(b"EHLO secret", is_response=True)  # looks like a command, and is none
    begun.said(b"334 cj1ub25jZSxzPXNhbHQ=\r\n")
    begun.heard(b"*", is_response=True)
    begun.said(b"501 5.7.0 given up\r\n250 2.0.0 Ok\r\n")
    begun.heard(b"hunter two", is_response=False)
    begun.heard(b"QUIT", is_response=False)
    assert said(begun) == [
        b"AUTH LOGIN",
        b"334 VXNlcm5hbWU6",
        b"***",
        b"334 UGFzc3dvcmQ6",
        b"***",
        b"334 ***",
        b"*",
        b"501 5.7.0 given up",
        b"250 2.0.0 Ok",
        b"*** (10 octets)",
        b"QUIT",
    ]


def test_a_long_session_keeps_its_beginning_and_its_end(tmp_path: Path) -> None:
    begun = visit(tmp_path)
    for number in range(10_000):
        begun.heard(b"NOOP %d" % number, is_response=False)
    lines = begun.lines
    assert lines[0].text == b"NOOP 0"
    assert lines[-1].text == b"NOOP 9999"
    gap = next(line for line in lines if line.who == NOTE)
    assert gap.text == b"%d lines are left out" % (10_000 - len(lines) + 1)
    assert sum(len(line.text) for line in lines) < 8_192 + 100
    assert [line.after_s for line in lines] == sorted(line.after_s for line in lines)


def test_one_huge_line_is_cut(tmp_path: Path) -> None:
    begun = visit(tmp_path)
    begun.said(b"x" * 100_000)
    begun.said(b"221 bye\r\n")
    assert sum(map(len, said(begun))) < 8_192 + 100
    assert begun.lines[-1] == (begun.lines[-1].after_s, SERVER, b"221 bye")


def test_only_the_last_session_and_so_many_devices_are_kept(tmp_path: Path) -> None:
    visits = Visits(Registry(tmp_path / "devices.db"), max_dialogues=2)
    first = visits.begin(CAMERA)
    assert first is not None
    first.heard(b"QUIT", is_response=False)
    second = visits.begin(CAMERA)
    assert visits.last(CAMERA) is second
    others = [visits.begin(ip_address(f"192.0.2.{number}")) for number in (8, 9)]
    assert visits.last(CAMERA) is None
    assert all(others)
    assert second is not None
    second.heard(b"QUIT", is_response=False)  # it goes on, and nothing is kept
    assert second.lines == []
    visits.forget(ip_address("192.0.2.9"))
    assert visits.last(ip_address("192.0.2.9")) is None
