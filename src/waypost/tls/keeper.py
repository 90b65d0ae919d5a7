"""The certificates the hub shows: given by the operator, or issued by its own authority.

Beside them there may be a public one, for those who come from elsewhere: no public server
certifies 192.168.1.20, and nobody outside trusts our own authority.

New certificates come with new contexts: OpenSSL keeps one certificate for each kind of key, so one
of another kind would only join those shown before. Sessions under way keep the context they have.
"""

from __future__ import annotations

import datetime
import ssl
import threading
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from waypost.durable import write_public, write_secret
from waypost.errors import WaypostError
from waypost.mail.address import IPAddress
from waypost.tls.authority import (
    PRIVATE_NETWORKS,
    Authority,
    PrivateKey,
    Subjects,
    is_due,
    subjects_of,
)
from waypost.tls.settings import Profile, TlsSettings

# Old devices know RSA only, all others are better served by ECDSA: OpenSSL shows what fits.
_LEAVES = {"ecdsa": False, "rsa": True}
# Overlay networks and clouds use the block of carrier NAT (RFC 6598) as a private one.
_PRIVATE = (*PRIVATE_NETWORKS, ip_network("100.64.0.0/10"))


class CertificateFault(WaypostError):
    """A certificate or key of the configuration cannot be used; the text says which and why."""


class Prepared(NamedTuple):
    """Certificates that lie ready."""

    pairs: tuple[tuple[Path, Path], ...]  # certificate with its chain, and key
    trouble: str | None  # what had to be left out, in words; None: nothing


class _Public(NamedTuple):
    """A certificate of a public authority."""

    subjects: Subjects
    contexts: dict[Profile, ssl.SSLContext]


class Keeper:
    """Keeps the contexts in order."""

    def __init__(
        self,
        directory: Path,
        *,
        clock: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
    ) -> None:
        """`directory` is `tls/` of the data directory."""
        self._directory = directory
        self._clock = clock
        self._preparing = threading.Lock()
        self._contexts = {profile: _context(profile) for profile in Profile}
        self._public: _Public | None = None  # None: there is none

    def context(
        self, profile: Profile, local: IPAddress | None = None, client: IPAddress | None = None
    ) -> ssl.SSLContext:
        """The context for a handshake that begins now, between these addresses.

        None: not known. The public certificate is for its own addresses, for names that are asked
        for, and for clients from outside that came through NAT.
        """
        public = self._public
        if public is None or local is None or client is None:
            return self._contexts[profile]
        is_for_outside = not _is_private(client) and (_is_private(local) or not public.subjects.ips)
        if local in public.subjects.ips or is_for_outside:
            return public.contexts[profile]
        return self._contexts[profile]

    def show_public(self, pair: Path | None) -> None:
        """Show a certificate (with chain and key in one file) from the next handshake on.

        None: no public one any more. Blocks. Raises CertificateFault; all or nothing.
        """
        if pair is None:
            self._public = None
            return
        contexts = {profile: _context(profile) for profile in Profile}
        for context in contexts.values():
            self._load(pair, pair, context)
        try:
            certificate = x509.load_pem_x509_certificates(pair.read_bytes())[0]
        except (OSError, ValueError) as error:
            raise CertificateFault(f"{pair}: {error}") from error
        self._public = _Public(subjects_of(certificate), contexts)

    def _chooser(self, profile: Profile) -> Callable[[ssl.SSLObject, str, ssl.SSLContext], None]:
        def choose(session: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
            public = self._public
            if name is not None and public is not None and name.lower() in public.subjects.names:
                session.context = public.contexts[profile]

        return choose

    def prepare(self, settings: TlsSettings, wanted: Subjects) -> Prepared:
        """Find the certificates, and issue what is missing, old, or not for `wanted`.

        Blocks; touches no context. Raises AuthorityError, OSError.
        """
        if settings.certificate is not None and settings.key is not None:
            return Prepared(((settings.certificate, settings.key),), None)
        with self._preparing:
            return self._prepare(wanted)

    def _prepare(self, wanted: Subjects) -> Prepared:
        now = self._clock()
        authority = Authority.load(self._directory)
        if authority is None:
            authority = Authority.create(self._directory, wanted, now=now)
        allowed = authority.allowed(wanted)
        pairs: list[tuple[Path, Path]] = []
        for kind, is_rsa in _LEAVES.items():
            certificate = self._directory / f"hub-{kind}.pem"
            key = self._directory / f"hub-{kind}.key"
            if not _is_good(certificate, key, allowed, authority, now):
                # Others may know the hub by its key (tls/pins).
                kept = _kept_key(key, is_rsa=is_rsa)
                leaf = authority.issue(allowed, is_rsa=is_rsa, now=now, kept_key=kept)
                write_secret(key, leaf.key)
                write_public(certificate, leaf.certificate)
            pairs.append((certificate, key))
        left_out = sorted(map(str, (wanted.ips - allowed.ips) | (wanted.names - allowed.names)))
        if not left_out:
            return Prepared(tuple(pairs), None)
        trouble = (
            f"the authority in {self._directory} may not speak for {', '.join(left_out)};"
            " `waypost tls init --force` makes one that may"
        )
        return Prepared(tuple(pairs), trouble)

    def load(self, prepared: Prepared) -> None:
        """Show these from the next handshake on. Raises CertificateFault; all or nothing."""
        contexts = {profile: _context(profile) for profile in Profile}
        for profile, context in contexts.items():
            for certificate, key in prepared.pairs:
                self._load(certificate, key, context)
            context.sni_callback = self._chooser(profile)
        self._contexts = contexts

    def _load(self, certificate: Path, key: Path, context: ssl.SSLContext) -> None:
        try:
            context.load_cert_chain(certificate, key, _no_passphrase)
        except (OSError, ValueError) as error:  # and ssl.SSLError with it
            why = getattr(error, "reason", None) or getattr(error, "strerror", None)
            raise CertificateFault(f"{certificate} with {key}: {why or error}") from error


def _context(profile: Profile) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 1
    if profile is Profile.LEGACY:
        # Both are needed since OpenSSL 3: the version, and the level that forbids its hashes.
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED  # SSLv3 is off by its option
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
    else:
        context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _is_private(ip: IPAddress) -> bool:
    """Where our own authority is trusted rather than a public one."""
    return any(ip.version == each.version and ip in each for each in _PRIVATE)


def _no_passphrase() -> str:
    raise ValueError("the key is encrypted; nobody is here to type its passphrase")


def _kept_key(path: Path, *, is_rsa: bool) -> PrivateKey | None:
    """The key of the certificate before; None: there is none of this kind."""
    try:
        found = serialization.load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm):
        return None
    kind = rsa.RSAPrivateKey if is_rsa else ec.EllipticCurvePrivateKey
    return found if isinstance(found, kind) else None


def _is_good(
    certificate: Path,
    key: Path,
    wanted: Subjects,
    authority: Authority,
    now: datetime.datetime,
) -> bool:
    """Whether a leaf of ours still serves."""
    try:
        found = x509.load_pem_x509_certificate(certificate.read_bytes())
        found.verify_directly_issued_by(authority.certificate)
        # A power cut between the two files leaves a key that belongs to the next certificate.
        private = serialization.load_pem_private_key(key.read_bytes(), None)
    except (OSError, ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return (
        private.public_key() == found.public_key()
        and subjects_of(found) == wanted
        and not is_due(found, now=now)
    )
