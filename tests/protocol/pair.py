"""A ClientSession and a ServerSession, joined by pipes that cut everything into random pieces."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable

from tests.protocol.driver import Server
from waypost.smtp.client import (
    ClientEvent,
    ClientSession,
    ContentWanted,
    SessionReady,
    SessionRefused,
    Transaction,
    TransactionEnded,
)
from waypost.smtp.data import DataEncoder
from waypost.smtp.events import ServerSettings


class Pair:
    """Both engines; `without` names extensions the server is made to hide."""

    def __init__(
        self, settings: ServerSettings, *, without: Iterable[str] = (), seed: int = 0
    ) -> None:
        self.server = Server(settings)
        self.client = ClientSession("client.example", is_lmtp=settings.is_lmtp)
        self._random = random.Random(seed)
        hidden = "|".join(without)
        self._hidden = re.compile(f"250-(?:{hidden})[^\r]*\r\n".encode()) if hidden else None
        self._to_server = b""
        self._to_client = self.server.session.data_to_send()
        self.sent = b""  # all the client ever said
        self.bursts = 0  # times the client had to say something

    def next_event(self) -> ClientEvent:
        """The client's next event; fails when both wait for each other."""
        while (event := self.client.next_event()) is None:
            self._take_from_client()
            assert self._to_server or self._to_client, "each waits for the other"
            if self._to_server and (not self._to_client or self._random.random() < 0.5):
                piece, self._to_server = self._cut(self._to_server)
                said = self.server.feed(piece)
                self._to_client += self._hidden.sub(b"", said) if self._hidden else said
            else:
                piece, self._to_client = self._cut(self._to_client)
                self.client.receive(piece)
        return event

    def connect(self) -> None:
        event = self.next_event()
        assert isinstance(event, SessionReady), event

    def refused(self) -> SessionRefused:
        event = self.next_event()
        assert isinstance(event, SessionRefused), event
        return event

    def carry(self, transaction: Transaction, content: bytes) -> list[int]:
        """One transaction; the code of each recipient's reply."""
        self.client.start(transaction)
        event = self.next_event()
        if isinstance(event, ContentWanted):
            self._take_from_client()
            if event.is_chunked:
                octets = self.client.chunk_header(len(content)) + content
            else:
                encoder = DataEncoder()
                octets = encoder.encode(content)
                assert encoder.is_canonical
                octets += encoder.end()
            self._to_server += octets
            self.sent += octets
            self.client.content_sent()
            event = self.next_event()
        assert isinstance(event, TransactionEnded), event
        assert len(event.replies) == len(transaction.recipients)
        assert self.client.next_event() is None
        return [reply.code for reply in event.replies]

    def settle(self) -> None:
        """Let everything under way arrive."""
        self._take_from_client()
        if self._to_server:
            said = self.server.feed(self._to_server)
            self._to_client += self._hidden.sub(b"", said) if self._hidden else said
            self._to_server = b""
        if self._to_client:
            octets, self._to_client = self._to_client, b""
            self.client.receive(octets)
        assert self.client.next_event() is None

    def _take_from_client(self) -> None:
        octets = self.client.data_to_send()
        if octets:
            self.bursts += 1
        self._to_server += octets
        self.sent += octets

    def _cut(self, octets: bytes) -> tuple[bytes, bytes]:
        size = self._random.choice((1, 2, len(octets), self._random.randint(1, len(octets))))
        return octets[:size], octets[size:]
