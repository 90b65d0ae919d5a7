"""The grammar of commands and parameters: RFC 5321 §4.1, RFC 1870, 3030, 3461, 6152, 6531, 6533."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.cost import least_cost
from waypost.mail.address import Address
from waypost.mail.envelope import Body, Notify, Ret
from waypost.smtp import command as grammar
from waypost.smtp.command import CommandRefused, encode_xtext


def path_of(argument: str, *, lenient: bool = False) -> str:
    return grammar.split_path(argument, "TO:", lenient=lenient)[0]


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(CommandRefused) as caught:
        call()
    return str(caught.value.reply)


# Paths.


@pytest.mark.parametrize(
    ("argument", "path", "rest"),
    [
        ("TO:<a@b.example>", "a@b.example", ""),
        ("to:<a@b.example>", "a@b.example", ""),
        ("To:<a@b.example> NOTIFY=NEVER", "a@b.example", " NOTIFY=NEVER"),
        ("TO: <a@b.example>", "a@b.example", ""),
        ("TO:<>", "", ""),
        ("TO:<Postmaster>", "Postmaster", ""),
        ('TO:<"a b"@c.example>', '"a b"@c.example', ""),
        ('TO:<"a>b"@c.example> X=1', '"a>b"@c.example', " X=1"),
        ('TO:<"a\\">b"@c.example>', '"a\\">b"@c.example', ""),
        ("TO:<a@[IPv6:2001:db8::1]>", "a@[IPv6:2001:db8::1]", ""),
        # Source routes are accepted, and ignored (RFC 5321 §4.1.1.3, appendix C).
        ("TO:<@one.example:a@b.example>", "a@b.example", ""),
        ("TO:<@one.example,@two.example:a@b.example>", "a@b.example", ""),
        ("TO:<@[192.0.2.1]:a@b.example>", "a@b.example", ""),
        ("TO:<@[IPv6:2001:db8::1],@b.example:a@[IPv6:::1]>", "a@[IPv6:::1]", ""),
    ],
)
def test_path_is_taken_from_its_brackets(argument: str, path: str, rest: str) -> None:
    for lenient in (False, True):
        assert grammar.split_path(argument, "TO:", lenient=lenient) == (path, rest)


@pytest.mark.parametrize(
    "argument",
    [
        "",
        "TO",
        "TO <a@b>",
        "FROM:<a@b>",
        "TO:",
        "TO:<",
        "TO:<a@b",
        "TO:a@b>",
        "TO:<<a@b>",
        'TO:<"a@b>',
        'TO:<"a>',
        "TO::<a@b>",
        # Esmtp-parameters are set off by a space (RFC 5321 §4.1.1.3).
        "TO:<a@b>x",
        "TO:<a@b>NOTIFY=NEVER",
        "TO:<a@b>>",
        "TO:<a@b>\u00a0NOTIFY=NEVER",
    ],
)
def test_what_is_no_path_is_refused(argument: str) -> None:
    assert refusal(lambda: path_of(argument)).startswith("501 5.5.4")


def test_brackets_may_be_missing_for_trusted_clients_only() -> None:
    assert refusal(lambda: path_of("TO:a@b.example")).startswith("501 ")
    assert path_of("TO:a@b.example", lenient=True) == "a@b.example"
    assert path_of("TO: a@b.example X=1", lenient=True) == "a@b.example"


def test_a_path_has_at_most_256_octets() -> None:
    """RFC 5321 §4.5.3.1.3: with its punctuation."""
    domain = ".".join(["x" * 61] * 4)
    longest = f"{'a' * (254 - 1 - len(domain))}@{domain}"
    assert path_of(f"TO:<{longest}>") == longest
    assert refusal(lambda: path_of(f"TO:<a{longest}>")).startswith("501 ")
    utf8 = "é" * 127
    assert path_of(f"TO:<{utf8}>") == utf8
    assert refusal(lambda: path_of(f"TO:<{utf8}é>")).startswith("501 ")


def test_a_literal_that_does_not_parse_is_501_5_1_3() -> None:
    for path in ("a@[192.0.2.256]", "a@[IPv6:1::2::3]", "a@[::1]", "a@[01.2.3.4]"):
        call = lambda path=path: grammar.parse_address(path, (1, 3), lenient=False)  # noqa: E731
        assert refusal(call).startswith("501 5.1.3 ")


@pytest.mark.parametrize("path", ["postmaster", "Postmaster", "POSTMASTER"])
def test_postmaster_needs_no_domain(path: str) -> None:
    """RFC 5321 §4.1.1.3."""
    assert grammar.parse_address(path, (1, 3), lenient=False) == path


def test_others_need_a_domain_unless_trusted() -> None:
    assert refusal(lambda: grammar.parse_address("root", (1, 3), lenient=False)).startswith("501 ")
    assert grammar.parse_address("root", (1, 3), lenient=True) == "root"
    assert grammar.parse_address("é" * 32, (1, 3), lenient=True) == "é" * 32
    for path in ("", "a b", '"a"', "a@", "<a>", "é" * 33):
        call = lambda path=path: grammar.parse_address(path, (1, 3), lenient=True)  # noqa: E731
        assert refusal(call).startswith("501 ")


# Parameters.


def test_parameters_are_words_with_or_without_a_value() -> None:
    """RFC 5321 §4.1.2: keywords have no case."""
    assert grammar.split_parameters(" size=17 Body=8bitmime SMTPUTF8 X-a=!~") == {
        "SIZE": "17",
        "BODY": "8bitmime",
        "SMTPUTF8": None,
        "X-A": "!~",
    }
    assert grammar.split_parameters("") == {}


@pytest.mark.parametrize(
    "text",
    ["=1", "SIZE=", "SIZE==1", "SIZE=1=2", "-X=1", "X Y_Z", "X=\x7f", "X=\x01", "é=1", "X= 1"],
)
def test_what_is_no_parameter_is_refused(text: str) -> None:
    assert refusal(lambda: grammar.split_parameters(text)).startswith("501 5.5.4")


def test_a_parameter_stands_once() -> None:
    assert refusal(lambda: grammar.split_parameters("SIZE=1 size=2")).startswith("501 5.5.4")


@pytest.mark.parametrize("text", ["X=1\u00a0Y=2", "X=1\u3000Y", "X\u2028Y", "X\x85Y"])
def test_only_a_space_separates_parameters(text: str) -> None:
    """RFC 5321 §4.1.1: SP, not whatever Unicode calls white space."""
    found: dict[str, str | None] = {"refused": None}
    with contextlib.suppress(CommandRefused):
        found = grammar.split_parameters(text)
    assert len(found) == 1


@pytest.mark.parametrize(
    ("value", "size"), [("0", 0), ("1", 1), ("500000", 500_000), ("9" * 20, 10**20 - 1)]
)
def test_size(value: str, size: int) -> None:
    """RFC 1870 §3: 1*20DIGIT."""
    assert grammar.parse_size(value) == size


@pytest.mark.parametrize(
    "value", [None, "", "-1", "+1", "1.5", "1k", "9" * 21, "１", "²", "0x1", "1 "]
)
def test_bad_size(value: str | None) -> None:
    assert refusal(lambda: grammar.parse_size(value)).startswith("501 5.5.4")


def test_body() -> None:
    """RFC 6152 §3, RFC 3030 §3."""
    assert grammar.parse_body("7BIT") is Body.SEVEN_BIT
    assert grammar.parse_body("8bitmime") is Body.EIGHT_BIT_MIME
    assert grammar.parse_body("BinaryMime") is Body.BINARY_MIME
    for value in (None, "", "8BIT", "BINARY", "7BIT "):
        call = lambda value=value: grammar.parse_body(value)  # noqa: E731
        assert refusal(call).startswith("501 5.5.4")


def test_ret() -> None:
    """RFC 3461 §4.3."""
    assert grammar.parse_ret("full") is Ret.FULL
    assert grammar.parse_ret("HDRS") is Ret.HEADERS
    for value in (None, "", "HDR", "FULL,HDRS", "NONE"):
        call = lambda value=value: grammar.parse_ret(value)  # noqa: E731
        assert refusal(call).startswith("501 5.5.4")


@pytest.mark.parametrize(
    ("value", "notify"),
    [
        ("NEVER", Notify.NEVER),
        ("never", Notify.NEVER),
        ("SUCCESS", Notify.SUCCESS),
        ("FAILURE,DELAY", Notify.FAILURE | Notify.DELAY),
        ("delay,Success,FAILURE", Notify.SUCCESS | Notify.FAILURE | Notify.DELAY),
    ],
)
def test_notify(value: str, notify: Notify) -> None:
    """RFC 3461 §4.1."""
    assert grammar.parse_notify(value) == notify


@pytest.mark.parametrize(
    "value", [None, "", "NEVER,SUCCESS", "SUCCESS,NEVER", "SUCCESS,", ",DELAY", "ALWAYS", "DELAY;X"]
)
def test_bad_notify(value: str | None) -> None:
    """RFC 3461 §4.1: NEVER stands alone."""
    assert refusal(lambda: grammar.parse_notify(value)).startswith("501 5.5.4")


def test_envid() -> None:
    """RFC 3461 §4.4: xtext, at most 100 characters, printable once decoded."""
    assert grammar.parse_envid("QQ314159") == "QQ314159"
    assert grammar.parse_envid("a+2Bb+3Dc+20d") == "a+b=c d"
    assert grammar.parse_envid("x" * 100) == "x" * 100


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "x" * 101,
        "a+",
        "a+2",
        "a+2b",
        "a+GG",
        "a+0D+0A",
        "a+00",
        "a+7F",
        "a+1B",
        "a+E9",
        "é",
    ],
)
def test_bad_envid(value: str | None) -> None:
    """Hexadecimal digits of xtext are upper case; CR, LF and NUL would enter a report."""
    assert refusal(lambda: grammar.parse_envid(value)).startswith("501 5.5.4")


def test_orcpt() -> None:
    """RFC 3461 §4.2."""
    assert grammar.parse_orcpt("rfc822;ann@x.example", smtputf8=False) == "rfc822;ann@x.example"
    assert grammar.parse_orcpt("RFC822;a+2Bb@x.example", smtputf8=False) == "RFC822;a+b@x.example"
    assert grammar.parse_orcpt("x-local;+20;", smtputf8=False) == "x-local; ;"


@pytest.mark.parametrize(
    ("value", "original"),
    [
        ("utf-8;ann@x.example", "utf-8;ann@x.example"),
        # RFC 6533 §3: any character as \x{HEX} ...
        (r"utf-8;j\x{FC}rgen@x.example", "utf-8;jürgen@x.example"),
        (r"utf-8;\x{7528}\x{6237}@x.example", "utf-8;用户@x.example"),
        (r"utf-8;\x{1F600}@x.example", "utf-8;😀@x.example"),
        (r"utf-8;a\x{2B}b\x{3D}\x{20}\x{5C}@x.example", "utf-8;a+b= \\@x.example"),
        # ... decoded once, and only once.
        (r"utf-8;\x{5C}x{41}@x.example", r"utf-8;\x{41}@x.example"),
        (r"UTF-8;\x{fc}@x.example", "UTF-8;ü@x.example"),
    ],
)
def test_orcpt_in_utf8(value: str, original: str) -> None:
    assert grammar.parse_orcpt(value, smtputf8=False) == original


def test_orcpt_with_raw_utf8_needs_smtputf8() -> None:
    """RFC 6533 §3: utf-8-addr-unitext only where SMTPUTF8 was asked for."""
    value = "utf-8;jürgen@x.example"
    assert grammar.parse_orcpt(value, smtputf8=True) == value
    assert refusal(lambda: grammar.parse_orcpt(value, smtputf8=False)).startswith("553 5.6.7")


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "ann@x.example",
        ";ann@x.example",
        "rfc822;",
        "rfc 822;a",
        "rfc_822;a",
        "rfc822;a+0Ab",
        "rfc822;a+0D+0Ab",
        "rfc822;a+00b",
        "rfc822;a+zz",
        "rfc822;a=b",
        "rfc822;jürgen@x",
        "rfc822;" + "x" * 494,
        r"utf-8;\x{0A}@x",
        r"utf-8;\x{0D}\x{0A}@x",
        r"utf-8;\x{00}@x",
        r"utf-8;\x{D800}@x",
        r"utf-8;\x{DFFF}@x",
        r"utf-8;\x{110000}@x",
        r"utf-8;\x{2028}@x",
    ],
)
def test_bad_orcpt(value: str | None) -> None:
    assert refusal(lambda: grammar.parse_orcpt(value, smtputf8=True)).startswith("501 5.5.4")


# xtext.


@pytest.mark.parametrize(
    ("text", "encoded"),
    [
        ("abc", "abc"),
        ("a+b", "a+2Bb"),
        ("a=b", "a+3Db"),
        ("a b", "a+20b"),
        ("\r\n", "+0D+0A"),
        ("", ""),
    ],
)
def test_xtext(text: str, encoded: str) -> None:
    """RFC 3461 §4."""
    assert encode_xtext(text) == encoded


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60))
def test_xtext_comes_back(text: str) -> None:
    encoded = encode_xtext(text)
    assert set(encoded) <= {chr(code) for code in range(33, 127)} - {"="}
    assert grammar.decode_xtext(encoded, "X") == text


@given(st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn", "Z"]), min_size=1, max_size=40))
def test_original_recipient_in_utf8_comes_back(address: str) -> None:
    """RFC 6533 §3: what one hop encodes, the next decodes to the same; 7-bit and without spaces."""
    if not all(character.isprintable() for character in address):
        return
    encoded = grammar.encode_original_recipient(f"utf-8;{address}")
    assert encoded.isascii()
    assert not set(encoded) & set(" +=")
    if len(encoded) <= 500:
        assert grammar.parse_orcpt(encoded, smtputf8=False) == f"utf-8;{address}"


def test_original_recipient_of_another_type_is_xtext() -> None:
    assert grammar.encode_original_recipient("rfc822;a+b c@x") == "rfc822;a+2Bb+20c@x"


# BDAT.


@pytest.mark.parametrize(
    ("argument", "chunk"),
    [("0", (0, False)), ("86", (86, False)), ("86 LAST", (86, True)), ("0 last", (0, True))],
)
def test_chunk(argument: str, chunk: tuple[int, bool]) -> None:
    """RFC 3030 §2."""
    assert grammar.parse_chunk(argument) == chunk


@pytest.mark.parametrize(
    "argument",
    [
        "",
        "LAST",
        "-1",
        "+1",
        "x",
        "1 FIRST",
        "1 LAST 2",
        "1 2",
        "1LAST",
        "１",
        "²",
        "1.0",
        "9" * 21,
    ],
)
def test_bad_chunk(argument: str) -> None:
    assert grammar.parse_chunk(argument) is None


# Whatever comes.


@given(
    st.one_of(
        st.text(max_size=60),
        st.text('<>"\\@:,[]=+;{}xTOFRM é\u3000', max_size=60).map(lambda text: f"TO:{text}"),
        st.text('<>"\\@:,[]ab.', max_size=30).map(lambda text: f"TO:<{text}> A=b"),
    ),
    st.booleans(),
)
def test_any_text_is_read_or_refused(text: str, lenient: bool) -> None:
    calls: list[Callable[[], object]] = [
        lambda: grammar.split_path(text, "TO:", lenient=lenient),
        lambda: grammar.parse_address(text, (1, 3), lenient=lenient),
        lambda: grammar.split_parameters(text),
        lambda: grammar.parse_size(text),
        lambda: grammar.parse_body(text),
        lambda: grammar.parse_ret(text),
        lambda: grammar.parse_envid(text),
        lambda: grammar.parse_notify(text),
        lambda: grammar.parse_orcpt(text, smtputf8=lenient),
        lambda: grammar.parse_orcpt(f"utf-8;{text}", smtputf8=lenient),
        lambda: grammar.parse_chunk(text),
    ]
    for call in calls:
        refused = None
        try:
            call()
        except CommandRefused as error:
            refused = error
        if refused is not None:
            assert refused.reply.is_permanent
            for line in refused.reply.wire.split(b"\r\n")[:-1]:
                # RFC 5321 §4.5.3.1.5.
                assert len(line) <= 510
                assert all(32 <= octet < 127 for octet in line)


@pytest.mark.parametrize(
    "path",
    [
        "a@[IPv6:" + "\\" * 240 + "]",
        "a@[IPv6:" + "x" * 240 + "]",
        "a@" + "\u200b" * 60,
        "a@" + "é" * 100,
    ],
)
def test_a_refusal_is_one_short_line_whatever_it_speaks_of(path: str) -> None:
    """RFC 5321 §4.5.3.1.5: a reply line has at most 512 octets."""
    with pytest.raises(CommandRefused) as caught:
        grammar.parse_address(path, (1, 3), lenient=False)
    wire = caught.value.reply.wire
    assert wire.count(b"\n") == 1
    assert len(wire) <= 512


LONG: dict[str, Callable[[int], object]] = {
    "quotes": lambda n: path_of('TO:<"' + '"' * n, lenient=True),
    "pairs": lambda n: path_of('TO:<"' + "\\a" * (n // 2)),
    "quoted strings": lambda n: path_of("TO:<" + '"a"' * (n // 3)),
    "brackets": lambda n: path_of("TO:" + "<" * n),
    "routes": lambda n: path_of("TO:<" + "@a," * (n // 3) + ">"),
    "literal routes": lambda n: path_of("TO:<" + "@[a]," * (n // 5) + "x>"),
    "open literals": lambda n: path_of("TO:<@" + "[" * n + ">"),
    "parameters": lambda n: grammar.split_parameters("A " * (n // 2)),
    "a parameter": lambda n: grammar.split_parameters("A-" * (n // 2) + "="),
    "xtext": lambda n: grammar.decode_xtext("+4" * (n // 2), "X"),
    "type": lambda n: grammar.parse_orcpt("a-" * 240 + ";" + "x" * n, smtputf8=True),
    "chunk": lambda n: grammar.parse_chunk("1 " * (n // 2)),
}


def cost(call: Callable[[int], object], size: int) -> float:
    def three_times() -> None:
        for _ in range(3):
            with contextlib.suppress(CommandRefused):
                call(size)

    return least_cost(three_times)


@pytest.mark.parametrize("shape", LONG)
def test_cost_grows_with_the_length_and_not_its_square(shape: str) -> None:
    small, large = (cost(LONG[shape], size) for size in (3_000, 30_000))
    assert large < 40 * small


def test_what_is_parsed_is_an_address() -> None:
    assert grammar.parse_address("a@b.example", (1, 3), lenient=False) == Address.parse(
        "a@b.example"
    )
