"""The lines that docs/how-to/webhooks-and-notifications.md offers to receivers do what it says."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from waypost.delivery.webhook import signature
from waypost.smtp.auth import Secret

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "webhooks-and-notifications.md"
BODY = b'{"v":1}'


@pytest.fixture(scope="module")
def is_genuine() -> Callable[..., bool]:
    """The function of the page."""
    [code] = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert len(code.splitlines()) <= 12
    names: dict[str, Any] = {}
    exec(code, names)
    found: Callable[..., bool] = names["is_genuine"]
    return found


def headers(at: float, secret: str = "right", body: bytes = BODY) -> dict[str, str]:
    timestamp = str(int(at))
    return {
        "X-Waypost-Timestamp": timestamp,
        "X-Waypost-Signature": signature(Secret(secret), timestamp, body),
    }


def test_what_the_hub_signed_is_genuine(is_genuine: Callable[..., bool]) -> None:
    assert is_genuine("right", headers(time.time()), BODY)


def test_anything_else_is_not(is_genuine: Callable[..., bool]) -> None:
    now = time.time()
    assert not is_genuine("right", headers(now, "wrong"), BODY)
    assert not is_genuine("right", headers(now), BODY + b" ")
    assert not is_genuine("right", headers(now - 3_600), BODY)
    moved = headers(now - 3_600) | {"X-Waypost-Timestamp": str(int(now))}
    assert not is_genuine("right", moved, BODY)
    assert not is_genuine("right", headers(now) | {"X-Waypost-Signature": "v1=ü"}, BODY)
