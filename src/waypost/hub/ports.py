"""Where the hub listens: for SMTP and LMTP, and for HTTP; opened, and moved by a reload."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from waypost.app import trusted_clients
from waypost.config.settings import Settings
from waypost.intake.smtp_listener import ListenerSettings, SmtpListener
from waypost.mail.address import IPAddress
from waypost.observe import Log
from waypost.web.server import WebServer

# How long sessions and attempts under way may take to end when the hub is told to stop.
DRAIN_S = 10.0


class Ports:
    """All listeners, and the HTTP port."""

    def __init__(
        self,
        make_listener: Callable[[ListenerSettings, Settings], SmtpListener],
        web: WebServer,
        *,
        spawn: Callable[[Coroutine[Any, Any, object], str], None],
        log: Log,
    ) -> None:
        """`spawn` has work done in the background, under a name."""
        self._make_listener = make_listener
        self._web = web
        self._spawn = spawn
        self._log = log
        self._listeners: list[SmtpListener] = []

    @property
    def bound(self) -> frozenset[tuple[IPAddress | None, int]]:
        """Addresses and ports; None for the address: all of this host."""
        bound = (bound for listener in self._listeners for bound in listener.bound)
        return frozenset((*bound, *self._web.bound))

    def away(self, settings: Settings) -> str | None:
        """Which listeners could not be opened; None: all are there."""
        there = [listener.settings for listener in self._listeners]
        away = [wanted.name for wanted in settings.listeners if wanted not in there]
        return f"not open: {', '.join(away)}" if away else None

    def standing(self) -> list[dict[str, Any]]:
        """The listeners, for the command line."""
        return [
            {
                "name": listener.settings.name,
                "role": listener.settings.role,
                "bound": [[str(ip), port] for ip, port in listener.places],
                "sessions": len(listener.sessions),
            }
            for listener in self._listeners
        ]

    async def open(self, settings: Settings) -> None:
        """Open all. Raises OSError when an address is taken."""
        for wanted in settings.listeners:
            await self._listen(wanted, settings)
        await self._web.listen(settings.http.bind)

    async def move(self, settings: Settings) -> str | None:
        """From now on these; sessions go on where they are. What could not be opened, or None."""
        kept = [entry for entry in self._listeners if entry.settings in settings.listeners]
        gone = [entry for entry in self._listeners if entry not in kept]
        self._listeners = kept
        for listener in kept:
            listener.configure(
                trusted=trusted_clients(settings),
                limits=settings.limits,
                hostname=settings.hostname,
            )
        for listener in gone:
            listener.stop_listening()
            self._spawn(listener.drain(DRAIN_S), "drain")
        there = [entry.settings for entry in kept]
        trouble: str | None = None
        for wanted in settings.listeners:
            if wanted not in there:
                trouble = await self._tried(self._listen(wanted, settings)) or trouble
        return await self._tried(self._web.listen(settings.http.bind)) or trouble

    async def _tried(self, opening: Coroutine[Any, Any, None]) -> str | None:
        try:
            await opening
        except OSError as error:
            self._log.event("reload-trouble", why=error.strerror)
            return error.strerror
        return None

    async def drain(self, limit_s: float) -> None:
        """Let sessions and requests end, at most so long."""
        drains = (listener.drain(limit_s) for listener in self._listeners)
        await asyncio.gather(self._web.drain(limit_s), *drains)

    async def _listen(self, wanted: ListenerSettings, settings: Settings) -> None:
        listener = self._make_listener(wanted, settings)
        try:
            await listener.start()
        except OSError:
            listener.stop_listening()  # where it had bound before
            raise
        self._listeners.append(listener)
