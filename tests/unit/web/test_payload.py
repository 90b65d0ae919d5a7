"""What is posted to a hook, read."""

from __future__ import annotations

import contextlib
from ipaddress import ip_address

import pytest

from waypost.web.message import Refused, Request
from waypost.web.payload import MAX_FORM_FIELDS, Payload, charset_of, read_payload

FORM = "application/x-www-form-urlencoded"


async def nothing(limit: int) -> bytes:
    return b""


def request(**headers: str) -> Request:
    here = ip_address("::1")
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request("POST", "/", "", named, here, here, nothing)


@pytest.mark.parametrize(
    "kind", ["application/json", "application/cloudevents+json", "", "text/plain"]
)
def test_json_whatever_it_is_called(kind: str) -> None:
    payload = read_payload(kind, "utf-8", '\ufeff{"a": "ä", "b": [1]}'.encode())
    assert payload == Payload('{\n  "a": "ä",\n  "b": [\n    1\n  ]\n}', {"a": "ä", "b": [1]})


def test_text() -> None:
    assert read_payload("text/plain", "latin-1", b"T\xfcr auf") == Payload("Tür auf")
    assert read_payload("", "utf-8", b"T\xfcr {") == Payload("T\ufffdr {")


def test_a_form() -> None:
    payload = read_payload(FORM, "utf-8", b"door=front&open=&text=a+b%0ac&door=back")
    assert payload.form == {"door": "back", "open": "", "text": "a b\nc"}
    assert payload.text == "door: front\nopen: \ntext: a b\nc\ndoor: back\n"
    with pytest.raises(Refused, match="400"):
        read_payload(FORM, "utf-8", b"a&" * (MAX_FORM_FIELDS + 1))


@pytest.mark.parametrize("octets", [b"{", b"", b"[" * 100_000, b"9" * 5_000, b'{"a": "\xff"}'])
def test_what_says_it_is_json_and_cannot_be_read(octets: bytes) -> None:
    with pytest.raises(Refused, match="400"):
        read_payload("application/json", "utf-8", octets)
    assert isinstance(read_payload("text/plain", "utf-8", octets), Payload)


def test_json_that_can_be_read_and_hardly_be_shown() -> None:
    """Wherever the depth is that Python can read and not write, it is a refusal or a text."""
    for depth in range(100, 3_000, 100):
        octets = b"[" * depth + b"]" * depth
        assert read_payload("text/plain", "utf-8", octets).text
        with contextlib.suppress(Refused):
            read_payload("application/json", "utf-8", octets)


@pytest.mark.parametrize(
    "headers",
    [
        {"content_type": "multipart/form-data; boundary=x"},
        {"content_type": "image/jpeg"},
        {"content_type": "text/plain; charset=utf-16"},
        {"content_type": 'text/plain; charset="zlib_codec"'},
        {"content_encoding": "gzip", "content_type": "application/json"},
    ],
)
def test_bodies_of_no_use(headers: dict[str, str]) -> None:
    with pytest.raises(Refused, match="415"):
        charset_of(request(**headers))


def test_charsets() -> None:
    assert charset_of(request()) == "utf-8"
    assert charset_of(request(content_type="application/json")) == "utf-8"
    assert charset_of(request(content_type='text/plain; x=1; charset="ISO-8859-1"')) == "latin-1"
    assert charset_of(request(content_type="application/octet-stream")) == "utf-8"
