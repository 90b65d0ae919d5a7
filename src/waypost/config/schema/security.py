"""Certificates, what is asked of senders, and looking at addresses."""

from __future__ import annotations

from waypost.acme.settings import AUTO, ChallengeKind
from waypost.config.readers import (
    choice_of,
    list_of,
    read_acme_directory,
    read_address,
    read_count,
    read_domain,
    read_flag,
    read_helo,
    read_identifier,
    read_networks,
    read_path,
    read_place,
    read_seconds,
    read_text,
    read_tls_policy,
)
from waypost.config.schema.key import Key, Section
from waypost.intake.senders import LiteralSender

TLS = Section(
    "tls",
    (
        Key(
            "certificate",
            read_path,
            None,
            "a file (PEM, with its chain)",
            "What the hub shows. Absent: issued by the [hub's own"
            " authority](../how-to/tls-to-an-ip.md), for all its addresses and names.",
        ),
        Key("key", read_path, None, "a file (PEM)", "Its key."),
        Key(
            "policy",
            read_tls_policy,
            (),
            "[[tls.policy]], tables of match, level, ca, hosts",
            "How hosts that mail goes straight to [have to be"
            " secured](../how-to/tls-to-other-hosts.md), in order; the first that matches"
            ' wins. match: networks for literals; names, "*.name" and "*" for names. level:'
            ' as `tls` of a relay. ca: a file (PEM), for "verify". hosts: names of hosts that'
            " may take mail for a domain.",
        ),
    ),
    "The certificate of all listeners, and what is asked of other hosts.",
)

ACME = Section(
    "acme",
    (
        Key(
            "directory",
            read_acme_directory,
            None,
            '"letsencrypt" or an https URL',
            "The ACME server. Absent: no public certificate.",
        ),
        Key(
            "agree",
            read_flag,
            False,
            "true or false",
            "true: you agree to the server's terms of service. It asks for that.",
        ),
        Key(
            "contact",
            list_of(read_address),
            (),
            "list of addresses",
            "Whom the server may write to.",
        ),
        Key(
            "identifiers",
            list_of(read_identifier, may_be_empty=False),
            (AUTO,),
            'list of "auto", IP addresses and domain names',
            'What is certified. "auto": the public addresses of this host, those of'
            " `addresses.own`, and `hostname` if it is a public name.",
        ),
        Key(
            "challenge",
            choice_of(*ChallengeKind),
            ChallengeKind.HTTP_01,
            '"http-01" or "tls-alpn-01"',
            "How the server sees that they are ours: on port 80, or on port 443.",
        ),
        Key(
            "bind",
            list_of(read_place, may_be_empty=False),
            (),
            "list of address:port and [v6]:port",
            "Where that is answered, while an order is under way. Absent: all addresses, at the"
            " challenge's port. Another port needs a NAT that leads there.",
        ),
        Key(
            "profile",
            read_text,
            None,
            "a text",
            "The kind of certificate, where a server has several. Absent: `shortlived` for IP"
            " addresses, as Let's Encrypt wants it, else the server's usual one.",
        ),
        Key(
            "ca",
            read_path,
            None,
            "a file (PEM)",
            "Who may vouch for an ACME server of your own. Absent: whom this system trusts.",
        ),
    ),
    "[Public certificates](../how-to/public-certificates.md), for clients from outside.",
)

POLICY = Section(
    "policy",
    (
        Key(
            "literal_sender",
            choice_of(*LiteralSender),
            LiteralSender.PROVE,
            '"prove", "record" or "off"',
            "Senders such as cam1@[192.168.1.50]. prove: refused, unless the client is that"
            " host, logged in, or in `vouchers`. record: only noted in"
            " Authentication-Results. [How](../how-to/prove-literal-senders.md).",
        ),
        Key(
            "vouchers",
            read_networks,
            (),
            "as networks.trusted",
            "Other hubs and relays whose word counts for the senders at literals they pass on.",
        ),
        Key(
            "dnsbl_zones",
            list_of(lambda value: read_domain(value).ascii),
            (),
            "list of domain names",
            "DNS blocklists (RFC 5782) that `waypost check` asks. Most want to be asked by the"
            " terms they state.",
        ),
    ),
    "What is asked of senders, and about hosts.",
)

CHECK = Section(
    "check",
    (
        Key(
            "probe",
            read_flag,
            False,
            "true or false",
            "true: `waypost check --depth smtp` may ask hosts about mailboxes. Read"
            " [how](../how-to/check-addresses.md) first: sites list those who ask too much.",
        ),
        Key(
            "sender",
            read_address,
            None,
            "an address",
            "Where somebody reads mail: the sender shown to hosts that refuse the null one."
            " Needed with `probe`.",
        ),
        Key(
            "helo",
            read_helo,
            None,
            "a domain name or a literal",
            "What probes call themselves. Absent: `hostname`, else the literal others see.",
        ),
        Key(
            "networks",
            read_networks,
            (),
            "as networks.trusted",
            "Networks that are not of the Internet, and may be probed.",
        ),
        Key("host_per_minute", read_count, 6, "a number", "Probes of one host."),
        Key("network_per_minute", read_count, 12, "a number", "Probes of one /24 or /64."),
        Key("per_minute", read_count, 60, "a number", "Probes in all."),
        Key("per_day", read_count, 10_000, "a number", "Probes in all, in 24 hours."),
        Key(
            "retry_s",
            list_of(read_seconds, may_be_empty=False),
            (300.0, 900.0, 3600.0),
            "list of seconds",
            "When a host that asked to come back is asked again: after its first such answer,"
            " its second, any later one.",
        ),
    ),
    "Checks of addresses.",
)
