"""Keeps the public certificate: orders it, renews it in time, tries again after trouble."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from waypost.acme.identifiers import wanted_subjects
from waypost.acme.settings import AcmeSettings
from waypost.acme.standing import (
    ACCOUNT,
    CERTIFICATE,
    LONGEST_WAIT_S,
    Held,
    Tries,
    after_failure,
    held_of,
    read_held,
    read_tries,
    report,
    texts_of,
    write_tries,
)
from waypost.durable import write_secret
from waypost.errors import TemporaryError, WaypostError
from waypost.http.client import HttpClient
from waypost.net.gate import Origin
from waypost.net.interfaces import OwnAddresses
from waypost.observe import Log
from waypost.tls.authority import Subjects
from waypost.tls.keeper import CertificateFault, Keeper

# Clocks jump and hosts sleep: no wait is longer.
LOOK_S = 3_600.0


class Renewer:
    """Owns the files `acme*` in `tls/` of the data directory; idle without settings."""

    def __init__(
        self,
        directory: Path,
        *,
        keeper: Keeper,
        own: OwnAddresses,
        clients: Callable[[Origin], HttpClient],
        log: Log,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._directory = directory
        self._keeper = keeper
        self._own = own
        self._clients = clients
        self._log = log
        self._clock = clock
        self._settings: AcmeSettings | None = None  # None: no public certificate is wanted
        self._hostname: str | None = None
        self._held: Held | None = None
        self._tries = Tries()
        self._nothing_said: AcmeSettings | None = None  # for whom it was said that nothing is ours
        self._again = asyncio.Event()
        self._is_asked = False
        self._is_ordering = False
        self._asking: set[asyncio.Future[None]] = set()

    async def configure(self, settings: AcmeSettings | None, hostname: str | None) -> None:
        """Do as these settings say from now on; a certificate that lies there is shown at once."""
        # Read first: from the moment the settings are here, orders are placed by them.
        held, tries = await asyncio.to_thread(self._read)
        before = self._settings
        self._settings, self._hostname = settings, hostname
        if settings is None:
            self._keeper.show_public(None)
            return
        if settings != before:
            # What failed may be what was mended; a restart alone mends nothing.
            if before is not None or settings.directory != tries.directory:
                tries = Tries(tries.issued_by, settings.directory)
            self._held, self._tries = held, tries
            await self._show()
        self._again.set()

    def look_again(self) -> None:
        """Our addresses have changed."""
        self._again.set()

    async def renew_now(self, limit_s: float) -> bool:
        """Order a certificate at once; False: it takes longer. Raises WaypostError."""
        if self._settings is None:
            raise WaypostError("the configuration has no [acme]")
        ended = asyncio.get_running_loop().create_future()
        self._asking.add(ended)
        if not self._is_ordering:
            self._is_asked = True
            self._again.set()
        try:
            async with asyncio.timeout(limit_s):
                await ended
        except TimeoutError:
            return False
        finally:
            self._asking.discard(ended)
        return True

    def standing(self) -> dict[str, Any]:
        """How it stands. Raises WaypostError without settings."""
        if self._settings is None:
            raise WaypostError("the configuration has no [acme]")
        return report(
            self._wanted(self._settings), self._settings.directory, self._held, self._tries
        )

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._again.clear()
            wait_s = await self._look()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._again.wait()

    async def _look(self) -> float:
        """Order if it is time; how long to wait until the next look."""
        settings = self._settings
        if settings is None:
            return LOOK_S
        now = self._clock()
        if self._held is not None and self._held.expires_at <= now:
            self._keeper.show_public(None)  # our own authority's is as good, and not out of date
        wanted = self._wanted(settings)
        is_asked, self._is_asked = self._is_asked, False
        if not wanted:
            self._say_nothing(settings)
        elif is_asked or now >= self._order_at(settings, wanted):
            self._is_ordering = True
            await self._order(settings, wanted)
            self._is_ordering = False
        for ended in self._asking:
            if not ended.done():
                ended.set_result(None)
        moments = [now + LOOK_S]
        if wanted:
            moments.append(self._order_at(settings, wanted))
        if self._held is not None and self._held.expires_at > now:
            moments.append(self._held.expires_at)
        return max(min(moments) - self._clock(), 0.0)

    def _order_at(self, settings: AcmeSettings, wanted: Subjects) -> float:
        again_at = self._tries.again_at
        if again_at > self._clock() + LONGEST_WAIT_S:
            again_at = 0.0  # the clock was ahead when that was written
        return max(self._due_at(settings, wanted), again_at)

    def _due_at(self, settings: AcmeSettings, wanted: Subjects) -> float:
        held = self._held
        if held is None or self._tries.issued_by != settings.directory:
            return 0.0
        covers = held.subjects.ips >= wanted.ips and held.subjects.names >= wanted.names
        return held.due_at if covers else 0.0

    def _wanted(self, settings: AcmeSettings) -> Subjects:
        return wanted_subjects(settings, self._own.current, self._hostname)

    def _say_nothing(self, settings: AcmeSettings) -> None:
        if self._nothing_said != settings:
            self._nothing_said = settings
            why = "this host has no public address or name to certify; see acme.identifiers"
            self._log.event("certificate-trouble", why=why)

    async def _order(self, settings: AcmeSettings, wanted: Subjects) -> None:
        try:
            obtain = await asyncio.to_thread(_load_obtain)
            pem = await obtain(settings, wanted, self._directory / ACCOUNT, self._clients)
            held = held_of(pem)
            if held.due_at <= self._clock():
                raise TemporaryError(
                    "the certificate is due for renewal as it comes: see whether this host's"
                    " clock is right"
                )
            tries = Tries(settings.directory, settings.directory)
            await asyncio.to_thread(self._write, pem, tries)
            if self._settings != settings:
                return  # others came meanwhile; they look for themselves
            await asyncio.to_thread(self._keeper.show_public, self._directory / CERTIFICATE)
        except (WaypostError, OSError) as error:
            await self._failed(settings, error)
            return
        self._held, self._tries = held, tries
        self._log.event(
            "certificate-issued",
            identifiers=" ".join(texts_of(held.subjects)),
            until=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(held.expires_at)),
            directory=settings.directory,
        )

    async def _failed(self, settings: AcmeSettings, error: Exception) -> None:
        if self._settings != settings:
            self._log.event("certificate-trouble", why=f"ACME: {error}")
            return  # what failed was meant to go
        now = self._clock()
        self._tries = after_failure(
            *(self._tries, settings.directory, str(error)),
            now=now,
            retry_after_s=getattr(error, "retry_after_s", None),
        )
        wait_s = round(self._tries.again_at - now)
        self._log.event("certificate-trouble", why=f"ACME: {error}", retry_s=wait_s)
        with contextlib.suppress(OSError):  # a full disk may be the very trouble that was said
            await asyncio.to_thread(write_tries, self._directory, self._tries)

    async def _show(self) -> None:
        if self._held is None or self._held.expires_at <= self._clock():
            self._keeper.show_public(None)
            return
        try:
            await asyncio.to_thread(self._keeper.show_public, self._directory / CERTIFICATE)
        except CertificateFault as error:
            self._held = None  # ordered anew
            self._log.event("certificate-trouble", why=error)

    def _read(self) -> tuple[Held | None, Tries]:
        return read_held(self._directory), read_tries(self._directory)

    def _write(self, pem: bytes, tries: Tries) -> None:
        write_secret(self._directory / CERTIFICATE, pem)
        write_tries(self._directory, tries)


def _load_obtain() -> Callable[..., Awaitable[bytes]]:
    # The library takes a while to load, and only who has [acme] needs it.
    from waypost.acme.orders import obtain

    return obtain
