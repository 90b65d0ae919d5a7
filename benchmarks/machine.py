"""The facts about this machine that a result depends on, and none that tell whose it is."""

import os
import platform
import re
from pathlib import Path


def facts(scratch: Path) -> dict[str, str | int]:
    """`scratch` lies on the file system that is measured."""
    memory = re.search(r"^MemTotal: +(\d+) kB", Path("/proc/meminfo").read_text(), re.M)
    cpu = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.M)
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": cpu[1].strip() if cpu else platform.machine(),
        "memory_gib": round(int(memory[1]) / (1 << 20)) if memory else 0,
        "kernel": f"{platform.system()} {platform.release()}",
        "file_system": _file_system(scratch.resolve()),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def _file_system(path: Path) -> str:
    """The kind of the innermost mount that holds `path`."""
    longest, found = -1, "unknown"
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, kind, *_ = line.split()
        if path.is_relative_to(mount) and len(mount) >= longest:
            longest, found = len(mount), kind
    return found
