"""Requests of programs for mail."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waypost.intake.requests import RequestRefused, read_request
from waypost.mail.composing import AttachedFile


def read(**values: object) -> object:
    return read_request(json.dumps(values).encode())


def test_a_whole_request() -> None:
    request = read_request(
        json.dumps(
            {
                "to": ["a@[192.0.2.1]", "alerts"],
                "from": "pump7",
                "subject": "S",
                "text": "T",
                "html": "<p>T",
                "attachments": [
                    {"name": "a.jpg", "type": "image/jpeg", "data_base64": "AAEC\nAw=="}
                ],
                "priority": "high",
                "dedupe_key": "k",
                "transaction": {"n": 1},
            }
        ).encode()
    )
    assert request.to == ("a@[192.0.2.1]", "alerts")
    assert request.route is None
    assert request.sender == "pump7"
    assert (request.subject, request.text, request.html) == ("S", "T", "<p>T")
    assert request.attachments == (AttachedFile("a.jpg", "image/jpeg", b"\0\1\2\3"),)
    assert (request.priority, request.dedupe_key) == ("high", "k")
    assert request.transaction == {"n": 1}


def test_where_to() -> None:
    assert read_request(b'{"to":"a@b.example"}').to == ("a@b.example",)
    assert read_request(b'{"to":"cameras"}').route == "cameras"
    assert read_request(b'{"route":"cameras"}').route == "cameras"


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({}, 'either "to" or "route"'),
        ({"to": []}, 'either "to" or "route"'),
        ({"to": ["a@b"], "route": "c"}, 'either "to" or "route"'),
        ({"to": "cameras", "route": "c"}, 'either "to" or "route"'),
        ({"to": [1]}, '"to" is a list'),
        ({"to": {"a": "b"}}, '"to" is a list'),
        ({"to": ["a@b"] * 1001}, "more than 1000"),
        ({"to": ["a@b"], "subject": 5}, '"subject" is a text'),
        ({"to": ["a@b"], "bcc": "x"}, "unknown key 'bcc'; known: to, route"),
        ({"to": ["a@b"], "priority": "urgent"}, "low, normal, high"),
        ({"to": ["a@b"], "dedupe_key": ""}, "dedupe_key"),
        ({"to": ["a@b"], "attachments": {"name": "x"}}, '"attachments" is a list'),
        ({"to": ["a@b"], "attachments": ["x"]}, "an attachment has"),
        ({"to": ["a@b"], "attachments": [{"name": "x"}]}, "needs"),
        ({"to": ["a@b"], "attachments": [{"name": "x", "url": "http://a/"}]}, "an attachment has"),
        ({"to": ["a@b"], "attachments": [{"name": "x", "data_base64": "%"}]}, "not base64"),
        ({"to": ["a@b"], "attachments": [{"name": "x", "data_base64": "ü"}]}, "not base64"),
        ({"to": ["a@b"], "attachments": [{}] * 101}, "more than 100"),
    ],
)
def test_what_is_refused(values: dict[str, object], why: str) -> None:
    with pytest.raises(RequestRefused, match=why):
        read(**values)


@pytest.mark.parametrize(
    "octets",
    [b"", b"{", b"[]", b'"a"', b"null", b"\xff", b"[" * 100_000, b"1" * 10_000, b'{"to":1' * 99],
)
def test_what_is_no_request(octets: bytes) -> None:
    with pytest.raises(RequestRefused, match="expected"):
        read_request(octets)


def test_a_refusal_brings_the_transaction_back() -> None:
    with pytest.raises(RequestRefused) as raised:
        read(transaction="t-7", to=[])
    assert raised.value.transaction == "t-7"


@given(
    st.recursive(
        st.none() | st.booleans() | st.text(),
        lambda x: (
            st.lists(x)
            | st.dictionaries(
                st.sampled_from(
                    ["to", "route", "from", "subject", "text", "attachments", "name", "data_base64"]
                )
                | st.text(),
                x,
            )
        ),
    )
)
def test_any_json_is_read_or_refused(value: object) -> None:
    with contextlib.suppress(RequestRefused):
        read_request(json.dumps(value).encode())
