"""relay login, relay list, relay test: the hosts mail leaves by, and how the hub logs in there."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from waypost.app import loop_factory, make_gate, make_own_addresses, make_smtp
from waypost.cli.context import settings_of
from waypost.cli.output import (
    EXIT_LATER,
    EXIT_NO,
    EXIT_USAGE,
    EXIT_YES,
    complain,
    iso_time,
    local_time,
    paint,
    printable,
    say,
    say_json,
    table,
)
from waypost.cli.submission import draft, new_fields
from waypost.config.settings import Settings
from waypost.control import ask_hub
from waypost.delivery.credentials import Credentials
from waypost.delivery.smtp import SmtpTransport
from waypost.delivery.trial import Step, Trial
from waypost.errors import AddressError, HubUnreachable, TemporaryError
from waypost.mail.address import Address, Domain
from waypost.mail.composing import compose
from waypost.mail.envelope import Arrival, QueuedRecipient, Recipient
from waypost.mail.message import QueuedMessage
from waypost.oauth.endpoint import TokenEndpoint
from waypost.oauth.loopback import Loopback
from waypost.oauth.messages import Attempt, GrantRefused, Tokens
from waypost.oauth.settings import Grant, OAuthSettings
from waypost.oauth.store import Kept
from waypost.routing.hops import Relay
from waypost.routing.targets import Target
from waypost.smtp.auth import Secret

# A person may take so long with a browser.
PATIENCE_S = 900.0


def add_commands(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser
) -> None:
    """Add this module's verbs."""
    relay = verbs.add_parser("relay", help="smart hosts: log in, list, try")
    actions = relay.add_subparsers(dest="action", metavar="ACTION", required=True)
    login = actions.add_parser(
        "login", parents=[common], help="get a token for a relay, with your consent"
    )
    login.add_argument("name", metavar="NAME", help="of [relay.NAME]")
    way = login.add_mutually_exclusive_group()
    way.add_argument(
        "--paste", action="store_true", help="the browser is elsewhere: paste the URL it ends at"
    )
    way.add_argument("--device", action="store_true", help="type a code on another device")
    login.add_argument(
        "--port",
        type=_port,
        default=0,
        metavar="N",
        help="where the browser comes back to on this host (default: any free port)",
    )
    login.set_defaults(run=_login)
    listing = actions.add_parser("list", parents=[common], help="relays and the state of logins")
    listing.add_argument("--json", action="store_true", help="one JSON object for each relay")
    listing.set_defaults(run=_list)
    test = actions.add_parser(
        "test", parents=[common], help="try a relay step by step; sends nothing without --to"
    )
    test.add_argument("name", metavar="NAME", help="of [relay.NAME]")
    test.add_argument("--to", metavar="ADDR", help="send a test message there")
    test.add_argument("--json", action="store_true", help="one JSON object for each step")
    test.set_defaults(run=_test)


def _port(text: str) -> int:
    port = int(text)
    if not 0 < port < 65536:
        raise argparse.ArgumentTypeError("expected a port, 1 to 65535")
    return port


# login


def _login(parsed: argparse.Namespace) -> int:
    settings = settings_of(parsed)
    relay = _relay(settings, parsed.name)
    if relay is None:
        return EXIT_USAGE
    oauth = relay.oauth
    if oauth is None:
        complain(f'relay {relay.name} uses no tokens: that needs auth = "xoauth2", or a preset')
        return EXIT_USAGE
    wants_device = parsed.device or (oauth.grant is Grant.DEVICE and not parsed.paste)
    if wants_device and oauth.device_url is None:
        complain(f"relay {relay.name} has no device_url; leave --device out")
        return EXIT_USAGE
    if parsed.paste and oauth.authorization_url is None:
        complain(f"relay {relay.name} has no authorization_url; leave --paste out")
        return EXIT_USAGE
    try:
        # Before there is a loop: it would not let go of a terminal that is being read.
        pasted = _pasted(oauth, parsed.port) if parsed.paste else None
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(
                _get_tokens(
                    *(settings, relay, oauth, pasted),
                    port=parsed.port,
                    wants_device=wants_device,
                )
            )
    except GrantRefused as error:
        complain(f"the login was refused: {error}")
        return EXIT_NO
    say(f"relay {relay.name}: {relay.username} is logged in")
    try:
        ask_hub(settings.data_dir, "relay-login", relay=relay.name)
    except HubUnreachable:
        say("no hub is running; it will use the login when it is")
    return EXIT_YES


async def _get_tokens(
    settings: Settings,
    relay: Relay,
    oauth: OAuthSettings,
    pasted: tuple[Attempt, Secret] | None,
    *,
    port: int,
    wants_device: bool,
) -> None:
    credentials = _transport(settings).credentials
    endpoint = credentials.endpoint(oauth)
    if not oauth.grant.needs_login:
        tokens = await endpoint.renewed(None)
    elif wants_device:
        tokens = await _by_device(endpoint)
    elif pasted is not None:
        tokens = await endpoint.exchange(*pasted)
    else:
        tokens = await _by_browser(endpoint, port)
    file = credentials.file(relay, oauth)
    async with file.alone():
        await asyncio.to_thread(file.write, Kept(tokens))
    if oauth.grant.needs_login and tokens.refresh is None:
        complain(
            "the server gave no refresh token, so this login ends with its first token; see the"
            " scopes (Microsoft: offline_access)"
        )


async def _by_device(endpoint: TokenEndpoint) -> Tokens:
    code = await endpoint.device_code()
    say(f"On any device, open   {code.verification_url}")
    say(f"and enter the code    {paint(code.user_code, 'bold')}")
    if code.whole_url is not None:
        say(f"or open both at once  {code.whole_url}")
    say(f"Log in there as {endpoint.settings.account}. Waiting …")
    sys.stdout.flush()
    return await endpoint.device_tokens(code)


async def _by_browser(endpoint: TokenEndpoint, port: int) -> Tokens:
    loopback = Loopback(endpoint.settings.redirect_url, port)
    await loopback.start()
    try:
        attempt = Attempt.begin(loopback.url)
        say(f"Log in as {endpoint.settings.account}: open this in a browser on this host")
        say("(with a browser elsewhere, stop here and use --paste):")
        say(attempt.url(endpoint.settings))
        sys.stdout.flush()
        try:
            async with asyncio.timeout(PATIENCE_S):
                returned = await loopback.returned(attempt.state)
        except TimeoutError:
            raise GrantRefused("late", "no browser came back; begin again") from None
        return await endpoint.exchange(attempt, attempt.code_of(returned))
    finally:
        loopback.close()


def _pasted(oauth: OAuthSettings, port: int) -> tuple[Attempt, Secret]:
    """The code of a login somewhere else. Raises GrantRefused."""
    redirect = oauth.redirect_url
    if port:
        host, slash, path = redirect.removeprefix("http://").partition("/")
        redirect = f"http://{host}:{port}{slash}{path}"
    attempt = Attempt.begin(redirect)
    say(f"Log in as {oauth.account}: open this in a browser anywhere:")
    say(attempt.url(oauth))
    say("It ends at a page that cannot be shown. Paste the address of that page here:")
    sys.stdout.flush()
    return attempt, attempt.code_of(sys.stdin.readline())


# list


def _list(parsed: argparse.Namespace) -> int:
    settings = settings_of(parsed)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        rows = runner.run(_rows(settings))
    if parsed.json:
        for row in rows:
            say_json({**row, "expires_at": iso_time(row["expires_at"])})
        return EXIT_YES
    if not rows:
        say("no [relay.NAME] is configured")
        return EXIT_YES
    table(
        [
            [
                row["relay"],
                f"{', '.join(row['hosts'])}:{row['port']}",
                row["tls"],
                row["auth"] or "-",
                row["account"] or "-",
                _limits_in_words(row["limits"]),
                _state_in_words(row),
            ]
            for row in rows
        ],
        ["relay", "host", "tls", "auth", "account", "limits", "login"],
    )
    return EXIT_YES


async def _rows(settings: Settings) -> list[dict[str, Any]]:
    credentials = _transport(settings).credentials
    return [await _row(relay, credentials) for relay in settings.relays]


async def _row(relay: Relay, credentials: Credentials) -> dict[str, Any]:
    row: dict[str, Any] = {
        "relay": relay.name,
        "hosts": [str(host) for host in relay.hosts],
        "port": relay.port,
        "tls": relay.tls,
        "auth": None if relay.auth is None else relay.auth.value.lower(),
        "account": relay.username,
        "grant": None if relay.oauth is None else relay.oauth.grant.value,
        "login": "none" if relay.username is None else "password",
        "expires_at": None,
        "why": None,
        "alarm": None if relay.alarm is None else str(relay.alarm),
        "limits": asdict(relay.pace),
        "fallback": relay.fallback,
    }
    try:
        kept = await credentials.kept(relay)
    except TemporaryError as error:
        return {**row, "login": "unreadable", "why": str(error)}
    if kept is None:
        return row
    if kept.loss is not None:
        return {**row, "login": "lost", "why": kept.loss.why}
    if kept.tokens is None:
        needs_login = relay.oauth is not None and relay.oauth.grant.needs_login
        return {**row, "login": "missing" if needs_login else "not asked yet"}
    state = "token" if time.time() < kept.tokens.expires_at else "expired"
    return {**row, "login": state, "expires_at": kept.tokens.expires_at}


def _limits_in_words(limits: dict[str, int | None]) -> str:
    units = {"connections": "at once", "messages_per_minute": "/min", "messages_per_day": "/day"}
    given = [f"{limits[name]} {unit}" for name, unit in units.items() if limits[name] is not None]
    return ", ".join(given).replace(" /", "/") or "-"


def _state_in_words(row: dict[str, Any]) -> str:
    state, why = row["login"], row["why"]
    if state == "missing":
        return paint(f"none: waypost relay login {row['relay']}", "yellow")
    if why is not None:
        return paint(f"{state}: {printable(why)}", "red")
    if state == "token":
        return f"token until {local_time(row['expires_at'])}"
    if state == "expired":
        return "token is refreshed at the next use"
    return str(state)


# test


def _test(parsed: argparse.Namespace) -> int:
    settings = settings_of(parsed)
    relay = _relay(settings, parsed.name)
    if relay is None:
        return EXIT_USAGE
    try:
        message = None if parsed.to is None else _message(settings, relay, Address.parse(parsed.to))
    except AddressError as error:
        complain(f"--to {parsed.to}: {error}")
        return EXIT_USAGE

    def show(step: Step) -> None:
        if parsed.json:
            say_json({"step": step.name, "ok": step.is_ok, "what": step.what, "do": step.advice})
            return
        word = paint("ok    ", "green") if step.is_ok else paint("failed", "red")
        say(f"{word}  {step.name:<10}  {printable(step.what)}")
        if step.advice:
            say(f"                    {paint(step.advice, 'yellow')}")

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        last = runner.run(_try(settings, relay, message, show))
    if last.is_ok:
        return EXIT_YES
    return EXIT_LATER if last.may_pass else EXIT_NO


async def _try(
    settings: Settings, relay: Relay, message: QueuedMessage | None, show: Callable[[Step], None]
) -> Step:
    transport = _transport(settings)
    trial = Trial(
        relay,
        gate=make_gate(settings, make_own_addresses(settings)),
        resolver=transport.resolver,
        demands=transport.demands,
        securing=transport.securing,
        helo=lambda ip: transport.settings.groups.name_of(ip, settings.hostname),
    )
    last: Step | None = None
    async for step in trial.steps(message):
        show(step)
        last = step
    await transport.credentials.close()
    assert last is not None  # there is a first step
    return last


def _message(settings: Settings, relay: Relay, to: Address) -> QueuedMessage:
    """A test message, from the account where it is an address."""
    try:
        sender: Address | None = Address.parse(relay.username or "")
    except AddressError:
        sender = None
    author = sender or Address("postmaster", Domain(settings.hostname or "localhost"))
    content = compose(
        sender=author,
        to=[to],
        subject=f"Test of relay {relay.name}",
        text=f"This message was sent by: waypost relay test {relay.name}\n",
        fields=new_fields(sender),
    )
    arrival = Arrival("local", None, None, "", "command line", trusted=True)
    target = str(Target("relay", relay.name))
    queued = [QueuedRecipient(0, Recipient(to), target, "command line")]
    return draft(arrival, sender, queued, content)


def _relay(settings: Settings, name: str) -> Relay | None:
    """The relay of that name; None: there is none, and it was said."""
    found = next((relay for relay in settings.relays if relay.name == name), None)
    if found is None:
        known = ", ".join(relay.name for relay in settings.relays) or "none"
        complain(f"there is no [relay.{name}]; configured: {known}")
    return found


def _transport(settings: Settings) -> SmtpTransport:
    own = make_own_addresses(settings)
    return make_smtp(settings, own, make_gate(settings, own))
