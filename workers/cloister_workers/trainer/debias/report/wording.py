# SPDX-License-Identifier: Apache-2.0
"""The report's plain words. It says what was measured to shrink or to hold, and never that a model has no bias."""

from __future__ import annotations

import math

from cloister_workers.trainer.debias.registry import measures, utilities
from cloister_workers.trainer.debias.results import Estimate, Finding, Kept, Measured, Outcome, Run
from cloister_workers.words import GateRule, Verdict

_RULES = {
    GateRule.IMPROVEMENT: "the paired change excludes no change",
    GateRule.LEVEL: "what is left is within the bar",
    GateRule.OVER_CORRECTION: "it was not turned round beyond the bar",
    GateRule.HARM: "nothing else got worse by more than its bar",
    GateRule.UTILITY: "no more was lost than the margin",
    GateRule.EVIDENCE: "there is enough to measure on, on the task itself too",
    GateRule.CHANGED: "the exported weights differ from those before",
}
PERMUTATION = (
    "p is how often target words that are dealt to the two groups at random, attributes kept, lie as far apart as the "
    "true groups do, in either direction. A small p says that there is an association; a large one does not say that "
    "there is none. The gate uses intervals and bars instead; p is not corrected for the number of tests."
)
_VERDICTS = {
    Verdict.PASS: "passed",
    Verdict.FAIL: "failed",
    Verdict.INCONCLUSIVE: "is open: the interval reaches over the bar, so there are too few items to tell",
}
_GATE = {
    Verdict.PASS: "The candidate passed every rule of the release gate.",
    Verdict.FAIL: "The candidate failed the release gate and stays a candidate; releasing it needs a signed exception.",
    Verdict.INCONCLUSIVE: "The evidence does not settle the release gate; the version stays a candidate, and releasing "
    "it needs a signed exception. More items may settle it.",
}


def number(value: float) -> str:
    """A figure with as many digits as its interval deserves; a dash where it could not be had."""
    if not math.isfinite(value):
        return "–"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def interval(estimate: Estimate) -> str:
    """`0.113 [0.087, 0.139]`; a figure whose interval has no ends stands alone and says so."""
    ends = [number(end) for end in (estimate.low, estimate.high) if math.isfinite(end)]
    if not math.isfinite(estimate.value):
        return number(estimate.value)
    return (
        f"{number(estimate.value)} [{', '.join(ends)}]" if len(ends) == 2 else f"{number(estimate.value)}, no interval"
    )


def direction(signed: bool, ideal: float) -> str:  # noqa: FBT001 - what the measure says of itself
    """How to read a figure."""
    if signed:
        return f"closer to {ideal:g} is better, on either side"
    return f"{'higher' if ideal else 'lower'} is better; {ideal:g} is ideal"


def headline(run: Run) -> list[str]:
    """The few sentences on top: the verdict, the primary measures, the utilities."""
    lines = [_GATE[run.judgement.verdict]]
    lines += [_primary(entry) for entry in run.measured if entry.primary]
    return lines + [_kept(entry) for entry in run.kept]


def _kept(entry: Kept) -> str:
    """Some utilities compare two models and have no level of one: then the loss stands alone."""
    phases = ((entry.before, "before"), (entry.after, "after"))
    levels = ", ".join(f"{interval(level)} {phase}" for level, phase in phases if math.isfinite(level.value))
    loss = f"loss {interval(entry.loss)}"
    return f"{utilities()[entry.utility].title}: {f'{levels}; {loss}' if levels else loss}."


def _primary(entry: Measured) -> str:
    title = measures()[entry.measure].title
    if entry.change.high < 0:
        moved = "lower, and the interval of the change excludes no change"
    elif entry.change.low > 0:
        moved = "higher, and the interval of the change excludes no change"
    else:
        moved = "not shown to differ: the interval of the change includes no change"
    return (
        f"{title}, {entry.axis}: {interval(entry.before)} before, {interval(entry.after)} after, on the same "
        f"{entry.items} items; distance from {entry.ideal:g} is {moved}."
    )


def finding(entry: Finding) -> str:
    """One rule in a sentence."""
    named = ", ".join(name for name in (entry.measure, entry.axis, entry.part) if name)
    where = f" ({named})" if named else ""
    seen = f": {interval(entry.estimate)}" if entry.estimate is not None else ""
    bar = f", bar {entry.bar:g}" if entry.bar is not None else ""
    return f"{_RULES[entry.rule]}{where}{seen}{bar}. This rule {_VERDICTS[entry.verdict]}."


def shows(outcome: Outcome) -> list[str]:
    """What a reader may conclude."""
    confidence = outcome.job.get("confidence", "95 %")
    return [
        (
            "Figures before and after were taken on the same held-out items, none of whose words, names, templates, "
            "texts or persons was used to mitigate or to choose settings. Pronouns and other function words are shared."
        ),
        (
            f"Intervals are {confidence} and drawn over whole clusters (words, templates, persons or documents), so "
            "that many sentences from few templates do not pass for much evidence."
        ),
        "The model was measured as it loads from the exported files, not as it was in memory.",
        (
            "A rule passes only where the whole interval lies within its bar. That a difference is not significant "
            "passes nothing."
        ),
    ]


def does_not_show(outcome: Outcome) -> list[str]:
    """What a reader must not conclude."""
    lines = [
        "It does not show that the model is free of bias. It shows how these measures, on these items, moved.",
        "Groups, axes and languages that were not measured may have moved either way.",
        (
            "Measures on a model's insides do not tell how an application of it behaves. After any further training, "
            "measure again: mitigated models learn bias anew."
        ),
        "Counterfactual texts swap words. What tells a group without such a word stays unseen.",
    ]
    if any(entry.measure.startswith("probe") for entry in outcome.runs[0].measured):
        lines.append(
            "A linear probe that no longer finds the group shows a reduced linear association. The non-linear probe "
            "beside it tells how much is hidden rather than gone."
        )
    if len(outcome.runs) == 1:
        lines.append("One seed was run: how much another seed would change these figures is not known.")
    return lines
