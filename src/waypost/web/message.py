"""Requests and responses as handlers see them (RFC 9110), and refusals in JSON (RFC 9457)."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

from waypost.errors import WaypostError
from waypost.mail.address import IPAddress

JSON = "application/json"
PROBLEM = "application/problem+json"

# RFC 9110 names it so; Python before 3.13 does not.
_PHRASES = {413: "Content Too Large", 422: "Unprocessable Content"}


@dataclass(frozen=True, slots=True)
class Response:
    """What a client gets."""

    status: int
    body: bytes = b""
    type: str = JSON
    fields: tuple[tuple[str, str], ...] = ()


class Refused(WaypostError):
    """A request that is not served; carries what its client gets."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status)
        self.response = response


# Reads a request's body of at most so many octets. Raises Refused, and OSError when it is gone.
ReadBody = Callable[[int], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asks. The body is not read before somebody wants it."""

    method: str
    path: str  # as it came: nothing is decoded
    query: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)  # lower-case names; of several, the last
    client_ip: IPAddress
    local_ip: IPAddress  # the address connected to
    read: ReadBody = field(repr=False)
    parameters: Mapping[str, str] = field(default_factory=dict)  # what the path's places hold

    @property
    def media_type(self) -> str:
        """What the body says it is, in lower case; empty: nothing."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


Serve = Callable[[Request], Awaitable[Response]]


def phrase(status: int) -> str:
    """What a status code means (RFC 9110 §15)."""
    return _PHRASES.get(status) or HTTPStatus(status).phrase


def answer(values: Mapping[str, object], status: int = 200) -> Response:
    """A response in JSON."""
    return Response(status, _encoded(values))


def problem(
    status: int,
    detail: str,
    *,
    fields: tuple[tuple[str, str], ...] = (),
    more: Mapping[str, object] | None = None,
) -> Response:
    """A refusal; `detail` says what to do, `more` are members of its own kind (RFC 9457 §3.2)."""
    values = {"title": phrase(status), "status": status, "detail": detail, **(more or {})}
    return Response(status, _encoded(values), PROBLEM, fields)


def refused(status: int, detail: str, **more: str) -> Refused:
    """The same, to be raised; `more` are fields: Retry_After is Retry-After."""
    fields = tuple((name.replace("_", "-"), value) for name, value in more.items())
    return Refused(problem(status, detail, fields=fields))


def _encoded(values: Mapping[str, object]) -> bytes:
    return json.dumps(values, separators=(",", ":")).encode("ascii") + b"\n"
