# SPDX-License-Identifier: Apache-2.0
"""How many changes a second commit with their audit entry, beside what the disk can flush.

    python benchmarks/audit_append.py [--seconds 5]

SQLite as the embedded site runs it (WAL, synchronous=FULL), one writer, one entry a transaction; and, in the same run,
the rate of bare fdatasync on the same file system.  The ratio is the figure; the rates depend on the disk.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from cloister.evidence.entry import Actor, Event, Subject
from cloister_audit.ledger import Ledger
from cloister_server.database.engine import open_database
from cloister_server.migrations.schema import upgrade


def rate(action: Callable[[], object], seconds: float) -> float:
    """Calls a second."""
    count, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < seconds:
        action()
        count += 1
    return count / spent


def main() -> None:
    """Print both rates and their ratio."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=5.0)
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        database = open_database(f"sqlite:///{folder}/bench.db")
        upgrade(database)
        ledger = Ledger(lambda: time.time_ns() // 1000)
        event = Event("job.read", Actor("p-1", "person"), Subject("job", "j-1"), detail={"attempt": 1})

        def append() -> None:
            with database.writer.begin() as connection:
                ledger.append(connection, [event])

        with Path(folder, "probe").open("wb") as probe:

            def flush() -> None:
                probe.write(b"x" * 4096)
                probe.flush()
                os.fdatasync(probe.fileno())

            flushed, appended = rate(flush, seconds), rate(append, seconds)
        database.dispose()
    print(f"fdatasync                 {flushed:9.0f} /s")
    print(f"change with its entry     {appended:9.0f} /s   WAL, synchronous=FULL, one writer, not grouped")
    print(f"ratio                     {appended / flushed:9.2f}")


if __name__ == "__main__":
    main()
