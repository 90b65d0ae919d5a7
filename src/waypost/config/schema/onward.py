"""How mail leaves: relays, when it is tried again, name servers."""

from __future__ import annotations

from waypost.config.presets import PRESETS
from waypost.config.readers import (
    choice_of,
    list_of,
    read_address,
    read_count,
    read_hosts,
    read_path,
    read_port,
    read_scope,
    read_seconds,
    read_secret,
    read_secret_file,
    read_server,
    read_size_limit,
    read_target,
    read_tenant,
    read_text,
)
from waypost.config.schema.key import REQUIRED, Key, Section, same_in_file
from waypost.dns.resolver import SYSTEM
from waypost.oauth.settings import Grant
from waypost.routing.hops import Oversize
from waypost.tls.policy import Level

RELAY = Section(
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
        same_in_file("client_secret"),
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
            "Larger mail goes back to its sender (552 5.3.4), unless `oversize` says otherwise."
            " Absent: what the relay says.",
        ),
        Key(
            "oversize",
            choice_of(*Oversize),
            Oversize.BOUNCE.value,
            "bounce | strip",
            "Mail that is too large: back to its sender, or on its way"
            " [without its largest attachments](../how-to/rewriting-for-a-relay.md#too-large).",
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
)

DELIVERY = Section(
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
)

DNS = Section(
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
)

RETRY = Section(
    "retry",
    (
        Key("first_s", read_seconds, 60.0, "seconds", "The wait after the first failed attempt."),
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
)
