"""Several addresses of one host: the first that answers is taken (RFC 8305)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from waypost.errors import ConnectForbidden, PeerUnreachable
from waypost.mail.envelope import Hop

# An address that has not answered after this long gets company by the next one (RFC 8305 §5).
EYEBALL_S = 0.25

Connect = Callable[[Hop], Coroutine[Any, Any, socket.socket]]


async def first_to_answer(hops: Sequence[Hop], connect_to: Connect) -> tuple[Hop, socket.socket]:
    """The first of a host's addresses that answers (RFC 8305); raises what the last met."""
    if len(hops) == 1:
        return hops[0], await connect_to(hops[0])
    loop = asyncio.get_running_loop()
    trying: dict[asyncio.Task[socket.socket], Hop] = {}
    trouble: Exception | None = None
    waiting = list(reversed(hops))
    try:
        while waiting or trying:
            if waiting:
                hop = waiting.pop()
                trying[loop.create_task(connect_to(hop))] = hop
            patience_s = EYEBALL_S if waiting else None
            done, _ = await asyncio.wait(
                trying, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                hop = trying.pop(task)
                error = task.exception()
                if error is None:
                    return hop, task.result()
                if not isinstance(error, PeerUnreachable | ConnectForbidden):
                    raise error
                if trouble is None or isinstance(error, PeerUnreachable):
                    trouble = error
    finally:
        for task in trying:
            task.add_done_callback(_close_late)
            task.cancel()
    assert trouble is not None  # there is at least one address
    raise trouble


def _close_late(task: asyncio.Task[socket.socket]) -> None:
    """Another address was faster."""
    if not task.cancelled() and task.exception() is None:
        task.result().close()
