"""MTA-STS policies of domains (RFC 8461): found, fetched, and kept for as long as they hold.

They lie in `tls/mta-sts.db` of the data directory. A policy that was seen once holds until it is
over, whatever DNS or the web server say meanwhile: taking them away is what an attacker would do.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from waypost.dns.resolver import Resolver
from waypost.errors import ConnectForbidden, TemporaryError
from waypost.http.client import HttpClient, HttpFailed
from waypost.mail.address import Domain
from waypost.observe import Log
from waypost.tls.kept import KeptUnavailable, kept
from waypost.tls.sts import Mode, StsPolicy, parse_policy, policy_id

# RFC 8461 §3.3.
FETCH_S = 60.0
MAX_POLICY_BYTES = 65_536
# A fetch that failed is not tried again before.
AGAIN_S = 300.0
# Policies kept at once; those fetched longest ago go first.
MAX_KEPT = 20_000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS policy (
    domain TEXT PRIMARY KEY,
    id TEXT NOT NULL,
    mode TEXT NOT NULL,
    max_age_s INTEGER NOT NULL,
    mx TEXT NOT NULL,
    fetched_at REAL NOT NULL
) WITHOUT ROWID
"""


class _Kept(NamedTuple):
    id: str
    policy: StsPolicy
    fetched_at: float


class StsPolicies:
    """See the module text."""

    def __init__(
        self,
        path: Path,
        client: HttpClient,
        log: Log | None = None,
        *,
        port: int = 443,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`client` asks as for strangers: who writes an address chooses the domain."""
        self._path = path
        self._client = client
        self._log = log
        self._port = port
        self._clock = clock
        self._known: OrderedDict[str, _Kept | None] = OrderedDict()  # as on disk
        self._failed_at: dict[str, float] = {}
        self._fetching: dict[str, asyncio.Task[_Kept | None]] = {}

    async def policy(self, domain: Domain, resolver: Resolver) -> StsPolicy | None:
        """What holds for a domain now; None: nothing does. Raises KeptUnavailable."""
        name = domain.ascii
        self._client.resolver = resolver  # which may have been replaced (reload)
        known = await self._recall(name)
        if known is not None and known.fetched_at + known.policy.max_age_s <= self._clock():
            known = None
        try:
            answer = await resolver.txt(f"_mta-sts.{name}")
            found = policy_id(answer.records)
        except TemporaryError:
            found = None
        if found is not None and self._failed_at.get(name, 0.0) + AGAIN_S <= self._clock():
            if known is None or known.id != found:
                known = await asyncio.shield(self._refresh(name, found)) or known
            elif known.fetched_at + known.policy.max_age_s / 2 <= self._clock():
                self._refresh(name, found)  # in the background: what is known holds meanwhile
        return None if known is None else known.policy

    async def close(self) -> None:
        """Give up what is being fetched."""
        for task in self._fetching.values():
            task.cancel()

    def _refresh(self, name: str, found: str) -> asyncio.Task[_Kept | None]:
        task = self._fetching.get(name)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._fetch_and_keep(name, found))
            self._fetching[name] = task
            task.add_done_callback(lambda _: self._fetching.pop(name))
        return task

    async def _fetch_and_keep(self, name: str, found: str) -> _Kept | None:
        """The policy as it is now; None: it cannot be had, and the log says why."""
        try:
            fresh = _Kept(found, await self._fetch(name), self._clock())
        except (TemporaryError, ConnectForbidden, ValueError) as error:
            self._failed_at[name] = self._clock()
            if len(self._failed_at) > MAX_KEPT:
                self._failed_at.pop(next(iter(self._failed_at)))
            self._say(name, error)
            return None
        self._failed_at.pop(name, None)
        self._remember(name, fresh)
        try:
            await asyncio.to_thread(self._write, name, fresh)
        except KeptUnavailable as error:
            self._say(name, error)  # it holds until the hub is started again
        return fresh

    def _say(self, name: str, why: Exception) -> None:
        if self._log is not None:
            self._log.event("mta-sts-trouble", domain=name, why=why)

    async def _fetch(self, name: str) -> StsPolicy:
        port = "" if self._port == 443 else f":{self._port}"
        response = await self._client.fetch(
            "GET",
            f"https://mta-sts.{name}{port}/.well-known/mta-sts.txt",
            limit_bytes=MAX_POLICY_BYTES,
            timeout_s=FETCH_S,
        )
        # RFC 8461 §3.3: redirects are not followed, and other types are not read.
        if response.status != 200:
            raise HttpFailed(f"the policy was answered with {response.status}")
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "text/plain":
            raise HttpFailed(f"the policy is {kind or 'of no type'}, not text/plain")
        return parse_policy(response.body)

    def _remember(self, name: str, entry: _Kept | None) -> None:
        self._known[name] = entry
        self._known.move_to_end(name)
        if len(self._known) > MAX_KEPT:
            self._known.popitem(last=False)

    async def _recall(self, name: str) -> _Kept | None:
        if name not in self._known:
            self._remember(name, await asyncio.to_thread(self._read, name))
        return self._known[name]

    def _read(self, name: str) -> _Kept | None:
        if not self._path.exists():
            return None
        with kept(self._path, _SCHEMA) as database:
            row = database.execute(
                "SELECT id, mode, max_age_s, mx, fetched_at FROM policy WHERE domain = ?", (name,)
            ).fetchone()
        if row is None:
            return None
        found, mode, max_age_s, mx, fetched_at = row
        return _Kept(found, StsPolicy(Mode(mode), max_age_s, tuple(mx.split())), fetched_at)

    def _write(self, name: str, entry: _Kept) -> None:
        policy = entry.policy
        with kept(self._path, _SCHEMA) as database:
            database.execute(
                "DELETE FROM policy WHERE fetched_at + max_age_s <= ?", (self._clock(),)
            )
            database.execute(
                "INSERT OR REPLACE INTO policy VALUES (?, ?, ?, ?, ?, ?)",
                (
                    *(name, entry.id, policy.mode.value, policy.max_age_s),
                    *(" ".join(policy.mx), entry.fetched_at),
                ),
            )
            database.execute(
                "DELETE FROM policy WHERE domain IN"
                " (SELECT domain FROM policy ORDER BY fetched_at DESC LIMIT -1 OFFSET ?)",
                (MAX_KEPT,),
            )
