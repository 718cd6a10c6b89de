# SPDX-License-Identifier: Apache-2.0
"""One contender on one task: trains, and prints tokens/s, peak memory and utilisation as a line of JSON.

python contenders.py CONTENDER TASK FOLDER STEPS
"""

from __future__ import annotations

import io
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}

import peft
import torch
import transformers

from training.rows import BATCH, MAX_LENGTH, SEED, TARGETS

Rows = list[dict[str, str]]
RANK, RATE = 16, 2e-4
CUDA = torch.cuda.is_available()


class Stopwatch(transformers.TrainerCallback):
    """Seconds from the first step's begin to the last step's end."""

    def __init__(self) -> None:
        self.began = self.seconds = 0.0

    def on_train_begin(self, *_: object, **__: object) -> None:
        self.began = _now()

    def on_train_end(self, *_: object, **__: object) -> None:
        self.seconds = _now() - self.began


def _now() -> float:
    if CUDA:
        torch.cuda.synchronize()
    return time.perf_counter()


def targets(task: str) -> list[str]:
    """The linear layers of attention."""
    return ["query", "key", "value"] if task == "classification" else list(TARGETS)


def adapter(task: str) -> peft.LoraConfig:
    """The same for all."""
    kind = "SEQ_CLS" if task == "classification" else "CAUSAL_LM"
    return peft.LoraConfig(task_type=kind, r=RANK, lora_alpha=2 * RANK, lora_dropout=0.0, target_modules=targets(task))


def common(folder: Path, steps: int) -> dict[str, Any]:
    """Arguments of every transformers trainer: nothing is saved, logged or reported."""
    return {
        "output_dir": str(folder / "out"),
        "per_device_train_batch_size": BATCH,
        "max_steps": steps,
        "learning_rate": RATE,
        "lr_scheduler_type": "cosine",
        "seed": SEED,
        "report_to": [],
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
        "use_cpu": not CUDA,
        "bf16": CUDA,
        "dataloader_pin_memory": CUDA,
        "gradient_checkpointing": False,
    }


def load(folder: Path, task: str) -> tuple[Any, Any]:
    """Model and tokenizer as a script would load them."""
    dtype = torch.bfloat16 if CUDA else torch.float32
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "model")
    torch.manual_seed(SEED)
    if task == "classification":
        kind, more = transformers.AutoModelForSequenceClassification, {"num_labels": 4}
    else:
        kind, more = transformers.AutoModelForCausalLM, {}
    return kind.from_pretrained(folder / "model", dtype=dtype, attn_implementation="sdpa", **more), tokenizer


def sft_tokens(tokenizer: Any, row: dict[str, str]) -> dict[str, list[int]]:  # noqa: ANN401
    """Prompt and completion, of which the latter is learned."""
    prompt = tokenizer(row["prompt"])["input_ids"]
    whole = [*tokenizer(row["prompt"] + row["completion"])["input_ids"], tokenizer.eos_token_id][:MAX_LENGTH]
    return {"input_ids": whole, "labels": [-100] * len(prompt) + whole[len(prompt) :]}


def plain_trainer(folder: Path, task: str, rows: Rows, steps: int, *, grouped: bool) -> float:
    """What a newcomer writes: Trainer, peft, a padding collator."""
    model, tokenizer = load(folder, task)
    model = peft.get_peft_model(model, adapter(task))
    if task == "sft":
        data = [sft_tokens(tokenizer, row) for row in rows]
        collator: Any = transformers.DataCollatorForSeq2Seq(tokenizer, padding="longest")
    else:
        labels = sorted({row["label"] for row in rows})
        texts = tokenizer([row["text"] for row in rows], truncation=True, max_length=MAX_LENGTH)["input_ids"]
        data = [{"input_ids": t, "labels": labels.index(r["label"])} for t, r in zip(texts, rows, strict=True)]
        collator = transformers.DataCollatorWithPadding(tokenizer)
    settings = {"train_sampling_strategy": "group_by_length"} if grouped else {}
    arguments = transformers.TrainingArguments(**common(folder, steps), **settings)
    watch = Stopwatch()
    transformers.Trainer(
        model=model, args=arguments, train_dataset=data, data_collator=collator, callbacks=[watch]
    ).train()
    return watch.seconds


def trl_trainer(folder: Path, task: str, rows: Rows, steps: int) -> float:
    """TRL as its documentation recommends: packed for SFT, reference precomputed for DPO."""
    import datasets
    import trl

    model, tokenizer = load(folder, task)
    watch = Stopwatch()
    data = datasets.Dataset.from_list(rows)
    shared = {"model": model, "train_dataset": data, "processing_class": tokenizer, "callbacks": [watch]}
    if task == "sft":
        settings = {**common(folder, steps), "max_steps": -1, "num_train_epochs": 1}
        # One packed row holds what a batch of examples holds on average.
        packed = trl.SFTConfig(**settings, max_length=MAX_LENGTH, packing=True)
        packed.per_device_train_batch_size = 2
        trl.SFTTrainer(args=packed, peft_config=adapter(task), **shared).train()
        return watch.seconds
    pairs = trl.DPOConfig(**common(folder, steps), beta=0.1, max_length=MAX_LENGTH, precompute_ref_log_probs=True)
    trl.DPOTrainer(args=pairs, peft_config=adapter(task), **shared).train()
    return watch.seconds


def cloister(folder: Path, task: str, rows: Rows, steps: int) -> float:
    """The product's job, as a worker's trainer runs it."""
    from cloister_workers.messages import DatasetRole, Stage, StageStatus
    from cloister_workers.trainer import job
    from cloister_workers.trainer.place import Workplace
    from cloister_workers.trainer.spec import parse_spec

    class Session:
        """Stands for the control socket: nobody listens, the training phase is timed."""

        seconds = 0.0

        def stage(self, name: Stage, status: StageStatus) -> None:
            if name is Stage.TRAIN:
                self.seconds = _now() - self.seconds if status is StageStatus.FINISHED else _now()

        def pause_wanted(self) -> bool:
            return False

        def hand_over(self, _: object, descriptor: int) -> None:
            os.close(descriptor)

        def __getattr__(self, _: str) -> Callable[..., None]:
            return lambda *_, **__: None

    name = {"sft": "supervised", "dpo": "preference"}.get(task, task)
    hyperparameters = {
        "max_steps": steps,
        "batch_size": BATCH,
        "micro_batch_size": BATCH,
        "max_seq_length": MAX_LENGTH,
        "learning_rate": RATE,
        "lr_scheduler_type": "cosine",
        "warmup_ratio": 0.0,
    }
    spec = parse_spec(
        {
            "model": "random",
            "seed": str(SEED),
            "data": {"validation_fraction": 0.0, "evaluation_fraction": 0.0},
            "method": {name: {"hyperparameters": hyperparameters}},
            "adapter": {"lora": {"rank": RANK, "alpha": 2 * RANK, "dropout": 0.0, "target_modules": targets(task)}},
        }
    )
    session = Session()
    (folder / "scratch").mkdir(exist_ok=True)
    place = Workplace(str(folder / "model"), str(folder / "scratch"), torch.device("cuda" if CUDA else "cpu"))
    stream = io.BytesIO("\n".join(json.dumps(row) for row in rows).encode())
    job.run_job(spec, {DatasetRole.TRAINING: stream}, place, session)  # type: ignore[arg-type]
    return session.seconds


CONTENDERS: dict[str, Callable[[Path, str, Rows, int], float]] = {
    "cloister": cloister,
    "trainer": lambda *given: plain_trainer(*given, grouped=False),
    "grouped": lambda *given: plain_trainer(*given, grouped=True),
    "trl": trl_trainer,
}


def count_tokens(folder: Path, task: str, rows: Rows) -> int:
    """Real tokens of one pass over the rows; a preference's prompt counts once for each side."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "model")

    def size(text: str) -> int:
        return len(tokenizer(text)["input_ids"])

    if task == "classification":
        return sum(min(MAX_LENGTH, size(row["text"])) for row in rows)
    if task == "sft":
        return sum(len(sft_tokens(tokenizer, row)["input_ids"]) for row in rows)
    return sum(2 * size(row["prompt"]) + size(row["chosen"]) + size(row["rejected"]) + 2 for row in rows)


def peak_mib() -> float:
    """Of device memory on a GPU, else of this process."""
    if CUDA:
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def utilisation(folder: Path, rate: float) -> float:
    """Useful operations of a LoRA step over the rate of a matrix product measured here; 0 without a GPU.

    4 N a token for the frozen linear layers and the head, forward and towards the inputs; the adapter's own and
    attention's are below two in a hundred here and left out, so the figure is a lower bound.
    """
    if not CUDA:
        return 0.0
    with torch.device("meta"):
        config = transformers.AutoConfig.from_pretrained(folder / "model")
        model = transformers.AutoModel.from_config(config)
    weights = sum(p.numel() for name, p in model.named_parameters() if p.dim() == 2 and "embed" not in name)
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    for _ in range(3):
        a @ a
    began = _now()
    for _ in range(20):
        a @ a
    product = 20 * 2 * 8192**3 / (_now() - began)
    return rate * 4 * weights / product


def main() -> None:
    """Train, then say what it took."""
    name, task, place, steps = sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    rows = [json.loads(line) for line in (place / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    tokens = count_tokens(place, task, rows)
    seconds = CONTENDERS[name](place, task, rows, steps)
    rate, peak = tokens / seconds, peak_mib()
    print(json.dumps({"tokens_per_second": rate, "peak_mib": peak, "utilisation": utilisation(place, rate)}))


if __name__ == "__main__":
    main()
