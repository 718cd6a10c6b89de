# SPDX-License-Identifier: Apache-2.0
"""One job as its steps hand it on."""

from __future__ import annotations

from dataclasses import dataclass

from cloister_workers.trainer.place import Inputs, Workplace
from cloister_workers.trainer.session import Session
from cloister_workers.trainer.spec import TrainingSpec


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
