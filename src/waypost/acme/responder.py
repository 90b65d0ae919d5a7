"""Answers to challenges: open while an order is under way, and for nothing else.

http-01 is a page of text (RFC 8555 §8.3); tls-alpn-01 a certificate shown to whoever asks for
the protocol acme-tls/1 (RFC 8737), for an address under its name of reverse DNS (RFC 8738 §6).
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ssl
import tempfile
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import NamedTuple

import h11
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from waypost.acme.settings import AcmeSettings, ChallengeKind
from waypost.errors import TemporaryError
from waypost.mail.address import IPAddress

# Servers look from a handful of places at once.
MAX_CONNECTIONS = 64
ANSWER_S = 10.0
MAX_HEAD_BYTES = 8_192

ALPN = "acme-tls/1"
# RFC 8737 §6.1: id-pe-acmeIdentifier.
_ACME_IDENTIFIER = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31")
_VALID = datetime.timedelta(days=1)
_PIECE_BYTES = 4_096


class Proof(NamedTuple):
    """What shows that an address or a name is ours."""

    identifier: IPAddress | str
    path: str  # of http-01
    page: bytes  # of http-01: the key authorization
    digest: bytes  # of tls-alpn-01: its SHA-256


class ResponderFault(TemporaryError):
    """Challenges cannot be answered; the text says where and why."""


@contextlib.asynccontextmanager
async def responding(settings: AcmeSettings, proofs: Sequence[Proof]) -> AsyncIterator[None]:
    """Answer for as long as the block lasts. Raises ResponderFault."""
    responder: _Responder
    if settings.challenge is ChallengeKind.HTTP_01:
        responder = HttpResponder(proofs)
    else:
        responder = AlpnResponder(await asyncio.to_thread(alpn_context, proofs))
    try:
        for host, port in settings.bind:
            await responder.listen(host, port)
        yield
    finally:
        responder.close()


class _Responder(ABC):
    """Takes connections, not too many, and none for long."""

    context: ssl.SSLContext | None = None  # None: in clear

    def __init__(self) -> None:
        self._servers: list[asyncio.Server] = []
        self._sessions: set[asyncio.Task[None]] = set()

    async def listen(self, host: str, port: int) -> None:
        """Raises ResponderFault."""
        try:
            server = await asyncio.start_server(
                self._connected,
                host,
                port,
                limit=MAX_HEAD_BYTES,
                ssl=self.context,
                ssl_handshake_timeout=None if self.context is None else ANSWER_S,
            )
        except OSError as error:
            place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            why = error.strerror or str(error)
            raise ResponderFault(
                f"the challenge cannot be answered at {place} (acme.bind): {why}"
            ) from error
        self._servers.append(server)

    def close(self) -> None:
        for server in self._servers:
            server.close()
        for session in self._sessions:
            session.cancel()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._sessions) >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        session = asyncio.get_running_loop().create_task(self._session(reader, writer))
        self._sessions.add(session)

        def end(_: object) -> None:
            # Not at the end of the session: one that is cancelled may never have begun.
            self._sessions.discard(session)
            writer.close()

        session.add_done_callback(end)

    async def _session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(ANSWER_S):
                await self.answer(reader, writer)
        except (OSError, h11.RemoteProtocolError):
            writer.transport.abort()  # who asks badly, or too slowly, or goes, hears nothing

    @abstractmethod
    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one client. Raises OSError, RemoteProtocolError."""


class HttpResponder(_Responder):
    """Pages by their path; there is no other."""

    def __init__(self, proofs: Sequence[Proof]) -> None:
        super().__init__()
        self._pages = {proof.path.encode(): proof.page for proof in proofs}

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        engine = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        while (event := engine.next_event()) is h11.NEED_DATA:
            engine.receive_data(await reader.read(_PIECE_BYTES))
        if not isinstance(event, h11.Request):
            return
        page = self._pages.get(event.target) if event.method == b"GET" else None
        body = b"There is nothing here.\n" if page is None else page
        response = h11.Response(
            status_code=404 if page is None else 200,
            headers=[
                ("Content-Type", "text/plain" if page is None else "application/octet-stream"),
                ("Content-Length", str(len(body))),
                ("Connection", "close"),
            ],
        )
        writer.write(engine.send(response) or b"")
        if event.method != b"HEAD":
            writer.write(engine.send(h11.Data(data=body)) or b"")
        writer.write(engine.send(h11.EndOfMessage()) or b"")
        await writer.drain()


class AlpnResponder(_Responder):
    """The handshake says it all; nothing is said behind it."""

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__()
        self.context = context

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pass


def alpn_context(proofs: Sequence[Proof]) -> ssl.SSLContext:
    """Shows each its certificate, by the name asked for; nobody else gets one. Blocks."""
    contexts = {server_name(proof.identifier): _alpn_context(proof) for proof in proofs}

    def choose(session: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> int | None:
        context = contexts.get((name or "").lower())
        if context is None:
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        session.context = context
        return None

    context = _server_context()
    context.sni_callback = choose
    return context


def server_name(identifier: IPAddress | str) -> str:
    """What a server asks for by SNI, which cannot hold an address (RFC 8738 §6)."""
    return identifier if isinstance(identifier, str) else identifier.reverse_pointer


def validation_certificate(proof: Proof, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    """The certificate of RFC 8737 §3: the identifier alone, and the digest, critical."""
    identifier = proof.identifier
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ACME challenge")])
    alternative: x509.GeneralName = (
        x509.IPAddress(identifier)
        if isinstance(identifier, IPv4Address | IPv6Address)
        else x509.DNSName(identifier)
    )
    now = datetime.datetime.now(datetime.UTC)
    digest = b"\x04\x20" + proof.digest  # DER: an OCTET STRING of 32 octets
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _VALID)
        .not_valid_after(now + _VALID)
        .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
        .add_extension(x509.UnrecognizedExtension(_ACME_IDENTIFIER, digest), critical=True)
        .sign(key, hashes.SHA256())
    )


def _alpn_context(proof: Proof) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    pem = validation_certificate(proof, key).public_bytes(serialization.Encoding.PEM)
    pem += key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    context = _server_context()
    # Python's ssl takes certificates from files only; this directory is nobody else's.
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "challenge.pem"
        file.write_bytes(pem)
        context.load_cert_chain(file)
    return context


def _server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols([ALPN])
    return context
