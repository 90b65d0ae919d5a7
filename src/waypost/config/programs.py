"""Webhooks and notifications, out of the keys of [webhook.NAME] and [notify.NAME]."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from waypost.config.relays import Fault
from waypost.delivery.notify import NotifySettings
from waypost.delivery.webhook import WebhookSettings


def webhook_faults(hook: dict[str, Any]) -> Iterator[Fault]:
    """What is wrong between the keys of one; a value at fault itself is None."""
    if (hook["url"] is None) == (hook["url_file"] is None):
        yield "", "expected either url or url_file"
    if hook["secret"] is not None and hook["secret_file"] is not None:
        yield "secret_file", "secret or secret_file, not both"


def webhook_of(hook: dict[str, Any]) -> WebhookSettings:
    """The webhook that these values, found without fault, mean."""
    given = {name: value for name, value in hook.items() if not name.endswith("_file")}
    for name in ("url", "secret"):
        given[name] = hook[name] or hook[f"{name}_file"]
    return WebhookSettings(**given)


def notify_faults(notify: dict[str, Any]) -> Iterator[Fault]:
    """As `webhook_faults`."""
    if not notify["urls"] and not notify["urls_file"]:
        yield "", "expected urls or urls_file"


def notify_of(notify: dict[str, Any]) -> NotifySettings:
    """As `webhook_of`; each URL is told once."""
    urls = tuple(dict.fromkeys((*notify["urls"], *notify["urls_file"])))
    given = {name: value for name, value in notify.items() if name != "urls_file"}
    return NotifySettings(**given | {"urls": urls})
