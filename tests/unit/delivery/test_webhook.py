"""What a web server's answer means for an event, and what of it is passed on."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest

from waypost.delivery.webhook import MAX_WORDS, judged, signature
from waypost.http.client import HttpResponse
from waypost.http.url import Url
from waypost.mail.envelope import Outcome, OutcomeKind
from waypost.smtp.auth import Secret

URL = Url.parse("https://plc.example/api/webhook/s3cr%21t-path?key=s3cret-query&n=1")


def outcome(status: int, body: bytes = b"", **headers: str) -> Outcome:
    fields = {"content-type": "text/plain"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    return judged("plc", HttpResponse(status, fields, body), URL)


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        *((status, OutcomeKind.DELIVERED, "250 2.0.0") for status in (200, 201, 202, 204, 299)),
        *((status, OutcomeKind.FAILED, "554 5.4.4") for status in (300, 301, 302, 303, 307, 308)),
        *((status, OutcomeKind.DEFERRED, "451 4.4.5") for status in (408, 425, 429)),
        *((status, OutcomeKind.DEFERRED, "451 4.4.5") for status in (500, 502, 503, 504, 599)),
        *((status, OutcomeKind.FAILED, "554 5.0.0") for status in (400, 401, 404, 410, 413, 422)),
    ],
)
def test_what_a_status_means(status: int, kind: OutcomeKind, code: str) -> None:
    found = outcome(status)
    assert found.kind is kind
    assert str(found.reply).startswith(f"{code} webhook plc: HTTP {status}")


def test_of_a_body_goes_one_short_printable_line() -> None:
    found = outcome(400, b"no\r\n554 5.0.0 lie\x1b[31m \xff\xe2\x80\xae" + b"x" * 500).reply.text
    assert "\n" not in found
    assert found.isascii()
    assert found.isprintable()
    words = found.removeprefix("webhook plc: HTTP 400 Bad Request: ")
    assert words.startswith("no 554 5.0.0 lie?[31m")
    assert len(words) == MAX_WORDS


def test_of_a_page_or_a_picture_goes_nothing() -> None:
    for kind in ("text/html", "image/png", ""):
        found = outcome(500, b"<b>words</b>", content_type=kind)
        assert found.reply.text == "webhook plc: HTTP 500 Internal Server Error"


@pytest.mark.parametrize("said", ["s3cr%21t-path", "s3cr!t-path", "s3cret-query"])
def test_a_server_that_repeats_the_url_gives_nothing_away(said: str) -> None:
    text = outcome(401, f"bad key '{said}'".encode()).reply.text
    assert text.endswith("bad key '***'")


@pytest.mark.parametrize(
    ("given", "low", "high"),
    [
        ("120", 120, 120),
        ("Mon, 01 Jan 1990 00:00:00 GMT", 0, 0),
        ("9" * 400, 1, 1e9),
        *(
            (text, 0, 0)
            for text in ("-5", "soon", "", "1e9", "٣", "Mon, 99 Foo 99999 99:99:99 GMT")
        ),
    ],
)
def test_retry_after(given: str, low: float, high: float) -> None:
    assert low <= outcome(503, retry_after=given).wait_s <= high


def test_only_who_asks_to_wait_is_waited_for() -> None:
    assert outcome(404, retry_after="60").wait_s == 0
    assert outcome(503).wait_s == 0


def test_retry_after_as_a_date() -> None:
    at = time.time()
    found = outcome(503, retry_after=formatdate(at + 1_000, usegmt=True)).wait_s
    assert 999 - (time.time() - at) <= found <= 1_000


def test_a_signature_that_openssl_made() -> None:
    made = signature(Secret("Jefe"), "1700000000", b'{"v":1}')
    assert made == "v1=b8ca9c53c089840fe42c361412a1904f2ebe6462f8875d62a5e36dfb12651bdb"
