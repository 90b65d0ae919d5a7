"""Authorities of other sites, taken for chosen networks and domains (`waypost tls trust`).

One file each in `tls/trusted/` of the data directory: the certificate in PEM, and before it a line
that says what it is for, which every reader of PEM passes over.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from waypost.durable import sync_directory, write_public
from waypost.tls.authority import AuthorityError
from waypost.tls.policy import Scope, TrustedAuthority

_FOR = b"For: "
# A name of a file: enough of the fingerprint to be one certificate's alone.
_NAME_DIGITS = 32


class TrustedFile(NamedTuple):
    """One authority, as it lies there."""

    authority: TrustedAuthority
    certificate: x509.Certificate

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate, in hex."""
        return self.certificate.fingerprint(hashes.SHA256()).hex()


def read_authority(octets: bytes) -> x509.Certificate:
    """The one certificate of a file, PEM or DER. Raises AuthorityError for what can vouch for
    nobody.
    """
    try:
        if b"-----BEGIN" in octets:
            found = x509.load_pem_x509_certificates(octets)
        else:
            found = [x509.load_der_x509_certificate(octets)]
    except ValueError as error:
        raise AuthorityError(f"there is no certificate in it: {error}") from error
    if len(found) != 1:
        raise AuthorityError(f"it holds {len(found)} certificates: give one, the authority's own")
    (certificate,) = found
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        is_authority = constraints.value.ca
    except (x509.ExtensionNotFound, ValueError):
        is_authority = False
    if not is_authority:
        raise AuthorityError("it is the certificate of a host, not of an authority (no CA:TRUE)")
    return certificate


def trust(directory: Path, certificate: x509.Certificate, scope: Scope) -> TrustedFile:
    """Take an authority for a scope, in place of what it was taken for. Raises OSError."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    digits = certificate.fingerprint(hashes.SHA256()).hex()[:_NAME_DIGITS]
    path = directory / f"{digits}.pem"
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    write_public(path, _FOR + " ".join(scope.words).encode() + b"\n" + pem)
    return TrustedFile(TrustedAuthority(scope, path), certificate)


def forget(directory: Path, entry: TrustedFile) -> None:
    """Trust it no longer. Raises OSError."""
    entry.authority.certificate.unlink()
    sync_directory(directory)


def trusted_files(directory: Path) -> Sequence[TrustedFile]:
    """All that were taken. Raises AuthorityError for a file that is none of ours, OSError."""
    return [_read(path) for path in sorted(directory.glob("*.pem"))]


def _read(path: Path) -> TrustedFile:
    octets = path.read_bytes()
    line, _, rest = octets.partition(b"\n")
    try:
        if not line.startswith(_FOR):
            raise ValueError(f"its first line does not begin with {_FOR.decode()!r}")
        scope = Scope(line.removeprefix(_FOR).decode().split())
        return TrustedFile(TrustedAuthority(scope, path), read_authority(rest))
    except (ValueError, AuthorityError) as error:
        raise AuthorityError(
            f"{path}: {error}; remove it, and take it again with `waypost tls trust`"
        ) from error
