"""POST /api/v1/send: mail of programs, in the JSON that MQTT takes too."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import NamedTuple

from waypost.delivery.webhook import HOOKS_FIELD
from waypost.errors import AddressError
from waypost.intake.acceptance import Limits
from waypost.intake.door import Door
from waypost.intake.requests import RequestRefused, SendRequest, read_request
from waypost.mail import reply as replies
from waypost.mail.address import Address
from waypost.net.networks import Networks
from waypost.web.mail import LATER_S, arrival_of, key_of, response_of
from waypost.web.message import JSON, Request, Response, problem, refused
from waypost.web.permits import Permits, is_same, shown_token
from waypost.web.settings import ApiToken

# Requests that are larger are in memory only so many at once; others wait this long.
LARGE_BYTES = 1_048_576
LARGE_AT_ONCE = 2
LARGE_WAIT_S = 30.0


class _Holder(NamedTuple):
    """Who has a token."""

    settings: ApiToken
    networks: Networks | None


class Sending:
    """Takes what programs want to be sent."""

    def __init__(self, door: Door, permits: Permits, limits: Callable[[], Limits]) -> None:
        """`limits` gives those that hold now."""
        self._door = door
        self._permits = permits
        self._limits = limits
        self._holders: list[_Holder] = []
        self._large = asyncio.Semaphore(LARGE_AT_ONCE)

    def configure(self, tokens: Sequence[ApiToken]) -> None:
        """From now on these."""
        self._holders = [
            _Holder(one, None if one.networks is None else Networks(one.networks)) for one in tokens
        ]

    async def serve(self, request: Request) -> Response:
        """See Serve."""
        token = await self._token_of(request)
        if request.media_type != JSON:
            raise refused(415, f"expected Content-Type: {JSON}")
        key = key_of(request)
        async with self._room(request):
            octets = await request.read(self._limits().message_bytes + LARGE_BYTES)
            try:
                wanted = await asyncio.to_thread(read_request, octets)
            except RequestRefused as error:
                more = {} if error.transaction is None else {"transaction": error.transaction}
                return problem(400, str(error), more=more)
            del octets
            if key is not None:
                wanted = wanted._replace(dedupe_key=key)
            if not _may_use(token, wanted):
                return response_of(replies.SENDER_NOT_YOURS, wanted.transaction)
            reply = await self._door.submit(
                wanted,
                arrival_of(request, token.name),
                default_sender=token.name,
                fields=[(HOOKS_FIELD, token.name)],
            )
        return response_of(reply, wanted.transaction)

    async def _token_of(self, request: Request) -> ApiToken:
        """Whose token is shown. Raises Refused."""
        shown = shown_token(request)
        # All of them are compared, so that none is found sooner.
        found = [holder for holder in self._holders if is_same(shown, holder.settings.token)]
        if not found:
            await self._permits.wrong(request, "token")
        self._permits.check_network(request, found[0].networks)
        return found[0].settings

    @contextlib.asynccontextmanager
    async def _room(self, request: Request) -> AsyncIterator[None]:
        """Room in memory for a request. Raises Refused."""
        is_known = "transfer-encoding" not in request.headers
        if is_known and len(length := request.headers.get("content-length", "0")) < 15:
            if int(length) <= LARGE_BYTES:
                yield
                return
        try:
            async with asyncio.timeout(LARGE_WAIT_S):
                await self._large.acquire()
        except TimeoutError:
            text = "too many large messages come in now"
            raise refused(503, text, Retry_After=str(LATER_S)) from None
        try:
            yield
        finally:
            self._large.release()


def _may_use(token: ApiToken, wanted: SendRequest) -> bool:
    """Whether a token is for this sender; what is no address is refused at the door."""
    if not token.senders or wanted.sender is None:
        return True
    try:
        sender = Address.parse(wanted.sender)
    except AddressError:
        return wanted.sender == token.name
    return any(pattern.matches(sender) for pattern in token.senders)
