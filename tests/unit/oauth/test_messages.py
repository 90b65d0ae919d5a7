"""What is said to token endpoints, and what their answers mean."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waypost.oauth import messages
from waypost.oauth.messages import Attempt, GrantRefused, Tokens, TokenTrouble
from waypost.oauth.settings import Grant, OAuthSettings
from waypost.smtp.auth import Secret

NOW = 1_000_000.0
SETTINGS = OAuthSettings(
    Grant.CODE,
    "me@gmail.com",
    "https://token.example/token",
    "client-1",
    Secret("client-secret"),
    ("https://mail.example/", "offline"),
    authorization_url="https://auth.example/auth?prompt=consent",
)


def read(status: int, content: Any, **said: str) -> Tokens:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return messages.read_tokens(
        status, body, now=NOW, before=Secret("before"), host="token.example", said=said
    )


def test_where_the_browser_is_sent() -> None:
    attempt = Attempt.begin("http://127.0.0.1:4000")
    parts = urlsplit(attempt.url(SETTINGS))
    fields = {name: value for name, (value,) in parse_qs(parts.query).items()}
    assert parts.netloc == "auth.example"
    assert fields["prompt"] == "consent"
    assert fields["redirect_uri"] == "http://127.0.0.1:4000"
    assert fields["scope"] == "https://mail.example/ offline"
    assert fields["login_hint"] == "me@gmail.com"
    digest = hashlib.sha256(attempt.verifier.revealed.encode()).digest()
    assert fields["code_challenge"] == base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    assert fields["code_challenge_method"] == "S256"
    assert 43 <= len(attempt.verifier.revealed) <= 128  # RFC 7636 §4.1
    assert "client-secret" not in attempt.url(SETTINGS)
    assert attempt.verifier.revealed not in repr(attempt)
    assert Attempt.begin("x").state != attempt.state


def test_what_the_browser_comes_back_with() -> None:
    attempt = Attempt.begin("http://127.0.0.1:4000")
    back = f"http://127.0.0.1:4000/?state={attempt.state}"
    assert attempt.code_of(f" {back}&code=c%2F1\n").revealed == "c/1"
    with pytest.raises(GrantRefused, match="access_denied: The user said no"):
        attempt.code_of(f"{back}&error=access_denied&error_description=The+user%0asaid+no")
    for wrong in (
        f"{back}x&code=c",
        "http://127.0.0.1:4000/?code=c",
        "",
        "nonsense",
        "http://[::1",
    ):
        with pytest.raises(GrantRefused):
            attempt.code_of(wrong)
    with pytest.raises(GrantRefused, match="no code"):
        attempt.code_of(back)


def test_tokens() -> None:
    found = read(200, {"access_token": "a", "token_type": "Bearer", "expires_in": 3600})
    assert found == Tokens(Secret("a"), Secret("before"), NOW, NOW + 3_600)
    rotated = read(200, {"access_token": "a", "refresh_token": "r", "expires_in": "60"})
    assert rotated == Tokens(Secret("a"), Secret("r"), NOW, NOW + 60)
    for unsaid in (None, 0, -5, "soon", [], True, 1e400, float("nan")):
        content = json.dumps({"access_token": "a", "expires_in": unsaid}).encode()
        if unsaid is not True:
            assert read(200, content).expires_at == NOW + messages.UNSAID_LIFE_S


@pytest.mark.parametrize(("life_s", "left_s"), [(3_600, 720), (1_000, 300), (600, 300), (60, 30)])
def test_the_next_is_got_early(life_s: float, left_s: float) -> None:
    tokens = Tokens(Secret("a"), None, NOW, NOW + life_s)
    assert tokens.refresh_at == NOW + life_s - left_s


REFUSALS = {
    "invalid_grant": (400, {"error": "invalid_grant"}),
    "invalid_client": (401, {"error": "invalid_client", "error_description": "no"}),
    "of its own": (400, {"error": "interaction_required"}),
    "with 200": (200, {"error": "bad_verification_code"}),
    "without a word": (400, b""),
    "with a page": (403, b"<html>"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal(name: str) -> None:
    with pytest.raises(GrantRefused):
        read(*REFUSALS[name])


TROUBLE = {
    "busy": (429, {"error": "slow_down"}),
    "down": (503, b"<html>"),
    "down, in JSON": (500, {"error": "invalid_grant"}),
    "for a while": (400, {"error": "temporarily_unavailable"}),
    "moved": (302, b""),
    "not there": (404, {"error": "resource not found"}),
    "no JSON": (200, b"access_token=a"),
    "too deep": (200, b"[" * 100_000),
    "a list": (200, ["access_token"]),
    "a number": (200, 5),
    "nothing": (200, {}),
    "no text": (200, {"access_token": {"a": 1}}),
    "control": (200, {"access_token": "a\x01auth=Bearer b"}),
    "line end": (200, {"access_token": "a\r\nRSET"}),
    "blank": (200, {"access_token": "a b"}),
    "beyond ASCII": (200, {"access_token": "\u00e4"}),
    "without end": (200, {"access_token": "a" * 20_000}),
    "another kind": (200, {"access_token": "a", "token_type": "mac"}),
    "kind of a kind": (200, {"access_token": "a", "token_type": 5}),
    "bad refresh": (200, {"access_token": "a", "refresh_token": ["r"]}),
    "error of a kind": (500, {"error": {"a": 1}}),
}


@pytest.mark.parametrize("name", TROUBLE)
def test_trouble_that_passes(name: str) -> None:
    with pytest.raises(TokenTrouble):
        read(*TROUBLE[name])


def test_errors_repeat_no_secret() -> None:
    content = {
        "error": "invalid_grant",
        "error_description": "token r-secret\r\nof c-secret \x1b[1m",
    }
    with pytest.raises(GrantRefused) as caught:
        read(400, content, refresh_token="r-secret", client_secret="c-secret", client_id="x")
    assert str(caught.value) == "invalid_grant: token *** of *** [1m"


def said_by(attempt: Callable[[], object]) -> str:
    """The words of its error, the only kinds there may be; empty: none."""
    try:
        attempt()
    except (GrantRefused, TokenTrouble) as error:
        return str(error)
    return ""


@given(st.integers(100, 599), st.binary(max_size=60))
def test_any_response_is_tokens_or_an_error_in_words(status: int, body: bytes) -> None:
    assert said_by(lambda: read(status, body)).isprintable()


_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
)


@given(
    st.sampled_from([200, 400, 500]),
    st.dictionaries(
        st.sampled_from(
            [
                *("access_token", "token_type", "expires_in", "refresh_token", "error", "scope"),
                *("error_description", "device_code", "user_code", "verification_uri"),
            ]
        ),
        _JSON,
    ),
)
def test_any_json_is_tokens_or_an_error_in_words(status: int, content: dict[str, Any]) -> None:
    body = json.dumps(content).encode()
    assert said_by(lambda: read(status, body)).isprintable()
    device = said_by(lambda: messages.read_device_code(status, body, host="x", said={}))
    assert device.isprintable()


def test_a_device_code() -> None:
    content = {
        "device_code": "d",
        "user_code": "AB-CD",
        "verification_url": "https://x.example/device",
        "interval": 2,
    }
    body = json.dumps(content).encode()
    code = messages.read_device_code(200, body, host="x", said={})
    assert (code.user_code, code.verification_url) == ("AB-CD", "https://x.example/device")
    assert (code.interval_s, code.lives_s, code.whole_url) == (2, 600, None)
    assert "'d'" not in repr(code)
