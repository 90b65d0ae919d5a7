"""What the operator allows checks to do."""

from __future__ import annotations

from dataclasses import dataclass, field

from waypost.check.memory import Budget
from waypost.mail.address import Address


@dataclass(frozen=True, slots=True)
class CheckSettings:
    """The [check] table."""

    may_probe: bool = False
    sender: Address | None = None  # None: not probing
    helo: str | None = None  # None: the hub's own name, else a literal
    networks: tuple[str, ...] = ()  # not global, and may be probed
    budget: Budget = field(default_factory=Budget)
    retry_s: tuple[float, ...] = (300.0, 900.0, 3600.0)  # after the first deferral, the second…
