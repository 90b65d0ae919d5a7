"""Tokens on disk: one JSON file for each relay in `tokens/` of the data directory.

Written whole, mode 0600, and durable before anybody uses what it holds: a refresh token that was
replaced at the server is lost with the only copy of the new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from waypost.durable import sync_directory, write_secret
from waypost.oauth.messages import Tokens, TokenTrouble
from waypost.oauth.settings import OAuthSettings
from waypost.smtp.auth import Secret

# Another process of ours that refreshes is waited for.
LOCK_S = 60.0
_LOCK_LOOK_S = 0.05


class Loss(NamedTuple):
    """The server refuses the grant."""

    since: float  # UTC epoch seconds
    why: str


@dataclass(frozen=True, slots=True)
class Kept:
    """What is known of a login."""

    tokens: Tokens | None = None  # None: there are none that fit the settings
    loss: Loss | None = None  # None: the server has refused nothing
    is_foreign: bool = False  # the file holds what other settings got: not to be written over


class Stamp(NamedTuple):
    """Tells one content of a file from another."""

    changed_ns: int
    inode: int
    size: int


class TokenFile:
    """The file of one relay."""

    def __init__(self, directory: Path, name: str, settings: OAuthSettings) -> None:
        """Tokens of another account, client or server than `settings` say are not used."""
        self.path = directory / f"{name}.json"
        self._owner = {
            "account": settings.account,
            "client_id": settings.client_id,
            "token_url": settings.token_url,
        }

    def stamp(self) -> Stamp | None:
        """What the file is now; None: there is none. Raises OSError; blocks."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return None
        return Stamp(found.st_mtime_ns, found.st_ino, found.st_size)

    def read(self) -> Kept:
        """Raises TemporaryError for a file that cannot be read; blocks."""
        try:
            content = json.loads(self.path.read_text("utf-8"))
        except FileNotFoundError:
            return Kept()
        except OSError as error:
            raise TokenTrouble(f"{self.path} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise TokenTrouble(f"{self.path} is no token file; log in again") from error
        if not isinstance(content, dict) or content.get("owner") != self._owner:
            return Kept(is_foreign=True)
        try:
            return Kept(_tokens(content.get("tokens")), _loss(content.get("loss")))
        except (KeyError, TypeError, ValueError) as error:
            raise TokenTrouble(f"{self.path} is no token file; log in again") from error

    def write(self, kept: Kept) -> None:
        """Keep it, durably. Raises TemporaryError; blocks."""
        content: dict[str, Any] = {"v": 1, "owner": self._owner}
        if kept.tokens is not None:
            content["tokens"] = {
                "access": kept.tokens.access.revealed,
                "refresh": None if kept.tokens.refresh is None else kept.tokens.refresh.revealed,
                "obtained_at": kept.tokens.obtained_at,
                "expires_at": kept.tokens.expires_at,
            }
        if kept.loss is not None:
            content["loss"] = {"since": kept.loss.since, "why": kept.loss.why}
        try:
            self._make_directory()
            write_secret(self.path, json.dumps(content, indent=1).encode() + b"\n")
            self._hand_over(self.path)
        except OSError as error:
            raise TokenTrouble(f"{self.path} cannot be written: {error.strerror}") from error

    def _make_directory(self) -> None:
        directory = self.path.parent
        if not directory.is_dir():
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._hand_over(directory)
            sync_directory(directory.parent)

    def _hand_over(self, path: Path) -> None:
        """Give what root makes, logging in, to whom the data directory belongs: the hub's user."""
        if os.geteuid() == 0:
            owner = self.path.parent.parent.stat()
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)

    @contextlib.asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """While no other process of ours does the same: of two that refresh by one refresh token
        the second would break the login (RFC 9700 §4.14.2). Raises TemporaryError.
        """
        lock = self.path.with_suffix(".lock")
        try:
            await asyncio.to_thread(self._make_directory)
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            self._hand_over(lock)
        except OSError as error:
            raise TokenTrouble(f"{lock} cannot be opened: {error.strerror}") from error
        try:
            deadline = time.monotonic() + LOCK_S
            while not _is_locked(descriptor):
                if time.monotonic() > deadline:
                    raise TokenTrouble(f"{lock} is held by another process; see what it does")
                await asyncio.sleep(_LOCK_LOOK_S)
            yield
        finally:
            os.close(descriptor)


def _is_locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _tokens(content: Any) -> Tokens | None:
    if content is None:
        return None
    refresh = content["refresh"]
    return Tokens(
        Secret(str(content["access"])),
        None if refresh is None else Secret(str(refresh)),
        float(content["obtained_at"]),
        float(content["expires_at"]),
    )


def _loss(content: Any) -> Loss | None:
    return None if content is None else Loss(float(content["since"]), str(content["why"]))
