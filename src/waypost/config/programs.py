"""Webhooks, notifications and MQTT, out of the keys of their sections."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from waypost.config.relays import Fault
from waypost.delivery.attachments import AttachmentRules, EventSettings
from waypost.delivery.notify import NotifySettings
from waypost.delivery.webhook import WebhookSettings
from waypost.mqtt.settings import MqttSettings, Subscription


def _rules_of(given: dict[str, Any]) -> AttachmentRules:
    """Takes the keys about attachments out of those given."""
    return AttachmentRules(
        given.pop("attachment_types"),
        given.pop("max_attachment"),
        given.pop("picture"),
        given.pop("picture_px"),
    )


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
    rules = _rules_of(given)
    return WebhookSettings(**given, rules=rules)


def notify_faults(notify: dict[str, Any]) -> Iterator[Fault]:
    """As `webhook_faults`."""
    if not notify["urls"] and not notify["urls_file"]:
        yield "", "expected urls or urls_file"


def notify_of(notify: dict[str, Any]) -> NotifySettings:
    """As `webhook_of`; each URL is told once."""
    urls = tuple(dict.fromkeys((*notify["urls"], *notify["urls_file"])))
    given = {name: value for name, value in notify.items() if name != "urls_file"}
    rules = _rules_of(given)
    return NotifySettings(**given | {"urls": urls}, rules=rules)


def mqtt_of(
    mqtt: dict[str, Any], subscriptions: list[dict[str, Any]]
) -> tuple[MqttSettings | None, EventSettings]:
    """The broker, if there is one, and what is published there."""
    given = {key: value for key, value in mqtt.items() if not key.startswith("password")}
    rules = _rules_of(given)
    events = EventSettings(given.pop("attachments"), rules, given.pop("max_text"))
    if mqtt["url"] is None:
        return None, events
    password = mqtt["password"] or mqtt["password_file"]
    subscribe = tuple(
        Subscription(
            *(entry["topic"], entry["qos"], entry["from"], entry["to"], entry["route"]),
            *(entry["subject"], entry["text"]),
        )
        for entry in subscriptions
    )
    return MqttSettings(**given, password=password, subscribe=subscribe), events
