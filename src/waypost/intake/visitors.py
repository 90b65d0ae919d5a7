"""Strangers counted by address: open connections, and what each has asked for in a minute.

An IPv6 stranger counts by its /64, which is what one customer has. Memory is bounded: connections
by the listeners' own limits, the minute's counts by MAX_CLIENTS, log lines by MAX_LINES.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from waypost.intake.acceptance import Limits
from waypost.mail import reply as replies
from waypost.mail.address import IPAddress
from waypost.mail.reply import Reply
from waypost.net.networks import client_key
from waypost.observe import Log

MINUTE_S = 60.0
# In a flood from more addresses than this only those seen first have counts of their own; the
# rest is held by the limits on open connections.
MAX_CLIENTS = 65_536
# Clients with log lines of their own in one minute.
MAX_LINES = 100


class _Minute:
    """What one client has done in this minute."""

    __slots__ = ("connections", "messages", "recipients")

    def __init__(self) -> None:
        self.connections = 0
        self.messages = 0
        self.recipients = 0


class Visitors:
    """Counts strangers over all listeners."""

    def __init__(
        self, limits: Limits, log: Log, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.limits = limits  # replaced when settings are read again
        self._log = log
        self._clock = clock
        self._open: dict[str, int] = {}
        self._minutes: dict[str, _Minute] = {}
        self._turned_away: dict[tuple[str, str, str], int] = {}  # times since the line was written
        self._others = 0  # turned away and without a line
        self._ends_at = clock() + MINUTE_S

    def arrive(self, ip: IPAddress) -> Reply | None:
        """Count a connection until `leave()`; or the refusal, and it is not counted."""
        key = client_key(ip)
        there = self._open.get(key, 0)
        if there >= self.limits.connections_per_client:
            return replies.TOO_MANY_CONNECTIONS
        minute = self._minute(key)
        if minute is not None:
            if minute.connections >= self.limits.connections_per_minute:
                return replies.TOO_MANY_CONNECTIONS_A_MINUTE
            minute.connections += 1
        self._open[key] = there + 1
        return None

    def leave(self, ip: IPAddress) -> None:
        """A connection counted by `arrive()` has ended."""
        key = client_key(ip)
        there = self._open[key] - 1
        if there:
            self._open[key] = there
        else:
            del self._open[key]

    def mail(self, ip: IPAddress) -> Reply | None:
        """Count a MAIL; or the refusal."""
        minute = self._minute(client_key(ip))
        if minute is None:
            return None
        if minute.messages >= self.limits.messages_per_minute:
            return replies.TOO_MANY_MESSAGES_A_MINUTE
        minute.messages += 1
        return None

    def rcpt(self, ip: IPAddress) -> Reply | None:
        """Count a RCPT, whatever becomes of it; or the refusal."""
        minute = self._minute(client_key(ip))
        if minute is None:
            return None
        if minute.recipients >= self.limits.recipients_per_minute:
            return replies.TOO_MANY_RECIPIENTS_A_MINUTE
        minute.recipients += 1
        return None

    def turned_away(self, ip: IPAddress, listener: str, reply: Reply) -> None:
        """Log a refusal that a flood may repeat: the first at once, how many more each minute."""
        self.look()
        subject = (client_key(ip), listener, str(reply))
        times = self._turned_away.get(subject)
        if times is not None:
            self._turned_away[subject] = times + 1
        elif len(self._turned_away) < MAX_LINES:
            self._turned_away[subject] = 0
            self._log.event("turned-away", client=subject[0], listener=listener, reply=reply)
        else:
            self._others += 1

    def look(self) -> None:
        """Begin a new minute when the old one is over."""
        now = self._clock()
        if now < self._ends_at:
            return
        self._ends_at = now + MINUTE_S
        self._minutes.clear()
        for (client, listener, reply), times in self._turned_away.items():
            if times:
                self._log.event(
                    "turned-away", client=client, listener=listener, reply=reply, times=times
                )
        self._turned_away.clear()
        if self._others:
            self._log.event("turned-away", client="others", times=self._others)
            self._others = 0

    def _minute(self, key: str) -> _Minute | None:
        """A client's counts; None: there are too many clients to count this one."""
        self.look()
        minute = self._minutes.get(key)
        if minute is None and len(self._minutes) < MAX_CLIENTS:
            minute = self._minutes[key] = _Minute()
        return minute
