"""Configuration as its writer meets it: faults with their place, overrides, and reloading."""

from __future__ import annotations

import json
import signal
import smtplib
import socket
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.support.hub import Hub
from tests.support.mail import accepted, reply_to, submit
from tests.support.ports import free_port
from tests.support.scripted_peer import ScriptedPeer
from tests.support.toml import retry, route
from tests.support.waiting import wait_until

from .conftest import StartHub

FAULTY = """\
data_dir = "DATA"
hostnme = "hub.lan"

[networks]
trusted = ["loopback", "privat"]
accept_from_strangers = "yes"

[[listener]]
name = "smtp"
bind = ["127.0.0.1"]

[[listener]]
bind = ["127.0.0.1:2525"]
role = "smtp"

[retry]
first_s = 0

[[route]]
name = "r"
match = { recipint = "cam*@*" }
to = ["mailbox:alerts",
      "smtp:a_b.example:25"]
"""

# Line, key, and a word of what was expected.
FAULTS = [
    (2, "hostnme", "hostname"),
    (5, "networks.trusted", "'privat'"),
    (6, "networks.accept_from_strangers", "true or false"),
    (10, "listener[1].bind", "address:port"),
    (12, "listener[2]", "name is missing"),
    (14, "listener[2].role", "submission"),
    (17, "retry.first_s", "above 0"),
    (21, "route[1].match", "recipint"),
    (22, "route[1].to", "is no host"),
]


@pytest.fixture
def faulty(tmp_path: Path) -> Hub:
    """A hub whose configuration has nine faults; not started."""
    hub = Hub(tmp_path / "faulty")
    hub.config_file.write_text(FAULTY.replace("DATA", str(hub.data)))
    return hub


@pytest.mark.parametrize(
    "command", [("serve",), ("config", "check"), ("queue", "list"), ("reload",)]
)
def test_all_faults_are_told_at_once(faulty: Hub, command: tuple[str, ...]) -> None:
    done = faulty.run(*command)
    assert done.returncode == 2
    lines = done.stderr.decode().splitlines()
    assert len(lines) == len(FAULTS)
    for line, key, expected in FAULTS:
        start = f"waypost: {faulty.config_file}:{line}: {key}: "
        (found,) = [said for said in lines if said.startswith(start)]
        assert expected in found
    assert not faulty.data.exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[networks\n", "is not TOML"),
        ("a = 1\na = 2\n", "is not TOML"),
        (
            '[[route]]\nname = "x"\nto = ["discard"]\n[[route]]\nname = "x"\nto = ["discard"]\n',
            "twice",
        ),
        (
            '[[route]]\nname = "x"\nmatch = { listener = "y" }\nto = ["discard"]\n',
            "no listener 'y'",
        ),
        ("[retry]\nfirst_s = 60\ngive_up_after_s = 5\n", "gives up before"),
        ('[[listener]]\nname = "x"\nbind = ["/tmp/x.sock"]\n', "lmtp"),
        ('[[mailbox]]\nname = "x"\npasword = "y"\n', "unknown key"),
        ("listener = 5\n", "[[listener]]"),
        ("networks = 5\n", "[networks]"),
    ],
)
def test_other_faults(tmp_path: Path, text: str, words: str) -> None:
    hub = Hub(tmp_path / "hub")
    hub.config_file.write_text(text)
    done = hub.run("config", "check")
    assert done.returncode == 2
    assert words in done.stderr.decode()
    assert str(hub.config_file) in done.stderr.decode()
    assert b"Traceback" not in done.stderr


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    hub = Hub(tmp_path / "hub")
    hub.config_file.unlink()
    done = hub.run("serve")
    assert done.returncode == 2
    assert b"cannot be read: No such file" in done.stderr


def test_the_environment_wins_and_its_faults_are_told(tmp_path: Path) -> None:
    hub = Hub(tmp_path / "hub", environment={"WAYPOST__RETRY__FIRST_S": "7"})
    assert hub.json("config", "show")[0]["retry"]["first_s"] == 7
    wrong = {"WAYPOST__RETRY__FIRST_S": "soon", "WAYPOST__RETRY__FRIST_S": "7"}
    done = Hub(tmp_path / "wrong", environment=wrong).run("config", "check")
    assert done.returncode == 2
    first, second = done.stderr.decode().splitlines()
    assert first.startswith("waypost: WAYPOST__RETRY__FIRST_S: ")
    assert second.startswith("waypost: WAYPOST__RETRY__FRIST_S: ")


def test_config_init_makes_a_file_that_is_right(tmp_path: Path) -> None:
    hub = Hub(tmp_path / "hub")
    hub.config_file.unlink()
    init = hub.command("config", "init", str(hub.config_file))
    assert subprocess.run(init, capture_output=True, check=False).returncode == 0
    assert tomllib.loads(hub.config_file.read_text())
    assert hub.run("config", "check").returncode == 0
    assert hub.json("config", "check")[0]["ok"] is True
    # What is there is left alone.
    assert subprocess.run(init, capture_output=True, check=False).returncode == 1


def test_a_hub_starts_with_an_environment_only(tmp_path: Path, start_hub: StartHub) -> None:
    hub = start_hub(environment={"WAYPOST__LIMITS__RECIPIENTS": "3"})
    with hub.smtp(local_hostname="x") as smtp:
        assert b"LIMITS RCPTMAX=3" in smtp.ehlo()[1]


# Reloading.


@pytest.mark.parametrize("by_command", [True, False])
def test_a_reload_brings_a_new_route(
    start_hub: StartHub, peer: ScriptedPeer, by_command: bool
) -> None:
    hub = start_hub()
    with hub.smtp(local_hostname="x") as smtp:
        submit(smtp, "ann@[127.0.0.1]")
        add(hub, route(peer.target, match='recipient = "*@far.example"') + retry(5))
        reload(hub, by_command)
        # Open sessions go on, by the new rules.
        submit(smtp, "bob@far.example", "ann@[127.0.0.1]")
    assert peer.wait_for_mails()[0].paths == ["bob@far.example"]
    hub.wait_for_mail("ann", 2)


def add(hub: Hub, text: str) -> None:
    hub.config_file.write_text(hub.config_file.read_text() + text)


def reload(hub: Hub, by_command: bool = True) -> None:
    before = hub.log_text().count(" reloaded ")
    if by_command:
        done = hub.run("reload")
        assert done.returncode == 0, done.stderr
    else:
        hub.send_signal(signal.SIGHUP)
    wait_until(lambda: hub.log_text().count(" reloaded ") > before, hub.log_text)


def test_a_bad_file_keeps_the_old_one(start_hub: StartHub) -> None:
    hub = start_hub(route("mailbox:kept", match='recipient = "cam*@*"'))
    good = hub.config_file.read_text()
    hub.config_file.write_text(good + "[networks]\ntrusted = 5\n[retry]\nfirst_s = 0\n")
    hub.send_signal(signal.SIGHUP)
    wait_until(lambda: hub.log_text().count(" reload-refused ") == 2, hub.log_text)
    line = good.count("\n") + 2
    assert f":{line}: networks.trusted: " in hub.log_text()
    assert f":{line + 2}: retry.first_s: " in hub.log_text()
    done = hub.run("reload")
    assert done.returncode == 2
    assert done.stderr.decode().count("waypost: ") == 2
    hub.config_file.unlink()
    hub.send_signal(signal.SIGHUP)
    wait_until(lambda: hub.log_text().count(" reload-refused ") == 3, hub.log_text)
    assert " reloaded " not in hub.log_text()
    with hub.smtp(local_hostname="x") as smtp:
        submit(smtp, "cam7@[127.0.0.1]")
    hub.wait_for_mail("kept")


def test_a_reload_cannot_move_the_data(start_hub: StartHub, tmp_path: Path) -> None:
    hub = start_hub()
    text = hub.config_file.read_text().replace(str(hub.data), str(tmp_path / "elsewhere"))
    hub.config_file.write_text(text)
    hub.send_signal(signal.SIGHUP)
    hub.wait_for_log("cannot change while the hub runs")
    assert " reload-refused " in hub.log_text()
    assert not (tmp_path / "elsewhere").exists()


def test_a_reload_opens_and_closes_listeners(start_hub: StartHub) -> None:
    hub = start_hub()
    first, second = hub.port, free_port()
    one = hub.config_file.read_text()
    other = one.replace('name = "smtp"', 'name = "new"').replace(f":{first}", f":{second}")
    open_session = hub.smtp(local_hostname="x")
    hub.config_file.write_text(other)
    reload(hub)
    # Who is idle is told to come back; who comes finds the new place, and only that.
    assert open_session.getreply()[0] == 421
    open_session.close()
    with smtplib.SMTP("127.0.0.1", second, local_hostname="x") as smtp:
        submit(smtp, "ann@[127.0.0.1]")
    wait_until(lambda: refuses(first))
    hub.wait_for_mail("ann")


def refuses(port: int) -> bool:
    try:
        smtplib.SMTP("127.0.0.1", port, timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_listener_that_cannot_open_is_told(start_hub: StartHub) -> None:
    hub = start_hub()
    free = free_port()
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        binds = f'"127.0.0.1:{free}", "127.0.0.1:{taken}"'
        add(hub, f'[[listener]]\nname = "more"\nbind = [{binds}]\n' + route("discard"))
        done = hub.run("reload")
    assert done.returncode == 1
    assert f"cannot bind 127.0.0.1:{taken}".encode() in done.stderr
    assert refuses(free)
    # The rest holds, and the next time all of it.
    assert hub.run("reload").returncode == 0
    with smtplib.SMTP("127.0.0.1", free, local_hostname="x") as smtp:
        submit(smtp, "bob@far.example")
    hub.wait_for_log("target=discard")


def test_a_reload_changes_a_listener_where_it_is(start_hub: StartHub) -> None:
    hub = start_hub()
    add(hub, 'networks = ["192.0.2.0/24"]\n')
    reload(hub)
    with pytest.raises(smtplib.SMTPConnectError):
        hub.smtp()


def test_a_reload_changes_trust_limits_and_names(start_hub: StartHub) -> None:
    hub = start_hub()
    text = hub.config_file.read_text()
    hub.config_file.write_text(
        text.replace("[[listener]]", 'hostname = "hub.lan"\n[[listener]]', 1)
        + '[networks]\ntrusted = ["192.0.2.0/24"]\n[limits]\nmessage_bytes = 1234\n'
    )
    reload(hub)
    with hub.smtp(local_hostname="x") as smtp:
        said = smtp.ehlo()[1].decode().splitlines()
        assert said[0] == "hub.lan"
        assert "SIZE 1234" in said
        accepted(smtp, "MAIL FROM:<>")
        assert reply_to(smtp, "RCPT TO:<ann@hub.lan>").startswith("550 5.7.1")


def test_a_mailbox_made_by_mail_is_known_after_a_reload(start_hub: StartHub) -> None:
    hub = start_hub()
    with hub.smtp(local_hostname="x") as smtp:
        submit(smtp, "made@[127.0.0.1]")
        hub.wait_for_mail("made")
        add(hub, "[mailboxes]\nauto_create = false\n")
        reload(hub)
        submit(smtp, "made@[127.0.0.1]")
        hub.wait_for_mail("made", 2)
        accepted(smtp, "MAIL FROM:<>")
        assert reply_to(smtp, "RCPT TO:<other@[127.0.0.1]>").startswith("550 5.1.1")


def test_reload_without_a_hub_says_so(tmp_path: Path) -> None:
    done = Hub(tmp_path / "hub").run("reload")
    assert done.returncode == 75
    assert b"no hub is running" in done.stderr


def test_the_log_as_json(start_hub: StartHub) -> None:
    hub = start_hub('[log]\nformat = "json"\n')
    with hub.smtp(local_hostname="x") as smtp:
        queue_id = submit(smtp, "ann@[127.0.0.1]")
    hub.wait_for_log('"event": "attempt"')
    events = {entry["event"]: entry for entry in map(json.loads, hub.log_text().splitlines())}
    assert {"listening", "ready", "received", "attempt"} <= set(events)
    assert events["received"]["id"] == events["attempt"]["id"] == queue_id
    assert events["received"]["client"] == "127.0.0.1"
