"""From a next hop to the concrete places to try, in order.

An address literal is exactly one hop, with no DNS (RFC 5321 §5.1). Names come with MX.
"""

from __future__ import annotations

from waypost.errors import PermanentError
from waypost.mail.address import Address, AddressLiteral
from waypost.mail.envelope import Hop
from waypost.routing.targets import NextHop, UnixPath


def hops_to(next_hop: NextHop) -> list[Hop]:
    """The hops of a target that names its host."""
    if isinstance(next_hop, UnixPath):
        return [Hop(next_hop.path, None, 0)]
    return [Hop(str(next_hop.host), next_hop.host.ip, next_hop.port)]


def hops_direct(recipient: Address, port: int) -> list[Hop]:
    """The hops for mail straight to a recipient's own host; raises PermanentError."""
    domain = recipient.domain
    if not isinstance(domain, AddressLiteral):
        raise PermanentError(f"no way is known to {domain}: only address literals go straight")
    return [Hop(str(domain), domain.ip, port)]
