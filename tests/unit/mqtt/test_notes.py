"""What is kept of devices: it survives, it ends, and it is never believed blindly."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from waypost.errors import TemporaryError
from waypost.mqtt.notes import Noted, Notes


def noted(**kinds: float) -> Noted:
    return Noted("door", "Door", "10.0.0.5", kinds=dict(kinds), last_seen=7.0, count=3)


def test_what_was_kept_is_read(tmp_path: Path) -> None:
    notes = Notes(tmp_path / "mqtt.json")
    assert notes.load() is None
    notes.base, notes.prefix, notes.gone = "base", "ha", ["a/b"]
    notes.devices["door"] = noted(motion=12.5)
    notes.touch()
    asyncio.run(notes.save())
    assert not notes.is_dirty
    again = Notes(tmp_path / "mqtt.json")
    assert again.load() is None
    assert (again.client_id, again.base, again.prefix) == (notes.client_id, "base", "ha")
    assert (again.devices, again.gone) == (notes.devices, ["a/b"])
    assert again.next_end() == 12.5
    assert (tmp_path / "mqtt.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "\0",
        '{"client_id": "x", "base": "b", "prefix": "", "gone": [], "devices": [{"slug": 1}]}',
        '{"client_id": "x", "base": "b", "prefix": "", "gone": [], "devices": '
        '[{"slug": "a", "name": "a", "source": "a", "kinds": {"x": "later"}}]}',
    ],
)
def test_a_broken_file_is_told_and_begun_anew(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mqtt.json"
    path.write_text(text)
    notes = Notes(path)
    trouble = notes.load()
    assert trouble is not None
    assert "mqtt.json" in trouble
    assert not notes.devices
    assert notes.client_id.startswith("waypost-")


def test_a_disk_that_takes_nothing_is_trouble(tmp_path: Path) -> None:
    notes = Notes(tmp_path / "gone" / "mqtt.json")
    notes.touch()
    with pytest.raises(TemporaryError, match=r"mqtt\.json"):
        asyncio.run(notes.save())
    assert notes.is_dirty


@pytest.mark.parametrize(
    ("until", "is_over"),
    [(100.0, True), (100.1, False), (400.0, False), (401.0, True), (1e9, True)],
)
def test_nothing_stays_on_longer_than_it_may(until: float, is_over: bool) -> None:
    """At 100, with 300 s: also when the clock was set back, or less was configured."""
    device = noted(motion=until, door=0.0)
    assert device.over(100.0, 300.0) == (["motion"] if is_over else [])
    assert device.is_on("motion") != is_over
    assert not device.is_on("door")
