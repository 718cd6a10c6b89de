# SPDX-License-Identifier: Apache-2.0
"""Two stream functions joined by a pipe: one writes on a second thread what the other reads."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from io import BufferedReader
from typing import BinaryIO, Generic, TypeVar

P = TypeVar("P")
C = TypeVar("C")


class _Producer(Generic[P]):
    """Runs the writing side and keeps what came of it."""

    def __init__(self, produce: Callable[[BinaryIO], P], sink: BinaryIO) -> None:
        self._produce = produce
        self._sink = sink
        self.result: list[P] = []
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            with self._sink:
                self.result.append(self._produce(self._sink))
        except BaseException as error:  # noqa: BLE001 - raised again on the caller's thread
            self.error = error


def join(produce: Callable[[BinaryIO], P], consume: Callable[[BufferedReader], C]) -> tuple[P, C]:
    """Run `produce(sink)` and `consume(source)` together; return what both return.

    What `produce` did happens before `consume` sees the end of the stream.
    An error of `produce` is raised rather than what `consume` makes of the stream that it cut; where `consume`
    fails by itself, its error is raised and `produce` is stopped by the broken pipe.
    """
    reading, writing = os.pipe()
    producer = _Producer(produce, os.fdopen(writing, "wb"))
    thread = threading.Thread(target=producer.run, name="pipe", daemon=True)
    thread.start()
    failure: BaseException | None = None
    consumed: list[C] = []
    try:
        with os.fdopen(reading, "rb") as source:
            consumed.append(consume(source))
    except BaseException as error:  # noqa: BLE001 - raised below, once both sides have ended
        failure = error
    thread.join()
    if producer.error is not None and not (failure is not None and isinstance(producer.error, BrokenPipeError)):
        raise producer.error
    if failure is not None:
        raise failure
    return producer.result[0], consumed[0]
