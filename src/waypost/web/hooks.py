"""POST /hook/NAME: what other programs tell by webhook becomes mail.

A hub's webhook may lead to a hub's hook. So that no mail goes round for ever, each of them says
how many hooks it has come through.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence

from waypost.delivery.webhook import HOOKS_FIELD, HOOKS_HEADER
from waypost.intake.door import Door
from waypost.intake.requests import SendRequest
from waypost.mail.address import ip_text
from waypost.net.networks import Networks
from waypost.observe import Log
from waypost.web.mail import arrival_of, key_of, response_of
from waypost.web.message import Request, Response, answer, refused
from waypost.web.payload import charset_of, read_payload
from waypost.web.permits import Permits, is_same, shown_token
from waypost.web.settings import GITHUB, InboundHook
from waypost.web.signatures import Seen, is_signed_by_github, is_signed_by_waypost

MAX_BODY_BYTES = 1_048_576
# Hubs in a row; more than that is a circle.
MAX_HOOKS = 3

_COUNT = re.compile(r"[0-9]{1,4}")


class Hooks:
    """All hooks of a hub."""

    def __init__(self, door: Door, permits: Permits, log: Log) -> None:
        self._door = door
        self._permits = permits
        self._log = log
        self._seen = Seen()
        self._busy: set[str] = set()  # signatures of requests under way
        self._hooks: Mapping[str, InboundHook] = {}
        self._networks: Mapping[str, Networks] = {}

    def configure(self, hooks: Sequence[InboundHook]) -> None:
        """From now on these."""
        self._hooks = {hook.name: hook for hook in hooks}
        self._networks = {
            hook.name: Networks(hook.networks) for hook in hooks if hook.networks is not None
        }

    async def serve(self, request: Request) -> Response:
        """See Serve; the place of the path is `name`."""
        hook = self._hooks.get(request.parameters["name"])
        if hook is None:
            raise refused(404, "there is no [inbound] of this name")
        self._permits.check_network(request, self._networks.get(hook.name))
        if hook.token is not None:
            if not is_same(shown_token(request), hook.token):
                await self._permits.wrong(request, "token")
            charset = charset_of(request)
            return await self._take(hook, request, charset, await request.read(MAX_BODY_BYTES))
        charset = charset_of(request)
        octets = await request.read(MAX_BODY_BYTES)
        shown = await self._signature_of(hook, request, octets)
        return await self._once(shown, hook, request, charset, octets)

    async def _signature_of(self, hook: InboundHook, request: Request, octets: bytes) -> str:
        """The signature of a request whose signature is right. Raises Refused."""
        assert hook.secret is not None  # a hook has that, or a token
        if hook.signature == GITHUB:
            name, is_signed = "x-hub-signature-256", is_signed_by_github
        else:
            name, is_signed = "x-waypost-signature", is_signed_by_waypost
        shown = request.headers.get(name, "")
        if not shown:
            raise refused(401, f"expected a signature in {name}", WWW_Authenticate="Signature")
        if not is_signed(hook.secret, request.headers, octets):
            await self._permits.wrong(request, "signature, or its time,")
        return f"{hook.name} {shown}"

    async def _once(
        self, shown: str, hook: InboundHook, request: Request, charset: str, octets: bytes
    ) -> Response:
        """Take what is signed, unless it is a copy of what was taken (a replay)."""
        known = self._seen.response_to(shown)
        if known is not None:
            return known
        if shown in self._busy:
            raise refused(503, "the same request is under way", Retry_After="1")
        self._busy.add(shown)
        try:
            response = await self._take(hook, request, charset, octets)
        finally:
            self._busy.discard(shown)
        if response.status == 200:
            self._seen.note(shown, response)
        return response

    async def _take(
        self, hook: InboundHook, request: Request, charset: str, octets: bytes
    ) -> Response:
        passed = _count(request.headers.get(HOOKS_HEADER.lower(), ""))
        if passed >= MAX_HOOKS:
            # No refusal: a report about it would go the same way.
            self._log.event("hook-loop", hook=hook.name, client=request.client_ip, hooks=passed)
            return answer({"id": None, "detail": f"it has come through {passed} hooks: dropped"})
        key = key_of(request)
        wanted = await asyncio.to_thread(_request, hook, request, charset, octets)
        reply = await self._door.submit(
            wanted._replace(dedupe_key=key),
            arrival_of(request, hook.name),
            default_sender=hook.name,
            fields=[(HOOKS_FIELD, f"{hook.name}; hooks={passed + 1}")],
        )
        return response_of(reply)


def _request(hook: InboundHook, request: Request, charset: str, octets: bytes) -> SendRequest:
    """What the hook makes of a body. Raises Refused. Slow for large ones."""
    payload = read_payload(request.media_type, charset, octets)
    values = {
        "payload": payload.text,
        "json": payload.json,
        "form": payload.form,
        "hook": hook.name,
        "client": ip_text(request.client_ip),
    }
    return SendRequest(
        to=hook.to,
        route=hook.route,
        sender=hook.sender,
        subject=hook.subject.fill(values).strip() or hook.name,
        text=hook.text.fill(values),
    )


def _count(text: str) -> int:
    """How many hooks a request says that it has come through."""
    return int(text) if _COUNT.fullmatch(text) else 0
