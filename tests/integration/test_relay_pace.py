"""Relays with limits, relays that ask to wait, and the relay that mail goes by meanwhile."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.support.hub import Hub
from tests.support.mail import fields_of, message, submit
from tests.support.ports import free_port
from tests.support.scripted_peer import ScriptedPeer
from tests.support.toml import retry, route
from tests.support.waiting import wait_until

from .conftest import StartHub, StartPeer


def relay(name: str, port: int, *more: str) -> str:
    keys = "".join(f"{line}\n" for line in more)
    return f'[relay.{name}]\nhost = "127.0.0.1"\nport = {port}\ntls = "none"\n{keys}'


FAR = route("relay:far", match='recipient = "*@far.example"')


def send(hub: Hub, *subjects: str) -> list[str]:
    with hub.smtp() as smtp:
        return [submit(smtp, "ann@far.example", content=message(one)) for one in subjects]


def subjects(peer: ScriptedPeer) -> list[str]:
    return [fields_of(mail.content, "Subject")[0] for mail in peer.mails]


def waiting(hub: Hub) -> dict[str, dict[str, Any]]:
    """What waits in the queue, by queue id."""
    return {entry["id"]: entry["recipients"][0] for entry in hub.json("queue", "list")}


def test_what_is_above_the_limit_waits_and_has_not_failed(
    start_hub: StartHub, start_peer: StartPeer
) -> None:
    peer = start_peer()
    hub = start_hub(FAR + relay("far", peer.port, "messages_per_minute = 3", "connections = 1"))
    ids = send(hub, "one", "two", "three", "four", "five")
    peer.wait_for_mails(3)
    for queue_id in ids[3:]:
        hub.wait_for_log(f"put-off id={queue_id}")
    assert subjects(peer) == ["one", "two", "three"]
    left = waiting(hub)
    assert sorted(left) == sorted(ids[3:])
    assert {entry["attempts"] for entry in left.values()} == {0}
    assert "limits are reached" in str(left)
    # In turn: the one that came later comes back later.
    times = [left[queue_id]["next_attempt_at"] for queue_id in ids[3:]]
    assert times == sorted(times)
    assert times[0] != times[1]
    # Mail for others is not held up.
    with hub.smtp() as smtp:
        submit(smtp, "bob@[127.0.0.1]")
    hub.wait_for_mail("bob")
    assert len(peer.mails) == 3


def test_a_day_goes_on_after_a_restart(start_hub: StartHub, start_peer: StartPeer) -> None:
    peer = start_peer()
    hub = start_hub(FAR + relay("far", peer.port, "messages_per_day = 2"))
    send(hub, "one")
    peer.wait_for_mails(1)
    hub.stop()
    counts = json.loads((hub.data / "relays.json").read_bytes())
    assert list(counts["far"].values()) == [1]
    assert (hub.data / "relays.json").stat().st_mode & 0o777 == 0o600
    hub.start()
    ids = send(hub, "two", "three")
    hub.wait_for_log(f"put-off id={ids[1]}")
    peer.wait_for_mails(2)
    assert subjects(peer) == ["one", "two"]


def test_counts_that_cannot_be_read_begin_anew(start_hub: StartHub, start_peer: StartPeer) -> None:
    peer = start_peer()
    hub = start_hub(FAR + relay("far", peer.port, "messages_per_day = 2"))
    hub.stop()
    (hub.data / "relays.json").write_text('{"far": 3}')
    hub.start()
    hub.wait_for_log("counts-lost")
    send(hub, "one")
    peer.wait_for_mails(1)


def test_a_relay_that_asks_to_wait_is_left_alone(
    start_hub: StartHub, start_peer: StartPeer
) -> None:
    peer = start_peer()
    peer.answer_once("MAIL", "421 4.7.0 Try again later")
    hub = start_hub(FAR + relay("far", peer.port) + retry(6))
    (first,) = send(hub, "one")
    hub.wait_for_log("relay-waits relay=far seconds=6.0")
    (second,) = send(hub, "two")
    hub.wait_for_log(f"put-off id={second}")
    assert sum(command.startswith("MAIL") for command in peer.commands) == 1
    assert waiting(hub)[second]["attempts"] == 0
    peer.wait_for_mails(2)
    hub.wait_for_log("outcome=relayed")
    log = hub.log_text()
    assert log.index(f"put-off id={second}") < log.index("outcome=relayed")
    assert "outcome=failed" not in log
    assert log.count("relay-waits") == 1
    assert re.search(f"attempt id={first} .*outcome=deferred", log)


def test_a_daily_limit_bounces_nothing(start_hub: StartHub, start_peer: StartPeer) -> None:
    peer = start_peer()
    peer.answer_once("MAIL", "550 5.4.5 Daily user sending limit exceeded.")
    hub = start_hub(FAR + relay("far", peer.port) + retry(0.5, max_s=1))
    (queue_id,) = send(hub, "one")
    peer.wait_for_mails(1)
    log = hub.log_text()
    assert "relay-waits relay=far seconds=1.0" in log
    assert "outcome=failed" not in log
    assert f"attempt id={queue_id}" in log


def test_one_recipient_of_several_is_refused_for_good(
    start_hub: StartHub, start_peer: StartPeer
) -> None:
    peer = start_peer()
    peer.answer_once("RCPT TO:<bob@", "550 5.4.5 Daily limit")
    peer.answer("RCPT TO:<eve@", "550 5.1.1 No such user")
    hub = start_hub(FAR + relay("far", peer.port) + retry(0.5, max_s=1))
    with hub.smtp() as smtp:
        submit(smtp, "ann@far.example", "bob@far.example", "eve@far.example")
    mails = peer.wait_for_mails(2)
    assert [mail.paths for mail in mails] == [["ann@far.example"], ["bob@far.example"]]
    assert hub.log_text().count("outcome=failed") == 1


def test_an_operator_need_not_wait(start_hub: StartHub, start_peer: StartPeer) -> None:
    peer = start_peer()
    peer.answer_once("MAIL", "421 4.7.0 Try again later")
    hub = start_hub(FAR + relay("far", peer.port) + retry(60, give_up_after_s=600))
    send(hub, "one")
    hub.wait_for_log("relay-waits")
    wait_until(lambda: bool(waiting(hub)), hub.log_text)
    hub.run("queue", "retry", "--all")
    peer.wait_for_mails(1)


def test_connections_are_counted(start_hub: StartHub, start_peer: StartPeer) -> None:
    peer = start_peer()
    pauses = [peer.pause_at("DATA") for _ in range(2)]
    hub = start_hub(FAR + relay("far", peer.port, "connections = 2"))
    send(hub, *map(str, range(8)))
    for pause in pauses:
        pause.wait_until_reached()
    assert peer.connections == 2
    for pause in pauses:
        pause.go_on()
    peer.wait_for_mails(8)
    assert peer.connections == 2


def test_by_another_relay_when_one_is_away(start_hub: StartHub, start_peer: StartPeer) -> None:
    peer = start_peer()
    hub = start_hub(
        FAR
        + relay("far", free_port("127.0.0.1"), 'fallback = "between"')
        + relay("between", free_port("127.0.0.1"), 'fallback = "last"')
        + relay("last", peer.port, 'rewrite_from = "me@last.example"')
    )
    ids = send(hub, "one", "two")
    mails = peer.wait_for_mails(2)
    assert {mail.sender.split()[0] for mail in mails} == {"FROM:<me@last.example>"}
    for queue_id in ids:
        hub.wait_for_log(
            f"attempt id={queue_id} to=ann@far.example target=relay:far outcome=relayed"
        )
    log = hub.log_text()
    assert log.count("via=relay:last") == 2
    assert "outcome=deferred" not in log


def test_by_another_relay_when_one_has_had_enough_for_today(
    start_hub: StartHub, start_peer: StartPeer
) -> None:
    far, other = start_peer(), start_peer()
    far.answer("MAIL", "550 5.4.5 Daily user sending limit exceeded.")
    hub = start_hub(FAR + relay("far", far.port, 'fallback = "other"') + relay("other", other.port))
    send(hub, "one")
    other.wait_for_mails(1)
    send(hub, "two")
    other.wait_for_mails(2)
    assert sum(command.startswith("MAIL") for command in far.commands) == 1


def test_nothing_is_sent_twice(start_hub: StartHub, start_peer: StartPeer) -> None:
    """A relay that breaks off after the content may have the message: no other gets it."""
    far, other = start_peer(), start_peer()
    far.answer_once("CONTENT", "DROP")
    hub = start_hub(
        FAR + relay("far", far.port, 'fallback = "other"') + relay("other", other.port) + retry(0.5)
    )
    send(hub, "one")
    wait_until(lambda: "outcome=relayed" in hub.log_text(), hub.log_text)
    assert other.mails == []
    assert len(far.mails) >= 1


def test_faults_of_fallbacks(start_hub: StartHub) -> None:
    hub = start_hub()
    hub.config_file.write_text(
        relay("a", 25, 'fallback = "b"')
        + relay("b", 25, 'fallback = "a"')
        + relay("c", 25, 'fallback = "nobody"')
    )
    done = hub.run("config", "check")
    assert done.returncode == 2
    said = (done.stdout + done.stderr).decode()
    assert "relay.a.fallback: mail would go round" in said
    assert "relay.c.fallback: there is no [relay.nobody]" in said
