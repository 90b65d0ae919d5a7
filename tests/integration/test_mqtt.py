"""Devices' mail at a real broker: events, states, pictures, and what survives its death."""

from __future__ import annotations

import random
import re
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.certificates import Certificate
from tests.support.hub import Hub
from tests.support.mail import message, submit, wire
from tests.support.mosquitto import PASSWORD, USER, Mosquitto, json_of
from tests.support.ports import free_port
from tests.support.static_resolver import StaticResolver
from tests.support.toml import retry, route
from tests.support.waiting import wait_until
from waypost.app import make_own_addresses
from waypost.config.load import load_settings
from waypost.delivery.credentials import Credentials
from waypost.http.client import HttpClient
from waypost.net.gate import Gate, Origin
from waypost.net.networks import NOWHERE
from waypost.oauth.store import Kept, Loss

from .conftest import StartHub

DEVICE = "waypost/127-0-0-1"
JPEG = b"\xff\xd8\xff\xe0" + random.Random(6).randbytes(40_000) + b"\xff\xd9"
PNG = b"\x89PNG\r\n\x1a\n" + random.Random(7).randbytes(2_000)


@pytest.fixture
def broker() -> Iterator[Mosquitto]:
    with Mosquitto() as running:
        yield running


def config(broker: Mosquitto, more: str = "", *, kind: str = "motion", scheme: str = "mqtt") -> str:
    """A hub whose mail for cam@ goes to the broker."""
    return (
        f'[mqtt]\nurl = "{scheme}://127.0.0.1:{broker.port}"\n{more}\n'
        + route(f"mqtt:{kind}", match='recipient = "cam@*"')
        + retry(0.2, max_s=0.5)
    )


def picture_mail(*pictures: tuple[str, bytes], subject: str = "Motion") -> bytes:
    mail = EmailMessage()
    mail["From"] = "cam@[127.0.0.1]"
    mail["Subject"] = subject
    mail.set_content("Motion was seen.\n")
    for kind, octets in pictures:
        mail.add_attachment(octets, maintype="image", subtype=kind, filename=f"snap.{kind}")
    return mail.as_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def send(hub: Hub, content: bytes | None = None, *, to: str = "cam@[127.0.0.1]") -> str:
    with hub.smtp() as smtp:
        return submit(smtp, to, content=content)


def queued(hub: Hub) -> list[dict[str, Any]]:
    return hub.json("queue", "list")


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_mail_becomes_an_event_and_states(
    start_hub: StartHub, broker: Mosquitto, version: str
) -> None:
    hub = start_hub(config(broker, f'version = "{version}"'))
    with broker.listener("#") as listener:
        queue_id = send(hub, picture_mail(("png", PNG), ("jpeg", JPEG), subject="Tür offen"))
        [heard] = listener.wait_for(f"{DEVICE}/event")
        event = json_of(heard.payload)
        assert event["id"] == queue_id
        assert (event["event_type"], event["device"]) == ("motion", "127.0.0.1")
        assert (event["subject"], event["text"]) == ("Tür offen", "Motion was seen.\n")
        assert [one["size"] for one in event["attachments"]] == [len(PNG), len(JPEG)]
        assert not heard.was_kept
        assert heard.qos == 1
        # The event comes last: what it sets off may look at the rest.
        assert [one.payload for one in listener.got(f"{DEVICE}/image")] == [PNG]
        assert [one.payload for one in listener.got(f"{DEVICE}/motion")] == [b"ON"]
    kept = broker.kept("waypost/#")
    assert set(kept) == {
        *("waypost/bridge/state", "waypost/bridge/info"),
        *(f"{DEVICE}/{level}" for level in ("state", "motion", "image", "availability")),
    }
    assert kept[f"{DEVICE}/image"] == PNG
    assert kept[f"{DEVICE}/availability"] == kept["waypost/bridge/state"] == b"online"
    state = json_of(kept[f"{DEVICE}/state"])
    assert (state["count"], state["last_event"]) == (1, "motion")
    assert state["last_seen"] == event["received"]
    assert not queued(hub)


def test_nothing_is_kept_where_the_operator_wants_it_so(
    start_hub: StartHub, broker: Mosquitto
) -> None:
    hub = start_hub(config(broker, 'retain = false\ndiscovery = ""'))
    with broker.listener("#") as listener:
        send(hub, picture_mail(("jpeg", JPEG)))
        listener.wait_for(f"{DEVICE}/event")
        assert listener.got(f"{DEVICE}/image")
    assert set(broker.kept("#")) == {"waypost/bridge/state", "waypost/bridge/info"}


def test_the_last_will_says_that_the_hub_is_gone(start_hub: StartHub, broker: Mosquitto) -> None:
    hub = start_hub(config(broker))
    with broker.listener("waypost/bridge/state") as listener:
        listener.wait_for("waypost/bridge/state", payload=b"online")
        hub.kill()
        listener.wait_for("waypost/bridge/state", payload=b"offline")
        hub.start()
        listener.wait_for("waypost/bridge/state", 2, payload=b"online")
        hub.stop()
        listener.wait_for("waypost/bridge/state", 2, payload=b"offline")
    assert broker.kept("waypost/bridge/state") == {"waypost/bridge/state": b"offline"}


def test_each_mail_puts_off_the_end(start_hub: StartHub, broker: Mosquitto) -> None:
    hub = start_hub(config(broker, "reset_after_s = 2"))
    with broker.listener(f"{DEVICE}/#") as listener:
        for count in range(1, 4):
            send(hub)
            listener.wait_for(f"{DEVICE}/event", count)
            time.sleep(1.2)
        assert not [one for one in listener.got(f"{DEVICE}/motion") if one.payload == b"OFF"]
        listener.wait_for(f"{DEVICE}/motion", payload=b"OFF")
        listener.settle()
        states = [one.payload for one in listener.got(f"{DEVICE}/motion")]
        assert states == [b"ON"] * 3 + [b"OFF"]


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_what_was_on_ends_although_the_hub_did_not_run(
    start_hub: StartHub, broker: Mosquitto, how: str
) -> None:
    hub = start_hub(config(broker, "reset_after_s = 2"))
    with broker.listener(f"{DEVICE}/#") as listener:
        send(hub)
        listener.wait_for(f"{DEVICE}/event")
        getattr(hub, how)()
        time.sleep(2)
        assert broker.kept(f"{DEVICE}/motion") == {f"{DEVICE}/motion": b"ON"}
        hub.start()
        listener.wait_for(f"{DEVICE}/motion", payload=b"OFF")
    assert (hub.data / "mqtt.json").stat().st_mode & 0o777 == 0o600


def test_a_broker_that_forgot_is_told_again(start_hub: StartHub, broker: Mosquitto) -> None:
    hub = start_hub(config(broker))
    send(hub)
    wait_until(lambda: f"{DEVICE}/state" in broker.kept(), hub.log_text)
    before = broker.kept()
    broker.kill()
    broker.start()
    assert wait_until(lambda: len(found := broker.kept()) == len(before) and found, hub.log_text)
    assert broker.kept() == before


def test_mail_waits_while_the_broker_is_dead_and_other_mail_does_not(
    start_hub: StartHub, broker: Mosquitto
) -> None:
    broker.stop()
    hub = start_hub(
        f'[mqtt]\nurl = "mqtt://127.0.0.1:{broker.port}"\n'
        + route("mqtt:motion", "mailbox:cams", match='recipient = "cam@*"')
        + retry(3_600, max_s=3_600, warn_after_s=7_200, give_up_after_s=10_000)
    )
    queue_id = send(hub)
    hub.wait_for_mail("cams")
    [entry] = wait_until(lambda: [one for one in queued(hub) if "4.4.1" in str(one)], hub.log_text)
    assert entry["id"] == queue_id
    assert "451" in str(entry)
    broker.start()
    # Long before the schedule of the queue: the broker's return is what it waited for.
    with broker.listener(f"{DEVICE}/event") as listener:
        [heard] = listener.wait_for(f"{DEVICE}/event")
        assert json_of(heard.payload)["id"] == queue_id
    assert len(hub.mailbox("cams")) == 1


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_every_accepted_mail_is_published_though_the_broker_dies_under_load(
    start_hub: StartHub, broker: Mosquitto, version: str
) -> None:
    hub = start_hub(config(broker, f'version = "{version}"\ndiscovery = ""'))
    accepted: list[str] = []
    is_over = threading.Event()

    def load(number: int) -> None:
        with hub.smtp() as smtp:
            while not is_over.is_set():
                content = message(f"alarm {number}", "x" * 500)
                accepted.append(submit(smtp, "cam@[127.0.0.1]", content=content))

    with broker.listener(f"{DEVICE}/event", qos=0) as listener:
        threads = [threading.Thread(target=load, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for deaths in range(1, 4):
            listener.wait_for(f"{DEVICE}/event", 30 * deaths)
            broker.kill()
            before = listener.subscriptions
            time.sleep(0.5)
            # The hub must not be back before who counts is: the broker keeps no events.
            hub.send_signal(signal.SIGSTOP)
            broker.start()
            wait_until(lambda seen=before: listener.subscriptions > seen)
            hub.send_signal(signal.SIGCONT)
        listener.wait_for(f"{DEVICE}/event", 120)
        is_over.set()
        for thread in threads:
            thread.join()
        wait_until(lambda: not queued(hub), hub.log_text)
        listener.settle()
        published = Counter(json_of(one.payload)["id"] for one in listener.got(f"{DEVICE}/event"))
    lost = set(accepted) - set(published)
    assert len(set(accepted)) == len(accepted) > 100
    assert not lost, f"{len(lost)} of {len(accepted)} were never published"
    assert set(published) <= set(accepted)
    print(f"{len(accepted)} accepted, {sum(published.values())} published")


def test_tls_with_certificates_on_both_sides(start_hub: StartHub, tmp_path: Path) -> None:
    authority = Certificate(tmp_path, "authority", is_authority=True)
    server = Certificate(tmp_path, "server", ips=["127.0.0.1"], issuer=authority)
    own = Certificate(tmp_path, "hub", issuer=authority)
    other = Certificate(tmp_path, "other", is_authority=True)
    shown = f'certificate = "{own.file}"\nkey = "{own.key_file}"'
    with Mosquitto(authority=authority, server=server) as broker:
        trusting = start_hub(config(broker, f'ca = "{authority.file}"\n{shown}', scheme="mqtts"))
        with broker.listener("#") as listener:
            send(trusting)
            listener.wait_for(f"{DEVICE}/event")
            wary = start_hub(config(broker, f'ca = "{other.file}"\n{shown}', scheme="mqtts"))
            wary.wait_for_log("mqtt-lost")
            assert "TLS failed" in wary.log_text()
            bare = start_hub(config(broker, f'ca = "{authority.file}"', scheme="mqtts"))
            bare.wait_for_log("mqtt-lost")
            listener.settle()
            assert len(listener.got("waypost/bridge/state")) == 1


def test_a_password_gets_in_and_is_never_shown(start_hub: StartHub, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(f"{PASSWORD}\n")
    secret.chmod(0o600)
    with Mosquitto(has_login=True) as broker:
        login = f'username = "{USER}"\npassword_file = "{secret}"'
        hub = start_hub(config(broker, login))
        with broker.listener("#") as listener:
            send(hub)
            listener.wait_for(f"{DEVICE}/event")
        wrong = start_hub(config(broker, f'username = "{USER}"\npassword = "wr0ng-word"'))
        wrong.wait_for_log("mqtt-lost")
        assert "the broker refuses us" in wrong.log_text()
        send(wrong)
        entries = wait_until(lambda: [e for e in queued(wrong) if "4.4.1" in str(e)])
    for running, word in ((hub, PASSWORD), (wrong, "wr0ng-word")):
        shown = (
            running.run("config", "show").stdout + running.run("config", "show", "--json").stdout
        )
        assert b"Secret(***)" in shown
        assert word.encode() not in shown
        assert word not in running.log_text()
        assert word.encode() not in (running.data / "mqtt.json").read_bytes()
    assert "wr0ng-word" not in str(entries)


def test_a_topic_the_broker_refuses_is_told_and_mail_waits(start_hub: StartHub) -> None:
    acl = f"topic readwrite #\nuser {USER}\ntopic write waypost/bridge/#\n"
    with Mosquitto(has_login=True, acl=acl) as broker:
        hub = start_hub(config(broker, f'username = "{USER}"\npassword = "{PASSWORD}"'))
        send(hub)
        hub.wait_for_log("mqtt-refused")
        wait_until(lambda: "4.7.1" in str(queued(hub)), hub.log_text)


def test_home_assistant_finds_devices(start_hub: StartHub, broker: Mosquitto) -> None:
    named = '[[device]]\naddress = "127.0.0.1"\nname = "Tür / Höhe #1 +"\nkind = "camera"\n'
    hub = start_hub(config(broker) + named)
    device = "waypost/Tur-Hohe-1"
    topic = "homeassistant/device/waypost_Tur-Hohe-1/config"
    with broker.listener("homeassistant/#", f"{device}/#") as listener:
        send(hub, picture_mail(("jpeg", JPEG)))
        [heard] = listener.wait_for(f"{device}/event")
        assert json_of(heard.payload)["device"] == "Tür / Höhe #1 +"
        found = json_of(listener.wait_for(topic)[0].payload)
        assert found["dev"] == {
            "ids": ["waypost_Tur-Hohe-1"],
            "name": "Tür / Höhe #1 +",
            "mdl": "camera",
            "via_device": "waypost_bridge",
        }
        assert found["o"]["name"] == "Waypost"
        parts = found["cmps"]
        assert {name: part["p"] for name, part in parts.items()} == {
            "event": "event",
            "is_motion": "binary_sensor",
            "image": "image",
            "last_seen": "sensor",
            "count": "sensor",
        }
        assert parts["event"]["event_types"] == ["motion"]
        assert parts["is_motion"]["device_class"] == "motion"
        assert parts["image"]["content_type"] == "image/jpeg"
        assert len({part["unique_id"] for part in parts.values()}) == len(parts)
        said = {one.topic for one in listener.got()}
        for part in parts.values():
            assert part.get("state_topic") in {None, *said}
            assert part.get("image_topic") in {None, *said}
        # When Home Assistant comes up, it is told again.
        before = len(listener.got(topic))
        broker.publish("homeassistant/status", "online")
        listener.wait_for(topic, before + 1)
        listener.wait_for("homeassistant/device/waypost_bridge/config", 1)
    assert topic in broker.kept()


def test_a_device_that_left_the_configuration_is_taken_away(
    start_hub: StartHub, broker: Mosquitto
) -> None:
    named = '[[device]]\naddress = ["127.0.0.1", "192.0.2.7"]\nname = "Yard"\n'
    hub = start_hub(config(broker) + named)
    send(hub, picture_mail(("jpeg", JPEG)))
    wait_until(lambda: "waypost/Yard/state" in broker.kept(), hub.log_text)
    hub.config_file.write_text(hub.config_file.read_text().replace(named, ""))
    assert hub.run("reload").returncode == 0
    wait_until(lambda: not any("Yard" in topic for topic in broker.kept()), hub.log_text)
    send(hub)
    wait_until(lambda: f"{DEVICE}/state" in broker.kept(), hub.log_text)
    # One without a name goes when it is forgotten, until it comes again.
    assert hub.run("device", "forget", "127.0.0.1").returncode == 0
    wait_until(lambda: not any("127-0-0-1" in topic for topic in broker.kept()), hub.log_text)
    send(hub)
    wait_until(lambda: f"{DEVICE}/state" in broker.kept(), hub.log_text)
    # And named again while the broker is away.
    broker.stop()
    hub.config_file.write_text(f"{hub.config_file.read_text()}\n{named}")
    assert hub.run("reload").returncode == 0
    broker.start()
    wait_until(lambda: "waypost/bridge/state" in broker.kept(), hub.log_text)
    assert not any("127-0-0-1" in topic for topic in broker.kept())


def test_another_base_leaves_nothing_behind(start_hub: StartHub, broker: Mosquitto) -> None:
    hub = start_hub(config(broker))
    send(hub)
    wait_until(lambda: f"{DEVICE}/state" in broker.kept(), hub.log_text)
    text = hub.config_file.read_text()
    hub.config_file.write_text(text.replace("[mqtt]\n", '[mqtt]\nbase = "house"\n'))
    assert hub.run("reload").returncode == 0
    wait_until(lambda: "house/127-0-0-1/state" in broker.kept(), hub.log_text)
    wait_until(lambda: not any("waypost" in topic for topic in broker.kept()), hub.log_text)
    send(hub)
    wait_until(lambda: json_of(broker.kept()["house/127-0-0-1/state"])["count"] == 2, hub.log_text)


def reconfigure(hub: Hub, old: str, new: str) -> None:
    text = hub.config_file.read_text()
    assert old in text
    hub.config_file.write_text(text.replace(old, new))
    done = hub.run("reload")
    assert done.returncode == 0, done.stderr


def test_a_kind_that_no_route_names_any_more_goes(start_hub: StartHub, broker: Mosquitto) -> None:
    more = route("mqtt:fault", "mqtt:smoke", name="faults", match='recipient = "fault@*"')
    hub = start_hub(config(broker) + more)
    send(hub)
    send(hub, to="fault@[127.0.0.1]")
    topic = "homeassistant/device/waypost_127-0-0-1/config"
    wait_until(lambda: f"{DEVICE}/smoke" in broker.kept(), hub.log_text)
    wait_until(lambda: f"{DEVICE}/fault" in broker.kept(), hub.log_text)
    wait_until(lambda: not queued(hub), hub.log_text)
    with broker.listener(topic) as listener:
        listener.settle()
        before = len(listener.got(topic))
        reconfigure(hub, '"mqtt:fault", "mqtt:smoke"', '"mailbox:faults"')
        listener.wait_for(topic, before + 2)
        listener.settle()
        taken, after = (json_of(one.payload)["cmps"] for one in listener.got(topic)[before:])
    # With nothing but its platform a component goes; later it is not named at all.
    assert taken["is_fault"] == taken["is_smoke"] == {"p": "binary_sensor"}
    assert set(after) == {"event", "is_motion", "last_seen", "count"}
    assert after["event"]["event_types"] == ["motion"]
    wait_until(lambda: f"{DEVICE}/fault" not in broker.kept(), hub.log_text)
    assert json_of(broker.kept()[topic])["cmps"] == after
    # A broker that is away is told later, also by another run of the hub.
    broker.stop()
    reconfigure(hub, '"mqtt:motion"', '"mailbox:cams"')
    hub.kill()
    hub.start()
    broker.start()
    wait_until(lambda: "waypost/bridge/info" in broker.kept(), hub.log_text)
    wait_until(lambda: "127-0-0-1" not in "".join(broker.kept()), hub.log_text)


def test_a_broker_that_is_left_keeps_nothing(start_hub: StartHub, broker: Mosquitto) -> None:
    hub = start_hub(config(broker))
    send(hub, picture_mail(("jpeg", JPEG)))
    wait_until(lambda: f"{DEVICE}/motion" in broker.kept(), hub.log_text)
    with Mosquitto() as other, broker.listener("waypost/bridge/state") as listener:
        reconfigure(hub, str(broker.port), str(other.port))
        listener.wait_for("waypost/bridge/state", payload=b"offline")
        listener.settle()
        assert broker.kept() == {}
        wait_until(lambda: f"{DEVICE}/state" in other.kept(), hub.log_text)
        assert "mqtt-left-behind" not in hub.log_text()
        # And one that is dead cannot be told.
        other.kill()
        reconfigure(hub, str(other.port), str(broker.port))
        hub.wait_for_log("mqtt-left-behind")
        wait_until(lambda: f"{DEVICE}/state" in broker.kept(), hub.log_text)
        # Without a broker, there is none to keep anything.
        text = hub.config_file.read_text()
        without = text.replace("[mqtt]\n", "").replace("mqtt:motion", "mailbox:cams")
        hub.config_file.write_text(re.sub(r"(?m)^url = .*$", "", without))
        assert hub.run("reload").returncode == 0
        assert broker.kept() == {}


def test_another_broker_after_a_restart_is_told_of(start_hub: StartHub, broker: Mosquitto) -> None:
    hub = start_hub(config(broker))
    wait_until(lambda: "waypost/bridge/info" in broker.kept(), hub.log_text)
    hub.stop()
    with Mosquitto() as other:
        text = hub.config_file.read_text()
        hub.config_file.write_text(text.replace(str(broker.port), str(other.port)))
        hub.start()
        hub.wait_for_log("mqtt-left-behind")
        assert f":{broker.port}" in hub.log_text().split("mqtt-left-behind")[1].splitlines()[0]


def test_a_silent_device_is_not_available(start_hub: StartHub, broker: Mosquitto) -> None:
    hub = start_hub(config(broker))
    topic = f"{DEVICE}/availability"
    with broker.listener(topic) as listener:
        send(hub)
        listener.wait_for(topic, payload=b"online")
        assert hub.run("device", "set", "127.0.0.1", "--expect", "2s").returncode == 0
        listener.wait_for(topic, payload=b"offline")
    assert broker.kept(topic) == {topic: b"offline"}
    hub.kill()  # before the registry has written it down by itself
    hub.start()
    wait_until(lambda: hub.log_text().count("mqtt-connected") == 2, hub.log_text)
    wait_until(lambda: "waypost/bridge/info" in broker.kept(), hub.log_text)
    assert broker.kept(topic) == {topic: b"offline"}
    # Mail that goes elsewhere means that it is back, too.
    with broker.listener(topic) as listener:
        send(hub, to="other@[127.0.0.1]")
        listener.wait_for(topic, payload=b"online")
        listener.wait_for(topic, 2, payload=b"offline")
        # Who is not awaited any more is not missed.
        assert hub.run("device", "set", "127.0.0.1", "--expect", "none").returncode == 0
        listener.wait_for(topic, 2, payload=b"online")
    assert broker.kept(topic) == {topic: b"online"}


def test_lost_logins_are_told(start_hub: StartHub, broker: Mosquitto) -> None:
    relay = (
        '[relay.cloud]\npreset = "gmail"\nusername = "me@cloud.test"\nclient_id = "x"\n'
        'client_secret = "y"\n'
    )
    hub = start_hub(config(broker) + relay)
    topic = "waypost/bridge/info"
    wait_until(lambda: topic in broker.kept(), hub.log_text)
    assert json_of(broker.kept()[topic])["lost_logins"] == []
    settings = load_settings(hub.config_file, None, {})
    [cloud] = settings.relays
    assert cloud.oauth is not None
    gate = Gate(trusted=NOWHERE, own=make_own_addresses(settings), listening=frozenset)
    http = HttpClient(gate, StaticResolver(), Origin.OPERATOR)
    file = Credentials(settings.data_dir, http, settings.relays).file(cloud, cloud.oauth)
    file.path.parent.mkdir(exist_ok=True)
    file.write(Kept(None, Loss(time.time(), "revoked")))
    hub.stop()
    hub.start()
    wait_until(lambda: json_of(broker.kept()[topic])["lost_logins"] == ["cloud"], hub.log_text)


def test_mail_that_came_from_mqtt_does_not_go_back(start_hub: StartHub, broker: Mosquitto) -> None:
    hub = start_hub(config(broker))
    with broker.listener(f"{DEVICE}/event") as listener:
        send(hub, wire("X-Waypost-MQTT: 1", "From: <a@[127.0.0.1]>", "Subject: x", "", "y"))
        wait_until(lambda: not queued(hub), hub.log_text)
        queue_id = send(hub)
        [heard] = listener.wait_for(f"{DEVICE}/event")
        assert json_of(heard.payload)["id"] == queue_id


def test_pictures_too_large_are_left_out(start_hub: StartHub, broker: Mosquitto) -> None:
    hub = start_hub(config(broker, 'max_attachment = "10K"'))
    with broker.listener(f"{DEVICE}/#") as listener:
        send(hub, picture_mail(("jpeg", JPEG), ("png", PNG)))
        listener.wait_for(f"{DEVICE}/event")
        assert [one.payload for one in listener.got(f"{DEVICE}/image")] == [PNG]


def test_what_the_broker_takes_at_once_is_kept_to(start_hub: StartHub) -> None:
    with Mosquitto(options="max_packet_size 20000") as broker:
        hub = start_hub(config(broker))
        with broker.listener(f"{DEVICE}/#") as listener:
            send(hub, picture_mail(("jpeg", JPEG)))
            listener.wait_for(f"{DEVICE}/event")
            assert not listener.got(f"{DEVICE}/image")
            hub.wait_for_log("mqtt-image-left-out")


def test_one_event_for_all_recipients(start_hub: StartHub, broker: Mosquitto) -> None:
    hub = start_hub(config(broker))
    with broker.listener(f"{DEVICE}/event") as listener:
        with hub.smtp() as smtp:
            queue_id = submit(smtp, "cam@[127.0.0.1]", "CAM@[127.0.0.1]")
        listener.wait_for(f"{DEVICE}/event")
        wait_until(lambda: not queued(hub), hub.log_text)
        listener.settle()
        assert [json_of(one.payload)["id"] for one in listener.got(f"{DEVICE}/event")] == [queue_id]


def test_the_gate_judges_where_the_broker_is(start_hub: StartHub) -> None:
    port = free_port()
    text = f'[mqtt]\nurl = "mqtt://127.0.0.1:{port}"\n' + route("mqtt:motion")
    hub = start_hub(text, port=port)
    hub.wait_for_log("mqtt-lost")
    assert "is this hub" in hub.log_text()


def test_what_answers_may_speak_anything(start_hub: StartHub) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)
        port = server.getsockname()[1]
        hub = start_hub(f'[mqtt]\nurl = "mqtt://127.0.0.1:{port}"\n' + route("mqtt:motion"))
        for octets in (b"\x20\xff\xff\xff\xff\xff", b"\x30\x02\xff\xff", b"\x20\x01\x00", b""):
            connected, _ = server.accept()
            with connected:
                assert b"MQTT" in connected.recv(1_000)
                connected.sendall(octets)
                hub.wait_for_log("mqtt-lost")
    with hub.smtp() as smtp:
        assert smtp.noop()[0] == 250
    assert " bug " not in hub.log_text()
    assert "Traceback" not in hub.log_text()


def test_the_way_of_a_mail_is_told(start_hub: StartHub, broker: Mosquitto) -> None:
    hub = start_hub(config(broker))
    done = hub.run("route", "cam@[127.0.0.1]", "--client", "127.0.0.1")
    assert b"mqtt:motion" in done.stdout
    assert done.returncode == 0


def test_a_hub_without_a_broker_any_more_keeps_still(
    start_hub: StartHub, broker: Mosquitto
) -> None:
    """What was ON when the broker left the configuration must not keep the hub busy."""
    hub = start_hub(config(broker, "reset_after_s = 1"))
    text = hub.config_file.read_text()
    with broker.listener(f"{DEVICE}/#", "waypost/bridge/state") as listener:
        send(hub)
        listener.wait_for(f"{DEVICE}/event")
        listener.settle()
        lines = text.splitlines(keepends=True)
        without = [line for line in lines if not line.startswith(("[mqtt]", "url", "reset_after"))]
        hub.config_file.write_text("".join(without).replace("mqtt:motion", "mailbox:cams"))
        assert hub.run("reload").returncode == 0
        listener.wait_for("waypost/bridge/state", payload=b"offline")
        time.sleep(1)
        before = psutil.Process(hub.pid).cpu_times().user
        time.sleep(1)
        assert psutil.Process(hub.pid).cpu_times().user - before < 0.5
        hub.config_file.write_text(text)
        assert hub.run("reload").returncode == 0
        listener.wait_for(f"{DEVICE}/motion", payload=b"OFF")
