# SPDX-License-Identifier: Apache-2.0
"""Jobs about stacks in this process: their inputs, and what they gave."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def jsonl(rows: Sequence[Mapping[str, object]]) -> bytes:
    """Rows as a dataset holds them."""
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


@dataclass(frozen=True)
class Done:
    """What a job told and handed over."""

    recorder: Any

    @property
    def files(self) -> dict[str, bytes]:
        """Those of the last bundle."""
        from cloister_workers.trainer.bundle import read_bundle

        return read_bundle(io.BytesIO(self.recorder.bundles[-1]))

    @property
    def bundle(self) -> bytes:
        """The last one."""
        return bytes(self.recorder.bundles[-1])

    def phases(self) -> dict[tuple[str, int], Any]:
        """Metrics by phase and number of layers."""
        from cloister_workers.messages import EvaluationPhase

        told = [entry for entry in self.recorder.messages if isinstance(entry, tuple) and len(entry) > 2]
        return {
            (entry[0].value, entry[3] if len(entry) > 3 else 0): entry[2]
            for entry in told
            if entry[0] in set(EvaluationPhase)
        }


@dataclass(frozen=True)
class Bench:
    """Where jobs run: the model's folder, the encoder's, a scratch folder."""

    model: Path
    scratch: Path
    new_recorder: Any
    encoder: Path | None = None

    def run(self, method: Mapping[str, object], data: dict[str, object] | None = None, **inputs: bytes) -> Done:
        """Run one job to its end; `inputs` by role."""
        import torch

        from cloister_workers.messages import DatasetRole, Start
        from cloister_workers.trainer import dispatch
        from cloister_workers.trainer.place import Workplace

        spec: dict[str, object] = {"model": "tiny", "seed": "5", "data": data or {}, "method": method}
        start = Start(spec=spec, inputs={}, model_dir=str(self.model), scratch=str(self.scratch), attempt=1)
        ticks = iter(range(1_000_000))
        place = Workplace(
            str(self.model), str(self.scratch), torch.device("cpu"), lambda: float(next(ticks)), str(self.encoder or "")
        )
        recorder = self.new_recorder()
        streams = {DatasetRole(name): io.BytesIO(content) for name, content in inputs.items()}
        dispatch.run(start, streams, place, recorder)
        return Done(recorder)
