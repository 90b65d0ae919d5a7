"""Values of the configuration, composed into settings."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Any

from waypost.accounts.accounts import Account
from waypost.acme.settings import PORTS, AcmeSettings, ChallengeKind
from waypost.check.memory import Budget
from waypost.check.settings import CheckSettings
from waypost.config.programs import mqtt_of, notify_of, webhook_of
from waypost.config.reading import Values
from waypost.config.relays import relay_of
from waypost.config.settings import DEFAULT_LISTENERS, Settings
from waypost.config.web import hook_of, http_of, token_of
from waypost.devices.names import DeviceSettings
from waypost.intake.acceptance import Limits
from waypost.intake.senders import LiteralSender, SenderPolicy
from waypost.intake.smtp_listener import ListenerSettings, split_bind
from waypost.intake.tokens import TokenSettings
from waypost.mail.address import Domain, IPAddress
from waypost.net.gateways import masking_gateways
from waypost.net.networks import Networks
from waypost.queue.retry import RetrySettings
from waypost.routing.groups import GroupSettings
from waypost.routing.mailboxes import HUB, MailboxSettings, id_of
from waypost.routing.table import ListSettings, RoutingSettings, Rule
from waypost.routing.targets import parse_target
from waypost.routing.topics import TopicSettings
from waypost.tls.settings import TlsSettings


def compose(values: Values, source: Path | None, data_dir: Path) -> Settings:
    """The settings of values without a fault, which came from `source`."""
    top, addresses, networks = values[""], values["addresses"], values["networks"]
    check = values["check"]
    hostname: str | None = top["hostname"]
    rules = tuple(
        Rule(
            name=route["name"],
            targets=tuple(parse_target(target) for target in route["to"]),
            **route["match"],
            continues=route["continue"],
            storm=route["storm"],
            duplicates_s=route["duplicates_s"],
        )
        for route in values["route"]
    )
    domains = frozenset(addresses["domains"]) | (
        frozenset() if hostname is None else {Domain(hostname)}
    )
    mailboxes = values["mailboxes"]
    extra_own = tuple(ip_address(own) for own in addresses["own"] if own != "auto")
    lists = tuple(
        ListSettings(
            entry["name"],
            entry["members"],
            scope_of(entry),
            entry["owner"],
            entry["strangers_may_post"],
        )
        for entry in values["list"]
    )
    mqtt, mqtt_events = mqtt_of(values["mqtt"], values["mqtt.subscribe"])
    return Settings(
        data_dir=data_dir.absolute(),
        hostname=hostname,
        follow_interfaces="auto" in addresses["own"],
        extra_own=extra_own,
        trusted=networks["trusted"],
        masked=masked_by(networks),
        routing=RoutingSettings(
            hostname=hostname,
            domains=domains,
            bare_ip=addresses["bare_ip"] == "trusted",
            accept_from_strangers=networks["accept_from_strangers"],
            delivery_port=values["delivery"]["port"],
            rules=rules,
            lists=lists,
            groups=GroupSettings(
                addresses["groups"], addresses["names"], addresses["moved"], extra_own
            ),
            topics=_topics(values["mqtt"]),
        ),
        mailboxes=MailboxSettings(
            auto_create=mailboxes["auto_create"],
            root=mailboxes["root"],
            fold_case=mailboxes["case"] == "fold",
            subaddress=mailboxes["subaddress"],
            names=tuple(mailbox_id(mailbox) for mailbox in values["mailbox"]),
            aliases=tuple(
                (id_of(alias, scope_of(mailbox)), mailbox_id(mailbox))
                for mailbox in values["mailbox"]
                for alias in mailbox["aliases"]
            ),
            catch_alls=tuple(
                (scope_of(mailbox), mailbox_id(mailbox))
                for mailbox in values["mailbox"]
                if mailbox["catch_all"]
            ),
            lists=tuple((id_of(entry.name, entry.scope), entry.name) for entry in lists),
        ),
        relays=tuple(relay_of(relay) for relay in values["relay"]),
        webhooks=tuple(map(webhook_of, values["webhook"])),
        notify=tuple(map(notify_of, values["notify"])),
        listeners=tuple(
            ListenerSettings(
                *(listener["name"], listener["bind"], listener["role"], listener["networks"]),
                *(listener["tls"], listener["tls_profile"]),
                *(listener["login_in_clear"], listener["any_login"], listener["proxy_protocol"]),
            )
            for listener in values["listener"]
        )
        or DEFAULT_LISTENERS,
        tls=TlsSettings(
            values["tls"]["certificate"], values["tls"]["key"], values["tls"]["policy"]
        ),
        acme=_acme(values["acme"]),
        limits=Limits(**values["limits"]),
        retry=RetrySettings(**values["retry"]),
        dns_servers=values["dns"]["servers"],
        dnsbl_zones=values["policy"]["dnsbl_zones"],
        check=CheckSettings(
            may_probe=check["probe"],
            sender=check["sender"],
            helo=check["helo"],
            networks=check["networks"],
            budget=Budget(
                host_per_minute=check["host_per_minute"],
                network_per_minute=check["network_per_minute"],
                per_minute=check["per_minute"],
                per_day=check["per_day"],
            ),
            retry_s=check["retry_s"],
        ),
        accounts=tuple(
            Account(
                mailbox_id(mailbox),
                mailbox["password_hash"] or mailbox["password_hash_file"],
                mailbox["senders"],
            )
            for mailbox in values["mailbox"]
            if mailbox["password_hash"] or mailbox["password_hash_file"]
        ),
        tokens=_tokens(values["tokens"]),
        senders=SenderPolicy(
            LiteralSender(values["policy"]["literal_sender"]),
            Networks(values["policy"]["vouchers"]),
            tuple(
                frozenset(device["address"])
                for device in values["device"]
                if len(device["address"]) > 1
            ),
        ),
        mqtt=mqtt,
        mqtt_events=mqtt_events,
        web_url=values["http"]["url"],
        devices=tuple(
            DeviceSettings(
                *(device["address"], device["name"], device["kind"], device["command_topic"])
            )
            for device in values["device"]
        ),
        http=http_of(values["http"]),
        api_tokens=tuple(map(token_of, values["api_token"])),
        inbound=tuple(map(hook_of, values["inbound"])),
        log_as_json=values["log"]["format"] == "json",
        source=source,
    )


def _acme(acme: dict[str, Any]) -> AcmeSettings | None:
    if acme["directory"] is None:
        return None
    challenge = ChallengeKind(acme["challenge"])
    port = PORTS[challenge]
    return AcmeSettings(
        directory=acme["directory"],
        contact=tuple(str(address) for address in acme["contact"]),
        identifiers=acme["identifiers"],
        challenge=challenge,
        bind=acme["bind"] or (split_bind(f"0.0.0.0:{port}"), split_bind(f"[::]:{port}")),
        profile=acme["profile"],
        ca=acme["ca"],
    )


def _topics(mqtt: dict[str, Any]) -> TopicSettings | None:
    if mqtt["url"] is None:
        return None
    return TopicSettings(mqtt["base"], mqtt["discovery"], mqtt["mailbox"], mqtt["topics"])


def masked_by(networks: dict[str, Any]) -> frozenset[IPAddress]:
    return frozenset() if networks["trust_gateway"] else masking_gateways()


def _tokens(tokens: dict[str, Any]) -> TokenSettings | None:
    if tokens["introspection_url"] is None:
        return None
    secret = tokens["client_secret"] or tokens["client_secret_file"]
    return TokenSettings(tokens["introspection_url"], tokens["client_id"], secret, tokens["ca"])


def scope_of(entry: dict[str, Any]) -> str:
    """Where a mailbox or list belongs."""
    return HUB if entry["domain"] is None else str(entry["domain"].ascii)


def mailbox_id(mailbox: dict[str, Any]) -> str:
    return id_of(mailbox["name"], scope_of(mailbox))
