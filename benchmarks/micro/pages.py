"""What the page size of the queue's database costs an insert (docs/decisions/0004).

python -m benchmarks.micro.pages
"""

import sqlite3
import tempfile
import time
from pathlib import Path

ROUNDS = 5  # the best of them counts: a busy machine only ever adds time
MESSAGES = 10_000
BATCH = 40
CONTENT = b"x" * 4096


def microseconds_per_message(directory: Path, page_bytes: int) -> float:
    """Insert MESSAGES in batches, each batch a synced transaction; the mean time of one."""
    connection = sqlite3.connect(directory / f"{page_bytes}.db", isolation_level=None)
    connection.execute(f"PRAGMA page_size = {page_bytes}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE message (id INTEGER PRIMARY KEY, about TEXT)")
    connection.execute("CREATE TABLE content (id INTEGER PRIMARY KEY, octets BLOB)")
    about = "sender@bench.example rcpt@bench.example " * 6
    started = time.perf_counter()
    for first in range(0, MESSAGES, BATCH):
        numbers = range(first, first + BATCH)
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(
            "INSERT INTO message VALUES (?, ?)", [(number, about) for number in numbers]
        )
        connection.executemany(
            "INSERT INTO content VALUES (?, ?)", [(number, CONTENT) for number in numbers]
        )
        connection.execute("COMMIT")
    took = time.perf_counter() - started
    connection.close()
    return took / MESSAGES * 1e6


def main() -> None:
    sizes = (4096, 8192, 16384, 32768, 65536)
    best = dict.fromkeys(sizes, float("inf"))
    for _ in range(ROUNDS):
        for page_bytes in sizes:
            with tempfile.TemporaryDirectory(dir=".") as directory:
                took = microseconds_per_message(Path(directory), page_bytes)
            best[page_bytes] = min(best[page_bytes], took)
    for page_bytes, took in best.items():
        print(f"pages of {page_bytes:6} octets: {took:6.1f} us for each message, best of {ROUNDS}")


if __name__ == "__main__":
    main()
