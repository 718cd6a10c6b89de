# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the trainer's tests: tiny models, and a session that remembers."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from tiny_models import write_bert, write_llama


@dataclass
class Recorder:
    """Stands where the control socket would: remembers messages and bundles, and stops the job on request."""

    messages: list = field(default_factory=list)
    bundles: list[bytes] = field(default_factory=list)
    cancel_at: int | None = None
    pause_at: int | None = None
    polled: int = 0

    def poll(self, step: int) -> None:
        from cloister_workers.errors import Cancelled

        self.polled = step
        if self.cancel_at is not None and step >= self.cancel_at:
            raise Cancelled(step)

    def pause_wanted(self) -> bool:
        return self.pause_at is not None and self.polled + 1 >= self.pause_at

    def stage(self, name, status) -> None:
        self.messages.append((name, status))

    def tell(self, message) -> None:
        self.messages.append(message)

    progress = tell

    def evaluated(self, phase, step, metrics, layers=0) -> None:
        self.messages.append((phase, step, metrics, layers) if layers else (phase, step, metrics))

    def hand_over(self, message, descriptor: int) -> None:
        self.messages.append(message)
        with os.fdopen(descriptor, "rb") as stream:
            self.bundles.append(stream.read())

    def losses(self) -> list[float]:
        from cloister_workers.protocol import Progress

        return [loss for message in self.messages if isinstance(message, Progress) for loss in message.losses]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture(scope="session")
def new_recorder():
    return Recorder


@pytest.fixture(scope="session")
def bert_dir(tmp_path_factory) -> Path:
    return write_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="session")
def llama_dir(tmp_path_factory) -> Path:
    return write_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture
def base(llama_dir):
    """A causal model as it was loaded."""
    from cloister_workers.trainer.model import load_causal

    return load_causal(str(llama_dir), torch.device("cpu")).model.eval()


@pytest.fixture
def moved(llama_dir):
    """The same model some way from where it began."""
    from cloister_workers.trainer.model import load_causal

    model = load_causal(str(llama_dir), torch.device("cpu")).model.eval()
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.5)
    return model
