"""Waypost: mail straight to and from IP addresses, and to and from the rest of the mail world."""

from __future__ import annotations

from waypost.errors import AddressError, WaypostError
from waypost.mail.address import Address, AddressLiteral, Domain, GeneralLiteral
from waypost.mail.header_address import (
    Group,
    Levels,
    Mailbox,
    parse_address_list,
    parse_mailbox,
)

__version__: str

__all__ = [
    "Address",
    "AddressError",
    "AddressLiteral",
    "Domain",
    "GeneralLiteral",
    "Group",
    "Levels",
    "Mailbox",
    "WaypostError",
    "__version__",
    "parse_address_list",
    "parse_mailbox",
]


def __getattr__(name: str) -> str:
    """The version, when somebody asks: finding it takes longer than all the rest here."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("waypost")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "0+unknown"
