"""Sizes as people read them."""

from __future__ import annotations


def size_text(octets: int) -> str:
    """A size for people."""
    if octets < 1024:
        return f"{octets} B"
    for unit in ("KiB", "MiB", "GiB"):
        octets_in_unit = octets / 1024
        if octets_in_unit < 1024 or unit == "GiB":
            return f"{octets_in_unit:.1f} {unit}"
        octets = int(octets_in_unit)
    raise AssertionError("the last unit has no end")
