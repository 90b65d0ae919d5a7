"""`waypost mailbox` and `waypost trace`: what people and scripts see of mail that came."""

from __future__ import annotations

import contextlib
import hashlib
import mailbox
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support.hub import Hub
from tests.support.mail import message, reply_to, submit, wire

from .conftest import StartHub

DEVICE_MAIL = Path(__file__).parents[1] / "data" / "device_mail"
BODY = ("Hello.", "From the window", ">From the door", "bye")


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A hub with mail: two messages in `alerts`, one in `door`, one refused recipient."""
    with Hub(tmp_path_factory.mktemp("reading") / "hub") as hub:
        with hub.smtp(local_hostname="cam.test") as smtp:
            first = submit(smtp, "alerts@[127.0.0.1]", content=message("first", *BODY))
            hub.wait_for_mail("alerts", 1)
            encoded = wire("From: c", "Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=", "", "Zwei.")
            second = submit(smtp, "alerts@[127.0.0.1]", content=encoded)
            hub.wait_for_mail("alerts", 2)
            third = submit(smtp, "door@[127.0.0.1]", sender="")
            hub.wait_for_mail("door", 1)
            reply_to(smtp, "MAIL FROM:<cam@[127.0.0.1]>")
            assert reply_to(smtp, "RCPT TO:<x@elsewhere.example>").startswith("550 5.7.1")
        yield SimpleNamespace(hub=hub, first=first, second=second, third=third)


def text_of(hub: Hub, *arguments: str, status: int = 0) -> str:
    done = hub.run(*arguments)
    assert done.returncode == status, done.stderr.decode()
    return done.stdout.decode()


def test_mailbox_list(here: SimpleNamespace) -> None:
    lines = text_of(here.hub, "mailbox", "list").splitlines()
    assert [line.split()[:3] for line in lines[1:]] == [["alerts", "2", "2"], ["door", "1", "1"]]
    boxes = here.hub.json("mailbox", "list")
    assert [(box["mailbox"], box["messages"], box["new"]) for box in boxes] == [
        ("alerts", 2, 2),
        ("door", 1, 1),
    ]


def test_mailbox_list_of_one(here: SimpleNamespace) -> None:
    text = text_of(here.hub, "mailbox", "list", "alerts")
    assert text.index("Grüße") < text.index("first")  # the newest stands first
    messages = here.hub.json("mailbox", "list", "alerts")
    assert [(entry["number"], entry["subject"]) for entry in messages] == [
        (1, "Grüße"),
        (2, "first"),
    ]


def test_mailbox_show(here: SimpleNamespace) -> None:
    text = text_of(here.hub, "mailbox", "show", "alerts", "2")
    assert "Subject: first" in text
    assert "Delivered-To: alerts@[127.0.0.1]" in text
    assert "Hello." in text.splitlines()
    (shown,) = here.hub.json("mailbox", "show", "ALERTS@[127.0.0.1]")
    assert shown["subject"] == "Grüße"
    assert shown["text"].split() == ["Zwei."]
    raw = here.hub.run("mailbox", "show", "alerts", "2", "--raw").stdout
    assert raw.endswith(message("first", *BODY))
    assert raw == Path(here.hub.json("mailbox", "show", "alerts", "2")[0]["path"]).read_bytes()


def test_mailbox_show_of_device_mail(hub: Hub) -> None:
    names = ["nvr_html_only", "nvr_gbk_no_mime", "camera_nested"]
    with hub.smtp() as smtp:
        for number, name in enumerate(names, 1):
            submit(smtp, "cams@[127.0.0.1]", content=(DEVICE_MAIL / f"{name}.eml").read_bytes())
            hub.wait_for_mail("cams", number)
    assert [one["subject"] for one in hub.json("mailbox", "list", "cams")] == [
        "Bewegung Südtor",
        "移动侦测报警",
        "Motion Detection – Garage",
    ]
    html = text_of(hub, "mailbox", "show", "cams", "3")
    assert "Event type:  Motion Detection" in html
    assert "tracker" not in html
    assert "报警事件: 移动侦测" in text_of(hub, "mailbox", "show", "cams", "2")
    nested = text_of(hub, "mailbox", "show", "cams", "1")
    assert "Bewegung am Südtor, Zone 3." in nested
    assert "[attachment: snap.jpg, image/jpeg, 897 B]" in nested
    (shown,) = hub.json("mailbox", "show", "cams", "1")
    assert [one["name"] for one in shown["attachments"]] == ["snap.jpg", "Einfahrt Süd (Nacht).png"]
    assert [one["saved_as"] for one in shown["attachments"]] == [None, None]


def test_attachments_are_saved_and_nothing_is_overwritten(hub: Hub, tmp_path: Path) -> None:
    with hub.smtp() as smtp:
        content = (DEVICE_MAIL / "missing_end.eml").read_bytes()
        submit(smtp, "cams@[127.0.0.1]", content=content)
    hub.wait_for_mail("cams")
    folder = tmp_path / "pictures"
    save = ("mailbox", "show", "cams", "--attachments", str(folder))
    assert f"[attachment: {folder}/a.jpg, image/jpeg, 897 B]" in text_of(hub, *save)
    (shown,) = hub.json(*save)
    (one,) = shown["attachments"]
    assert one["saved_as"] == f"{folder}/a (2).jpg"
    assert sorted(path.name for path in folder.iterdir()) == ["a (2).jpg", "a.jpg"]
    for path in folder.iterdir():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == one["sha256"]
    file = folder / "a.jpg"
    done = hub.run("mailbox", "show", "cams", "--attachments", str(file))
    assert done.returncode == 1
    assert b"cannot be saved" in done.stderr


def test_mail_that_cannot_be_read_whole_is_shown_as_far_as_it_can(hub: Hub) -> None:
    deep = b"Subject: deep\r\n" + b"Content-Type: message/rfc822\r\n\r\n" * 500
    with hub.smtp() as smtp:
        submit(smtp, "cams@[127.0.0.1]", content=deep)
    hub.wait_for_mail("cams")
    text = text_of(hub, "mailbox", "show", "cams")
    assert "Subject: deep" in text
    assert "[not all can be read: it has more than 100 levels]" in text
    assert "levels" in hub.json("mailbox", "show", "cams")[0]["fault"]


def test_mailbox_export_can_be_read_back(here: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "mbox").write_bytes(here.hub.run("mailbox", "export", "alerts").stdout)
    with contextlib.closing(mailbox.mbox(tmp_path / "mbox")) as mbox:
        first, second = mbox
    assert first["subject"] == "first"
    # mboxrd: one ">" more than was there.
    assert first.get_payload() == "Hello.\n>From the window\n>>From the door\nbye\n"
    assert second.get_payload() == "Zwei.\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("mailbox", "list", "nobody"),
        ("mailbox", "show", "nobody"),
        ("mailbox", "show", "alerts", "3"),
        ("mailbox", "export", "nobody"),
        ("trace", "--client", "192.0.2.1"),
        ("trace", "--address", "nobody@nowhere.example"),
        ("trace", "--id", "0000000000000"),
        ("queue", "show", "0000000000000"),
    ],
)
def test_what_is_not_there_is_exit_1(here: SimpleNamespace, arguments: tuple[str, ...]) -> None:
    assert here.hub.run(*arguments).returncode == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("mailbox", "peek"),
        ("mailbox", "show", "alerts", "one"),
        ("trace", "--client", "camera"),
        ("trace", "--id", "not an id"),
        ("queue", "hold"),
        ("queue", "hold", "not an id"),
        ("queue", "hold", "0000000000000", "--all"),
        ("route", "a@[1.2.3.400]"),
        ("route", "a@b", "--client", "camera"),
        ("send", "--to", "a@[1.2.3.400]"),
    ],
)
def test_wrong_usage_is_exit_2(here: SimpleNamespace, arguments: tuple[str, ...]) -> None:
    done = here.hub.run(*arguments)
    assert done.returncode == 2
    assert done.stderr
    assert b"Traceback" not in done.stderr


def test_trace_of_all(here: SimpleNamespace) -> None:
    entries = here.hub.json("trace")
    messages = [entry for entry in entries if entry["kind"] == "message"]
    assert [entry["id"] for entry in messages] == [here.third, here.second, here.first]
    first = messages[-1]
    assert (first["sender"], first["client_ip"], first["helo"], first["protocol"]) == (
        "ann@[127.0.0.1]",
        "127.0.0.1",
        "cam.test",
        "ESMTP",
    )
    assert first["size"] == len(message("first", *BODY))
    (recipient,) = first["recipients"]
    assert recipient["address"] == "alerts@[127.0.0.1]"
    assert recipient["target"] == "mailbox:alerts"
    assert recipient["outcome"] == "delivered"
    assert messages[0]["sender"] == ""
    (refusal,) = [entry for entry in entries if entry["kind"] == "refusal"]
    assert refusal["forward_path"] == "x@elsewhere.example"
    assert refusal["reply"].startswith("550 5.7.1")


@pytest.mark.parametrize(
    ("arguments", "subjects"),
    [
        (("--client", "127.0.0.1"), ("third", "second", "first")),
        (("--client", "::ffff:127.0.0.1"), ("third", "second", "first")),
        (("--client", "[127.0.0.1]", "--limit", "1"), ("third",)),
        (("--address", "ALERTS@[127.0.0.1]"), ("second", "first")),
        (("--address", "door"), ("third",)),
        (("--address", "ann@"), ("second", "first")),
        (("--address", "alerts", "--client", "127.0.0.1"), ("second", "first")),
    ],
)
def test_trace_finds(
    here: SimpleNamespace, arguments: tuple[str, ...], subjects: tuple[str, ...]
) -> None:
    entries = here.hub.json("trace", *arguments)
    found = [entry["id"] for entry in entries if entry["kind"] == "message"]
    assert found == [getattr(here, name) for name in subjects]


def test_trace_of_one_id(here: SimpleNamespace) -> None:
    (entry,) = here.hub.json("trace", "--id", here.first.upper())
    assert entry["id"] == here.first
    text = text_of(here.hub, "trace", "--id", here.first)
    for words in ("alerts@[127.0.0.1]", "delivered", "127.0.0.1 (trusted)", "as cam.test"):
        assert words in text


def test_trace_finds_refused_recipients(here: SimpleNamespace) -> None:
    text = text_of(here.hub, "trace", "--address", "elsewhere.example")
    assert "Refused:" in text
    assert "550 5.7.1" in text


def test_reading_needs_no_running_hub(here: SimpleNamespace, start_hub: StartHub) -> None:
    hub = start_hub()
    with hub.smtp() as smtp:
        queue_id = submit(smtp, "alerts@[127.0.0.1]")
    hub.wait_for_mail("alerts")
    hub.stop()
    assert hub.json("trace")[0]["id"] == queue_id
    assert hub.json("mailbox", "list")[0]["mailbox"] == "alerts"
    assert hub.json("queue", "list") == []


def test_a_directory_without_data_is_said_to_be_so(hub: Hub, tmp_path: Path) -> None:
    done = hub.run("trace", "--data", str(tmp_path / "nothing"))
    assert done.returncode == 1
    assert b"no hub's data" in done.stderr


def test_attack_68_nothing_a_sender_wrote_reaches_the_terminal_raw(hub: Hub) -> None:
    nasty = wire("From: x", "Subject: \x1b[31mred\x07", "", "\x1b]0;title\x07")
    with hub.smtp() as smtp:
        submit(smtp, "alerts@[127.0.0.1]", content=nasty)
    hub.wait_for_mail("alerts")
    for arguments in (("mailbox", "list", "alerts"), ("mailbox", "show", "alerts"), ("trace",)):
        assert "\x1b" not in text_of(hub, *arguments)
