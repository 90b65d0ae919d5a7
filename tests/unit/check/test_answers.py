"""What refusals of real hosts mean: replies.toml."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from waypost.check.answers import Stage, meaning_of
from waypost.check.reasons import REASONS
from waypost.check.verdict import Outcome
from waypost.mail.reply import Reply

REPLIES: list[dict[str, Any]] = tomllib.loads(
    Path(__file__).with_name("replies.toml").read_text("utf-8")
)["reply"]


def received(code: int, text: str) -> Reply:
    return Reply.received(code, text.split("\n"))


@pytest.mark.parametrize("said", REPLIES, ids=lambda said: f"{said['code']} {said['text'][:60]}")
def test_replies_of_real_hosts(said: dict[str, Any]) -> None:
    expected = said["expected"]
    if expected == "smtp.full" and said["code"] < 500:
        expected = "smtp.full_for_now"
    assert meaning_of(Stage(said["stage"]), received(said["code"], said["text"])) == expected


@pytest.mark.parametrize("said", REPLIES, ids=lambda said: f"{said['code']} {said['text'][:60]}")
def test_before_a_recipient_is_named_nothing_is_said_of_it(said: dict[str, Any]) -> None:
    reply = received(said["code"], said["text"])
    for stage in (Stage.GREETING, Stage.EHLO, Stage.MAIL):
        assert meaning_of(stage, reply) not in {"smtp.no_such_user", "smtp.disabled", "smtp.moved"}


@pytest.mark.parametrize("said", REPLIES, ids=lambda said: f"{said['code']} {said['text'][:60]}")
def test_what_may_pass_is_never_final(said: dict[str, Any]) -> None:
    reply = received(said["code"] % 100 + 400, said["text"])
    outcome = REASONS[meaning_of(Stage.RCPT, reply)].outcome
    code = meaning_of(Stage.RCPT, reply)
    assert outcome is not Outcome.REJECTED_RECIPIENT or code == "smtp.relay_denied"


@pytest.mark.parametrize(
    ("code", "text", "expected"),
    [
        (550, "5.1.1", "smtp.no_such_user"),
        (550, "no", "smtp.rejected"),
        (550, "5.7.1 no", "smtp.blocked_policy"),
        (450, "4.1.1 unknown user", "smtp.busy"),
        (452, "4.2.2 no room", "smtp.full_for_now"),
        (551, "please try <x@y>", "smtp.moved"),
        (550, "cuda_nsu 5.1.1", "smtp.no_such_user"),
        (550, "from 192.0.2.5.1.1", "smtp.rejected"),
    ],
)
def test_where_words_say_nothing(code: int, text: str, expected: str) -> None:
    assert meaning_of(Stage.RCPT, received(code, text)) == expected
