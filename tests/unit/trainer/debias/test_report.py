# SPDX-License-Identifier: Apache-2.0
"""The report: what it says, what it never says, and that a group's name cannot break its page."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

from cloister_workers.messages import Figure
from cloister_workers.trainer.debias.report.page import report_files
from cloister_workers.trainer.debias.report.plots import Row, interval_plot
from cloister_workers.trainer.debias.results import (
    Estimate,
    Finding,
    GroupEstimate,
    Judgement,
    Kept,
    Measured,
    NotMeasured,
    Outcome,
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


def outcome(*entries: Measured, verdict: Verdict = Verdict.PASS, seeds: int = 1) -> Outcome:
    kept = Kept(
        "accuracy",
        Estimate(0.847, 0.83, 0.86),
        Estimate(0.867, 0.85, 0.88),
        Estimate(-0.02, -0.03, -0.01),
        1200,
        1200,
        0.01,
    )
    finding = Finding(GateRule.LEVEL, verdict, "flip_rate", "gender", Estimate(0.006, 0.002, 0.015), 0.02)
    run = Run(42, entries or (measured(),), (kept,), Judgement(verdict, (finding,)))
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


def test_what_was_not_measured_stands_in_both_files():
    """A measure that could not be taken is listed with its reason."""
    files = report_files(outcome())
    assert json.loads(files["report.json"])["not_measured"][0]["why"] == "no rows of kind bbq"
    assert "no rows of kind bbq" in files["report.html"].decode()


def test_permutation_tests_stand_in_both_files_with_what_they_are():
    """Each test has p before and after, the number of its figure, and a sentence that says how to read it."""
    entry = measured(measure="association", permuted=(Permuted("career_family", 0.0004, 0.61),))
    files = report_files(outcome(entry))
    document = json.loads(files["report.json"])
    wanted = {"number": 2, "test": "career_family", "p_before": 0.0004, "p_after": 0.61}
    assert [wanted] == document["measures"][0]["permutation"]
    assert "does not say that there is none" in document["permutation_test"]
    page = files["report.html"].decode()
    assert all(text in page for text in ("career_family", "0.0004", "0.61", "does not say that there is none"))


def test_permutation_tests_are_figures_behind_the_groups(recorder):
    """The numeric twin has both p as a figure of the number that the report states."""
    entry = measured(measure="flip_rate", permuted=(Permuted("career_family", 0.0004, 0.61),))
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


def test_a_plot_of_equal_or_missing_numbers_is_still_drawn():
    """A scale without width gets some room; a row without numbers has a label and no mark."""
    same = Estimate(0.0, 0.0, 0.0)
    gone = Estimate(math.nan, math.nan, math.nan)
    drawn = ET.fromstring(interval_plot("t", [Row("a", same, gone)], None, None))  # noqa: S314
    assert [node.attrib["class"] for node in drawn.iter() if node.tag.endswith("circle")] == ["before"]
    assert interval_plot("t", [Row("a", gone, gone)], None, None) == ""


def shown(entry: Measured, **counts: int) -> str:
    made = replace(outcome(entry), counts={"test_rows": 1200, **counts})
    return " ".join(json.loads(report_files(made)["report.json"])["shows"])


def test_the_report_says_that_words_are_apart_only_where_they_are():
    """Shared words and rows that stayed are told with their numbers; without any, and only then, none was at hand."""
    apart = shown(measured(overlap=0))
    assert "None of the words and names" in apart
    shared = shown(measured(overlap=71))
    assert "Counterfactual flip rate (gender), 71 of 900 items" in shared
    kept = shown(measured(overlap=0), kept_rows_that_name_a_test_word=887)
    assert "887 rows" in kept
    untold = shown(measured(overlap=None))
    assert "is not known of: Counterfactual flip rate (gender)" in untold
    for said in (shared, kept, untold):
        assert "None of the words and names" not in said
    for said in (apart, shared, kept, untold):
        assert "none of whose texts, templates or persons" in said
