"""Authentication-Results: nothing in it can be anything but what it is (RFC 8601)."""

from __future__ import annotations

import re
from email import message_from_bytes

from hypothesis import given
from hypothesis import strategies as st

from waypost.mail.authentication import AuthResult, results_field, results_text

RESULTS = [
    AuthResult("auth", "pass", "smtp.auth", "cam1"),
    AuthResult("x-literal", "neutral", "smtp.mailfrom", "cam1@[192.168.1.50]", "an address, ours"),
]
_WORD = r"[A-Za-z0-9!#$%&'*+\-./^_`{|}~]+"
_VALUE = rf'(?:{_WORD}|"(?:[^"\\\r\n]|\\.)*")'
_RESULT = rf"[a-z-]+=[a-z]+(?: reason={_VALUE})? [a-z.]+={_VALUE}"
FIELD = re.compile(rf"Authentication-Results: {_VALUE}(?:;\r\n\t{_RESULT})+\r\n", re.DOTALL)


def test_the_field() -> None:
    assert results_field("hub.example", RESULTS, smtputf8=False) == (
        b"Authentication-Results: hub.example;\r\n"
        b"\tauth=pass smtp.auth=cam1;\r\n"
        b'\tx-literal=neutral reason="an address, ours"'
        b' smtp.mailfrom="cam1@[192.168.1.50]"\r\n'
    )


def test_a_literal_as_the_name_is_quoted() -> None:
    field = results_field("[192.168.1.20]", RESULTS[:1], smtputf8=False)
    assert field.startswith(b'Authentication-Results: "[192.168.1.20]";\r\n')


def test_nothing_found_is_no_field() -> None:
    assert results_field("hub.example", [], smtputf8=False) == b""
    assert results_text([]) == ""


def test_the_text_of_the_trace() -> None:
    assert results_text(RESULTS) == (
        'auth=pass smtp.auth=cam1; x-literal=neutral reason="an address, ours"'
        ' smtp.mailfrom="cam1@[192.168.1.50]"'
    )


def test_a_value_is_not_folded() -> None:
    """A semicolon in a quoted local part is of the address."""
    result = AuthResult("x-literal", "fail", "header.from", '"a; spf=pass"@[192.0.2.1]')
    field = results_field("hub.example", [result], smtputf8=False)
    assert rb'header.from="\"a; spf=pass\"@[192.0.2.1]"' in field
    assert field.count(b"\r\n") == 2


def test_without_smtputf8_it_is_ascii() -> None:
    """RFC 6532 §3: other hosts may not get anything else in a header."""
    result = AuthResult("auth", "pass", "smtp.auth", "jürgen")
    assert results_field("h", [result], smtputf8=False).endswith(b'smtp.auth="j?rgen"\r\n')
    assert results_field("h", [result], smtputf8=True).endswith('"jürgen"\r\n'.encode())


@given(st.text(max_size=40), st.text(max_size=40), st.booleans())
def test_no_text_gets_out_of_its_quotes(value: str, reason: str, smtputf8: bool) -> None:
    results = [AuthResult("auth", "pass", "smtp.auth", value, reason), RESULTS[0]]
    if smtputf8 and re.search("[\ud800-\udfff]", value + reason):
        return  # no text from the wire holds one
    field = results_field("hub.example", results, smtputf8=smtputf8)
    assert FIELD.fullmatch(field.decode()) is not None, field
    assert field.count(b"\r\n") == 3
    parsed = message_from_bytes(field + b"Subject: x\r\n\r\n")
    assert parsed.keys() == ["Authentication-Results", "Subject"]
