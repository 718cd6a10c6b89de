# SPDX-License-Identifier: Apache-2.0
"""Training side by side with the plain transformers Trainer + peft and with TRL's trainers: tokens/s and memory.

    python benchmarks/train.py [--tasks sft classification dpo] [--lengths mixed equal] [--runs 5] [--steps 30]

Every contender trains the same model on the same rows with the same adapter, batch and precision, in a process of its
own, in turns; what is compared is the training phase alone. Only real tokens count, padding does not. On a GPU the
model is larger (`SIZES`) and utilisation is printed as well: useful floating-point operations for a LoRA step, over a
matrix product's rate measured in the same process.

    trainer       transformers.Trainer, batches padded to their longest (what a newcomer writes)
    grouped       the same, rows of like lengths together
    trl           TRL's trainer for the task: SFTTrainer with packing, DPOTrainer with the reference precomputed
    cloister      the product's own job, through the same code as on a worker
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from training.rows import LENGTHS, TASKS, write_material

CONTENDERS = {
    "sft": ("cloister", "trainer", "grouped", "trl"),
    "classification": ("cloister", "trainer", "grouped"),
    "dpo": ("cloister", "trl"),
}


@dataclass(frozen=True)
class Measured:
    """One run of one contender."""

    tokens_per_second: float
    peak_mib: float
    utilisation: float


def measure(contender: str, task: str, folder: Path, steps: int) -> Measured:
    """Run a contender in a fresh process. Raises CalledProcessError where it fails."""
    program = [sys.executable, "-W", "ignore", "-m", "training.contenders"]
    done = subprocess.run(
        [*program, contender, task, str(folder), str(steps)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent,
    )
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def compare(task: str, lengths: str, runs: int, steps: int) -> None:
    """Take turns, then print a table of medians and of ratios to the product."""
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        print(f"{task}, {lengths} lengths: {write_material(task, lengths, folder, steps)}", flush=True)
        found: dict[str, list[Measured]] = {name: [] for name in CONTENDERS[task]}
        for number in range(runs):
            for name in CONTENDERS[task]:
                found[name].append(measure(name, task, folder, steps))
            shown = ", ".join(f"{name} {entries[-1].tokens_per_second:.0f}" for name, entries in found.items())
            print(f"  run {number + 1}, tokens/s: {shown}", flush=True)
    ours = statistics.median(entry.tokens_per_second for entry in found["cloister"])
    for name, entries in found.items():
        rate = statistics.median(entry.tokens_per_second for entry in entries)
        peak = statistics.median(entry.peak_mib for entry in entries)
        used = statistics.median(entry.utilisation for entry in entries)
        shown = f", utilisation {100 * used:.0f} %" if used else ""
        print(f"  {name:10} {rate:9.0f} tokens/s  {peak:7.0f} MiB peak  cloister is {ours / rate:.2f} x{shown}")


def main() -> None:
    """Run the chosen comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--lengths", nargs="+", choices=LENGTHS, default=list(LENGTHS))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=30)
    wanted = parser.parse_args()
    for task in wanted.tasks:
        for lengths in wanted.lengths:
            compare(task, lengths, wanted.runs, wanted.steps)


if __name__ == "__main__":
    main()
