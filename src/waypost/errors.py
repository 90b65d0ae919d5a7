"""Every exception Waypost raises on purpose.

WaypostError
├── AddressError          a text is not the address it should be (also ValueError)
├── ConfigError           the configuration has faults; carries all of them
├── Refused               an HTTP request is not served; carries the response (web/message)
├── GrantRefused          a token server refuses a login (oauth/messages)
├── HubUnreachable        no running hub answers at the control socket
├── RequestRefused        a program's request for mail cannot be read (intake/requests)
├── TemporaryError        trouble below a seam that may pass: becomes a 4xx reply
│   ├── QueueFull         no room for the message (452 4.3.1)
│   ├── StoreUnavailable  the store cannot keep mail now (451 4.3.0)
│   │   └── StoreLost     nor will it: the hub goes down (421 4.3.2)
│   ├── PeerUnreachable   no session with the next hop (also ConnectionError)
│   │   └── TlsUnmet      none as secure as it has to be (delivery/connection, 451 4.7.5)
│   ├── HttpFailed        a web server gave no usable response (http/client)
│   ├── OrderFailed       no public certificate, and why (acme/orders)
│   ├── OrderStopped      an order was given up while it waited (acme/network)
│   ├── ResponderFault    a challenge cannot be answered (acme/responder)
│   ├── PublishRefused    the MQTT broker does not take a message (mqtt/message, 451 4.7.1)
│   ├── LoginLost         a relay's login has to be made again: mail waits (oauth/keeper)
│   ├── MemoryUnavailable  check.db cannot be used (check/memory)
│   ├── TokenTrouble      no access token now (oauth/messages)
│   ├── KeptUnavailable   nor pins.db or mta-sts.db (tls/kept)
│   └── ResolverUnavailable  no answer from the name service (dns/resolver, 451 4.4.3)
└── PermanentError        trouble below a seam that will not pass: becomes a 5xx reply
    ├── ConnectForbidden  the gate refuses the target (net/gate)
    └── NoWay             there is no host to take the mail to; says the reply itself

A refusal by a peer, or the result of a check, is a value (`mail.reply.Reply`), not an exception.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class WaypostError(Exception):
    """Base of the tree above."""


class AddressError(WaypostError, ValueError):
    """A text that is not the address it should be.

    `code` is one of docs/reference/address-codes.md, for scripts; `offset` counts characters from
    the start of the text that was given to the parser; `section` names the rule, for example
    ``RFC 5321 §4.1.3``; `suggestion` is the text that was probably meant, None: nobody can say.
    """

    def __init__(
        self,
        reason: str,
        *,
        code: str = "syntax.bad_char",
        offset: int = 0,
        section: str = "RFC 5321 §4.1.2",
        suggestion: str | None = None,
    ) -> None:
        super().__init__(f"{reason} ({section})")
        self.code = code
        self.reason = reason
        self.offset = offset
        self.section = section
        self.suggestion = suggestion


@dataclass(frozen=True, slots=True)
class ConfigFault:
    """One fault of a configuration: where it stands, which key, and what was expected."""

    source: str  # a file name, or the environment variable
    line: int | None  # None: the fault has no line (environment, or a key that is missing)
    key: str
    problem: str

    def __str__(self) -> str:
        place = self.source if self.line is None else f"{self.source}:{self.line}"
        return f"{place}: {self.key}: {self.problem}" if self.key else f"{place}: {self.problem}"


class ConfigError(WaypostError):
    """All faults of a configuration at once."""

    def __init__(self, faults: Sequence[ConfigFault]) -> None:
        super().__init__("\n".join(str(fault) for fault in faults))
        self.faults = tuple(faults)


class HubUnreachable(WaypostError, ConnectionError):
    """No running hub answers at the control socket of the data directory."""


class TemporaryError(WaypostError):
    """Trouble that may pass."""

    status = (3, 0)  # subject and detail of the enhanced status code (RFC 3463)


class QueueFull(TemporaryError):
    """There is no room to keep the message: disk or quota."""


class StoreUnavailable(TemporaryError):
    """The store cannot keep mail now, for a reason other than room."""


class StoreLost(StoreUnavailable):
    """What keeps the mail has ended; what was under way may have been kept, or not."""


class PeerUnreachable(TemporaryError, ConnectionError):
    """No usable session with the next hop: not connected, timed out, or out of sync."""

    def __init__(
        self, text: str, *, never_connected: bool = False, has_sent_content: bool = False
    ) -> None:
        super().__init__(text)
        self.never_connected = never_connected  # True: other mail need not try this host now
        self.has_sent_content = has_sent_content  # True: the peer may have taken the message
        self.status = (4, 1 if never_connected else 2)


class PermanentError(WaypostError):
    """Trouble that will not pass by waiting."""


class ConnectForbidden(PermanentError):
    """The gate refuses an outgoing connection; the text says which rule."""


class NoWay(PermanentError):
    """There is no host to take the mail to."""

    def __init__(self, code: int, text: str, status: tuple[int, int]) -> None:
        super().__init__(text)
        self.code = code  # of the reply, as is the next
        self.status = status
