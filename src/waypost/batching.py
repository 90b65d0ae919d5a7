"""One thread that takes all the work waiting, does it in one go, and answers all at once.

This is how syncs are shared: while one batch is being made durable the next one gathers, with no
timer and no delay added. The queue's commits, the spool and the Maildirs work this way.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Generic, TypeVar

Request = TypeVar("Request")
Result = TypeVar("Result")


class BatchWorker(Generic[Request, Result]):
    """Runs `run` in a thread of its own on lists of requests.

    `run` returns one result, or one exception, for each request, in order; an exception it
    raises goes to every request of that batch. Made and used on the event loop's thread.
    """

    def __init__(self, name: str, run: Callable[[list[Request]], list[Result | Exception]]) -> None:
        self._run = run
        self._loop = asyncio.get_running_loop()
        self._waiting: SimpleQueue[tuple[Request, asyncio.Future[Result]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(self, request: Request) -> asyncio.Future[Result]:
        """Hand over a request; the future is resolved when its batch is done."""
        future: asyncio.Future[Result] = self._loop.create_future()
        self._waiting.put((request, future))
        return future

    async def close(self) -> None:
        """Finish what waits, then end the thread."""
        self._waiting.put(None)
        await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        is_open = True
        while is_open:
            batch = [self._waiting.get()]
            batch += [self._waiting.get() for _ in range(self._waiting.qsize())]
            pairs = [pair for pair in batch if pair is not None]
            is_open = len(pairs) == len(batch)
            if not pairs:
                continue
            results: list[Result | Exception]
            try:
                results = self._run([request for request, _ in pairs])
            except Exception as error:  # the batch fails as a whole, the thread lives on
                results = [error] * len(pairs)
            futures = [future for _, future in pairs]
            self._loop.call_soon_threadsafe(_resolve, futures, results)


def _resolve(futures: list[asyncio.Future[Result]], results: list[Result | Exception]) -> None:
    for future, result in zip(futures, results, strict=True):
        if future.done():
            continue  # cancelled by its owner
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)
