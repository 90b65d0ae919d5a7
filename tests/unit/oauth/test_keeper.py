"""One login kept alive: who asks, when, and what is kept, with servers of a few lines."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from waypost.oauth import keeper as module
from waypost.oauth.keeper import LoginLost, TokenKeeper
from waypost.oauth.messages import GrantRefused, Tokens, TokenTrouble
from waypost.oauth.settings import Grant, OAuthSettings
from waypost.oauth.store import Kept, Loss, TokenFile
from waypost.smtp.auth import Secret

SETTINGS = OAuthSettings(Grant.CODE, "me", "https://token.example/token", "client")


def tokens(name: str, age_s: float = 0, life_s: float = 3_600) -> Tokens:
    at = time.time() - age_s
    return Tokens(Secret(name), Secret(f"refresh-{name}"), at, at + life_s)


class Server:
    """Stands in for the endpoint: gives what it is told to, and counts."""

    def __init__(self, *answers: Tokens | Exception) -> None:
        self._answers = list(answers)
        self.seen: list[Tokens | None] = []

    async def renewed(self, held: Tokens | None) -> Tokens:
        self.seen.append(held)
        await asyncio.sleep(0.01)
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Watching:
    """A watcher that writes down what it hears."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    async def lost(self, why: str) -> None:
        self.heard.append(f"lost {why}")

    async def back(self) -> None:
        self.heard.append("back")

    def unwritten(self, why: str) -> None:
        self.heard.append("unwritten")


class Case:
    """A keeper with its file, its server and its watcher."""

    def __init__(self, directory: Path, *answers: Tokens | Exception) -> None:
        self.file = TokenFile(directory / "tokens", "r", SETTINGS)
        self.server = Server(*answers)
        self.watcher = Watching()
        self.keeper = self.another()

    def another(self) -> TokenKeeper:
        return TokenKeeper(
            self.file,
            self.server,  # type: ignore[arg-type]
            lost=lambda why: LoginLost(f"lost: {why}"),
            watcher=self.watcher,
        )


MakeCase = Callable[..., Case]


@pytest.fixture
def case(tmp_path: Path) -> MakeCase:
    return lambda *answers: Case(tmp_path, *answers)


def test_a_young_token_is_not_refreshed(case: MakeCase) -> None:
    made = case()
    made.file.write(Kept(tokens("a")))
    assert asyncio.run(made.keeper.access_token()).revealed == "a"
    assert not made.server.seen


def test_one_refresh_for_all_who_wait(case: MakeCase) -> None:
    made = case(tokens("b"))
    made.file.write(Kept(tokens("a", age_s=4_000)))

    async def many() -> list[Secret]:
        return await asyncio.gather(*(made.keeper.access_token() for _ in range(30)))

    assert {token.revealed for token in asyncio.run(many())} == {"b"}
    assert [held and held.refresh for held in made.server.seen] == [Secret("refresh-a")]
    kept = made.file.read().tokens
    assert kept is not None
    assert kept.refresh == Secret("refresh-b")


def test_two_processes_use_a_refresh_token_once(case: MakeCase) -> None:
    made = case(tokens("b"))
    made.file.write(Kept(tokens("a", age_s=4_000)))
    others = [made.keeper, made.another(), made.another()]

    async def many() -> list[Secret]:
        return await asyncio.gather(*(keeper.access_token() for keeper in others))

    assert {token.revealed for token in asyncio.run(many())} == {"b"}
    assert len(made.server.seen) == 1


def test_who_stops_waiting_ends_no_refresh(case: MakeCase) -> None:
    made = case(tokens("b"))
    made.file.write(Kept(tokens("a", age_s=4_000)))

    async def stop() -> None:
        task = asyncio.create_task(made.keeper.access_token())
        while not made.server.seen:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await made.keeper.settle()

    asyncio.run(stop())
    kept = made.file.read().tokens
    assert kept is not None
    assert kept.access == Secret("b")


def test_trouble_leaves_the_token_that_lives(case: MakeCase) -> None:
    made = case(TokenTrouble("away"))
    made.file.write(Kept(tokens("a", age_s=3_500)))

    async def twice() -> None:
        for _ in range(2):
            assert (await made.keeper.access_token()).revealed == "a"

    asyncio.run(twice())
    assert len(made.server.seen) == 1  # it is left alone for a while
    assert not made.watcher.heard


def test_trouble_without_a_token_is_no_loss(case: MakeCase) -> None:
    made = case(TokenTrouble("away"))
    made.file.write(Kept(tokens("a", age_s=4_000)))
    for _ in range(2):
        with pytest.raises(TokenTrouble, match="away"):
            asyncio.run(made.keeper.access_token())
    assert not made.watcher.heard


def test_a_loss_is_told_once_and_asked_about_again_later(
    case: MakeCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = case(GrantRefused("invalid_grant", ""), GrantRefused("invalid_grant", ""), tokens("b"))
    made.file.write(Kept(tokens("a", age_s=4_000)))

    async def scene() -> None:
        for _ in range(3):
            with pytest.raises(LoginLost, match="lost: invalid_grant"):
                await made.keeper.access_token()
        assert len(made.server.seen) == 1
        # Another start of the hub asks again, and tells nothing anew.
        again = made.another()
        with pytest.raises(LoginLost):
            await again.access_token()
        assert made.watcher.heard == ["lost invalid_grant"]
        monkeypatch.setattr(module, "LOST_AGAIN_S", 0.0)
        assert (await again.access_token()).revealed == "b"
        assert made.watcher.heard == ["lost invalid_grant", "back"]

    asyncio.run(scene())
    assert made.file.read().loss is None


def test_a_new_login_ends_a_loss(case: MakeCase) -> None:
    made = case(GrantRefused("invalid_grant", ""))
    made.file.write(Kept(tokens("a", age_s=4_000)))

    async def scene() -> None:
        with pytest.raises(LoginLost):
            await made.keeper.access_token()
        made.file.write(Kept(tokens("c")))
        assert (await made.keeper.access_token()).revealed == "c"

    asyncio.run(scene())
    assert made.watcher.heard == ["lost invalid_grant", "back"]


def test_a_full_disk_costs_no_token(case: MakeCase, monkeypatch: pytest.MonkeyPatch) -> None:
    made = case(tokens("b"))
    made.file.write(Kept(tokens("a", age_s=4_000)))

    async def scene() -> None:
        with monkeypatch.context() as patch:

            def full(_: Kept) -> None:
                raise TokenTrouble("No space left on device")

            patch.setattr(made.file, "write", full)
            for _ in range(2):
                assert (await made.keeper.access_token()).revealed == "b"
        assert made.watcher.heard == ["unwritten"]
        assert (await made.keeper.access_token()).revealed == "b"

    asyncio.run(scene())
    kept = made.file.read().tokens
    assert kept is not None
    assert kept.access == Secret("b")


def test_another_token_than_the_one_refused(case: MakeCase) -> None:
    made = case(tokens("b"))
    made.file.write(Kept(tokens("a", age_s=300)))

    async def scene() -> None:
        assert await made.keeper.another_than(Secret("older"))
        assert not made.server.seen
        assert await made.keeper.another_than(Secret("a"))
        # The next is too young for its age to be the reason.
        assert not await made.keeper.another_than(Secret("b"))

    asyncio.run(scene())
    assert len(made.server.seen) == 1


def test_a_login_is_used_now_and_then(case: MakeCase) -> None:
    made = case(tokens("b"))
    made.file.write(Kept(tokens("a", age_s=90_000)))

    async def scene() -> None:
        await made.keeper.look_after()
        await made.keeper.look_after()

    asyncio.run(scene())
    assert len(made.server.seen) == 1


def test_tokens_of_another_account_are_not_used(case: MakeCase, tmp_path: Path) -> None:
    made = case()
    made.file.write(Kept(tokens("a"), Loss(1.0, "x")))
    for changed in (
        OAuthSettings(Grant.CODE, "you", SETTINGS.token_url, "client"),
        OAuthSettings(Grant.CODE, "me", "https://thief.example/token", "client"),
        OAuthSettings(Grant.CODE, "me", SETTINGS.token_url, "other"),
    ):
        assert TokenFile(tmp_path / "tokens", "r", changed).read() == Kept(is_foreign=True)


def test_a_slip_in_the_settings_costs_no_login(case: MakeCase, tmp_path: Path) -> None:
    made = case(GrantRefused("invalid_grant", ""))
    made.file.write(Kept(tokens("a")))
    mine = made.file
    slip = OAuthSettings(Grant.CODE, "me", SETTINGS.token_url, "slip")
    made.file = TokenFile(tmp_path / "tokens", "r", slip)
    with pytest.raises(LoginLost):
        asyncio.run(made.another().access_token())
    assert made.watcher.heard == ["lost invalid_grant"]
    kept = mine.read().tokens
    assert kept is not None
    assert kept.access == Secret("a")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"owner": 1}', "\x00"])
def test_a_file_that_is_none(case: MakeCase, text: str) -> None:
    made = case()
    made.file.write(Kept(tokens("a")))
    made.file.path.write_text(text)
    if text.startswith(("[", '{"')):
        assert made.file.read() == Kept(is_foreign=True)
        return
    with pytest.raises(TokenTrouble, match="log in again"):
        made.file.read()


def test_files_are_for_their_owner_only(case: MakeCase) -> None:
    made = case()
    made.file.write(Kept(tokens("a")))
    assert made.file.path.stat().st_mode & 0o777 == 0o600
    assert made.file.path.parent.stat().st_mode & 0o777 == 0o700
    assert "'a'" not in repr(made.file.read())
