"""All that the HTTP port serves, put together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from waypost.intake.acceptance import Limits
from waypost.intake.door import Door
from waypost.intake.visitors import Visitors
from waypost.net.networks import NOWHERE, Networks
from waypost.observe import Log
from waypost.web.health import Health, Troubles
from waypost.web.hooks import Hooks
from waypost.web.message import Serve
from waypost.web.permits import Permits
from waypost.web.routes import Routes
from waypost.web.sending import Sending
from waypost.web.settings import ApiToken, HttpSettings, InboundHook

LOCALHOST = "localhost"


class Site:
    """What is served, by the settings that hold now."""

    def __init__(
        self,
        door: Door,
        limits: Callable[[], Limits],
        visitors: Visitors,
        troubles: Troubles,
        log: Log,
    ) -> None:
        self._permits = Permits(NOWHERE, visitors, log)
        self._sending = Sending(door, self._permits, limits)
        self._hooks = Hooks(door, self._permits, log)
        self.names: frozenset[str] = frozenset()  # by which the hub may be asked
        health = Health(troubles)
        routes = Routes()
        routes.add("GET", "/livez", health.live)
        routes.add("GET", "/readyz", health.ready)
        routes.add("POST", "/api/v1/send", self._sending.serve)
        routes.add("POST", "/hook/{name}", self._hooks.serve)
        self.serve: Serve = routes.serve

    def configure(
        self,
        http: HttpSettings,
        tokens: Sequence[ApiToken],
        hooks: Sequence[InboundHook],
        *,
        trusted: Networks,
        hostname: str | None,
    ) -> None:
        """From now on by these."""
        names = {LOCALHOST, *http.hosts}
        if hostname is not None:
            names.add(hostname)
        self.names = frozenset(names)
        self._permits.trusted = trusted
        self._sending.configure(tokens)
        self._hooks.configure(hooks)
