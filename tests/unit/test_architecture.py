"""Rules of the house that can be read off the source: who does I/O, connects, prints."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import waypost

SOURCE = Path(waypost.__file__).parent
MODULES = sorted(SOURCE.rglob("*.py"))

# Engines and values: no I/O, no clock, no randomness.
PURE = ["mail", "smtp", "queue/retry.py", "routing/table.py"]
FORBIDDEN_IN_PURE = {"asyncio", "socket", "ssl", "time", "random", "os", "threading", "logging"}

# Who opens outgoing connections: the gate, and these, each with the reason it may.
MAY_CONNECT = {
    ("net/gate.py", "sock_connect"): "the gate itself",
    (
        "net/interfaces.py",
        "connect",
    ): "a UDP socket asks the kernel for our address; no packet is sent",
    ("control.py", "connect"): "the hub's own Unix socket",
}
GOES_THROUGH_THE_GATE = {
    "check/probe.py",
    "delivery/smtp.py",
    "delivery/trial.py",
    "http/client.py",
    "mqtt/broker.py",
}  # with gate.connect()
# dnspython opens its own sockets, to the servers the operator named; nobody else may use it.
MAY_IMPORT_DNSPYTHON = {"dns/caching.py"}
# paho opens sockets of its own, unless it is given none to open: mqtt/session does.
MAY_IMPORT_PAHO = {"mqtt/session.py"}
# Apprise connects by itself, to where URLs of the operator lead; so nobody else may load it, and
# the hub's own process never does: docs/decisions/0022-webhooks-and-notifications.md.
MAY_IMPORT_APPRISE = {"delivery/notifier_worker.py"}
CONNECTING = {
    "connect",
    "connect_ex",
    "sock_connect",
    "create_connection",
    "open_connection",
    "create_datagram_endpoint",
    "open_unix_connection",
    "create_unix_connection",
}
# Ready-made clients would connect past the gate, or read a peer's text too kindly.
FORBIDDEN_CLIENTS = {
    "aiohttp",
    "aiosmtplib",
    "ftplib",
    "http.client",
    "httpx",
    "imaplib",
    "poplib",
    "requests",
    "smtplib",
    "urllib.request",
}


def name_of(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Every absolute module a file imports, at any depth, and its line."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module, node.lineno
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def calls(path: Path) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call))


def called(call: ast.Call) -> tuple[str, str]:
    """What a call is made on, and its name: ("sqlite3", "connect")."""
    function = call.func
    if isinstance(function, ast.Name):
        return "", function.id
    if isinstance(function, ast.Attribute):
        return ast.unparse(function.value), function.attr
    return "", ""


def pure_modules() -> list[Path]:
    found: list[Path] = []
    for place in PURE:
        path = SOURCE / place
        assert path.exists(), f"{place} is gone: the rule would hold for nothing"
        found += sorted(path.rglob("*.py")) if path.is_dir() else [path]
    return found


@pytest.mark.parametrize("path", pure_modules(), ids=name_of)
def test_engines_and_values_know_no_io_no_clock_and_no_chance(path: Path) -> None:
    found = [
        (module, line)
        for module, line in imports(path)
        if module.partition(".")[0] in FORBIDDEN_IN_PURE
    ]
    assert not found


@pytest.mark.parametrize("path", pure_modules(), ids=name_of)
def test_engines_and_values_open_no_files(path: Path) -> None:
    assert not [call.lineno for call in calls(path) if called(call) == ("", "open")]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_the_gate_opens_outgoing_connections(path: Path) -> None:
    found = []
    for call in calls(path):
        receiver, name = called(call)
        if name not in CONNECTING or (name_of(path), name) in MAY_CONNECT:
            continue
        if receiver == "sqlite3":
            continue  # a file
        if (receiver, name) == ("", "connect") and name_of(path) in GOES_THROUGH_THE_GATE:
            # The gate's own function, by its name.
            assert ("waypost.net.gate.connect") in {module for module, _ in imports(path)}
            continue
        keywords = {keyword.arg for keyword in call.keywords}
        if name in ("create_connection", "open_connection") and "sock" in keywords:
            # Something around a socket that is connected already: no host, no port.
            assert len(call.args) == (name == "create_connection")
            continue
        found.append((call.lineno, f"{receiver}.{name}"))
    assert not found


def test_the_exceptions_are_still_needed() -> None:
    for module, name in MAY_CONNECT:
        assert any(called(call)[1] == name for call in calls(SOURCE / module)), (module, name)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_ready_made_client_is_used(path: Path) -> None:
    found = [
        (module, line)
        for module, line in imports(path)
        if any(module == client or module.startswith(f"{client}.") for client in FORBIDDEN_CLIENTS)
    ]
    assert not found


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_the_command_line_speaks_and_through_one_module(path: Path) -> None:
    if name_of(path) == "cli/output.py":
        return
    assert not [call.lineno for call in calls(path) if called(call) == ("", "print")]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_says_what_it_owns(path: Path) -> None:
    assert ast.get_docstring(tree_of(path))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_the_resolver_uses_dnspython(path: Path) -> None:
    uses = [line for module, line in imports(path) if module.partition(".")[0] == "dns"]
    assert bool(uses) == (name_of(path) in MAY_IMPORT_DNSPYTHON)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_the_session_uses_paho(path: Path) -> None:
    uses = [line for module, line in imports(path) if module.partition(".")[0] == "paho"]
    assert bool(uses) == (name_of(path) in MAY_IMPORT_PAHO)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_the_process_that_notifies_uses_apprise(path: Path) -> None:
    """The one exception to the gate stays in a process of its own, which nobody imports."""
    used = {module for module, _ in imports(path)}
    uses = any(module.partition(".")[0] == "apprise" for module in used)
    assert uses == (name_of(path) in MAY_IMPORT_APPRISE)
    assert not any(module.startswith("waypost.delivery.notifier_worker") for module in used)
