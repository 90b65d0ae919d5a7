"""The hub killed at random under load.

The law, of test_kill_points too: what was acknowledged with 250 arrives, whole; a copy too many
needs a kill while that mail was under way.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Callable

import pytest

from tests.fault.clients import Load
from tests.fault.collecting import collect
from tests.fault.ledger import Ledger
from tests.fault.sink import Sink, relay_config, running_sink
from tests.fault.tracing import children_of
from tests.fault.waiting import (
    QUICK_RETRY,
    check_log,
    wait_until_drained,
)
from tests.support.hub import Hub

CLIENTS = 20
LONGEST_ROUND_S = 0.6

Say = Callable[[str], None]


@pytest.mark.timeout(0)  # the number of rounds decides
def test_killed_at_random_under_load(
    start_hub: Callable[..., Hub], kill_rounds: int, seed: int, say: Say
) -> None:
    rng = random.Random(seed)
    ledger = Ledger()

    async def rounds(hub: Hub, sink: Sink) -> None:
        load = Load(CLIENTS, hub.port, ledger, rng)
        for _ in range(kill_rounds):
            await asyncio.sleep(rng.uniform(0, LONGEST_ROUND_S))
            before = time.time()
            if rng.random() < 0.5:
                os.kill(children_of(hub.pid)[0], signal.SIGKILL)  # its writer first
                await asyncio.sleep(rng.uniform(0, 0.01))
            await asyncio.to_thread(hub.kill)
            ledger.kills.append((before, time.time()))
            await asyncio.to_thread(collect, hub, sink, ledger)
            load.check()
            check_log(hub)
            await asyncio.to_thread(hub.start)
        await load.stop()

    with running_sink() as sink:
        hub = start_hub(relay_config(sink) + QUICK_RETRY)
        asyncio.run(rounds(hub, sink))
        wait_until_drained(hub)
        collect(hub, sink, ledger)
    check_log(hub)
    resent = sum(len(sent.acknowledged) + sent.cut - 1 for sent in ledger.sent.values())
    say(
        f"{kill_rounds} kills, seed {seed}: {ledger.acknowledged} mails acknowledged,"
        f" {len(ledger.lost())} lost, {len(ledger.damaged)} damaged,"
        f" {ledger.extra_copies} extra copies ({resent} attempts cut off and repeated)"
    )
    assert len(ledger.kills) == kill_rounds
    assert ledger.acknowledged > kill_rounds
    assert ledger.problems(hub.data) == []
