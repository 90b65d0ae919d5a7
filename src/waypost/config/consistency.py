"""Faults of a configuration that only show between keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from waypost.config.composing import mailbox_id, masked_by, scope_of
from waypost.config.lines import KeyPath
from waypost.config.programs import notify_faults, webhook_faults
from waypost.config.readers import LABEL
from waypost.config.reading import Values
from waypost.config.relays import relay_faults
from waypost.config.schema import SECTIONS
from waypost.config.settings import DEFAULT_LISTENERS
from waypost.config.storms import storm_faults
from waypost.config.web import hook_faults, token_faults
from waypost.devices.names import slug
from waypost.mail.address import IPAddress
from waypost.mqtt.filters import overlap
from waypost.mqtt.publication import Publication, check_foreign
from waypost.net.networks import WORDS, only_host
from waypost.routing.mailboxes import POSTMASTER
from waypost.routing.targets import Target, parse_target


class Consistency:
    """Looks at values that each are right; one that is at fault itself is None."""

    def __init__(self, values: Values, fault: Callable[[KeyPath, str], None]) -> None:
        self._values = values
        self._fault = fault

    def check(self) -> None:
        """Note every fault."""
        values = self._values
        for section in ("listener", "route", "mailbox"):
            names = [
                entry["name"] if section != "mailbox" or not entry["name"] else mailbox_id(entry)
                for entry in values[section]
            ]
            for index, name in enumerate(names):
                if name is not None and name in names[:index]:
                    self._fault((section, index, "name"), f"{name!r} is used twice")
        listeners = {entry["name"] or "" for entry in values["listener"]} or {
            listener.name for listener in DEFAULT_LISTENERS
        }
        for index, route in enumerate(values["route"]):
            name = route["match"].get("listener")
            if name is not None and name not in listeners:
                self._fault(
                    ("route", index, "match"),
                    f"there is no listener {name!r}; known: {', '.join(sorted(listeners))}",
                )
            for key, problem in storm_faults(route):
                self._fault(("route", index, key), problem)
        self._check_logins(values)
        self._check_tokens(values["tokens"])
        self._check_targets(values)
        self._check_gateways(values["networks"])
        self._check_relays(values)
        self._check_programs(values)
        self._check_domains(values)
        for index, listener in enumerate(values["listener"]):
            binds = listener["bind"] or ()
            if listener["role"] != "lmtp" and any(bind.startswith("/") for bind in binds):
                self._fault(("listener", index, "bind"), 'a Unix socket needs role = "lmtp"')
            if listener["tls_profile"] == "legacy" and "any" in (listener["networks"] or ()):
                self._fault(
                    ("listener", index, "tls_profile"),
                    "old TLS is for the devices that need it: name their networks in networks",
                )
            if "any" in (listener["proxy_protocol"] or ()):
                self._fault(
                    ("listener", index, "proxy_protocol"),
                    "then anybody could claim to be any client: name the proxies' addresses",
                )
            if listener["role"] == "lmtp" and any(bind.endswith(":25") for bind in binds):
                # RFC 2033 §5: a client that speaks SMTP there would lose mail.
                self._fault(("listener", index, "bind"), "LMTP must not be on port 25")
        if values["check"]["probe"] and values["check"]["sender"] is None:
            self._fault(("check", "probe"), "probing needs check.sender, which somebody reads")
        if (values["tls"]["certificate"] is None) != (values["tls"]["key"] is None):
            self._fault(("tls",), "certificate and key go together")
        self._check_acme(values)
        self._check_mqtt(values)
        self._check_devices(values["device"])
        retry = values["retry"]
        if retry["give_up_after_s"] < retry["first_s"]:
            self._fault(
                ("retry", "give_up_after_s"), "gives up before the first retry (retry.first_s)"
            )

    def _check_gateways(self, networks: dict[str, Any]) -> None:
        masked = masked_by(networks)
        for word in networks["trusted"]:
            if word not in WORDS and (host := only_host(word)) in masked:
                self._fault(
                    ("networks", "trusted"),
                    f"{host} is this container's gateway, and clients from anywhere may come under"
                    " its address: with it trusted the hub would be an open relay. Have clients"
                    " come under their own addresses (host network, or a proxy named in a"
                    " listener's proxy_protocol); if no client is masked so, say"
                    " trust_gateway = true",
                )

    def _check_logins(self, values: Values) -> None:
        for index, listener in enumerate(values["listener"]):
            for name in ("login_in_clear", "any_login"):
                if listener["role"] == "lmtp" and listener[name]:
                    self._fault(("listener", index, name), "nobody logs in over LMTP")
                elif "any" in (listener[name] or ()):
                    self._fault(
                        ("listener", index, name),
                        "this is for devices that need it: name their networks",
                    )
        for index, mailbox in enumerate(values["mailbox"]):
            given = [name for name in ("password_hash", "password_hash_file") if mailbox[name]]
            if len(given) == 2:
                self._fault(("mailbox", index), "password_hash or password_hash_file, not both")
            elif mailbox["senders"] and not given:
                self._fault(("mailbox", index, "senders"), "needs a password_hash")

    def _check_acme(self, values: Values) -> None:
        acme = values["acme"]
        if acme["directory"] is None:
            given = [key for key, value in acme.items() if value not in _defaults("acme", key)]
            if given:
                self._fault(("acme", given[0]), 'needs acme.directory, as in "letsencrypt"')
        elif not acme["agree"]:
            self._fault(("acme",), "the server's terms are yours to agree to: agree = true")
        elif values["tls"]["certificate"] is not None:
            self._fault(("acme",), "tls.certificate is shown everywhere: leave out one of both")

    def _check_tokens(self, tokens: dict[str, Any]) -> None:
        given = [name for name, value in tokens.items() if value is not None]
        secrets = [name for name in given if name.startswith("client_secret")]
        if given and (
            tokens["introspection_url"] is None or tokens["client_id"] is None or len(secrets) != 1
        ):
            self._fault(
                ("tokens",),
                "introspection_url, client_id and client_secret or client_secret_file go together",
            )

    def _check_mqtt(self, values: Values) -> None:
        mqtt = values["mqtt"]
        given = [key for key, value in mqtt.items() if value not in _defaults("mqtt", key)]
        if mqtt["url"] is None:
            if given:
                self._fault(("mqtt", given[0]), "needs mqtt.url, as in mqtt://192.168.1.5:1883")
            for index, route in enumerate(values["route"]):
                for kind in {parse_target(target).kind for target in route["to"] or ()}:
                    if kind in ("mqtt", "publish"):
                        self._fault(("route", index, "to"), f"{kind}: needs mqtt.url")
            for index, device in enumerate(values["device"]):
                if device["command_topic"] is not None:
                    self._fault(("device", index, "command_topic"), "needs mqtt.url")
            if values["mqtt.subscribe"]:
                self._fault(("mqtt", "subscribe"), "needs mqtt.url")
            return
        self._check_subscriptions(values)
        if mqtt["password"] and mqtt["password_file"]:
            self._fault(("mqtt",), "password or password_file, not both")
        elif (mqtt["password"] or mqtt["password_file"]) and not mqtt["username"]:
            self._fault(("mqtt",), "a password needs mqtt.username")
        if (mqtt["certificate"] is None) != (mqtt["key"] is None):
            self._fault(("mqtt",), "certificate and key go together")
        for key in ("ca", "certificate"):
            if mqtt[key] is not None and not mqtt["url"].is_secure:
                self._fault(("mqtt", key), "is for mqtts:// only")
        self._check_topics(values)

    def _check_topics(self, values: Values) -> None:
        """Nothing is published where the hub itself does, and no mailbox is in the way."""
        mqtt = values["mqtt"]
        named: list[tuple[KeyPath, str]] = [
            (("route", index, "to"), target.argument)
            for index, route in enumerate(values["route"])
            for target in map(parse_target, route["to"] or ())
            if target.kind == "publish"
        ]
        named += [
            (("device", index, "command_topic"), device["command_topic"])
            for index, device in enumerate(values["device"])
            if device["command_topic"] is not None
        ]
        for path, text in named:
            try:
                check_foreign(Publication.parse(text).topic, mqtt["base"], mqtt["discovery"])
            except ValueError as error:
                self._fault(path, f"{text!r}: {error}")
        if bool(mqtt["mailbox"]) != bool(mqtt["topics"]):
            self._fault(("mqtt",), "mailbox and topics go together")
        if not mqtt["mailbox"]:
            return
        separator = values["mailboxes"]["subaddress"]
        if not separator:
            self._fault(("mqtt", "mailbox"), "needs mailboxes.subaddress, which is before a topic")
        elif separator in mqtt["mailbox"]:
            self._fault(("mqtt", "mailbox"), f"{separator!r} begins the topic (subaddress)")
        taken = {POSTMASTER, *(entry["name"] for entry in values["list"])}
        for mailbox in values["mailbox"]:
            taken |= {mailbox["name"], *mailbox["aliases"]}
        if mqtt["mailbox"].casefold() in {name.casefold() for name in taken if name}:
            self._fault(("mqtt", "mailbox"), "is the name of a mailbox, alias or list already")

    def _check_subscriptions(self, values: Values) -> None:
        routes = {route["name"] for route in values["route"]}
        base = values["mqtt"]["base"]
        filters: list[str] = []
        for index, entry in enumerate(values["mqtt.subscribe"]):
            path: KeyPath = ("mqtt", "subscribe", index)
            if bool(entry["to"]) == bool(entry["route"]):
                self._fault(path, "expected either to or route")
            elif entry["route"] is not None and entry["route"] not in routes:
                self._fault((*path, "route"), f"there is no [[route]] named {entry['route']!r}")
            topic = entry["topic"]
            if topic is None:
                continue
            if topic.startswith("$share/"):
                # MQTT 5 §3.8.3.1: those cannot leave out what the hub itself publishes.
                self._fault((*path, "topic"), "a shared subscription would miss messages")
            elif topic.split("/")[0] == base:
                self._fault((*path, "topic"), f"{base}/… is the hub's own: see mqtt.requests")
            for other in filters:
                if overlap(topic, other):
                    self._fault(
                        (*path, "topic"),
                        f"{other!r} may match the same message, and brokers differ in whether it"
                        " then comes twice; one entry with a route can have several targets",
                    )
            filters.append(topic)

    def _check_devices(self, devices: list[dict[str, Any]]) -> None:
        slugs: set[str] = set()
        addresses: set[IPAddress] = set()
        for index, device in enumerate(devices):
            if device["name"] is not None:
                name = slug(device["name"])
                if name.lower() in slugs:
                    self._fault(
                        ("device", index, "name"), f"two devices would be {name!r} in topics"
                    )
                slugs.add(name.lower())
            for ip in device["address"] or ():
                if ip in addresses:
                    self._fault(("device", index, "address"), f"{ip} is here twice")
                addresses.add(ip)

    def _check_relays(self, values: Values) -> None:
        for relay in values["relay"]:
            for key, problem in relay_faults(relay):
                path: KeyPath = ("relay", relay["name"])
                self._fault((*path, key) if key else path, problem)
        self._check_fallbacks(values)

    def _check_programs(self, values: Values) -> None:
        found = [("webhook", entry, webhook_faults(entry)) for entry in values["webhook"]]
        found += [("notify", entry, notify_faults(entry)) for entry in values["notify"]]
        found += [("api_token", entry, token_faults(entry)) for entry in values["api_token"]]
        routes = [route["name"] for route in values["route"]]
        found += [("inbound", entry, hook_faults(entry, routes)) for entry in values["inbound"]]
        for section, entry, faults in found:
            for key, problem in faults:
                path: KeyPath = (section, entry["name"])
                self._fault((*path, key) if key else path, problem)

    def _check_fallbacks(self, values: Values) -> None:
        """Each names a relay, and none leads back to where it began."""
        fallbacks = {relay["name"]: relay["fallback"] for relay in values["relay"]}
        for name, fallback in fallbacks.items():
            path: KeyPath = ("relay", name, "fallback")
            if fallback is not None and fallback not in fallbacks:
                self._fault(path, f"there is no [relay.{fallback}]")
            seen = {name}
            while fallback is not None and fallback not in seen:
                seen.add(fallback)
                fallback = fallbacks.get(fallback)
            if fallback == name:
                self._fault(path, f"mail would go round: {name} is a fallback of its own fallback")

    def _check_targets(self, values: Values) -> None:
        for section in ("relay", "list", "webhook", "notify"):
            known = [entry["name"] for entry in values[section]]
            named: list[tuple[KeyPath, Target]] = [
                (("route", index, "to"), target)
                for index, route in enumerate(values["route"])
                for target in map(parse_target, route["to"] or ())
            ]
            named += [
                (("relay", relay["name"], "alarm"), parse_target(relay["alarm"]))
                for relay in values["relay"]
                if relay["alarm"] is not None
            ]
            for path, target in named:
                if target.kind == section and target.argument not in known:
                    self._fault(path, f"there is no [{section}.{target.argument}]")
            for name in known:
                if LABEL.fullmatch(name) is None:
                    self._fault((section, name), "a name has at most 48 letters, digits, - and _")

    def _check_domains(self, values: Values) -> None:
        """Mailboxes and lists belong to domains of ours."""
        addresses = values["addresses"]
        ours = {domain.ascii for domain in addresses["domains"]}
        ours |= {domain.ascii for _, domains in addresses["groups"] for domain in domains}
        entries: list[tuple[KeyPath, dict[str, Any]]] = [
            (("mailbox", index), entry) for index, entry in enumerate(values["mailbox"])
        ]
        entries += [(("list", entry["name"]), entry) for entry in values["list"]]
        catch_alls: set[str] = set()
        for path, entry in entries:
            domain = entry["domain"]
            if domain is not None and domain.ascii not in ours:
                self._fault(
                    (*path, "domain"),
                    f"{domain} is not ours: name it in addresses.domains or addresses.groups",
                )
            if entry.get("catch_all"):
                if scope_of(entry) in catch_alls:
                    self._fault((*path, "catch_all"), "another mailbox there takes the rest")
                catch_alls.add(scope_of(entry))


def _defaults(section_name: str, key_name: str) -> tuple[Any, ...]:
    """What a key holds that nobody has given."""
    (section,) = (section for section in SECTIONS if section.name == section_name)
    return tuple(key.default for key in section.keys if key.name == key_name)
