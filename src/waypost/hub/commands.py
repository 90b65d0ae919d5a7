"""What the command line asks of a running hub."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from waypost import __version__
from waypost.accounts.accounts import Accounts
from waypost.delivery.credentials import Credentials
from waypost.dispatch.dispatcher import Dispatcher
from waypost.hub.certificates import Certificates
from waypost.hub.ports import Ports
from waypost.intake.logins import Logins
from waypost.mail.envelope import QueueId
from waypost.net.interfaces import OwnAddresses
from waypost.observe import Log
from waypost.queue.sqlite import SqliteStore
from waypost.queue.store import Action

Command = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


class Commands:
    """Answers them, each by its name in `actions`."""

    def __init__(
        self,
        *,
        hostname: Callable[[], str | None],
        own: OwnAddresses,
        ports: Ports,
        store: SqliteStore,
        dispatcher: Dispatcher,
        credentials: Credentials,
        certificates: Certificates,
        logins: Logins,
        read_accounts: Callable[[], Accounts],
        reload: Callable[[], Awaitable[str | None]],
        log: Log,
    ) -> None:
        """`read_accounts` blocks."""
        self._hostname = hostname
        self._own = own
        self._ports = ports
        self._store = store
        self._dispatcher = dispatcher
        self._credentials = credentials
        self._certificates = certificates
        self._logins = logins
        self._read_accounts = read_accounts
        self._reload = reload
        self._log = log

    @property
    def actions(self) -> dict[str, Command]:
        return {
            "status": self._status,
            "act": self._act,
            "hold-new": self._hold_new,
            "reload": self._reload_asked,
            "relay-login": self._relay_login,
            "users": self._users_changed,
            "acme": self._acme_asked,
        }

    async def _status(self, request: dict[str, Any]) -> dict[str, Any]:
        return {
            "version": __version__,
            "hostname": self._hostname(),
            "own": sorted(map(str, self._own.current)),
            "listeners": self._ports.standing(),
            "active": self._dispatcher.active,
            "held": self._store.is_held,
        }

    async def _act(self, request: dict[str, Any]) -> dict[str, Any]:
        action = Action(request["action"])
        ids = request.get("ids")
        if action is Action.RETRY:
            self._dispatcher.forget_trouble()
        changed = await self._store.act(
            action, None if ids is None else [QueueId(entry) for entry in ids]
        )
        self._log.event(
            "operator",
            action=action,
            ids="all" if ids is None else " ".join(ids),
            recipients=changed,
        )
        return {"recipients": changed}

    async def _hold_new(self, request: dict[str, Any]) -> dict[str, Any]:
        held = bool(request["held"])
        await self._store.hold_all_new(held=held)
        self._log.event("operator", action="hold-all" if held else "release-all")
        return {"held": held}

    async def _relay_login(self, request: dict[str, Any]) -> dict[str, Any]:
        """Somebody has logged in with the command line."""
        await self._credentials.see(str(request["relay"]))
        return {"seen": True}

    async def _users_changed(self, request: dict[str, Any]) -> dict[str, Any]:
        self._logins.accounts = await asyncio.to_thread(self._read_accounts)
        self._log.event("users-read", accounts=len(self._logins.accounts))
        return {"accounts": len(self._logins.accounts)}

    async def _acme_asked(self, request: dict[str, Any]) -> dict[str, Any]:
        return await self._certificates.order(now=bool(request.get("now")))

    async def _reload_asked(self, request: dict[str, Any]) -> dict[str, Any]:
        trouble = await self._reload()
        return {"reloaded": True} if trouble is None else {"error": trouble}
