"""The content codec: RFC 5321 §2.3.8, §4.1.1.4, §4.5.2; RFC 3030; SMTP smuggling (VU#302671)."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.cost import least_cost
from waypost.smtp.data import ChunkDecoder, DataDecoder, DataEncoder

BARE = re.compile(rb"(?<!\r)\n|\r(?!\n)|\0")
END = b"\r\n.\r\n"

# Few octets, so that what matters comes often.
octets = st.lists(
    st.sampled_from([b"\r", b"\n", b".", b"x", b"\0", b"\r\n", b"\r\n.", b"\r\n..", b"\r\n.\r\n"]),
    max_size=14,
).map(b"".join)
canonical = st.lists(
    st.sampled_from([b"", b".", b"..", b"x", b".x", b"x.", b"...", b". "]), max_size=8
).map(lambda lines: b"".join(line + b"\r\n" for line in lines))


def decode(pieces: list[bytes], *, lenient: bool) -> tuple[bytes, bytes, bool, bool, bool]:
    """Content, the rest, and how the decoder ended: is_ended, is_faulty, was_mended."""
    decoder = DataDecoder(lenient=lenient)
    content = b""
    for index, piece in enumerate(pieces):
        got, rest = decoder.receive(piece)
        content += got
        if decoder.is_ended:
            rest += b"".join(pieces[index + 1 :])
            return content, rest, True, decoder.is_faulty, decoder.was_mended
        assert rest == b""
    return content, b"", False, decoder.is_faulty, decoder.was_mended


def split_at(whole: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({min(cut, len(whole)) for cut in cuts})
    edges = [0, *places, len(whole)]
    return [whole[start:end] for start, end in itertools.pairwise(edges)]


# DATA, received.


@pytest.mark.parametrize(
    ("sent", "content"),
    [
        (b".\r\n", b""),
        (b"\r\n.\r\n", b"\r\n"),
        (b"x\r\n.\r\n", b"x\r\n"),
        # RFC 5321 §4.5.2: a leading dot is taken away, once.
        (b"..\r\n.\r\n", b".\r\n"),
        (b"...\r\n.\r\n", b"..\r\n"),
        (b".x\r\n.\r\n", b"x\r\n"),
        (b"x\r\n..\r\ny\r\n.\r\n", b"x\r\n.\r\ny\r\n"),
        (b"x.\r\n.y\r\n.\r\n", b"x.\r\ny\r\n"),
        (b"\r\n..\r\n..\r\n.\r\n", b"\r\n.\r\n.\r\n"),
        ("Größe €\r\n.\r\n".encode(), "Größe €\r\n".encode()),
        (b"\xff\xfe\x80\r\n.\r\n", b"\xff\xfe\x80\r\n"),
    ],
)
@pytest.mark.parametrize("lenient", [False, True])
def test_dots_are_removed_and_the_end_is_found(sent: bytes, content: bytes, lenient: bool) -> None:
    rest = b"QUIT\r\n"
    assert decode([sent + rest], lenient=lenient) == (content, rest, True, False, False)
    for cut in range(len(sent + rest)):
        pieces = [(sent + rest)[:cut], (sent + rest)[cut:]]
        assert decode(pieces, lenient=lenient)[:4] == (content, rest, True, False)


SMUGGLED = [
    b"\n.\n",
    b"\n.\r\n",
    b"\r\n.\n",
    b"\r.\r",
    b"\r.\r\n",
    b"\r\n.\r",
    b"\n.\r",
    b"\r.\n",
    b"\r\n.\r\r\n",
    b"\r\n\0.\r\n",
    b"\r\n.\0\r\n",
    b"\r\0\n.\r\n",
    b"\n\r.\r\n",
    b"\r\r\n.\r\r\n",
    b"\r\n \r\r.\r\n",
]


@pytest.mark.parametrize("mark", SMUGGLED)
def test_nothing_else_ends_data(mark: bytes) -> None:
    """Each row of the byte table: never the end; a fault for strangers; read to the true end."""
    sent = b"Subject: x\r\n\r\none" + mark + b"MAIL FROM:<evil@x>\r\ntwo\r\n.\r\nQUIT\r\n"
    for cut in range(len(sent)):
        _, rest, is_ended, is_faulty, _ = decode([sent[:cut], sent[cut:]], lenient=False)
        assert (rest, is_ended, is_faulty) == (b"QUIT\r\n", True, True)
    whole = decode([sent], lenient=True)
    assert whole[1:3] == (b"QUIT\r\n", True)
    assert BARE.search(whole[0]) is None
    assert b"MAIL FROM:<evil@x>" in whole[0]


@given(octets, st.lists(st.integers(0, 40), max_size=6), st.booleans())
def test_the_result_does_not_depend_on_the_pieces(
    sent: bytes, cuts: list[int], lenient: bool
) -> None:
    whole = decode([sent + END, b"rest"], lenient=lenient)
    single = [bytes([octet]) for octet in sent + END + b"rest"]
    for pieces in (split_at(sent + END + b"rest", cuts), single):
        content, *others = decode(pieces, lenient=lenient)
        assert others == list(whole[1:])
        if not others[2]:  # the content of a faulty message is dropped
            assert content == whole[0]


def assert_no_split_matters(length: int) -> None:
    for octets_of_one in itertools.product((b"\r", b"\n", b".", b"x", b"\0"), repeat=length):
        sent = b"".join(octets_of_one) + END
        for lenient in (False, True):
            content, *others = decode([sent], lenient=lenient)
            for cut in range(1, len(sent)):
                got, *got_others = decode([sent[:cut], sent[cut:]], lenient=lenient)
                assert got_others == others, (sent, cut)
                assert got == content or others[2], (sent, cut)


@pytest.mark.parametrize("length", range(6))
def test_no_split_of_any_short_content_matters(length: int) -> None:
    assert_no_split_matters(length)


@pytest.mark.slow
@pytest.mark.parametrize("length", [6, 7])
def test_no_split_of_any_content_matters(length: int) -> None:
    assert_no_split_matters(length)


@given(octets, st.booleans())
def test_the_end_is_the_first_crlf_dot_crlf(sent: bytes, lenient: bool) -> None:
    """A dot line right after the 354 ends DATA as well (RFC 5321 §4.1.1.4)."""
    stream = sent + END + b"rest"
    end = (b"\r\n" + stream).index(END)
    content, rest, is_ended, is_faulty, was_mended = decode([stream], lenient=lenient)
    assert is_ended
    assert rest == stream[end + len(END) - 2 :]
    body = stream[:end]
    is_bare = BARE.search(body) is not None
    assert is_faulty == (is_bare and not lenient)
    assert was_mended == (is_bare and lenient)
    if not is_bare:
        assert content == re.sub(rb"(?m)^\.", b"", body)
    elif lenient:
        assert BARE.search(content) is None
        assert content == b"" or content.endswith(b"\r\n")


@given(octets)
def test_without_the_end_mark_data_does_not_end(sent: bytes) -> None:
    sent = (b"\r\n" + sent).replace(END, b"\r\n")[2:]
    while END in b"\r\n" + sent:
        sent = (b"\r\n" + sent).replace(END, b"\r\n")[2:]
    for lenient in (False, True):
        assert not decode([sent], lenient=lenient)[2]


def test_mending_keeps_lines_and_text() -> None:
    content = decode([b"a\nb\rc\r\r\nd\0e\n\nf\r\n.\r\n"], lenient=True)
    assert content == (b"a\r\nb\r\nc\r\nde\r\n\r\nf\r\n", b"", True, False, True)


@pytest.mark.parametrize("lenient", [False, True])
def test_little_is_held_back(lenient: bool) -> None:
    """Content goes on as it comes; what waits for its next octet is a handful."""
    decoder = DataDecoder(lenient=lenient)
    total = 0
    for _ in range(100):
        content, _ = decoder.receive(b"x" * 998 + b"\r\n")
        total += len(content)
    assert 100 * 1000 - total <= 5


# BDAT, received.


def decode_chunks(
    chunks: list[bytes], *, lenient: bool, is_binary: bool = False
) -> tuple[bytes, bool, bool]:
    decoder = ChunkDecoder(lenient=lenient, is_binary=is_binary)
    content = b"".join(
        decoder.receive(chunk, is_end=index == len(chunks) - 1)
        for index, chunk in enumerate(chunks)
    )
    return content, decoder.is_faulty, decoder.was_mended


@given(octets, st.lists(st.integers(0, 40), max_size=6))
def test_binary_chunks_are_exact(sent: bytes, cuts: list[int]) -> None:
    """RFC 3030 §3: no dots, no line ends, any octet."""
    pieces = split_at(sent, cuts)
    for lenient in (False, True):
        assert decode_chunks(pieces, lenient=lenient, is_binary=True) == (sent, False, False)


@given(octets, st.lists(st.integers(0, 40), max_size=6), st.booleans())
def test_text_chunks_are_judged_whole(sent: bytes, cuts: list[int], lenient: bool) -> None:
    """A CRLF may fall on two chunks; a CR at the very end is bare."""
    is_bare = BARE.search(sent) is not None
    whole = decode_chunks([sent], lenient=lenient)
    for pieces in (split_at(sent, cuts), [bytes([octet]) for octet in sent] or [b""]):
        content, is_faulty, was_mended = decode_chunks(pieces, lenient=lenient)
        assert is_faulty == (is_bare and not lenient)
        assert was_mended == (is_bare and lenient)
        if not is_faulty:
            assert content == whole[0]
    if not is_bare:
        assert whole[0] == sent
    if lenient:
        assert BARE.search(whole[0]) is None


def test_dots_in_chunks_are_text() -> None:
    """RFC 3030 §2: no end mark, no stuffing."""
    sent = b".\r\n..\r\n.x\r\n\r\n.\r\n"
    assert decode_chunks([sent], lenient=False) == (sent, False, False)


# DATA, sent.


def encode(pieces: list[bytes]) -> tuple[bytes, bool]:
    encoder = DataEncoder()
    sent = b"".join(encoder.encode(piece) for piece in pieces)
    return sent + encoder.end(), encoder.is_canonical


@pytest.mark.parametrize(
    ("content", "sent"),
    [
        (b"", b".\r\n"),
        (b"\r\n", b"\r\n.\r\n"),
        (b"x\r\n", b"x\r\n.\r\n"),
        (b"x", b"x\r\n.\r\n"),
        (b".", b"..\r\n.\r\n"),
        (b".\r\n", b"..\r\n.\r\n"),
        (b"x\r\n.\r\n", b"x\r\n..\r\n.\r\n"),
        (b"..\r\n", b"...\r\n.\r\n"),
        (b"x.\r\n.y\r\n", b"x.\r\n..y\r\n.\r\n"),
    ],
)
def test_leading_dots_are_doubled(content: bytes, sent: bytes) -> None:
    """RFC 5321 §4.5.2."""
    assert encode([content]) == (sent, True)
    assert encode([bytes([octet]) for octet in content]) == (sent, True)


@given(canonical, st.lists(st.integers(0, 60), max_size=6), st.booleans())
def test_what_is_encoded_is_decoded_to_itself(
    content: bytes, cuts: list[int], lenient: bool
) -> None:
    sent, is_canonical = encode(split_at(content, cuts))
    assert is_canonical
    assert sent == encode([content])[0]
    assert (b"\r\n" + sent).count(END) == 1
    for pieces in ([sent], [bytes([octet]) for octet in sent]):
        assert decode(pieces, lenient=lenient)[:4] == (content, b"", True, False)


@given(octets, st.lists(st.integers(0, 40), max_size=6))
def test_a_bare_line_end_is_noticed_before_the_end_mark(sent: bytes, cuts: list[int]) -> None:
    encoder = DataEncoder()
    for piece in split_at(sent, cuts):
        encoder.encode(piece)
    # A NUL breaks no line.
    assert encoder.is_canonical == (re.search(rb"(?<!\r)\n|\r(?!\n)", sent) is None)


@given(octets, st.lists(st.integers(0, 40), max_size=6))
def test_what_a_trusted_client_sent_leaves_canonical(sent: bytes, cuts: list[int]) -> None:
    """Whatever comes in, one message goes out: no bare CR, LF, NUL, one end mark, the last."""
    decoder = DataDecoder(lenient=True)
    encoder = DataEncoder()
    out = b""
    for piece in split_at(sent + END, cuts):
        content, _ = decoder.receive(piece)
        out += encoder.encode(content)
        if decoder.is_ended:
            break
    assert encoder.is_canonical
    out += encoder.end()
    assert BARE.search(out) is None
    assert (b"\r\n" + out).count(END) == 1
    assert (b"\r\n" + out).endswith(END)


# Cost.


@pytest.mark.parametrize("unit", [b"x", b"\r", b"\n", b".", b"\0", b"\r\n.", b"\r\r", b"\r\n"])
@pytest.mark.parametrize("lenient", [False, True])
def test_cost_grows_with_the_length_and_not_its_square(unit: bytes, lenient: bool) -> None:
    def cost(size: int) -> float:
        pieces = [unit * (100 // len(unit))] * (size // 100)
        return least_cost(lambda: decode(pieces, lenient=lenient), runs=3)

    assert cost(200_000) < 50 * cost(20_000)


@pytest.mark.parametrize(
    ("sent", "content"),
    [
        (b".\n", b""),
        (b"a\r\n.\n", b"a\r\n"),
        (b"a\n.\n", b"a\r\n"),
        (b"a\n.\r\n", b"a\r\n"),
        (b"a\n\n.\r\r\n", b"a\r\n\r\n"),
        (b"a\r\n.\r\r\n", b"a\r\n"),
        (b"a\n..\n.\n", b"a\r\n.\r\n"),
    ],
)
def test_a_trusted_client_may_think_it_has_ended(sent: bytes, content: bytes) -> None:
    for pieces in ([sent], *([sent[:cut], sent[cut:]] for cut in range(1, len(sent)))):
        decoder = DataDecoder(lenient=True)
        found = b""
        for piece in pieces:
            found += decoder.receive(piece)[0]
        assert decoder.may_be_ended
        assert not decoder.is_ended
        decoder.end()
        assert (found, decoder.is_ended, decoder.was_mended) == (content, True, True)


@pytest.mark.parametrize(
    "sent",
    [b"", b"a", b".", b"a\n", b"a.\n", b"a\n..\n", b"a\n.", b"a\n.\r", b"a\n.b\n", b"a\n. \n"],
)
def test_no_other_content_may_be_ended(sent: bytes) -> None:
    decoder = DataDecoder(lenient=True)
    decoder.receive(sent)
    assert not decoder.may_be_ended


def test_a_strangers_content_has_one_end_only() -> None:
    decoder = DataDecoder(lenient=False)
    decoder.receive(b"a\r\n.\n")
    assert not decoder.may_be_ended
