"""What a process holds, as Linux tells it."""

from __future__ import annotations

import resource
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Held:
    """Megabytes of memory that are resident, threads, and open files."""

    megabytes: float
    threads: int
    files: int


def held(pid: int | str = "self") -> Held:
    process = Path("/proc") / str(pid)
    pages = int((process / "statm").read_text().split()[1])
    threads, files = (len(list((process / name).iterdir())) for name in ("task", "fd"))
    return Held(pages * resource.getpagesize() / 2**20, threads, files)
