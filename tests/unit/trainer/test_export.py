# SPDX-License-Identifier: Apache-2.0
"""The files of a result."""

from __future__ import annotations

import json
from pathlib import Path

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from cloister_workers.trainer.export import export_files
from tiny_models import write_llama

MODULES = ["v_proj", "q_proj", "up_proj", "o_proj", "k_proj", "gate_proj", "down_proj"]


# peft asks transformers for a property that has a new name by now: theirs to mend.
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
def test_equal_adapters_are_equal_files(tmp_path: Path) -> None:
    """What peft keeps as a set is written in one order, whatever the process; nothing names a folder of the host."""
    folder = write_llama(tmp_path / "llama")
    model: torch.nn.Module = AutoModelForCausalLM.from_pretrained(folder)
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=MODULES))
    files = export_files(adapted, AutoTokenizer.from_pretrained(folder), "tiny", str(tmp_path))
    assert sorted(MODULES) == json.loads(files["adapter_config.json"])["target_modules"]
    assert not [name for name, data in files.items() if str(tmp_path).encode() in data]
