"""The configuration as one frozen value, and how it is read."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from waypost.accounts.accounts import Account
from waypost.acme.settings import PORTS, AcmeSettings, ChallengeKind
from waypost.check.memory import Budget
from waypost.check.settings import CheckSettings
from waypost.config.lines import KeyPath, line_numbers
from waypost.config.presets import with_preset
from waypost.config.programs import notify_faults, notify_of, webhook_faults, webhook_of
from waypost.config.readers import LABEL
from waypost.config.relays import relay_faults, relay_of
from waypost.config.schema import REQUIRED, SECTIONS, Key, Section
from waypost.delivery.notify import NotifySettings
from waypost.delivery.webhook import WebhookSettings
from waypost.devices.names import RESERVED, DeviceSettings, slug
from waypost.dns.resolver import SYSTEM
from waypost.errors import ConfigError, ConfigFault
from waypost.intake.acceptance import Limits
from waypost.intake.senders import LiteralSender, SenderPolicy
from waypost.intake.smtp_listener import ListenerSettings, split_bind
from waypost.intake.tokens import TokenSettings
from waypost.mail.address import Domain, IPAddress
from waypost.mqtt.settings import MqttSettings
from waypost.net.gateways import masking_gateways
from waypost.net.networks import WORDS, Networks, only_host
from waypost.queue.retry import RetrySettings
from waypost.routing.groups import GroupSettings
from waypost.routing.hops import Relay
from waypost.routing.mailboxes import HUB, MailboxSettings, id_of
from waypost.routing.table import ListSettings, RoutingSettings, Rule
from waypost.routing.targets import Target, parse_target
from waypost.tls.settings import TlsSettings

ENVIRONMENT_PREFIX = "WAYPOST__"
CONFIG_PLACES = (Path("waypost.toml"), Path("/etc/waypost/waypost.toml"))

DEFAULT_LISTENERS = (
    ListenerSettings("smtp", ("0.0.0.0:2525", "[::]:2525"), "hub"),
    ListenerSettings("submission", ("0.0.0.0:2587", "[::]:2587"), "submission"),
    ListenerSettings("submissions", ("0.0.0.0:2465", "[::]:2465"), "submission", tls="implicit"),
)

Values = dict[str, Any]  # section name -> dict of values, or a list of such for [[sections]]


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a hub is told."""

    data_dir: Path
    hostname: str | None = None  # None: we call ourselves by the literal connected to
    follow_interfaces: bool = True
    extra_own: tuple[IPAddress, ...] = ()
    trusted: tuple[str, ...] = ("loopback", "private")
    masked: frozenset[IPAddress] = frozenset()  # gateways that strangers may hide behind
    routing: RoutingSettings = field(default_factory=RoutingSettings)
    relays: tuple[Relay, ...] = ()
    webhooks: tuple[WebhookSettings, ...] = ()
    notify: tuple[NotifySettings, ...] = ()
    mailboxes: MailboxSettings = field(default_factory=MailboxSettings)
    listeners: tuple[ListenerSettings, ...] = DEFAULT_LISTENERS
    tls: TlsSettings = field(default_factory=TlsSettings)
    acme: AcmeSettings | None = None  # None: no public certificate
    limits: Limits = field(default_factory=Limits)
    retry: RetrySettings = field(default_factory=RetrySettings)
    dns_servers: tuple[str, ...] = (SYSTEM,)
    dnsbl_zones: tuple[str, ...] = ()
    check: CheckSettings = field(default_factory=CheckSettings)
    accounts: tuple[Account, ...] = ()
    tokens: TokenSettings | None = None  # None: nobody logs in with a token
    senders: SenderPolicy = field(default_factory=SenderPolicy)
    mqtt: MqttSettings | None = None  # None: there is no broker
    devices: tuple[DeviceSettings, ...] = ()
    log_as_json: bool = False
    source: Path | None = None  # None: no configuration file


def find_config(given: Path | None) -> Path | None:
    """The file to read: the one given, else the first of CONFIG_PLACES that exists.

    None: there is none, and defaults hold.
    """
    if given is not None:
        return given
    return next((place for place in CONFIG_PLACES if place.is_file()), None)


def default_data_dir(environment: Mapping[str, str]) -> Path:
    """Where data lies when neither `--data` nor `data_dir` says."""
    if environment.get("WAYPOST_DATA"):
        return Path(environment["WAYPOST_DATA"])
    if os.geteuid() == 0:
        return Path("/var/lib/waypost")
    share = environment.get("XDG_DATA_HOME")
    return (Path(share) if share else Path.home() / ".local" / "share") / "waypost"


def load_settings(
    config: Path | None, data: Path | None, environment: Mapping[str, str]
) -> Settings:
    """Read file and environment. Raises ConfigError with every fault found."""
    faults: list[ConfigFault] = []
    tree: dict[str, Any] = {}
    lines: dict[KeyPath, int] = {}
    source = "defaults" if config is None else str(config)
    if config is not None:
        try:
            text = config.read_text("utf-8")
            tree = tomllib.loads(text)
            lines = line_numbers(text)
        except OSError as error:
            raise ConfigError(
                [ConfigFault(source, None, "", f"cannot be read: {error.strerror}")]
            ) from error
        except UnicodeDecodeError as error:
            raise ConfigError([ConfigFault(source, None, "", "is not UTF-8")]) from error
        except tomllib.TOMLDecodeError as error:
            raise ConfigError([ConfigFault(source, None, "", f"is not TOML: {error}")]) from error
    reader = _Reader(source, lines, faults)
    values = reader.read(tree)
    _apply_environment(values, environment, faults)
    reader.cross_check(values)
    if faults:
        raise ConfigError(faults)
    return _compose(values, config, data, environment)


class _Reader:
    """Reads a TOML tree by the schema, noting every fault."""

    def __init__(self, source: str, lines: dict[KeyPath, int], faults: list[ConfigFault]) -> None:
        self._source = source
        self._lines = lines
        self._faults = faults

    def read(self, tree: dict[str, Any]) -> Values:
        top = next(section for section in SECTIONS if not section.name)
        sections = {section.name: section for section in SECTIONS if section.name}
        values: Values = {
            name: [] for name, section in sections.items() if section.is_array or section.is_named
        }
        scalars = {key: value for key, value in tree.items() if key not in sections}
        values[""] = self._table(top, scalars, ())
        for name, section in sections.items():
            content = tree.get(name, [] if section.is_array else {})
            if section.is_array:
                if not isinstance(content, list):
                    self._fault((name,), f"expected [[{name}]], a list of tables")
                    continue
                values[name] = [
                    self._table(section, entry, (name, index))
                    for index, entry in enumerate(content)
                ]
            elif section.is_named:
                if not isinstance(content, dict):
                    self._fault((name,), f"expected [{name}.NAME]")
                    continue
                if name == "relay":
                    known = frozenset(key.name for key in section.keys)
                    content = {key: with_preset(entry, known) for key, entry in content.items()}
                values[name] = [
                    {"name": key, **self._table(section, entry, (name, key))}
                    for key, entry in content.items()
                ]
            elif isinstance(content, dict):
                values[name] = self._table(section, content, (name,))
            else:
                self._fault((name,), f"expected a table [{name}]")
                values[name] = self._table(section, {}, (name,))
        return values

    def _table(self, section: Section, content: Any, path: KeyPath) -> dict[str, Any]:
        if not isinstance(content, dict):
            self._fault(path, "expected a table")
            content = {}
        known = [key.name for key in section.keys]
        for name in content:
            if name not in known:
                names = ", ".join(known)
                if not section.name:
                    names += ", and the tables " + ", ".join(s.name for s in SECTIONS if s.name)
                self._fault((*path, name), f"unknown key; known here: {names}")
        return {key.name: self._value(key, content, path) for key in section.keys}

    def _value(self, key: Key, content: dict[str, Any], path: KeyPath) -> Any:
        if key.name not in content:
            if key.default is REQUIRED:
                self._fault(path, f"{key.name} is missing: expected {key.expected}")
                return None
            return key.default
        try:
            return key.read(content[key.name])
        except ValueError as error:
            self._fault((*path, key.name), str(error))
            return None if key.default is REQUIRED else key.default

    def _fault(self, path: KeyPath, problem: str) -> None:
        self._faults.append(ConfigFault(self._source, self._line(path), _dotted(path), problem))

    def _line(self, path: KeyPath) -> int | None:
        while path:
            if path in self._lines:
                return self._lines[path]
            path = path[:-1]
        return None

    def cross_check(self, values: Values) -> None:
        """Note faults that only show between keys; a value that is at fault itself is None."""
        for section in ("listener", "route", "mailbox"):
            names = [
                entry["name"] if section != "mailbox" or not entry["name"] else _id(entry)
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
        masked = _masked(networks)
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
                if any(parse_target(target).kind == "mqtt" for target in route["to"] or ()):
                    self._fault(("route", index, "to"), "an mqtt: target needs mqtt.url")
            return
        if mqtt["password"] and mqtt["password_file"]:
            self._fault(("mqtt",), "password or password_file, not both")
        elif (mqtt["password"] or mqtt["password_file"]) and not mqtt["username"]:
            self._fault(("mqtt",), "a password needs mqtt.username")
        if (mqtt["certificate"] is None) != (mqtt["key"] is None):
            self._fault(("mqtt",), "certificate and key go together")
        for key in ("ca", "certificate"):
            if mqtt[key] is not None and not mqtt["url"].is_secure:
                self._fault(("mqtt", key), "is for mqtts:// only")

    def _check_devices(self, devices: list[dict[str, Any]]) -> None:
        slugs: set[str] = set()
        addresses: set[IPAddress] = set()
        for index, device in enumerate(devices):
            if device["name"] is not None:
                name = slug(device["name"])
                if name in RESERVED:
                    self._fault(("device", index, "name"), f"{name!r} is the hub's own")
                elif name in slugs:
                    self._fault(("device", index, "name"), f"two devices would be {name!r}")
                slugs.add(name)
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
                if _scope(entry) in catch_alls:
                    self._fault((*path, "catch_all"), "another mailbox there takes the rest")
                catch_alls.add(_scope(entry))


def _defaults(section_name: str, key_name: str) -> tuple[Any, ...]:
    """What a key holds that nobody has given."""
    (section,) = (section for section in SECTIONS if section.name == section_name)
    return tuple(key.default for key in section.keys if key.name == key_name)


def _dotted(path: KeyPath) -> str:
    text = ""
    for part in path:
        text += f"[{part + 1}]" if isinstance(part, int) else f".{part}"
    return text.lstrip(".")


def _apply_environment(
    values: Values, environment: Mapping[str, str], faults: list[ConfigFault]
) -> None:
    """WAYPOST__SECTION__KEY=value overrides a key; the value is TOML, or else a plain text."""
    for name, text in sorted(environment.items()):
        if not name.startswith(ENVIRONMENT_PREFIX):
            continue
        parts = name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
        section_name, key_name = ("", parts[0]) if len(parts) == 1 else (parts[0], parts[-1])
        section = _section_with_one_table(section_name)
        key = section.key(key_name) if section is not None and len(parts) <= 2 else None
        if key is None:
            faults.append(ConfigFault(name, None, "", "no such key (lists of tables need a file)"))
            continue
        try:
            (value,) = tomllib.loads(f"value = {text}").values()
        except ValueError:  # no TOML, or more than a value
            value = text
        try:
            values[section_name][key.name] = key.read(value)
        except ValueError as error:
            faults.append(ConfigFault(name, None, "", str(error)))


def _section_with_one_table(name: str) -> Section | None:
    return next((s for s in SECTIONS if s.name == name and not (s.is_array or s.is_named)), None)


def _compose(
    values: Values, config: Path | None, data: Path | None, environment: Mapping[str, str]
) -> Settings:
    top, addresses, networks = values[""], values["addresses"], values["networks"]
    check = values["check"]
    if data is None:
        data = Path(top["data_dir"]) if top["data_dir"] else default_data_dir(environment)
    hostname: str | None = top["hostname"]
    rules = tuple(
        Rule(
            name=route["name"],
            targets=tuple(parse_target(target) for target in route["to"]),
            **route["match"],
            continues=route["continue"],
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
            _scope(entry),
            entry["owner"],
            entry["strangers_may_post"],
        )
        for entry in values["list"]
    )
    return Settings(
        data_dir=data.absolute(),
        hostname=hostname,
        follow_interfaces="auto" in addresses["own"],
        extra_own=extra_own,
        trusted=networks["trusted"],
        masked=_masked(networks),
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
        ),
        mailboxes=MailboxSettings(
            auto_create=mailboxes["auto_create"],
            root=mailboxes["root"],
            fold_case=mailboxes["case"] == "fold",
            subaddress=mailboxes["subaddress"],
            names=tuple(_id(mailbox) for mailbox in values["mailbox"]),
            aliases=tuple(
                (id_of(alias, _scope(mailbox)), _id(mailbox))
                for mailbox in values["mailbox"]
                for alias in mailbox["aliases"]
            ),
            catch_alls=tuple(
                (_scope(mailbox), _id(mailbox))
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
                _id(mailbox),
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
        ),
        mqtt=_mqtt(values["mqtt"]),
        devices=tuple(
            DeviceSettings(device["address"], device["name"], device["kind"])
            for device in values["device"]
        ),
        log_as_json=values["log"]["format"] == "json",
        source=config,
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


def _mqtt(mqtt: dict[str, Any]) -> MqttSettings | None:
    if mqtt["url"] is None:
        return None
    given = {key: value for key, value in mqtt.items() if not key.startswith("password")}
    return MqttSettings(**given, password=mqtt["password"] or mqtt["password_file"])


def _masked(networks: dict[str, Any]) -> frozenset[IPAddress]:
    return frozenset() if networks["trust_gateway"] else masking_gateways()


def _tokens(tokens: dict[str, Any]) -> TokenSettings | None:
    if tokens["introspection_url"] is None:
        return None
    secret = tokens["client_secret"] or tokens["client_secret_file"]
    return TokenSettings(tokens["introspection_url"], tokens["client_id"], secret, tokens["ca"])


def _scope(entry: dict[str, Any]) -> str:
    """Where a mailbox or list belongs."""
    return HUB if entry["domain"] is None else str(entry["domain"].ascii)


def _id(mailbox: dict[str, Any]) -> str:
    return id_of(mailbox["name"], _scope(mailbox))
