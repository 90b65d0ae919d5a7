"""Tries a relay step by step, as a delivery would go, and says of each step what came of it."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from ipaddress import ip_address
from typing import NamedTuple

from waypost.delivery.connection import SmtpConnection, TlsUnmet
from waypost.delivery.credentials import advice_on, what_to_do
from waypost.delivery.demands import Demand, Demands
from waypost.delivery.securing import Securing, described
from waypost.delivery.smtp import CONNECT_S
from waypost.dns.resolver import Resolver
from waypost.errors import ConnectForbidden, NoWay, PeerUnreachable, TemporaryError
from waypost.mail.address import IPAddress
from waypost.mail.envelope import Hop
from waypost.mail.message import QueuedMessage
from waypost.mail.reply import Reply
from waypost.net.gate import Gate, Origin, connect
from waypost.oauth.keeper import LoginLost
from waypost.routing.hops import Host, Relay, hosts_of_relay
from waypost.smtp.client import NO_LOGIN_THERE, NO_TLS_THERE, ClientSession, Transaction

# A person waits for it.
REPLY_S = 60.0


class Step(NamedTuple):
    """One step."""

    name: str  # address, token, connection, greeting, tls, login, message
    is_ok: bool
    what: str  # what was found or said
    advice: str = ""  # what to do; empty where it is ok
    may_pass: bool = False  # it failed, and may do better later


class Trial:
    """One run for one relay; sends mail only with a message."""

    def __init__(
        self,
        relay: Relay,
        *,
        gate: Gate,
        resolver: Resolver,
        demands: Demands,
        securing: Securing,
        helo: Callable[[IPAddress], str],
    ) -> None:
        """`helo` gives our name for a local address."""
        self._relay = relay
        self._gate = gate
        self._resolver = resolver
        self._demands = demands
        self._securing = securing
        self._credentials = securing.credentials
        self._helo = helo

    async def steps(self, message: QueuedMessage | None) -> AsyncGenerator[Step, None]:
        """The steps, until one fails."""
        places: list[tuple[Host, Hop]] = []
        try:
            hosts = await hosts_of_relay(self._relay, self._resolver)
            places = [(host, hop) for host in hosts for hop in host.hops]
            yield Step("address", True, ", ".join(str(hop) for _, hop in places))
        except (TemporaryError, NoWay) as error:
            advice = "see [relay] host and [dns] servers; an IP address needs no DNS"
            yield Step("address", False, str(error), advice, may_pass=True)
            return
        try:
            await self._credentials.login(self._relay)
        except TemporaryError as error:
            yield self._no_token(error)
            return
        if self._relay.oauth is not None:
            yield await self._token()
        async with aclosing(self._session(places, message, is_again=False)) as steps:
            async for step in steps:
                yield step

    async def _session(
        self, places: list[tuple[Host, Hop]], message: QueuedMessage | None, *, is_again: bool
    ) -> AsyncGenerator[Step, None]:
        place, connected, troubles = await self._connected(places)
        if place is None or connected is None:
            advice = "see host and port, and whether a firewall or the provider closes that port"
            yield Step("connection", False, "; ".join(troubles), advice, may_pass=True)
            return
        host, hop = place
        said = f"{hop}" if not troubles else f"{hop}, after {'; '.join(troubles)}"
        yield Step("connection", True, said)
        wanted = self._demands.of_relay(self._relay, message)
        try:
            demand = await self._demands.at(wanted, host, self._resolver)
        except TemporaryError as error:
            connected.close()
            yield Step("tls", False, str(error), "see tls", may_pass=True)
            return
        trouble: Exception | None = None
        refusal: Reply | None = None
        connection: SmtpConnection | None = None
        try:
            async with asyncio.timeout(REPLY_S):
                connection = await self._securing.open(
                    *(connected, hop, self._helo_for(connected), demand),
                    relay=self._relay,
                    is_lmtp=False,
                )
                refusal = await connection.greet()
        except (PeerUnreachable, TemporaryError, TimeoutError, OSError) as error:
            trouble = error
        session = None if connection is None else connection.session
        for step in self._heard(connection, demand, refusal, trouble):
            yield step
            if not step.is_ok:
                if connection is not None:
                    # Where the conversation broke off there is nobody to say goodbye to.
                    connection.quit() if trouble is None else connection.abort()
                if session is not None and not is_again and await self._has_another(session):
                    yield Step("token", True, "another token was got, since this one was refused")
                    again = self._session(places, message, is_again=True)
                    async with aclosing(again) as steps:
                        async for later in steps:
                            yield later
                return
        assert connection is not None  # it was greeted
        if message is not None:
            yield await self._sent(connection, message)
        connection.quit()

    async def _connected(
        self, places: list[tuple[Host, Hop]]
    ) -> tuple[tuple[Host, Hop] | None, socket.socket | None, list[str]]:
        troubles: list[str] = []
        for host, hop in places:
            assert hop.ip is not None  # a relay is no Unix socket
            try:
                async with asyncio.timeout(CONNECT_S):
                    return (
                        (host, hop),
                        await connect(self._gate, hop.ip, hop.port, Origin.OPERATOR),
                        troubles,
                    )
            except TimeoutError:
                troubles.append(f"{hop}: no connection in {CONNECT_S:.0f} s")
            except ConnectForbidden as error:
                troubles.append(f"{hop}: {error}")
            except OSError as error:
                troubles.append(f"{hop}: {os.strerror(error.errno) if error.errno else error}")
        return None, None, troubles

    def _helo_for(self, connected: socket.socket) -> str:
        return self._helo(ip_address(connected.getsockname()[0].partition("%")[0]))

    def _heard(
        self,
        connection: SmtpConnection | None,
        demand: Demand,
        refusal: Reply | None,
        trouble: Exception | None,
    ) -> list[Step]:
        """Greeting, TLS and login, as far as it came."""
        session = None if connection is None else connection.session
        greeting = None if session is None else session.greeting
        steps: list[Step] = []
        if greeting is not None:
            advice = "" if greeting.is_positive else "the host takes no mail from here now"
            steps.append(
                Step("greeting", greeting.is_positive, str(greeting), advice, greeting.is_transient)
            )
            if not greeting.is_positive:
                return steps
        if isinstance(trouble, TlsUnmet):
            advice = "the host did not prove to be the one you named: see host, tls and ca"
            return [*steps, Step("tls", False, str(trouble), advice)]
        if refusal is NO_TLS_THERE or (refusal is not None and "TLS was refused" in refusal.text):
            return [*steps, Step("tls", False, refusal.text, "see port and tls")]
        secured = None if connection is None else described(connection, demand)
        if secured is not None:
            steps.append(Step("tls", True, secured))
        if trouble is not None:
            text = str(trouble) or f"no answer in {REPLY_S:.0f} s"
            where = "greeting" if greeting is None else "session"
            return [*steps, Step(where, False, text, "see host, port and tls", may_pass=True)]
        if session is None:
            return steps
        if refusal is NO_LOGIN_THERE:
            offered = session.extensions.get("AUTH") or "none"
            advice = f"ways it offers: {offered}; see auth"
            return [*steps, Step("login", False, refusal.text, advice)]
        if session.login_reply is not None:
            return [*steps, self._login_step(session, refusal)]
        if refusal is not None:
            advice = "the host does not talk to us"
            return [*steps, Step("session", False, str(refusal), advice, refusal.is_transient)]
        return steps

    def _login_step(self, session: ClientSession, refusal: Reply | None) -> Step:
        reply, login = session.login_reply, session.login
        assert reply is not None  # there was a login
        assert login is not None
        if refusal is None:
            return Step("login", True, f"{self._relay.username}: {login.masked(str(reply))}")
        advice = advice_on(self._relay, refusal.text)
        return Step("login", False, refusal.text, advice, reply.is_transient)

    async def _has_another(self, session: ClientSession) -> bool:
        if not session.is_login_refused:
            return False
        try:
            return await self._credentials.another_than(self._relay, session.login)
        except TemporaryError:
            return False  # the refusal itself was told

    async def _token(self) -> Step:
        kept = await self._credentials.kept(self._relay)
        assert kept is not None  # it has just been used
        assert kept.tokens is not None
        left_s = max(0, round(kept.tokens.expires_at - time.time()))
        return Step("token", True, f"for {self._relay.username}, good for {left_s} s more")

    def _no_token(self, error: TemporaryError) -> Step:
        assert self._relay.oauth is not None  # passwords are there or not
        if isinstance(error, LoginLost):
            advice = "see client_id, client_secret, tenant, scopes and key_file"
            if self._relay.oauth.grant.needs_login:
                advice = what_to_do(self._relay.name, self._relay.oauth)
            return Step("token", False, str(error), advice)
        advice = "see token_url, token_ca and [dns] servers"
        return Step("token", False, str(error), advice, may_pass=True)

    async def _sent(self, connection: SmtpConnection, message: QueuedMessage) -> Step:
        transaction = Transaction(
            envelope=message.envelope,
            recipients=[queued.recipient for queued in message.recipients],
            size=message.size,
            is_eight_bit=message.is_eight_bit,
        )
        try:
            async with asyncio.timeout(REPLY_S):
                (reply,) = await connection.transact(transaction, message)
        except (TemporaryError, TimeoutError) as error:
            text = str(error) or f"no answer in {REPLY_S:.0f} s"
            return Step("message", False, text, "try again", may_pass=True)
        advice = "" if reply.is_positive else "see what the relay says of sender and recipient"
        return Step("message", reply.is_positive, str(reply), advice, reply.is_transient)
