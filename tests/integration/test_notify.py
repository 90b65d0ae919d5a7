"""Notifications: a real hub, Apprise's own plug-ins, and the web server they speak to."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path

import psutil
import pytest
from PIL import Image

from tests.support.hook_server import HookServer
from tests.support.hub import Hub
from tests.support.mail import message, submit
from tests.support.ports import reserved_port
from tests.support.toml import retry, route
from tests.support.waiting import wait_until

from .conftest import StartHub

PASSWORD = "pa55word-of-phones"
TOPIC = "t0pic-of-phones"
QUICK = retry(0.3, max_s=0.3)
TO = "cam@phones.example"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[HookServer]:
    with HookServer(tmp_path / "web") as started:
        yield started


def notify(*urls: str, more: str = "") -> str:
    """[notify.phones]."""
    quoted = ", ".join(f'"{url}"' for url in urls)
    return f"[notify.phones]\nurls = [{quoted}]\n{more}\n"


def at(server: HookServer, path: str, scheme: str = "json") -> str:
    """An Apprise URL that asks for `path`."""
    return f"{scheme}://user:{PASSWORD}@127.0.0.1:{server.port}{path}"


def send(hub: Hub, content: bytes | None = None) -> str:
    with hub.smtp() as smtp:
        return submit(smtp, TO, content=content)


def picture(width: int, height: int) -> bytes:
    """A JPEG that does not compress."""
    octets = io.BytesIO()
    noise = Image.frombytes("RGB", (width, height), os.urandom(width * height * 3))
    noise.save(octets, "JPEG", quality=95)
    return octets.getvalue()


def with_picture(octets: bytes) -> bytes:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "cam@[10.0.0.9]", TO, "Tür: Bewegung"
    mail.set_content("<b>Somebody</b> is $there.\n")
    mail.add_attachment(b"%PDF-1.4", "application", "pdf", filename="b.pdf")
    mail.add_attachment(octets, "image", "jpeg", filename="cam 1.jpg")
    return mail.as_bytes(policy=mail.policy.clone(linesep="\r\n"))


def attempts(hub: Hub) -> list[str]:
    return [line for line in hub.log_text().splitlines() if " attempt " in line]


def test_a_notification_has_title_text_and_picture(start_hub: StartHub, server: HookServer) -> None:
    templates = 'title = "$subject ($device)"\ntext = "$text\\nfor $recipient, $$5"\n'
    urls = (at(server, f"/200/{TOPIC}"), at(server, "/200/form", "form"))
    hub = start_hub(route("notify:phones") + notify(*urls, more=templates))
    octets = picture(20, 20)
    send(hub, with_picture(octets))
    [as_json] = server.wait_for(1, f"/200/{TOPIC}")
    assert as_json.json["title"] == "Tür: Bewegung (127.0.0.1)"
    assert as_json.json["message"] == (
        f"<b>Somebody</b> is $there.\n\nfor {TO}, $5\n1 attachment left out: b.pdf 8 B"
    )
    [attached] = as_json.json["attachments"]
    assert (attached["filename"], attached["mimetype"]) == ("cam 1.jpg", "image/jpeg")
    assert base64.b64decode(attached["base64"]) == octets
    [as_form] = server.wait_for(1, "/200/form")
    assert octets in as_form.body
    assert "Tür: Bewegung".encode() in as_form.body
    wait_until(lambda: hub.json("queue", "list") == [])
    assert "notify phones: 2 told" in hub.log_text()


@pytest.mark.parametrize("wanted", [True, False])
def test_a_large_picture_is_made_small(
    start_hub: StartHub, server: HookServer, wanted: bool
) -> None:
    more = "" if wanted else "picture = false\n"
    hub = start_hub(route("notify:phones") + notify(at(server, "/200"), more=more))
    octets = picture(1_600, 1_200)
    assert len(octets) > 1 << 20
    send(hub, with_picture(octets))
    [request] = server.wait_for(1)
    if not wanted:
        assert request.json["attachments"] == []
        return
    [attached] = request.json["attachments"]
    made = base64.b64decode(attached["base64"])
    with Image.open(io.BytesIO(made)) as small:
        assert small.size == (1_280, 960)
    assert attached["filename"] == "cam 1.jpg"


def test_other_attachments_go_along_where_they_are_wanted(
    start_hub: StartHub, server: HookServer
) -> None:
    urls = (at(server, "/200/json"), at(server, "/200/form", "form"))
    more = 'attachment_types = ["application/pdf"]\n'
    hub = start_hub(route("notify:phones") + notify(*urls, more=more))
    octets = picture(20, 20)
    send(hub, with_picture(octets))
    [as_json] = server.wait_for(1, "/200/json")
    sent = {one["filename"]: base64.b64decode(one["base64"]) for one in as_json.json["attachments"]}
    assert sent == {"b.pdf": b"%PDF-1.4", "cam 1.jpg": octets}
    assert "left out" not in as_json.json["message"]
    [as_form] = server.wait_for(1, "/200/form")
    assert octets in as_form.body
    assert b"%PDF-1.4" in as_form.body


def test_only_what_failed_is_tried_again(start_hub: StartHub, server: HookServer) -> None:
    urls = (at(server, "/200/good"), at(server, "/503,503,200/bad"))
    hub = start_hub(route("notify:phones") + notify(*urls) + QUICK)
    send(hub)
    wait_until(lambda: hub.json("queue", "list") == [], hub.log_text)
    assert len(server.asked("/200/good")) == 1
    assert len(server.asked("/503,503,200/bad")) == 3
    first, _, last = attempts(hub)
    assert "outcome=deferred" in first
    assert "URL 2 (JSON): HTTP 503 Service Unavailable" in first
    assert "outcome=delivered" in last


@pytest.mark.parametrize("second", ["/503,200/second", "/slow/second"])
def test_a_restart_tells_nobody_again(start_hub: StartHub, server: HookServer, second: str) -> None:
    """Neither after a failure, nor when the hub is killed between two URLs."""
    urls = [at(server, "/200/first"), at(server, second)]
    hub = start_hub(route("notify:phones") + notify(*urls) + retry(2, max_s=2))
    send(hub)
    server.wait_for(1, second)
    if "slow" not in second:
        hub.wait_for_log("outcome=deferred")
        hub.stop()
    hub.kill()
    kept = hub.data / "notify.json"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert PASSWORD.encode() not in kept.read_bytes()
    hub.start()
    server.wait_for(2, second)
    assert len(server.asked("/200/first")) == 1
    hub.kill()


def test_failures_are_told_apart(start_hub: StartHub, server: HookServer) -> None:
    with reserved_port() as dead:
        ways = {
            "wrong": (at(server, "/401"), "4.7.0", "HTTP 401 Unauthorized (the URL, or the key"),
            "busy": (at(server, "/429"), "4.4.5", "HTTP 429 Too Many Requests"),
            "ill": (at(server, "/500"), "4.4.5", "HTTP 500 Internal Server Error"),
            "away": (f"json://127.0.0.1:{dead}/{TOPIC}", "4.4.1", "onnection"),
            "moved": (at(server, "/302"), "4.4.5", "HTTP 302 Found"),
            "none": ("nosuch://x", "4.3.5", "no URL that Apprise knows"),
        }
        config = "".join(
            route(f"notify:{name}", name=name, match=f'recipient = "{name}@*"')
            + f'[notify.{name}]\nurls = ["{url}"]\n'
            for name, (url, _, _) in ways.items()
        )
        hub = start_hub(config)
        with hub.smtp() as smtp:
            submit(smtp, *(f"{name}@phones.example" for name in ways))
        wait_until(lambda: len(attempts(hub)) == len(ways), hub.log_text)
    for name, (_, status, words) in ways.items():
        [line] = [line for line in attempts(hub) if f"notify:{name}" in line]
        assert "outcome=deferred" in line
        assert status in line
        assert words in line
    assert server.asked("/200") == []


def test_no_secret_leaves_the_configuration(start_hub: StartHub, server: HookServer) -> None:
    file = server._log.parent / "urls"
    file.write_text(f"# phones\n{at(server, f'/503/{TOPIC}')}\n")
    file.chmod(0o600)
    with reserved_port() as dead:
        urls = (f"json://u:{PASSWORD}@127.0.0.1:{dead}/{TOPIC}", f"nosuch://{PASSWORD}")
        hub = start_hub(route("notify:phones") + notify(*urls, more=f'urls_file = "{file}"\n'))
        queue_id = send(hub)
        wait_until(lambda: attempts(hub), hub.log_text)
        shown = [
            hub.run(*words).stdout
            for words in (
                ("config", "show"),
                ("config", "show", "--json"),
                *(("queue", "list"), ("queue", "show", queue_id), ("trace",)),
            )
        ]
        workers = psutil.Process(hub.pid).children(recursive=True)
        assert any("notifier_worker" in " ".join(one.cmdline()) for one in workers)
        shown += [" ".join((*one.cmdline(), *one.environ().values())).encode() for one in workers]
        hub.stop()
    files = [path.read_bytes() for path in hub.data.glob("queue.db*")]
    for text in (*shown, hub.log_file.read_bytes(), *files):
        assert PASSWORD.encode() not in text
        assert TOPIC.encode() not in text
    assert not any(one.is_running() for one in workers)


def test_mail_to_a_mailbox_a_webhook_and_people_by_one_route(
    start_hub: StartHub, server: HookServer
) -> None:
    config = (
        route("mailbox:alerts", "webhook:plc", "notify:phones")
        + f'[webhook.plc]\nurl = "{server.url("/200/hook")}"\n'
        + notify(at(server, "/200/told"))
    )
    hub = start_hub(config)
    queue_id = send(hub)
    hub.wait_for_mail("alerts")
    [event] = server.wait_for(1, "/200/hook")
    [told] = server.wait_for(1, "/200/told")
    assert event.json["id"] == queue_id
    assert "x-waypost-signature" not in event.headers
    assert told.json["title"] == event.json["subject"] == "test"
    wait_until(lambda: hub.json("queue", "list") == [])


def test_a_slow_service_delays_no_other_target(start_hub: StartHub, server: HookServer) -> None:
    config = (
        route("notify:phones", "notify:others", "mailbox:alerts")
        + notify(at(server, "/slow"))
        + f'[notify.others]\nurls = ["{at(server, "/200")}"]\n'
    )
    hub = start_hub(config)
    for _ in range(3):
        send(hub)
    server.wait_for(3, "/200")
    hub.wait_for_mail("alerts", 3)


def test_a_process_that_dies_costs_one_attempt(start_hub: StartHub, server: HookServer) -> None:
    hub = start_hub(route("notify:phones") + notify(at(server, "/200")) + QUICK)
    send(hub)
    server.wait_for(1)
    wait_until(lambda: hub.json("queue", "list") == [])
    for process in psutil.Process(hub.pid).children(recursive=True):
        if "notifier_worker" in " ".join(process.cmdline()):
            process.kill()
    send(hub, message("again"))
    server.wait_for(2)
    wait_until(lambda: hub.json("queue", "list") == [])
