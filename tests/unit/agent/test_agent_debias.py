# SPDX-License-Identifier: Apache-2.0
"""A de-biasing job through the agent: report first, then the model with figures; and what a trainer may not do."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cloister.api.v1 import jobs_pb2, models_pb2, workers_pb2
from cloister.evidence.authorisation import Authorisation
from cloister.evidence.figures import MAX_ENTRIES, verify_figures
from cloister.evidence.manifest import Manifest
from cloister.evidence.result import Result
from cloister.gate import Gate
from cloister_workers.agent.debias import FigureBook
from cloister_workers.agent.errors import HostFault, JobFault
from cloister_workers.agent.outcome import trainer_failure
from cloister_workers.agent.training import BURST
from cloister_workers.messages import (
    Failed,
    FailureCode,
    Figure,
    Finding,
    Judged,
    RefusalReason,
    Report,
    Stage,
    StageChange,
    StageStatus,
)
from cloister_workers.protocol import Result as ResultMessage
from cloister_workers.words import FigureKind, FigureName, GateRule, MetricName, Verdict
from debias_job import METHOD, report_bundle
from fake_run import bundle, run
from fake_site import FakeHost
from fake_trainer import TrainerSide

FIGURE = Figure(
    run=0,
    kind=FigureKind.MEASURE,
    index=0,
    axis=0,
    group=0,
    items=400,
    clusters=200,
    values={FigureName.BEFORE: 0.25, FigureName.AFTER: 0.1 / 3},
)
FINDING = Finding(run=0, rule=GateRule.LEVEL, verdict=Verdict.FAIL, kind=FigureKind.MEASURE, index=0, axis=0)
FAILED = {MetricName.EVAL_ACCURACY: 0.75, MetricName.DEBIAS_VERDICT: -1.0}


def send_result(side: TrainerSide) -> None:
    side.send_bundle(ResultMessage(step=2, metrics=FAILED, trained_tokens=200), bundle())


def debias_trainer(side: TrainerSide) -> None:
    side.begin()
    for stage in (Stage.MITIGATE, Stage.JUDGE):
        for status in StageStatus:
            side.channel.send(StageChange(name=stage, status=status))
    for message in (FIGURE, FINDING, Judged(run=0, verdict=Verdict.FAIL), Judged(run=1, verdict=Verdict.PASS)):
        side.channel.send(message)
    side.send_bundle(Report(), report_bundle())
    send_result(side)


def failed_job(host: FakeHost, script: Callable[[TrainerSide], None]) -> jobs_pb2.JobError:
    """How a de-biasing job ends whose trainer misbehaves."""
    host.scripts.append(script)
    ended = run(host, spec={"method": METHOD})
    assert ended is not None
    assert ended.state == jobs_pb2.JOB_STATE_FAILED
    return ended.error


def test_report_and_figures_reach_the_store_before_the_end(host: FakeHost) -> None:
    """A job whose gate says FAIL succeeds: report stored, then the model whose result binds report and figures."""
    host.scripts.append(debias_trainer)
    ended = run(host, spec={"method": METHOD})
    assert ended is not None
    assert ended.state == jobs_pb2.JOB_STATE_SUCCEEDED
    report, export = host.control.artifacts
    assert (report.kind, export.kind) == (workers_pb2.ARTIFACT_KIND_REPORT, workers_pb2.ARTIFACT_KIND_EXPORT)
    assert not report.HasField("result")
    assert report.figures == b""
    people = (host.site.people["alice"].identity, host.site.recovery)
    assert {wrap.recipient_key_id for wrap in report.wraps} == {held.recipient.key_id for held in people}
    uploads = list(host.control.uploads)
    assert uploads == [Manifest.parse(item.sealed.manifest).id for item in (report, export)]
    result = Result.parse(export.result.payload)
    assert host.control.job is not None
    signed: Authorisation = host.control.job.authorisation
    figures = verify_figures(export.figures, result, signed)
    assert figures.verdicts == ("FAIL", "PASS")
    assert dict(figures.figures[0].values) == {"before": "0.25", "after": "0.03333333"}
    assert [finding.rule for finding in figures.findings] == ["level"]
    assert ended.layer_kind == models_pb2.LAYER_KIND_ADAPTER
    assert dict(ended.metrics_after)["debias_verdict"] == -1.0


def test_the_stages_and_the_verdict_are_told(host: FakeHost) -> None:
    """Events name the stages of mitigation and judgement, and the gate's word, in fixed words."""
    host.scripts.append(debias_trainer)
    run(host, spec={"method": METHOD})
    said = host.control.names()
    wanted = ["mitigate started", "mitigate finished", "judge started", "judge finished"]
    assert [text for text in said if text in wanted] == wanted
    assert "the gate says FAIL of the version" in said
    assert "the gate says PASS of run 1" in said
    assert said.index("report stored") < said.index("publish started")


def test_no_name_of_a_group_is_said_to_the_control_plane(host: FakeHost) -> None:
    """What leaves the host in the clear holds nothing of the report's text."""
    host.scripts.append(debias_trainer)
    ended = run(host, spec={"method": METHOD})
    assert ended is not None
    said = b"".join(m.SerializeToString() for m in (*host.control.events, *host.control.artifacts, ended))
    said += b"".join(bytes(blob) for blob in host.control.uploads.values())
    assert b"CANARY" not in said
    assert b"women" not in said


def test_the_trainer_gets_the_gate_of_the_signed_policy(host: FakeHost) -> None:
    """The bars that the trainer judges by are those that the key agent verified; none where the policy has none."""
    strict = Gate().tightened({"flip_rate": 0.001}, {})
    for gate, expected in ((strict, strict.to_json()), (None, {})):
        host.scripts.append(debias_trainer)
        run(host, spec={"method": METHOD}, policy=host.site.policy(gate=gate))
        start = host.processes[-1].side.start
        assert start is not None
        assert start.gate == expected


def test_figures_may_come_all_at_once(host: FakeHost) -> None:
    """More figures than the pace of other messages allows are taken: their number is bounded, not their pace."""
    many = int(BURST) * 3

    def talkative(side: TrainerSide) -> None:
        side.begin()
        for index in range(many):
            side.channel.send(replace(FIGURE, index=index))
        side.channel.send(Judged(run=0, verdict=Verdict.FAIL))
        side.send_bundle(Report(), report_bundle())
        send_result(side)

    host.scripts.append(talkative)
    ended = run(host, spec={"method": METHOD})
    assert ended is not None
    assert ended.state == jobs_pb2.JOB_STATE_SUCCEEDED
    assert host.control.artifacts[1].figures.count(b'"kind":"measure"') == many


def without(side: TrainerSide, *parts: str) -> None:
    """A trainer that leaves something out."""
    side.begin()
    if "figures" not in parts:
        side.channel.send(FIGURE)
        side.channel.send(Judged(run=0, verdict=Verdict.FAIL))
    if "report" not in parts:
        side.send_bundle(Report(), report_bundle())
    send_result(side)


@pytest.mark.parametrize("part", ["figures", "report"])
def test_a_model_without_its_evidence_is_refused(host: FakeHost, part: str) -> None:
    """A trainer that leaves out report or figures gets nothing signed, and the model does not reach the store."""
    assert failed_job(host, lambda side: without(side, part)).code == "RESULT_REFUSED"
    assert workers_pb2.ARTIFACT_KIND_EXPORT not in [artifact.kind for artifact in host.control.artifacts]


def test_a_report_of_other_files_is_refused(host: FakeHost) -> None:
    """Rows in the place of a report are not sealed, not even to the team."""

    def smuggling(side: TrainerSide) -> None:
        side.begin()
        side.send_bundle(Report(), report_bundle({"report.html": b"x", "rows.json": b"{}"}))

    assert failed_job(host, smuggling).code == "RESULT_REFUSED"
    assert host.control.artifacts == []


def test_verdicts_come_in_order(host: FakeHost) -> None:
    """A trainer that judges a run twice, or leaves one out, is ended."""

    def confused(side: TrainerSide) -> None:
        side.begin()
        side.channel.send(Judged(run=1, verdict=Verdict.PASS))
        side.channel.receive()

    assert failed_job(host, confused).code == "PROTOCOL"


def book() -> FigureBook:
    return FigureBook("j-1", "ab" * 32, "cd" * 32, 1)


def test_more_figures_than_a_job_may_report_end_it() -> None:
    """Beyond the limit of entries nothing is taken."""
    mine = book()
    for _ in range(MAX_ENTRIES):
        mine.add(FINDING)
    with pytest.raises(JobFault) as ended:
        mine.add(FINDING)
    assert ended.value.code == "PROTOCOL"


def test_figures_that_are_too_long_together_end_the_job() -> None:
    """Fewer entries that are longer together than a document may be are refused as well."""
    mine = book()
    long = replace(FIGURE, values=dict.fromkeys(FigureName, 1.2345678e-11))
    for _ in range(MAX_ENTRIES // 2):
        mine.add(long)
    with pytest.raises(JobFault) as ended:
        mine.payload()
    assert ended.value.code == "PROTOCOL"


def test_a_job_of_another_kind_has_no_figures() -> None:
    """Where nothing was measured there is no document."""
    assert book().payload() == b""


@pytest.mark.parametrize("reason", [reason for reason in RefusalReason if reason is not RefusalReason.NONE])
def test_a_refused_mitigation_says_why(reason: RefusalReason) -> None:
    """A mitigation that must not be used fails the job for good, with a sentence and the word of the closed list."""
    error = trainer_failure(Failed(code=FailureCode.MITIGATION_REFUSED, refusal=reason))
    assert not isinstance(error, HostFault)
    assert (error.code, error.param) == ("MITIGATION_REFUSED", "")
    assert str(error).endswith(f"({reason})")
    page = (Path(__file__).parents[3] / "docs" / "reference" / "job-errors.md").read_text(encoding="utf-8")
    assert f"\n- {reason}: " in page
