# SPDX-License-Identifier: Apache-2.0
"""The trainer trusts no client: what the client's rules refuse, it refuses on its own, and names the setting."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
import torch

from cloister.api.v1 import spec_pb2
from cloister.settings import HYPERPARAMETERS
from cloister.spec import NO_TRAINING, read_spec, spec_bytes
from cloister_workers.errors import SpecError
from cloister_workers.messages import DatasetRole, SpecField, Start
from cloister_workers.trainer import dispatch
from cloister_workers.trainer.place import Workplace
from impossible_specs import SPECS
from tiny_models import WORDS

ROWS = [
    {"prompt": f"{a} {b} {n}", "completion": f" {a}", "text": f"{a} {b}", "answer": a}
    for n, (a, b) in enumerate(zip(WORDS[:10] * 4, WORDS[3:10] * 6, strict=False))
]
QUESTIONS = [{"context": row["text"], "question": row["prompt"], "answers": [row["answer"]]} for row in ROWS]


@pytest.mark.parametrize("name", [name for name, given in SPECS.items() if given.param])
def test_the_trainer_refuses_it_too(name, llama_dir, tmp_path, recorder):
    """A specification that was signed past the client ends before its first step, with the setting's own name."""
    given = SPECS[name]
    spec = json.loads(spec_bytes(read_spec(given.values())))
    start = Start(spec=spec, inputs={}, model_dir=str(llama_dir), scratch=str(tmp_path), attempt=1)
    rows = QUESTIONS if given.method == "question_answering" else ROWS
    content = b"\n".join(json.dumps(row).encode() for row in rows)
    role = DatasetRole.EVALUATION if given.method in NO_TRAINING else DatasetRole.TRAINING
    inputs = {role: io.BytesIO(content)}
    with pytest.raises(SpecError) as caught:
        dispatch.run(start, inputs, Workplace(str(llama_dir), str(tmp_path), torch.device("cpu")), recorder)
    assert given.param == caught.value.field
    assert [] == recorder.losses()


def test_every_setting_can_be_named():
    """Each field of the contract that the trainer reads by its name is a word of the closed list."""
    methods: Any = spec_pb2.Method.DESCRIPTOR.fields_by_name
    fields = [field for name in {*methods} - {"debias"} for field in methods[name].message_type.fields]
    fields += spec_pb2.Hyperparameters.DESCRIPTOR.fields
    fields += [*spec_pb2.DataOptions.DESCRIPTOR.fields, *spec_pb2.Lora.DESCRIPTOR.fields]
    names = {field.name for field in fields} - {HYPERPARAMETERS}
    assert names <= set(SpecField)
