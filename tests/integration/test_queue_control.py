"""`waypost queue`: an operator sees and steers mail that waits, with a hub running and without."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import Any

import pytest

from tests.support.hub import Hub
from tests.support.mail import message, submit
from tests.support.scripted_peer import ScriptedPeer
from tests.support.toml import retry, route
from tests.support.waiting import wait_until

from .conftest import StartHub

FAR = 'recipient = "*@far.example"'
LATER = "451 4.3.0 Not now"


@pytest.fixture
def hub(start_hub: StartHub, peer: ScriptedPeer) -> Hub:
    """A hub whose next host says "not now"; by itself it would come back in an hour."""
    peer.answer("MAIL", LATER)
    return start_hub(retry(3600, max_s=3600, give_up_after_s=9999) + route(peer.target, match=FAR))


def send(hub: Hub, *recipients: str, content: bytes | None = None) -> str:
    with hub.smtp(local_hostname="x") as smtp:
        return submit(smtp, *(recipients or ("bob@far.example",)), content=content)


def send_deferred(hub: Hub, content: bytes | None = None) -> str:
    """Hand over a message and wait for its first attempt to be put off; its queue id."""
    queue_id = send(hub, content=content)
    wait_until(lambda: settled(hub, queue_id), hub.log_text)
    return queue_id


def settled(hub: Hub, queue_id: str) -> bool:
    return f" attempt id={queue_id} " in hub.log_text()


def shown(hub: Hub, queue_id: str) -> dict[str, Any]:
    (entry,) = hub.json("queue", "show", queue_id)
    return entry


def status_of(hub: Hub, queue_id: str) -> str:
    return str(shown(hub, queue_id)["recipients"][0]["status"])


def act(hub: Hub, action: str, *ids: str, status: int = 0) -> int:
    """An action; how many recipients it changed."""
    done = hub.run("queue", action, *ids, "--json")
    assert done.returncode == status, done.stderr
    told = json.loads(done.stdout)
    assert told["action"] == action
    return int(told["recipients"])


def test_list_and_show(hub: Hub) -> None:
    first, second = send_deferred(hub), send_deferred(hub)
    entries = hub.json("queue", "list")
    assert [entry["id"] for entry in entries] == [second, first]
    assert hub.json("queue", "list", "--limit", "1") == entries[:1]
    (recipient,) = shown(hub, first)["recipients"]
    assert recipient["address"] == "bob@far.example"
    assert recipient["status"] == "waiting"
    assert recipient["attempts"] == 1
    assert recipient["last_reply"] == LATER
    assert recipient["next_attempt_at"]
    text = hub.run("queue", "list").stdout.decode()
    for word in (first, second, "bob@far.example", "waiting", LATER):
        assert word in text
    text = hub.run("queue", "show", first).stdout.decode()
    assert LATER in text
    assert "now waiting, next attempt" in text


def test_an_empty_queue(hub: Hub) -> None:
    assert hub.run("queue", "list").stdout == b"The queue is empty.\n"
    assert hub.json("queue", "list") == []


def test_retry(hub: Hub, peer: ScriptedPeer) -> None:
    first, second = send_deferred(hub), send_deferred(hub)
    peer.answer("MAIL", "250 2.1.0 Ok")
    assert act(hub, "retry", first) == 1
    assert len(peer.wait_for_mails(1)) == 1
    assert status_of(hub, second) == "waiting"
    assert act(hub, "retry", "--all") == 1
    peer.wait_for_mails(2)
    wait_until(lambda: hub.json("queue", "list") == [])
    assert [step["outcome"] for step in shown(hub, first)["recipients"][0]["story"]] == [
        "deferred",
        "retried",
    ]


def test_retry_does_not_wait_for_a_host_that_was_down(hub: Hub, peer: ScriptedPeer) -> None:
    peer.stop()
    queue_id = send_deferred(hub)
    peer.answer("MAIL", "250 2.1.0 Ok")
    peer.start()
    assert act(hub, "retry", queue_id) == 1
    assert len(peer.wait_for_mails(1)) == 1


def test_hold_and_release(hub: Hub, peer: ScriptedPeer) -> None:
    held, other = send_deferred(hub), send_deferred(hub)
    assert act(hub, "hold", held) == 1
    assert status_of(hub, held) == "held"
    peer.answer("MAIL", "250 2.1.0 Ok")
    assert act(hub, "retry", "--all") == 1
    peer.wait_for_mails(1)
    # Nor does asking for the held one by name move it.
    assert act(hub, "retry", held, status=1) == 0
    assert status_of(hub, held) == "held"
    assert act(hub, "release", held.upper()) == 1
    peer.wait_for_mails(2)
    assert act(hub, "release", held, status=1) == 0
    assert shown(hub, other)["finished_at"]


def test_held_mail_stays_held_over_a_restart(hub: Hub, peer: ScriptedPeer) -> None:
    queue_id = send_deferred(hub)
    act(hub, "hold", queue_id)
    hub.stop()
    hub.start()
    assert status_of(hub, queue_id) == "held"
    peer.answer("MAIL", "250 2.1.0 Ok")
    act(hub, "release", queue_id)
    peer.wait_for_mails(1)


def test_hold_all_stops_what_comes_too(hub: Hub, peer: ScriptedPeer) -> None:
    peer.answer("MAIL", "250 2.1.0 Ok")
    act(hub, "hold", "--all")
    waiting = send(hub)
    with hub.smtp() as smtp:
        submit(smtp, "ann@[127.0.0.1]")
    assert "All delivery is on hold" in hub.run("queue", "list").stdout.decode()
    assert status_of(hub, waiting) == "waiting"
    # Also over a restart, until somebody says otherwise.
    hub.stop()
    hub.start()
    assert len(hub.json("queue", "list")) == 2
    assert peer.mails == []
    assert hub.mailbox("ann") == []
    act(hub, "release", "--all")
    peer.wait_for_mails(1)
    hub.wait_for_mail("ann")
    wait_until(lambda: hub.json("queue", "list") == [])
    send(hub)
    peer.wait_for_mails(2)


def test_cancel_is_quiet(hub: Hub, peer: ScriptedPeer) -> None:
    large = message("large", *["x" * 70] * 2000)
    first, second = send_deferred(hub, large), send_deferred(hub)
    act(hub, "hold", second)
    assert act(hub, "cancel", first) == 1
    assert act(hub, "cancel", first, status=1) == 0
    assert act(hub, "cancel", "--all") == 1
    assert hub.json("queue", "list") == []
    for queue_id in (first, second):
        entry = shown(hub, queue_id)
        assert entry["finished_at"]
        assert entry["recipients"][0]["outcome"] == "cancelled"
    # No report, no more attempts, and the content is gone from the disk.
    peer.answer("MAIL", "250 2.1.0 Ok")
    act(hub, "retry", "--all")
    assert hub.json("mailbox", "list") == []
    assert [path.name for path in (hub.data / "content").iterdir()] == ["tmp"]
    assert peer.mails == []


def test_cancel_of_one_recipients_message_spares_the_others(hub: Hub, peer: ScriptedPeer) -> None:
    with hub.smtp(local_hostname="x") as smtp:
        queue_id = submit(smtp, "bob@far.example", "carl@far.example", "ann@[127.0.0.1]")
    hub.wait_for_mail("ann")
    wait_until(lambda: hub.log_text().count("outcome=deferred") == 2)
    assert act(hub, "cancel", queue_id) == 2
    outcomes = [recipient["outcome"] for recipient in shown(hub, queue_id)["recipients"]]
    assert outcomes == ["cancelled", "cancelled", "delivered"]


@pytest.mark.parametrize(
    ("action", "status", "outcome"), [("hold", "held", None), ("cancel", "finished", "cancelled")]
)
def test_acting_while_an_attempt_is_under_way(
    hub: Hub, peer: ScriptedPeer, action: str, status: str, outcome: str | None
) -> None:
    pause = peer.pause_at("MAIL")
    queue_id = send(hub)
    pause.wait_until_reached()
    assert status_of(hub, queue_id) == "under way"
    assert act(hub, action, queue_id) == 1
    pause.go_on()
    wait_until(lambda: settled(hub, queue_id))
    wait_until(lambda: status_of(hub, queue_id) != "under way")
    (recipient,) = shown(hub, queue_id)["recipients"]
    assert (recipient["status"], recipient["outcome"]) == (status, outcome)
    assert recipient["next_attempt_at"] is None
    assert hub.json("mailbox", "list") == []
    if action == "hold":
        peer.answer("MAIL", "250 2.1.0 Ok")
        assert act(hub, "release", queue_id) == 1
        peer.wait_for_mails(1)


def test_holding_what_just_succeeds_comes_too_late(hub: Hub, peer: ScriptedPeer) -> None:
    peer.answer("MAIL", "250 2.1.0 Ok")
    pause = peer.pause_at("CONTENT")
    queue_id = send(hub)
    pause.wait_until_reached()
    assert act(hub, "hold", queue_id) == 1
    pause.go_on()
    wait_until(lambda: settled(hub, queue_id))
    wait_until(lambda: shown(hub, queue_id)["finished_at"])
    assert shown(hub, queue_id)["recipients"][0]["outcome"] == "relayed"


def test_a_hold_can_be_taken_back_while_the_attempt_is_under_way(
    hub: Hub, peer: ScriptedPeer
) -> None:
    pause = peer.pause_at("MAIL")
    queue_id = send(hub)
    pause.wait_until_reached()
    act(hub, "hold", queue_id)
    act(hub, "release", queue_id)
    pause.go_on()
    wait_until(lambda: settled(hub, queue_id))
    wait_until(lambda: status_of(hub, queue_id) == "waiting")


def test_all_of_it_without_a_running_hub(hub: Hub, peer: ScriptedPeer) -> None:
    first, second, third = send_deferred(hub), send_deferred(hub), send_deferred(hub)
    hub.stop()
    assert len(hub.json("queue", "list")) == 3
    assert act(hub, "hold", first, second) == 2
    assert status_of(hub, first) == "held"
    assert act(hub, "release", second) == 1
    assert act(hub, "cancel", third) == 1
    assert act(hub, "retry", "--all") == 1
    assert act(hub, "retry", "0000000000000", status=1) == 0
    peer.answer("MAIL", "250 2.1.0 Ok")
    hub.start()
    peer.wait_for_mails(1)
    wait_until(lambda: [entry["id"] for entry in hub.json("queue", "list")] == [first])
    hub.kill()  # which leaves its control socket behind
    act(hub, "hold", "--all")
    assert "on hold" in hub.run("queue", "list").stdout.decode()
    assert act(hub, "release", "--all") == 1
    hub.start()
    peer.wait_for_mails(2)


def test_mail_of_another_version_is_held_and_shown(start_hub: StartHub) -> None:
    """Its addresses are none by the rules of this one; all else goes on."""
    hub = start_hub()
    assert hub.run("queue", "hold", "--all").returncode == 0
    with hub.smtp() as smtp:
        bad = submit(smtp, "old@[127.0.0.1]")
        good = submit(smtp, "new@[127.0.0.1]")
    hub.stop()
    with closing(sqlite3.connect(hub.data / "queue.db")) as connection:
        connection.execute(
            "UPDATE recipient SET forward_path = 'old@@nowhere' WHERE forward_path LIKE 'old@%'"
        )
        connection.execute("UPDATE message SET reverse_path = 'at sign'")
        connection.execute(
            "UPDATE message SET reverse_path = NULL WHERE queue_id IN"
            " (SELECT queue_id FROM recipient WHERE forward_path LIKE 'new@%')"
        )
        connection.commit()
    hub.start()
    assert hub.run("queue", "release", "--all").returncode == 0
    hub.wait_for_mail("new")
    hub.wait_for_log(f"unreadable id={bad}")

    def held() -> list[dict[str, Any]]:
        listed = hub.json("queue", "list")
        return [one for one in listed if one["recipients"][0]["status"] == "held"]

    (row,) = wait_until(held)
    assert (row["id"], row["sender"]) == (bad, "at sign")
    assert row["recipients"][0]["address"] == "old@@nowhere"
    for words in (("queue", "list"), ("queue", "show", bad), ("trace", "--id", bad)):
        done = hub.run(*words)
        assert done.returncode == 0, done.stderr
        assert b"old@@nowhere" in done.stdout
    assert hub.run("queue", "cancel", bad).returncode == 0
    assert not hub.json("queue", "list")
    assert good != bad
    assert " bug " not in hub.log_text()
