"""The ACME library's network, without the library's sockets.

The library signs requests, keeps nonces and reads problem documents, and is synchronous: it runs
in worker threads. Each request is handed to the loop, where our own HTTP client makes it, so that
the gate judges every connection.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from acme import errors, messages
from acme.client import ClientNetwork
from josepy.jwa import JWASignature
from josepy.jwk import JWK

from waypost.errors import TemporaryError
from waypost.http.client import HttpClient, HttpResponse
from waypost.http.url import Url
from waypost.net.gate import Origin

# A server may refuse a nonce at any time (RFC 8555 §6.5); one that always does is broken.
NONCE_TRIES = 10
# A chain has a few kilobytes.
MAX_BODY_BYTES = 262_144

_LATER = (429, 503)


class OrderStopped(TemporaryError):
    """The order was given up while a request was under way."""


class GatedNetwork(ClientNetwork):
    """Carries the library's requests."""

    def __init__(
        self,
        key: JWK,
        alg: JWASignature,
        directory: Url,
        clients: Callable[[Origin], HttpClient],
        fetch_options: dict[str, Any],
    ) -> None:
        """`fetch_options` are for HttpClient.fetch. To be made on the loop."""
        super().__init__(key, alg=alg)
        del self.session  # whoever would use it gets an error in place of a connection
        self._loop = asyncio.get_running_loop()
        self._directory = directory
        # The operator named one place. Where else the server sends us is a stranger's word.
        self._at_home = clients(Origin.OPERATOR)
        self._elsewhere = clients(Origin.STRANGER)
        self._fetch_options = fetch_options
        self._stopping = threading.Lock()
        self._is_stopped = False
        self._under_way: concurrent.futures.Future[HttpResponse] | None = None
        self.retry_after_s: float | None = None  # None: the server has not asked to come back later

    def stop(self) -> None:
        """End the request under way, and make no other."""
        with self._stopping:
            self._is_stopped = True
            if self._under_way is not None:
                self._under_way.cancel()

    def post(self, *args: Any, **kwargs: Any) -> Any:
        """As the library's, which gives up at the second bad nonce."""
        for _ in range(NONCE_TRIES - 1):
            try:
                return self._post_once(*args, **kwargs)
            except messages.Error as error:
                if error.code != "badNonce":
                    raise
        return self._post_once(*args, **kwargs)

    def _send_request(self, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
        try:
            place = Url.parse(url)
        except ValueError as error:
            raise errors.ClientError(f"it leads to {url!r}: {error}") from error
        is_home = (place.host, place.port) == (self._directory.host, self._directory.port)
        client = self._at_home if is_home else self._elsewhere
        data = kwargs.get("data", "")
        fetching = client.fetch(
            method,
            place,
            headers=kwargs.get("headers", {}),
            body=data.encode() if isinstance(data, str) else data,
            limit_bytes=MAX_BODY_BYTES,
            **self._fetch_options,
        )
        with self._stopping:
            if self._is_stopped:
                fetching.close()
                raise OrderStopped("the order was given up")
            self._under_way = asyncio.run_coroutine_threadsafe(fetching, self._loop)
        try:
            found = self._under_way.result()
        except concurrent.futures.CancelledError:
            raise OrderStopped("the order was given up") from None
        response = Response(place, found)
        if found.status in _LATER:
            self.retry_after_s = _seconds(found.headers.get("retry-after", ""))
        return response


class Headers(Mapping[str, str]):
    """Header fields, whose names the library writes in any case."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        """Names are in lower case."""
        self._fields = fields

    def __getitem__(self, name: str) -> str:
        return self._fields[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)


class Response:
    """What the library reads of a response."""

    def __init__(self, place: Url, found: HttpResponse) -> None:
        self._place = place
        self.status_code = found.status
        self.headers = Headers(found.headers)
        self.ok = 200 <= found.status < 300  # we follow no redirect
        self.content = found.body
        self.text = found.body.decode("utf-8", "replace")
        self.links = _links(found.fields)

    def json(self) -> Any:
        """The body's value. Raises ValueError."""
        return json.loads(self.text)

    def __repr__(self) -> str:
        """The library puts responses into its errors."""
        return f"{self._place}: status {self.status_code} without a problem document"


def _links(fields: tuple[tuple[str, str], ...]) -> dict[str, dict[str, str]]:
    """Links by their relation (RFC 8288): the few forms that ACME servers write."""
    found: dict[str, dict[str, str]] = {}
    for name, value in fields:
        if name != "link":
            continue
        for link in value.split(", "):
            target, _, parameters = link.partition(">")
            for parameter in parameters.split(";"):
                key, _, relation = parameter.strip().partition("=")
                if key == "rel" and target.startswith("<"):
                    found[relation.strip('"')] = {"url": target[1:], "rel": relation.strip('"')}
    return found


def _seconds(text: str) -> float | None:
    """Retry-After in its usual form; None: another form, or none."""
    return float(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
