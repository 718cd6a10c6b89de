# SPDX-License-Identifier: Apache-2.0
"""The guide for a new method: its code runs as it stands there."""

from __future__ import annotations

import io
import re
import sys
import types
from pathlib import Path

import pytest
import torch

from cloister_workers.messages import DatasetRole, EvaluationPhase, MetricName
from cloister_workers.trainer import catalogue, job
from cloister_workers.trainer import spec as specs
from cloister_workers.trainer.place import Workplace
from tiny_models import classification_rows

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "add-a-method.md"
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")


@pytest.fixture
def guided(monkeypatch):
    """The guide's module, under the name of a method that has no file of its own in these tests."""
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert code is not None
    module = types.ModuleType("objectives_length")
    monkeypatch.setitem(sys.modules, "objectives_length", module)
    source = code.group(1).replace("Method.LENGTH", "Method.INFERENCE")
    exec(compile(source, str(PAGE), "exec", dont_inherit=True), module.__dict__)  # noqa: S102 - our own page
    found = {**catalogue.training_methods(), specs.Method.INFERENCE: module.METHOD}
    monkeypatch.setattr(catalogue, "training_methods", lambda: found)
    return module


def test_the_guides_method_learns(guided, bert_dir, tmp_path, recorder):
    """The method of the guide runs as a job, and its held-out error falls."""
    settings = {"n_epochs": 6, "batch_size": 8, "learning_rate": 0.02, "max_seq_length": 32}
    method = {"inference": {"unit": 5, "hyperparameters": settings}}
    adapter = {"lora": {"target_modules": ["query", "value"]}}
    spec = specs.parse_spec({"model": "tiny", "method": method, "adapter": adapter})
    place = Workplace(str(bert_dir), str(tmp_path), torch.device("cpu"))
    job.run_job(spec, {DatasetRole.TRAINING: io.BytesIO(classification_rows(90))}, place, recorder)
    told = {entry[0]: entry[2] for entry in recorder.messages if isinstance(entry, tuple) and len(entry) == 3}
    before, after = (told[phase][MetricName.EVAL_RMSE] for phase in (EvaluationPhase.BEFORE, EvaluationPhase.AFTER))
    assert after < before
