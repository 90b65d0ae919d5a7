"""Topics that mail may be published on, and what of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waypost.mqtt.publication import Payload, Publication, check_foreign, check_topic


@pytest.mark.parametrize(
    ("text", "topic", "payload"),
    [
        ("pump/set", "pump/set", Payload.TEXT),
        ("pump/set#line", "pump/set", Payload.LINE),
        ("/old/style/#subject", "/old/style/", Payload.SUBJECT),
        ("Tür offen#event", "Tür offen", Payload.EVENT),
    ],
)
def test_what_is_read(text: str, topic: str, payload: Payload) -> None:
    publication = Publication.parse(text)
    assert publication == (topic, payload)
    assert str(publication) == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "missing"),
        ("#line", "missing"),
        ("pump/#", "behind #"),
        ("pump#text#line", "behind #"),
        ("pump/+/set", "many topics"),
        ("$SYS/broker", "broker's own"),
        ("a\0b", "control"),
        ("a\nb", "control"),
        ("a\ud800b", "control"),
        ("x" * 257, "256"),
        ("ü" * 129, "256"),
    ],
)
def test_what_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Publication.parse(text)


@given(st.text())
def test_no_text_leads_to_a_topic_that_is_none(text: str) -> None:
    try:
        check_topic(text)
    except ValueError:
        return
    assert text
    assert not set(text) & set("+#\0\r\n")
    assert not text.startswith("$")
    assert len(text.encode()) <= 256


@pytest.mark.parametrize(
    ("topic", "is_own"),
    [
        ("waypost", True),
        ("waypost/x", True),
        ("waypost2/x", False),
        ("homeassistant/status", True),
        ("home", False),
        ("Waypost/x", False),
    ],
)
def test_the_hubs_own_topics(topic: str, is_own: bool) -> None:
    if is_own:
        with pytest.raises(ValueError, match="the hub's own"):
            check_foreign(topic, "waypost", "homeassistant")
    else:
        check_foreign(topic, "waypost", "homeassistant")
    check_foreign(topic, "other", "")
