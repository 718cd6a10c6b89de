# SPDX-License-Identifier: Apache-2.0
"""The report's plain words. It says what was measured to shrink or to hold, and never that a model has no bias."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cloister.gate import MIN_CLUSTERS
from cloister_workers.trainer.debias.registry import measures, utilities
from cloister_workers.trainer.debias.results import (
    Cause,
    Estimate,
    Finding,
    Judgement,
    Kept,
    Measured,
    NotMeasured,
    Outcome,
    Run,
)
from cloister_workers.words import GateRule, Verdict

_PASSED = {
    GateRule.IMPROVEMENT: "The paired change excludes no change",
    GateRule.LEVEL: "What is left is within the bar",
    GateRule.OVER_CORRECTION: "It was not turned round beyond the bar",
    GateRule.HARM: "It did not get worse by more than the bar",
    GateRule.UTILITY: "No more was lost than the margin",
    GateRule.EVIDENCE: "A primary measure was asked for, and the task itself was measured where the policy says so",
    GateRule.CHANGED: "The exported weights differ from those before",
}
_FAILED = {
    GateRule.IMPROVEMENT: "The distance from the ideal grew",
    GateRule.LEVEL: "What is left lies above the bar with its whole interval",
    GateRule.OVER_CORRECTION: "It was turned round beyond the bar",
    GateRule.HARM: "It got worse by more than the bar",
    GateRule.UTILITY: "More was lost than the margin",
    GateRule.CHANGED: "The exported weights are those from before",
}
_OVER = {
    GateRule.IMPROVEMENT: "The interval of the change includes no change",
    GateRule.LEVEL: "The interval of what is left reaches over the bar",
    GateRule.OVER_CORRECTION: "The interval of how far it was turned round reaches over the bar",
    GateRule.HARM: "The interval of how much worse it got reaches over the bar",
    GateRule.UTILITY: "The interval of the loss reaches over the margin",
}
_OPEN = {
    Cause.CHANCE: "The interval of the change excludes no change, but p after Holm's correction over all primary "
    "measures is too large",
    Cause.NO_INTERVAL: "No interval could be drawn, because too many draws have nothing to compute the figure from",
    Cause.NO_FIGURE: "The items have nothing to compute the figure from",
    Cause.NO_BAR: "Neither the policy nor the specification sets a bar for it",
    Cause.NO_PRIMARY: "No primary measure was asked for",
    Cause.NO_TASK: "The policy asks for a measure on the model's task itself, and none with a bar was taken",
    Cause.NO_UTILITY: "No utility with a margin was measured",
}
CROSSING = "kept_rows_that_name_a_test_word"
"""Among the counts of a job."""
PERMUTATION = (
    "p is how often target words that are dealt to the two groups at random, attributes kept, lie as far apart as the "
    "true groups do, in either direction. A small p says that there is an association; a large one does not say that "
    "there is none. The gate uses intervals and bars instead; p is not corrected for the number of tests."
)
_VERDICTS = {Verdict.PASS: "Passed", Verdict.FAIL: "Failed", Verdict.INCONCLUSIVE: "Open"}
_GATE = {
    Verdict.PASS: "The candidate passed every rule of the release gate.",
    Verdict.FAIL: "The candidate failed the release gate and stays a candidate; releasing it needs a signed exception.",
    Verdict.INCONCLUSIVE: "The evidence does not settle the release gate; the version stays a candidate, and releasing "
    "it needs a signed exception.",
}
_MORE = "More items may settle it."
_MORE_UNITS = "More of them may settle it."
_OTHER = "More items alone cannot settle it: the report says at each open rule what is missing."


def number(value: float) -> str:
    """A figure with as many digits as its interval deserves; a dash where it could not be had."""
    if not math.isfinite(value):
        return "–"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def interval(estimate: Estimate) -> str:
    """`0.113 [0.087, 0.139]`; a figure whose interval has no ends stands alone and says so."""
    if not math.isfinite(estimate.value):
        return number(estimate.value)
    if not (math.isfinite(estimate.low) and math.isfinite(estimate.high)):
        return f"{number(estimate.value)} (no interval)"
    return f"{number(estimate.value)} [{number(estimate.low)}, {number(estimate.high)}]"


def direction(signed: bool, ideal: float | None) -> str:  # noqa: FBT001 - what the measure says of itself
    """How to read a figure; one without an ideal is that of a group, which others are to be like."""
    if ideal is None:
        return "groups alike is better"
    if signed:
        return f"closer to {ideal:g} is better, on either side"
    return f"{'higher' if ideal else 'lower'} is better; {ideal:g} is ideal"


def headline(run: Run) -> list[str]:
    """The few sentences on top: the verdict, the primary measures, the utilities."""
    lines = [_gate(run.judgement)]
    lines += [_primary(entry) for entry in run.measured if entry.primary]
    return lines + [_kept(entry) for entry in run.kept]


def _gate(judgement: Judgement) -> str:
    if judgement.verdict is not Verdict.INCONCLUSIVE:
        return _GATE[judgement.verdict]
    causes = [entry.cause for entry in judgement.findings if entry.verdict is Verdict.INCONCLUSIVE]
    more = all(cause is not None and cause.more_items_may_settle for cause in causes)
    return f"{_GATE[judgement.verdict]} {_MORE if more else _OTHER}"


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


def finding(entry: Finding, not_measured: Sequence[NotMeasured]) -> str:
    """One rule in a few words: the verdict, why, and the figure that it was given for."""
    named = ", ".join(name for name in (entry.measure, entry.axis, entry.part) if name)
    where = f" ({named})" if named else ""
    seen = f": {interval(entry.estimate)}" if entry.estimate is not None else ""
    limit = "margin" if entry.rule is GateRule.UTILITY else "bar"
    held = entry.bar is not None and entry.rule is not GateRule.IMPROVEMENT
    bar = f", {limit} {entry.bar:g}" if held else ""
    more = f" {_MORE}" if entry.cause is not None and entry.cause.more_items_may_settle else ""
    if entry.cause is Cause.FEW_UNITS:
        more = f" {_MORE_UNITS}"  # more sentences from the same templates would not
    return f"{_VERDICTS[entry.verdict]}{where}. {_reason(entry, not_measured)}{seen}{bar}.{more}"


def _reason(entry: Finding, not_measured: Sequence[NotMeasured]) -> str:
    if entry.cause is None:
        return (_PASSED if entry.verdict is Verdict.PASS else _FAILED)[entry.rule]
    if entry.cause is Cause.OVER_BAR:
        return _OVER[entry.rule]
    if entry.cause is Cause.FEW_UNITS:
        return f"There are {entry.clusters} independent units, and an interval needs {MIN_CLUSTERS}"
    if entry.cause is Cause.NOT_TAKEN:
        whys = (gone.why for gone in not_measured if (gone.name, gone.axis) == (entry.measure, entry.axis))
        return f"Not measured: {next(whys, 'no reason was recorded')}"
    return _OPEN[entry.cause]


def shows(outcome: Outcome) -> list[str]:
    """What a reader may conclude."""
    confidence = outcome.job.get("confidence", "95 %")
    return [
        (
            "Figures before and after were taken on the same held-out items, none of whose texts, templates or persons "
            "was used to mitigate or to choose settings."
        ),
        *_words_apart(outcome),
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


def _words_apart(outcome: Outcome) -> list[str]:
    """Whether the items share words with what the mitigation had, by what was counted."""
    overlaps = [entry for entry in outcome.runs[0].measured if entry.overlap]
    untold = [_named(entry) for entry in outcome.runs[0].measured if entry.overlap is None]
    kept = outcome.counts.get(CROSSING, 0)
    lines = []
    if not overlaps and not kept and not untold:
        lines.append(
            "None of the words and names of the mitigated axes that the items hold, as far as a word list has them, "
            "was at hand to mitigate with or to choose settings by. Pronouns and other function words are shared."
        )
    if overlaps:
        shares = "; ".join(f"{_named(entry)}, {entry.overlap} of {entry.items} items" for entry in overlaps)
        lines.append(
            "Some items name a word or name of the mitigated axes that was at hand to mitigate with or to choose "
            f"settings by, in the word lists or in rows: {shares}. What was learned of these words may flatter the "
            "figure; where other items are left, their figure stands among the groups. Pronouns and other function "
            "words are shared by all."
        )
    if kept:
        lines.append(
            f"{kept} rows to mitigate with or to choose settings by name a word or name of the test part. They were "
            "not left out, because too few rows would have been left; more rows would mend it."
        )
    if untold:
        lines.append(f"Which words their items share with the mitigation is not known of: {'; '.join(untold)}.")
    return lines


def _named(entry: Measured) -> str:
    return f"{measures()[entry.measure].title} ({entry.axis})"


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
