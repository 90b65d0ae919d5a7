"""Web addresses (RFC 3986) that may be asked: a host, and nothing that hides where it leads."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

from waypost.errors import AddressError
from waypost.mail.address import Domain, IPAddress, as_value

_PORTS = {"https": 443, "http": 80}


def split_url(text: str) -> tuple[SplitResult, int | None]:
    """The parts of a URL, and its port; None: it names none.

    Raises ValueError for what hides where it leads: user info, odd characters, a port that is none.
    """
    if not text.isascii() or not text.isprintable() or " " in text or "\\" in text:
        raise ValueError("a URL has only ASCII letters, digits and signs, and no blanks")
    parts = urlsplit(text)
    if "@" in parts.netloc:
        raise ValueError("a URL must not hold a user name or a password")
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise ValueError("the URL's port is none from 1 to 65535")
    return parts, port


@dataclass(frozen=True, slots=True)
class Url:
    """Where a request goes."""

    is_secure: bool  # https
    host: Domain | IPAddress
    port: int
    target: str  # path and query, as they stand in the request line

    @classmethod
    def parse(cls, text: str, *, allows_clear: bool = False) -> Url:
        """Raises ValueError; with `allows_clear` http: will do.

        No user info: whoever reads the URL would take it for the host. A fragment is for readers
        of pages, and left out.
        """
        parts, port = split_url(text)
        if parts.scheme not in _PORTS or (parts.scheme == "http" and not allows_clear):
            raise ValueError(f"expected https:// in front, not {parts.scheme or 'nothing'}")
        if not parts.hostname:
            raise ValueError("the URL names no host")
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return cls(
            parts.scheme == "https", host_of(parts.hostname), port or _PORTS[parts.scheme], target
        )

    @property
    def name(self) -> str:
        """The host as its certificate has it."""
        return self.host.ascii if isinstance(self.host, Domain) else str(self.host)

    @property
    def authority(self) -> str:
        """Host and port as the Host field has them (RFC 9110 §7.2)."""
        host = f"[{self.name}]" if ":" in self.name else self.name
        is_usual = self.port == _PORTS["https" if self.is_secure else "http"]
        return host if is_usual else f"{host}:{self.port}"

    def __str__(self) -> str:
        """Without the query, which may hold what a log must not."""
        scheme = "https" if self.is_secure else "http"
        return f"{scheme}://{self.authority}{self.target.partition('?')[0]}"


def host_of(text: str) -> Domain | IPAddress:
    """The host of a URL, as urlsplit gives it. Raises ValueError."""
    if "%" in text:
        raise ValueError("the URL's host must not hold a zone or percent signs")
    try:
        return as_value(ip_address(text))
    except ValueError:
        pass
    try:
        domain = Domain.parse(text.removesuffix("."))
    except AddressError as error:
        raise ValueError(f"the URL's host is no name: {error}") from None
    if domain.ascii.rpartition(".")[2][0].isdigit():
        # RFC 1123 §2.1: no name ends so; 127.1 and 0x7f000001 are addresses to some readers.
        raise ValueError(f"the URL's host {text} is neither a name nor a whole IP address")
    return domain
