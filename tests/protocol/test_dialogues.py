"""Dialogues of client and server, from the RFCs, run on ServerSession.

Each file of dialogues/ is one session, told at once, line by line, octet by octet, and cut in two
at every place: the replies must always be the same. Lines of a file:

    # a comment
    @lenient, @lmtp, @max_message N, @max_recipients N   settings of the session
    C: text      the client sends text and CRLF
    C- text      the client sends text, and no CRLF
    S: text      the server says this line; "..." at its end stands for any text
    S!           the server has closed the session
    M: text      the session ended with one more message accepted, and this is its content
    M- to X      ... with these recipients, separated by commas
    M0           no message was accepted

Escapes in C and M: \\r \\n \\0 \\\\ \\xHH, \\{text*N} for N times text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.protocol.driver import Server, split_replies
from waypost.smtp.events import ServerSettings

DIALOGUES = sorted((Path(__file__).parent / "dialogues").glob("*.txt"))

_ESCAPE = re.compile(r"\\(?:(r)|(n)|(0)|(\\)|x([0-9a-fA-F]{2})|\{([^}]*)\*([0-9]+)\})")


def unescape(text: str) -> bytes:
    octets = b""
    position = 0
    for match in _ESCAPE.finditer(text):
        octets += text[position : match.start()].encode()
        position = match.end()
        if match[5]:
            octets += bytes.fromhex(match[5])
        elif match[7]:
            octets += unescape(match[6]) * int(match[7])
        else:
            octets += {"r": b"\r", "n": b"\n", "0": b"\0", "\\": b"\\"}[
                match[1] or match[2] or match[3] or match[4]
            ]
    return octets + text[position:].encode()


@dataclass
class Turn:
    """What the client sends, and what the server then says."""

    sent: bytes = b""
    said: list[str] = field(default_factory=list)


@dataclass
class Dialogue:
    """One file."""

    settings: ServerSettings
    turns: list[Turn] = field(default_factory=lambda: [Turn()])
    is_closed: bool = False
    contents: list[bytes] | None = None  # None: the file does not say
    recipients: list[list[str]] = field(default_factory=list)

    @property
    def sent(self) -> bytes:
        return b"".join(turn.sent for turn in self.turns)

    @property
    def said(self) -> list[str]:
        return [line for turn in self.turns for line in turn.said]

    @classmethod
    def read(cls, path: Path) -> Dialogue:
        settings = {"max_message_bytes": 1_000_000, "max_recipients": 100}
        flags = {"lenient": False, "is_lmtp": False}
        dialogue = cls(ServerSettings(0, 0))
        for number, line in enumerate(path.read_text("utf-8").split("\n"), 1):
            if not line.strip() or line.startswith("#"):
                continue
            kind, text = line[:2], line[3:]
            turn = dialogue.turns[-1]
            if line == "@lenient":
                flags["lenient"] = True
            elif line == "@lmtp":
                flags["is_lmtp"] = True
            elif line.startswith("@max_message "):
                settings["max_message_bytes"] = int(line.split()[1])
            elif line.startswith("@max_recipients "):
                settings["max_recipients"] = int(line.split()[1])
            elif kind in ("C:", "C-"):
                if turn.said:
                    turn = Turn()
                    dialogue.turns.append(turn)
                turn.sent += unescape(text) + (b"\r\n" if kind == "C:" else b"")
            elif kind == "S:":
                turn.said.append(text)
            elif kind == "S!":
                dialogue.is_closed = True
            elif kind == "M:":
                dialogue.contents = [*(dialogue.contents or []), unescape(text)]
            elif kind == "M-":
                dialogue.recipients.append(text.removeprefix("to ").split(","))
            elif kind == "M0":
                dialogue.contents = []
            else:
                raise AssertionError(f"{path.name}:{number}: {line!r}")
        dialogue.settings = ServerSettings(**settings, **flags)
        return dialogue


def matches(said: bytes, expected: Iterable[str]) -> bool:
    lines = said.split(b"\r\n")
    assert lines.pop() == b""
    wanted = list(expected)
    return len(lines) == len(wanted) and all(
        line.decode().startswith(want[:-3]) if want.endswith("...") else line.decode() == want
        for line, want in zip(lines, wanted, strict=True)
    )


def assert_ended_well(dialogue: Dialogue, server: Server) -> None:
    assert server.is_closed == dialogue.is_closed
    if dialogue.contents is not None:
        assert [message.content for message in server.accepted] == dialogue.contents
    for message, recipients in zip(server.accepted, dialogue.recipients, strict=False):
        assert [str(recipient.forward_path) for recipient in message.recipients] == recipients


def run(dialogue: Dialogue, pieces: Iterable[bytes]) -> tuple[bytes, Server]:
    server = Server(dialogue.settings)
    return server.session.data_to_send() + b"".join(server.feed(piece) for piece in pieces), server


def test_there_are_dialogues() -> None:
    assert len(DIALOGUES) >= 30


@pytest.mark.parametrize("path", DIALOGUES, ids=lambda path: path.stem)
def test_each_turn_is_answered_at_once(path: Path) -> None:
    dialogue = Dialogue.read(path)
    server = Server(dialogue.settings)
    greeting = server.session.data_to_send()
    for number, turn in enumerate(dialogue.turns):
        said = server.feed(turn.sent) if turn.sent else b""
        if number == 0:
            said = greeting + said
        split_replies(said)
        assert matches(said, turn.said), (turn.sent, said.decode(), turn.said)
    assert_ended_well(dialogue, server)


@pytest.mark.parametrize("path", DIALOGUES, ids=lambda path: path.stem)
def test_no_split_changes_a_reply(path: Path) -> None:
    dialogue = Dialogue.read(path)
    sent = dialogue.sent
    whole, server = run(dialogue, [sent])
    assert matches(whole, dialogue.said), whole.decode()
    assert_ended_well(dialogue, server)
    single, server = run(dialogue, [bytes([octet]) for octet in sent])
    assert single == whole
    assert_ended_well(dialogue, server)
    for cut in range(1, len(sent)):
        said, server = run(dialogue, [sent[:cut], sent[cut:]])
        assert said == whole, (sent[:cut], sent[cut:])
        assert_ended_well(dialogue, server)
