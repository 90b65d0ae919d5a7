"""One login by OAuth2, kept alive: tokens are refreshed early, once for everybody who waits.

What the server refuses is a loss: everybody is told so at once, and it is asked again only after a
while, or when somebody has logged in.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from waypost.errors import TemporaryError
from waypost.oauth.endpoint import TokenEndpoint
from waypost.oauth.messages import GrantRefused, Tokens, TokenTrouble
from waypost.oauth.store import Kept, Loss, Stamp, TokenFile
from waypost.smtp.auth import Secret

# After trouble the endpoint is left alone this long; the tokens in hand serve while they live.
TROUBLE_S = 30.0
# A loss is asked about again: what was refused by mistake, or mended there, heals by itself.
LOST_AGAIN_S = 600.0
# A token younger than this was not refused for its age: another would be, too.
YOUNG_S = 60.0
# Refresh tokens die when nobody uses them (Microsoft: after 90 days).
IDLE_S = 86_400.0


class LoginLost(TemporaryError):
    """There is no token until the operator has done something: mail waits, however long."""

    status = (7, 8)


class Watcher(Protocol):
    """Hears what the operator should know."""

    async def lost(self, why: str) -> None:
        """The server refuses the grant; it did not before."""
        ...

    async def back(self) -> None:
        """There are tokens again after a loss."""
        ...

    def unwritten(self, why: str) -> None:
        """New tokens are in memory only, since the disk did not take them."""
        ...


class TokenKeeper:
    """Gives the access token that holds now."""

    def __init__(
        self,
        file: TokenFile,
        endpoint: TokenEndpoint,
        *,
        lost: Callable[[str], LoginLost],
        watcher: Watcher | None = None,
    ) -> None:
        """`lost` makes the error for a reason. Without a watcher, losses are not written down
        either: they are the hub's to tell.
        """
        self._file = file
        self._endpoint = endpoint
        self._lost = lost
        self._watcher = watcher
        self._stamp: Stamp | None = None  # None: nothing was read
        self._kept: Kept | None = None  # None: as above
        self._is_unwritten = False
        # What was read must not come after what has been learnt meanwhile.
        self._changing = asyncio.Lock()
        self._refreshing: asyncio.Task[Kept] | None = None  # None: nobody does
        self._asked_at = 0.0  # UTC epoch seconds; when the endpoint was asked last
        self._trouble: TemporaryError | None = None  # None: it answered

    async def kept(self) -> Kept:
        """What is known now, from the file where that has changed. Raises TemporaryError."""
        async with self._changing:
            if self._is_unwritten and self._kept is not None:
                await self._write(self._kept)
            stamp, found = await asyncio.to_thread(self._read)
            if found is None or self._is_unwritten:
                assert self._kept is not None  # the file is as it was read
                return self._kept
            self._stamp = stamp
            self._trouble = None
            return await self._learn(found)

    async def access_token(self, refused: Secret | None = None) -> Secret:
        """A token that lives; `refused` is one that a host did not take.

        Raises LoginLost, or another TemporaryError when there is none now.
        """
        kept = await self.kept()
        tokens, now = kept.tokens, time.time()
        if tokens is not None and tokens.access != refused and kept.loss is None:
            if now < tokens.refresh_at:
                return tokens.access
            if now < tokens.expires_at and self._refreshing is not None:
                return tokens.access  # somebody sees to the next already
        kept = await self._renewed(kept)
        if kept.loss is not None:
            raise self._lost(kept.loss.why)
        if kept.tokens is None or time.time() >= kept.tokens.expires_at:
            raise self._trouble or TokenTrouble("there is no token")
        return kept.tokens.access

    async def another_than(self, refused: Secret) -> bool:
        """True when there is a token other than the one a host did not take: try again.

        Raises as `access_token()`.
        """
        tokens = (await self.kept()).tokens
        if tokens is not None and tokens.access == refused:
            if time.time() - tokens.obtained_at < YOUNG_S:
                return False
            return await self.access_token(refused) != refused
        return tokens is not None

    async def look_after(self) -> None:
        """Use the login now and then, so that it does not die of neglect and its loss is known
        before there is mail. Raises as `access_token()`.
        """
        kept = await self.kept()
        if kept.loss is not None:
            await self.access_token()
        elif kept.tokens is not None and kept.tokens.refresh is not None:
            if time.time() - kept.tokens.obtained_at > IDLE_S:
                await self.access_token(kept.tokens.access)

    def ask_again(self) -> None:
        """Something was mended, perhaps: whatever the server said last, it may be asked."""
        self._asked_at = 0.0

    async def settle(self) -> None:
        """Wait for a refresh under way: a token that was replaced at the server must be kept."""
        if self._refreshing is not None:
            await asyncio.wait([self._refreshing])

    def _read(self) -> tuple[Stamp | None, Kept | None]:
        """None in the second place: the file has not changed. Raises TemporaryError; blocks."""
        try:
            stamp = self._file.stamp()
        except OSError as error:
            raise TokenTrouble(f"{self._file.path}: {error.strerror}") from error
        if stamp == self._stamp and self._kept is not None:
            return stamp, None
        return stamp, self._file.read()

    async def _renewed(self, kept: Kept) -> Kept:
        """Ask for the next tokens, unless that was done just now; one for all who wait."""
        if self._refreshing is None:
            pause_s = 0.0 if self._trouble is None else TROUBLE_S
            if kept.loss is not None:
                pause_s = LOST_AGAIN_S
            if 0 <= time.time() - self._asked_at < pause_s:
                return kept
            self._refreshing = asyncio.create_task(self._refresh(kept.tokens))
            self._refreshing.add_done_callback(self._is_refreshed)
        # Shielded: whoever waits may be stopped, the answer must be kept.
        return await asyncio.shield(self._refreshing)

    def _is_refreshed(self, task: asyncio.Task[Kept]) -> None:
        self._refreshing = None
        if not task.cancelled():
            task.exception()  # whoever waited has it; nobody may be left

    async def _refresh(self, known: Tokens | None) -> Kept:
        async with self._file.alone():
            kept = await self.kept()
            found = kept.tokens
            if found is not None and found != known and time.time() < found.refresh_at:
                return kept  # another process was faster
            self._asked_at = time.time()
            try:
                tokens = await self._endpoint.renewed(found)
            except GrantRefused as error:
                async with self._changing:
                    return await self._note_loss(kept, str(error))
            except TemporaryError as error:
                self._trouble = error
                return kept
            async with self._changing:
                self._trouble = None
                # In memory first: should the disk be full, there is no other copy.
                self._kept = Kept(tokens)
                await self._write(self._kept)
                if kept.loss is not None and self._watcher is not None:
                    await self._watcher.back()
                return self._kept

    async def _note_loss(self, kept: Kept, why: str) -> Kept:
        since = time.time() if kept.loss is None else kept.loss.since
        self._kept = replace(kept, loss=Loss(since, why))
        if self._watcher is not None:
            if kept.loss is None:
                # Told before it is written: a crash in between tells it twice, not never.
                await self._watcher.lost(why)
            if not kept.is_foreign:
                # Else a slip in the configuration would cost the login it hides.
                await self._write(self._kept)
        return self._kept

    async def _write(self, kept: Kept) -> None:
        was_unwritten = self._is_unwritten
        try:
            await asyncio.to_thread(self._file.write, kept)
            self._stamp = await asyncio.to_thread(self._file.stamp)
            self._is_unwritten = False
        except (TemporaryError, OSError) as error:
            self._is_unwritten = True
            if self._watcher is not None and not was_unwritten:
                self._watcher.unwritten(str(error))

    async def _learn(self, found: Kept) -> Kept:
        before, self._kept = self._kept, found
        was_lost = before is not None and before.loss is not None
        if was_lost and found.tokens is not None and found.loss is None:
            if self._watcher is not None:
                await self._watcher.back()
        return found
