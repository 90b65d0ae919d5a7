"""`python -m benchmarks`: see README.md beside this file."""

import argparse
import os
import random
import signal
import sys
import tempfile
from pathlib import Path

from benchmarks import machine, measure, report
from benchmarks.addresses import measure_addresses
from benchmarks.destinations import measure_destinations
from benchmarks.devices import measure_devices
from benchmarks.errors import BenchmarkError
from benchmarks.fanout import measure_fanout
from benchmarks.memory import measure_memory
from benchmarks.peers import ROOT, WAYPOST, Task, present, program_versions
from benchmarks.report import Result
from benchmarks.runs import Plan, run_rounds
from benchmarks.syncs import measure_syncs
from tests.support.postfix import PostfixError, install

_RESULTS = Path(__file__).with_name("results")
_PARTS = (
    *("accept", "relay", "starttls", "syncs", "memory", "addresses", "destinations"),
    *("fanout", "devices"),
)


def main() -> int:
    options = _options()
    # So that a kill of this process ends the servers, too.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        result = _measure(options)
    except (BenchmarkError, PostfixError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(report.as_text(result))
    if options.save:
        path = report.save(result, _RESULTS, quick=options.quick)
        print(f"\nsaved as {path.relative_to(ROOT)}")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="3 rounds of fewer messages")
    parser.add_argument("--rounds", type=int, metavar="N", help="9 if not given")
    parser.add_argument("--messages", type=int, metavar="N", help="in each run; 10000 if not given")
    parser.add_argument("--seed", type=int, metavar="N", help="of the order; drawn if not given")
    parser.add_argument("--only", choices=_PARTS, help="measure this alone")
    parser.add_argument("--save", action="store_true", help="write JSON to benchmarks/results/")
    return parser.parse_args()


def _measure(options: argparse.Namespace) -> Result:
    if os.geteuid() != 0:
        raise BenchmarkError("needs root: Postfix can only be started by root")
    install("mosquitto", "openssl", "postfix", "strace")
    if not WAYPOST.exists():
        _say("Waypost is not installed here (make venv); measuring the others only")
    plan = Plan(
        rounds=options.rounds or (3 if options.quick else 9),
        messages=options.messages or (2000 if options.quick else 10_000),
        warm_up=300 if options.quick else 1000,
        seed=random.randrange(10**6) if options.seed is None else options.seed,
    )
    _say(f"the seed of this run's order is {plan.seed}")
    peers = present()
    parts = _PARTS if options.only is None else (options.only,)
    tasks = [task for task in Task if task.value in parts]
    with tempfile.TemporaryDirectory(prefix="waypost-bench-") as name:
        scratch = Path(name)
        scratch.chmod(0o755)  # for servers that give up root
        return Result(
            machine=machine.facts(scratch),
            versions=program_versions(),
            cpu_method=measure.cpu_method(),
            plan=plan,
            rounds=run_rounds(plan, tasks, peers, scratch, _say) if tasks else None,
            syncs=measure_syncs(peers, scratch, _say) if "syncs" in parts else None,
            memory=measure_memory(peers, scratch, _say) if "memory" in parts else None,
            addresses=(
                measure_addresses(plan.rounds, plan.seed, _say) if "addresses" in parts else None
            ),
            destinations=(
                measure_destinations(plan.rounds, plan.messages, plan.seed, scratch, _say)
                if "destinations" in parts
                else None
            ),
            fanout=(
                measure_fanout(plan.rounds, plan.messages, plan.seed, peers, scratch, _say)
                if "fanout" in parts
                else None
            ),
            devices=(
                measure_devices(plan.rounds, plan.seed, peers, scratch, _say)
                if "devices" in parts
                else None
            ),
        )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
