"""Logins of clients: which ways are offered to whom, what a claim is worth, and how guessing ends.

A wrong guess costs its client a growing delay, and the patience of the hub in the end. Passwords
are checked by two threads at most, since each check is made to take memory and time.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Protocol

from waypost.accounts.accounts import Account, Accounts, folded
from waypost.intake.guesses import Guesses, delay_of, forget_oldest
from waypost.mail import reply as replies
from waypost.mail.address import IPAddress
from waypost.mail.reply import Reply
from waypost.net.networks import client_key
from waypost.observe import Log
from waypost.smtp.auth import Secret
from waypost.smtp.events import LoginOffer
from waypost.smtp.sasl import Claim, PasswordClaim, ProofClaim, ScramKeys, TokenClaim

CHECKS_AT_ONCE = 2
# More that wait for their check are sent away.
MAX_WAITING = 64
# A client with this many wrong guesses is sent away unheard; so are clients that are new to an
# account with that many. One is forgiven each minute.
MAX_GUESSES = 10
MAX_GUESSES_AT_ACCOUNT = 100

Answer = Callable[[Account | None, Reply], None]


class TokenVerifier(Protocol):
    """Says whose token it is."""

    async def verify(self, username: str, token: Secret) -> str | None:
        """The name of the account; None: nobody's. Raises TemporaryError."""
        ...


class Logins:
    """Judges logins for all listeners."""

    def __init__(self, accounts: Accounts, log: Log, verifier: TokenVerifier | None = None) -> None:
        """`accounts` and `verifier` may be replaced while running (reload).

        `verifier` None: tokens are not taken.
        """
        self.accounts = accounts
        self.verifier = verifier
        self._log = log
        self._checkers = ThreadPoolExecutor(CHECKS_AT_ONCE, thread_name_prefix="passwords")
        self._verifying: set[asyncio.Task[Account | None]] = set()
        self._waiting = 0
        self._clients = Guesses()
        self._names = Guesses()
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()

    def offer(self, *, needs_tls: bool) -> LoginOffer | None:
        """How accounts may log in; None: there are none."""
        mechanisms: tuple[str, ...] = ("PLAIN", "LOGIN") if len(self.accounts) else ()
        if self.accounts.has_scram:
            mechanisms = ("SCRAM-SHA-256", *mechanisms)
        if self.verifier is not None:
            mechanisms += ("OAUTHBEARER", "XOAUTH2")
        return LoginOffer(mechanisms, self._keys_of, needs_tls) if mechanisms else None

    def judge(self, client: IPAddress, listener: str, claim: Claim, answer: Answer) -> None:
        """Judge a claim; `answer` is called once, at once or later."""
        key, name = client_key(client), folded(claim.username)
        too_many = self._clients.count(key) >= MAX_GUESSES or (
            self._names.count(name) >= MAX_GUESSES_AT_ACCOUNT and (name, key) not in self._known
        )
        judged = partial(self._judged, key, client, listener, claim.username, answer)
        if too_many or self._waiting >= MAX_WAITING:
            why = "too many wrong guesses" if too_many else "too many logins at once"
            self._log.event(
                "login-refused", client=client, listener=listener, account=claim.username, why=why
            )
            answer(None, replies.LOGIN_LATER)
        elif isinstance(claim, ProofClaim):
            judged(self.accounts.find(claim.username) if claim.is_good else None)
        elif isinstance(claim, PasswordClaim):
            self._waiting += 1
            checking = asyncio.get_running_loop().run_in_executor(
                self._checkers, self.accounts.verify, claim.username, claim.password
            )
            checking.add_done_callback(partial(self._done, judged, answer))
        else:
            self._waiting += 1
            verifying = asyncio.get_running_loop().create_task(self._owner_of(claim))
            self._verifying.add(verifying)
            verifying.add_done_callback(self._verifying.discard)
            verifying.add_done_callback(partial(self._done, judged, answer))

    def account_of(self, login: str) -> Account | None:
        """The account that somebody is logged in with; None: it was removed since."""
        account = self.accounts.find(login)
        if account is not None and folded(account.name) == folded(login):
            return account
        # Some only the verifier knows.
        return None if self.verifier is None else Account(login)

    def _keys_of(self, name: str) -> ScramKeys:
        # A session may outlive a password: asked are the accounts there are now.
        return self.accounts.keys_of(name)

    def close(self) -> None:
        """Check no more; for when all sessions have ended."""
        for task in self._verifying:
            task.cancel()
        self._checkers.shutdown(wait=False, cancel_futures=True)

    async def _owner_of(self, claim: TokenClaim) -> Account | None:
        assert self.verifier is not None  # tokens are not offered otherwise
        owner = await self.verifier.verify(claim.username, claim.token)
        return None if owner is None else self.accounts.find(owner) or Account(owner)

    def _done(
        self,
        judged: Callable[[Account | None], None],
        answer: Answer,
        done: asyncio.Future[Account | None],
    ) -> None:
        self._waiting -= 1
        if done.cancelled():
            return  # the hub goes down
        error = done.exception()
        if error is None:
            judged(done.result())
        else:
            # Nobody has guessed wrong: what could tell is not to be had now.
            self._log.event("login-trouble", why=error)
            answer(None, replies.LOGIN_LATER)

    def _judged(
        self,
        key: str,
        client: IPAddress,
        listener: str,
        username: str,
        answer: Answer,
        account: Account | None,
    ) -> None:
        name = folded(username)
        if account is not None:
            self._clients.forgive(key)
            self._known[(name, key)] = None
            forget_oldest(self._known, (name, key))
            self._log.event("login", client=client, listener=listener, account=account.name)
            answer(account, replies.LOGGED_IN)
            return
        guesses = max(self._clients.add(key), self._names.add(name))
        delay_s = delay_of(guesses)
        self._log.event(
            "login-failed",
            client=client,
            listener=listener,
            account=username,
            delay_s=f"{delay_s:.0f}",
        )
        asyncio.get_running_loop().call_later(delay_s, answer, None, replies.LOGIN_REFUSED)
