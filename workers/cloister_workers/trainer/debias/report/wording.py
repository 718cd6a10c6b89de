# SPDX-License-Identifier: Apache-2.0
"""The report's plain words. It says what was measured to shrink or to hold, and never that a model has no bias."""

from __future__ import annotations

from cloister_workers.trainer.debias.registry import measures, utilities
from cloister_workers.trainer.debias.results import Estimate, Finding, Measured, Outcome, Run
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
CROSSING = "kept_rows_that_name_a_test_word"
"""Among the counts of a job."""
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
    """A figure with as many digits as its interval deserves."""
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def interval(estimate: Estimate) -> str:
    """`0.113 [0.087, 0.139]`."""
    return f"{number(estimate.value)} [{number(estimate.low)}, {number(estimate.high)}]"


def direction(signed: bool, ideal: float) -> str:  # noqa: FBT001 - what the measure says of itself
    """How to read a figure."""
    if signed:
        return f"closer to {ideal:g} is better, on either side"
    return f"{'higher' if ideal else 'lower'} is better; {ideal:g} is ideal"


def headline(run: Run) -> list[str]:
    """The few sentences on top: the verdict, the primary measures, the utilities."""
    lines = [_GATE[run.judgement.verdict]]
    lines += [_primary(entry) for entry in run.measured if entry.primary]
    for kept in run.kept:
        title = utilities()[kept.utility].title
        lines.append(
            f"{title}: {interval(kept.before)} before, {interval(kept.after)} after; loss {interval(kept.loss)}."
        )
    return lines


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
