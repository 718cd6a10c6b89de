# SPDX-License-Identifier: Apache-2.0
"""How often the de-biasing gate says PASS where it must not, how often where it should, and how its intervals cover.

    python benchmarks/debias_gate.py [--runs 400] [--draws 1000] [--only coverage|false|replay|power]

Everything is drawn from models whose truth is known; no language model takes part. The statistics and the gate are
those of the product.

    coverage   by interval and kind of figure: how often the truth lies below and above
    false      mitigations that do nothing, or not enough, or harm: each must PASS at most 5 % of the time, shown with
               its Clopper-Pearson interval
    replay     one set of stored scores, 100 small random perturbations of it: at most 14 may PASS (the 99.99 %
               quantile of 100 trials at the design level of 5 %)
    power      mitigations that do what they say
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from cloister.gate import Gate
from cloister_workers.messages import Verdict
from cloister_workers.trainer.debias.assess import assess, assess_utility, with_holm
from cloister_workers.trainer.debias.gate import Wanted, judge
from cloister_workers.trainer.debias.results import Estimate, Kept
from cloister_workers.trainer.debias.statistics.exact import clopper_pearson
from made_up_scores import (
    BBQ,
    CROWS,
    DELTA,
    FLIP,
    GAP,
    PARTS,
    RIGHT,
    STEREOSET,
    Draw,
    Mean,
    Shape,
    deltas,
    latent,
    rare,
    rates,
)

LIMIT = 0.05


# ---------------------------------------------------------------- the whole gate on one drawing
@dataclass(frozen=True)
class Setting:
    """A mitigation whose truth is known: the primary measure, one on another axis, and accuracy."""

    title: str
    measure: Mean
    shape: Shape
    draw: Draw
    other: tuple[Mean, Shape, Draw] | None = None
    right: tuple[Shape, Draw] | None = None


KEPT = Kept("accuracy", *(Estimate(0.9, 0.89, 0.91),) * 2, Estimate(0, -0.001, 0.001), 2000, 2000, 0.01)
"""An accuracy that is hardly touched: it decides nothing."""


def verdict(setting: Setting, gate: Gate, random: np.random.Generator) -> Verdict:
    """Draw scores once and judge them."""
    seed = int(random.integers(2**31))
    name = setting.measure.name
    first, second = setting.draw(random)
    measured = [assess(setting.measure, "a", setting.shape.items(), first, second, gate, primary=True, seed=seed)]
    if setting.other is not None:
        measure, shape, draw = setting.other
        measured.append(assess(measure, "b", shape.items(), *draw(random), gate, primary=False, seed=seed))
    kept = KEPT
    if setting.right is not None:
        shape, draw = setting.right
        kept = assess_utility(RIGHT, shape.items(), *draw(random), gate, seed)
    wanted = Wanted(((name, "a"),), (RIGHT.name,))
    return judge(with_holm(measured), [kept], wanted, gate, weights_changed=True).verdict


def shams() -> Iterator[Setting]:
    """What must not PASS. The first ones are inside the bar all the time: improvement alone stands in the way."""
    for clusters, size, alike in ((25, 12, 0.1), (60, 5, 0.1), (1200, 1, 0.0)):
        few = Shape(clusters, size, alike=alike)
        label = f"{clusters} x {size}"
        yield Setting(f"no effect, signed mean 0       {label}", DELTA, few, deltas(few, 0, 0, 0.5))
        yield Setting(f"no effect, signed mean 0.1     {label}", DELTA, few, deltas(few, 0.1, 0.1, 0.9))
        yield Setting(f"no effect, skewed mean 0.1     {label}", DELTA, few, deltas(few, 0.1, 0.1, 0.9, skewed=True))
        yield Setting(f"turned round, signed mean 0.1  {label}", DELTA, few, deltas(few, 0.1, -0.1, 0.9))
    flips, pairs = Shape(1200), Shape(1500)
    yield Setting("no effect, flip rate 0.5 %, 1200 x 1", FLIP, flips, rates(flips, [0.005], [0.005], 0.5))
    yield Setting("no effect, CrowS 50, 1500 pairs", CROWS, pairs, rates(pairs, [0.5], [0.5], 0.5))
    yield Setting("no effect, CrowS 52, 1500 pairs", CROWS, pairs, rates(pairs, [0.52], [0.52], 0.9))
    for groups in (2, 4):
        many = Shape(1000 * groups, groups=groups)
        draw = rates(many, [0.05] * groups, [0.05] * groups, 0.8)
        yield Setting(f"no effect, gap 0, 1000 a group, {groups} groups", GAP, many, draw)
    for clusters, size in ((25, 12), (60, 5), (300, 1)):
        two = Shape(2 * clusters, size, groups=2, alike=0.3)
        draw = rates(two, [0.5, 0.7], [0.5, 0.7], 0.8)
        yield Setting(f"no effect, gap 20 points, {clusters} x {size} a group", GAP, two, draw)
    yield from not_enough()


def not_enough() -> Iterator[Setting]:
    """An effect that is real, and something else that is exactly at its bar: PASS is false all the same."""
    flips, tied, wide, pairs = Shape(400), Shape(60, 10, alike=0.3), Shape(600), Shape(1200)
    for title, measure, shape, draw in (
        ("flips 10 to 2 %", FLIP, flips, rates(flips, [0.1], [0.02], 0.9)),
        ("flips 10 to 2 %, 60 x 10", FLIP, tied, rates(tied, [0.1], [0.02], 0.9)),
        ("signed mean 1 to 0.25", DELTA, wide, deltas(wide, 1, 0.25, 0.9)),
        ("skewed mean 1 to 0.25", DELTA, wide, deltas(wide, 1, 0.25, 0.9, skewed=True)),
        ("signed mean 1 to -0.25", DELTA, wide, deltas(wide, 1, -0.25, 0.9)),
        ("CrowS 70 to 55", CROWS, pairs, rates(pairs, [0.7], [0.55], 0.8)),
    ):
        yield Setting(f"level at bar, {title}", measure, shape, draw)
    for clusters in (20, 25, 40):
        # The bias sits in few templates (or terms), which so few clusters may all miss; the others are all but perfect.
        many = Shape(clusters, 10)
        yield Setting(f"level at bar in few templates, BBQ {clusters} x 10", BBQ, many, rare(many, 0.5, 0.011, 0.09))
        draw = rare(many, 0.9, 0.5, 0.1)
        yield Setting(f"level at bar in few terms, StereoSet {clusters} x 10", STEREOSET, many, draw)
    for groups in (2, 4):
        halves = Shape(300 * groups, groups=groups)
        for at, where in ((0.25, "at bar"), (0.37, "beyond")):
            draw = deltas(halves, (1.0, 0.4) * (groups // 2), (at, -at) * (groups // 2), 0.9)
            yield Setting(f"opposite parts {where}, mean 0.7 to 0, {groups} parts", PARTS, halves, draw)
        some = Shape(600 * groups, groups=groups)
        draw = rates(some, [0.5] * (groups - 1) + [0.7], [0.5] * (groups - 1) + [0.55], 0.9)
        yield Setting(f"level at bar, gap 20 to 5 points, {groups} groups", GAP, some, draw)
    good = (DELTA, Shape(400), deltas(Shape(400), 1, 0, 0.9))
    for size in (100, 400):
        two, flat = Shape(2 * size, groups=2), Shape(size)
        for title, measure, shape, draw in (
            ("gap 0 to 5", GAP, two, rates(two, [0.5, 0.5], [0.475, 0.525], 0.99)),
            ("gap 1 to 6", GAP, two, rates(two, [0.5, 0.51], [0.475, 0.535], 0.99)),
            ("gap 1 to 6, turned round", GAP, two, rates(two, [0.51, 0.5], [0.47, 0.53], 0.99)),
            ("signed 0 to 0.25", DELTA, flat, deltas(flat, 0, 0.25, 0.97)),
            ("flips 0 to 2 %", FLIP, flat, rates(flat, [0.0001], [0.0201], 0.9)),
        ):
            yield Setting(f"other axis at bar, {title}, {size}", *good, other=(measure, shape, draw))
    for size in (400, 4000):
        draw = rates(Shape(size), [0.9], [0.89], 0.99)
        yield Setting(f"utility at margin, accuracy 90 to 89, {size}", *good, right=(Shape(size), draw))


def powers() -> Iterator[Setting]:
    """What should PASS."""
    flips = Shape(600)
    yield Setting("flip rate 10 to 0.2 %, 600 texts", FLIP, flips, rates(flips, [0.1], [0.002], 0.9))
    for size in (600, 2000):
        two = Shape(2 * size, groups=2)
        yield Setting(f"gap 20 to 0 points, {size} a group", GAP, two, rates(two, [0.4, 0.6], [0.5, 0.5], 0.9))
    pairs = Shape(1050)
    yield Setting("CrowS 62 to 50, 1050 pairs", CROWS, pairs, rates(pairs, [0.62], [0.5], 0.5))
    wide = Shape(200)
    yield Setting("signed mean 0.6 to 0, 200 pairs", DELTA, wide, deltas(wide, 0.6, 0, 0.9))
    four = Shape(800, groups=4)
    yield Setting("four parts of 200, 0.6 to 0", PARTS, four, deltas(four, 0.6, 0, 0.9))
    few = Shape(25, 12, alike=0.1)
    yield Setting("signed mean 0.6 to 0, 25 x 12", DELTA, few, deltas(few, 0.6, 0, 0.9))
    flat, good = Shape(4000), (DELTA, wide, deltas(wide, 1, 0, 0.9))
    for clusters in (40, 100):
        terms = Shape(clusters, 20)
        yield Setting(f"StereoSet 70 to 50, {clusters} terms x 20", STEREOSET, terms, rates(terms, [0.7], [0.5], 0.5))
        draw = rates(terms, [0.5], [0.001], 0.5)
        yield Setting(f"BBQ 50 to 0.1 points, {clusters} templates x 20", BBQ, terms, draw)
    yield Setting("accuracy kept, 4000 texts, 5 % change", *good, right=(flat, rates(flat, [0.9], [0.9], 0.97)))


# ---------------------------------------------------------------- what is printed
def show(settings: Iterator[Setting], gate: Gate, runs: int, random: np.random.Generator) -> float:
    """Print each setting's rate of PASS with its limits; returns the largest."""
    worst = 0.0
    for setting in settings:
        count = sum(verdict(setting, gate, random) is Verdict.PASS for _ in range(runs))
        low, high = clopper_pearson(count, runs, 0.05)
        worst = max(worst, count / runs)
        print(f"  {setting.title:58} PASS {count / runs:6.1%}  [{low:.1%}, {high:.1%}]", flush=True)
    return worst


Store = tuple[Mean, Shape, tuple[float, ...]]
REPLAYED: tuple[Store, ...] = (
    # measure, how much is stored, and where the scores of each group lie: well away from the ideal, inside the bar
    (FLIP, Shape(2000), (-2.4,)),
    (DELTA, Shape(1000), (0.14,)),
    (CROWS, Shape(4000), (0.08,)),
    (GAP, Shape(4000, groups=2), (-1.75, -1.475)),
)


def replay(
    gate: Gate, random: np.random.Generator, count: int = 100, stores: tuple[Store, ...] = REPLAYED
) -> Mapping[str, int]:
    """PASS among `count` perturbations of stored scores, by measure.

    Each score takes a random step of its own, and a decision or preference turns where its margin was smaller; so
    bias moves by chance alone. Most levels are inside their bars, so that improvement alone stands in the way. A step
    that all items share would be a true change of this model, for better or worse.
    """
    found = {}
    for measure, shape, places in stores:
        stored, items, judged = latent(shape, random) + np.asarray(places)[shape.group], shape.items(), []
        for seed in range(count):
            moved = stored + 0.2 * random.normal(size=len(stored))
            pair = [(v if measure is DELTA else (v > 0).astype(np.float64))[:, None] for v in (stored, moved)]
            entry = assess(measure, "a", items, pair[0], pair[1], gate, primary=True, seed=seed)
            wanted = Wanted(((measure.name, "a"),), (RIGHT.name,))
            judged.append(judge(with_holm([entry]), [KEPT], wanted, gate, weights_changed=True).verdict)
        found[measure.name] = judged.count(Verdict.PASS)
    return found


def covered(measure: Mean, shape: Shape, draw: Draw, truth: tuple[float, float, float], gate: Gate, runs: int) -> str:
    """How often bias before, bias after and change lie above their upper limit, and below their lower one."""
    random = np.random.Generator(np.random.PCG64(runs))
    above, below = np.zeros(3), np.zeros(3)
    for seed in range(runs):
        entry = assess(measure, "a", shape.items(), *draw(random), gate, primary=True, seed=seed)
        intervals = (entry.bias_before, entry.bias_after, entry.change)
        above += [value > interval.high + 1e-12 for value, interval in zip(truth, intervals, strict=True)]
        below += [value < interval.low - 1e-12 for value, interval in zip(truth, intervals, strict=True)]
    shown = zip(("before", "after", "change"), below / runs, above / runs, strict=True)
    return "  ".join(f"{name} {low:5.1%} {high:5.1%}" for name, low, high in shown)


def coverage(gate: Gate, runs: int) -> None:
    """Print misses below and above for several kinds of figures and numbers of clusters; 2.5 % is the design."""
    print("coverage: truth below the lower limit, above the upper one")
    for clusters in (10, 15, 20, 25, 50, 200):
        flat, two = Shape(clusters), Shape(2 * clusters, groups=2)
        cases = (
            ("normal mean 1 to 0.5", DELTA, flat, deltas(flat, 1, 0.5, 0.8), (1, 0.5, -0.5)),
            ("skewed mean 1 to 0.5", DELTA, flat, deltas(flat, 1, 0.5, 0.8, skewed=True), (1, 0.5, -0.5)),
            ("rate 30 to 10 %", FLIP, flat, rates(flat, [0.3], [0.1], 0.8), (0.3, 0.1, -0.2)),
            ("gap 20 to 10 points", GAP, two, rates(two, [0.4, 0.6], [0.5, 0.6], 0.8), (0.2, 0.1, -0.1)),
            ("gap 0 to 10 points", GAP, two, rates(two, [0.5, 0.5], [0.5, 0.6], 0.8), (0, 0.1, 0.1)),
        )
        for title, measure, shape, draw, truth in cases:
            misses = covered(measure, shape, draw, truth, gate, runs)
            print(f"  {title:22} {shape.clusters:4} clusters  {misses}", flush=True)


def main() -> None:
    """Print what is asked for; ends with an error where a false PASS is more frequent than it may be."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--only", choices=("coverage", "false", "replay", "power"))
    wanted = parser.parse_args()
    gate, random = Gate(draws=wanted.draws), np.random.Generator(np.random.PCG64(7))
    if wanted.only in (None, "coverage"):
        coverage(gate, wanted.runs)
    if wanted.only in (None, "false"):
        print(f"false PASS, {wanted.runs} runs each, at most {LIMIT:.0%}")
        worst = show(shams(), gate, wanted.runs, random)
        print(f"  largest {worst:.1%}")
        assert worst <= LIMIT, "a sham passes too often"
    if wanted.only in (None, "replay"):
        found = replay(gate, random)
        print(f"replay of 100 random perturbations: {found}")
        assert max(found.values()) <= 14, "too many replays pass"
    if wanted.only in (None, "power"):
        print(f"power, {wanted.runs} runs each")
        show(powers(), gate, wanted.runs, random)


if __name__ == "__main__":
    main()
