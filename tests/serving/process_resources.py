"""Memory, threads and open files of a Linux process."""

from __future__ import annotations

import resource
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ProcessResources:
    """Resident memory in megabytes, number of threads, and number of open files."""

    megabytes: float
    threads: int
    files: int


def process_resources(pid: int | str = "self") -> ProcessResources:
    process = Path("/proc") / str(pid)
    pages = int((process / "statm").read_text().split()[1])
    threads, files = (len(list((process / name).iterdir())) for name in ("task", "fd"))
    return ProcessResources(pages * resource.getpagesize() / 2**20, threads, files)
