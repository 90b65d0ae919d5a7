"""The HTTP port of a running hub: what it serves, what it refuses, and what it survives."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from tests.support.http import (
    TOKEN,
    WebHub,
    ask,
    connected,
    exchange,
    lasts_s,
    read_all,
    statuses,
)
from tests.support.hub import Hub
from tests.support.ports import free_port
from tests.support.waiting import wait_until

API = "/api/v1/send"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebHub]:
    with WebHub(
        tmp_path_factory.mktemp("web") / "hub", "[limits]\nmessage_bytes = 3000000\n"
    ) as it:
        yield it


def post(body: bytes, *fields: str, target: str = API) -> bytes:
    """A request as a client writes it; its length stands in `fields`, or nowhere."""
    head = [f"POST {target} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {TOKEN}"]
    head += ["Content-Type: application/json", *fields]
    return "\r\n".join([*head, "", ""]).encode("latin-1") + body


def send_to(name: str) -> bytes:
    return b'{"to":["%s@[127.0.0.1]"],"subject":"x","text":"y"}' % name.encode()


# What is there.


def test_health(hub: WebHub) -> None:
    assert ask(hub.web, "GET", "/livez").json == {"status": "ok"}
    ready = ask(hub.web, "GET", "/readyz")
    assert ready.json == {"status": "ok", "checks": {"listeners": "ok", "store": "ok"}}
    head = ask(hub.web, "HEAD", "/readyz")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == str(len(ready.body))


def test_every_response_has_its_fields(hub: WebHub) -> None:
    for path in ("/livez", "/nothing"):
        headers = ask(hub.web, "GET", path).headers
        assert headers["server"] == "Waypost"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in headers
        assert "date" in headers


def test_refusals_are_problems(hub: WebHub) -> None:
    for got, status in (
        (ask(hub.web, "GET", "/nothing"), 404),
        (ask(hub.web, "GET", API), 405),
        (ask(hub.web, "POST", API, b"x"), 401),
        (ask(hub.web, "POST", API, b"to=x", token=TOKEN), 415),
        (ask(hub.web, "POST", API, b"x" * 5_000_000, token=TOKEN, headers=JSON), 413),
        (ask(hub.web, "POST", API, b"{", token=TOKEN, headers=JSON), 400),
        (ask(hub.web, "GET", "/", headers={"X": "y" * 20_000}), 431),
    ):
        assert got.status == status
        assert got.headers["content-type"] == "application/problem+json"
        assert got.json["status"] == status
        assert got.json["detail"]


JSON = {"Content-Type": "application/json"}


def test_a_store_that_is_full_is_not_ready(tmp_path: Path) -> None:
    full = (
        "from waypost.queue import sqlite\n"
        "sqlite.free_bytes = lambda directory: 0\nsqlite.ROOM_CHECK_S = 0.0"
    )
    with WebHub(tmp_path / "hub", patch=full) as hub:
        got = ask(hub.web, "GET", "/readyz")
        assert got.status == 503
        assert got.json["checks"]["store"] == "No room to keep the message now"
        assert ask(hub.web, "GET", "/livez").status == 200
        sent = ask(hub.web, "POST", API, {"to": ["a@[127.0.0.1]"], "text": "x"}, token=TOKEN)
        assert (sent.status, sent.headers["retry-after"]) == (503, "60")
        assert (sent.json["code"], sent.json["enhanced"]) == (452, "4.3.1")


def test_curl_goes_on_on_its_connection_and_waits_for_100(hub: WebHub, tmp_path: Path) -> None:
    large = tmp_path / "large.json"
    large.write_bytes(b'{"to":["big@[127.0.0.1]"],"text":"%s"}' % (b"x" * 2_000_000))
    url = f"http://127.0.0.1:{hub.web}"
    command = ["curl", "-sv", "-H", f"Authorization: Bearer {TOKEN}"]
    command += ["-H", "Content-Type: application/json", "--data-binary", f"@{large}", url + API]
    command += ["--next", "-sv", f"{url}/livez"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert "HTTP/1.1 100 Continue" in done.stderr
    assert done.stderr.count("Connected to") == 1
    assert '{"id":"' in done.stdout
    assert '{"status":"ok"}' in done.stdout
    assert len(hub.wait_for_mail("big")[0]) > 2_000_000


# Who may ask, and by what name.


def test_names_of_others_are_refused(hub: WebHub) -> None:
    """DNS rebinding: a page of evil.example that leads its name here gets nothing."""
    for host in ("evil.example", f"evil.example:{hub.web}", "localhost.evil.example"):
        assert ask(hub.web, "GET", "/livez", headers={"Host": host}).status == 421
    for host in ("localhost", f"127.0.0.1:{hub.web}", "[::1]:1"):
        assert ask(hub.web, "GET", "/livez", headers={"Host": host}).status == 200
    absolute = b"GET http://evil.example/livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert statuses(exchange(hub.web, absolute)) == [421]


def test_http_1_0_needs_no_name(hub: WebHub) -> None:
    answered = exchange(hub.web, b"GET /livez HTTP/1.0\r\n\r\n")
    assert statuses(answered) == [200]
    assert b"Connection: close" in answered


def test_attack_61_wrong_tokens_wait_and_right_ones_do_not(hub: WebHub) -> None:
    """Ten wrong ones end it, and no right one is held up."""
    source = "127.0.7.1"
    with ExitStack() as stack:
        clients = [stack.enter_context(connected(hub.web, source)) for _ in range(12)]
        for number, client in enumerate(clients[:10]):
            wrong = post(b"", "Content-Length: 0").replace(TOKEN.encode(), b"wrong-%d" % number)
            client.sendall(wrong)
        wait_until(lambda: hub.log_text().count(f"token-refused client={source}") == 10)
        clients[10].sendall(wrong)
        assert b"HTTP/1.1 429 " in clients[10].recv(4_096)
        clients[11].sendall(post(b"{}", "Content-Length: 2"))
        assert b"HTTP/1.1 400 " in clients[11].recv(4_096)
    log = hub.log_text()
    assert TOKEN not in log
    assert "wrong-1" not in log
    assert "delay_s=2 " in log.replace("\n", " ")
    assert "delay_s=15" in log


def test_a_wrong_token_costs_the_same_wherever_it_is_wrong(tmp_path: Path) -> None:
    """What is compared are hashes of one length, and all of them, so time says nothing."""
    counting = (
        "import hmac\nfrom waypost.web import permits\nseen = []\n"
        "same = hmac.compare_digest\n"
        "def compare(shown, mine):\n"
        "    print('compared', len(shown), len(mine), file=sys.stderr, flush=True)\n"
        "    return same(shown, mine)\n"
        "permits.hmac = type('Hmac', (), {'compare_digest': staticmethod(compare)})\n"
        "permits.delay_of = lambda guesses: 0.0"
    )
    others = '[api_token.b]\ntoken = "another-token-of-the-tests"\n'
    with WebHub(tmp_path / "hub", others, patch=counting) as hub:
        for shown in ("x", TOKEN[:-1] + "x", TOKEN, "x" * 5_000):
            before = hub.log_text().count("compared 32 32")
            ask(hub.web, "POST", API, b"", token=shown)
            wait_until(lambda n=before: hub.log_text().count("compared 32 32") == n + 2)


def test_attack_61_a_token_that_can_be_guessed_is_a_fault(tmp_path: Path) -> None:
    hub = Hub(tmp_path / "hub", '[api_token.a]\ntoken = "short"\n')
    done = hub.run("serve")
    assert done.returncode == 2
    assert b"at least 16 characters" in done.stderr
    assert b"short" not in done.stderr


# What two servers could read in two ways.

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
CHUNKED = "Transfer-Encoding: chunked"
HEAD = b"POST /api/v1/send HTTP/1.1\r\nHost: localhost\r\n"

UNCLEAR = {
    "both lengths": post(b"0\r\n\r\n" + SMUGGLED, "Content-Length: 5", CHUNKED),
    "both, in the other order": post(b"0\r\n\r\n" + SMUGGLED, CHUNKED, "Content-Length: 5"),
    "two lengths": post(SMUGGLED, "Content-Length: 0", f"Content-Length: {len(SMUGGLED)}"),
    "one length twice": post(b"" + SMUGGLED, "Content-Length: 0", "Content-Length: 0"),
    "a list of lengths": post(SMUGGLED, f"Content-Length: 0, {len(SMUGGLED)}"),
    "a length with a sign": post(SMUGGLED, "Content-Length: +0"),
    "a length below zero": post(SMUGGLED, "Content-Length: -1"),
    "a length in hex": post(SMUGGLED, "Content-Length: 0x0"),
    "a length with a gap": post(SMUGGLED, "Content-Length: 0 0"),
    "an endless length": post(SMUGGLED, "Content-Length: " + "9" * 40),
    "chunked twice": post(b"0\r\n\r\n" + SMUGGLED, CHUNKED, CHUNKED),
    "chunked, chunked": post(b"0\r\n\r\n" + SMUGGLED, f"{CHUNKED}, chunked"),
    "another coding": post(b"0\r\n\r\n" + SMUGGLED, "Transfer-Encoding: xchunked"),
    "identity": post(SMUGGLED, "Transfer-Encoding: identity"),
    "chunked behind a vertical tab": post(SMUGGLED, "Transfer-Encoding: \x0bchunked"),
    "chunked behind a CR": post(SMUGGLED, "X: a\rTransfer-Encoding: chunked"),
    "a blank before the colon": post(SMUGGLED, "Content-Length : 0"),
    "a tab before the colon": post(b"0\r\n\r\n" + SMUGGLED, "Transfer-Encoding\t: chunked"),
    "a folded field": post(SMUGGLED, "X: a\r\n Content-Length: 5"),
    "a folded first field": HEAD.replace(b"\r\nHost", b"\r\n Host") + b"\r\n" + SMUGGLED,
    "lines that end in LF": HEAD.replace(b"\r\n", b"\n") + b"\n" + SMUGGLED,
    "one line that ends in LF": post(SMUGGLED, "X: a\nContent-Length: 0"),
    "a NUL": post(SMUGGLED, "X: a\x00b"),
    "no name of a field": post(SMUGGLED, ": chunked"),
    "two hosts": post(SMUGGLED, "Host: localhost"),
    "no host": b"GET /livez HTTP/1.1\r\n\r\n" + SMUGGLED,
    "chunked in HTTP/1.0": post(b"0\r\n\r\n", CHUNKED).replace(b"HTTP/1.1", b"HTTP/1.0"),
    "a later version": b"GET /livez HTTP/2.0\r\nHost: localhost\r\n\r\n" + SMUGGLED,
    "a preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SMUGGLED,
    "no version": b"GET /livez\r\n\r\n" + SMUGGLED,
    "a blank in the target": b"GET /livez x HTTP/1.1\r\nHost: localhost\r\n\r\n" + SMUGGLED,
    "a line before the request": b"\r\n\r\n" + SMUGGLED,
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 40 + b"\r\n\r\n" + SMUGGLED,
    "SMTP": b"EHLO a\r\nMAIL FROM:<a@b.example>\r\n\r\n" + SMUGGLED,
}


@pytest.mark.parametrize("octets", UNCLEAR.values(), ids=UNCLEAR)
def test_requests_with_two_meanings_are_none(hub: WebHub, octets: bytes) -> None:
    """Each is refused, and nothing behind it is read as a request."""
    answered = exchange(hub.web, octets)
    [status] = statuses(answered)
    assert status in (400, 413, 501, 505)
    assert b"Connection: close" in answered


BAD_CHUNKS = {
    "a size with 0x": b"0x5\r\nabcde\r\n0\r\n\r\n",
    "a size with a sign": b"+5\r\nabcde\r\n0\r\n\r\n",
    "a size behind a blank": b" 5\r\nabcde\r\n0\r\n\r\n",
    "no size": b"\r\nabcde\r\n0\r\n\r\n",
    "more than its size": b"5\r\nabcdefg\r\n0\r\n\r\n",
    "lines that end in LF": b"5\nabcde\n0\n\n",
    "a CR for a line end": b"5\rabcde\r0\r\r",
    "a huge size": b"f" * 40 + b"\r\n",
    "an extension without an end": b"5;" + b"x" * 40_000,
    "cut off": b"5\r\nab",
}


@pytest.mark.parametrize("chunks", BAD_CHUNKS.values(), ids=BAD_CHUNKS)
def test_bad_chunks(hub: WebHub, chunks: bytes) -> None:
    answered = exchange(hub.web, post(chunks + SMUGGLED, CHUNKED))
    assert statuses(answered) in ([400], [413], [])
    assert ask(hub.web, "GET", "/livez").status == 200


def test_chunks(hub: WebHub) -> None:
    body = send_to("chunks")
    chunks = b"".join(b"1;a=b\r\n%c\r\n" % octet for octet in body) + b"0\r\nX: trailer\r\n\r\n"
    assert statuses(exchange(hub.web, post(chunks + SMUGGLED, CHUNKED))) == [200, 404]
    hub.wait_for_mail("chunks")


def test_requests_that_come_together_are_answered_in_order(hub: WebHub) -> None:
    body = send_to("together")
    one = post(body, f"Content-Length: {len(body)}")
    octets = one + b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n" + one
    octets += b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" + one
    assert statuses(exchange(hub.web, octets)) == [200, 404, 200, 200]
    assert len(hub.wait_for_mail("together", 2)) == 2
    # In any pieces.
    with connected(hub.web) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(octets), 7):
            client.sendall(octets[at : at + 7])
        assert statuses(read_all(client)) == [200, 404, 200, 200]


def test_a_body_that_nobody_reads_is_no_request(hub: WebHub) -> None:
    """A refusal before the body ends the connection: what was in it is not asked."""
    octets = post(SMUGGLED, f"Content-Length: {len(SMUGGLED)}", target="/nothing") + SMUGGLED
    assert statuses(exchange(hub.web, octets)) == [404]


# Clients that cost much.

HASTY = (
    "from waypost.web import connection\nconnection.HEAD_S = 1.0\nconnection.IDLE_S = 2.0\n"
    "connection.PACE_AFTER_S = 1.0\nconnection.LINGER_S = 0.2\nconnection.WRITE_S = 1.0"
)


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebHub]:
    with WebHub(tmp_path_factory.mktemp("web") / "hasty", patch=HASTY) as it:
        yield it


def test_attack_59_slow_clients_of_http(hasty: WebHub) -> None:
    """However a client keeps awake, a head has its time and a body its pace."""
    with (
        connected(hasty.web) as silent,
        connected(hasty.web) as heads,
        connected(hasty.web) as body,
    ):
        heads.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n")
        body.sendall(post(b"{", "Content-Length: 1000"))
        assert lasts_s(heads, b"X: y\r\n", 0.1) < 10
        assert lasts_s(body, b" ", 0.1) < 10
        assert read_all(silent) == b""
    assert ask(hasty.web, "GET", "/livez").status == 200


def test_a_body_at_a_pace_is_waited_for(hasty: WebHub) -> None:
    body = send_to("pace") + b" " * 60_000
    with connected(hasty.web) as client:
        client.sendall(post(b"", f"Content-Length: {len(body)}"))
        for at in range(0, len(body), 6_000):
            client.sendall(body[at : at + 6_000])
            time.sleep(0.2)  # twice what is left to a client that sends nothing
        assert b"HTTP/1.1 200 " in client.recv(4_096)


def test_an_idle_connection_is_ended_and_a_refusal_is_read(hasty: WebHub) -> None:
    with connected(hasty.web) as client:
        client.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert statuses(read_all(client)) == [200]
    with connected(hasty.web) as client:
        # More than fits between the two: a reset would lose the refusal.
        octets = post(b"x" * 1_000_000, "Content-Length: 90000000")
        client.sendall(octets)
        assert statuses(read_all(client)) == [413]


def test_attack_60_idle_connections_of_http(hub: WebHub) -> None:
    """One client has its share and no more, and others are served."""
    with ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(connected(hub.web, "127.0.7.2"))
        wait_until(lambda: "turned-away client=127.0.7.2 listener=web" in hub.log_text())
        assert ask(hub.web, "GET", "/livez").status == 200

    def is_served() -> bool:
        with contextlib.suppress(ConnectionError):
            return ask(hub.web, "GET", "/livez", source="127.0.7.2").status == 200
        return False  # the hub has not seen yet that all have gone

    wait_until(is_served)


def test_memory_stays_flat(hub: WebHub) -> None:
    """Heads without an end, bodies that nobody may send, and bodies that are too large."""
    process = psutil.Process(hub.pid)
    ask(hub.web, "GET", "/livez")
    before = process.memory_info().rss
    endless = b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 3_000_000
    stranger = post(b"z" * 3_000_000, "Content-Length: 3000000").replace(TOKEN.encode(), b"")
    unending = post(b"fffff\r\n" + b"z" * 3_000_000, CHUNKED, target="/hook/none")
    for octets in (endless, stranger, unending):
        for _ in range(20):
            with connected(hub.web) as client:
                try:
                    client.sendall(octets)
                    client.shutdown(socket.SHUT_WR)
                except OSError:
                    continue
                assert statuses(read_all(client))[0] in (401, 404, 431)
    assert process.memory_info().rss - before < 20_000_000


# Its life.


def test_the_port_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        hub = Hub(tmp_path / "hub", f'[http]\nbind = ["127.0.0.1:{port}"]\n')
        done = hub.run("serve")
    assert done.returncode == 2
    assert f"[http] cannot bind 127.0.0.1:{port}: Address already in use" in done.stderr.decode()
    assert "with [http] bind" in done.stderr.decode()


def test_reload_moves_the_port_and_changes_tokens(tmp_path: Path) -> None:
    with WebHub(tmp_path / "hub") as hub, connected(hub.web) as client:
        text, old = hub.config_file.read_text(), hub.web
        new = free_port()
        hub.config_file.write_text(
            text.replace(f":{old}", f":{new}").replace(TOKEN, "another-token-of-the-tests")
        )
        assert hub.run("reload").returncode == 0
        assert ask(new, "POST", API, {"to": ["a@[127.0.0.1]"]}, token=TOKEN).status == 401
        with pytest.raises(ConnectionRefusedError):
            ask(old, "GET", "/livez")
        # Who is there already goes on.
        client.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"HTTP/1.1 200 " in client.recv(4_096)
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            hub.config_file.write_text(text.replace(f":{old}", f":{port}"))
            done = hub.run("reload")
            assert done.returncode != 0
            assert b"[http] cannot bind" in done.stderr
        hub.config_file.write_text(text)
        assert hub.run("reload").returncode == 0
        assert ask(old, "GET", "/livez").status == 200


def test_a_request_under_way_is_answered_before_the_end(tmp_path: Path) -> None:
    with WebHub(tmp_path / "hub") as hub, connected(hub.web) as idle:
        body = send_to("last")
        with connected(hub.web) as client:
            client.sendall(post(body[:5], f"Content-Length: {len(body)}"))
            idle.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"200" in idle.recv(4_096)
            hub.send_signal(signal.SIGTERM)
            assert read_all(idle) == b""
            client.sendall(body[5:])
            answered = read_all(client)
        assert statuses(answered) == [200]
        assert b"Connection: close" in answered
        hub.stop()
        hub.start()
        hub.wait_for_mail("last")


def test_a_fault_is_a_500_and_not_the_end(tmp_path: Path) -> None:
    broken = (
        "from waypost.web.health import Health\nfrom waypost.web import site\n"
        "async def live(self, request):\n    raise KeyError('what nobody expected')\n"
        "Health.live = live"
    )
    with WebHub(tmp_path / "hub", patch=broken) as hub:
        got = ask(hub.web, "GET", "/livez")
        assert got.status == 500
        assert b"nobody" not in got.body
        hub.wait_for_log("bug task=web")
        assert ask(hub.web, "GET", "/readyz").status == 200


def test_clients_that_break_off(hub: WebHub) -> None:
    body = send_to("broken")
    request = post(body, f"Content-Length: {len(body)}")
    for length in (1, 20, len(request) - 1, len(request)):
        with connected(hub.web) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.sendall(request[:length])
    assert ask(hub.web, "GET", "/livez").status == 200
    assert "bug" not in hub.log_text()
    wait_until(lambda: len(psutil.Process(hub.pid).net_connections("tcp")) < 20, os.getcwd)
