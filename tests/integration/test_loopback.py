"""Where a browser comes back to: only the one that was sent is listened to."""

from __future__ import annotations

import asyncio
import socket
import urllib.error
import urllib.request

import pytest

from waypost.oauth.loopback import Loopback


def visit(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=10) as page:
            return int(page.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def noise(port: int, octets: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(octets)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65_536):
            pass


@pytest.mark.parametrize("redirect", ["http://127.0.0.1", "http://localhost/done"])
def test_the_browser_that_was_sent(redirect: str) -> None:
    async def scene() -> str:
        loopback = Loopback(redirect, 0)
        await loopback.start()
        try:
            assert loopback.url.startswith(redirect.replace("/done", ":"))
            port = int(loopback.url.removesuffix("/done").rpartition(":")[2])

            waiting = asyncio.create_task(loopback.returned("s-1"))
            await asyncio.sleep(0)
            for other in (
                "/favicon.ico",
                "/?state=s-2&code=x",
                "/else?state=s-1&code=x",
                "/?code=x",
            ):
                url = f"http://127.0.0.1:{port}{other}"
                assert await asyncio.to_thread(visit, url) == 404
            await asyncio.to_thread(noise, port, b"\x16\x03\x01\x00\xff" * 100)
            await asyncio.to_thread(noise, port, b"GET / HTTP/1.1\r\n")
            await asyncio.to_thread(noise, port, b"GET //[ HTTP/1.1\r\nHost: x\r\n\r\n")
            assert not waiting.done()
            url = f"{loopback.url}?state=s-1&code=c-1"
            assert await asyncio.to_thread(visit, url) == 200
            return await waiting
        finally:
            loopback.close()

    assert asyncio.run(scene()).endswith("?state=s-1&code=c-1")


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:

        async def scene() -> None:
            await Loopback("http://127.0.0.1", taken.getsockname()[1]).start()

        with pytest.raises(OSError, match="address already in use"):
            asyncio.run(scene())
