"""How much room mail may take on a disk. The rest is kept for recording what becomes of it.

A queue that filled its disk to the brim could not even note a delivery, and so would never get
any room back.
"""

from __future__ import annotations

import os
from pathlib import Path

# Kept free on the disk; of a small disk, this share.
RESERVE_BYTES = 67_108_864
RESERVE_SHARE = 0.05
# What a queue without mail takes: SQLite says "disk I/O error" of some shortages, and "full" of
# others.
NEEDED_BYTES = 1_048_576


def reserve_bytes(directory: Path) -> int:
    """What is kept free on this directory's disk. Raises OSError."""
    return _reserve_of(os.statvfs(directory))


def free_bytes(directory: Path) -> int:
    """Octets that mail may use: what the disk has free, less the reserve. Raises OSError."""
    state = os.statvfs(directory)
    return max(0, state.f_bavail * state.f_frsize - _reserve_of(state))


def is_full(directory: Path) -> bool:
    """True when there is not even room for the database's own files. Raises OSError."""
    state = os.statvfs(directory)
    return state.f_bavail * state.f_frsize < NEEDED_BYTES or (
        state.f_files > 0 and state.f_favail == 0
    )


def _reserve_of(state: os.statvfs_result) -> int:
    return min(RESERVE_BYTES, int(state.f_blocks * state.f_frsize * RESERVE_SHARE))
