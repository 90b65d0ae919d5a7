"""Connections that are no session yet: PROXY headers, TLS that comes first, greetings held back.

Who reads what a client sends first, TLS or the session, depends on what it is, and octets once
read cannot be given back to TLS. So they are looked at where they wait (MSG_PEEK), which only a
socket without a transport allows. One timer serves all that wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import socket
import ssl
import time
from collections.abc import Coroutine
from enum import IntFlag
from typing import TYPE_CHECKING, Any

from waypost.intake.peeking import first_octets
from waypost.intake.session import GOODBYE_S, HANDSHAKE_S, Caller, IncomingSession
from waypost.mail import reply as replies
from waypost.mail.address import IPAddress
from waypost.mail.reply import Reply
from waypost.net.peers import ip_of
from waypost.net.proxy_header import BadProxyHeader, ProxyHeader, ProxyHeaderReader
from waypost.tls.hello import HANDSHAKE, HELLO_BYTES

if TYPE_CHECKING:
    from waypost.intake.smtp_listener import SmtpListener

# When no descriptor was left for a connection, the next try comes after this.
ACCEPT_AGAIN_S = 1.0
BACKLOG = 1024
# A proxy sends its header first of all; this is for all of it.
PROXY_S = 5.0
# A client that wants TLS at once says so right behind its part of the TCP handshake. Nothing is
# known of one that comes for the first time, so its greeting waits this long.
HELLO_S = 0.05
# Who has begun with TLS before is slow perhaps, but will do so again.
HELLO_AGAIN_S = 1.0
# Greetings that are due within this time go together.
GRAIN_S = 0.01
# What clients do first is remembered for so many, and for a day at most.
MAX_HABITS = 8_192
HABITS_S = 86_400.0


class Habit(IntFlag):
    """What a client did at the door before."""

    NONE = 0  # it has come and spoken when it should
    TLS_FIRST = 1  # it began with TLS where TLS does not come first
    PATIENT = 2  # a stranger that waited for its greeting


class _Held:
    """A connection that waits for its greeting."""

    __slots__ = ("caller", "connected")

    def __init__(self, connected: socket.socket, caller: Caller) -> None:
        self.connected = connected
        self.caller = caller


class Doorway:
    """What is between a listener's sockets and its sessions."""

    def __init__(self, listener: SmtpListener) -> None:
        self._listener = listener
        self._listening: list[socket.socket] = []
        self._held: set[_Held] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._due: list[tuple[float, int, _Held | IncomingSession]] = []  # a heap
        self._numbers = itertools.count()
        self._timer: asyncio.TimerHandle | None = None  # None: nobody waits
        self._habits: dict[IPAddress, Habit] = {}
        self._forget_at = time.monotonic() + HABITS_S

    @property
    def count(self) -> int:
        """Connections that are here."""
        return len(self._held) + len(self._tasks)

    def open(self, listening: socket.socket) -> None:
        """Take connections from a socket, where not even their first octets may be read for us.

        asyncio's own server would read them, is silent about handshakes that fail, and late with
        limits: it makes a session when the handshake is done.
        """
        listening.listen(BACKLOG)
        listening.setblocking(False)
        self._listening.append(listening)
        asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    def close(self) -> None:
        """Take no more connections, and let go of those that are here."""
        loop = asyncio.get_running_loop()
        for listening in self._listening:
            loop.remove_reader(listening)
            listening.close()
        self._listening.clear()
        for held in list(self._held):
            self._release(held)
            self._turn_away(held.connected, replies.SHUTTING_DOWN)
            self._left(held.caller)
        for task in self._tasks:
            task.cancel()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._due.clear()

    # What is to be done with a client that has come.

    def hold_s(self, caller: Caller) -> float:
        """How long its greeting is held back in clear."""
        listener = self._listener
        if listener.settings.role == "lmtp":
            return 0.0
        habit = self._habits.get(caller.client_ip)
        hold_s = 0.0
        if listener.offers_tls:
            if habit is None:
                hold_s = HELLO_S
            elif habit and habit & Habit.TLS_FIRST:  # most have none
                hold_s = HELLO_AGAIN_S
        return max(hold_s, self.delay_s(caller))

    def delay_s(self, caller: Caller) -> float:
        """How long a stranger has to be patient; 0 once it has been."""
        listener = self._listener
        if not caller.is_counted or listener.settings.role != "hub":
            return 0.0
        if self._habits.get(caller.client_ip, Habit.NONE) & Habit.PATIENT:
            return 0.0
        return listener.limits.greet_delay_s

    def hold(self, connected: socket.socket, caller: Caller, hold_s: float) -> None:
        """Keep a connection until it speaks or the time is over."""
        held = _Held(connected, caller)
        self._held.add(held)
        asyncio.get_running_loop().add_reader(connected, self._spoke, held)
        self._wait(held, hold_s)

    def hold_greeting(self, session: IncomingSession, hold_s: float) -> None:
        """Call the session's `greet_late()` when the time is over."""
        self._wait(session, hold_s)

    def began_with_tls(self, ip: IPAddress) -> None:
        """A client said a TLS hello where TLS does not come first."""
        self._remember(ip, self._habits.get(ip, Habit.NONE) | Habit.TLS_FIRST)

    def was_patient(self, ip: IPAddress) -> None:
        """A stranger waited for its greeting."""
        self._remember(ip, self._habits.get(ip, Habit.NONE) | Habit.PATIENT)

    def look(self) -> None:
        """Forget habits that are old."""
        if time.monotonic() >= self._forget_at:
            self._forget_at = time.monotonic() + HABITS_S
            self._habits.clear()

    # Connections that come here first.

    def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(BACKLOG):
            try:
                connected, peer = listening.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:  # no descriptors are left: some sessions have to end first
                name = self._listener.settings.name
                self._listener.log.event("accept-failed", listener=name, why=error.strerror)
                loop.remove_reader(listening)
                loop.call_later(ACCEPT_AGAIN_S, self._accept_again, listening)
                return
            connected.setblocking(False)
            client = ip_of(peer[0])
            local = ip_of(connected.getsockname()[0])
            if client not in self._listener.proxies:
                self._meet(connected, client, local)
            elif (refusal := self._listener.refusal) is not None:
                self._turn_away(connected, refusal)
            else:
                self._spawn(self._announced(connected, client, local))

    def _accept_again(self, listening: socket.socket) -> None:
        if listening in self._listening:
            asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    def _meet(self, connected: socket.socket, client: IPAddress, local: IPAddress) -> None:
        met = self._listener.meet(client, local)
        if isinstance(met, Caller):
            self._take(connected, met)
        else:
            self._turn_away(connected, met)

    def _take(self, connected: socket.socket, caller: Caller) -> None:
        if self._listener.is_tls_first:
            self._spawn(self._begin(connected, caller, is_tls=True))
        elif hold_s := self.hold_s(caller):
            self.hold(connected, caller, hold_s)
        else:
            self._spawn(self._begin(connected, caller, is_tls=False))

    async def _announced(
        self, connected: socket.socket, proxy: IPAddress, local: IPAddress
    ) -> None:
        """Take a connection that a proxy carries on: for whom, it says first."""
        try:
            async with asyncio.timeout(PROXY_S):
                header = await _read_header(connected)
        except (OSError, BadProxyHeader) as error:
            connected.close()
            name = self._listener.settings.name
            why = str(error) or f"no PROXY header in {PROXY_S:.0f} s"
            self._listener.log.event("proxy-refused", client=proxy, listener=name, why=why)
            return
        except asyncio.CancelledError:
            connected.close()
            raise
        if header is None:
            connected.close()  # it only looked whether somebody listens
        elif header.client_ip is not None and header.local_ip is not None:
            self._meet(connected, header.client_ip, header.local_ip)
        else:
            # Of the client nothing is known. It gets none of the trust the proxy may have.
            self._take(connected, Caller(proxy, local, is_trusted=False, is_counted=False))

    async def _begin(self, connected: socket.socket, caller: Caller, *, is_tls: bool) -> None:
        """Make a session of a connection, over TLS or in clear."""
        listener = self._listener
        session = IncomingSession(listener, caller=caller)
        hello = b""
        try:
            if is_tls:
                async with asyncio.timeout(HANDSHAKE_S):
                    hello = await first_octets(connected)
                if not hello:
                    raise ConnectionAbortedError("the client went away")
                if hello[0] != HANDSHAKE:
                    raise ConnectionAbortedError("it does not speak TLS, which comes first here")
            context: ssl.SSLContext | None = None
            if is_tls and listener.tls is not None:
                context = listener.tls(caller.local_ip, caller.client_ip)
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: session,
                connected,
                ssl=context,
                ssl_handshake_timeout=HANDSHAKE_S if is_tls else None,
                ssl_shutdown_timeout=GOODBYE_S if is_tls else None,
            )
        except OSError as error:
            connected.close()
            if is_tls:
                text = listener.say_tls_failed(caller.client_ip, error, hello)
                visit = listener.visits.begin(caller.client_ip) if caller.is_trusted else None
                if visit is not None:
                    visit.note(text)
        except asyncio.CancelledError:
            connected.close()
            raise
        finally:
            if not session.has_begun:
                self._left(caller)

    # Connections that wait.

    def _spoke(self, held: _Held) -> None:
        """A client did not wait for its greeting."""
        try:
            octets = held.connected.recv(HELLO_BYTES, socket.MSG_PEEK)
        except BlockingIOError:
            return
        except OSError:
            octets = b""
        self._release(held)
        listener, caller = self._listener, held.caller
        if octets and octets[0] == HANDSHAKE and listener.offers_tls:
            self.began_with_tls(caller.client_ip)
            self._spawn(self._begin(held.connected, caller, is_tls=True))
        elif octets and octets[0] != HANDSHAKE and not caller.is_counted:
            self._remember(caller.client_ip, Habit.NONE)
            self._spawn(self._begin(held.connected, caller, is_tls=False))
        else:
            if octets and octets[0] == HANDSHAKE:
                listener.heard_hello(caller.client_ip)
                held.connected.close()
            elif octets:
                listener.note_turned_away(caller.client_ip, replies.SPOKE_TOO_EARLY)
                self._turn_away(held.connected, replies.SPOKE_TOO_EARLY)
            else:
                held.connected.close()
            self._left(caller)

    def _wait(self, who: _Held | IncomingSession, hold_s: float) -> None:
        loop = asyncio.get_running_loop()
        heapq.heappush(self._due, (loop.time() + hold_s, next(self._numbers), who))
        self._set_timer(loop)

    def _set_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        at = max(self._due[0][0], loop.time() + GRAIN_S)
        if self._timer is not None:
            if self._timer.when() <= at:
                return
            self._timer.cancel()
        self._timer = loop.call_at(at, self._greet_due)

    def _greet_due(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        while self._due and self._due[0][0] <= now:
            _, _, who = heapq.heappop(self._due)
            if isinstance(who, IncomingSession):
                who.greet_late()
            elif who in self._held:
                self._release(who)
                caller = who.caller
                self._remember(caller.client_ip, Habit.PATIENT if caller.is_counted else Habit.NONE)
                self._spawn(self._begin(who.connected, caller, is_tls=False))
        if self._due:
            self._set_timer(loop)

    def _release(self, held: _Held) -> None:
        self._held.discard(held)
        asyncio.get_running_loop().remove_reader(held.connected)

    def _remember(self, ip: IPAddress, habit: Habit) -> None:
        if len(self._habits) >= MAX_HABITS and ip not in self._habits:
            del self._habits[next(iter(self._habits))]
        self._habits[ip] = habit

    # Connections that go.

    def _turn_away(self, connected: socket.socket, reply: Reply) -> None:
        with connected, contextlib.suppress(OSError):  # it may have gone, which suits us
            if not self._listener.is_tls_first:  # there a refusal in clear would be of no use
                connected.send(reply.wire)
                # Octets that nobody has read would turn the close into a reset, and the reply
                # might be lost.
                connected.recv(65_536)

    def _left(self, caller: Caller) -> None:
        if caller.is_counted:
            self._listener.visitors.leave(caller.client_ip)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _read_header(connected: socket.socket) -> ProxyHeader | None:
    """The PROXY header, and nothing behind it; None: the proxy closed without a word."""
    reader = ProxyHeaderReader()
    octets = b""
    while reader.header is None:
        before = octets
        octets = await first_octets(connected)
        if not octets:
            if before:
                raise ConnectionAbortedError("it closed within its PROXY header")
            return None
        connected.recv(reader.receive(octets))
    return reader.header
