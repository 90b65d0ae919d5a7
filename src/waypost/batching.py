"""One thread that takes all the work waiting, does it in one go, and answers all at once.

This is how syncs are shared: while one batch is being made durable the next one gathers, with no
timer and no delay added. The queue's commits, the spool and the Maildirs work this way.

Work is handed over once in a turn of the loop and only when the thread is free. Handing over each
request by itself would wake the thread for the first and leave it with batches of one, and every
wake-up makes the two threads fight for the interpreter.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Generic, TypeVar

# The longest that a batch gathers while more keeps coming, well below what a sync takes on most
# disks.
GATHER_S = 0.002

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
        self._requests: list[Request] = []
        self._futures: list[asyncio.Future[Result]] = []
        self._is_busy = False  # the thread has a batch, or is about to be given one
        self._idle = asyncio.Event()
        self._idle.set()
        self._batches: SimpleQueue[tuple[list[Request], list[asyncio.Future[Result]]] | None]
        self._batches = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(self, request: Request) -> asyncio.Future[Result]:
        """Hand over a request; the future is resolved when its batch is done."""
        future: asyncio.Future[Result] = self._loop.create_future()
        self._requests.append(request)
        self._futures.append(future)
        if not self._is_busy:
            self._is_busy = True
            self._idle.clear()
            self._loop.call_soon(self._gather, 0, self._loop.time() + GATHER_S)
        return future

    async def close(self) -> None:
        """Finish what waits, then end the thread."""
        await self._idle.wait()
        self._batches.put(None)
        await asyncio.to_thread(self._thread.join)

    def _gather(self, seen: int, deadline: float) -> None:
        """Hand over once a turn of the loop brought nothing new, or time is up."""
        waiting = len(self._requests)
        if waiting > seen and self._loop.time() < deadline:
            self._loop.call_soon(self._gather, waiting, deadline)
        else:
            self._hand_over()

    def _hand_over(self) -> None:
        self._batches.put((self._requests, self._futures))
        self._requests, self._futures = [], []

    def _done(
        self, futures: list[asyncio.Future[Result]], results: list[Result | Exception]
    ) -> None:
        if self._requests:
            self._hand_over()
        else:
            self._is_busy = False
            self._idle.set()
        for future, result in zip(futures, results, strict=True):
            if future.done():
                continue  # cancelled by its owner
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)

    # In the thread.

    def _work(self) -> None:
        while (batch := self._batches.get()) is not None:
            requests, futures = batch
            results: list[Result | Exception]
            try:
                results = self._run(requests)
            except Exception as error:  # the batch fails as a whole, the thread lives on
                results = [error] * len(requests)
            self._loop.call_soon_threadsafe(self._done, futures, results)
