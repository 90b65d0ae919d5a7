"""Waypost: mail straight to and from IP addresses, and to and from the rest of the mail world."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from waypost.errors import AddressError, WaypostError
from waypost.mail.address import Address, AddressLiteral, Domain, GeneralLiteral
from waypost.mail.header_address import (
    Group,
    Levels,
    Mailbox,
    parse_address_list,
    parse_mailbox,
)

try:
    __version__ = version("waypost")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0+unknown"

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
