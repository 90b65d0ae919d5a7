"""DANE for SMTP (RFC 7672): what a zone says of a host's certificate, and whether that is shown.

Only answers count that the resolver has validated; dns/resolver says what it takes to believe it.
"""

from __future__ import annotations

import asyncio
import datetime
import hashlib
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from waypost.delivery.connection import TlsUnmet
from waypost.dns.resolver import Answer, Resolver, ResolverUnavailable, TlsaRecord
from waypost.mail.address import IPAddress
from waypost.tls.evidence import Evidence

_TRUST_ANCHOR, _END_ENTITY = 2, 3  # RFC 7671 §2.1; 0 and 1 are of no use here (RFC 7672 §3.1.3)
_WHOLE, _KEY = 0, 1  # selectors
_DIGESTS = {1: hashlib.sha256, 2: hashlib.sha512}
# What no honest zone needs more of.
_MAX_RECORDS = 50


class Anchors(NamedTuple):
    """What a zone says of a host."""

    base: str  # the name the records stand for, which the host is greeted by (RFC 7672 §8.1)
    usable: tuple[TlsaRecord, ...]  # empty: TLS is a must, and proves nothing (RFC 7672 §2.2)


async def anchors_of(resolver: Resolver, host: str, port: int) -> Anchors | None:
    """The TLSA records of a host; None: there are none that somebody validated.

    Raises ResolverUnavailable: whoever keeps the answer back must not have his way (RFC 7672
    §2.1.3).
    """
    found: list[Answer[IPAddress]] = []
    for answer in await asyncio.gather(
        resolver.ipv6(host), resolver.ipv4(host), return_exceptions=True
    ):
        if isinstance(answer, Answer):
            found += [answer] if answer.records else []
        elif not isinstance(answer, ResolverUnavailable):
            raise answer
    if not found or not all(answer.is_secure for answer in found):
        return None
    # RFC 7672 §2.2.3: behind an alias first, then at the name itself.
    for base in dict.fromkeys([found[0].canonical, host]):
        records = await resolver.tlsa(f"_{port}._tcp.{base}")
        if records.is_secure and records.records:
            usable = tuple(filter(_is_usable, records.records[:_MAX_RECORDS]))
            return Anchors(base, usable)
    return None


def _is_usable(record: TlsaRecord) -> bool:
    if record.usage not in (_TRUST_ANCHOR, _END_ENTITY) or record.selector not in (_WHOLE, _KEY):
        return False
    digest = _DIGESTS.get(record.matching)
    if digest is not None:
        return len(record.data) == digest().digest_size
    if record.matching != 0:
        return False
    try:
        if record.selector == _WHOLE:
            x509.load_der_x509_certificate(record.data)
        else:
            serialization.load_der_public_key(record.data)
    except (ValueError, UnsupportedAlgorithm):
        return False
    return True


def match(evidence: Evidence, usable: tuple[TlsaRecord, ...], names: tuple[str, ...]) -> TlsaRecord:
    """The record that the peer's certificates match.

    `names`: one of them a certificate below a trust anchor has to stand for; one that is named
    itself stands for the host whatever it says (RFC 7672 §3.1.1). Raises TlsUnmet.
    """
    try:
        chain = [x509.load_der_x509_certificate(der) for der in evidence.chain]
        for record in usable:
            if record.usage == _END_ENTITY:
                if chain and _fits(record, chain[0]):
                    return record
            elif _is_below(record, chain, names):
                return record
    except (ValueError, UnsupportedAlgorithm) as error:
        raise TlsUnmet(f"{names[0]} shows a certificate that cannot be read: {error}") from error
    raise TlsUnmet(f"{names[0]} shows a certificate that no TLSA record of its zone names")


def _fits(record: TlsaRecord, certificate: x509.Certificate) -> bool:
    if record.selector == _WHOLE:
        octets = certificate.public_bytes(serialization.Encoding.DER)
    else:
        octets = certificate.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    digest = _DIGESTS.get(record.matching)
    return record.data == (octets if digest is None else digest(octets).digest())


def _is_below(record: TlsaRecord, chain: list[x509.Certificate], names: tuple[str, ...]) -> bool:
    """Whether the first certificate comes from the anchor, by those between, for one of the names.

    The anchor is in the chain (RFC 7672 §3.1.2), or whole in the record.
    """
    anchors = [certificate for certificate in chain[1:] if _fits(record, certificate)]
    if record.matching == 0 and record.selector == _WHOLE and not anchors:
        anchors = [x509.load_der_x509_certificate(record.data)]
    if not chain or not anchors:
        return False
    policy = PolicyBuilder().store(Store(anchors)).time(datetime.datetime.now(datetime.UTC))
    for name in names:
        try:
            policy.build_server_verifier(x509.DNSName(name)).verify(chain[0], chain[1:])
        except VerificationError:
            continue
        return True
    return False
