"""A message as the next host is to have it: repaired, in the name of a relay's account, encoded.

Stored mail stays as it was received. What is made here is a view: a new header section in memory,
and the same content behind it, read as it is sent. Only hosts of the outside world get this
(`relay:`, and `direct` to a name); `smtp:`, `lmtp:` and literals get every octet as it came.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from waypost.delivery.transport import DeliveryJob
from waypost.errors import StoreUnavailable
from waypost.mail.address import AddressLiteral, Domain
from waypost.mail.envelope import Body
from waypost.mail.fields import Field, Section, split
from waypost.mail.message import Content, QueuedMessage, trace_name
from waypost.mail.outgoing import Circumstances, in_ascii, is_signed, rewritten
from waypost.mail.reply import Reply
from waypost.mail.transfer import Encoding, NotPossible, Scan, lines
from waypost.routing.hops import Relay

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# A longer header section is nobody's; what has one is sent as it came, or not at all.
MAX_HEAD = 262_144
_FIRST_READ = 65_536
_PIECE_BYTES = 262_144

_HEAD_TOO_LONG = Reply(
    554, "The header is too long for the sender to be rewritten as this relay demands", (6, 0)
)
_TOO_BIG = Reply(552, "The message is larger than this relay is set to take", (3, 4))


class Outgoing(NamedTuple):
    """What to send."""

    message: QueuedMessage
    changes: tuple[str, ...] = ()  # what was done to it, in words
    refusal: Reply | None = None  # None: it may go


async def outgoing(
    job: DeliveryJob, relay: Relay | None, extensions: Mapping[str, str], hostname: str | None
) -> Outgoing:
    """The job's message for a host that offers these extensions.

    `relay` None: it is not one of the configuration. Raises StoreUnavailable.
    """
    message = job.message
    is_literal = isinstance(job.recipients[0].recipient.forward_path.domain, AddressLiteral)
    if relay is None and (
        job.target.kind != "direct" or (is_literal and not _would_be_refused(message, extensions))
    ):
        return Outgoing(message)
    making = _Making(message, hostname, relay, extensions)
    if message.content.inline is not None:
        return making.outgoing()
    try:
        return await asyncio.to_thread(making.outgoing)
    except OSError as error:
        raise StoreUnavailable(f"the content cannot be read: {error.strerror}") from error


def _would_be_refused(message: QueuedMessage, extensions: Mapping[str, str]) -> bool:
    """For want of 8BITMIME (RFC 6152 §3)."""
    is_announced = message.envelope.body is Body.EIGHT_BIT_MIME
    return message.is_eight_bit and is_announced and "8BITMIME" not in extensions


@dataclass(frozen=True, slots=True)
class _Making:
    """One message on its way through; reads its content, which blocks where it is in a file."""

    message: QueuedMessage
    hostname: str | None
    relay: Relay | None
    extensions: Mapping[str, str]

    def outgoing(self) -> Outgoing:
        """See the function of this name. Raises OSError."""
        message = self._made()
        limit = None if self.relay is None else self.relay.max_message
        if message.refusal is None and limit is not None and message.message.size > limit:
            return message._replace(refusal=_TOO_BIG)
        return message

    def _made(self) -> Outgoing:
        message = self.message
        rewrite_from = None if self.relay is None else self.relay.rewrite_from
        section, rest = _read_head(message.content)
        if not section.is_whole:
            refusal = None if rewrite_from is None else _HEAD_TOO_LONG
            return Outgoing(message, refusal=refusal)
        envelope = message.envelope
        takes_utf8 = "SMTPUTF8" in self.extensions
        known = self._circumstances(section.fields)
        header = rewritten(
            section.fields,
            known,
            rewrite_from=rewrite_from,
            may_be_utf8=takes_utf8 and envelope.smtputf8,
        )
        fields, changes = header.fields, header.changes
        behind = Rest(message.content, section.size)
        content: Content = behind
        is_ended = rest[:2] == b"\r\n" or not rest
        if not is_ended and "dkim-signature" not in {one.key for one in fields}:
            changes.append("header-end")
        may_be_encoded = envelope.body is not Body.BINARY_MIME and not is_signed(section.fields)
        scan = _scan(behind)
        if may_be_encoded and is_ended:
            to_seven_bits = scan.is_eight_bit and "8BITMIME" not in self.extensions
            if to_seven_bits or scan.is_too_long:
                body = Rest(message.content, section.size + 2)
                encoding = _encoding(fields, body, to_seven_bits=to_seven_bits)
                if encoding is not None and encoding.changes:
                    fields = encoding.fields
                    changes += encoding.changes
                    content = _encoded(body, encoding)
                    scan.is_eight_bit = scan.is_eight_bit and not to_seven_bits
        octets = b"".join(one.octets for one in fields)
        if "header-end" in changes:
            octets += b"\r\n"
        if rewrite_from is not None and envelope.reverse_path is not None:
            envelope = envelope._replace(reverse_path=rewrite_from)
        sender = envelope.reverse_path
        if known.is_device_s_own and not takes_utf8 and sender is not None and not sender.is_ascii:
            envelope = envelope._replace(reverse_path=in_ascii(sender))
            changes.append("reverse-path")
        if envelope.smtputf8 and not takes_utf8 and octets.isascii():
            # What needed it is encoded; the addresses are judged by whoever sends them.
            envelope = envelope._replace(smtputf8=False)
        if envelope.body is Body.EIGHT_BIT_MIME and not scan.is_eight_bit and octets.isascii():
            envelope = envelope._replace(body=None)
        if not changes:
            return Outgoing(message._replace(envelope=envelope))
        return Outgoing(
            message._replace(
                envelope=envelope,
                prepend=message.prepend + octets,
                content=content,
                is_eight_bit=scan.is_eight_bit or not octets.isascii(),
            ),
            tuple(changes),
        )

    def _circumstances(self, fields: Sequence[Field]) -> Circumstances:
        message = self.message
        arrival, reverse_path = message.arrival, message.envelope.reverse_path
        host = trace_name(arrival.local_ip, self.hostname)
        if reverse_path is not None:
            domain = reverse_path.domain
        elif arrival.client_ip is not None:
            domain = AddressLiteral(arrival.client_ip)
        elif arrival.local_ip is not None and self.hostname is None:
            domain = AddressLiteral(arrival.local_ip)
        else:
            domain = Domain(host)
        # A relay says that it is one, and a program that logs in says SMTPUTF8 where it means it.
        is_device_s_own = (
            arrival.trusted
            and arrival.client_ip is not None
            and arrival.login is None
            and all(one.key != "received" for one in fields)
        )
        return Circumstances(
            *(message.queue_id, message.accepted_at, host, reverse_path, domain), is_device_s_own
        )


@dataclass(frozen=True, slots=True)
class Rest:
    """The content behind its first octets."""

    content: Content
    start: int

    @property
    def size(self) -> int:
        """Octets."""
        return max(self.content.size - self.start, 0)

    @property
    def inline(self) -> bytes | None:
        """See Content."""
        whole = self.content.inline
        return None if whole is None else whole[self.start :]

    def open(self) -> BinaryIO:
        """See Content."""
        source = self.content.open()
        source.seek(self.start)
        return source

    def pieces(self) -> Iterator[bytes]:
        """All of it; blocks."""
        with self.open() as source:
            while piece := source.read(_PIECE_BYTES):
                yield piece


@dataclass(frozen=True, slots=True)
class Encoded:
    """A body that is encoded while it is read; the empty line before it comes first."""

    body: Rest
    encoding: Encoding
    size: int
    inline: None = None

    def open(self) -> BinaryIO:
        """See Content."""
        return io.BufferedReader(_Encoder(self.encoding.encode(lines(self.body.pieces()))))


class _Encoder(io.RawIOBase):
    """Octets as they are made."""

    def __init__(self, made: Iterator[bytes]) -> None:
        self._made = made
        self._rest = memoryview(b"\r\n")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        room = memoryview(buffer).cast("B")
        while not self._rest:
            piece = next(self._made, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        taken = min(len(room), len(self._rest))
        room[:taken] = self._rest[:taken]
        self._rest = self._rest[taken:]
        return taken

    def close(self) -> None:
        self._made = iter(())  # which lets go of the file
        super().close()


def _encoding(fields: Sequence[Field], body: Rest, *, to_seven_bits: bool) -> Encoding | None:
    """How the body is to be encoded; None: it goes as it is, where the next host takes that."""
    try:
        return Encoding(fields, lines(body.pieces()), to_seven_bits=to_seven_bits)
    except NotPossible:
        return None


def _encoded(body: Rest, encoding: Encoding) -> Content:
    size = 2 + sum(map(len, encoding.encode(lines(body.pieces()))))
    return Encoded(body, encoding, size)


def _read_head(content: Content) -> tuple[Section, bytes]:
    """The header section, and the first octets of what follows it."""
    if content.inline is not None:
        section = split(content.inline, is_all=True)
        return section, content.inline[section.size : section.size + 2]
    with content.open() as source:
        head = b""
        wanted = _FIRST_READ
        while True:
            head += source.read(wanted - len(head))
            section = split(head, is_all=len(head) == content.size)
            if section.is_whole or len(head) >= min(MAX_HEAD, content.size):
                return section, head[section.size : section.size + 2]
            wanted *= 4


def _scan(content: Rest) -> Scan:
    scan = Scan()
    inline = content.inline
    if inline is not None:
        scan.see(inline)
    else:
        for piece in content.pieces():
            scan.see(piece)
    return scan
