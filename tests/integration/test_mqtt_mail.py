"""Mail made of what others publish at a real broker: requests, text for routes, other topics."""

from __future__ import annotations

import base64
import json
import random
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.fault.small_disk import small_disk
from tests.support.hub import Hub
from tests.support.mail import submit
from tests.support.mosquitto import PASSWORD, USER, Listener, Mosquitto, json_of
from tests.support.postfix import install
from tests.support.toml import retry, route
from tests.support.waiting import wait_until

from .conftest import StartHub

REQUEST = "waypost/bridge/request/send"
ANSWER = "waypost/bridge/response/send"
VERSIONS = ["5", "3.1.1"]


@pytest.fixture
def broker() -> Iterator[Mosquitto]:
    with Mosquitto() as running:
        yield running


def config(broker: Mosquitto, more: str = "", *, version: str = "5", requests: bool = True) -> str:
    """A hub that takes requests, and has a route named ops."""
    return (
        f'[mqtt]\nurl = "mqtt://127.0.0.1:{broker.port}"\nversion = "{version}"\n'
        f"requests = {'true' if requests else 'false'}\n{more}\n"
        + route("mailbox:ops", name="ops", match='recipient = "nobody@nowhere.test"')
    )


def subscribe(topic: str, *, to: str = "ops@[127.0.0.1]", more: str = "") -> str:
    return f'[[mqtt.subscribe]]\ntopic = "{topic}"\nto = ["{to}"]\n{more}\n'


def ask(listener: Listener, values: Any, **options: Any) -> None:
    listener.publish(
        REQUEST, values if isinstance(values, bytes) else json.dumps(values), **options
    )


def request(subject: str, **more: Any) -> dict[str, Any]:
    return {"to": ["ops@[127.0.0.1]"], "subject": subject, "text": f"About {subject}.", **more}


def parsed(octets: bytes) -> EmailMessage:
    found = message_from_bytes(octets, policy=policy.default)
    assert isinstance(found, EmailMessage)
    return found


def body(mail: EmailMessage) -> str:
    return str(mail.get_content()).replace("\r\n", "\n")


def answers(listener: Listener, count: int = 1) -> list[dict[str, Any]]:
    return [json_of(one.payload) for one in listener.wait_for(ANSWER, count)]


def is_in(hub: Hub, times: int = 1) -> None:
    """Wait until the hub has subscribed, which it does as it connects."""
    wait_until(lambda: hub.log_text().count("mqtt-connected") >= times, hub.log_text)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_request_is_mail_and_is_answered(
    start_hub: StartHub, broker: Mosquitto, version: str
) -> None:
    hub = start_hub(config(broker, version=version))
    is_in(hub)
    octets = random.Random(1).randbytes(3_000)
    file = {"name": "a.jpg", "type": "image/jpeg", "data_base64": base64.b64encode(octets).decode()}
    with broker.listener(ANSWER) as listener:
        ask(
            listener,
            request("Tür", attachments=[file], dedupe_key="k1", transaction={"n": [7]}),
        )
        [answer] = answers(listener)
    [raw] = hub.wait_for_mail("ops")
    assert answer == {"status": "ok", "id": answer["id"], "transaction": {"n": [7]}}
    mail = parsed(raw)
    assert mail["Subject"] == "Tür"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["X-Waypost-Dedupe"] == "k1"
    assert REQUEST in mail["X-Waypost-MQTT"]
    assert mail["Return-Path"] == "<mqtt@[127.0.0.1]>"
    assert f"with MQTT id {answer['id']}" in " ".join(mail["Received"].split())
    [attached] = mail.iter_attachments()
    assert attached.get_content() == octets
    [trace] = hub.json("trace", "--id", answer["id"])
    assert (trace["listener"], trace["protocol"]) == ("mqtt", "MQTT")


def test_text_for_a_route(start_hub: StartHub, broker: Mosquitto) -> None:
    hub = start_hub(config(broker))
    is_in(hub)
    with broker.listener() as listener:
        listener.publish("waypost/send/ops", "Pump 7 stands still\nsince noon")
        listener.publish("waypost/send/ops", "\n\nno first line")
        listener.publish("waypost/send/nobody", "x")
        listener.publish("waypost/send/a/ops", "x")
        listener.publish("waypost/send/", "x")
    hub.wait_for_log("mqtt-mail-refused topic=waypost/send/nobody")
    first, second = map(parsed, hub.wait_for_mail("ops", 2))
    assert first["Subject"] == "Pump 7 stands still"
    assert body(first) == "Pump 7 stands still\nsince noon\n"
    assert second["Subject"] == "Message on waypost/send/ops"


def test_other_topics_by_templates(start_hub: StartHub, broker: Mosquitto) -> None:
    more = (
        subscribe(
            "plant/+/alarm",
            more='from = "plant@[127.0.0.1]"\nsubject = "${topic.1}: ${json.alarm.name}"\n'
            'text = "$payload\\nat $topic"',
        )
        + '[[mqtt.subscribe]]\ntopic = "door/#"\nroute = "ops"\n'
    )
    hub = start_hub(config(broker, more, requests=False))
    is_in(hub)
    with broker.listener(ANSWER) as listener:
        listener.publish("plant/pump7/alarm", '{"alarm":{"name":"dry\\r\\nBcc: x@y"}}')
        listener.publish("plant/pump7/other", "x")
        listener.publish("plant/pump8/alarm", b"\xff\xfe")
        listener.publish("door", "open")
        # Not these: the operator has not said so.
        ask(listener, request("x"))
        listener.publish("waypost/send/ops", "x")
        listener.publish("door/front", "last")
        first, second, third, fourth = map(parsed, hub.wait_for_mail("ops", 4))
        assert not listener.got(ANSWER)
    assert first["Subject"] == "pump7: dry Bcc: x@y"
    assert first["From"] == "plant@[127.0.0.1]"
    assert first["Bcc"] is None
    assert body(first).endswith("\nat plant/pump7/alarm\n")
    assert second["Subject"] == "pump8:"
    assert body(second) == "\ufffd\ufffd\nat plant/pump8/alarm\n"
    assert (third["Subject"], body(third)) == ("Message on door", "open\n")
    assert fourth["Subject"] == "Message on door/front"


def test_what_can_never_be_mail_is_answered_and_forgotten(
    start_hub: StartHub, broker: Mosquitto
) -> None:
    hub = start_hub(config(broker, "[limits]\nmessage_bytes = 100_000\n"))
    is_in(hub)
    deep = b'{"to":["ops@[127.0.0.1]"],"subject":"x","transaction":' + b"[" * 900 + b"]" * 900
    wrong: list[Any] = [
        b"{",
        b"\xff",
        b"[" * 200_000,
        b'{"transaction":"t1","to":7}',
        request("x", to=["no@@address"]),
        request("x", to=["somebody@example.com"]),
        request("x", **{"from": "boss@[192.0.2.1]"}),
        request("x" * 10, text="y" * 200_000),
    ]
    with broker.listener(ANSWER) as listener:
        for values in wrong:
            ask(listener, values)
        found = answers(listener, len(wrong))
        ask(listener, deep + b"}")
        ask(listener, b'{"to":["ops@[127.0.0.1]"],"subject":"nan","transaction":NaN}')
        ask(listener, request("good", transaction="x" * 5_000))
        last = answers(listener, len(wrong) + 3)[-3:]
    assert [one["status"] for one in found] == ["error"] * len(wrong)
    assert [one["enhanced"] for one in found] == [
        *["5.5.4"] * 4,
        *("5.1.3", "5.7.1", "5.7.1", "5.3.4"),
    ]
    assert found[3]["transaction"] == "t1"
    assert [one["status"] for one in last] == ["ok"] * 3
    assert not any("transaction" in one for one in last[1:])
    assert len(hub.wait_for_mail("ops", 3)) == 3
    assert len(re.findall("mqtt-mail-refused", hub.log_text())) == len(wrong)
    # All of it is acknowledged: nothing comes again.
    hub.stop()
    hub.start()
    is_in(hub, 2)
    with broker.listener() as listener:
        ask(listener, request("after"))
    assert len(hub.wait_for_mail("ops", 4)) == 4


def test_an_answer_goes_only_where_answers_go(start_hub: StartHub, broker: Mosquitto) -> None:
    """The hub may publish more than who asks: it must not do so for them."""
    hub = start_hub(config(broker))
    is_in(hub)
    mine = f"{ANSWER}/me"
    with broker.listener("#") as listener:
        ask(listener, request("one"), answer_to=mine, correlation=b"\0c")
        [heard] = listener.wait_for(mine)
        assert (heard.correlation, heard.was_kept) == (b"\0c", False)
        assert not listener.got(ANSWER)
        elsewhere = ["lock/set", "waypost/send/ops", REQUEST, "waypost/yard/motion"]
        for topic in elsewhere:
            ask(listener, request(topic), answer_to=topic, correlation=topic.encode())
        found = listener.wait_for(ANSWER, len(elsewhere))
        assert [one.correlation for one in found] == [topic.encode() for topic in elsewhere]
        listener.settle()
        assert not listener.got("lock/set")
        assert not listener.got("waypost/send/ops")
        assert len(listener.got(REQUEST)) == 1 + len(elsewhere)
    assert len(hub.wait_for_mail("ops", 5)) == 5


@pytest.mark.parametrize("version", VERSIONS)
def test_what_comes_while_the_hub_is_down_is_kept(
    start_hub: StartHub, broker: Mosquitto, version: str
) -> None:
    hub = start_hub(config(broker, subscribe("plant/#"), version=version))
    is_in(hub)
    with broker.listener(ANSWER) as listener:
        for round_, stop in enumerate((hub.stop, hub.kill), 1):
            stop()
            for number in range(30):
                ask(listener, request(f"r{number}"))
                listener.publish("plant/x", f"p{number}")
            hub.start()
            # Not killed in the middle of it: some mail could be there twice then.
            hub.wait_for_mail("ops", 60 * round_)
            listener.wait_for(ANSWER, 30 * round_)
            wait_until(lambda: not hub.json("queue", "list"), hub.log_text)
        found = Counter(json_of(one.payload)["status"] for one in listener.wait_for(ANSWER, 60))
    assert found == {"ok": 60}
    assert len(hub.wait_for_mail("ops", 120)) == 120


@pytest.mark.parametrize("version", VERSIONS)
def test_no_request_is_lost_when_the_hub_is_killed(
    start_hub: StartHub, broker: Mosquitto, version: str
) -> None:
    hub = start_hub(config(broker, version=version) + retry(0.2, max_s=0.5))
    is_in(hub)
    count = 400
    sent = 0
    with broker.listener(ANSWER) as listener:
        for deaths in range(1, 5):
            while sent < deaths * count // 4:
                ask(listener, request(f"r{sent}", dedupe_key=f"k{sent}", transaction=sent))
                sent += 1
            hub.kill()
            hub.start()
        wait_until(
            lambda: (
                len({json_of(one.payload)["transaction"] for one in listener.got(ANSWER)}) == count
            ),
            hub.log_text,
        )
        told = [json_of(one.payload) for one in listener.got(ANSWER)]
    assert {one["status"] for one in told} == {"ok"}
    wait_until(lambda: not hub.json("queue", "list"), hub.log_text)
    keys = Counter(str(parsed(raw)["X-Waypost-Dedupe"]) for raw in hub.mailbox("ops"))
    lost = {f"k{number}" for number in range(count)} - set(keys)
    assert not lost, f"{len(lost)} of {count} are lost"
    print(f"{count} published, {sum(keys.values())} mails, {len(told)} answers")


def test_a_kept_message_is_no_command(start_hub: StartHub, broker: Mosquitto) -> None:
    """It would be mail again with each start."""
    with broker.listener() as listener:
        listener.publish(REQUEST, json.dumps(request("kept")), kept=True)
        listener.publish("waypost/send/ops", "kept", kept=True)
        listener.publish("plant/x", "kept", kept=True)
        for version in VERSIONS:
            hub = start_hub(config(broker, subscribe("plant/#"), version=version))
            is_in(hub)
            listener.publish("waypost/send/ops", "live")
            listener.publish("plant/x", "live too", kept=True)
            found = [str(parsed(raw)["Subject"]) for raw in hub.wait_for_mail("ops", 2)]
            assert sorted(found) == ["Message on plant/x", "live"]
            hub.stop()
            assert len(hub.mailbox("ops")) == 2


@pytest.mark.parametrize("version", VERSIONS)
def test_nothing_goes_round(start_hub: StartHub, broker: Mosquitto, version: str) -> None:
    """What the hub publishes is no mail, and mail made from MQTT is not published."""
    hub = start_hub(
        config(broker, subscribe("+/#", to="alarm@[127.0.0.1]"), version=version)
        + route("mailbox:ops", "mqtt:alarm", name="alarm", match='recipient = "alarm@*"')
    )
    is_in(hub)
    with broker.listener("#") as listener:
        with hub.smtp() as smtp:
            submit(smtp, "alarm@[127.0.0.1]")
        listener.wait_for("waypost/127-0-0-1/event")
        assert len(hub.wait_for_mail("ops", 1)) == 1
        listener.publish("plant/x", "from outside")
        hub.wait_for_mail("ops", 2)
        wait_until(lambda: not hub.json("queue", "list"), hub.log_text)
        listener.settle()
        assert len(listener.got("waypost/127-0-0-1/event")) == 1
    # "listener" is what the listener itself says to settle.
    subjects = [parsed(raw)["Subject"] for raw in hub.mailbox("ops")]
    assert subjects.count("Message on plant/x") == 1
    assert not [one for one in subjects if "waypost/" in str(one) or "homeassistant/" in str(one)]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_full_disk_makes_mail_wait(
    start_hub: StartHub, broker: Mosquitto, tmp_path: Path, version: str
) -> None:
    """Unacknowledged at the broker, by a connection that stays sound."""
    directory = tmp_path / "hub"
    with small_disk(directory / "data", 48) as ballast:
        hub = Hub(directory, config(broker, version=version))
        with hub, broker.listener(ANSWER, "waypost/bridge/state") as listener:
            is_in(hub)
            ballast.fill()
            for number in range(40):
                ask(listener, request(f"r{number}", transaction=number))
            hub.wait_for_log("mqtt-mail-waits")
            listener.settle()
            assert not listener.got(ANSWER)
            ballast.drop()
            found = [one["transaction"] for one in answers(listener, 40)]
            assert found == list(range(40))
            assert {one.payload for one in listener.got("waypost/bridge/state")} == {b"online"}
            assert len(hub.wait_for_mail("ops", 40)) == 40
    assert hub.log_text().count("mqtt-mail-waits") < 5


def test_more_than_may_wait_comes_again(
    start_hub: StartHub, broker: Mosquitto, tmp_path: Path
) -> None:
    """Large requests, while the disk is full: memory is bounded, and nothing is lost."""
    directory = tmp_path / "hub"
    with small_disk(directory / "data", 160) as ballast:
        hub = Hub(directory, config(broker, version="3.1.1"))
        with hub, broker.listener(ANSWER) as listener:
            is_in(hub)
            file = {"name": "a", "data_base64": base64.b64encode(bytes(4_000_000)).decode()}
            ballast.fill()
            before = psutil.Process(hub.pid).memory_info().rss
            for number in range(8):
                ask(listener, request(f"r{number}", attachments=[file]))
            hub.wait_for_log("mqtt-mail-waits")
            listener.settle()
            assert psutil.Process(hub.pid).memory_info().rss - before < 100 << 20
            ballast.drop()
            assert {one["status"] for one in answers(listener, 8)} == {"ok"}
            assert len(hub.wait_for_mail("ops", 8)) == 8


def test_what_is_larger_than_the_hub_takes_is_no_trouble(
    start_hub: StartHub, broker: Mosquitto
) -> None:
    """A broker of MQTT 5 keeps it to itself (§3.1.2.11.4)."""
    hub = start_hub(config(broker))
    is_in(hub)
    with broker.listener(ANSWER) as listener:
        ask(listener, request("large", text="x" * (25 << 20)))
        ask(listener, request("small", transaction=2))
        assert [one["transaction"] for one in answers(listener)] == [2]
    assert "mqtt-lost" not in hub.log_text()


def test_a_topic_gone_wild_is_held_back(start_hub: StartHub, broker: Mosquitto) -> None:
    """And others are not."""
    hub = start_hub(config(broker, subscribe("wild/#", to="wild@[127.0.0.1]")))
    is_in(hub)
    with broker.listener() as listener:
        for number in range(1_500):
            listener.publish("wild/x", str(number))
        listener.publish("waypost/send/ops", "calm")
        hub.wait_for_mail("ops", limit_s=60)
    assert hub.log_text().count("mqtt-flood") == 1
    # The rest comes when others have had their turn.
    hub.wait_for_mail("wild", 1_000, limit_s=120)
    wait_until(lambda: not hub.json("queue", "list"), hub.log_text)
    assert len(hub.mailbox("wild")) < 1_400


def test_subscriptions_end_with_their_settings(start_hub: StartHub, broker: Mosquitto) -> None:
    """Though the broker remembers the session."""
    hub = start_hub(config(broker, subscribe("old/#")))
    is_in(hub)
    hub.stop()
    text = hub.config_file.read_text()
    hub.config_file.write_text(text.replace("old/#", "new/#"))
    hub.start()
    with broker.listener() as listener:
        wait_until(
            lambda: "old/#" not in (hub.data / "mqtt.json").read_text(),
            (hub.data / "mqtt.json").read_text,
        )
        listener.publish("old/x", "x")
        listener.publish("new/x", "x")
    [mail] = hub.wait_for_mail("ops")
    assert parsed(mail)["Subject"] == "Message on new/x"
    hub.config_file.write_text(re.sub(r"(?s)requests = true\n.*?(?=\[\[route)", "", text))
    assert hub.run("reload").returncode == 0
    is_in(hub, 3)
    with broker.listener() as listener:
        listener.publish("waypost/send/ops", "x")
        listener.publish("new/x", "x")
        listener.settle()
    assert len(hub.mailbox("ops")) == 1


def test_the_rules_of_the_how_to(start_hub: StartHub) -> None:
    """Its ACL lets each do what it says, by its commands, and no more."""
    install("mosquitto-clients")
    text = Path("docs/how-to/mqtt-and-home-assistant.md").read_text()
    acl = re.search(r"```\n(user waypost\n.*?)```", text, re.DOTALL)
    assert acl is not None
    rules = acl[1].replace("user waypost", f"user {USER}")
    with Mosquitto(has_login=True, acl=rules) as broker:
        for name in ("plc1", "billing"):
            add = ["mosquitto_passwd", "-b", str(broker.directory / "passwords"), name, name]
            subprocess.run(add, check=True, timeout=20)
        broker.stop()
        broker.start()

        def publish(name: str, topic: str, payload: str) -> None:
            login = ["-h", "127.0.0.1", "-p", str(broker.port), "-u", name, "-P", name]
            command = ["mosquitto_pub", *login, "-q", "1", "-V", "5", "-t", topic, "-m", payload]
            subprocess.run(command, timeout=20, check=False)

        login = f'username = "{USER}"\npassword = "{PASSWORD}"'
        hub = start_hub(config(broker, f"{login}\n{subscribe('plant/+/alarm')}"))
        is_in(hub)
        publish("billing", "waypost/send/ops", "billing may not")
        publish("plc1", REQUEST, json.dumps(request("plc1 may not")))
        publish("plc1", "plant/x/alarm", "nor this")
        publish("plc1", "waypost/send/ops", "plc1 may")
        hub.wait_for_mail("ops")
        publish("billing", REQUEST, json.dumps(request("billing may")))
        subjects = {str(parsed(raw)["Subject"]) for raw in hub.wait_for_mail("ops", 2)}
        assert subjects == {"plc1 may", "billing may"}
        assert "mqtt-refused" not in hub.log_text()
