"""Names for the addresses in use: zones, their records, and how these are written.

Values only: nothing is asked and nothing is stored. Names are in lower case, absolute, and without
the dot at their end; master files have it at each name that is not relative to the zone.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from itertools import zip_longest

from waypost.mail.address import IPAddress

# Stands in every file, so that no other is written over.
MADE_BY = "made by waypost dns"

TTL_S = 3600
# RFC 1035 §2.3.4: 255 octets on the wire, two less as text.
MAX_NAME = 253
# RFC 1035 §3.3: a character-string has its length in one octet.
MAX_STRING = 255
MAX_SERIAL = 0xFFFF_FFFF
# What dnsmasq reads of a line.
MAX_DNSMASQ_LINE = 1024

# SOA timers (RFC 1912 §2.2): a secondary looks hourly, and serves on for two weeks alone.
_REFRESH_S, _RETRY_S, _EXPIRE_S = 3600, 600, 1_209_600
# RFC 2308 §5 calls one to three hours sensible for "there is no such name".
_MAX_NEGATIVE_S = 3600

# Labels of a reverse name that are the host's: 8 bits of IPv4, 64 bits of IPv6 in nibbles.
_HOST_LABELS = {4: 1, 6: 16}

_SERIAL = re.compile(r"^\s*(\d{1,10}) ; serial$", re.MULTILINE)
_TXT_TAG = re.compile(r"v=\w+")

_PEM = re.compile(r"-----BEGIN ([A-Z ]+)-----(.*?)-----END \1-----", re.DOTALL)
_RSA = bytes.fromhex("06092a864886f70d010101")  # its OID (RFC 8017 §A.1)
_ED25519 = bytes.fromhex("302a300506032b6570032100")  # all that stands before the key (RFC 8410)


@dataclass(frozen=True, slots=True)
class Record:
    """One record; raises ValueError when its name cannot be."""

    name: str
    kind: str
    value: str  # an address, a text, or the numbers before the target
    target: str | None = None  # the name at the end of MX, NS, PTR, SRV; None: none is there

    def __post_init__(self) -> None:
        labels = self.name.split(".")
        if len(self.name) > MAX_NAME or not all(0 < len(label) < 64 for label in labels):
            raise ValueError(f"{self.name} is no name DNS can hold (RFC 1035 §2.3.4)")

    @property
    def data(self) -> str:
        """Its data with absolute names; a text as it is."""
        return self.value if self.target is None else f"{self.value} {self.target}.".lstrip()

    def line(self, origin: str) -> str:
        """As a master file has it (RFC 1035 §5.1), names relative to `origin`."""
        data = quoted(self.value) if self.kind == "TXT" else self.value
        if self.target is not None:
            data = f"{data} {relative(self.target, origin)}".lstrip()
        return f"{relative(self.name, origin)} IN {self.kind} {data}"


@dataclass(frozen=True, slots=True)
class Zone:
    """One zone; its records begin with the NS records."""

    name: str
    primary: str  # the name server it is written at (MNAME)
    contact: str  # who to write to, as a name (RNAME)
    records: tuple[Record, ...]
    is_reverse: bool = False

    @property
    def soa(self) -> Record:
        """The SOA record without its numbers."""
        return Record(self.name, "SOA", f"{self.primary}.", self.contact)

    def text(self, serial: int, ttl_s: int = TTL_S) -> str:
        """As a master file."""
        negative_s = min(ttl_s, _MAX_NEGATIVE_S)
        lines = [
            f"; {self.name}, {MADE_BY} zone; changes here are lost",
            f"$ORIGIN {self.name}.",
            f"$TTL {ttl_s}",
            f"@ IN SOA {relative(self.primary, self.name)} {relative(self.contact, self.name)} (",
            f"    {serial} ; serial",
            f"    {_REFRESH_S} {_RETRY_S} {_EXPIRE_S} {negative_s} )",
            *(record.line(self.name) for record in self.records),
        ]
        return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class InUse:
    """What zones are made of."""

    groups: Mapping[IPAddress, Sequence[str]]  # an address stands for these domains
    domains: Collection[str]  # others of ours
    own: Collection[IPAddress]  # addresses of ours that others can reach
    hostname: str | None = None  # what the hub calls itself; None: it has no name
    names: Mapping[IPAddress, str] = field(default_factory=dict)  # and what at these addresses
    submission: Collection[tuple[IPAddress, int]] = ()  # where clients may hand mail in


@dataclass(frozen=True, slots=True)
class Extras:
    """What the operator adds."""

    dkim: Mapping[str, str] = field(default_factory=dict)  # selector, and its record's text
    spf: Sequence[str] = ()  # terms for hosts that mail leaves by, beside our own
    name_servers: Sequence[str] = ()  # empty: the host that takes the mail


def zones_of(use: InUse, extras: Extras | None = None) -> list[Zone]:
    """The forward zones, then the reverse ones.

    Raises ValueError, saying what to configure, when there is nothing to make them of.
    """
    extras = extras or Extras()
    plan = _Plan(use)
    for server in extras.name_servers:
        if plan.zone_holding(server) is not None and server not in plan.hosts:
            raise ValueError(f"{server} is in a zone of ours, and is no name of this host")
    forward = [_forward_zone(plan, domain, extras) for domain in plan.addresses]
    return forward + _reverse_zones(plan, forward)


class _Plan:
    """Who is called what: domains, their addresses, and the names of hosts."""

    def __init__(self, use: InUse) -> None:
        self.use = use
        grouped = [domain for domains in use.groups.values() for domain in domains]
        hostname = use.hostname
        ours = {*use.domains, *grouped} | ({hostname} if hostname else set())
        # A host of another zone needs none of its own.
        has_parent = any(lies_in(hostname or "", d) for d in ours if d != hostname)
        rest = sorted(d for d in ours - {*grouped} if d != hostname or not has_parent)
        if not grouped and not rest:
            raise ValueError("no domain is ours: name one in addresses.domains or addresses.groups")
        ungrouped = [ip for ip in use.own if ip not in use.groups] or list(use.own)
        if rest and not ungrouped:
            raise ValueError(
                f"no address that others can reach is known for {rest[0]}: name it in addresses.own"
            )
        self._grouped = frozenset(grouped)
        self._first = rest[0] if rest else None
        self.addresses: dict[str, list[IPAddress]] = {
            domain: _sorted(ip for ip, domains in use.groups.items() if domain in domains)
            for domain in grouped
        }
        self.addresses.update((domain, _sorted(ungrouped)) for domain in rest)
        self.hosts: dict[str, list[IPAddress]] = {}
        for domain, addresses in self.addresses.items():
            for ip in addresses:
                self._add_host(self.mail_host(domain, ip), ip)
        for ip in _sorted(ungrouped):
            name = self.name_at(ip)
            if name is not None:
                self._add_host(name, ip)
        if hostname is not None and hostname not in self.hosts:
            # All addresses have other names, and yet this one should lead here.
            zone = self.zone_holding(hostname)
            assert zone is not None  # it has been given one above
            for ip in self.addresses[zone]:
                self._add_host(hostname, ip)

    def _add_host(self, name: str, ip: IPAddress) -> None:
        addresses = self.hosts.setdefault(name, [])
        if ip not in addresses:
            addresses.append(ip)

    def mail_host(self, domain: str, ip: IPAddress) -> str:
        """Who takes mail for a domain at an address."""
        if ip in self.use.names:
            return self.use.names[ip]
        hostname = self.use.hostname
        # At a group's address the hub does not use its host name (routing/groups).
        if hostname is not None and domain not in self._grouped and lies_in(hostname, domain):
            return hostname
        return f"mail.{domain}"

    def mail_hosts(self, domain: str) -> list[str]:
        """All of these."""
        return list(dict.fromkeys(self.mail_host(domain, ip) for ip in self.addresses[domain]))

    def name_at(self, ip: IPAddress) -> str | None:
        """The one name an address leads back to; None: no domain of ours is there."""
        if ip in self.use.names:
            return self.use.names[ip]
        if ip in self.use.groups:
            return f"mail.{self.use.groups[ip][0]}"
        return self.use.hostname or (None if self._first is None else f"mail.{self._first}")

    def zone_holding(self, name: str) -> str | None:
        """The innermost zone a name lies in; None: it is not in any of ours."""
        return max((d for d in self.addresses if lies_in(name, d)), key=len, default=None)


def _forward_zone(plan: _Plan, zone: str, extras: Extras) -> Zone:
    hosts = plan.mail_hosts(zone)
    servers = extras.name_servers or hosts[:1]
    records = [Record(zone, "NS", "", server) for server in servers]
    below = [d for d in plan.addresses if d != zone and _parent(plan, d) == zone]
    for domain in below:  # what others ask here for these is answered there (RFC 1034 §4.2.1)
        records += [
            Record(domain, "NS", "", server)
            for server in extras.name_servers or plan.mail_hosts(domain)[:1]
        ]
    for server in dict.fromkeys(record.target or "" for record in records):
        if any(lies_in(server, domain) for domain in below):
            records += _addresses(server, plan.hosts[server])  # glue
    records += [Record(zone, "MX", "10", host) for host in hosts]
    for host, addresses in plan.hosts.items():
        if plan.zone_holding(host) == zone:
            records += _addresses(host, addresses)
            if host not in plan.addresses:
                # RFC 7208 §2.3: HELO is checked by its own record, and for bounces nothing else.
                records.append(Record(host, "TXT", "v=spf1 a -all"))
    addresses = plan.addresses[zone]
    # RFC 7208 §5.6; "mx" is for addresses of other names.
    places = [f"ip{ip.version}:{ip}" for ip in addresses]
    records.append(Record(zone, "TXT", " ".join(["v=spf1", *places, "mx", *extras.spf, "-all"])))
    records += [Record(f"{s}._domainkey.{zone}", "TXT", text) for s, text in extras.dkim.items()]
    # SPF alone breaks where mail is forwarded: only with DKIM others are asked to act (RFC 9989).
    policy = "quarantine" if extras.dkim else "none"
    report = f"v=DMARC1; p={policy}; rua=mailto:postmaster@{zone}"
    records.append(Record(f"_dmarc.{zone}", "TXT", report))
    # RFC 6186 §3.1, RFC 2782.
    records += [
        Record(f"_submission._tcp.{zone}", "SRV", f"0 1 {port}", plan.mail_host(zone, ip))
        for bound, port in plan.use.submission
        for ip in addresses
        if bound == ip or (bound.is_unspecified and bound.version == ip.version)
    ]
    return Zone(zone, servers[0], f"postmaster.{zone}", tuple(dict.fromkeys(records)))


def _parent(plan: _Plan, domain: str) -> str | None:
    _, _, above = domain.partition(".")
    return plan.zone_holding(above)


def _addresses(host: str, addresses: Iterable[IPAddress]) -> list[Record]:
    return [Record(host, "A" if ip.version == 4 else "AAAA", str(ip)) for ip in addresses]


def _reverse_zones(plan: _Plan, forward: Sequence[Zone]) -> list[Zone]:
    """RFC 1035 §3.5 and RFC 3596 §2.5: a zone for each /24 and each /64."""
    pointers: dict[str, list[Record]] = {}
    for ip in _sorted({ip for addresses in plan.hosts.values() for ip in addresses}):
        name = plan.name_at(ip)
        if name is not None:
            zone = ip.reverse_pointer.split(".", _HOST_LABELS[ip.version])[-1]
            pointers.setdefault(zone, []).append(Record(ip.reverse_pointer, "PTR", "", name))
    by_name = {zone.name: zone for zone in forward}
    zones = []
    for name, records in pointers.items():
        holding = plan.zone_holding(records[0].target or "")
        model = forward[0] if holding is None else by_name[holding]
        servers = [r for r in model.records if r.kind == "NS" and r.name == model.name]
        head = [Record(name, "NS", "", server.target) for server in servers]
        zones.append(Zone(name, model.primary, model.contact, (*head, *records), is_reverse=True))
    return zones


def _sorted(addresses: Iterable[IPAddress]) -> list[IPAddress]:
    return sorted(addresses, key=lambda ip: (ip.version, int(ip)))


def lies_in(name: str, zone: str) -> bool:
    """Whether a name is a zone's, or below it."""
    return name == zone or name.endswith(f".{zone}")


def relative(name: str, origin: str) -> str:
    """A name as a master file with this $ORIGIN has it (RFC 1035 §5.1)."""
    if name == origin:
        return "@"
    return name.removesuffix(f".{origin}") if lies_in(name, origin) else f"{name}."


def strings_of(text: str) -> list[bytes]:
    """The character-strings of a TXT record, which readers join again (RFC 7208 §3.3)."""
    octets = text.encode()
    cuts = range(0, len(octets), MAX_STRING)
    return [octets[cut : cut + MAX_STRING] for cut in cuts] or [b""]


def quoted(text: str) -> str:
    """A text as character-strings of a master file (RFC 1035 §5.1)."""
    return " ".join(f'"{"".join(map(_escaped, string))}"' for string in strings_of(text))


def _escaped(octet: int) -> str:
    if octet in b'"\\':
        return f"\\{octet:c}"
    return chr(octet) if 0x20 <= octet < 0x7F else f"\\{octet:03d}"


def serial_in(text: str) -> int | None:
    """The serial of a zone file as it is written here; None: it is another's file."""
    found = _SERIAL.search(text)
    return None if found is None else int(found[1])


def serial_after(old: int | None, today: date) -> int:
    """YYYYMMDDnn (RFC 1912 §2.2), or one more than `old` where that is as far already."""
    serial = int(f"{today:%Y%m%d}01")
    if old is not None:
        serial = max(serial, old + 1)
    if serial > MAX_SERIAL:
        raise ValueError(f"no serial is above {old}; see RFC 2182 §7, or begin with a new file")
    return serial


def dkim_text(pem: str) -> str:
    """The record of a public key in PEM (RFC 6376 §3.6.1, RFC 8463 §4); raises ValueError."""
    found = _PEM.search(pem)
    if found is None or found[1] != "PUBLIC KEY":
        kind = "no key in PEM" if found is None else f"a {found[1].lower()}"
        raise ValueError(
            f"holds {kind}; what belongs here is made by: openssl pkey -in KEY.pem -pubout"
        )
    try:
        der = base64.b64decode("".join(found[2].split()), validate=True)
    except binascii.Error:
        raise ValueError("is damaged: its base64 does not hold") from None
    if der.startswith(_ED25519) and len(der) == len(_ED25519) + 32:
        return f"v=DKIM1; k=ed25519; p={base64.b64encode(der[len(_ED25519) :]).decode()}"
    if _RSA in der[:24]:
        return f"v=DKIM1; k=rsa; p={base64.b64encode(der).decode()}"
    raise ValueError("holds neither an RSA nor an Ed25519 key, the kinds DKIM has")


# dnsmasq


def dnsmasq_lines(zones: Iterable[Zone]) -> list[str]:
    """The same records as lines of dnsmasq's configuration; raises ValueError.

    It has no SOA and NS records unless it is told to play an authoritative server.
    """
    lines: list[str] = []
    for zone in zones:
        # What dnsmasq does not know below this name it then neither asks others nor leaves open.
        lines += [f"# {zone.name}", f"local=/{zone.name}/"]
        hosts: dict[str, tuple[list[str], list[str]]] = {}
        for record in zone.records:
            if record.kind in ("A", "AAAA"):
                hosts.setdefault(record.name, ([], []))[record.kind == "AAAA"].append(record.value)
        for name, (four, six) in hosts.items():
            for pair in zip_longest(four, six):
                lines.append(",".join((f"host-record={name}", *filter(None, pair))))
        lines += filter(None, map(_dnsmasq_line, zone.records))
    for line in lines:
        if len(line) > MAX_DNSMASQ_LINE:
            raise ValueError(f"dnsmasq does not read a line as long as this: {line[:80]}…")
    return list(dict.fromkeys(lines))  # glue is in two zones


def in_dnsmasq(record: Record) -> bool:
    """Whether dnsmasq is told of it."""
    return record.kind in ("A", "AAAA") or bool(_dnsmasq_line(record))


def _dnsmasq_line(record: Record) -> str:
    """Empty for records that are in none, or in host-record."""
    name, target = record.name, record.target
    if record.kind == "MX":
        return f"mx-host={name},{target},{record.value}"
    if record.kind == "SRV":
        priority, weight, port = record.value.split()
        return f"srv-host={name},{target},{port},{priority},{weight}"
    if record.kind == "PTR":
        # Without it the address would lead to the host-record that stands first.
        return f"ptr-record={name},{target}"
    if record.kind == "TXT":
        texts = (string.decode() for string in strings_of(record.value))
        escaped = (text.replace("\\", "\\\\").replace('"', '\\"') for text in texts)
        return f"txt-record={name}," + ",".join(f'"{text}"' for text in escaped)
    return ""


# Comparing with what a resolver answers.


class State(StrEnum):
    """What became of a record."""

    OK = "ok"
    MISSING = "missing"
    DIFFERENT = "different"
    EXTRA = "extra"  # answered beside those of the zone
    UNKNOWN = "unknown"  # the name service was in trouble


@dataclass(frozen=True, slots=True)
class Compared:
    """One record of the zone, or one beside them, against the answer."""

    record: Record
    state: State
    found: tuple[str, ...] = ()  # what came instead
    why: str = ""  # for MISSING and UNKNOWN

    @property
    def text(self) -> str:
        """The record in one line."""
        data = quoted(self.record.value) if self.record.kind == "TXT" else self.record.data
        return f"{self.record.name} {self.record.kind} {data}"


def compare(wanted: Sequence[Record], found: Sequence[str], *, exists: bool) -> list[Compared]:
    """All records of one name and type with what was answered, as `Record.data`."""
    others = tuple(data for data in found if data not in {record.data for record in wanted})
    if wanted[0].kind == "TXT":
        # Texts for other purposes may stand there, too; two of one purpose break it
        # (RFC 7208 §4.5).
        tags = {_tag(record.value) for record in wanted}
        others = tuple(data for data in others if _tag(data) in tags)
    nothing = "none of this type" if exists else "there is no such name"
    compared: list[Compared] = []
    for record in wanted:
        if record.data in found:
            compared.append(Compared(record, State.OK))
        elif others:
            compared.append(Compared(record, State.DIFFERENT, others))
        else:
            compared.append(
                Compared(record, State.MISSING, why="others are there" if found else nothing)
            )
    if all(entry.state is not State.DIFFERENT for entry in compared):
        name, kind = wanted[0].name, wanted[0].kind
        compared += [Compared(Record(name, kind, data), State.EXTRA) for data in others]
    return compared


def _tag(text: str) -> str:
    found = _TXT_TAG.match(text)
    return text if found is None else found[0].lower()
