"""Content in a server's session: after DATA (RFC 5321 §4.1.1.4), and in BDAT chunks (RFC 3030).

Reads it to its true end, whatever is wrong with it; a refusal is given after that.
"""

from __future__ import annotations

from waypost.mail import reply as replies
from waypost.mail.envelope import Body
from waypost.mail.reply import Reply
from waypost.smtp import command as grammar
from waypost.smtp.data import ChunkDecoder, DataDecoder
from waypost.smtp.events import (
    ContentChunk,
    ContentEnded,
    ContentRequested,
    Event,
    LoginOffer,
    ServerSettings,
    TransactionDropped,
)
from waypost.smtp.login import LoginSession
from waypost.smtp.phase import Phase
from waypost.smtp.quirks import Quirk


class ContentSession(LoginSession):
    """A session that takes content, and knows how far its transaction has come."""

    __slots__ = (
        "_chunk_is_last",
        "_chunk_left",
        "_chunk_size",
        "_chunks",
        "_data",
        "_ended_in_silence",
        "_fault",
        "_resume",
        "_size",
        "body",
        "recipients",
        "smtputf8",
    )

    def __init__(
        self, settings: ServerSettings, login_offer: LoginOffer | None, *, is_encrypted: bool
    ) -> None:
        super().__init__(settings, login_offer, is_encrypted=is_encrypted)
        self._resume: Phase = Phase.READY
        self._data: DataDecoder | None = None
        self._chunks: ChunkDecoder | None = None
        self._chunk_left = 0
        self._chunk_size = 0
        self._chunk_is_last = False
        self._fault: Reply | None = None
        self._size = 0
        self._ended_in_silence = False
        self.body: Body | None = None
        self.smtputf8 = False
        self.recipients = 0

    @property
    def may_have_ended(self) -> bool:
        """True when content stands where a trusted client may wait for our answer already."""
        return self._data is not None and self._data.may_be_ended

    def end_content(self) -> None:
        """The client does wait: what was sent is all of the content.

        If that is wrong, what follows is content still: no other command is obeyed but QUIT.
        """
        assert self._data is not None
        self._ended_in_silence = True
        self._data.end()

    # Content after DATA.

    def _answer_content_request(self, reply: Reply) -> None:
        if reply.code == 421:
            self.refuse(reply)
        elif self._chunks is None:
            if reply.code == 354:
                self._out.append(reply.wire)
                self._data = DataDecoder(lenient=self._settings.lenient)
                self._fault = None
                self._size = 0
                self.phase = Phase.DATA
            else:
                self._out.append(reply.wire)
                self._end_transaction()
        else:
            # BDAT: the octets come in any case; a refusal is given after them.
            if reply.code != 354:
                self._fault = reply
            self.phase = Phase.CHUNK

    def _read_data(self) -> Event | None:
        decoder = self._data
        assert decoder is not None
        if decoder.is_ended:
            self._data = None
            fault = self._fault
            if fault is None and decoder.is_faulty:
                fault = replies.BARE_LINE_ENDS
            if self.transcript is not None:
                self.transcript.content(self._size)
            return self._ended(fault, was_mended=decoder.was_mended)
        if self._position >= len(self._buffer):
            return None
        received = self._buffer[self._position :] if self._position else self._buffer
        content, rest = decoder.receive(received)
        self._buffer = rest
        self._position = 0
        self._count_content(len(content))
        if not content or self._fault is not None or decoder.is_faulty:
            return self._read_data()
        return ContentChunk(content)

    def _ended(self, fault: Reply | None, *, was_mended: bool) -> ContentEnded:
        if was_mended:
            self.quirks |= Quirk.CONTENT_MENDED
        return ContentEnded(fault, was_mended)

    def _count_content(self, octets: int) -> None:
        self._size += octets
        if self._size > self._settings.max_message_bytes and self._fault is None:
            self._fault = replies.MESSAGE_TOO_BIG

    # Content in BDAT chunks.

    def _start_chunk(self, raw_argument: bytes) -> Event | None:
        chunk = grammar.parse_chunk(raw_argument.decode("ascii", "replace"))
        if chunk is None:
            # How many octets follow is unknown, so nothing after this can be read safely.
            self.refuse(Reply(501, "Syntax: BDAT size [LAST]", (5, 4)))
            return None
        self._chunk_size, self._chunk_is_last = chunk
        self._chunk_left = self._chunk_size
        if self.phase is Phase.RECIPIENTS:
            self._chunks = ChunkDecoder(
                lenient=self._settings.lenient, is_binary=self.body is Body.BINARY_MIME
            )
            self._fault = None
            self._size = 0
            return ContentRequested(is_binary=self._chunks.is_binary)
        if self.phase is not Phase.CHUNKS:
            # The octets follow whether we like it or not: they are read past, then refused.
            self._fault = self._why_no_content()
            self._resume = self.phase
        self.phase = Phase.CHUNK
        return None

    def _read_chunk(self) -> Event | None:
        received = self._buffer[self._position : self._position + self._chunk_left]
        if not received and self._chunk_left:
            return None
        self._position += len(received)
        self._chunk_left -= len(received)
        decoder = self._chunks
        if decoder is not None:
            content = decoder.receive(received, is_end=self._chunk_is_last and not self._chunk_left)
            self._count_content(len(content))
            if content and self._fault is None and not decoder.is_faulty:
                return ContentChunk(content)
        return None if self._chunk_left else self._end_chunk()

    def _end_chunk(self) -> Event | None:
        decoder = self._chunks
        if decoder is None:
            assert self._fault is not None
            self.phase = self._resume
            fault, self._fault = self._fault, None
            self._say_junk(fault)
            return None
        if self._fault is None and decoder.is_faulty:
            self._fault = replies.BARE_LINE_ENDS
        if self._chunk_is_last:
            self._chunks = None
            return self._ended(self._fault, was_mended=decoder.was_mended)
        if self._fault is not None:
            self._out.append(self._fault.wire)
            self._end_transaction()
            self.phase = Phase.FAILED
            return TransactionDropped()
        self._out.append(Reply(250, f"{self._chunk_size} octets received", (0, 0)).wire)
        self.phase = Phase.CHUNKS
        return None

    # Transactions.

    def _why_no_content(self) -> Reply:
        # RFC 5321 §3.3: 554 when every RCPT was refused, 503 when none was tried; LMTP has 503
        # for both (RFC 2033 §4.2).
        if self.phase is Phase.SENDER and not self._settings.is_lmtp:
            return replies.NO_VALID_RECIPIENTS
        return replies.NOT_IN_THIS_ORDER

    def _drop_transaction(self) -> Event | None:
        had_one = self.phase not in (Phase.CONNECTED, Phase.READY)
        self._end_transaction()
        return TransactionDropped() if had_one else None

    def _end_transaction(self) -> None:
        self.phase = Phase.READY
        self.recipients = 0
        self.body = None
        self.smtputf8 = False
        self._chunks = None
        self._data = None
        self._fault = None
