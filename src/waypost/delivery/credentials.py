"""How sessions with relays log in: with the password configured, or with a token that is kept
alive (oauth/keeper).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

from waypost.errors import WaypostError
from waypost.http.client import HttpClient
from waypost.oauth.endpoint import TokenEndpoint
from waypost.oauth.keeper import LoginLost, TokenKeeper, Watcher
from waypost.oauth.messages import TokenTrouble
from waypost.oauth.settings import OAuthSettings
from waypost.oauth.store import Kept, TokenFile
from waypost.observe import Log
from waypost.routing.hops import Relay
from waypost.smtp.auth import Login, Mechanism

# Logins nobody uses are looked after this often.
LOOK_S = 3_600.0

# Told of a relay: what became of its login, True when it is lost, and why.
OnLogin = Callable[[Relay, bool, str], Awaitable[None]]


class Credentials:
    """The logins of all relays."""

    def __init__(
        self,
        data_directory: Path,
        http: HttpClient,
        relays: Sequence[Relay],
        *,
        log: Log | None = None,
        on_login: OnLogin | None = None,
    ) -> None:
        """`log` and `on_login` are a hub's; a command that has neither writes down no loss."""
        self._directory = data_directory / "tokens"
        self.http = http
        self._log = log
        self._on_login = on_login
        self._relays = {relay.name: relay for relay in relays}
        self._configured = asyncio.Event()
        self._keepers: dict[tuple[str, OAuthSettings], TokenKeeper] = {}

    def configure(self, relays: Sequence[Relay]) -> None:
        """Other relays hold from now on (reload)."""
        self._relays = {relay.name: relay for relay in relays}
        wanted = {(relay.name, relay.oauth) for relay in relays}
        self._keepers = {key: keeper for key, keeper in self._keepers.items() if key in wanted}
        for keeper in self._keepers.values():
            keeper.ask_again()
        self._configured.set()

    async def login(self, relay: Relay) -> Login | None:
        """The login of a new session; None: nobody logs in there.

        Raises LoginLost, or another TemporaryError when there is no token now.
        """
        if relay.username is None:
            return None
        if relay.oauth is not None:
            token = await self._keeper(relay, relay.oauth).access_token()
            return Login(relay.username, token, relay.auth or Mechanism.XOAUTH2)
        if relay.password is None:
            return None
        return Login(relay.username, relay.password, relay.auth)

    async def kept(self, relay: Relay) -> Kept | None:
        """What is known of a relay's tokens; None: it uses none. Raises TemporaryError."""
        if relay.oauth is None:
            return None
        return await self._keeper(relay, relay.oauth).kept()

    async def another_than(self, relay: Relay, login: Login | None) -> bool:
        """True when a login that was refused may be tried once more, with another token.

        Raises as `login()`.
        """
        if login is None or relay.oauth is None:
            return False
        return await self._keeper(relay, relay.oauth).another_than(login.password)

    async def keep(self) -> None:
        """Until cancelled: use each login now and then, mail or not, and after a reload."""
        while True:
            self._configured.clear()
            for relay in list(self._relays.values()):
                await self.look_after(relay)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._configured.wait()

    async def look_after(self, relay: Relay) -> None:
        """See what became of a login; trouble is told elsewhere, or passes."""
        if relay.oauth is None:
            return
        try:
            await self._keeper(relay, relay.oauth).look_after()
        except WaypostError as error:
            if self._log is not None and not isinstance(error, LoginLost):
                self._log.event("relay-login-trouble", relay=relay.name, why=error)

    async def see(self, name: str) -> None:
        """Somebody has logged in: take notice. Unknown relays are none of ours."""
        relay = self._relays.get(name)
        if relay is not None:
            await self.look_after(relay)

    async def close(self) -> None:
        """Let refreshes under way come to their end."""
        for keeper in self._keepers.values():
            await keeper.settle()

    def lost(self) -> set[str]:
        """The relays whose login is lost, by name, as their files have it; blocks."""
        found = set()
        for relay in self._relays.values():
            # A file that cannot be read is trouble, told of when the relay is used.
            with contextlib.suppress(TokenTrouble):
                if relay.oauth is not None and self.file(relay, relay.oauth).read().loss:
                    found.add(relay.name)
        return found

    def file(self, relay: Relay, settings: OAuthSettings) -> TokenFile:
        """Where a relay's tokens lie."""
        return TokenFile(self._directory, relay.name, settings)

    def endpoint(self, settings: OAuthSettings) -> TokenEndpoint:
        """The server that gives them."""
        return TokenEndpoint(settings, self.http)

    def _keeper(self, relay: Relay, settings: OAuthSettings) -> TokenKeeper:
        key = (relay.name, settings)
        keeper = self._keepers.get(key)
        if keeper is None:
            watcher = None
            if self._log is not None and self._on_login is not None:
                watcher = _Watcher(relay.name, self._log, self._tell)
            keeper = self._keepers[key] = TokenKeeper(
                self.file(relay, settings),
                self.endpoint(settings),
                lost=partial(_lost, relay.name, settings),
                watcher=watcher,
            )
        return keeper

    async def _tell(self, name: str, is_lost: bool, why: str) -> None:
        relay = self._relays.get(name)
        if relay is not None and self._on_login is not None:
            await self._on_login(relay, is_lost, why)


class _Watcher(Watcher):
    """Logs what becomes of one relay's login, and passes it on."""

    def __init__(
        self, name: str, log: Log, tell: Callable[[str, bool, str], Awaitable[None]]
    ) -> None:
        self._name = name
        self._log = log
        self._tell = tell

    async def lost(self, why: str) -> None:
        self._log.event("relay-login-lost", relay=self._name, why=why)
        await self._tell(self._name, True, why)

    async def back(self) -> None:
        self._log.event("relay-login-back", relay=self._name)
        await self._tell(self._name, False, "")

    def unwritten(self, why: str) -> None:
        self._log.event("relay-login-trouble", relay=self._name, why=why)


def what_to_do(name: str, settings: OAuthSettings) -> str:
    """What gives a relay tokens again."""
    if settings.grant.needs_login:
        return f"run `waypost relay login {name}`"
    return f"mend what `waypost relay test {name}` says"


def _lost(name: str, settings: OAuthSettings, why: str) -> LoginLost:
    return LoginLost(f"the login of relay {name} is lost: {what_to_do(name, settings)} ({why})")
