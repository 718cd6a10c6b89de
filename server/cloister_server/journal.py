# SPDX-License-Identifier: Apache-2.0
"""The process's log: one JSON object per line on stderr.

Threat: a log line that quotes a request would carry content out of the store's protection.  So a line takes
fixed words, ids and figures; of an exception it takes the type and the place, never the message.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Callable
from typing import TextIO

Value = str | int | float | bool | None


class Journal:
    """Writes lines; safe to call from any thread."""

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.time) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock

    def write(self, level: str, event: str, **fields: Value) -> None:
        """`level` is info, warn or error; `event` a fixed word."""
        line = json.dumps({"ts": round(self._clock(), 3), "level": level, "event": event, **fields})
        self._stream.write(line + "\n")
        self._stream.flush()

    def failure(self, event: str, error: BaseException, **fields: Value) -> None:
        """A defect: type and place of the exception, and of what caused it."""
        cause = error.__cause__ or error.__context__
        self.write(
            "error",
            event,
            **fields,
            type=type(error).__name__,
            place=_place(error),
            cause="" if cause is None else type(cause).__name__,
            cause_place="" if cause is None else _place(cause),
        )


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return " < ".join(f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}" for frame in reversed(frames[-4:]))
