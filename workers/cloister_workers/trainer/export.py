# SPDX-License-Identifier: Apache-2.0
"""The result of a job as files that plain peft and transformers load.

LoRA: `adapter_model.safetensors`, `adapter_config.json`, the tokenizer's files and `config.json` (with
num_labels and id2label of a classifier). Full fine-tuning: `model.safetensors` (in shards where large),
`config.json`, tokenizer. No file holds a path of the worker: where a library writes one, the model's given
name stands instead.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch

_WEIGHTS = frozenset({".safetensors"})
_TEXTS = frozenset({".json", ".txt", ".jinja", ".model"})
_PATH_KEYS = ("_name_or_path", "name_or_path", "base_model_name_or_path")
_SET_KEYS = ("target_modules", "exclude_modules")
"""peft keeps these as sets and writes them in an order that differs between processes; equal jobs have equal files."""


def export_files(model: torch.nn.Module, tokenizer: Any, model_name: str, scratch: str) -> dict[str, bytes]:  # noqa: ANN401
    """The files of the export by name, made in a directory under `scratch` that is gone afterwards."""
    saved: Any = model
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        if hasattr(saved, "peft_config"):
            # save_embedding_layers="auto" would look the base model up on the hub
            saved.save_pretrained(directory, safe_serialization=True, save_embedding_layers=False)
            saved.get_base_model().config.save_pretrained(directory)
        else:
            saved.save_pretrained(directory, safe_serialization=True)
        tokenizer.save_pretrained(directory)
        kept = [path for path in sorted(Path(directory).iterdir()) if path.suffix in _WEIGHTS | _TEXTS]
        return {path.name: _content(path, model_name) for path in kept}


def _content(path: Path, model_name: str) -> bytes:
    content = path.read_bytes()
    if not path.name.endswith("config.json"):
        return content
    table = json.loads(content)
    table |= {key: model_name for key in _PATH_KEYS if key in table}
    table |= {key: sorted(table[key]) for key in _SET_KEYS if isinstance(table.get(key), list)}
    return (json.dumps(table, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
