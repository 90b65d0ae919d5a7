"""The hub's own certificate authority: certificates for IP addresses nobody else would certify.

A root (ECDSA P-256), constrained to private networks and to our own addresses and names, issues
leaves with IP SANs (RFC 5280 §4.2.1.6): one of ECDSA and one of RSA, since old devices know RSA
only. Everything lies in `tls/` of the data directory, keys with mode 0600.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from waypost.durable import write_public, write_secret
from waypost.errors import WaypostError
from waypost.mail.address import IPAddress
from waypost.net.special import IPNetwork

ROOT_DAYS = 3_650
LEAF_DAYS = 397
# A leaf is made anew when less than this part of its life is left.
RENEW_SHARE = 1 / 3
# Clocks of devices are often behind.
_BACKDATED = datetime.timedelta(days=2)
_RSA_BITS = 2048

# What a root of ours may speak for besides what is ours: nobody else's public addresses.
PRIVATE_NETWORKS: tuple[IPNetwork, ...] = tuple(
    ip_network(text)
    for text in (
        *("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"),
        *("::1/128", "fc00::/7", "fe80::/10"),
    )
)

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


class AuthorityError(WaypostError):
    """A key or certificate of the authority cannot be used; the text says which and why."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """A certificate with its chain, and its key, in PEM."""

    certificate: bytes
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Subjects:
    """What a leaf stands for."""

    ips: frozenset[IPAddress]
    names: frozenset[str]  # A-labels

    def __bool__(self) -> bool:
        return bool(self.ips or self.names)


class Authority:
    """The root, as it lies in a directory."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self.certificate = certificate
        self._key = key

    @classmethod
    def create(cls, directory: Path, subjects: Subjects, *, now: datetime.datetime) -> Authority:
        """Make a root and keep it. Raises OSError."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Waypost private authority")])
        permitted: list[x509.GeneralName] = [
            x509.IPAddress(network) for network in _networks(subjects.ips)
        ]
        # A root that may speak for no name at all would have to be made anew with the first one.
        permitted += [x509.DNSName(domain) for domain in sorted(subjects.names) or ["invalid"]]
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _BACKDATED)
            .not_valid_after(now + datetime.timedelta(days=ROOT_DAYS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(for_signing_certificates=True), critical=True)
            .add_extension(x509.NameConstraints(permitted, None), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .sign(key, hashes.SHA256())
        )
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_secret(directory / "ca.key", _key_pem(key))
        write_public(directory / "ca.pem", _pem(certificate))
        return cls(certificate, key)

    @classmethod
    def load(cls, directory: Path) -> Authority | None:
        """The root kept there; None: there is none. Raises AuthorityError, OSError."""
        try:
            certificate = x509.load_pem_x509_certificate((directory / "ca.pem").read_bytes())
            key = serialization.load_pem_private_key((directory / "ca.key").read_bytes(), None)
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:  # TypeError: encrypted
            raise AuthorityError(f"{directory}/ca.pem or ca.key cannot be read: {error}") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise AuthorityError(f"{directory}/ca.key is no ECDSA key")
        if key.public_key() != certificate.public_key():
            raise AuthorityError(f"{directory}/ca.key is not the key of ca.pem")
        try:
            certificate.extensions.get_extension_for_class(x509.NameConstraints)
        except (x509.ExtensionNotFound, ValueError) as error:
            raise AuthorityError(f"{directory}/ca.pem has no name constraints of ours") from error
        return cls(certificate, key)

    def allowed(self, subjects: Subjects) -> Subjects:
        """Those of the subjects that the root's constraints hold."""
        networks, names = self._permitted()
        return Subjects(
            frozenset(
                ip
                for ip in subjects.ips
                if any(ip.version == network.version and ip in network for network in networks)
            ),
            frozenset(
                name
                for name in subjects.names
                if any(name == known or name.endswith(f".{known}") for known in names)
            ),
        )

    def permitted(self) -> list[str]:
        """What the root may speak for, as texts."""
        networks, names = self._permitted()
        return [*map(str, networks), *names]

    def _permitted(self) -> tuple[list[IPNetwork], list[str]]:
        constraints = self.certificate.extensions.get_extension_for_class(x509.NameConstraints)
        networks: list[IPNetwork] = []
        names: list[str] = []
        for entry in constraints.value.permitted_subtrees or []:
            if isinstance(entry, x509.IPAddress) and isinstance(entry.value, IPNetwork):
                networks.append(entry.value)
            elif isinstance(entry, x509.DNSName):
                names.append(entry.value)
        return networks, names

    def issue(
        self,
        subjects: Subjects,
        *,
        is_rsa: bool,
        now: datetime.datetime,
        days: int = LEAF_DAYS,
        kept_key: PrivateKey | None = None,  # None: a new one
    ) -> Leaf:
        """A leaf for a server. Raises AuthorityError for what the root may not speak for."""
        if not subjects:
            raise AuthorityError("a certificate needs an address or a name to stand for")
        if self.allowed(subjects) != subjects:
            raise AuthorityError(
                "this authority speaks for private networks and for the hub's own addresses and"
                " names only"
            )
        key: PrivateKey = kept_key or (
            rsa.generate_private_key(65_537, _RSA_BITS)
            if is_rsa
            else ec.generate_private_key(ec.SECP256R1())
        )
        ips = sorted(subjects.ips, key=lambda ip: (ip.version, ip))
        alternatives: list[x509.GeneralName] = [x509.DNSName(n) for n in sorted(subjects.names)]
        alternatives += [x509.IPAddress(ip) for ip in ips]
        # With a blank in it nobody takes it for a host name, which the constraints would forbid.
        name = x509.NameAttribute(NameOID.COMMON_NAME, "Waypost host")
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([name]))
            .issuer_name(self.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _BACKDATED)
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(for_signing_certificates=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage(
                    [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
                ),
                critical=False,
            )
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        return Leaf(_pem(certificate) + _pem(self.certificate), _key_pem(key))


def subjects_of(certificate: x509.Certificate) -> Subjects:
    """What a certificate stands for."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return Subjects(frozenset(), frozenset())
    ips = extension.value.get_values_for_type(x509.IPAddress)
    return Subjects(
        frozenset(ip_address(str(ip)) for ip in ips),
        frozenset(extension.value.get_values_for_type(x509.DNSName)),
    )


def is_due(certificate: x509.Certificate, *, now: datetime.datetime) -> bool:
    """True once a certificate is old enough to be made anew."""
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return now < begins or ends - now < (ends - begins) * RENEW_SHARE


def _networks(ips: Iterable[IPAddress]) -> Sequence[IPNetwork]:
    ours = [ip_network(ip) for ip in ips]
    others = [
        network
        for network in ours
        if not any(
            network.version == private.version and network.subnet_of(private)  # type: ignore[arg-type]
            for private in PRIVATE_NETWORKS
        )
    ]
    return [*PRIVATE_NETWORKS, *sorted(others, key=str)]


def _usage(*, for_signing_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not for_signing_certificates,
        key_encipherment=not for_signing_certificates,
        key_cert_sign=for_signing_certificates,
        crl_sign=for_signing_certificates,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
