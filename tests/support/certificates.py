"""Certificates as tests want them: of any name, address and authority, sound or not."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)


class Certificate:
    """One certificate with its key, in files; `issuer` None: by itself."""

    certificate: x509.Certificate

    def __init__(
        self,
        directory: Path,
        name: str,
        *,
        names: Sequence[str] = (),
        ips: Sequence[str] = (),
        issuer: Certificate | None = None,
        is_authority: bool = False,
        expired: bool = False,
        common_name: str | None = None,  # None: `name`
        key: ec.EllipticCurvePrivateKey | None = None,  # None: a new one
    ) -> None:
        self.private = key or ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name or name)])
        signer = self if issuer is None else issuer
        alternatives: list[x509.GeneralName] = [x509.DNSName(entry) for entry in names]
        alternatives += [x509.IPAddress(ip_address(ip)) for ip in ips]
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject if issuer is None else issuer.certificate.subject)
            .public_key(self.private.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 10 * DAY)
            .not_valid_after(now - DAY if expired else now + 10 * DAY)
            .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(self.private.public_key()), False
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.private.public_key()),
                False,
            )
        )
        if is_authority:
            builder = builder.add_extension(
                x509.KeyUsage(False, False, False, False, False, True, True, False, False), True
            )
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), False)
        self.certificate = builder.sign(signer.private, hashes.SHA256())
        self.der = self.certificate.public_bytes(serialization.Encoding.DER)
        self.pem = self.certificate.public_bytes(serialization.Encoding.PEM)
        directory.mkdir(parents=True, exist_ok=True)
        self.file = directory / f"{name}.pem"
        self.file.write_bytes(self.pem)
        # What a server shows: itself, and whoever signed it.
        self.chain_file = directory / f"{name}-chain.pem"
        self.chain_file.write_bytes(self.pem if issuer is None else self.pem + issuer.pem)
        self.key_file = directory / f"{name}.key"
        self.key_file.write_bytes(
            self.private.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )

    @property
    def spki(self) -> bytes:
        """DER of the public key."""
        return self.private.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    @property
    def key_digest(self) -> str:
        """SHA-256 of the public key, in hex."""
        return hashlib.sha256(self.spki).hexdigest()
