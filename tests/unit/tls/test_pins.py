"""Pins: the first key is kept, another one is noticed, and only an operator changes that."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from waypost.tls.kept import KeptUnavailable
from waypost.tls.pins import Pins

HERE = "[192.168.1.5]:25"


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


@pytest.fixture
def again(tmp_path: Path) -> Callable[[], Pins]:
    """The same pins, as another process would open them."""
    clock = Clock()
    return lambda: Pins(tmp_path / "data" / "tls" / "pins.db", clock=clock)


def test_the_first_key_is_kept(again: Callable[[], Pins], tmp_path: Path) -> None:
    assert again().all() == []
    assert again().find(HERE) is None
    first = again().meet(HERE, "a")
    assert (first.key, first.offered) == ("a", None)
    assert again().meet(HERE, "a").offered is None
    assert again().meet("[192.168.1.6]:25", "b").key == "b"
    assert [pin.place for pin in again().all()] == [HERE, "[192.168.1.6]:25"]
    assert stat.S_IMODE((tmp_path / "data" / "tls" / "pins.db").stat().st_mode) == 0o600


def test_another_key_is_noticed_until_it_is_accepted(again: Callable[[], Pins]) -> None:
    again().meet(HERE, "a")
    changed = again().meet(HERE, "b")
    assert (changed.key, changed.offered, changed.told) == ("a", "b", False)
    again().told(HERE, "b")
    once_more = again().meet(HERE, "b")
    assert once_more.told
    assert once_more.offered_at == changed.offered_at
    # Yet another one is news again; so is one that came back after the right one.
    assert not again().meet(HERE, "c").told
    assert not again().accept(HERE, "b")
    assert again().accept(HERE, "c")
    assert again().meet(HERE, "c").offered is None
    assert again().meet(HERE, "a").offered == "a"


def test_the_right_key_ends_the_alarm(again: Callable[[], Pins]) -> None:
    again().meet(HERE, "a")
    again().meet(HERE, "b")
    again().told(HERE, "b")
    assert again().meet(HERE, "a").offered is None
    found = again().find(HERE)
    assert found is not None
    assert (found.offered, found.offered_at) == (None, None)
    assert not again().accept(HERE, "b")
    assert not again().meet(HERE, "b").told


def test_forgotten(again: Callable[[], Pins]) -> None:
    assert not again().forget(HERE)
    again().meet(HERE, "a")
    assert again().forget(HERE)
    assert again().meet(HERE, "b").offered is None


def test_no_file_no_trust(tmp_path: Path) -> None:
    path = tmp_path / "pins.db"
    path.write_bytes(b"this is no database, and long enough to be looked at" * 10)
    with pytest.raises(KeptUnavailable):
        Pins(path).meet(HERE, "a")
    link = tmp_path / "link.db"
    link.symlink_to(tmp_path / "elsewhere.db")
    with pytest.raises(KeptUnavailable):
        Pins(link).meet(HERE, "a")
    assert not (tmp_path / "elsewhere.db").exists()
