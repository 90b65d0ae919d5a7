"""A message as the next host is to have it: repaired, in the name of a relay's account, encoded,
and without attachments that are too large for it.

Stored mail stays as it was received. What is made here is a view: a new header section in memory,
and the same content behind it, read as it is sent. Only hosts of the outside world get this
(`relay:`, and `direct` to a name); `smtp:`, `lmtp:` and literals get every octet as it came.
"""

from __future__ import annotations

import asyncio
import io
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from waypost.delivery.transport import DeliveryJob
from waypost.errors import StoreUnavailable
from waypost.mail.address import AddressLiteral, Domain
from waypost.mail.envelope import Body
from waypost.mail.fields import Field, Section, split
from waypost.mail.message import Content, QueuedMessage, date_field_value, trace_name
from waypost.mail.outgoing import Circumstances, in_ascii, is_signed, rewritten
from waypost.mail.reply import Reply
from waypost.mail.stripping import LeftOut, Stripping
from waypost.mail.transfer import Encoding, Scan
from waypost.mail.walk import Line, NotPossible, body_of, lines
from waypost.reading.fields import parameter_text, parameters
from waypost.reading.names import UNKNOWN, safe_name
from waypost.routing.hops import Oversize, Relay
from waypost.routing.targets import Target, parse_target

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# A longer header section is nobody's; what has one is sent as it came, or not at all.
MAX_HEAD = 262_144
_FIRST_READ = 65_536
_PIECE_BYTES = 262_144
# A host that says how large mail may be counts what it adds itself: its own trace fields.
_ADDED_THERE = 1_024
LEFT_OUT = "left-out"

_HEAD_TOO_LONG = Reply(
    554, "The header is too long for the sender to be rewritten as this relay demands", (6, 0)
)
_TOO_BIG = Reply(552, "The message is larger than this relay is set to take", (3, 4))


# A body, from its start at every call; blocks.
_Pieces = Callable[[], Iterator[bytes]]


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
    """For want of 8BITMIME (RFC 6152 §3), or of BINARYMIME (RFC 3030 §3)."""
    if message.envelope.body is Body.BINARY_MIME:
        return not _takes_binary(extensions)
    is_announced = message.envelope.body is Body.EIGHT_BIT_MIME
    return message.is_eight_bit and is_announced and "8BITMIME" not in extensions


def _takes_binary(extensions: Mapping[str, str]) -> bool:
    return "BINARYMIME" in extensions and "CHUNKING" in extensions


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
        is_free = is_ended and not is_signed(section.fields)
        body = Rest(message.content, section.size + 2)
        pieces = body.pieces
        from_binary = envelope.body is Body.BINARY_MIME and not _takes_binary(self.extensions)
        scan = _scan(behind, may_be_binary=from_binary)
        if from_binary and not scan.is_binary:
            # Some clients announce it for all they send.
            envelope = envelope._replace(body=Body.EIGHT_BIT_MIME)
        if is_free and (from_binary or envelope.body is not Body.BINARY_MIME):
            to_seven_bits = scan.is_eight_bit and "8BITMIME" not in self.extensions
            if to_seven_bits or scan.is_too_long or from_binary:
                encoding = _encoding(fields, body, to_seven_bits, from_binary)
                if encoding is not None and encoding.changes:
                    fields = encoding.fields
                    changes += encoding.changes
                    pieces = _piped(encoding.encode, body.pieces)
                    content = made = Made(pieces)
                    scan.is_eight_bit = made.is_eight_bit
                    if from_binary:
                        envelope = envelope._replace(body=Body.EIGHT_BIT_MIME)
        surplus = len(message.prepend) + _size(fields) + content.size - self._room()
        if surplus > 0 and is_free:
            stripping = self._stripping(fields, pieces, surplus)
            if stripping is not None:
                fields = stripping.fields
                changes.append(LEFT_OUT)
                content = made = Made(_piped(stripping.encode, pieces))
                scan.is_eight_bit = made.is_eight_bit
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

    def _room(self) -> float:
        """Octets that mail may have before attachments are left out."""
        relay = self.relay
        if relay is None or relay.oversize is not Oversize.STRIP:
            return math.inf
        limits = [] if relay.max_message is None else [relay.max_message]
        announced = self.extensions.get("SIZE", "")
        if announced.isascii() and announced.isdigit() and len(announced) < 20 and int(announced):
            limits.append(max(int(announced) - _ADDED_THERE, 0))
        return min(limits, default=math.inf)

    def _stripping(
        self, fields: Sequence[Field], pieces: _Pieces, surplus: float
    ) -> Stripping | None:
        """What is to be left out; None: what may go is not enough."""
        try:
            stripping = Stripping(fields, lines(pieces()), int(surplus), self._described)
        except NotPossible:
            return None
        return stripping if stripping.is_enough else None

    def _described(self, left_out: LeftOut) -> str:
        """What the reader is told of an attachment that does not come."""
        assert self.relay is not None
        message = self.message
        kind, found = parameters(body_of(left_out.fields, "content-type"))
        _, more = parameters(body_of(left_out.fields, "content-disposition"))
        given = parameter_text(more, "filename") or parameter_text(found, "name")
        kept = dict.fromkeys(
            f"mailbox {target.argument}"
            for one in message.recipients
            if (target := _target_of(one.target)) is not None and target.kind == "mailbox"
        )
        at = date_field_value(message.accepted_at)
        host = trace_name(message.arrival.local_ip, self.hostname)
        whole = f"The whole message reached {host} on {at}\nas {message.queue_id}"
        whole += f", and goes to {', '.join(kept)} there." if kept else "."
        return (
            f"An attachment is left out here: with it, the mail is too large for the next host.\n"
            f"\nName: {safe_name(given, kind, 1)}\nType: {kind or UNKNOWN}\n"
            f"Size: {left_out.size} octets\nSHA-256: {left_out.sha256}\n\n{whole}"
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


class Made:
    """A body that is made while it is read; the empty line before it comes first."""

    inline: None = None

    def __init__(self, pieces: _Pieces) -> None:
        """`pieces`: the body, anew at every call. Goes through it once."""
        self._pieces = pieces
        self.size = 2
        self.is_eight_bit = False
        for piece in pieces():
            self.size += len(piece)
            self.is_eight_bit = self.is_eight_bit or not piece.isascii()

    def open(self) -> BinaryIO:
        """See Content."""
        return io.BufferedReader(_Encoder(self._pieces()))


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


def _encoding(
    fields: Sequence[Field], body: Rest, to_seven_bits: bool, from_binary: bool
) -> Encoding | None:
    """How the body is to be encoded; None: it goes as it is, where the next host takes that."""
    source = lines(body.pieces())
    try:
        return Encoding(fields, source, to_seven_bits=to_seven_bits, from_binary=from_binary)
    except NotPossible:
        return None


def _piped(change: Callable[[Iterable[Line]], Iterator[bytes]], pieces: _Pieces) -> _Pieces:
    return lambda: change(lines(pieces()))


def _size(fields: Iterable[Field]) -> int:
    return sum(len(one.octets) for one in fields)


def _target_of(text: str) -> Target | None:
    """None: written by another version of Waypost."""
    try:
        return parse_target(text)
    except ValueError:
        return None


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


def _scan(content: Rest, *, may_be_binary: bool) -> Scan:
    scan = Scan(may_be_binary=may_be_binary)
    inline = content.inline
    if inline is not None:
        scan.see(inline)
    else:
        for piece in content.pieces():
            scan.see(piece)
    return scan
