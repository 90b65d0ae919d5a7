"""Which path leads where, and by what name the hub may be asked."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address

import pytest

from waypost.web.message import Request, Response, answer, problem, refused
from waypost.web.routes import Routes, names_the_hub


def asked(method: str, path: str) -> Response:
    async def echo(request: Request) -> Response:
        return answer({"method": request.method, **request.parameters})

    async def refuse(request: Request) -> Response:
        raise refused(415, "no")

    async def read(limit: int) -> bytes:
        raise AssertionError("nobody reads")

    routes = Routes()
    routes.add("GET", "/page", echo)
    routes.add("POST", "/hook/{name}", echo)
    routes.add("PUT", "/hook/{name}", refuse)
    here = ip_address("127.0.0.1")
    return asyncio.run(routes.serve(Request(method, path, "", {}, here, here, read)))


def test_a_path_leads_to_who_serves_it() -> None:
    assert asked("GET", "/page").body == b'{"method":"GET"}\n'
    assert asked("HEAD", "/page").status == 200
    assert asked("POST", "/hook/a%20b").body == b'{"method":"POST","name":"a%20b"}\n'


@pytest.mark.parametrize(
    "path", ["/", "", "/pag", "/page/", "/hook", "/hook/", "/hook/a/b", "*", "//page", "/../page"]
)
def test_other_paths_lead_nowhere(path: str) -> None:
    assert asked("GET", path).status == 404


def test_other_methods_hear_which_there_are() -> None:
    assert ("Allow", "GET, HEAD") in asked("DELETE", "/page").fields
    assert asked("HEAD", "/hook/a").status == 405
    assert asked("OPTIONS", "/hook/a").fields == (("Allow", "POST, PUT"),)


def test_a_refusal_is_a_response() -> None:
    assert asked("PUT", "/hook/a").status == 415


def test_a_problem_is_of_rfc_9457() -> None:
    response = problem(422, "why", more={"code": 550})
    assert response.type == "application/problem+json"
    assert response.body == (
        b'{"title":"Unprocessable Content","status":422,"detail":"why","code":550}\n'
    )


NAMES = frozenset({"localhost", "hub.lan"})


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.0.0.1:2580", "[::1]", "[::1]:2580", "192.0.2.1", "[fd00::7]:80"),
        *("localhost", "LOCALHOST:2580", "hub.lan", "Hub.LAN.", "hub.lan:"),
    ],
)
def test_names_of_the_hub(host: str) -> None:
    assert names_the_hub(host, NAMES)


@pytest.mark.parametrize(
    "host",
    [
        *("", "evil.example", "evil.example:2580", "127.0.0.1.evil.example", "hub.lan.evil"),
        *("a@127.0.0.1", "127.0.0.1:80:80", "[::1", "::1", "[evil.example]", "[127.0.0.1]x"),
        *("127.1", "2130706433", "0x7f.1", "127.0.0.1/", "hub.lan\x00", "127.0.0.1:8a"),
    ],
)
def test_names_of_others(host: str) -> None:
    assert not names_the_hub(host, NAMES)
