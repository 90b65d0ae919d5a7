"""Storm control: a real hub, real targets, and devices that mail too much."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.hook_server import HookServer
from tests.support.hub import Hub
from tests.support.mail import fields_of, message, parsed, submit, wire
from tests.support.mosquitto import Mosquitto, json_of
from tests.support.ports import reserved_port
from tests.support.toml import retry, route
from tests.support.waiting import wait_until
from waypost.dispatch.storms import Why
from waypost.queue.history import History

from .conftest import StartHub

CAMERA = "127.0.0.7"
QUICK = retry(0.2, max_s=0.3)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[HookServer]:
    with HookServer(tmp_path / "web") as started:
        yield started


def calmed(
    *targets: str, messages: int = 5, per_s: float = 3.0, then: str = "digest", more: str = ""
) -> str:
    """A route with storm control."""
    storm = f'storm = {{ messages = {messages}, per_s = {per_s}, then = "{then}" }}\n'
    return route(*(targets or ("mailbox:cams", "webhook:plc")), name="cameras") + storm + more


def hook(url: str) -> str:
    return f'[webhook.plc]\nurl = "{url}"\n'


def burst(
    hub: Hub, count: int, *, ip: str = CAMERA, first: int = 1, subject: str = "Motion"
) -> list[str]:
    """So many different mails in one session; their ids."""
    with hub.smtp(source_address=(ip, 0)) as smtp:
        return [
            submit(
                *(smtp, "door@plc.example"),
                content=message(f"{subject} {number}", f"Picture {number}."),
            )
            for number in range(first, first + count)
        ]


def waits_no_more(hub: Hub) -> None:
    wait_until(lambda: hub.json("queue", "list") == [], hub.log_text)


def digest_now(hub: Hub, held: int) -> None:
    """Where how long a busy machine takes is not to matter: the operator does not wait."""
    history = History(hub.data)
    wait_until(lambda: sum(one.messages for one in history.held_back(Why.STORM)) == held)
    assert hub.run("queue", "retry", "--all").returncode == 0


def lines_of(hub: Hub, event: str) -> list[str]:
    return [line for line in hub.log_text().splitlines() if f" {event} " in line]


def test_a_hundred_mails_are_six_events(start_hub: StartHub, server: HookServer) -> None:
    hub = start_hub(calmed(per_s=12) + hook(server.url("/200")))
    hub.run("device", "set", CAMERA, "--name", "front-door")
    ids = burst(hub, 100)
    hub.wait_for_mail("cams", 100)
    held = hub.json("queue", "list")
    assert len(held) == 95
    [waiting] = [one for one in held[0]["recipients"] if one["status"] == "waiting"]
    assert "Held back by storm control of route cameras until " in waiting["last_reply"]
    assert waiting["attempts"] == 0
    assert "Held back" in hub.run("queue", "show", ids[99]).stdout.decode()
    *first, digest = [one.json for one in server.wait_for(6)]
    assert sorted(one["id"] for one in first) == ids[:5]
    assert all(one["more"] is None and one["suppressed"] == [] for one in first)
    assert digest["more"] == 95
    assert digest["subject"] == "95 more from front-door in 12 seconds"
    assert (digest["device"], digest["source_ip"]) == ("front-door", CAMERA)
    assert [one["id"] for one in digest["suppressed"]] == ids[5:25]
    assert digest["suppressed"][0]["subject"] == "Motion 6"
    assert "Motion 6\n" in digest["text"]
    assert "and 75 more" in digest["text"]
    waits_no_more(hub)
    assert len(server.asked()) == 6
    assert len(hub.mailbox("cams")) == 100
    [held_one] = hub.json("trace", "--id", ids[50])
    [to_hook] = [one for one in held_one["recipients"] if one["target"] == "webhook:plc"]
    assert to_hook["outcome"] == "suppressed"
    assert to_hook["last_reply"] == f"250 2.0.0 Suppressed: {digest['id']} stands for it"
    assert (len(lines_of(hub, "storm-begins")), len(lines_of(hub, "storm-ends"))) == (1, 1)
    assert "mails=95" in lines_of(hub, "storm-ends")[0]
    assert not lines_of(hub, "put-off")
    [device] = hub.json("device", "show", "front-door")
    assert (device["messages"], device["held_back"]) == (100, 95)


def test_calm_devices_are_let_alone(start_hub: StartHub, server: HookServer) -> None:
    """Two devices and two routes have windows of their own."""
    other = route(
        "mailbox:cams", "webhook:plc", name="other", match='recipient = "other@*"', goes_on=True
    )
    storm = "storm = { messages = 5, per_s = 60 }\n"
    hub = start_hub(other + storm + calmed(per_s=60) + hook(server.url("/200")))
    burst(hub, 8)
    mine = burst(hub, 5, ip="127.0.0.8")
    with hub.smtp(source_address=(CAMERA, 0)) as smtp:
        beside = submit(smtp, "other@plc.example")
    server.wait_for(11)
    asked = [one.json["id"] for one in server.asked()]
    assert set(mine) <= set(asked)
    assert asked.count(beside) == 1  # by route other; by route cameras it waits
    assert len(asked) == 11


def test_a_killed_hub_still_sends_the_digest(start_hub: StartHub, server: HookServer) -> None:
    hub = start_hub(calmed(per_s=300) + hook(server.url("/200")))
    first = burst(hub, 20)
    server.wait_for(5)
    wait_until(lambda: len(hub.json("queue", "list")) == 15)
    hub.kill()
    hub.start()
    assert len(lines_of(hub, "storm-begins")) == 2  # the window goes on
    second = burst(hub, 5, first=21)
    digest_now(hub, 20)
    *_, last = server.wait_for(6)
    waits_no_more(hub)
    assert len(hub.mailbox("cams")) == 25
    events = [one.json for one in server.asked()]
    assert {one["id"] for one in events[:5]} == set(first[:5])
    assert [one["more"] for one in events[5:]] == [20]
    assert {one["id"] for one in last.json["suppressed"]} == {*first[5:], *second}


def test_killed_while_the_digest_is_made(start_hub: StartHub, server: HookServer) -> None:
    hub = start_hub(calmed(per_s=2) + hook(server.url("/200")))
    ids = burst(hub, 20)
    server.wait_for(5)
    hub.wait_for_mail("cams", 20)
    history = History(hub.data)
    wait_until(lambda: "leased" in history.counts() or lines_of(hub, "digest"))
    hub.kill()
    hub.start()
    server.wait_for(6)
    waits_no_more(hub)
    told = [one.json for one in server.asked()]
    named = {one["id"] for event in told for one in event["suppressed"]}
    assert named | {one["id"] for one in told} >= set(ids)


def test_a_single_mail_held_back_comes_as_it_is(start_hub: StartHub, server: HookServer) -> None:
    hub = start_hub(calmed(per_s=1) + hook(server.url("/200")))
    ids = burst(hub, 6)
    *_, last = server.wait_for(6)
    assert (last.json["id"], last.json["more"]) == (ids[5], None)
    waits_no_more(hub)


def test_an_operator_does_not_wait(start_hub: StartHub, server: HookServer) -> None:
    hub = start_hub(calmed(per_s=300) + hook(server.url("/200")))
    ids = burst(hub, 8)
    wait_until(lambda: len(hub.json("queue", "list")) == 3)
    assert hub.run("queue", "retry", ids[6]).returncode == 0
    assert server.wait_for(6)[5].json["id"] == ids[6]
    digest_now(hub, 2)
    assert server.wait_for(7)[6].json["more"] == 2


def test_merged(start_hub: StartHub, server: HookServer) -> None:
    hub = start_hub(calmed(per_s=300, then="merge", messages=1) + hook(server.url("/200")))
    large = wire("From: cam@[10.0.0.9]", "Subject: large", "", *["x" * 70] * 2_000)
    ids = burst(hub, 3)
    with hub.smtp(source_address=(CAMERA, 0)) as smtp:
        submit(smtp, "door@plc.example", content=large)
    digest_now(hub, 3)
    _, merged = (one.json for one in server.wait_for(2))
    assert (merged["subject"], merged["more"]) == ("large", 2)
    assert merged["text"].startswith("x" * 70)
    assert [one["id"] for one in merged["suppressed"]] == ids[1:]
    waits_no_more(hub)
    assert list((hub.data / "content").glob("0*")) == []  # the shared file went, too


def test_dropped(start_hub: StartHub, server: HookServer) -> None:
    hub = start_hub(calmed(per_s=300, then="drop") + hook(server.url("/200")))
    ids = burst(hub, 10)
    hub.wait_for_mail("cams", 10)
    server.wait_for(5)
    waits_no_more(hub)
    [last] = hub.json("trace", "--id", ids[9])
    outcomes = {one["target"]: (one["outcome"], one["last_reply"]) for one in last["recipients"]}
    assert outcomes["webhook:plc"] == (
        "suppressed",
        "250 2.0.0 Suppressed by storm control of route cameras",
    )
    assert outcomes["mailbox:cams"][0] == "delivered"
    assert len(server.asked()) == 5


def test_failure_is_not_held_back(start_hub: StartHub, server: HookServer) -> None:
    hub = start_hub(calmed(messages=2, per_s=300) + hook(server.url("/200")))
    hub.run("device", "set", CAMERA, "--failure", "tampered")
    burst(hub, 10)
    failures = burst(hub, 4, subject="Camera tampered")
    server.wait_for(4)
    told = [one.json["subject"] for one in server.asked()]
    assert sorted(told[2:4]) == ["Camera tampered 1", "Camera tampered 2"]
    digest_now(hub, 10)
    digest = server.wait_for(5)[4].json
    assert digest["more"] == 10
    assert {failures[2], failures[3]} <= {one["id"] for one in digest["suppressed"]}


def test_a_dead_target_gets_the_digest_when_it_is_back(start_hub: StartHub, tmp_path: Path) -> None:
    with reserved_port("127.0.0.1") as port:
        hub = start_hub(calmed(per_s=300) + hook(f"http://127.0.0.1:{port}/200") + QUICK)
        ids = burst(hub, 12)
        digest_now(hub, 7)
        hub.wait_for_log(" digest ")
        assert len(hub.json("queue", "list")) == 6
    server = HookServer(tmp_path / "late", host="127.0.0.1")
    server.port = port
    with server:
        server.wait_for(6)
        waits_no_more(hub)
        told = [one.json for one in server.asked()]
    assert {one["id"] for one in told if one["more"] is None} == set(ids[:5])
    assert [one["more"] for one in told if one["more"] is not None] == [7]
    assert len(hub.mailbox("cams")) == 12


def test_another_cap_holds_at_once(start_hub: StartHub, server: HookServer) -> None:
    hub = start_hub(calmed(messages=2, per_s=60) + hook(server.url("/200")))
    burst(hub, 4)
    server.wait_for(2)
    text = hub.config_file.read_text()
    hub.config_file.write_text(text.replace("messages = 2", "messages = 4"))
    assert hub.run("reload").returncode == 0
    burst(hub, 4, first=5)
    told = [one.json["subject"] for one in server.wait_for(4)]
    assert sorted(told[2:]) == ["Motion 5", "Motion 6"]
    hub.config_file.write_text("\n".join(x for x in text.splitlines() if "storm" not in x))
    assert hub.run("reload").returncode == 0
    burst(hub, 3, first=9)
    assert len(server.wait_for(7)) == 7


def test_mail_out_has_a_digest_for_each_recipient(start_hub: StartHub) -> None:
    """Nobody learns of what others were sent."""
    far = start_hub(route("mailbox:far", match='recipient = "*@plc.example"'))
    target = f"smtp:[127.0.0.1]:{far.port}"
    hub = start_hub(calmed(target, "mailbox:kept", messages=1, per_s=300))
    with hub.smtp(source_address=(CAMERA, 0)) as smtp:
        submit(smtp, "ann@plc.example", "bob@plc.example", content=message("one"))
        submit(smtp, "ann@plc.example", "bob@plc.example", content=message("two für Ann"))
        submit(smtp, "ann@plc.example", content=message("three"))
        submit(smtp, "ann@plc.example", "bob@plc.example", content=message("four"))
    digest_now(hub, 3)
    mails = {fields_of(one, "Subject")[0]: one for one in far.wait_for_mail("far", 3)}
    waits_no_more(hub)
    for_ann = mails["3 more from 127.0.0.7 in 5 minutes"]
    for_bob = mails["2 more from 127.0.0.7 in 5 minutes"]
    assert fields_of(for_ann, "To") == ["ann@plc.example"]
    assert "three" in parsed(for_ann).get_content()
    assert "three" not in parsed(for_bob).get_content()
    assert "two für Ann" in parsed(for_bob).get_content()
    assert fields_of(for_ann, "Auto-Submitted") == ["auto-generated"]


def test_events_in_mqtt(start_hub: StartHub) -> None:
    with Mosquitto() as broker:
        hub = start_hub(
            calmed("mailbox:cams", "mqtt:motion", messages=2, per_s=8)
            + f'[mqtt]\nurl = "mqtt://127.0.0.1:{broker.port}"\n'
        )
        with broker.listener("waypost/+/event") as heard:
            burst(hub, 20)
            events = [json_of(one.payload) for one in heard.wait_for("", 3)]
    assert [one["more"] for one in events] == [None, None, 18]
    assert events[2]["event_type"] == "motion"
    assert len(hub.wait_for_mail("cams", 20)) == 20


def hour_now(offset: int) -> str:
    return time.strftime("%H:%M", time.localtime(time.time() + 3_600 * offset))


def test_notifications_wait_in_the_hush(start_hub: StartHub, server: HookServer) -> None:
    hub = start_hub(
        route("mailbox:cams", "webhook:plc", "notify:phones", name="cameras")
        + hook(server.url("/200/hook"))
        + f'[notify.phones]\nurls = ["json://127.0.0.1:{server.port}/200/phone"]\n'
    )
    hub.run("device", "set", CAMERA, "--failure", "tampered")
    hub.run("device", "set", CAMERA, "--hush", f"{hour_now(-1)}-{hour_now(2)}")
    ids = burst(hub, 3)
    server.wait_for(3, "/200/hook")
    hub.wait_for_mail("cams", 3)
    assert server.asked("/200/phone") == []
    burst(hub, 1, subject="Camera tampered")
    assert len(server.wait_for(1, "/200/phone")) == 1
    [entry] = [one for one in hub.json("queue", "list") if one["id"] == ids[0]]
    assert "Held back for the hush until" in entry["recipients"][2]["last_reply"]
    hub.stop()
    hub.start()
    assert len(hub.json("queue", "list")) == 3
    # The operator wants to know now.
    assert hub.run("queue", "retry", "--all").returncode == 0
    assert b"3 from 127.0.0.7 in its hush" in server.wait_for(2, "/200/phone")[1].body
    waits_no_more(hub)


# Duplicates.


def marked(hub: Hub, box: str, count: int) -> list[list[str]]:
    return [fields_of(one, "X-Waypost-Duplicate-Of") for one in hub.wait_for_mail(box, count)]


def same(number: int, *, fields: str = "") -> bytes:
    """A mail as a device writes it each time anew."""
    boundary = f"=====boundary-{number}=="
    return wire(
        f"Date: Sun, 22 Nov 2026 16:{number:02d}:00 +0000",
        f"Message-ID: <{number}@cam>",
        "From: <cam@[127.0.0.7]>",
        "Subject: Motion",
        *([fields] if fields else []),
        "MIME-Version: 1.0",
        "Content-Type: multipart/mixed;",
        f' boundary="{boundary}"',
        "",
        f"--{boundary}",
        "",
        "Somebody is there.",
        f"--{boundary}--",
    )


def submit_from(hub: Hub, content: bytes, *, ip: str = CAMERA, to: str = "a@plc.example") -> str:
    with hub.smtp(source_address=(ip, 0)) as smtp:
        return submit(smtp, to, content=content)


def test_the_same_mail_is_told_once(start_hub: StartHub, server: HookServer) -> None:
    hub = start_hub(
        route("mailbox:cams", "webhook:plc", name="cameras")
        + "duplicates_s = 60\n"
        + hook(server.url("/200"))
    )
    first = submit_from(hub, same(1))
    second = submit_from(hub, same(2))
    other = submit_from(hub, same(3), ip="127.0.0.8")
    else_ = submit_from(hub, same(4).replace(b"Somebody", b"Nobody"))
    to_another = submit_from(hub, same(5), to="b@plc.example")
    assert sorted(marked(hub, "cams", 5)) == [[], [], [], [], [first]]
    server.wait_for(4)
    waits_no_more(hub)
    assert {one.json["id"] for one in server.asked()} == {first, other, else_, to_another}
    assert len(server.asked()) == 4
    [entry] = hub.json("trace", "--id", second)
    assert [(one["outcome"], one["last_reply"]) for one in entry["recipients"]][1] == (
        "suppressed",
        f"250 2.0.0 Duplicate of {first}",
    )
    [device] = hub.json("device", "show", CAMERA)
    assert (device["messages"], device["duplicates"]) == (4, 1)


def test_the_window_of_duplicates_ends(start_hub: StartHub, server: HookServer) -> None:
    hub = start_hub(
        route("mailbox:cams", "webhook:plc") + "duplicates_s = 1\n" + hook(server.url("/200"))
    )
    first = submit_from(hub, same(1))
    time.sleep(1.1)
    again = submit_from(hub, same(2))
    assert [one.json["id"] for one in server.wait_for(2)] == [first, again]
    assert marked(hub, "cams", 2) == [[], []]


def test_a_large_mail_is_known_again(start_hub: StartHub, server: HookServer) -> None:
    hub = start_hub(
        route("mailbox:cams", "webhook:plc") + "duplicates_s = 60\n" + hook(server.url("/200"))
    )
    picture = same(1).replace(b"Somebody is there.", b"x" * 70 + (b"\r\n" + b"y" * 70) * 5_000)
    first = submit_from(hub, picture)
    submit_from(hub, picture.replace(b"boundary-1", b"boundary-22"))
    submit_from(hub, picture[:-40].replace(b"yyy\r\n", b"yyz\r\n", 1) + picture[-40:])
    assert sorted(marked(hub, "cams", 3)) == [[], [], [first]]


def test_a_program_says_which_requests_are_one(start_hub: StartHub, server: HookServer) -> None:
    """Without any setting, and whatever a client wrote of marks itself."""
    hub = start_hub(route("mailbox:cams", "webhook:plc") + hook(server.url("/200")))
    first = submit_from(hub, same(1, fields="X-Waypost-Dedupe: alarm-17"))
    submit_from(
        hub, message("another", "text").replace(b"Subj", b"X-Waypost-Dedupe: alarm-17\r\nSubj")
    )
    forged = submit_from(hub, same(3, fields="X-Waypost-Duplicate-Of: 0000000000000"))
    assert {one.json["id"] for one in server.wait_for(2)} == {first, forged}
    assert all(one.json["duplicate_of"] is None for one in server.asked())
    assert [first] in marked(hub, "cams", 3)


def test_a_mark_outlives_the_hub(start_hub: StartHub, server: HookServer) -> None:
    hub = start_hub(
        route("mailbox:cams", "webhook:plc") + "duplicates_s = 60\n" + hook(server.url("/200"))
    )
    hub.run("queue", "hold", "--all")
    first = submit_from(hub, same(1))
    submit_from(hub, same(2))
    hub.kill()
    hub.start()
    hub.run("queue", "release", "--all")
    waits_no_more(hub)
    assert [one.json["id"] for one in server.asked()] == [first]
    assert marked(hub, "cams", 2).count([first]) == 1


def broken(hub: Hub, config: str) -> str:
    hub.config_file.write_text(config)
    done = hub.run("config", "check")
    assert done.returncode == 2
    return done.stderr.decode()


@pytest.mark.parametrize(
    ("keys", "targets", "complaint"),
    [
        ("storm = { messages = 5 }", ["discard"], "per_s missing"),
        ("storm = 5", ["discard"], "expected a table"),
        ("storm = { messages = 0, per_s = 3 }", ["direct"], "messages: expected a whole"),
        ("storm = { messages = 1, per_s = 1e6 }", ["direct"], "per_s: expected 86400"),
        ('storm = { messages = 1, per_s = 3, then = "x" }', ["direct"], "digest, merge, drop"),
        ("storm = { messages = 1, per_s = 3, x = 1 }", ["direct"], "unknown: x"),
        ("storm = { messages = 1, per_s = 3 }", ["mailbox:a"], "nothing to hold back"),
        ("storm = { messages = 1, per_s = 3 }", ["direct"], "would be lost"),
        ("duplicates_s = 0", ["direct"], "expected seconds"),
    ],
)
def test_what_makes_no_sense(tmp_path: Path, keys: str, targets: list[Any], complaint: str) -> None:
    hub = Hub(tmp_path / "hub")
    assert complaint in broken(hub, route(*targets) + keys + "\n")
