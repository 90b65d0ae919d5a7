"""What listeners show: certificates that fit the addresses the hub has now."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from waypost.app import make_keeper, make_subjects
from waypost.config.settings import Settings
from waypost.errors import WaypostError
from waypost.http.client import HttpClient
from waypost.intake.smtp_listener import ListenerSettings
from waypost.mail.address import IPAddress
from waypost.net.gate import Origin
from waypost.net.interfaces import OwnAddresses
from waypost.observe import Log
from waypost.tls.settings import LOOK_S, Profile

if TYPE_CHECKING:
    from waypost.acme.renewer import Renewer
    from waypost.tls.keeper import Keeper

# `waypost tls acme --now` waits this long, a little less than for an answer of any kind.
ORDER_NOW_S = 50.0


class Certificates:
    """Those of the hub's own authority or the operator's, and public ones by ACME."""

    def __init__(
        self,
        settings: Settings,
        own: OwnAddresses,
        clients: Callable[[Origin], HttpClient],
        log: Log,
    ) -> None:
        self._settings = settings
        self._own = own
        self._log = log
        self._changed = asyncio.Event()
        self._keeper = make_keeper(settings)
        self._renewer = _make_renewer(settings, self._keeper, own, clients, log)

    async def start(self) -> None:
        """Have what is needed. Raises as `renew`."""
        await self.renew(self._settings)
        await self._renewer.configure(self._settings.acme, self._settings.hostname)

    async def renew(self, settings: Settings) -> None:
        """Have the certificates that fit now. Raises CertificateFault, AuthorityError, OSError."""
        if all(listener.tls == "off" for listener in settings.listeners):
            return
        subjects = make_subjects(settings, self._own)
        prepared = await asyncio.to_thread(self._keeper.prepare, settings.tls, subjects)
        self._keeper.load(prepared)
        if prepared.trouble is not None:
            self._log.event("certificate-trouble", why=prepared.trouble)

    async def configure(self, settings: Settings) -> None:
        """Go by these settings from now on, for which `renew` has been called."""
        self._settings = settings
        await self._renewer.configure(settings.acme, settings.hostname)

    def look_again(self) -> None:
        """Our addresses may be others."""
        self._changed.set()
        self._renewer.look_again()

    async def keep(self) -> None:
        """Until cancelled: again when our addresses change, and now and then anyway."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._changed.wait()
            self._changed.clear()
            try:
                await self.renew(self._settings)
            except (WaypostError, OSError) as error:
                self._log.event("certificate-trouble", why=error)

    async def keep_public(self) -> None:
        """Until cancelled: public ones."""
        await self._renewer.run()

    def context_for(
        self, listener: ListenerSettings
    ) -> Callable[[IPAddress | None, IPAddress | None], ssl.SSLContext] | None:
        """What its handshakes begin with; None: it has no TLS."""
        if listener.tls == "off":
            return None
        return partial(self._keeper.context, Profile(listener.tls_profile))

    async def order(self, *, now: bool) -> dict[str, Any]:
        """Where public certificates stand, after an order if `now`; for the command line."""
        is_done = True
        if now:
            self._log.event("operator", action="order-certificate")
            is_done = await self._renewer.renew_now(ORDER_NOW_S)
        return {**self._renewer.standing(), "done": is_done}


def _make_renewer(
    settings: Settings,
    keeper: Keeper,
    own: OwnAddresses,
    clients: Callable[[Origin], HttpClient],
    log: Log,
) -> Renewer:
    # As make_keeper.
    from waypost.acme.renewer import Renewer

    return Renewer(settings.data_dir / "tls", keeper=keeper, own=own, clients=clients, log=log)
