# SPDX-License-Identifier: Apache-2.0
"""Supervised fine-tuning by families of models: each learns and answers, the way that models.md says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from cloister_workers.messages import MetricName
from cloister_workers.trainer import job, layer
from tiny_families import CAUSAL, ENCODER_DECODERS, PACKED, PADDED, write_family
from tiny_models import WORDS
from trainer_jobs import job_spec, measured, run_job

# peft still asks transformers for an attribute under its old name
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
PAGE = Path(__file__).parents[3] / "docs" / "reference" / "models.md"
WAYS = {PACKED: "packed", PADDED: "padded", "": "padded"}
LISTED = {"all-linear": "every linear layer", "q_proj": "attention"}


def rows(*names: str) -> bytes:
    """Two words, of which the answer repeats the first."""
    numbers = [37 * n % 100 for n in range(60)]
    pairs = [(f"{WORDS[n % 10]} {WORDS[n // 10]}", f" {WORDS[n % 10]}") for n in numbers]
    return "\n".join(json.dumps(dict(zip(names, pair, strict=True))) for pair in pairs).encode()


@pytest.mark.parametrize("name", [*CAUSAL, *ENCODER_DECODERS])
def test_every_family_learns_and_answers(name, tmp_path, recorder, monkeypatch):
    """A tiny random model of each family lowers its held-out loss with an adapter, packed or padded as is expected, and
    its answers are measured.
    """
    seen: list[Any] = []

    def attach(base, *rest):
        seen.append(base.model)
        return layer.attach(base, *rest)

    monkeypatch.setattr(job, "attach", attach)
    family, columns = {**CAUSAL, **ENCODER_DECODERS}[name], ("source", "target")
    training = rows(*(columns if name in ENCODER_DECODERS else ("prompt", "completion")))
    adapter = {"lora": {"target_modules": list(family.targets)}}
    spec = job_spec("supervised", {"metrics": "answer", "max_new_tokens": 3}, n_epochs=4, adapter=adapter)
    told = run_job(spec, write_family(name, tmp_path), tmp_path, recorder, training)
    before, after = measured(told)
    assert after[MetricName.EVAL_LOSS] < before[MetricName.EVAL_LOSS]
    assert MetricName.EVAL_EXACT_MATCH in after
    if name in CAUSAL:
        assert family.attention == seen[0].config._attn_implementation


def test_the_page_names_the_families_that_are_run():
    """models.md lists each family that the test above runs, with how it runs and where its adapter is, and no other."""
    table = re.search(r"## Supervised fine-tuning.*?\n\n(\|.*?)\n\n", PAGE.read_text(), re.DOTALL)
    assert table
    cells = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in table[1].splitlines()[2:]]
    known = {**CAUSAL, **ENCODER_DECODERS}
    expected = {name: [WAYS[family.attention], LISTED[family.targets[0]]] for name, family in known.items()}
    assert expected == {line[0]: line[2:4] for line in cells}
