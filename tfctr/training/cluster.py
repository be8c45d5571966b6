"""What TF_CONFIG, an environment variable, says of the processes that train one model."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tfctr.errors import UserError

VARIABLE = "TF_CONFIG"


@dataclass(frozen=True)
class Cluster:
    """The tasks of TF_CONFIG, and which of them this process is.

    Attributes:
        jobs: `chief` (at most one) and `worker`, each with its tasks' addresses.
        job: That of this process.
        index: Its place among the tasks of the job.
    """

    jobs: Mapping[str, Sequence[str]]
    job: str
    index: int

    @property
    def count(self) -> int:
        """How many workers there are, the chief among them."""
        return sum(map(len, self.jobs.values()))

    @property
    def number(self) -> int:
        """The place of this process among all; 0 is the chief, which is the first worker where none is named."""
        return self.index + (len(self.jobs.get("chief", ())) if self.job == "worker" else 0)


def cluster_of(text: str | None) -> Cluster | None:
    """Reads what TF_CONFIG holds; None where it isn't set.

    Raises:
        UserError: it is no cluster of workers, or this process is none of them.
    """
    if not text:
        return None
    try:
        content = json.loads(text)
        jobs, task = dict(content["cluster"]), dict(content["task"])
        found = {str(job): _texts(addresses) for job, addresses in jobs.items() if addresses}
        job, index = str(task["type"]), task["index"]
        if isinstance(index, bool | float):
            raise TypeError(index)
        index = int(index)
    except json.JSONDecodeError as error:
        raise _broken(f"must be JSON; {error}") from None
    except (KeyError, TypeError, ValueError, RecursionError):
        raise _broken(
            'must be {"cluster": {"worker": ["HOST:PORT", ...]}, "task": {"type": "worker", "index": 0}}'
        ) from None
    for other in sorted(found.keys() - {"chief", "worker"}):
        why = {"ps": "there are no parameter servers here", "evaluator": "the chief evaluates"}.get(other, "")
        raise _broken(f"`cluster` may hold `chief` and `worker`, and holds `{other}`{why and '; '}{why}")
    addresses = [address for job in found.values() for address in job]
    for address in addresses:
        parts = re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[^\s/:]+):([0-9]{1,5})", address)
        if parts is None or not 0 < int(parts[2]) < 1 << 16:
            raise _broken(f"an address must be HOST:PORT, the port from 1 to 65535. Received: {address}")
    if len(set(addresses)) < len(addresses):
        raise _broken("two tasks have the same address")
    if len(found.get("chief", ())) > 1:
        raise _broken(f"there is one chief at most. Received: {len(found['chief'])}")
    if job not in found:
        raise _broken(f"`task` is of type `{job}`, and `cluster` has {', '.join(found) or 'no tasks'}")
    if not 0 <= index < len(found[job]):
        raise _broken(f"`task` has index {index}, and `cluster` has {len(found[job])} of type `{job}`, from 0")
    return Cluster(found, job, index)


def _texts(addresses: Any) -> list[str]:
    if not isinstance(addresses, list) or not all(isinstance(one, str) for one in addresses):
        raise TypeError(addresses)
    return addresses


def _broken(what: str) -> UserError:
    return UserError(f"{VARIABLE} (an environment variable): {what}")


def refuse_several(what: str) -> None:
    """Raises a UserError if TF_CONFIG names several workers, for what trains in one process."""
    cluster = cluster_of(os.environ.get(VARIABLE))
    if cluster is not None and cluster.count > 1:
        raise _broken(
            f"names {cluster.count} workers, and {what} trains in one process; unset it, or use `tfctr train`"
        )
