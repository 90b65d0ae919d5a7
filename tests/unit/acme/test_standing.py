"""When a certificate is due, and how failures are kept."""

from __future__ import annotations

import datetime
from ipaddress import ip_address
from pathlib import Path

import pytest

from waypost.acme.standing import (
    LONGEST_WAIT_S,
    MAX_RETRY_S,
    Tries,
    after_failure,
    held_of,
    read_held,
    read_tries,
    report,
    write_tries,
)
from waypost.tls.authority import Authority, Subjects

HERE = Subjects(frozenset({ip_address("10.0.0.1")}), frozenset({"hub.example"}))


def certificate(directory: Path, days: int) -> bytes:
    now = datetime.datetime.now(datetime.UTC)
    authority = Authority.create(directory, HERE, now=now)
    return authority.issue(HERE, is_rsa=False, now=now, days=days).certificate


@pytest.mark.parametrize(("days", "share"), [(4, 1 / 2), (88, 2 / 3)])
def test_short_lives_are_renewed_at_half_long_ones_at_two_thirds(
    tmp_path: Path, days: int, share: float
) -> None:
    held = held_of(certificate(tmp_path, days))
    life = held.expires_at - held.issued_at
    assert held.due_at == pytest.approx(held.issued_at + life * share)
    assert held.subjects == HERE


def test_waits_double_up_to_a_limit_and_the_server_may_ask_for_more() -> None:
    tries, waits = Tries("https://a/"), []
    for _ in range(30):
        tries = after_failure(tries, "https://b/", "no", now=1_000.0, retry_after_s=None)
        waits.append(tries.again_at - 1_000.0)
    assert waits[:4] == [600.0, 1_200.0, 2_400.0, 4_800.0]
    assert waits[-1] == max(waits) == MAX_RETRY_S
    assert tries.issued_by == "https://a/"
    asked = after_failure(Tries(), "https://b/", "no", now=0.0, retry_after_s=80_000.0)
    assert asked.again_at == 80_000.0
    asked = after_failure(Tries(), "https://b/", "no", now=0.0, retry_after_s=1e9)
    assert asked.again_at == LONGEST_WAIT_S


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert read_tries(tmp_path) == Tries()
    assert read_held(tmp_path) is None
    tries = after_failure(Tries("x"), "y", "why", now=5.0, retry_after_s=None)
    write_tries(tmp_path / "tls", tries)
    assert read_tries(tmp_path / "tls") == tries
    for text in ("", "[]", "{", '{"what": 1}', '{"again_at": "x"}'):
        (tmp_path / "acme-tries.json").write_text(text)
        (tmp_path / "acme.pem").write_text(text)
        assert read_tries(tmp_path) == Tries()
        assert read_held(tmp_path) is None


def test_a_report_without_trouble_names_none() -> None:
    found = report(HERE, "https://a/", None, Tries())
    assert found["identifiers"] == ["hub.example", "10.0.0.1"]
    assert found["certificate"] is found["problem"] is found["again_at"] is None
