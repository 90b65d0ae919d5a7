"""How guessing ends: delays, limits and memory, on a clock that the tests move."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from ipaddress import ip_address
from typing import Any

import pytest

from waypost.accounts.accounts import Account, Accounts
from waypost.accounts.passwords import scram_keys
from waypost.errors import TemporaryError
from waypost.intake import guesses
from waypost.intake.logins import Logins
from waypost.mail import reply as replies
from waypost.mail.reply import Reply
from waypost.observe import Log
from waypost.smtp.auth import Secret
from waypost.smtp.sasl import Claim, PasswordClaim, ProofClaim, TokenClaim

RIGHT = "right"


class Known(Accounts):
    """Accounts with one password and no hashes, which would take their time."""

    def __init__(self, *names: str) -> None:
        super().__init__(Account(name) for name in names)
        self.gate = threading.Event()
        self.gate.set()
        self.trouble: Exception | None = None
        self.at_once = self.most_at_once = self.checks = 0
        self._lock = threading.Lock()

    def verify(self, name: str, password: Secret) -> Account | None:
        with self._lock:
            self.checks += 1
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        self.gate.wait(10)
        with self._lock:
            self.at_once -= 1
        if self.trouble is not None:
            raise self.trouble
        return self.find(name) if password.revealed == RIGHT else None


class Verifier:
    """Knows one token."""

    async def verify(self, username: str, token: Secret) -> str | None:
        if token.revealed == "trouble":
            raise TemporaryError("no answer")
        return "ann" if token.revealed == RIGHT else None


class Bench:
    """Logins with a clock of its own; what is to be answered later is in `later`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_000.0
        self.accounts = Known("ann", "bob")
        self.lines, end = os.pipe()
        self.log = Log(end)
        self.logins = Logins(self.accounts, self.log, Verifier())
        self.later: list[tuple[float, Callable[[], None]]] = []
        self.heard: list[tuple[str | None, Reply]] = []
        clock = type("Clock", (), {"monotonic": staticmethod(lambda: self.now)})
        monkeypatch.setattr(guesses, "time", clock)

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        call_later = loop.call_later

        def later(delay: float, callback: Callable[..., object], *arguments: Any) -> Any:
            if callback == self._answer:
                self.later.append((delay, lambda: callback(*arguments)))
                return None
            return call_later(delay, callback, *arguments)

        loop.call_later = later  # type: ignore[method-assign]

    def ask(self, claim: Claim, client: str = "192.0.2.1") -> None:
        self.logins.judge(ip_address(client), "smtp", claim, self._answer)

    def _answer(self, account: Account | None, reply: Reply) -> None:
        self.heard.append((None if account is None else account.name, reply))

    async def told(self, claim: Claim, client: str = "192.0.2.1") -> Reply | float:
        """The reply, or the delay before it."""
        count, waiting = len(self.heard), len(self.later)
        self.ask(claim, client)
        while len(self.heard) == count and len(self.later) == waiting:
            await asyncio.sleep(0.001)
        if len(self.heard) > count:
            return self.heard[-1][1]
        delay, answer = self.later[-1]
        answer()
        assert self.heard[-1] == (None, replies.LOGIN_REFUSED)
        return delay


def password(name: str = "ann", word: str = RIGHT) -> PasswordClaim:
    return PasswordClaim(name, Secret(word))


WRONG = password(word="wrong")


@contextlib.asynccontextmanager
async def _running(bench: Bench) -> AsyncIterator[None]:
    bench.start()
    try:
        yield
    finally:
        bench.accounts.gate.set()
        bench.logins.close()


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


def run(bench: Bench, work: Coroutine[Any, Any, None]) -> None:
    async def all_of_it() -> None:
        async with _running(bench):
            await work

    asyncio.run(all_of_it())


def test_a_right_password_is_answered_at_once(bench: Bench) -> None:
    async def work() -> None:
        assert await bench.told(password("ANN@phone")) is replies.LOGGED_IN
        assert bench.heard == [("ann", replies.LOGGED_IN)]

    run(bench, work())


def test_delays_grow_and_end_and_are_forgiven(bench: Bench) -> None:
    async def work() -> None:
        delays = [await bench.told(WRONG) for _ in range(10)]
        assert delays == [2, 4, 8, 15, 15, 15, 15, 15, 15, 15]
        checks = bench.accounts.checks
        # Ten are enough: not even the right one is looked at.
        assert await bench.told(WRONG) is replies.LOGIN_LATER
        assert await bench.told(password()) is replies.LOGIN_LATER
        assert bench.accounts.checks == checks
        # Others come in, also to that account.
        assert await bench.told(password(), "192.0.2.2") is replies.LOGGED_IN
        bench.now += 61
        assert await bench.told(WRONG) == 15
        assert await bench.told(WRONG) is replies.LOGIN_LATER
        bench.now += 61
        assert await bench.told(password()) is replies.LOGGED_IN
        # Whoever knows the password has not guessed; the account has been guessed at, though.
        assert await bench.told(password("bob", "wrong")) == 2

    run(bench, work())


def test_the_delay_grows_with_guesses_at_an_account_from_anywhere(bench: Bench) -> None:
    async def work() -> None:
        delays = [await bench.told(WRONG, f"192.0.2.{number}") for number in range(1, 5)]
        assert delays == [2, 4, 8, 15]

    run(bench, work())


def test_names_that_do_not_exist_are_treated_alike(bench: Bench) -> None:
    async def work() -> None:
        for client, name in (("192.0.2.1", "bob"), ("192.0.2.2", "nobody")):
            claim = password(name, "wrong")
            checks = bench.accounts.checks
            assert [await bench.told(claim, client) for _ in range(11)] == [
                *(2, 4, 8, 15, 15, 15, 15, 15, 15, 15),
                replies.LOGIN_LATER,
            ]
            assert bench.accounts.checks == checks + 10

    run(bench, work())


def test_an_account_that_many_guess_at_is_open_to_those_it_knows(bench: Bench) -> None:
    async def work() -> None:
        assert await bench.told(password(), "192.0.2.1") is replies.LOGGED_IN
        for number in range(100):
            assert isinstance(await bench.told(WRONG, f"198.51.100.{number}"), float)
        assert await bench.told(WRONG, "198.51.100.200") is replies.LOGIN_LATER
        assert await bench.told(password(), "198.51.100.200") is replies.LOGIN_LATER
        assert await bench.told(password(), "192.0.2.1") is replies.LOGGED_IN
        assert await bench.told(password("bob"), "198.51.100.200") is replies.LOGGED_IN

    run(bench, work())


def test_an_ipv6_network_is_one_client(bench: Bench) -> None:
    async def work() -> None:
        for number in range(10):
            await bench.told(password("x", "wrong"), f"2001:db8:1:1::{number:x}")
        assert await bench.told(password(), "2001:db8:1:1:ffff::1") is replies.LOGIN_LATER
        assert await bench.told(password(), "2001:db8:1:2::1") is replies.LOGGED_IN

    run(bench, work())


def test_memory_has_an_end(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guesses, "REMEMBERED", 20)

    async def work() -> None:
        for number in range(50):
            await bench.told(password(f"n{number}", "wrong"), f"198.51.100.{number}")
            await bench.told(password(), f"192.0.2.{number}")
        logins = bench.logins
        for memory in (logins._clients._counts, logins._names._counts, logins._known):
            assert len(memory) <= 20

    run(bench, work())


def test_two_checks_at_once_and_64_wait(bench: Bench) -> None:
    async def work() -> None:
        bench.accounts.gate.clear()
        for number in range(70):
            bench.ask(password(), f"192.0.2.{number}")
        assert bench.heard == [(None, replies.LOGIN_LATER)] * 6
        bench.accounts.gate.set()
        while len(bench.heard) < 70:
            await asyncio.sleep(0.001)
        assert bench.heard[6:] == [("ann", replies.LOGGED_IN)] * 64
        assert bench.accounts.most_at_once == 2
        # And all places are free again.
        assert await bench.told(password()) is replies.LOGGED_IN

    run(bench, work())


def test_trouble_is_nobodys_guess(bench: Bench) -> None:
    async def work() -> None:
        bench.accounts.trouble = MemoryError("no memory")
        for _ in range(12):
            assert await bench.told(password()) is replies.LOGIN_LATER
            assert await bench.told(TokenClaim("ann", Secret("trouble"))) is replies.LOGIN_LATER
        bench.accounts.trouble = None
        assert await bench.told(password()) is replies.LOGGED_IN

    run(bench, work())


def test_proofs_and_tokens_cost_the_same(bench: Bench) -> None:
    async def work() -> None:
        assert await bench.told(ProofClaim("ann", is_good=True)) is replies.LOGGED_IN
        assert await bench.told(ProofClaim("gone", is_good=True), "192.0.2.9") == 2
        assert await bench.told(TokenClaim("ann", Secret(RIGHT))) is replies.LOGGED_IN
        assert await bench.told(ProofClaim("ann", is_good=False)) == 2
        assert await bench.told(TokenClaim("ann", Secret("wrong"))) == 4
        for _ in range(8):
            await bench.told(ProofClaim("ann", is_good=False))
        assert await bench.told(ProofClaim("ann", is_good=True)) is replies.LOGIN_LATER
        assert await bench.told(TokenClaim("ann", Secret(RIGHT))) is replies.LOGIN_LATER

    run(bench, work())


def test_what_is_offered(bench: Bench) -> None:
    def mechanisms() -> tuple[str, ...] | None:
        offer = logins.offer(needs_tls=True)
        return None if offer is None else offer.mechanisms

    logins = Logins(Accounts(), bench.log)
    assert mechanisms() is None
    logins.verifier = Verifier()
    assert mechanisms() == ("OAUTHBEARER", "XOAUTH2")
    logins.verifier = None
    logins.accounts = Accounts([Account("ann")])
    assert mechanisms() == ("PLAIN", "LOGIN")
    logins.accounts = Accounts([Account("ann", scram=scram_keys(Secret("x")))])
    assert mechanisms() == ("SCRAM-SHA-256", "PLAIN", "LOGIN")
    logins.close()


def test_a_session_older_than_a_password_does_not_know_the_old_one(bench: Bench) -> None:
    """Its offer asks for the keys of the accounts there are now."""
    old, new = (Accounts([Account("ann", scram=scram_keys(Secret(word)))]) for word in ("o", "n"))
    logins = Logins(old, bench.log)
    offer = logins.offer(needs_tls=True)
    assert offer is not None
    logins.accounts = new
    assert offer.keys_of("ann") == new.keys_of("ann") != old.keys_of("ann")
    logins.close()


def test_a_removed_account_is_not_taken_for_another(bench: Bench) -> None:
    """By its name with a domain "ann" could log in; what is open is no session of hers."""
    logins = Logins(Accounts([Account("ann"), Account("ann@phone")]), bench.log)
    assert logins.account_of("ann@phone") is logins.accounts.find("ann@phone")
    logins.accounts = Accounts([Account("ann")])
    assert logins.account_of("ann") is not None
    assert logins.account_of("ann@phone") is None
    # With tokens there are accounts that nobody has set up.
    logins.verifier = Verifier()
    assert logins.account_of("ann@phone") == Account("ann@phone")
    logins.close()


def test_the_end_while_passwords_are_checked(bench: Bench) -> None:
    """Those that wait are never answered, which ends with their sessions; nothing hangs."""

    async def work() -> None:
        bench.accounts.gate.clear()
        for _ in range(10):
            bench.ask(password())
        bench.logins.close()
        bench.accounts.gate.set()
        while len(bench.heard) < 2 and bench.logins._waiting:
            await asyncio.sleep(0.001)
        assert bench.logins._waiting == 0

    run(bench, work())


def test_no_password_is_in_the_log(bench: Bench) -> None:
    async def work() -> None:
        await bench.told(password(word="geheim\r\nx"))
        await bench.told(password("evil\r\nname", "geheim"))
        await bench.told(TokenClaim("ann", Secret("geheim")))

    run(bench, work())
    bench.log.close()
    text = os.read(bench.lines, 65_536).decode()
    assert "login-failed" in text
    assert "geheim" not in text
    assert len(text.splitlines()) == 3
