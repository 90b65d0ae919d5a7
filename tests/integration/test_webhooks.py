"""Webhooks: a real hub and a real web server, and the transport by itself among hostile ones."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from email.message import EmailMessage
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from tests.contract.mail import new_message, on_loop
from tests.support.certificates import Certificate
from tests.support.hook_server import Asked, HookServer
from tests.support.hub import Hub
from tests.support.mail import message, submit
from tests.support.ports import reserved_port
from tests.support.static_resolver import StaticResolver
from tests.support.toml import retry, route
from tests.support.waiting import wait_until
from waypost.app import make_hook_gate
from waypost.delivery.events import EventReader
from waypost.delivery.transport import DeliveryJob
from waypost.delivery.webhook import WebhookSettings, WebhookTransport
from waypost.devices.names import DeviceNames
from waypost.dns.resolver import Answer, ResolverUnavailable, Trouble
from waypost.errors import PeerUnreachable
from waypost.mail.address import IPAddress
from waypost.mail.envelope import Outcome, OutcomeKind
from waypost.net.interfaces import OwnAddresses
from waypost.observe import Log
from waypost.queue.spool import InlineContent
from waypost.queue.store import QueueIdSource
from waypost.reading.process import MailReader
from waypost.routing.targets import Target
from waypost.smtp.auth import Secret

from .conftest import StartHub

SECRET = "s3cret-of-the-plc"
TOKEN = "t0ken-in-the-path"
QUICK = retry(0.2, max_s=0.3)
IDS = QueueIdSource()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[HookServer]:
    with HookServer(tmp_path / "web") as started:
        yield started


def hook(url: str, more: str = "", name: str = "plc") -> str:
    """A [webhook.NAME]."""
    return f'[webhook.{name}]\nurl = "{url}"\nsecret = "{SECRET}"\n{more}\n'


def send(hub: Hub, *to: str, content: bytes | None = None) -> str:
    """Hand over a message; its queue id."""
    with hub.smtp() as smtp:
        return submit(smtp, *(to or ("door@plc.example",)), content=content)


def with_pictures() -> bytes:
    """A mail with a picture, a text and a file that is too large."""
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "cam@[10.0.0.9]", "door@plc.example", "Tür"
    mail.set_content("Somebody is there.\n")
    mail.add_attachment(b"\xff\xd8\xff\xe0 pixels", "image", "jpeg", filename="a.jpg")
    mail.add_attachment(b"%PDF-1.4 page", "application", "pdf", filename="b.pdf")
    mail.add_attachment(b"\xff\xd8\xff\xe0" + b"x" * 5_000, "image", "jpeg", filename="c.jpg")
    return mail.as_bytes(policy=mail.policy.clone(linesep="\r\n"))


def is_signed(request: Asked) -> bool:
    """By openssl, which knows nothing of our code."""
    signed = request.headers["x-waypost-timestamp"].encode() + b"." + request.body
    done = subprocess.run(
        ["openssl", "dgst", "-sha256", "-hmac", SECRET],
        input=signed,
        capture_output=True,
        check=True,
    )
    return request.headers["x-waypost-signature"] == "v1=" + done.stdout.split()[-1].decode()


# With a hub.


def test_an_event_arrives_signed(start_hub: StartHub, server: HookServer) -> None:
    hub = start_hub(route("webhook:plc") + hook(server.url("/200")))
    before = time.time()
    queue_id = send(hub, content=with_pictures())
    [request] = server.wait_for(1)
    assert is_signed(request)
    assert before - 1 <= int(request.headers["x-waypost-timestamp"]) <= time.time()
    assert request.headers["content-type"] == "application/json"
    assert request.headers["idempotency-key"] == f"{queue_id}-0"
    event = request.json
    expected = {
        "v": 1,
        "id": queue_id,
        "event_type": "mail",
        "device": "127.0.0.1",
        "source_ip": "127.0.0.1",
        "subject": "Tür",
        "text": "Somebody is there.\n",
        "text_truncated": False,
        "from": "cam@[10.0.0.9]",
        "to": ["door@plc.example"],
        "recipient": "door@plc.example",
    }
    assert {key: event[key] for key in expected} == expected
    assert [one["name"] for one in event["attachments"]] == ["a.jpg", "b.pdf", "c.jpg"]
    assert all("data_base64" not in one for one in event["attachments"])
    wait_until(lambda: hub.json("queue", "list") == [])
    assert "HTTP 200 OK" in hub.log_text()


def test_attachments_by_type_and_size(start_hub: StartHub, server: HookServer) -> None:
    rules = 'attachments = "base64"\nattachment_types = ["image/*"]\nmax_attachment = "1K"\n'
    hub = start_hub(route("webhook:plc") + hook(server.url("/200"), rules))
    send(hub, content=with_pictures())
    [request] = server.wait_for(1)
    assert is_signed(request)
    first, second, third = request.json["attachments"]
    octets = base64.b64decode(first["data_base64"])
    assert octets == b"\xff\xd8\xff\xe0 pixels"
    assert hashlib.sha256(octets).hexdigest() == first["sha256"]
    assert "types" in second["left_out"]
    assert third["left_out"] == "larger than 1024 octets"


def test_large_content_comes_from_its_file(start_hub: StartHub, server: HookServer) -> None:
    rules = 'attachments = "base64"\nmax_text = 10\n'
    hub = start_hub(route("webhook:plc") + hook(server.url("/200"), rules))
    octets = os.urandom(1_500_000)
    mail = EmailMessage()
    mail.set_content("twelve letters and more\n")
    mail.add_attachment(octets, "application", "octet-stream", filename="x.bin")
    send(hub, content=mail.as_bytes(policy=mail.policy.clone(linesep="\r\n")))
    [request] = server.wait_for(1)
    assert base64.b64decode(request.json["attachments"][0]["data_base64"]) == octets
    assert (request.json["text"], request.json["text_truncated"]) == ("twelve let", True)


def test_retries_keep_their_key_even_over_a_restart(
    start_hub: StartHub, server: HookServer
) -> None:
    config = route("webhook:plc") + hook(server.url("/503,500,429,200")) + QUICK
    hub = start_hub(config)
    queue_id = send(hub, "a@plc.example", "b@plc.example")
    server.wait_for(1)
    hub.kill()
    hub.start()
    wait_until(lambda: hub.json("queue", "list") == [], hub.log_text)
    requests = server.asked()
    keys = [request.headers["idempotency-key"] for request in requests]
    assert set(keys) == {f"{queue_id}-0", f"{queue_id}-1"}
    assert {request.json["id"] for request in requests} == {queue_id}
    assert all(map(is_signed, requests))
    assert len(keys) > 3


def test_retry_after_is_kept_within_reason(start_hub: StartHub, server: HookServer) -> None:
    config = (
        route("webhook:soon", match='recipient = "soon@*"', name="1")
        + route("webhook:never", match='recipient = "never@*"', name="2")
        + hook(server.url("/503,200/soon?after=2"), name="soon")
        + hook(server.url("/503,200/never?after=999999"), name="never")
        + retry(0.1, max_s=3)
    )
    hub = start_hub(config)
    send(hub, "soon@plc.example", "never@plc.example")
    for path, least in (("/503,200/soon", 2), ("/503,200/never", 3)):
        first, second = server.wait_for(2, path)
        assert second.at - first.at >= least - 0.05


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/410", "HTTP 410 Gone"),
        (f"/422/{TOKEN}?says=field+door+of+{TOKEN}+is+missing", "field door of *** is missing"),
        ("/302", "redirects are not followed"),
        ("/307", "redirects are not followed"),
    ],
)
def test_refusals_go_back_in_words(
    start_hub: StartHub, server: HookServer, path: str, words: str
) -> None:
    way = route("webhook:plc", match='recipient = "*@plc.example"')
    hub = start_hub(way + hook(server.url(path)))
    send(hub)
    [report] = hub.wait_for_mail("ann")
    assert words.encode() in b" ".join(report.split())
    assert server.connections() == 1
    assert TOKEN not in hub.log_text()
    assert TOKEN.encode() not in report


def test_secrets_stay_in_the_configuration(start_hub: StartHub, server: HookServer) -> None:
    file = server._log.parent / "url"
    file.write_text(server.url(f"/503/{TOKEN}?says={TOKEN}") + "\n")
    file.chmod(0o600)
    config = f'[webhook.plc]\nurl_file = "{file}"\nsecret = "{SECRET}"\n'
    with reserved_port() as dead:
        config += hook(f"http://127.0.0.1:{dead}/{TOKEN}", name="dead")
        hub = start_hub(route("webhook:plc", "webhook:dead") + config)
        queue_id = send(hub)
        wait_until(lambda: hub.log_text().count("attempt ") >= 2)
        shown = [hub.run(*words).stdout for words in (("config", "show"), ("queue", "list"))]
        shown += [hub.run("queue", "show", queue_id).stdout, hub.run("trace").stdout]
        shown.append(hub.run("config", "show", "--json").stdout)
        hub.stop()
    for text in (*shown, hub.log_file.read_bytes(), *map(bytes_of, queue_files(hub))):
        assert SECRET.encode() not in text
        assert TOKEN.encode() not in text


def queue_files(hub: Hub) -> list[Path]:
    return list(hub.data.glob("queue.db*"))


def bytes_of(path: Path) -> bytes:
    return path.read_bytes()


def test_a_dead_webhook_delays_only_its_own_target(start_hub: StartHub, server: HookServer) -> None:
    config = (
        route("webhook:dead", "webhook:plc", "mailbox:log")
        + hook(server.url("/slow"), name="dead")
        + hook(server.url("/200"))
    )
    hub = start_hub(config)
    for _ in range(12):
        send(hub)
    server.wait_for(12, "/200")
    hub.wait_for_mail("log", 12)
    assert len(hub.json("queue", "list")) == 12


def test_reload_changes_where_events_go(start_hub: StartHub, server: HookServer) -> None:
    hub = start_hub(route("webhook:plc") + hook(server.url("/503/old")) + QUICK)
    send(hub)
    server.wait_for(1, "/503/old")
    text = hub.config_file.read_text().replace("/503/old", "/200/new")
    hub.config_file.write_text(text)
    assert hub.run("reload").returncode == 0
    server.wait_for(1, "/200/new")


# The transport by itself.


@contextlib.asynccontextmanager
async def posting(
    settings: dict[str, Any], resolver: StaticResolver | None = None, own: str = "192.0.2.1"
) -> AsyncIterator[Any]:
    """Posts one message; its outcomes."""
    reader = MailReader()

    def gate_of(networks: Any) -> Any:
        addresses = OwnAddresses(follow_interfaces=False, extra=[ip_address(own)])
        return make_hook_gate(addresses, frozenset, networks)

    transport = WebhookTransport(
        EventReader(reader, DeviceNames), gate_of=gate_of, log=Log(os.open(os.devnull, os.O_WRONLY))
    )
    url = Secret(settings.pop("url"))
    made = WebhookSettings(name="plc", url=url, **{"timeout_s": 5.0, **settings})
    transport.configure([made], resolver or StaticResolver())

    async def post(*to: str) -> list[Outcome]:
        content = InlineContent(message())
        queued = new_message(IDS.next_id(), to=to or ("a@plc.example",), content=content)
        return await transport.deliver(
            DeliveryJob(queued, queued.recipients, Target("webhook", "plc"))
        )

    try:
        yield post
    finally:
        await reader.close()


@on_loop
async def test_a_name_needs_its_private_network_listed(server: HookServer) -> None:
    resolver = StaticResolver({("hook.lan", "A"): ["127.0.0.1"]})
    url = server.url("/200", host="hook.lan")
    async with posting({"url": url}, resolver) as post:
        [outcome] = await post()
        assert outcome.kind is OutcomeKind.DEFERRED
        assert "127.0.0.1" not in outcome.reply.text
        assert server.connections() == 0
    async with posting({"url": url, "networks": ("127.0.0.1/32",)}, resolver) as post:
        [outcome] = await post()
        assert outcome.kind is OutcomeKind.DELIVERED
        # It moves, to where it may not lead: every lookup is judged anew.
        resolver.records["hook.lan", "A"] = ["127.0.0.2"]
        [outcome] = await post()
        assert outcome.kind is OutcomeKind.DEFERRED
        assert server.connections() == 1


@on_loop
async def test_a_literal_is_a_listing_by_itself(server: HookServer) -> None:
    async with posting({"url": server.url("/200")}) as post:
        assert [outcome.kind for outcome in await post()] == [OutcomeKind.DELIVERED]


@pytest.mark.parametrize("path", ["/slow", "/endless"])
@on_loop
async def test_servers_that_do_not_end(server: HookServer, path: str) -> None:
    async with posting({"url": server.url(path), "timeout_s": 1.0}) as post:
        if path == "/slow":
            with pytest.raises(PeerUnreachable) as caught:
                await post()
            assert not caught.value.never_connected
        else:
            # It has said 200 before it went on for ever.
            assert [outcome.kind for outcome in await post()] == [OutcomeKind.DELIVERED]


@on_loop
async def test_certificates(tmp_path: Path) -> None:
    ours = Certificate(tmp_path, "ours", is_authority=True)
    other = Certificate(tmp_path, "other", is_authority=True)
    leaf = Certificate(tmp_path, "leaf", ips=["127.0.0.1"], issuer=ours)
    wrong = Certificate(tmp_path, "wrong", ips=["127.0.0.9"], issuer=ours)
    for shown, ca, is_good in (
        *((leaf, ours, True), (leaf, other, False), (leaf, None, False)),
        (wrong, ours, False),
    ):
        pem = tmp_path / "pair.pem"
        pem.write_bytes(shown.key_file.read_bytes() + shown.chain_file.read_bytes())
        with HookServer(tmp_path / os.urandom(4).hex(), pem=pem) as server:
            url = server.url("/200", scheme="https")
            settings = {"url": url, "ca": None if ca is None else ca.file}
            async with posting(settings) as post:
                if is_good:
                    assert [one.kind for one in await post()] == [OutcomeKind.DELIVERED]
                else:
                    with pytest.raises(PeerUnreachable, match="TLS failed"):
                        await post()
                    assert server.asked() == []


def test_the_body_is_json_that_a_small_parser_reads(
    start_hub: StartHub, server: HookServer
) -> None:
    """ASCII only: PLCs."""
    hub = start_hub(route("webhook:plc") + hook(server.url("/200")))
    send(hub, content=with_pictures())
    [request] = server.wait_for(1)
    assert request.body.isascii()
    assert json.loads(request.body)["subject"] == "Tür"


class FailsLater(StaticResolver):
    """Knows a name for one question, and then the servers are away."""

    async def ipv4(self, name: str) -> Answer[IPAddress]:
        """See Resolver."""
        if self.asked[name, "A"]:
            raise ResolverUnavailable(f"{name} A", Trouble.TIMEOUT)
        return await super().ipv4(name)


@on_loop
async def test_trouble_in_the_middle_repeats_nothing(server: HookServer) -> None:
    resolver = FailsLater({("hook.lan", "A"): ["127.0.0.1"]})
    url = server.url("/200", host="hook.lan")
    async with posting({"url": url, "networks": ("loopback",)}, resolver) as post:
        kinds = [outcome.kind for outcome in await post("a@x.test", "b@x.test", "c@x.test")]
    assert kinds == [OutcomeKind.DELIVERED, OutcomeKind.DEFERRED, OutcomeKind.DEFERRED]
    assert [request.json["recipient"] for request in server.asked()] == ["a@x.test"]
