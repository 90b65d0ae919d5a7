"""Securing sessions: the handshake a demand asks for, and what is looked at after it."""

from __future__ import annotations

import asyncio
import math
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from waypost.delivery.connection import KeyChanged, SmtpConnection, TlsFirst, TlsUnmet
from waypost.delivery.credentials import Credentials
from waypost.delivery.demands import Demand
from waypost.errors import TemporaryError
from waypost.mail.address import ip_text
from waypost.mail.envelope import Hop
from waypost.routing.hops import Relay
from waypost.smtp.client import ClientSession, TlsNeed
from waypost.tls.contexts import client_context
from waypost.tls.evidence import Evidence, key_of
from waypost.tls.pins import Pin, Pins
from waypost.tls.policy import Level

# A host whose TLS is broken is spoken to in clear for this long, where that is allowed.
WITHOUT_TLS_S = 3_600.0
# A context is used for this long, as certificates of authorities change.
CONTEXT_S = 3_600.0
# RFC 8314 §3.3: TLS comes first there.
SUBMISSIONS_PORT = 465

_NEEDS = {Level.NONE: TlsNeed.NONE, Level.OPPORTUNISTIC: TlsNeed.OFFERED}
_WORDS = {Level.VERIFY: "verified", Level.PIN: "pinned", Level.DANE: "DANE"}

# Tells the operator that a host shows another key.
OnPin = Callable[[Pin], Awaitable[None]]


class Securing:
    """Makes sessions that meet a demand."""

    def __init__(self, pins: Pins, credentials: Credentials, on_pin: OnPin | None = None) -> None:
        """`on_pin` None: whoever started this reads the reply."""
        self._pins = pins
        self.credentials = credentials
        self._on_pin = on_pin
        self._alarming: set[tuple[str, str]] = set()
        self._contexts: dict[tuple[bool, tuple[Path, ...]], tuple[float, ssl.SSLContext]] = {}
        self._without_tls: dict[Hop, float] = {}  # monotonic, until when

    async def open(
        self,
        connected: socket.socket,
        hop: Hop,
        helo: str,
        demand: Demand,
        *,
        relay: Relay | None,
        is_lmtp: bool,
    ) -> SmtpConnection:
        """A session over a connected socket, secured as soon as it has greeted.

        `relay`: whose port and login count. Raises TlsFailed, TemporaryError, OSError.
        """
        need = _NEEDS.get(demand.level, TlsNeed.REQUIRED)
        if need is TlsNeed.OFFERED and self._without_tls.get(hop, 0.0) > time.monotonic():
            need = TlsNeed.NONE
        if need is TlsNeed.NONE:
            return await SmtpConnection.open(connected, ClientSession(helo, is_lmtp=is_lmtp))
        # Never where the peer could do without TLS, whatever let such settings through.
        is_safe = need is TlsNeed.REQUIRED
        try:
            context = await self._context(demand.level is Level.VERIFY, demand.ca)
            login = await self.credentials.login(relay) if relay is not None and is_safe else None
        except BaseException:
            connected.close()
            raise
        name = demand.names[0] if demand.level is Level.DANE else _bare(hop)
        tls = TlsFirst(context, name, self._look_for(demand, hop))
        if relay is not None and relay.port == SUBMISSIONS_PORT:
            session = ClientSession(helo, login=login)
            return await SmtpConnection.open(connected, session, tls, is_tls_first=True)
        return await SmtpConnection.open(connected, ClientSession(helo, tls=need, login=login), tls)

    def do_without(self, hop: Hop, demand: Demand) -> bool:
        """TLS is broken there: True when it is done without for a while (RFC 7435)."""
        if demand.level is Level.OPPORTUNISTIC:
            self._without_tls[hop] = time.monotonic() + WITHOUT_TLS_S
            return True
        return False

    def _look_for(self, demand: Demand, hop: Hop) -> Callable[[Evidence], Awaitable[None]] | None:
        if demand.level is Level.PIN:
            return lambda evidence: self._meet(place_of(hop), evidence)
        if demand.tlsa:
            return lambda evidence: _match(demand, evidence)
        return None

    async def _meet(self, place: str, evidence: Evidence) -> None:
        """Know the host by its key. Raises TlsUnmet, whatever is in the way."""
        try:
            pin = await asyncio.to_thread(self._pins.meet, place, key_of(evidence.chain[0]))
            if pin.offered is None:
                return
            if self._on_pin is not None and not pin.told:
                await self._tell(self._on_pin, pin, pin.offered)
        except (IndexError, ValueError) as error:
            raise TlsUnmet(f"{place} shows no certificate that can be read") from error
        except TemporaryError as error:
            raise TlsUnmet(f"{place} cannot be known by its key: {error}") from error
        raise KeyChanged(
            f"{place} shows another key than the one it is known by; if that is right:"
            f" waypost tls pins accept '{place}'"
        )

    async def _tell(self, on_pin: OnPin, pin: Pin, offered: str) -> None:
        if (pin.place, offered) in self._alarming:
            return
        self._alarming.add((pin.place, offered))
        try:
            await on_pin(pin)
            await asyncio.to_thread(self._pins.told, pin.place, offered)
        finally:
            self._alarming.discard((pin.place, offered))

    async def _context(self, verifies: bool, ca: tuple[Path, ...]) -> ssl.SSLContext:
        """A context, made anew now and then."""
        key = (verifies, ca if verifies else ())
        made_at, context = self._contexts.get(key, (-math.inf, None))
        if context is None or time.monotonic() - made_at > CONTEXT_S:
            context = await asyncio.to_thread(client_context, verifies=verifies, ca=key[1])
            self._contexts[key] = (time.monotonic(), context)
        return context


async def _match(demand: Demand, evidence: Evidence) -> None:
    from waypost.delivery.dane import match  # loaded already, by what found the records

    await asyncio.to_thread(match, evidence, demand.tlsa, demand.names)


def place_of(hop: Hop) -> str:
    """What a host is known by: its literal or its name, and its port."""
    return f"{hop.host}:{hop.port}"


def described(connection: SmtpConnection, demand: Demand) -> str | None:
    """What a session was negotiated to be, for the trace; None: it is in clear."""
    if connection.evidence is None:
        return None
    word = _WORDS.get(demand.level)
    return f"{connection.evidence} {'unverified' if word is None else f'{word}, {demand.because}'}"


def _bare(hop: Hop) -> str:
    """What the peer has to prove: an address without its brackets, or a name."""
    return hop.host if hop.ip is None or not hop.host.startswith("[") else ip_text(hop.ip)
