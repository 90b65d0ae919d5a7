"""Octets of devices that are no UTF-8."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waypost.mail.raw_octets import text_of


@pytest.mark.parametrize(
    ("text", "charset"),
    [
        ("Küche@camera.lan", "utf-8"),
        ("摄像机@camera.lan", "utf-8"),
        ("摄像机@camera.lan", "gbk"),
        ("移动侦测 3", "gb18030"),
        ("Küche", "latin-1"),
        ("Einfahrt-Süd@camera.lan", "cp1252"),
        ("Señal", "cp1252"),
        ("caméra d’entrée", "cp1252"),
        ("Größe", "latin-1"),
        ("移动侦测：通道１", "gb2312"),
        ("DETECÇÃO DE MOVIMENTO", "latin-1"),
        ("20 °C", "latin-1"),
        ("Ворота 2", "cp1251"),
        ("кухня", "cp1251"),
        ("Ёлка", "cp1251"),
        ("cam", "ascii"),
    ],
)
def test_what_is_meant(text: str, charset: str) -> None:
    assert text_of(text.encode(charset)) == text


@given(st.binary(max_size=40))
def test_ascii_stays_where_it_is_and_nothing_else_becomes_it(octets: bytes) -> None:
    text = text_of(octets)
    assert text.encode().decode() == text
    assert re.sub(r"[^\x00-\x7f]+", "?", text) == re.sub(rb"[\x80-\xff]+", b"?", octets).decode()
    assert text_of(octets) == text
