"""What programs post becomes mail: JSON with a token, and webhooks of others."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest

from tests.support.forwarder import forwarder
from tests.support.http import TOKEN, Got, WebHub, ask, connected, read_all
from tests.support.mail import parsed
from tests.support.toml import retry, route
from tests.support.waiting import wait_until
from waypost.delivery.webhook import signature
from waypost.smtp.auth import Secret

API = "/api/v1/send"
HOOK_TOKEN = "a-token-of-grafana-0123456789"
SECRET = "a-secret-of-the-tests-0123456789"

CONFIG = f"""
{route("mailbox:door", name="doors", match='recipient = "door*@*"')}
[api_token.plc]
token = "a-token-of-the-plc-0123456789"
senders = ["plc*@*"]
networks = ["127.0.0.5"]
[inbound.grafana]
token = "{HOOK_TOKEN}"
to = ["alerts", "ann@[127.0.0.1]"]
from = "grafana@plant.example"
subject = "${{json.status}}: ${{json.alerts.0.labels.alertname}}"
text = "${{json.message}}\\n\\nFrom $client by $hook."
[inbound.plain]
token = "{HOOK_TOKEN}"
route = "doors"
[inbound.form]
token = "{HOOK_TOKEN}"
to = ["form"]
subject = "Door ${{form.door}}"
[inbound.chain]
secret = "{SECRET}"
to = ["chain"]
subject = "${{json.subject}}"
[inbound.repo]
secret = "{SECRET}"
signature = "github"
to = ["repo"]
[inbound.far]
token = "{HOOK_TOKEN}"
to = ["far"]
networks = ["192.0.2.0/24"]
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebHub]:
    with WebHub(tmp_path_factory.mktemp("mail") / "hub", CONFIG) as it:
        yield it


def send(hub: WebHub, values: dict[str, Any], **more: Any) -> Got:
    return ask(hub.web, "POST", API, values, **({"token": TOKEN} | more))


def text_of(octets: bytes) -> str:
    """The text of a mail that has nothing else."""
    text: str = parsed(octets).get_content()
    return text.replace("\r\n", "\n")


def post(hub: WebHub, name: str, body: object, **more: Any) -> Got:
    return ask(hub.web, "POST", f"/hook/{name}", body, **({"token": HOOK_TOKEN} | more))


# Mail in JSON.


def test_a_request_becomes_mail_with_files(hub: WebHub) -> None:
    picture = os.urandom(200_000)
    got = send(
        hub,
        {
            "to": ["files@[127.0.0.1]"],
            "from": "nas@plant.example",
            "subject": "Tür",
            "text": "Somebody is there.",
            "html": "<b>Somebody</b> is there.",
            "attachments": [
                {
                    "name": "a.jpg",
                    "type": "image/jpeg",
                    "data_base64": base64.b64encode(picture).decode(),
                }
            ],
            "priority": "high",
            "dedupe_key": "k1",
            "transaction": {"n": [1, "ü"]},
        },
    )
    assert got.status == 200
    assert got.json["transaction"] == {"n": [1, "ü"]}
    [octets] = hub.wait_for_mail("files")
    mail = parsed(octets)
    assert mail["From"] == "nas@plant.example"
    assert mail["Subject"] == "Tür"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["X-Waypost-HTTP"] == "tests"
    [file] = mail.iter_attachments()
    assert file.get_content() == picture
    assert f"with HTTP id {got.json['id']}".encode() in octets


def test_the_trace_says_how_it_came(hub: WebHub) -> None:
    queue_id = send(hub, {"to": ["trace@[127.0.0.1]"], "text": "x"}).json["id"]
    [entry] = hub.json("trace", "--id", queue_id)
    assert (entry["protocol"], entry["listener"], entry["client_ip"], entry["helo"]) == (
        *("HTTP", "web", "127.0.0.1", "tests"),
    )
    send(hub, {"to": ["nobody@far.example"], "text": "x"}, source="127.0.0.9")
    assert any(
        entry["listener"] == "web" and entry["forward_path"] == "nobody@far.example"
        for entry in wait_until(lambda: hub.json("trace", "--client", "127.0.0.9"))
    )


def test_what_smtp_refuses_is_refused_in_its_words(hub: WebHub) -> None:
    got = send(hub, {"to": ["nobody@far.example"], "text": "x", "transaction": 5})
    assert got.status == 422
    assert (got.json["code"], got.json["enhanced"]) == (550, "5.7.1")
    assert "far.example" in got.json["text"]
    assert got.json["transaction"] == 5
    got = send(hub, {"to": ["a@[127.0.0.1"], "text": "x"})
    assert (got.status, got.json["code"], got.json["enhanced"]) == (422, 501, "5.1.3")
    got = send(hub, {"to": ["a@[127.0.0.1]"], "from": "x@[192.0.2.7]", "text": "x"})
    assert (got.status, got.json["enhanced"]) == (422, "5.7.1")  # the literal is not proven
    got = send(hub, {"to": ["a@[127.0.0.1]"], "txt": "x", "transaction": 6})
    assert (got.status, got.json["transaction"]) == (400, 6)
    assert "unknown key 'txt'" in got.json["detail"]
    # All recipients, or none.
    got = send(hub, {"to": ["half@[127.0.0.1]", "nobody@far.example"], "text": "x"})
    assert got.status == 422
    assert not hub.mailbox("half")


def test_a_message_that_is_too_large(tmp_path: Path) -> None:
    with WebHub(tmp_path / "hub", "[limits]\nmessage_bytes = 100000\n") as hub:
        got = send(hub, {"to": ["a@[127.0.0.1]"], "text": "x" * 200_000})
        assert (got.status, got.json["code"]) == (413, 552)


def test_a_token_has_its_senders_and_networks(hub: WebHub) -> None:
    mine = {"token": "a-token-of-the-plc-0123456789", "source": "127.0.0.5"}
    values: dict[str, Any] = {"to": ["plc@[127.0.0.1]"], "text": "x"}
    assert send(hub, values, **mine).status == 200
    assert send(hub, values | {"from": "plc7@plant.example"}, **mine).status == 200
    got = send(hub, values | {"from": "ann@plant.example"}, **mine)
    assert (got.status, got.json["code"]) == (422, 553)
    assert send(hub, values, token=mine["token"]).status == 403
    # What says who may do it is in no page's reach: another site's form or cookie is nobody.
    form = {"Content-Type": "text/plain", "Origin": "http://evil.example", "Cookie": f"t={TOKEN}"}
    assert ask(hub.web, "POST", API, b"{}", headers=form).status == 401
    assert ask(hub.web, "POST", f"{API}?token={TOKEN}", b"{}").status == 401


def test_an_idempotency_key_goes_along(hub: WebHub) -> None:
    headers = {"Content-Type": "application/json", "Idempotency-Key": '"key-7"'}
    assert send(hub, {"to": ["idem@[127.0.0.1]"], "text": "x"}, headers=headers).status == 200
    assert parsed(hub.wait_for_mail("idem")[0])["X-Waypost-Dedupe"] == "key-7"
    headers["Idempotency-Key"] = "x" * 201
    assert send(hub, {"to": ["idem@[127.0.0.1]"], "text": "x"}, headers=headers).status == 400


def test_attack_53_line_ends_in_json(hub: WebHub) -> None:
    evil = "x\r\nBcc: evil@far.example\r\n\r\nbody"
    got = send(
        hub,
        {
            "to": ["inject@[127.0.0.1]"],
            "subject": evil,
            "text": "\u0000.\r\n.\nend",
            "attachments": [{"name": evil, "type": "text/x\r\nX: y", "data_base64": "QQ=="}],
            "dedupe_key": evil,
        },
    )
    assert got.status == 200
    mail = parsed(hub.wait_for_mail("inject")[0])
    assert mail["Bcc"] is None
    assert "Bcc: evil@far.example" in mail["Subject"]
    assert send(hub, {"to": [f"a@[127.0.0.1]{evil}"], "text": "x"}).status == 422


def test_many_at_once_in_little_memory(hub: WebHub) -> None:
    """Large requests come one behind the other, however many there are."""
    text = "x" * 3_000_000
    with ThreadPoolExecutor(8) as pool:
        sent = [
            pool.submit(send, hub, {"to": ["many@[127.0.0.1]"], "text": text}) for _ in range(8)
        ]
        assert [one.result().status for one in sent] == [200] * 8
    assert len(hub.wait_for_mail("many", 8)) == 8


def test_nothing_is_lost_by_kill_9(tmp_path: Path) -> None:
    """200 means durable: every id that was told is delivered after a kill."""
    with WebHub(tmp_path / "hub", retry(0.1)) as hub:
        told: list[str] = []
        stop = threading.Event()

        def client(number: int) -> None:
            while not stop.is_set():
                values = {"to": [f"kill{number}@[127.0.0.1]"], "text": "x" * 9_000}
                try:
                    # From an address of its own: while the hub is away, a client of the same
                    # address could take its port, and so speak to itself.
                    got = send(hub, values, source="127.0.0.2")
                except (OSError, HTTPException):
                    time.sleep(0.05)
                    continue
                assert got.status == 200
                told.append(got.json["id"])

        clients = [threading.Thread(target=client, args=(number,)) for number in range(4)]
        for thread in clients:
            thread.start()
        for _ in range(4):
            count = len(told)
            wait_until(lambda n=count: len(told) > n + 50)
            hub.kill()
            hub.start()
        stop.set()
        for thread in clients:
            thread.join()
        wait_until(lambda: not hub.json("queue", "list"))
        found = b"".join(octets for number in range(4) for octets in hub.mailbox(f"kill{number}"))
        lost = [queue_id for queue_id in told if f"with HTTP id {queue_id}".encode() not in found]
        assert len(told) > 200
        assert not lost


# Hooks.

GRAFANA = {
    "status": "firing",
    "message": "CPU above 90 %",
    "alerts": [{"labels": {"alertname": "CPU is hot"}}],
}


def test_json_by_templates(hub: WebHub) -> None:
    assert post(hub, "grafana", GRAFANA).status == 200
    for box in ("alerts", "ann"):
        octets = hub.wait_for_mail(box)[0]
        mail = parsed(octets)
        assert mail["From"] == "grafana@plant.example"
        assert mail["Subject"] == "firing: CPU is hot"
        assert text_of(octets) == "CPU above 90 %\n\nFrom 127.0.0.1 by grafana.\n"
        assert mail["X-Waypost-HTTP"] == "grafana; hooks=1"
    # What is not there is empty, and a subject without a word is the hook's name.
    got = post(hub, "grafana", b"[]", headers={"Content-Type": "application/json"})
    assert got.status == 200
    assert parsed(hub.wait_for_mail("alerts", 2)[1])["Subject"] == ":"


def test_text_and_a_route(hub: WebHub) -> None:
    headers = {"Content-Type": "text/plain; charset=iso-8859-1"}
    assert post(hub, "plain", "Tür auf".encode("latin-1"), headers=headers).status == 200
    octets = hub.wait_for_mail("door")[0]
    assert (parsed(octets)["Subject"], text_of(octets)) == ("plain", "Tür auf\n")


def test_a_form_by_curl(hub: WebHub) -> None:
    command = ["curl", "-s", "-H", f"X-Waypost-Token: {HOOK_TOKEN}", "-d", "door=front"]
    command += ["--data-urlencode", "text=ä & b", f"http://127.0.0.1:{hub.web}/hook/form"]
    done = subprocess.run(command, capture_output=True, check=True, timeout=30)
    assert json.loads(done.stdout)["id"]
    octets = hub.wait_for_mail("form")[0]
    assert parsed(octets)["Subject"] == "Door front"
    assert text_of(octets) == "door: front\ntext: ä & b\n"


def test_who_may_not_post(hub: WebHub) -> None:
    assert post(hub, "none", {}).status == 404
    assert post(hub, "far", {}).status == 403
    assert post(hub, "grafana", {}, token=None).status == 401
    assert post(hub, "grafana", {}, token=TOKEN, source="127.0.0.11").status == 401
    for kind in ("image/jpeg", "multipart/form-data; boundary=x"):
        assert post(hub, "plain", b"x", headers={"Content-Type": kind}).status == 415
    assert post(hub, "plain", b"x" * 1_100_000).status == 413
    bomb = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    assert post(hub, "plain", b"x", headers=bomb).status == 415
    deep = b"[" * 100_000
    assert post(hub, "plain", deep, headers={"Content-Type": "application/json"}).status == 400


def signed(body: bytes, at: float | None = None, secret: str = SECRET) -> dict[str, str]:
    stamp = str(int(time.time() if at is None else at))
    return {
        "Content-Type": "application/json",
        "X-Waypost-Timestamp": stamp,
        "X-Waypost-Signature": signature(Secret(secret), stamp, body),
    }


def chain(hub: WebHub, body: bytes, headers: dict[str, str], source: str = "127.0.0.1") -> Got:
    return ask(hub.web, "POST", "/hook/chain", body, headers=headers, source=source)


def test_signed_posts_are_taken_once(hub: WebHub) -> None:
    body = b'{"subject": "signed"}'
    headers = signed(body)
    first = chain(hub, body, headers)
    assert first.status == 200
    assert chain(hub, body, headers).json == first.json  # a copy
    assert chain(hub, body, signed(body, time.time() - 1)).json != first.json
    assert len(hub.wait_for_mail("chain", 2)) == 2
    for wrong, source in (
        (signed(body, time.time() - 400), "127.0.0.21"),
        (signed(body, secret="another"), "127.0.0.22"),
        (signed(b"{}"), "127.0.0.23"),
    ):
        assert chain(hub, body, wrong, source).status == 401
    assert chain(hub, body, {"Authorization": f"Bearer {SECRET}"}).status == 401
    assert len(hub.mailbox("chain")) == 2
    assert SECRET not in hub.log_text()


def test_signatures_as_github_has_them_are_for_hooks_that_say_so(hub: WebHub) -> None:
    body = b'{"action": "opened"}'
    mac = "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    headers = {"Content-Type": "application/json", "X-Hub-Signature-256": mac}
    assert ask(hub.web, "POST", "/hook/repo", body, headers=headers).status == 200
    assert "opened" in parsed(hub.wait_for_mail("repo")[0]).get_content()
    assert chain(hub, body, headers).status == 401
    # One with a time, taken apart, is none without.
    ours = signed(body)
    fake = ours["X-Waypost-Timestamp"].encode() + b"." + body
    mac = ours["X-Waypost-Signature"].replace("v1=", "sha256=")
    other = {"Content-Type": "text/plain", "X-Hub-Signature-256": mac}
    assert chain(hub, fake, other, "127.0.0.24").status == 401


# Hubs in a row.


def hook(url: str) -> str:
    return f'[webhook.next]\nurl = "{url}"\nsecret = "{SECRET}"\n'


def test_two_hubs_in_a_row(hub: WebHub, tmp_path: Path) -> None:
    config = hook(f"http://127.0.0.1:{hub.web}/hook/chain") + route("webhook:next")
    before = len(hub.mailbox("chain"))
    with WebHub(tmp_path / "first", config) as first:
        assert (
            send(first, {"to": ["x@plant.example"], "subject": "Gate", "text": "y"}).status == 200
        )
        mail = parsed(hub.wait_for_mail("chain", before + 1)[-1])
    assert mail["Subject"] == "Gate"
    assert json.loads(mail.get_content())["text"] == "y\n"


def test_a_webhook_never_leads_to_the_hub_itself(tmp_path: Path) -> None:
    with WebHub(tmp_path / "hub") as hub:
        text = hub.config_file.read_text()
        config = hook(f"http://127.0.0.1:{hub.web}/hook/own") + route("webhook:next")
        config += f'[inbound.own]\nsecret = "{SECRET}"\nto = ["x@plant.example"]\n'
        hub.config_file.write_text(text + config)
        assert hub.run("reload").returncode == 0
        assert send(hub, {"to": ["x@plant.example"], "text": "y"}).status == 200
        hub.wait_for_log("forbidden")


def test_attack_64_a_webhook_that_comes_back_ends(tmp_path: Path) -> None:
    """By a way that hides that it is the hub itself, all of whose mail goes there again."""
    with WebHub(tmp_path / "hub") as hub, forwarder(hub.web) as port:
        text = hub.config_file.read_text()
        config = hook(f"http://127.0.0.1:{port}/hook/own") + route("webhook:next", "mailbox:copy")
        config += f'[inbound.own]\nsecret = "{SECRET}"\nto = ["x@plant.example"]\n'
        hub.config_file.write_text(text + config)
        assert hub.run("reload").returncode == 0
        assert send(hub, {"to": ["x@plant.example"], "text": "y"}).status == 200
        hub.wait_for_log("hook-loop hook=own")
        wait_until(lambda: not hub.json("queue", "list"))
        time.sleep(0.5)
        assert len(hub.mailbox("copy")) == 4  # the first, and what three hooks made of it
        assert hub.log_text().count("hook-loop") == 1


def test_attack_68_what_others_post_is_one_line_in_the_log(hub: WebHub) -> None:
    with connected(hub.web, "127.0.0.31") as client:
        client.sendall(
            b"POST /hook/grafana%0aready HTTP/1.1\r\nHost: localhost\r\nX-Waypost-Token: x\r\n"
            b"Content-Length: 0\r\nConnection: close\r\n\r\n"
        )
        read_all(client)
    post(hub, "grafana", {}, token="x\x1b[31mx", source="127.0.0.32")
    send(hub, {"to": ["\u2028\x1b]0;a\x07\nfake=1@far.example"], "text": "x"})
    text = hub.log_text()
    assert "\x1b" not in text
    assert "\nfake=1" not in text
    assert "\u2028" not in text
