"""Mail that publishes at a real broker: by an address, by a route, by the device it is for."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from email.header import Header
from typing import Any

import pytest

from tests.support.hub import Hub
from tests.support.mail import submit, wire
from tests.support.mosquitto import Mosquitto, json_of
from tests.support.toml import retry, route
from tests.support.waiting import wait_until

from .conftest import StartHub

TOPIC = "mqtt+pump/set@[127.0.0.1]"
DEVICE_IP = "192.168.77.7"


@pytest.fixture
def broker() -> Iterator[Mosquitto]:
    with Mosquitto() as running:
        yield running


def config(broker: Mosquitto, more: str = "", *, mqtt: str = "") -> str:
    return (
        f'[mqtt]\nurl = "mqtt://127.0.0.1:{broker.port}"\nmailbox = "mqtt"\n'
        f'topics = ["pump/#", "haus/Tür", "waypost/#"]\n{mqtt}\n{more}\n' + retry(0.2, max_s=0.5)
    )


def mail(*lines: str, fields: tuple[str, ...] = (), subject: str = "Command") -> bytes:
    return wire("From: <plc@[127.0.0.1]>", f"Subject: {subject}", *fields, "", *lines)


def send(hub: Hub, to: str = TOPIC, content: bytes | None = None, **options: Any) -> str:
    with hub.smtp() as smtp:
        return submit(smtp, to, content=content or mail("ON"), **options)


def queued(hub: Hub) -> list[dict[str, Any]]:
    return hub.json("queue", "list")


def done_with(hub: Hub) -> None:
    wait_until(lambda: not queued(hub), hub.log_text)


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_mail_to_a_topic_is_published(start_hub: StartHub, broker: Mosquitto, version: str) -> None:
    hub = start_hub(config(broker, mqtt=f'version = "{version}"'))
    with broker.listener("pump/#") as listener:
        send(hub, content=mail("", "  ON ", ""))
        [heard] = listener.wait_for("pump/set")
        assert heard.payload == b"ON"
        assert heard.qos == 1
        done_with(hub)
        listener.settle()
        assert len(listener.got("pump/set")) == 1
    assert broker.kept("pump/#") == {}
    assert not (hub.data / "mail" / "mqtt").exists()


def test_its_text_is_what_a_person_reads(start_hub: StartHub, broker: Mosquitto) -> None:
    """In whatever character set and encoding it came."""
    hub = start_hub(config(broker))
    latin = (
        b"From: <plc@[127.0.0.1]>\r\nMIME-Version: 1.0\r\nContent-Transfer-Encoding: 8bit\r\n"
        b'Content-Type: text/plain; charset="iso-8859-1"\r\n\r\nT\xfcr zu\r\n'
    )
    html = mail("<p>Auf&nbsp;<b>jetzt</b></p>", fields=("Content-Type: text/html",))
    with broker.listener("pump/#") as listener:
        send(hub, "mqtt+pump/latin@[127.0.0.1]", latin)
        send(hub, "mqtt+pump/html@[127.0.0.1]", html)
        assert listener.wait_for("pump/latin")[0].payload.decode() == "Tür zu"
        assert listener.wait_for("pump/html")[0].payload.decode().split() == ["Auf", "jetzt"]


def test_the_mail_it_was_made_of_is_named(start_hub: StartHub, broker: Mosquitto) -> None:
    hub = start_hub(config(broker))
    command = ["mosquitto_sub", "-p", str(broker.port), "-V", "5", "-t", "pump/#"]
    with subprocess.Popen(
        [*command, "-q", "1", "-C", "1", "-F", "%t %q %r %P %p", "-W", "30"], stdout=subprocess.PIPE
    ) as heard:
        wait_until(lambda: "auto-" in broker.log_text())  # its client id
        queue_id = send(hub)
        assert heard.stdout is not None
        said = heard.stdout.read().decode()
    assert said == f"pump/set 1 0 waypost-id:{queue_id} ON\n"


def test_case_is_kept_and_other_scripts_are(start_hub: StartHub, broker: Mosquitto) -> None:
    hub = start_hub(config(broker))
    with broker.listener("pump/#", "haus/#") as listener:
        send(hub, "MQTT+pump/SeT@[127.0.0.1]")
        listener.wait_for("pump/SeT")
        with hub.smtp() as smtp:
            submit(smtp, "mqtt+haus/Tür@[127.0.0.1]", content=mail("zu"), mail="SMTPUTF8")
        assert listener.wait_for("haus/Tür")[0].payload == b"zu"


@pytest.mark.parametrize(
    ("local_part", "said"),
    [
        ("mqtt", "5.1.1"),
        ("mqtt+lights/set", "none of mqtt.topics"),
        ("mqtt+waypost/bridge/request/send", "the hub's own"),
        ("mqtt+pump/#", "many topics"),
    ],
)
def test_refusals_say_why(
    start_hub: StartHub, broker: Mosquitto, local_part: str, said: str
) -> None:
    hub = start_hub(config(broker))
    with hub.smtp() as smtp:
        smtp.ehlo()
        smtp.mail("<plc@[127.0.0.1]>")
        code, text = smtp.rcpt(f"<{local_part}@[127.0.0.1]>")
        assert code == 550
        assert said in text.decode()
    told = hub.run("route", f"{local_part}@[127.0.0.1]")
    assert told.returncode == 1
    assert said in told.stdout.decode()


def test_routes_publish_what_they_are_told(start_hub: StartHub, broker: Mosquitto) -> None:
    targets = [f"publish:plant/{word}#{word}" for word in ("text", "line", "subject", "event")]
    hub = start_hub(config(broker, route(*targets, "mailbox:log", match='recipient = "alarm@*"')))
    content = mail(
        "", "Pump 7 stopped", "", "> quoted", subject=Header("Störung", "utf-8").encode()
    )
    with broker.listener("plant/#") as listener:
        queue_id = send(hub, "alarm@[127.0.0.1]", content)
        heard = {
            word: listener.wait_for(f"plant/{word}")[0].payload
            for word in ("text", "line", "subject", "event")
        }
    assert heard["text"] == b"Pump 7 stopped\n\n> quoted"
    assert heard["line"] == b"Pump 7 stopped"
    assert heard["subject"].decode() == "Störung"
    event = json_of(heard["event"])
    assert (event["id"], event["event_type"], event["subject"]) == (queue_id, "mail", "Störung")
    hub.wait_for_mail("log")


def test_half_a_command_is_none(start_hub: StartHub) -> None:
    with Mosquitto(options="max_packet_size 20000") as broker:
        hub = start_hub(config(broker))
        with broker.listener("pump/#") as listener:
            send(hub, content=mail(*["x" * 70] * 2_000))  # longer than a text may be
            send(hub, content=mail(*["x" * 70] * 300))  # than the broker takes
            done_with(hub)
            listener.settle()
            assert not listener.got("pump/set")
        trace = "\n".join(hub.log_text().splitlines())
        assert "the text is too long" in trace
        assert "no message of this size" in trace


def test_mail_waits_while_the_broker_is_dead_and_other_mail_does_not(
    start_hub: StartHub, broker: Mosquitto
) -> None:
    broker.kill()
    text = config(broker, route("publish:plant/alarm", "mailbox:log", match='recipient = "a@*"'))
    text = text.replace(retry(0.2, max_s=0.5), "")
    hub = start_hub(text + retry(3_600, max_s=3_600, warn_after_s=7_200, give_up_after_s=10_000))
    for word in ("ON", "OFF", "ON again"):
        send(hub, content=mail(word))
    send(hub, "a@[127.0.0.1]", mail("alarm"))
    hub.wait_for_mail("log")
    wait_until(lambda: str(queued(hub)).count("4.4.1") >= 4, hub.log_text)
    hub.kill()
    hub.start()
    # The broker keeps none of it: who counts must be there first.
    hub.send_signal(signal.SIGSTOP)
    broker.start()
    with broker.listener("#") as listener:
        hub.send_signal(signal.SIGCONT)
        listener.wait_for("plant/alarm")
        # At once, not in an hour, and in the order it was sent.
        listener.wait_for("pump/set", 3)
        done_with(hub)
        assert [one.payload for one in listener.got("pump/set")] == [b"ON", b"OFF", b"ON again"]
    assert len(hub.mailbox("log")) == 1


def test_what_came_from_the_topic_does_not_go_back(start_hub: StartHub, broker: Mosquitto) -> None:
    hub = start_hub(config(broker))
    with broker.listener("pump/#") as listener:
        send(hub, content=mail("round", fields=("X-Waypost-MQTT: 1 (pump/set)",)))
        send(hub, content=mail("of any", fields=("X-Waypost-MQTT: 1",)))
        send(hub, content=mail("on holiday", fields=("Auto-Submitted: auto-replied",)))
        send(hub, content=mail("other", fields=("X-Waypost-MQTT: 1 (pump/other)",)))
        send(hub, content=mail("cron", fields=("Auto-Submitted: auto-generated",)))
        done_with(hub)
        listener.settle()
        assert [one.payload for one in listener.got("pump/set")] == [b"other", b"cron"]


def test_what_would_be_published_is_told(start_hub: StartHub, broker: Mosquitto) -> None:
    hub = start_hub(config(broker, mqtt="", more='[http]\nurl = "http://hub.lan:2580"\n'))

    def told(content: bytes, *arguments: str) -> str:
        command = ("route", TOPIC, "--message", "-", *arguments)
        return hub.run(*command, stdin=content).stdout.decode()

    assert "pump/set: ON" in told(mail("", "ON"))
    [one] = json.loads(told(mail("ON"), "--json"))["deliveries"]
    assert one["messages"] == [{"topic": "pump/set", "retained": False, "payload": "ON"}]
    assert "An automatic reply" in told(mail("x", fields=("Auto-Submitted: auto-replied",)))
    assert "the text is too long" in told(mail(*["x" * 70] * 2_000))
    # Home Assistant leads to the hub's own page.
    bridge = "homeassistant/device/waypost_bridge/config"
    wait_until(lambda: bridge in broker.kept(), hub.log_text)
    assert json_of(broker.kept()[bridge])["dev"]["cu"] == "http://hub.lan:2580"


def test_a_device_hears_by_its_command_topic(start_hub: StartHub, broker: Mosquitto) -> None:
    hub = start_hub(config(broker))
    device = ("device", "set", DEVICE_IP, "--name", "Pump 7", "--command-topic")
    assert hub.run(*device, "plant/#").returncode == 2
    assert hub.run(*device, "plant/pump7/set#line").returncode == 0
    shown = hub.run("device", "show", "pump 7").stdout.decode()
    assert "publish:plant/pump7/set#line" in shown
    told = hub.run("route", f"anything@[{DEVICE_IP}]", "--from", "ann@plant.example")
    assert b"accepted: publish:plant/pump7/set#line" in told.stdout
    assert told.returncode == 0
    reply = mail("", "start", "", "-- ", "Ann", "> Pump 7 has stopped")
    with broker.listener("plant/#") as listener:
        send(hub, f"alarm@[{DEVICE_IP}]", reply)
        assert listener.wait_for("plant/pump7/set")[0].payload == b"start"
    assert hub.run("device", "set", "Pump 7", "--command-topic", "none").returncode == 0
    told = hub.run("route", f"anything@[{DEVICE_IP}]", "--from", "ann@plant.example")
    assert b"direct" in told.stdout


def test_a_device_of_the_configuration_does(start_hub: StartHub, broker: Mosquitto) -> None:
    named = (
        f'[[device]]\naddress = "{DEVICE_IP}"\nname = "Pumpe 7 (Höhe)"\n'
        'command_topic = "plant/pump7/set"\n'
    )
    hub = start_hub(config(broker, named))
    with broker.listener("plant/#") as listener:
        send(hub, f"alarm@[{DEVICE_IP}]")
        assert listener.wait_for("plant/pump7/set")[0].payload == b"ON"
    # And until the next reload.
    hub.config_file.write_text(hub.config_file.read_text().replace(named, ""))
    assert hub.run("reload").returncode == 0
    told = hub.run("route", f"anything@[{DEVICE_IP}]", "--from", "ann@plant.example")
    assert b"direct" in told.stdout
