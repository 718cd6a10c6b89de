# SPDX-License-Identifier: Apache-2.0
"""The report: what it says, what it never says, and that a group's name cannot break its page."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest

from cloister_workers.messages import Figure
from cloister_workers.trainer.debias.report.groups import plots_by_scale
from cloister_workers.trainer.debias.report.page import report_files
from cloister_workers.trainer.debias.report.plots import Row, interval_plot
from cloister_workers.trainer.debias.report.wording import finding
from cloister_workers.trainer.debias.results import (
    Cause,
    Estimate,
    Finding,
    GroupEstimate,
    Judgement,
    Kept,
    Measured,
    NotMeasured,
    Outcome,
    PartEstimate,
    Permuted,
    Run,
)
from cloister_workers.trainer.debias.spec import parse_debias
from cloister_workers.trainer.debias.telling import tell_run
from cloister_workers.words import FigureName, GateRule, Verdict

NASTY = "a\"<b>&'</svg><script>x</script>"


def measured(**changes: object) -> Measured:
    values: dict[str, object] = {
        "measure": "flip_rate",
        "axis": "gender",
        "before": Estimate(0.113, 0.087, 0.139),
        "after": Estimate(0.006, 0.002, 0.015),
        "bias_before": Estimate(0.113, 0.087, 0.139),
        "bias_after": Estimate(0.006, 0.002, 0.015),
        "change": Estimate(-0.107, -0.131, -0.080),
        "p": 0.0005,
        "p_holm": 0.001,
        "items": 900,
        "clusters": 900,
        "primary": True,
        "ideal": 0.0,
        "bar": 0.02,
        "signed": False,
        "extrinsic": True,
        "groups": (GroupEstimate(NASTY, 450, Estimate(0.2, 0.1, 0.3), Estimate(0.1, math.nan, math.nan)),),
    }
    known = Measured.__dataclass_fields__
    return Measured(**{name: value for name, value in (values | changes).items() if name in known})  # type: ignore[arg-type]


def level(verdict: Verdict) -> Finding:
    """A finding of the level; an open one because its interval reaches over the bar."""
    cause = Cause.OVER_BAR if verdict is Verdict.INCONCLUSIVE else None
    return Finding(GateRule.LEVEL, verdict, "flip_rate", "gender", Estimate(0.006, 0.002, 0.015), 0.02, cause=cause)


def missing(cause: Cause, measure: str = "", axis: str = "", clusters: int | None = None) -> Finding:
    """Evidence that is open for this cause."""
    return Finding(GateRule.EVIDENCE, Verdict.INCONCLUSIVE, measure, axis, cause=cause, clusters=clusters)


def outcome(
    *entries: Measured, verdict: Verdict = Verdict.PASS, seeds: int = 1, more: tuple[Finding, ...] = ()
) -> Outcome:
    kept = Kept(
        "accuracy",
        Estimate(0.847, 0.83, 0.86),
        Estimate(0.867, 0.85, 0.88),
        Estimate(-0.02, -0.03, -0.01),
        1200,
        1200,
        0.01,
    )
    findings = (level(verdict), *more)
    run = Run(42, entries or (measured(),), (kept,), Judgement(verdict, findings))
    return Outcome(
        job={"version": "screening", "task": "classifier", "axes": "gender", "mitigation": "Counterfactual"},
        runs=(run,) * seeds,
        not_measured=(NotMeasured("bbq_ambiguous", "gender", "no rows of kind bbq"),),
        notes={"texts_swapped": 800.0},
        counts={"test_rows": 1200},
    )


class Tags(HTMLParser):
    """Which tags a page has, and whether each is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)


def test_the_page_has_no_script_and_no_address_to_fetch_from_whatever_a_group_is_called():
    """A group's name is text on the page, never a tag, and the page fetches nothing."""
    page = report_files(outcome())["report.html"].decode()
    tags = Tags()
    tags.feed(page)
    assert not tags.seen & {"script", "link", "img", "iframe", "b"}
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page
    assert not re.search(r"https?://|url\(|@import", page)


def test_every_plot_is_one_whole_svg_element():
    """Each plot parses as XML, with the nasty group name in it."""
    page = report_files(outcome())["report.html"].decode()
    plots = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(plots) == 2
    for plot in plots:
        ET.fromstring(plot)  # noqa: S314 - our own text


def test_both_files_say_the_same_verdict_and_the_twin_reads_back():
    """Page and JSON agree, and the JSON has no NaN: an end that could not be had is null."""
    files = report_files(outcome(verdict=Verdict.INCONCLUSIVE))
    document = json.loads(files["report.json"], parse_constant=pytest_fail)
    assert document["verdict"] == "INCONCLUSIVE"
    assert 'class="verdict INCONCLUSIVE"' in files["report.html"].decode()
    assert document["measures"][0]["groups"][0]["after"] == {"value": 0.1, "low": None, "high": None}


def pytest_fail(name: str) -> None:
    raise AssertionError(name)


def test_the_report_never_says_that_bias_was_removed():
    """Whatever the verdict, no sentence claims a model without bias."""
    for verdict in Verdict:
        for text in report_files(outcome(verdict=verdict, seeds=3)).values():
            assert not re.search(
                r"bias (was |is |has been )?removed|unbiased|bias-free|no bias", text.decode(), re.IGNORECASE
            )


def test_the_headline_tells_an_improvement_from_an_open_change():
    """An interval that includes no change is never told as lower."""
    better = json.loads(report_files(outcome())["report.json"])["headline"][1]
    unsure = measured(change=Estimate(-0.01, -0.03, 0.01))
    open_ = json.loads(report_files(outcome(unsure))["report.json"])["headline"][1]
    assert "excludes no change" in better
    assert "not shown to differ" in open_
    assert "excludes" not in open_


def test_a_utility_that_has_no_level_of_one_model_shows_its_loss_alone():
    """Where before and after are no numbers, page, headline and JSON have the loss and neither nan nor inf."""
    none = Estimate(math.nan, -math.inf, math.inf)
    kept = Kept("similarity_structure", none, none, Estimate(0.066, 0.05, 0.08), 300, 300, 0.02)
    one = replace(outcome().runs[0], kept=(kept,))
    files = report_files(replace(outcome(), runs=(one,)))
    document = json.loads(files["report.json"], parse_constant=pytest_fail)
    assert document["headline"][-1].endswith("(Spearman of pairwise cosines): loss 0.066 [0.050, 0.080].")
    assert document["utilities"][0]["before"] is None
    assert document["utilities"][0]["after"] is None
    assert not re.search(r"\b(nan|inf)\b", shown(files["report.html"]), re.IGNORECASE)


def test_a_figure_without_an_interval_says_so():
    """Ends that could not be had are not printed as infinities, and the figure stays."""
    entry = measured(after=Estimate(0.1, -math.inf, math.inf))
    files = report_files(outcome(entry))
    assert "0.100 (no interval) after" in json.loads(files["report.json"])["headline"][1]
    assert not re.search(r"\b(nan|inf)\b", shown(files["report.html"]), re.IGNORECASE)


def shown(page: bytes) -> str:
    """What a reader sees of a page: its text, without tags and styles."""
    return re.sub(r"<style>.*?</style>|<[^>]*>", " ", page.decode(), flags=re.DOTALL)


def test_an_open_rule_is_told_by_what_keeps_it_open_and_more_items_are_named_where_they_help():
    """The verdict comes first, then the cause; what was not taken has the reason of the list of what was not
    measured, and asks for no more items.
    """
    gone = missing(Cause.NOT_TAKEN, "bbq_ambiguous", "gender")
    few = missing(Cause.FEW_UNITS, "flip_rate", "gender", clusters=4)
    no_task = missing(Cause.NO_TASK)
    found = outcome(verdict=Verdict.INCONCLUSIVE, more=(gone, few, no_task))
    document = json.loads(report_files(found)["report.json"])
    over, not_taken, too_few, inside = (entry["words"] for entry in document["findings"])
    assert over == (
        "Open (flip_rate, gender). The interval of what is left reaches over the bar: 0.006 [0.002, 0.015], bar 0.02. "
        "More items may settle it."
    )
    assert not_taken == "Open (bbq_ambiguous, gender). Not measured: no rows of kind bbq."
    assert too_few.startswith("Open (flip_rate, gender). There are 4 independent units")
    assert too_few.endswith("More of them may settle it.")
    assert inside.startswith("Open. The policy asks for a measure on the model's task itself")
    assert "More items" not in inside
    assert [entry["cause"] for entry in document["findings"]] == ["over_bar", "not_taken", "few_units", "no_task"]


def test_the_headline_asks_for_more_items_only_where_they_alone_may_settle_the_gate():
    """One open rule that items cannot close is enough to say that they cannot settle the gate."""
    lines = [
        json.loads(report_files(outcome(verdict=Verdict.INCONCLUSIVE, more=more))["report.json"])["headline"][0]
        for more in ((), (missing(Cause.NOT_TAKEN, "bbq_ambiguous", "gender"),))
    ]
    assert lines[0].endswith("More items may settle it.")
    assert "More items alone cannot settle it" in lines[1]


def test_a_failed_rule_does_not_begin_with_what_would_pass():
    """A rule that failed says so first, and then how."""
    words = json.loads(report_files(outcome(verdict=Verdict.FAIL))["report.json"])["findings"][0]["words"]
    assert words.startswith("Failed (flip_rate, gender). What is left lies above the bar")


@pytest.mark.parametrize("rule", [rule for rule in GateRule if rule is not GateRule.EVIDENCE])
@pytest.mark.parametrize("cause", [*Cause, None])
def test_every_rule_has_words_for_every_cause_and_verdict(rule: GateRule, cause: Cause | None):
    """No finding that the gate can make breaks the report."""
    verdicts = [Verdict.INCONCLUSIVE] if cause else [Verdict.PASS, Verdict.FAIL]
    for verdict in verdicts:
        if cause is not Cause.OVER_BAR or rule is not GateRule.CHANGED:
            assert finding(Finding(rule, verdict, cause=cause), ()).endswith(".")


def test_what_was_not_measured_stands_in_both_files():
    """A measure that could not be taken is listed with its reason."""
    files = report_files(outcome())
    assert json.loads(files["report.json"])["not_measured"][0]["why"] == "no rows of kind bbq"
    assert "no rows of kind bbq" in files["report.html"].decode()


def test_permutation_tests_stand_in_both_files_with_what_they_are():
    """Each test has p before and after, the number of its figure, and a sentence that says how to read it."""
    entry = measured(measure="association", permuted=(Permuted("career_family", 0.0004, 0.61, 32),))
    files = report_files(outcome(entry))
    document = json.loads(files["report.json"])
    wanted = {"number": 2, "test": "career_family", "items": 32, "p_before": 0.0004, "p_after": 0.61}
    assert [wanted] == document["measures"][0]["permutation"]
    assert "does not say that there is none" in document["permutation_test"]
    page = files["report.html"].decode()
    assert all(text in page for text in ("career_family", "0.0004", "0.61", "does not say that there is none"))


def test_permutation_tests_are_figures_behind_the_groups(recorder):
    """The numeric twin has both p as a figure of the number that the report states."""
    entry = measured(measure="flip_rate", permuted=(Permuted("career_family", 0.0004, 0.61, 32),))
    body = {
        "task": "classifier",
        "axes": ["gender"],
        "mitigation": {"name": "counterfactual"},
        "measures": ["flip_rate"],
        "primary": ["flip_rate"],
        "utilities": ["accuracy"],
    }
    spec = parse_debias({"model": "m", "method": {"debias": body}})
    tell_run(recorder, spec, 0, outcome(entry).runs[0])
    told = [message for message in recorder.messages if isinstance(message, Figure) and message.group == 2]
    assert [{FigureName.BEFORE: 0.0004, FigureName.AFTER: 0.61}] == [message.values for message in told]
    assert [32] == [message.items for message in told]


def test_only_a_primary_measure_has_a_p_that_was_corrected(recorder):
    """The page has p and p (Holm) apart; a measure outside of Holm's correction has the first alone, in every form."""
    entries = (measured(p=0.011, p_holm=0.022), measured(axis="age", primary=False, p=0.033, p_holm=0.033))
    found = outcome(*entries)
    files = report_files(found)
    document = json.loads(files["report.json"])
    assert [(0.011, 0.022), (0.033, None)] == [(entry["p"], entry["p_holm"]) for entry in document["measures"]]
    rows = re.findall(r"<tr><td>(?:gender|age).*?</tr>", files["report.html"].decode(), re.DOTALL)
    cells = [re.findall(r'<td class="figure">([^<]*)</td>', row)[3:5] for row in rows[:2]]
    assert [["0.011", "0.022"], ["0.033", "–"]] == cells
    body = {
        "task": "classifier",
        "axes": ["gender", "age"],
        "mitigation": {"name": "counterfactual"},
        "measures": ["flip_rate"],
        "primary": ["flip_rate"],
        "utilities": ["accuracy"],
    }
    tell_run(recorder, parse_debias({"model": "m", "method": {"debias": body}}), 0, found.runs[0])
    told = [message.values for message in recorder.messages if isinstance(message, Figure) and not message.group]
    assert [True, False] == [FigureName.P_HOLM in values for values in told if FigureName.P in values]


def test_figures_of_parts_and_groups_are_told_with_unit_ideal_and_direction():
    """Each has a line with before and after, its unit, its ideal and how to read it, and the number of its items."""
    page = report_files(outcome(questions()))["report.html"].decode()
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>.*?</tr>", page, re.DOTALL)]
    told = {row[0]: row[1:] for row in rows if len(row) == 8}
    interval, change = "10.0 [5.000, 15.0]", "-3.000 [-4.000, -2.000]"
    side = "closer to 0 is better, on either side"
    assert told["bias on some"] == [interval, interval, "–", "points", "0", side, "920"]
    assert told["accuracy"] == [interval, interval, "–", "points", "100", "higher is better; 100 is ideal", "1840"]
    assert told["a: chosen"] == [interval, interval, "–", "share", "–", "groups alike is better", "70"]
    assert told["work raw · judged by itself"] == [interval, interval, change, "points", "0", side, "80"]
    assert told["art · judged by itself"] == [
        interval,
        interval,
        change,
        "share",
        "0",
        "lower is better; 0 is ideal",
        "12 clusters",
    ]


def test_what_differs_in_unit_or_ideal_shares_no_plot():
    """One plot a scale and ideal; the bar stands only where every row is judged by it."""
    plots = plots_by_scale(questions())
    assert [re.findall(r'text-anchor="end">(.*?)<', plot["svg"]) for plot in plots] == [
        ["work raw (80)", "bias on some (920)"],
        ["accuracy (1840)"],
        ["a: chosen (70)"],
        ["work d (80)"],
    ]
    assert [plot["caption"].split(";")[0] for plot in plots] == ["points", "points", "share", "standard deviations"]
    judged = replace(questions(), groups=questions().groups[:1])
    assert 'class="bar"' in plots_by_scale(judged)[0]["svg"]
    assert not any('class="bar"' in plot["svg"] for plot in plots)


def questions() -> Measured:
    """A measure whose groups are of several scales, with two parts, one of which is among its groups."""
    level, change = Estimate(10.0, 5.0, 15.0), Estimate(-3.0, -4.0, -2.0)
    groups = (
        GroupEstimate("work raw", 80, level, level, "points", 0.0, signed=True),
        GroupEstimate("bias on some", 920, level, level, "points", 0.0, signed=True),
        GroupEstimate("accuracy", 1840, level, level, "points", 100.0),
        GroupEstimate("a: chosen", 70, level, level, "share", None),
        GroupEstimate("work d", 80, level, level, "standard deviations", 0.0, signed=True),
    )
    parts = tuple(PartEstimate(name, level, level, level, change, 12) for name in ("work", "art"))
    return measured(groups=groups, parts=parts)


def test_a_plot_of_equal_or_missing_numbers_is_still_drawn():
    """A scale without width gets some room; a row without numbers has a label and no mark."""
    same = Estimate(0.0, 0.0, 0.0)
    gone = Estimate(math.nan, math.nan, math.nan)
    drawn = ET.fromstring(interval_plot("t", [Row("a", same, gone)], None, None))  # noqa: S314
    assert [node.attrib["class"] for node in drawn.iter() if node.tag.endswith("circle")] == ["before"]
    assert interval_plot("t", [Row("a", gone, gone)], None, None) == ""


def shows_of(entry: Measured, **counts: int) -> str:
    made = replace(outcome(entry), counts={"test_rows": 1200, **counts})
    return " ".join(json.loads(report_files(made)["report.json"])["shows"])


def test_the_report_says_that_words_are_apart_only_where_they_are():
    """Shared words and rows that stayed are told with their numbers; without any, and only then, none was at hand."""
    apart = shows_of(measured(overlap=0))
    assert "None of the words and names" in apart
    shared = shows_of(measured(overlap=71))
    assert "Counterfactual flip rate (gender), 71 of 900 items" in shared
    kept = shows_of(measured(overlap=0), kept_rows_that_name_a_test_word=887)
    assert "887 rows" in kept
    untold = shows_of(measured(overlap=None))
    assert "is not known of: Counterfactual flip rate (gender)" in untold
    for said in (shared, kept, untold):
        assert "None of the words and names" not in said
    for said in (apart, shared, kept, untold):
        assert "none of whose texts, templates or persons" in said
