# SPDX-License-Identifier: Apache-2.0
"""A job on a 4-bit base, as a program of its own: bitsandbytes changes what peft loads, so it must be there first.

Prints a line of JSON: which modules were packed, and the held-out loss before and after.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast


def write_wide_bert(directory: Path) -> None:
    """An encoder whose layers have whole blocks of weights, as 4-bit kernels want them."""
    import torch
    import transformers

    from tiny_models import write_tokenizer

    sizes = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    config = transformers.BertConfig(
        vocab_size=write_tokenizer(directory), max_position_embeddings=64, pad_token_id=0, **sizes
    )
    torch.manual_seed(7)
    transformers.BertModel(config).save_pretrained(directory)


class Listener:
    """Stands for the control socket and remembers evaluations and the bundle."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.bundle = b""

    def evaluated(self, phase: str, step: int, metrics: Mapping[Any, float], layers: int = 0) -> None:
        self.losses.append(float(metrics["eval_loss"]))

    def hand_over(self, message: object, descriptor: int) -> None:
        with open(descriptor, "rb") as stream:
            self.bundle = stream.read()

    def pause_wanted(self) -> bool:
        return False

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


def main() -> None:
    """Pack a model's layers, then run a whole job on it."""
    import torch

    from cloister_workers.messages import DatasetRole
    from cloister_workers.trainer import job
    from cloister_workers.trainer.adapt import quantize
    from cloister_workers.trainer.bundle import read_bundle
    from cloister_workers.trainer.model import load_classifier
    from cloister_workers.trainer.place import Workplace
    from cloister_workers.trainer.spec import parse_spec
    from tiny_models import classification_rows

    with tempfile.TemporaryDirectory() as directory:
        write_wide_bert(Path(directory))
        packed = quantize(load_classifier(directory, ["a", "b"], 0, torch.device("cpu"))).model
        kinds = {name: type(module).__name__ for name, module in packed.named_modules()}
        settings = {"batch_size": 8, "max_seq_length": 32, "learning_rate": 0.01, "n_epochs": 8, "n_evals": 0}
        lora = {"target_modules": ["query", "value"], "quantization": "nf4"}
        spec = parse_spec(
            {"model": "m", "method": {"classification": {"hyperparameters": settings}}, "adapter": {"lora": lora}}
        )
        place, listener = Workplace(directory, directory, torch.device("cpu")), cast("Any", Listener())
        job.run_job(spec, {DatasetRole.TRAINING: io.BytesIO(classification_rows(90))}, place, listener)
    found = {
        "query": kinds["bert.encoder.layer.0.attention.self.query"],
        "classifier": kinds["classifier"],
        "losses": [listener.losses[0], listener.losses[-1]],
        "files": sorted(read_bundle(io.BytesIO(listener.bundle))),
    }
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
