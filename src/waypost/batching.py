"""All the work that waits is done in one go, and answered all at once.

This is how syncs are shared: while one batch is being made durable the next one gathers, with no
timer and no delay added. The queue's commits, the spool and the Maildirs work this way.

Work is handed over once in a turn of the loop and only when whoever does it is free. Handing over
each request by itself would wake it for the first and leave it with batches of one.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

# While much is going on a batch gathers this long, well below what a sync takes on most disks.
GATHER_S = 0.001
# How large the batch before must have been for that; else what comes is handed over once a turn of
# the loop brings nothing new, and a lone request waits for nobody.
BUSY_BATCH = 5

# A batch is held in memory twice on its way to another process.
MAX_BATCH = 500

Request = TypeVar("Request")
Result = TypeVar("Result")


# Is given the results of a batch: one result, or one exception, for each request, in order.
Done = Callable[[list[Any]], None]


class Batches(Generic[Request, Result]):
    """Gathers requests and hands them, a batch at a time, to whoever does the work.

    `start(requests, done)` begins the work of a batch; `done` is called, on the event loop's
    thread, when it is done. Made and used on that thread, too.
    """

    def __init__(self, start: Callable[[list[Request], Done], None]) -> None:
        self._start = start
        self._loop = asyncio.get_running_loop()
        self._requests: list[Request] = []
        self._futures: list[asyncio.Future[Result]] = []
        self._is_busy = False  # a batch is under way, or about to be
        self._idle = asyncio.Event()
        self._idle.set()
        self._last_size = 0  # of the batch handed over last
        self._first_at = 0.0  # when the first of those that wait came

    def submit(self, request: Request) -> asyncio.Future[Result]:
        """Hand over a request; the future is resolved when its batch is done."""
        future: asyncio.Future[Result] = self._loop.create_future()
        self._requests.append(request)
        self._futures.append(future)
        if len(self._requests) == 1:
            self._first_at = self._loop.time()
            if not self._is_busy:
                self._is_busy = True
                self._idle.clear()
                self._gather()
        return future

    def _gather(self) -> None:
        deadline = self._first_at + GATHER_S
        if self._last_size < BUSY_BATCH:
            self._loop.call_soon(self._see_more, 0, deadline)
        elif deadline > self._loop.time():
            self._loop.call_at(deadline, self._hand_over)
        else:
            self._hand_over()

    async def finish(self) -> None:
        """Return when nothing waits any more."""
        await self._idle.wait()

    def _see_more(self, seen: int, deadline: float) -> None:
        """Hand over once a turn of the loop brought nothing new, or time is up."""
        waiting = len(self._requests)
        if waiting > seen and self._loop.time() < deadline:
            self._loop.call_soon(self._see_more, waiting, deadline)
        else:
            self._hand_over()

    def _hand_over(self) -> None:
        requests, self._requests = self._requests[:MAX_BATCH], self._requests[MAX_BATCH:]
        futures, self._futures = self._futures[:MAX_BATCH], self._futures[MAX_BATCH:]
        self._last_size = len(requests)
        self._start(requests, lambda results: self._done(futures, results))

    def _done(self, futures: list[asyncio.Future[Result]], results: list[Any]) -> None:
        if self._requests:
            self._gather()
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


class BatchWorker(Batches[Request, Result]):
    """Batches for a thread of its own.

    `run` returns one result, or one exception, for each request, in order; an exception it
    raises goes to every request of that batch.
    """

    def __init__(self, name: str, run: Callable[[list[Request]], list[Result | Exception]]) -> None:
        super().__init__(lambda requests, done: self._batches.put((requests, done)))
        self._run = run
        self._batches: SimpleQueue[tuple[list[Request], Done] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    async def close(self) -> None:
        """Finish what waits, then end the thread."""
        await self.finish()
        self._batches.put(None)
        await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        while (batch := self._batches.get()) is not None:
            requests, done = batch
            results: list[Result | Exception]
            try:
                results = self._run(requests)
            except Exception as error:  # the batch fails as a whole, the thread lives on
                results = [error] * len(requests)
            self._loop.call_soon_threadsafe(done, results)
