"""Every key of the configuration: what it takes, its default, and what it means.

The reference (docs/reference/config.md) is generated from this table, and reading is driven by
it, so the two cannot differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from waypost.acme.settings import AUTO, ChallengeKind
from waypost.config.presets import PRESETS
from waypost.config.readers import (
    Read,
    choice_of,
    list_of,
    read_acme_directory,
    read_address,
    read_addresses,
    read_any_text,
    read_bind,
    read_broker,
    read_count,
    read_delay,
    read_domain,
    read_flag,
    read_groups,
    read_helo,
    read_hook_url,
    read_hook_url_file,
    read_host_names,
    read_hosts,
    read_identifier,
    read_match,
    read_moved,
    read_networks,
    read_notify_url,
    read_notify_urls_file,
    read_own,
    read_password_hash,
    read_password_hash_file,
    read_path,
    read_place,
    read_port,
    read_scope,
    read_seconds,
    read_secret,
    read_secret_file,
    read_server,
    read_size_limit,
    read_target,
    read_template,
    read_tenant,
    read_text,
    read_tls_policy,
    read_topic_base,
    read_topic_prefix,
    read_type_glob,
    read_url,
)
from waypost.delivery import notify
from waypost.delivery.webhook import BASE64, MAX_ATTACHED, NONE
from waypost.dns.resolver import SYSTEM
from waypost.intake.senders import LiteralSender
from waypost.mqtt.settings import IMAGE_BYTES, RESET_AFTER_S, VERSIONS
from waypost.oauth.settings import Grant
from waypost.reading.event import MAX_TEXT
from waypost.routing.patterns import AddressGlob, Glob
from waypost.tls.policy import Level


@dataclass(frozen=True, slots=True)
class Key:
    """One key."""

    name: str
    read: Read
    default: Any  # REQUIRED: there is none
    expected: str  # in words, for errors and the reference
    meaning: str


@dataclass(frozen=True, slots=True)
class Section:
    """A [table], or an array of [[tables]]."""

    name: str  # empty: the top of the file
    keys: tuple[Key, ...]
    meaning: str
    is_array: bool = False  # [[name]]
    is_named: bool = False  # [name.SOMETHING], as many as there are; SOMETHING is the key "name"

    def key(self, name: str) -> Key | None:
        """The key of this name; None: there is none."""
        return next((key for key in self.keys if key.name == name), None)


REQUIRED: Any = object()


def _same_in_file(name: str, read: Read = read_secret_file) -> Key:
    """Beside a secret: the key by which a file holds it."""
    meaning = "The same, in a file that only the hub's user may read."
    return Key(f"{name}_file", read, None, "a file", meaning)


_DOMAIN = Key(
    "domain",
    read_domain,
    None,
    "a domain name of ours",
    "The domain it belongs to. Absent: it belongs to the hub, under all its names.",
)


SECTIONS: tuple[Section, ...] = (
    Section(
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
    ),
    Section(
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
            Key(
                "domains", list_of(read_domain), (), "list of domain names", "Names that are ours."
            ),
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
    ),
    Section(
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
                "true: anyone may mail mailboxes that exist here. Nobody untrusted may relay,"
                " ever.",
            ),
        ),
        "Who may do what, by address.",
    ),
    Section(
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
    ),
    Section(
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
    ),
    Section(
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
    ),
    Section(
        "mailboxes",
        (
            Key(
                "auto_create",
                read_flag,
                True,
                "true or false",
                "A trusted client makes a mailbox by mailing it.",
            ),
            Key("root", read_text, "mail", "a directory", "Where Maildirs lie, below data_dir."),
            Key(
                "case",
                choice_of("fold", "exact"),
                "fold",
                '"fold" or "exact"',
                "Whether Alerts@ and alerts@ are one mailbox.",
            ),
            Key(
                "subaddress",
                read_any_text,
                "+",
                "a text",
                "alerts+motion@ goes to alerts; empty: it does not.",
            ),
        ),
        "Mailboxes in general.",
    ),
    Section(
        "mailbox",
        (
            Key("name", read_text, REQUIRED, "a text", "The local part."),
            _DOMAIN,
            Key(
                "aliases",
                list_of(read_text),
                (),
                "list of local parts",
                "Other names of this mailbox.",
            ),
            Key(
                "catch_all",
                read_flag,
                False,
                "true or false",
                "true: it takes what no other mailbox, alias or list of its domain does.",
            ),
            Key(
                "password_hash",
                read_password_hash,
                None,
                "an Argon2 hash",
                "Its owner may [log in](../how-to/logins.md) by the mailbox's name; `waypost user"
                " hash` makes one. Absent: nobody may, unless `waypost user add` says otherwise.",
            ),
            _same_in_file("password_hash", read_password_hash_file),
            Key(
                "senders",
                list_of(lambda value: AddressGlob(read_text(value))),
                (),
                "list of address patterns",
                "Senders that its owner may use besides the mailbox's own addresses.",
            ),
        ),
        "A mailbox that exists from the start.",
        is_array=True,
    ),
    Section(
        "route",
        (
            Key("name", read_text, REQUIRED, "a text", "How logs and traces call it."),
            Key(
                "match",
                read_match,
                {},
                "table of recipient, sender, client, listener, login, subject, header, larger_than",
                "All that are given must match. recipient, sender, login and subject are patterns"
                " with * and ?, without case; client is a list of networks; listener a name; header"
                " a table of fields and patterns; larger_than a size.",
            ),
            Key(
                "to",
                list_of(read_target, may_be_empty=False),
                REQUIRED,
                "list of targets",
                "mailbox:NAME or mailbox:NAME@DOMAIN, smtp:[IP]:PORT or smtp:NAME:PORT, lmtp:/PATH"
                " or lmtp:[IP]:PORT, relay:NAME, direct, list:NAME, mqtt:KIND, discard,"
                " reject:X.Y.Z TEXT, webhook:NAME, notify:NAME."
                " Each is tried and retried on its own.",
            ),
            Key(
                "continue",
                read_flag,
                False,
                "true or false",
                "true: a copy beside the rest; later routes count too, and if none of them has"
                " the last word so does the usual way.",
            ),
        ),
        "Where mail goes, in order; the first that matches wins. Strangers reach routes only"
        " with recipients of ours.",
        is_array=True,
    ),
    Section(
        "relay",
        (
            Key(
                "host",
                read_hosts,
                REQUIRED,
                "a name, an IP address, or a list of them",
                "The smart host; of several the next is tried when one cannot be used.",
            ),
            Key("port", read_port, 25, "a port", "Its port. On 465 TLS comes first."),
            Key(
                "tls",
                choice_of(*Level),
                "verify",
                '"none", "opportunistic", "encrypt", "verify", "pin" or "dane"',
                "verify: TLS 1.2 or later, and the relay proves its name, or its address by an IP"
                " SAN. pin: by the key it showed first. dane: by its zone (RFC 7672). encrypt: TLS"
                " with whoever answers. opportunistic: TLS if it works.",
            ),
            Key(
                "ca",
                read_path,
                None,
                "a file (PEM)",
                "Who may vouch for the relay. Absent: an authority of `waypost tls trust`, else"
                " whom this system trusts.",
            ),
            Key("username", read_text, None, "a text", "Who logs in; needs TLS. Absent: nobody."),
            Key("password", read_secret, None, "a text", "The password, for PLAIN or LOGIN."),
            Key(
                "password_file",
                read_secret_file,
                None,
                "a file",
                "The password, in a file that only the hub's user may read.",
            ),
            Key(
                "preset",
                choice_of(*PRESETS),
                None,
                " or ".join(f'"{name}"' for name in PRESETS),
                "A provider whose `host`, `tls`, `auth`, URLs and limits are known here; keys that"
                " are given win. [How to](../how-to/forward-to-gmail-or-microsoft-365.md).",
            ),
            Key(
                "auth",
                choice_of("plain", "login", "xoauth2", "oauthbearer"),
                None,
                '"plain", "login", "xoauth2" or "oauthbearer"',
                "How to log in. xoauth2 and oauthbearer: with an access token of OAuth2. Absent:"
                " PLAIN or LOGIN, whichever the relay offers.",
            ),
            Key(
                "grant",
                choice_of(*Grant),
                None,
                " or ".join(f'"{grant}"' for grant in Grant),
                "How access tokens are come by: a browser, a code typed on another device, the"
                " program's own secret, or a key file.",
            ),
            Key("client_id", read_text, None, "a text", "What the provider calls this program."),
            Key(
                "client_secret",
                read_secret,
                None,
                "a text",
                "Its secret, if the provider gave one.",
            ),
            _same_in_file("client_secret"),
            Key(
                "tenant",
                read_tenant,
                None,
                "a tenant's id or domain",
                "At Microsoft, whose accounts: stands for `{tenant}` in the URLs.",
            ),
            Key(
                "token_url",
                read_text,
                None,
                "a URL (https)",
                "Where tokens are given and refreshed.",
            ),
            Key(
                "authorization_url",
                read_text,
                None,
                "a URL (https)",
                'Where a browser is sent, with grant = "code".',
            ),
            Key(
                "device_url",
                read_text,
                None,
                "a URL (https)",
                'Where codes to type are given, with grant = "device".',
            ),
            Key(
                "redirect_url",
                read_text,
                None,
                "http://127.0.0.1 or http://localhost, and a path",
                "Where the browser comes back to, as registered at the provider; a port is added."
                " Absent: http://127.0.0.1.",
            ),
            Key("scopes", list_of(read_scope), (), "list of texts", "What tokens are asked for."),
            Key(
                "key_file",
                read_path,
                None,
                "a file (JSON)",
                "The key of a service account, as downloaded; only the hub's user may read it.",
            ),
            Key(
                "token_ca",
                read_path,
                None,
                "a file (PEM)",
                "Who may vouch for the servers behind these URLs. Absent: whom this system trusts.",
            ),
            Key(
                "alarm",
                read_target,
                None,
                "a target, as in a route",
                "Who is told, once, when the login is lost, and when it is back. Absent: the"
                " mailbox of postmaster here.",
            ),
            Key(
                "rewrite_from",
                read_address,
                None,
                "an address",
                "[Who sends](../how-to/rewriting-for-a-relay.md), for a relay that takes mail of"
                " its account only: the envelope's sender and From. Answers go to the device.",
            ),
            Key(
                "max_message",
                read_size_limit,
                None,
                'a size in octets, or as "25M"',
                "Larger mail goes back to its sender (552 5.3.4). Absent: what the relay says.",
            ),
            Key(
                "connections",
                read_count,
                None,
                "a whole number",
                "How many connections it gets at once. Absent: at most 20.",
            ),
            Key(
                "messages_per_minute",
                read_count,
                None,
                "a whole number",
                "How many messages it gets in any minute; the rest waits. A message to several"
                " recipients that it takes at once is one.",
            ),
            Key(
                "messages_per_day",
                read_count,
                None,
                "a whole number",
                "How many messages it gets in any 24 hours, counted by the hour; restarts do not"
                " begin anew.",
            ),
            Key(
                "fallback",
                read_text,
                None,
                "the name of another relay",
                "Where mail goes while this relay cannot be reached, or makes it wait for more than"
                " five minutes.",
            ),
        ),
        "A host that takes mail for elsewhere, for the target `relay:NAME`.",
        is_named=True,
    ),
    Section(
        "list",
        (
            Key(
                "members",
                list_of(read_address),
                REQUIRED,
                "list of addresses",
                "Who gets a copy: anywhere a route leads to, lists included.",
            ),
            _DOMAIN,
            Key(
                "owner",
                read_address,
                None,
                "an address",
                "Who gets what comes back from members. Absent: postmaster here.",
            ),
            Key(
                "strangers_may_post",
                read_flag,
                False,
                "true or false",
                "true: strangers may, where `networks.accept_from_strangers` lets them mail us.",
            ),
        ),
        "A list: `NAME@` an address of ours goes to all members.",
        is_named=True,
    ),
    Section(
        "webhook",
        (
            Key(
                "url",
                read_hook_url,
                None,
                "a URL, http:// or https://",
                "Where events go. Redirects are not followed.",
            ),
            Key(
                "url_file",
                read_hook_url_file,
                None,
                "a file name",
                "The URL, in the first line of a file with mode 0600: for one that is a secret.",
            ),
            Key(
                "secret",
                read_secret,
                None,
                "a text",
                "What events are signed with. Absent: they are not signed.",
            ),
            Key(
                "secret_file",
                read_secret_file,
                None,
                "a file name",
                "The secret, in the first line of a file with mode 0600.",
            ),
            Key(
                "ca",
                read_path,
                None,
                "a file name",
                "Who may vouch for the server, as PEM. Absent: whom this system trusts.",
            ),
            Key(
                "attachments",
                choice_of(NONE, BASE64),
                NONE,
                '"none" or "base64"',
                '"base64": attachments go along, in the event. "none": their names and hashes do.',
            ),
            Key(
                "attachment_types",
                list_of(read_type_glob, may_be_empty=False),
                (Glob("*"),),
                'list of media types, as in "image/*"',
                "Which attachments go along.",
            ),
            Key(
                "max_attachment",
                read_size_limit,
                5_242_880,
                'octets, or as "5M"',
                "The largest attachment that goes along; all of one event have at most"
                f" {MAX_ATTACHED >> 20} MiB together.",
            ),
            Key(
                "max_text",
                read_count,
                MAX_TEXT,
                "a number",
                "Characters of the mail's text that go along.",
            ),
            Key(
                "networks",
                read_networks,
                (),
                "as networks.trusted",
                "Networks that are not of the Internet, and that a host given by name may be in."
                " A host given as an IP address needs no entry.",
            ),
            Key(
                "timeout_s",
                read_seconds,
                30.0,
                "seconds",
                "How long the server may take for one event.",
            ),
        ),
        "A [webhook](../how-to/webhooks-and-notifications.md): mail as JSON to a web server, for"
        " the target `webhook:NAME`.",
        is_named=True,
    ),
    Section(
        "notify",
        (
            Key(
                "urls",
                list_of(read_notify_url),
                (),
                "list of Apprise URLs",
                "Who is told, as in `ntfy://ntfy.example/alarms`.",
            ),
            Key(
                "urls_file",
                read_notify_urls_file,
                (),
                "a file name",
                "More of them, one a line, in a file with mode 0600; `#` begins a comment.",
            ),
            Key(
                "title",
                read_template,
                notify.TITLE,
                "a text with $fields",
                "The title; `$subject ($device)`, for example. Fields are those of the event.",
            ),
            Key("text", read_template, notify.TEXT, "a text with $fields", "The text."),
            Key(
                "picture",
                read_flag,
                True,
                "true or false",
                "true: the mail's first picture goes along, made smaller above"
                f" {notify.MAX_PICTURE >> 20} MiB.",
            ),
            Key(
                "max_text",
                read_count,
                notify.MAX_TEXT,
                "a number",
                "Characters of the text, the template included.",
            ),
        ),
        "[Notifications](../how-to/webhooks-and-notifications.md#notifications) by services that"
        " Apprise speaks to, for the target `notify:NAME`.",
        is_named=True,
    ),
    Section(
        "delivery",
        (
            Key(
                "port",
                read_port,
                25,
                "a port",
                "The port of hosts mail goes straight to; a literal never carries one.",
            ),
        ),
        "Mail on its way out.",
    ),
    Section(
        "dns",
        (
            Key(
                "servers",
                list_of(read_server),
                (SYSTEM,),
                'list of "system", addresses, address:port and [v6]:port',
                'Which name servers are asked. "system" is what /etc/resolv.conf names, followed as'
                " it changes; an empty list: no DNS at all, which is a way to run.",
            ),
        ),
        "The name service. Mail to address literals never needs it.",
    ),
    Section(
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
            _same_in_file("client_secret"),
            Key(
                "ca",
                read_path,
                None,
                "a file (PEM)",
                "Who may vouch for that server. Absent: whom this system trusts.",
            ),
        ),
        "Access tokens that clients [log in](../how-to/logins.md) with.",
    ),
    Section(
        "mqtt",
        (
            Key(
                "url",
                read_broker,
                None,
                "mqtt:// or mqtts://, a host and perhaps a port",
                "The broker. Absent: there is none, and mail for `mqtt:` targets waits.",
            ),
            Key(
                "base",
                read_topic_base,
                "waypost",
                "letters, digits, - and _",
                "The first level of all topics; another one for each hub at the same broker.",
            ),
            Key(
                "discovery",
                read_topic_prefix,
                "homeassistant",
                "a topic, or nothing",
                "Where Home Assistant looks for new devices. Empty: it is told nothing.",
            ),
            Key("username", read_text, None, "a text", "Who the hub logs in as."),
            Key("password", read_secret, None, "a text", "With which password."),
            _same_in_file("password"),
            Key(
                "ca",
                read_path,
                None,
                "a file (PEM)",
                "Who may vouch for the broker (mqtts). Absent: whom this system trusts.",
            ),
            Key(
                "certificate",
                read_path,
                None,
                "a file (PEM)",
                "What the hub shows a broker that asks for a certificate.",
            ),
            Key(
                "key",
                read_path,
                None,
                "a file (PEM)",
                "Its key, without a password.",
            ),
            Key(
                "version",
                choice_of(*VERSIONS),
                VERSIONS[0],
                " or ".join(f'"{version}"' for version in VERSIONS),
                "Which MQTT is spoken.",
            ),
            Key(
                "retain",
                read_flag,
                True,
                "true or false",
                "The broker keeps states and pictures, for those who come later. Events are"
                " never kept.",
            ),
            Key(
                "reset_after_s",
                read_seconds,
                RESET_AFTER_S,
                "seconds",
                "How long after its last mail a kind of event goes from ON to OFF: devices do"
                " not mail that it is over.",
            ),
            Key(
                "image_bytes",
                read_size_limit,
                IMAGE_BYTES,
                'a size in octets, or as "5M"',
                "Larger pictures are not published.",
            ),
        ),
        "[MQTT and Home Assistant](../how-to/mqtt-and-home-assistant.md).",
    ),
    Section(
        "device",
        (
            Key(
                "address",
                read_addresses,
                REQUIRED,
                "an IP address, or a list of them",
                "Where its mail comes from.",
            ),
            Key("name", read_text, REQUIRED, "a text", "What it is called, in any script."),
            Key(
                "kind",
                read_text,
                None,
                "a text",
                'What it is, for people, as in "camera".',
            ),
        ),
        "A device, by name. Others are called by their address.",
        is_array=True,
    ),
    Section(
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
    ),
    Section(
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
    ),
    Section(
        "limits",
        (
            Key("message_bytes", read_count, 52_428_800, "octets", "The largest message (SIZE)."),
            Key(
                "recipients", read_count, 1_000, "a number", "Recipients of one message (RCPTMAX)."
            ),
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
    ),
    Section(
        "retry",
        (
            Key(
                "first_s", read_seconds, 60.0, "seconds", "The wait after the first failed attempt."
            ),
            Key("max_s", read_seconds, 14_400.0, "seconds", "The longest wait; each doubles."),
            Key(
                "warn_after_s",
                read_seconds,
                14_400.0,
                "seconds",
                "When the sender is told, once, that mail is late.",
            ),
            Key(
                "give_up_after_s",
                read_seconds,
                432_000.0,
                "seconds",
                "When mail goes back to the sender.",
            ),
        ),
        "When delivery is tried again.",
    ),
    Section(
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
    ),
)
