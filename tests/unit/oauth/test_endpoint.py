"""The device grant's patience, and key files (RFC 8628 §3.5)."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from waypost.errors import ConnectForbidden
from waypost.http.client import HttpResponse
from waypost.oauth import endpoint as module
from waypost.oauth.endpoint import TokenEndpoint, read_service_key
from waypost.oauth.messages import DeviceCode, GrantRefused, TokenTrouble
from waypost.oauth.settings import Grant, OAuthSettings
from waypost.smtp.auth import Secret

SETTINGS = OAuthSettings(Grant.DEVICE, "me", "https://token.example/token", "client")
CODE = DeviceCode(Secret("d-1"), "AB", "https://x.example", None, 60.0, 5.0)


class Web:
    """Stands in for HttpClient."""

    def __init__(self, *answers: tuple[int, dict[str, Any]] | Exception) -> None:
        self._answers = list(answers)
        self.asked: list[dict[str, list[str]]] = []

    async def fetch(self, method: str, url: str, *, body: bytes, **_: Any) -> HttpResponse:
        self.asked.append(parse_qs(body.decode()))
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        status, content = answer
        return HttpResponse(status, {}, json.dumps(content).encode())


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long it slept; a clock that only sleeping moves."""
    found: list[float] = []

    async def sleep(delay_s: float) -> None:
        found.append(delay_s)

    monkeypatch.setattr(module.asyncio, "sleep", sleep)
    monkeypatch.setattr(module.time, "monotonic", lambda: sum(found))
    return found


def test_pending_and_slower(waited: list[float]) -> None:
    pending, slower = (400, {"error": "authorization_pending"}), (400, {"error": "slow_down"})
    web = Web(pending, slower, pending, (200, {"access_token": "a", "refresh_token": "r"}))
    endpoint = TokenEndpoint(SETTINGS, web)  # type: ignore[arg-type]
    tokens = asyncio.run(endpoint.device_tokens(CODE))
    assert tokens.refresh == Secret("r")
    assert waited == [5.0, 5.0, 10.0, 10.0]
    assert web.asked[0]["device_code"] == ["d-1"]
    assert web.asked[0]["grant_type"] == ["urn:ietf:params:oauth:grant-type:device_code"]


def test_denied(waited: list[float]) -> None:
    endpoint = TokenEndpoint(SETTINGS, Web((400, {"error": "access_denied"})))  # type: ignore[arg-type]
    with pytest.raises(GrantRefused, match="access_denied"):
        asyncio.run(endpoint.device_tokens(CODE))


def test_late(waited: list[float]) -> None:
    web = Web(*[(400, {"error": "authorization_pending"})] * 20)
    endpoint = TokenEndpoint(SETTINGS, web)  # type: ignore[arg-type]
    with pytest.raises(TokenTrouble, match="in time"):
        asyncio.run(endpoint.device_tokens(CODE))
    assert sum(waited) < CODE.lives_s


def test_what_the_gate_refuses_is_trouble_that_passes() -> None:
    """Mail waits: a sinkhole in DNS is no word of the token server's."""
    web = Web(ConnectForbidden("0.0.0.0 is unspecified"))
    settings = OAuthSettings(Grant.CLIENT_CREDENTIALS, "me", SETTINGS.token_url, "client")
    with pytest.raises(TokenTrouble, match=r"token\.example: 0\.0\.0\.0 is unspecified"):
        asyncio.run(TokenEndpoint(settings, web).renewed(None))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"client_email": "a", "private_key_id": 5, "private_key": "b"}']
)
def test_a_key_file_that_is_none(tmp_path: Path, content: str) -> None:
    file = tmp_path / "key.json"
    file.touch(0o600)
    file.write_text(content)
    with pytest.raises(ValueError, match=r"key\.json (is no JSON|has no client_email)"):
        read_service_key(file)
