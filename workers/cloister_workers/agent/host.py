# SPDX-License-Identifier: Apache-2.0
"""What a worker host brings to every piece of work; made once, at start."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cloister_workers.agent.control import ControlPlane
from cloister_workers.agent.modelcache import ModelCache
from cloister_workers.agent.spool import Spool
from cloister_workers.agent.training import Place

Log = Callable[[Mapping[str, object]], None]


@dataclass(frozen=True)
class Host:
    """Services and limits of this host."""

    control: ControlPlane
    keyagent: Path
    """The key agent's socket."""
    spool: Spool
    cache: ModelCache
    sandboxed: bool
    """Whether `place` really is a sandbox; where it is not, only a signed policy lets a job run."""
    place: Place
    clock: Callable[[], float]
    """Seconds that never go back and go on while the machine sleeps."""
    log: Log


def steady_clock() -> float:
    """CLOCK_BOOTTIME: a laptop's or virtual machine's sleep counts, as it does for the lease."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def log_line(fields: Mapping[str, object]) -> None:
    """One JSON line on stderr."""
    sys.stderr.write(json.dumps({"part": "agent", "ts": round(time.time(), 3), **fields}) + "\n")
    sys.stderr.flush()
