# SPDX-License-Identifier: Apache-2.0
"""One job as its steps hand it on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from cloister_workers.messages import MAX_PROGRESS_PER_SECOND, Progress
from cloister_workers.trainer.place import Inputs, Workplace
from cloister_workers.trainer.session import Session
from cloister_workers.trainer.spec import TrainingSpec

T = TypeVar("T")


@dataclass(frozen=True)
class Job:
    """What is asked, what it is given, where it runs, and whom it tells."""

    spec: TrainingSpec
    inputs: Inputs
    place: Workplace
    session: Session

    def poll(self) -> None:
        """Look at the control socket. Raises Cancelled."""
        self.session.poll(0)

    def counted(self, items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
        """The items, `size` at a time. Progress tells how many are done, the last always, others as the rate allows."""
        clock = self.place.clock
        began = told = clock()
        for start in range(0, len(items), size):
            some = items[start : start + size]
            yield some
            done, now = start + len(some), clock()
            if done == len(items) or now - told >= 1 / MAX_PROGRESS_PER_SECOND:
                left = (now - began) / done * (len(items) - done)
                self.session.progress(_progress(done, len(items), left))
                told = now


def _progress(done: int, total: int, left: float) -> Progress:
    return Progress(
        step=done, max_steps=total, epoch=done / total, metrics={}, losses=(), trained_tokens=0, eta_seconds=left
    )
