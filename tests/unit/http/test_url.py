"""URLs: what may be asked, and what is refused."""

from __future__ import annotations

import pytest

from waypost.http.url import Url

GOOD = {
    "https://login.example/token": ("login.example", "login.example", 443, "/token"),
    "https://LOGIN.example:8443": ("login.example", "login.example:8443", 8443, "/"),
    "https://login.example./a?b=c#d": ("login.example", "login.example", 443, "/a?b=c"),
    "https://192.0.2.1/x": ("192.0.2.1", "192.0.2.1", 443, "/x"),
    "https://[2001:db8::1]:9/x": ("2001:db8::1", "[2001:db8::1]:9", 9, "/x"),
    "https://[::ffff:192.0.2.1]/x": ("192.0.2.1", "192.0.2.1", 443, "/x"),
}
BAD = [
    "",
    "login.example/token",
    "//login.example/token",
    "http://login.example/token",
    "ftp://login.example/",
    "file:///etc/passwd",
    "https:///token",
    "https://me@login.example/",
    "https://me:secret@login.example/",
    "https://login.example\\@elsewhere.example/",
    "https://login.example/ HTTP/1.1",
    "https://login.example/\r\nX: y",
    "https://login.example/\u00e4",
    "https://login.example:0/",
    "https://login.example:65536/",
    "https://login.example:port/",
    "https://127.1/",
    "https://2130706433/",
    "https://0x7f000001/",
    "https://0177.0.0.1/",
    "https://[fe80::1%25eth0]/",
    "https://[::1/",
    "https://log%69n.example/",
    "https://-.example/",
]


@pytest.mark.parametrize("text", GOOD)
def test_what_a_url_says(text: str) -> None:
    url = Url.parse(text)
    assert (url.name, url.authority, url.port, url.target) == GOOD[text]
    assert url.is_secure


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_url_to_ask(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w+"):
        Url.parse(text)


def test_clear_only_where_it_is_allowed() -> None:
    url = Url.parse("http://127.0.0.1:8080/token?code=x", allows_clear=True)
    assert not url.is_secure
    assert str(url) == "http://127.0.0.1:8080/token"
