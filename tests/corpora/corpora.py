"""Lists of addresses that others have judged, as rows of a text and what it may be.

They are read where they lie and never copied: beside the checkout (`../shared/corpora/addresses`),
in the source package of email-validator, and in CPython's own tests.
"""

from __future__ import annotations

import ast
import html
import importlib.util
import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from waypost.errors import AddressError
from waypost.mail.header_address import parse_mailbox

BESIDE = Path(__file__).parents[3] / "shared" / "corpora" / "addresses"

# What a text can be, from the strictest grammar to the widest; `judge` gives one of them.
SMTP = "smtp"  # a Mailbox of RFC 5321, with RFC 6531
HEADER = "header"  # an addr-spec or name-addr of RFC 5322 only
OBSOLETE = "obsolete"  # with forms of RFC 5322 §4
REFUSED = "refused"
UNSENDABLE = " that cannot be sent to"

SENDABLE = {SMTP, HEADER, OBSOLETE}
NOT_SENDABLE = {REFUSED, HEADER + UNSENDABLE, OBSOLETE + UNSENDABLE}


class Row(NamedTuple):
    """One address of a corpus."""

    corpus: str
    text: str
    allowed: frozenset[str]  # what `judge` may say if we agree with the corpus


def judge(text: str) -> str:
    """What we say of a text."""
    try:
        mailbox = parse_mailbox(text)
    except AddressError:
        return REFUSED
    kind = OBSOLETE if mailbox.levels.obsolete else HEADER
    if mailbox.address is None:
        return kind + UNSENDABLE
    return SMTP if mailbox.levels.rfc6531 else kind


_OF_CATEGORY = {
    "VALID": {SMTP},
    "DNSWARN": {SMTP},
    "RFC5321": {SMTP},
    "CFWS": {HEADER, HEADER + UNSENDABLE},
    "DEPREC": {OBSOLETE, OBSOLETE + UNSENDABLE},
    "RFC5322": {HEADER, HEADER + UNSENDABLE, OBSOLETE + UNSENDABLE},
    "ERR": {REFUSED},
}


def is_email(name: str) -> Iterator[Row]:
    """dominicsayers/isemail: U+2400+n stands for the control n."""
    for test in ElementTree.parse(BESIDE / name).iter("test"):
        text = test.findtext("address") or ""
        text = re.sub("[\u2400-\u241f]", lambda symbol: chr(ord(symbol[0]) - 0x2400), text)
        category = (test.findtext("category") or "").removeprefix("ISEMAIL_")
        yield Row("is_email", text, frozenset(_OF_CATEGORY[category.removesuffix("_CATEGORY")]))


def isemail() -> Iterator[Row]:
    """hapijs/isemail: the same diagnoses under other names."""
    for text, diagnosis in json.loads((BESIDE / "isemail-tests.json").read_text("utf-8")):
        kind = re.match("err|dnsWarn|rfc5321|rfc5322|cfws|deprecated|valid|undesired", diagnosis)
        assert kind is not None, diagnosis
        category = {
            "err": "ERR",
            "dnsWarn": "DNSWARN",
            "deprecated": "DEPREC",
            "undesired": "VALID",
        }.get(kind[0], kind[0].upper())
        # A lone surrogate has no UTF-8 form, so no message can hold it (RFC 3629 §3).
        is_text = text == text.encode(errors="replace").decode()
        allowed = _OF_CATEGORY[category] if is_text else {REFUSED}
        yield Row("isemail", text, frozenset(allowed))


def jmail() -> Iterator[Row]:
    """RohanNagar/jmail: RFC 5322 with its obsolete forms, but only what can be sent to."""
    lines = (BESIDE / "jmail-valid-addresses.csv").read_text("utf-8").splitlines()[1:]
    for line in lines:
        yield Row("jmail", html.unescape(_before_its_parts(line)), frozenset(SENDABLE))
    for line in (BESIDE / "jmail-invalid-addresses.csv").read_text("utf-8").splitlines()[1:]:
        text = html.unescape(re.split(r" ;  ", line, maxsplit=1)[0])
        yield Row("jmail", text, frozenset(NOT_SENDABLE))


def _before_its_parts(line: str) -> str:
    """The address of "address,local-part,domain,why", in which any of them may hold commas."""
    for comma in re.finditer(",", line):
        text, rest = line[: comma.start()], line[comma.end() :]
        local_part, at, _ = text.removesuffix(">").rpartition("@")
        shown = re.split("[<:]", local_part)[-1].strip()
        if at and rest.startswith((local_part + ",", shown + ",")):
            return text
    return line.split(",")[0]


def flanker() -> Iterator[Row]:
    """mailgun/flanker."""
    for name, allowed in (("valid", SENDABLE), ("invalid", NOT_SENDABLE)):
        for line in (BESIDE / f"flanker-mailbox_{name}.txt").read_text("utf-8").split("\n"):
            if line.strip() and not line.startswith("#"):
                yield Row("flanker", line, frozenset(allowed))


def email_validator(sdist: Path) -> Iterator[Row]:
    """email-validator's own rows; policy of web forms, so only its refusals of syntax count."""
    with tarfile.open(sdist) as archive:
        [name] = [entry for entry in archive.getnames() if entry.endswith("tests/test_syntax.py")]
        member = archive.extractfile(name)
        assert member is not None
        tree = ast.parse(member.read())
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        allowed = {
            "test_email_valid": SENDABLE,
            "test_email_valid_intl_local_part": SENDABLE,
            "test_email_invalid_syntax": NOT_SENDABLE,
        }.get(function.name)
        if allowed is None:
            continue
        for text in _first_strings(function.decorator_list[0]):
            yield Row("email-validator", text, frozenset(allowed))


def _first_strings(decorator: ast.expr) -> Iterator[str]:
    """The first value of each row of a `parametrize`."""
    assert isinstance(decorator, ast.Call)
    rows = decorator.args[1]
    assert isinstance(rows, ast.List)
    for row in rows.elts:
        first = row.elts[0] if isinstance(row, ast.Tuple) else row
        assert isinstance(first, ast.Constant)
        yield str(first.value)


# Parsers of CPython that read a whole mailbox, and such that read lists.
_CPYTHON_MAILBOX = {"get_addr_spec", "get_mailbox", "get_name_addr", "get_angle_addr"}
_CPYTHON_LIST = {"get_mailbox_list", "get_group", "get_address", "get_address_list"}


class ListRow(NamedTuple):
    """One list of CPython's corpus."""

    text: str
    is_faulty: bool


def cpython() -> Iterator[Row | ListRow]:
    """test.test_email.test__header_value_parser: the rows whose text is read to its end.

    Its "obsolete" defects are ours; with an "invalid" one it reads on, and we refuse.
    """
    origin = importlib.util.find_spec("test.test_email.test__header_value_parser")
    assert origin is not None
    assert origin.origin is not None
    for node in ast.walk(ast.parse(Path(origin.origin).read_text("utf-8"))):
        if not isinstance(node, ast.Call) or len(node.args) < 6:
            continue
        if ast.unparse(node.func) not in ("self._test_get_x", "self._test_parse_x"):
            continue
        parser = ast.unparse(node.args[0]).removeprefix("parser.")
        text, rest = _constant(node.args[1]), _constant(node.args[5])
        defects = ast.unparse(node.args[4])
        if text is None or rest != "" or parser not in _CPYTHON_MAILBOX | _CPYTHON_LIST:
            continue
        if parser in _CPYTHON_LIST:
            yield ListRow(text, "Invalid" in defects)
        elif "Invalid" in defects:
            yield Row("cpython", text, frozenset({REFUSED}))
        elif "Obsolete" in defects:
            yield Row("cpython", text, frozenset({OBSOLETE, OBSOLETE + UNSENDABLE}))
        else:
            yield Row("cpython", text, frozenset({SMTP, HEADER, HEADER + UNSENDABLE}))


def _constant(node: ast.expr) -> str | None:
    try:
        value = ast.literal_eval(node)
    except ValueError:
        return None
    return value if isinstance(value, str) else None
