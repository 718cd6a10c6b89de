# SPDX-License-Identifier: Apache-2.0
"""Twenty mitigations that are none, on a real if tiny model: how many does the gate let through?

    python benchmarks/debias_shams.py [--shams 20]

A decoder learns a planted stereotype (`tests/support/planted.py`). Each sham trains an adapter as counterfactual
augmentation does, with the same texts, settings and an own seed, but without a single copy (`share` 0); the model is
measured again as it loads from the exported files and judged by the product's statistics and gate, on held-out words
and templates. A true mitigation goes first, to show that the same gate lets it through.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from cloister_workers.messages import Verdict
from cloister_workers.trainer.debias.registry import mitigations
from cloister_workers.trainer.debias.results import Run
from planted import (
    BAR,
    CPU,
    World,
    case_of,
    judged,
    load_planted,
    make_world,
    write_planted_decoder,
)


def run_once(world: World, decoder: Path, scratch: Path, share: float, seed: int) -> Run:
    """Train, export, load, measure, judge."""
    mitigation = mitigations()["counterfactual"]
    subject = load_planted(decoder, scratch)
    case = case_of(mitigation, subject, (world.fit, world.validation), scratch, settings={"share": share}, seed=seed)
    after = load_planted(decoder, scratch, mitigation.apply(case).files)
    return judged(world, load_planted(decoder, scratch), after, seed)


def line(name: str, run: Run) -> str:
    """What came of one run."""
    [measured], [kept] = run.measured, run.kept
    before, after, loss = measured.before, measured.after, kept.loss
    return (
        f"{name:8} lean {before.value:+.3f} -> {after.value:+.3f} [{after.low:+.3f}, {after.high:+.3f}]  "
        f"perplexity ratio {1 + loss.value:.4f} [{1 + loss.low:.4f}, {1 + loss.high:.4f}]  {run.judgement.verdict}"
    )


def main() -> None:
    """Pretrain, mitigate in earnest once and in pretence often, and count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shams", type=int, default=20)
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    began = time.perf_counter()
    world = make_world()
    with tempfile.TemporaryDirectory() as folder:
        decoder, scratch = Path(folder, "decoder"), Path(folder, "scratch")
        scratch.mkdir()
        write_planted_decoder(decoder, world)
        print(f"bound: {BAR} nats a sentence; pretrained in {time.perf_counter() - began:.0f} s on {CPU}")
        print(line("true", run_once(world, decoder, scratch, 1.0, 1)), flush=True)
        verdicts: Counter[Verdict] = Counter()
        for seed in range(1, wanted.shams + 1):
            run = run_once(world, decoder, scratch, 0.0, seed)
            verdicts[run.judgement.verdict] += 1
            print(line(f"sham {seed}", run), flush=True)
    print(f"{verdicts[Verdict.PASS]} of {wanted.shams} shams PASS, {time.perf_counter() - began:.0f} s in all")


if __name__ == "__main__":
    main()
