"""Which messages become mail, and where answers go."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waypost.mail.template import Template
from waypost.mqtt.inbound import ForRoute, Request, answer_topic, filters_of, purpose_of
from waypost.mqtt.settings import BrokerUrl, MqttSettings, Subscription

ENTRY = Subscription("+/#", 0, None, (), "ops", Template("x"), Template("y"))
URL = BrokerUrl.parse("mqtt://10.0.0.1")
ALL = MqttSettings(URL, base="hub", requests=True, subscribe=(ENTRY,))
ENTRIES = MqttSettings(URL, base="hub", subscribe=(ENTRY,))


def test_nothing_is_heard_unasked() -> None:
    quiet = MqttSettings(URL)
    assert filters_of(quiet) == {}
    assert not quiet.hears_mail
    assert filters_of(ALL) == {"+/#": 0, "hub/bridge/request/send": 1, "hub/send/+": 1}


@pytest.mark.parametrize(
    ("topic", "with_requests", "without"),
    [
        ("hub/bridge/request/send", Request(), None),
        ("hub/send/ops", ForRoute("ops"), None),
        ("hub/send/", None, None),
        ("hub/send/a/b", None, None),
        ("hub/send", None, None),
        ("plant/x", ENTRY, ENTRY),
        ("hubbub/x", ENTRY, ENTRY),
        # What the hub itself says.
        ("hub/bridge/state", None, None),
        ("hub/bridge/response/send", None, None),
        ("hub/yard/event", None, None),
        ("homeassistant/device/hub_yard/config", None, None),
        ("homeassistant/device/other_yard/config", ENTRY, ENTRY),
        ("$SYS/broker/load", None, None),
    ],
)
def test_what_a_message_is_for(topic: str, with_requests: object, without: object) -> None:
    assert purpose_of(ALL, topic) == with_requests
    assert purpose_of(ENTRIES, topic) == without


@pytest.mark.parametrize(
    "asked_for",
    [
        *(None, "", "lock/set", "hub/send/ops", "hub/bridge/request/send", "hub/yard/motion"),
        *("hub/bridge/response/", "hub/bridge/response/+", "hub/bridge/response/a/#"),
        *("hub/bridge/response//a", "/hub/bridge/response/a", "hub/bridge/responses/a"),
        "hub/bridge/response/a\0b",
    ],
)
def test_answers_that_nobody_may_have(asked_for: str | None) -> None:
    assert answer_topic(ALL, asked_for) == "hub/bridge/response/send"


@given(st.text())
def test_answers_stay_below_their_topic(asked_for: str) -> None:
    assert answer_topic(ALL, asked_for).startswith("hub/bridge/response/")
    assert answer_topic(ALL, f"hub/bridge/response/{asked_for}").startswith("hub/bridge/response/")


def test_an_answer_where_it_was_asked_for() -> None:
    wanted = "hub/bridge/response/send/me"
    assert answer_topic(ALL, wanted) == wanted
