"""Every key of the configuration: what it takes, its default, and what it means.

The reference (docs/reference/config.md) is generated from this table, and reading is driven by
it, so the two cannot differ.
"""

from __future__ import annotations

from waypost.config.schema import mail, onward, place, programs, security, web
from waypost.config.schema.key import Section

SECTIONS: tuple[Section, ...] = (
    place.TOP,
    place.ADDRESSES,
    place.NETWORKS,
    place.LISTENER,
    security.TLS,
    security.ACME,
    mail.MAILBOXES,
    mail.MAILBOX,
    mail.ROUTE,
    onward.RELAY,
    mail.LIST,
    programs.WEBHOOK,
    programs.NOTIFY,
    onward.DELIVERY,
    onward.DNS,
    place.TOKENS,
    programs.MQTT,
    programs.SUBSCRIBE,
    programs.DEVICE,
    security.POLICY,
    security.CHECK,
    place.LIMITS,
    onward.RETRY,
    web.HTTP,
    web.API_TOKEN,
    web.INBOUND,
    place.LOG,
)
