"""How sessions with relays log in: with the password configured, or with a token that is kept
alive (oauth/keeper).
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from waypost.errors import WaypostError
from waypost.http.client import HttpClient
from waypost.oauth.endpoint import TokenEndpoint
from waypost.oauth.keeper import LOST_AGAIN_S, LoginLost, TokenKeeper, Watcher
from waypost.oauth.messages import TokenTrouble
from waypost.oauth.settings import OAuthSettings
from waypost.oauth.store import Kept, TokenFile
from waypost.observe import Log
from waypost.routing.hops import Relay
from waypost.smtp.auth import Login, Mechanism

# Logins nobody uses are looked after this often.
LOOK_S = 3_600.0

HOW_TO = "docs/how-to/forward-to-gmail-or-microsoft-365.md"
# What providers say when it is not the password or the token that is wrong.
_KNOWN_REFUSALS = (
    ("5.7.139", f"SMTP AUTH is off for the mailbox or its organisation: turn it on, see {HOW_TO}"),
    ("5.7.9", "the account wants an app password or OAuth2, not its own password"),
    ("5.7.57", "the client has not logged in as the host wants it: see [relay] auth"),
)


class LostLogin(NamedTuple):
    """What the operator is told of a loss."""

    what: str  # who refuses what
    why: str  # as it was said
    advice: str


# Told of a relay: its login is lost; None: it is back.
OnLogin = Callable[[Relay, LostLogin | None], Awaitable[None]]


class _Refusal(NamedTuple):
    """A relay took neither the password nor a token that is new."""

    at: float  # monotonic; when it was said last
    why: str


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
        self._refusals: dict[str, _Refusal] = {}  # by the name of the relay

    def configure(self, relays: Sequence[Relay]) -> None:
        """Other relays hold from now on (reload)."""
        self._relays = {relay.name: relay for relay in relays}
        wanted = {(relay.name, relay.oauth) for relay in relays}
        self._keepers = {key: keeper for key, keeper in self._keepers.items() if key in wanted}
        for keeper in self._keepers.values():
            keeper.ask_again()
        for name, refusal in self._refusals.items():
            self._refusals[name] = refusal._replace(at=-math.inf)
        self._configured.set()

    async def login(self, relay: Relay) -> Login | None:
        """The login of a new session; None: nobody logs in there.

        Raises LoginLost, or another TemporaryError when there is no token now.
        """
        if relay.username is None:
            return None
        refusal = self._refusals.get(relay.name)
        if refusal is not None and time.monotonic() - refusal.at < LOST_AGAIN_S:
            raise _refused(relay, refusal.why)
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

    async def refused(self, relay: Relay, why: str) -> LoginLost:
        """A relay takes no login of ours, and there is no other: what that means for mail.

        The operator is told, once; the relay is left alone for a while. A login that is not
        configured any more is of no account: its session began before a reload.
        """
        current = self._relays.get(relay.name)
        if current is None or _login_of(current) != _login_of(relay):
            return _refused(relay, why)
        is_new = relay.name not in self._refusals
        self._refusals[relay.name] = _Refusal(time.monotonic(), why)
        if is_new and self._log is not None:
            self._log.event("relay-login-lost", relay=relay.name, why=why)
            what = f"Relay {relay.name} does not let {relay.username} log in"
            await self._tell(relay.name, LostLogin(what, why, advice_on(relay, why)))
        return _refused(relay, why)

    async def taken(self, relay: Relay) -> None:
        """A relay has taken a login, perhaps after a refusal."""
        if self._refusals.pop(relay.name, None) is not None and self._log is not None:
            self._log.event("relay-login-back", relay=relay.name)
            await self._tell(relay.name, None)

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
            refusal = self._refusals.get(name)
            if refusal is not None:
                self._refusals[name] = refusal._replace(at=-math.inf)
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
                watcher = _Watcher(relay, settings, self._log, self._tell)
            keeper = self._keepers[key] = TokenKeeper(
                self.file(relay, settings),
                self.endpoint(settings),
                lost=partial(_lost, relay.name, settings),
                watcher=watcher,
            )
        return keeper

    async def _tell(self, name: str, lost: LostLogin | None) -> None:
        relay = self._relays.get(name)
        if relay is not None and self._on_login is not None:
            await self._on_login(relay, lost)


class _Watcher(Watcher):
    """Logs what becomes of one relay's login, and passes it on."""

    def __init__(
        self,
        relay: Relay,
        settings: OAuthSettings,
        log: Log,
        tell: Callable[[str, LostLogin | None], Awaitable[None]],
    ) -> None:
        self._name = relay.name
        self._what = (
            f"{settings.token_url} refuses to give relay {relay.name} a token for {relay.username}"
        )
        self._advice = what_to_do(relay.name, settings)
        self._log = log
        self._tell = tell

    async def lost(self, why: str) -> None:
        self._log.event("relay-login-lost", relay=self._name, why=why)
        await self._tell(self._name, LostLogin(self._what, why, self._advice))

    async def back(self) -> None:
        self._log.event("relay-login-back", relay=self._name)
        await self._tell(self._name, None)

    def unwritten(self, why: str) -> None:
        self._log.event("relay-login-trouble", relay=self._name, why=why)


def what_to_do(name: str, settings: OAuthSettings) -> str:
    """What gives a relay tokens again."""
    if settings.grant.needs_login:
        return f"run `waypost relay login {name}`"
    return f"mend what `waypost relay test {name}` says"


def advice_on(relay: Relay, said: str) -> str:
    """What to do about a login that a relay refuses."""
    known = next((advice for status, advice in _KNOWN_REFUSALS if status in said), None)
    if known is not None:
        return known
    if relay.oauth is None:
        return "see username and password"
    return (
        "the account has to be the one that agreed to the login, and the scopes those of"
        f" SMTP; see {HOW_TO}"
    )


def _login_of(relay: Relay) -> tuple[object, ...]:
    return relay.username, relay.password, relay.oauth, relay.auth


def _refused(relay: Relay, why: str) -> LoginLost:
    return LoginLost(f"{why}: {advice_on(relay, why)} (waypost relay test {relay.name})")


def _lost(name: str, settings: OAuthSettings, why: str) -> LoginLost:
    return LoginLost(f"the login of relay {name} is lost: {what_to_do(name, settings)} ({why})")
