"""A large message is streamed through the hub: exactly, and without being held in memory."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.hub import Hub
from tests.support.mail import accepted, next_reply, queue_id_in, reply_to, stuffed, submit, wire
from tests.support.scripted_peer import ScriptedPeer
from tests.support.toml import route
from tests.support.waiting import wait_until

from .conftest import StartHub

SIZE = 20_000_000
GROWTH_BYTES = 3_000_000
# Lines of many lengths, some beginning with dots, none in step with any buffer.
_PIECE = b"".join(b"." * (n % 4) + b"x" * (n * 7 % 300) + b"\r\n" for n in range(997))
CONTENT = wire("Subject: large", "") + _PIECE * (SIZE // len(_PIECE) + 1)


@pytest.fixture
def hub(start_hub: StartHub, peer: ScriptedPeer) -> Hub:
    """A hub that has relayed and stored, so that all it needs for that is in memory."""
    hub = start_hub(route(peer.target, match='recipient = "*@far.example"'))
    warm = wire("Subject: warm", "") + _PIECE * 4
    with hub.smtp(local_hostname="x") as smtp:
        submit(smtp, "bob@far.example", "warm@[127.0.0.1]", content=warm)
    peer.wait_for_mails(1)
    hub.wait_for_mail("warm")
    return hub


def peak_bytes(hub: Hub) -> int:
    """The most memory the hub has had so far."""
    status = Path(f"/proc/{hub.pid}/status").read_text()
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def in_pieces(octets: bytes) -> Iterator[bytes]:
    """As a client reads a file."""
    for start in range(0, len(octets), 65_536):
        yield octets[start : start + 65_536]


@pytest.mark.parametrize("by_chunks", [False, True])
@pytest.mark.parametrize("recipient", ["bob@far.example", "ann@[127.0.0.1]"])
def test_a_large_message(hub: Hub, peer: ScriptedPeer, by_chunks: bool, recipient: str) -> None:
    before = peak_bytes(hub)
    with hub.smtp(local_hostname="x") as smtp:
        smtp.ehlo()
        accepted(smtp, f"MAIL FROM:<> SIZE={len(CONTENT)}")
        accepted(smtp, f"RCPT TO:<{recipient}>")
        if by_chunks:
            smtp.send(b"BDAT %d LAST\r\n" % len(CONTENT))
        else:
            assert reply_to(smtp, "DATA").startswith("354")
        for piece in in_pieces(CONTENT if by_chunks else stuffed(CONTENT)):
            smtp.send(piece)
        queue_id_in(next_reply(smtp))
    if recipient.startswith("bob"):
        arrived = peer.wait_for_mails(2)[-1].content
    else:
        (arrived,) = hub.wait_for_mail("ann")
    assert hashlib.sha256(arrived[-len(CONTENT) :]).digest() == hashlib.sha256(CONTENT).digest()
    assert peak_bytes(hub) - before < GROWTH_BYTES
    # Nothing of it stays where it waited.
    wait_until(lambda: [path.name for path in (hub.data / "content").iterdir()] == ["tmp"])
    assert list((hub.data / "content" / "tmp").iterdir()) == []


def test_a_client_that_goes_away_leaves_nothing(hub: Hub) -> None:
    smtp = hub.smtp(local_hostname="x")
    smtp.ehlo()
    accepted(smtp, "MAIL FROM:<>")
    accepted(smtp, "RCPT TO:<ann@[127.0.0.1]>")
    assert reply_to(smtp, "DATA").startswith("354")
    smtp.send(CONTENT[:3_000_000])
    wait_until(lambda: list((hub.data / "content" / "tmp").iterdir()))
    smtp.close()
    wait_until(lambda: not list((hub.data / "content" / "tmp").iterdir()))
    assert hub.mailbox("ann") == []
    assert hub.json("queue", "list") == []
