# SPDX-License-Identifier: Apache-2.0
"""The trainer's side of the control socket: what the job tells the agent, and what the agent asks."""

from __future__ import annotations

import os

from cloister_workers.errors import Cancelled, ProtocolError
from cloister_workers.protocol import (
    Cancel,
    Channel,
    Checkpoint,
    Evaluation,
    EvaluationPhase,
    FromTrainer,
    Metrics,
    Pause,
    Progress,
    Report,
    Reported,
    Result,
    Stage,
    StageChange,
    StageStatus,
)


class Session:
    """Speaks for one job; answers the loop's `Hooks` together with `stages.JobHooks`."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._pause = False

    def poll(self, step: int) -> None:
        """Take what the agent sent, without waiting. Raises Cancelled, or PeerClosed where the agent is
        gone.
        """
        while (received := self._channel.poll()) is not None:
            match received.message:
                case Cancel():
                    raise Cancelled(step)
                case Pause():
                    self._pause = True
                case _:
                    raise ProtocolError("a second start came for one trainer; start another process")

    def pause_wanted(self) -> bool:
        return self._pause

    def stage(self, name: Stage, status: StageStatus) -> None:
        """Say that a stage starts or is finished."""
        self._channel.send(StageChange(name=name, status=status))

    def tell(self, message: FromTrainer) -> None:
        """Send a message that brings no descriptor."""
        self._channel.send(message)

    def progress(self, message: Progress) -> None:
        self._channel.send(message)

    def evaluated(self, phase: EvaluationPhase, step: int, metrics: Metrics, layers: int = 0) -> None:
        self._channel.send(Evaluation(phase=phase, step=step, metrics=metrics, layers=layers))

    def hand_over(self, message: Checkpoint | Report | Reported | Result, descriptor: int) -> None:
        """Send a bundle; closes `descriptor`."""
        try:
            self._channel.send(message, [descriptor])
        finally:
            os.close(descriptor)
