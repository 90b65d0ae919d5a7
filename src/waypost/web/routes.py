"""Which path is served by whom, and by what name the hub may be asked."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from ipaddress import ip_address

from waypost.web.message import Refused, Request, Response, Serve, refused

# RFC 3986 §3.2.2: an address of IPv6 stands in brackets.
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]@/]+)(?::[0-9]*)?")


class Routes:
    """Paths with who serves them. Places in a path stand in braces: ``/hook/{name}``."""

    def __init__(self) -> None:
        self._routes: list[tuple[tuple[str, ...], dict[str, Serve]]] = []

    def add(self, method: str, path: str, serve: Serve) -> None:
        """What is there for GET serves HEAD, too."""
        steps = tuple(path.split("/"))
        for known, methods in self._routes:
            if known == steps:
                methods[method] = serve
                return
        self._routes.append((steps, {method: serve}))

    async def serve(self, request: Request) -> Response:
        """The response of whoever the path leads to, or why there is none."""
        try:
            methods, parameters = self._find(request.path)
            found = methods.get("GET" if request.method == "HEAD" else request.method)
            if found is None:
                allowed = sorted({*methods, *(["HEAD"] if "GET" in methods else [])})
                raise refused(405, f"use {' or '.join(allowed)} here", Allow=", ".join(allowed))
            return await found(replace(request, parameters=parameters))
        except Refused as refusal:
            return refusal.response

    def _find(self, path: str) -> tuple[Mapping[str, Serve], dict[str, str]]:
        steps = path.split("/")
        for known, methods in self._routes:
            if len(known) != len(steps):
                continue
            pairs = list(zip(known, steps, strict=True))
            if all(place == step or (place[:1] == "{" and step) for place, step in pairs):
                return methods, {place[1:-1]: step for place, step in pairs if place[:1] == "{"}
        raise refused(404, "there is nothing at this path")


def names_the_hub(host: str, names: Collection[str]) -> bool:
    """Whether a Host field (RFC 9110 §7.2) can have been meant for this hub.

    Where a page of somebody else has its name lead here (DNS rebinding), a browser says that name.
    An address is nobody else's, and `names` are ours.
    """
    found = _HOST.fullmatch(host)
    if found is None:
        return False
    name = found[1].lower().removesuffix(".")
    if name in names:
        return True
    try:
        ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True
