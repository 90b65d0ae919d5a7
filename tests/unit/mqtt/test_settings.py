"""[mqtt] and [[device]]: what is taken, and what each fault says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.config.test_settings import faults, load
from waypost.mqtt.settings import BrokerUrl, MqttSettings

URL = '[mqtt]\nurl = "mqtt://10.0.0.1"\n'
MAIL = URL + 'mailbox = "mqtt"\ntopics = ["#"]\n'
DEVICE = '[[device]]\naddress = "10.0.0.5"\nname = "a"\n'
ROUTE = '[[route]]\nname = "r"\nmatch = {}\n'
SECURE = '[mqtt]\nurl = "mqtts://broker.lan"\n'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mqtt://10.0.0.1", "mqtt://10.0.0.1:1883"),
        ("mqtts://broker.lan/", "mqtts://broker.lan:8883"),
        ("mqtt://[fd00::1]:1884", "mqtt://[fd00::1]:1884"),
    ],
)
def test_urls(text: str, expected: str) -> None:
    assert str(BrokerUrl.parse(text)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "10.0.0.1",
        "http://10.0.0.1",
        "ws://10.0.0.1",
        "mqtt://",
        "mqtt://user:word@10.0.0.1",
        "mqtt://10.0.0.1:0",
        "mqtt://10.0.0.1:99999",
        "mqtt://10.0.0.1/topic",
        "mqtt://10.0.0.1?x",
        "mqtt://127.1",
        "mqtt://fe80::1%eth0",
        "mqtt://a b",
    ],
)
def test_what_is_no_broker(text: str) -> None:
    with pytest.raises(ValueError, match=r"URL|mqtt|host"):
        BrokerUrl.parse(text)


def test_no_password_in_an_error(tmp_path: Path) -> None:
    [fault] = faults(tmp_path, '[mqtt]\nurl = "mqtt://user:w0rd@10.0.0.1"\n')
    assert "mqtt.username" in str(fault)
    assert "w0rd" not in str(fault)


def test_all_of_it(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        SECURE
        + 'base = "house"\ndiscovery = ""\nusername = "u"\npassword = "p"\nversion = "3.1.1"\n'
        'ca = "/ca"\ncertificate = "/c"\nkey = "/k"\nretain = false\nreset_after_s = 5\n'
        'max_attachment = "1M"\npicture_px = 0\nmax_text = 100\n'
        '[[device]]\naddress = ["10.0.0.5", "::ffff:10.0.0.6"]\nname = "Door"\nkind = "camera"\n',
    )
    mqtt = settings.mqtt
    assert mqtt is not None
    assert mqtt.password is not None
    assert (mqtt.base, mqtt.discovery, mqtt.version) == ("house", "", "3.1.1")
    assert (mqtt.retain, mqtt.reset_after_s) == (False, 5.0)
    events = settings.mqtt_events
    assert (events.rules.max_octets, events.rules.picture_px, events.max_text) == (
        1 << 20,
        None,
        100,
    )
    assert mqtt.password.revealed == "p"
    assert "'p'" not in repr(settings)
    [device] = settings.devices
    assert [str(ip) for ip in device.addresses] == ["10.0.0.5", "10.0.0.6"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[mqtt]\nbase = "x"\n', "needs mqtt.url"),
        ('[[route]]\nname = "r"\nmatch = {}\nto = ["mqtt:motion"]\n', "needs mqtt.url"),
        (URL + 'password = "x"\n', "mqtt.username"),
        (URL + 'certificate = "x"\nkey = "x"\n', "mqtts:// only"),
        (SECURE + 'certificate = "x"\n', "go together"),
        (URL + 'base = "a/b"\n', "is no base"),
        (URL + 'base = "+"\n', "is no base"),
        (URL + 'discovery = "a//b"\n', "is no prefix"),
        (URL + 'discovery = "#"\n', "is no prefix"),
        (URL + 'version = "3.1"\n', "expected one of"),
        (URL + '[[route]]\nname = "r"\nmatch = {}\nto = ["mqtt:a/b"]\n', "kind of event"),
        (URL + '[[route]]\nname = "r"\nmatch = {}\nto = ["mqtt:state"]\n', "kind of event"),
        (URL + '[[route]]\nname = "r"\nmatch = {}\nto = ["mqtt"]\n', "needs an argument"),
        ('[[device]]\naddress = "10.0.0.5"\nname = "bridge"\n', "the hub's own"),
        ('[[device]]\naddress = "10.0.0.5"\nname = "10.0.0.6"\n', "an IP address"),
        (DEVICE + 'command_topic = "a/set"\n', "needs mqtt.url"),
        (URL + DEVICE + 'command_topic = "a/+"\n', "many topics"),
        (URL + DEVICE + 'command_topic = "waypost/a"\n', "the hub's own"),
        (ROUTE + 'to = ["publish:a"]\n', "publish: needs mqtt.url"),
        (URL + ROUTE + 'to = ["publish:homeassistant/status"]\n', "the hub's own"),
        (URL + ROUTE + 'to = ["publish:a#body"]\n', "behind # expected"),
        (URL + 'mailbox = "mqtt"\n', "go together"),
        (URL + 'topics = ["#"]\n', "go together"),
        (URL + "topics = []\n", "with an entry"),
        (URL + 'topics = ["a#"]\n', "stands alone"),
        (URL + 'mailbox = "m+t"\n', "letters"),
        (MAIL + '[mailboxes]\nsubaddress = ""\n', "needs mailboxes.subaddress"),
        (MAIL + '[mailboxes]\nsubaddress = "q"\n', "begins the topic"),
        (MAIL + '[[mailbox]]\nname = "MQTT"\n', "name of a mailbox"),
        (MAIL + '[[mailbox]]\nname = "a"\naliases = ["mqtt"]\n', "name of a mailbox"),
        (MAIL + '[list.mqtt]\nmembers = ["a@[10.0.0.1]"]\n', "name of a mailbox"),
        ('[[device]]\naddress = "door.lan"\nname = "d"\n', "expected an IP address"),
        (
            '[[device]]\naddress = "10.0.0.5"\nname = "a b"\n'
            '[[device]]\naddress = "10.0.0.6"\nname = "a/b"\n',
            "two devices",
        ),
        (
            '[[device]]\naddress = "10.0.0.5"\nname = "a"\n'
            '[[device]]\naddress = "10.0.0.5"\nname = "b"\n',
            "is here twice",
        ),
    ],
)
def test_faults(tmp_path: Path, text: str, says: str) -> None:
    [fault] = faults(tmp_path, text)
    assert says in str(fault)


def test_topics_that_become_mail(tmp_path: Path) -> None:
    text = (
        f'{URL}requests = true\n[[mqtt.subscribe]]\ntopic = "a/+"\nroute = "ops"\n'
        '[[mqtt.subscribe]]\ntopic = "b/#"\nqos = 0\nfrom = "x@y.test"\n'
        'to = ["ann@[10.0.0.1]"]\nsubject = "${topic.1}"\ntext = "${json.a.0}\\n$payload"\n'
        '[[route]]\nname = "ops"\nmatch = {}\nto = ["mailbox:ops"]\n'
    )
    settings = load(tmp_path, text).mqtt
    assert settings is not None
    assert settings.requests
    first, second = settings.subscribe
    assert (first.topic, first.qos, first.route, first.to) == ("a/+", 1, "ops", ())
    assert first.subject.fill({"topic": "a/b"}) == "Message on a/b"
    assert (second.qos, str(second.sender), len(second.to)) == (0, "x@y.test", 1)
    assert load(tmp_path, URL).mqtt == MqttSettings(BrokerUrl.parse("mqtt://10.0.0.1"))


@pytest.mark.parametrize(
    ("entry", "line", "expected"),
    [
        ('topic = "a/#/b"\nto = ["a@b.test"]', 4, "# stands alone"),
        ('topic = "a"\n', 3, "either to or route"),
        ('topic = "a"\nto = ["a@b.test"]\nroute = "ops"', 3, "either to or route"),
        ('topic = "a"\nroute = "none"', 5, "no [[route]] named 'none'"),
        ('topic = "waypost/x"\nto = ["a@b.test"]', 4, "the hub's own"),
        ('topic = "$share/g/a"\nto = ["a@b.test"]', 4, "shared"),
        ('topic = "a"\nto = ["a@b.test"]\nqos = 2', 6, "0 or 1"),
        ('topic = "a"\nto = ["a@b.test"]\nqos = true', 6, "0 or 1"),
        ('topic = "a"\nto = ["a@b.test"]\nsubject = "$other"', 6, "unknown: $other"),
        ('topic = "a"\nto = ["a@b.test"]\nsubject = "${payload.x}"', 6, "nothing below $payload"),
        ('topic = "a"\nto = ["a@b.test"]\ncolour = "red"', 6, "unknown key; known here: topic"),
        ('to = ["a@b.test"]', 3, "topic is missing"),
        (
            'topic = "a/+"\nto = ["a@b.test"]\n[[mqtt.subscribe]]\ntopic = "+/b"\n'
            'to = ["a@b.test"]',
            7,
            "'a/+' may match the same message",
        ),
    ],
)
def test_faults_of_subscriptions(tmp_path: Path, entry: str, line: int, expected: str) -> None:
    [fault] = faults(tmp_path, f"{URL}[[mqtt.subscribe]]\n{entry}\n")
    assert expected in str(fault)
    assert f":{line}: mqtt.subscribe" in str(fault)


def test_subscriptions_need_a_broker(tmp_path: Path) -> None:
    [fault] = faults(tmp_path, '[[mqtt.subscribe]]\ntopic = "a"\nto = ["a@b.test"]\n')
    assert "needs mqtt.url" in str(fault)
    [fault] = faults(tmp_path, f"{URL}subscribe = 7\n")
    assert "expected [[mqtt.subscribe]], a list of tables" in str(fault)
    [fault] = faults(tmp_path, f"{URL}subscribes = 7\n")
    assert "and the tables mqtt.subscribe" in str(fault)
