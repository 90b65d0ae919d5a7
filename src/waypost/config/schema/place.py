"""Where a hub is and who may speak to it: addresses, networks, listeners, limits, logins."""

from __future__ import annotations

from waypost.config.readers import (
    choice_of,
    list_of,
    read_bind,
    read_count,
    read_delay,
    read_domain,
    read_flag,
    read_groups,
    read_host_names,
    read_moved,
    read_networks,
    read_own,
    read_path,
    read_secret,
    read_text,
    read_url,
)
from waypost.config.schema.key import REQUIRED, Key, Section, same_in_file

TOP = Section(
    "",
    (
        Key(
            "data_dir",
            read_text,
            None,
            "a directory",
            "Where queue, content and mailboxes lie. `--data` wins over it; without either:"
            " `$WAYPOST_DATA`, else `/var/lib/waypost` as root, else"
            " `$XDG_DATA_HOME/waypost`.",
        ),
        Key(
            "hostname",
            lambda value: read_domain(value).ascii,
            None,
            "a domain name",
            "What the hub calls itself. Absent: the literal of the connection's local address.",
        ),
    ),
    "The top of the file.",
)

ADDRESSES = Section(
    "addresses",
    (
        Key(
            "own",
            list_of(read_own, may_be_empty=False),
            ("auto",),
            'list of "auto" and IP addresses',
            'Addresses whose literals are ours. "auto" is every address of every interface,'
            " followed as they change; add NAT addresses beside it.",
        ),
        Key("domains", list_of(read_domain), (), "list of domain names", "Names that are ours."),
        Key(
            "bare_ip",
            choice_of("trusted", "never"),
            "trusted",
            '"trusted" or "never"',
            "Who may write `user@10.0.0.5` without brackets and mean the literal.",
        ),
        Key(
            "groups",
            read_groups,
            (),
            "table: local IP = list of domain names",
            "[Domain groups](../how-to/domain-groups.md): an address of ours stands for these"
            " domains, which then have mailboxes of their own.",
        ),
        Key(
            "names",
            read_host_names,
            (),
            "table: local IP = host name",
            "What the hub calls itself on connections from that address. Absent: `hostname`,"
            " or the literal where a group's address is used.",
        ),
        Key(
            "moved",
            read_moved,
            (),
            "table: old IP = new IP or name",
            "Mail of trusted clients that still says the old address goes to the new one.",
        ),
    ),
    "Which addresses are ours.",
)

NETWORKS = Section(
    "networks",
    (
        Key(
            "trusted",
            read_networks,
            ("loopback", "private"),
            'list of "any", "loopback", "private" and CIDRs',
            "Clients that may send without a login, and hosts mail may go straight to."
            ' "private" is RFC 1918, unique-local and link-local IPv6.',
        ),
        Key(
            "trust_gateway",
            read_flag,
            False,
            "true or false",
            "In a container, the default gateway is not trusted: clients from anywhere may"
            " come under its address ([why](../how-to/behind-a-proxy.md#in-a-container))."
            " true: it is a host of its own, as with macvlan.",
        ),
        Key(
            "accept_from_strangers",
            read_flag,
            False,
            "true or false",
            "true: anyone may mail mailboxes that exist here. Nobody untrusted may relay, ever.",
        ),
    ),
    "Who may do what, by address.",
)

LISTENER = Section(
    "listener",
    (
        Key("name", read_text, REQUIRED, "a text", "How logs, traces and routes call it."),
        Key(
            "bind",
            list_of(read_bind, may_be_empty=False),
            REQUIRED,
            "list of address:port, [v6]:port or /path/to/socket",
            "Where it listens.",
        ),
        Key(
            "role",
            choice_of("hub", "submission", "lmtp"),
            "hub",
            '"hub", "submission" or "lmtp"',
            "hub: SMTP for everyone. submission: for trusted clients only. lmtp: RFC 2033.",
        ),
        Key(
            "networks",
            read_networks,
            ("any",),
            "as networks.trusted",
            "Who may connect at all.",
        ),
        Key(
            "tls",
            choice_of("off", "starttls", "implicit"),
            "starttls",
            '"off", "starttls" or "implicit"',
            "Whether TLS is not there, may be asked for (STARTTLS), or comes first. Where it"
            " may be asked for, a client that begins with it is served too.",
        ),
        Key(
            "tls_profile",
            choice_of("modern", "legacy"),
            "modern",
            '"modern" or "legacy"',
            "modern: TLS 1.2 and later. legacy: TLS 1.0 and later, for devices from then;"
            " needs `networks` that name them.",
        ),
        Key(
            "login_in_clear",
            read_networks,
            (),
            "as networks.trusted",
            "Who may log in without TLS: devices that know none. Everybody near the wire can"
            " read those passwords.",
        ),
        Key(
            "any_login",
            read_networks,
            (),
            "as networks.trusted",
            "Trusted devices that insist on logging in: any name and password will do, and"
            " make no difference.",
        ),
        Key(
            "proxy_protocol",
            read_networks,
            (),
            "as networks.trusted",
            "[Proxies](../how-to/behind-a-proxy.md) that begin each connection with a PROXY"
            " header, version 1 or 2. From them it is required; from others it is never"
            " believed.",
        ),
    ),
    "Where mail comes in. Without any: `smtp` on port 2525, `submission` on port 2587 and"
    " `submissions`, with TLS from the start, on port 2465, all addresses.",
    is_array=True,
)

TOKENS = Section(
    "tokens",
    (
        Key(
            "introspection_url",
            read_url,
            None,
            "a URL (https)",
            "The server that knows whose a token is (RFC 7662). With it clients may log in by"
            " OAUTHBEARER and XOAUTH2.",
        ),
        Key("client_id", read_text, None, "a text", "What that server calls this hub."),
        Key("client_secret", read_secret, None, "a text", "The hub's secret there."),
        same_in_file("client_secret"),
        Key(
            "ca",
            read_path,
            None,
            "a file (PEM)",
            "Who may vouch for that server. Absent: whom this system trusts.",
        ),
    ),
    "Access tokens that clients [log in](../how-to/logins.md) with.",
)

LIMITS = Section(
    "limits",
    (
        Key("message_bytes", read_count, 52_428_800, "octets", "The largest message (SIZE)."),
        Key("recipients", read_count, 1_000, "a number", "Recipients of one message (RCPTMAX)."),
        Key("connections", read_count, 12_000, "a number", "Sessions of one listener at once."),
        Key(
            "connections_per_client",
            read_count,
            50,
            "a number",
            "Sessions of one stranger at once. A stranger is an IPv4 address or an IPv6 /64,"
            " also in the next three.",
        ),
        Key(
            "connections_per_minute",
            read_count,
            300,
            "a number",
            "Connections of one stranger in a minute.",
        ),
        Key(
            "messages_per_minute",
            read_count,
            300,
            "a number",
            "MAIL commands of one stranger in a minute.",
        ),
        Key(
            "recipients_per_minute",
            read_count,
            1_000,
            "a number",
            "RCPT commands of one stranger in a minute, refused ones too.",
        ),
        Key(
            "greet_delay_s",
            read_delay,
            2.0,
            "seconds, at most 60; 0 for none",
            "How long the first greeting of a stranger is held back on listeners with role"
            ' "hub": who speaks before it is sent away.',
        ),
    ),
    "Limits. Those by client are for strangers; trusted clients have none of their own.",
)

LOG = Section(
    "log",
    (
        Key(
            "format",
            choice_of("text", "json"),
            "text",
            '"text" or "json"',
            "How log lines look; they go to standard error.",
        ),
    ),
    "The log.",
)
