# SPDX-License-Identifier: Apache-2.0
"""One de-biasing job from its start message to its result.

1. validate: rows read and checked, parts made disjoint, items of every measure chosen, the mitigation asked
2. evaluate, before: per-item scores of the model that the job starts from
3. mitigate, once for each seed; the first run is the version
4. evaluate, after: the same items, on the model as it loads from the exported files
5. judge: paired statistics, then the gate
6. export: the report with names, its numeric twin, and the candidate, whatever the verdict
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

from cloister.gate import Gate
from cloister_workers.errors import TrainerError
from cloister_workers.messages import EvaluationPhase, Report, Result
from cloister_workers.trainer.bundle import read_bundle, write_bundle
from cloister_workers.trainer.debias.kinds import ModelKind
from cloister_workers.trainer.debias.labelled import BETWEEN
from cloister_workers.trainer.debias.lexicon import Lexicon
from cloister_workers.trainer.debias.lexicon.builtin import axes, load_lexicon
from cloister_workers.trainer.debias.loops import LoopTraining
from cloister_workers.trainer.debias.material import Part, RowType
from cloister_workers.trainer.debias.mitigation import Case, Mitigated
from cloister_workers.trainer.debias.panel import Panel, Scores, choose_panel, score_panel
from cloister_workers.trainer.debias.partition import Partition, make_partition
from cloister_workers.trainer.debias.reading import Reader
from cloister_workers.trainer.debias.report.document import describe_job
from cloister_workers.trainer.debias.report.page import report_files
from cloister_workers.trainer.debias.report.wording import CROSSING
from cloister_workers.trainer.debias.results import Outcome, Run
from cloister_workers.trainer.debias.spec import DebiasSpec
from cloister_workers.trainer.debias.subjects.classifier import Remembering
from cloister_workers.trainer.debias.subjects.load import load_subject, weights_digest
from cloister_workers.trainer.debias.subjects.thresholded import FILE as THRESHOLDS
from cloister_workers.trainer.debias.subjects.thresholded import with_thresholds
from cloister_workers.trainer.debias.telling import headline_metrics, tell_rows, tell_run
from cloister_workers.trainer.debias.verdicts import judge_run
from cloister_workers.trainer.debias.wordlists import short_lists
from cloister_workers.trainer.layer import kind_of
from cloister_workers.trainer.place import Inputs, Workplace, stage
from cloister_workers.trainer.session import Session
from cloister_workers.words import DatasetRole, FailureCode, Stage

Files = Mapping[str, bytes]


@dataclass(frozen=True)
class Bench:
    """What every stage of one job works with."""

    spec: DebiasSpec
    gate: Gate
    place: Workplace
    session: Session
    start: Files | None
    """The files of the adapted version that the job starts from; None for a base model."""

    def load(self, layer: Files | None, *, trainable: bool = False) -> Any:  # noqa: ANN401 - one of `subjects`
        """A model as plain libraries load it from its files."""
        return load_subject(
            self.spec.task,
            self.place.model_dir,
            layer,
            self.place.scratch,
            self.place.device,
            lambda: self.session.poll(0),
            max_seq_length=self.spec.hyperparameters.max_seq_length,
            trainable=trainable,
        )

    def score(self, panel: Panel, subject: Any, layer: Files | None) -> tuple[Scores, str]:  # noqa: ANN401
        """All scores of a model, and the digest of what was scored. A classifier is asked for every text once, and
        decides by its version's thresholds.
        """
        asked = subject
        if self.spec.task is ModelKind.CLASSIFIER:
            asked = with_thresholds(Remembering(subject), layer or {})
        return score_panel(panel, asked), _digest(subject, layer)


def run_debias(spec: DebiasSpec, policy: Gate, inputs: Inputs, place: Workplace, session: Session) -> None:
    """Run one job to its Result. Raises TrainerError, Cancelled or Paused; what it told before stands."""
    start = _layer(inputs)
    bench = Bench(spec, spec.gate(policy), place, session, start)
    with stage(session, Stage.VALIDATE):
        subject = bench.load(start)
        parts = _read(bench, inputs, frozenset(getattr(subject, "labels", ())))
        panel = choose_panel(spec, parts.test, parts.at_hand)
        spec.mitigation.refuse(_case(bench, parts, subject, 0, None))
    with stage(session, Stage.EVALUATE):
        before, digest = bench.score(panel, subject, start)
        del subject
        session.evaluated(EvaluationPhase.BEFORE, 0, headline_metrics(panel, before))
    runs = spec.seeds if spec.mitigation.trained else 1
    version: tuple[Mitigated, Scores, Run] | None = None
    robustness: list[Run] = []
    for number in range(runs):
        resume = inputs.get(DatasetRole.CHECKPOINT)
        made, scores, run = _run(bench, parts, (panel, before, digest), number, resume)
        if number == 0:
            tell_rows(session, parts)
        tell_run(session, spec, number, run)
        robustness.append(run)
        if number == 0:
            version = made, scores, run
    if version is None:
        raise AssertionError("a job has one run at least")
    made, scores, _ = version
    with stage(session, Stage.EXPORT):
        outcome = Outcome(
            job=describe_job(spec, bench.gate),
            runs=tuple(robustness),
            not_measured=(*panel.not_measured, *short_lists(parts, spec.measured_axes)),
            notes=made.notes,
            counts=_counts(parts),
        )
        session.hand_over(Report(), write_bundle(report_files(outcome)))
        metrics = headline_metrics(panel, scores, robustness[0].judgement.verdict)
        descriptor = write_bundle(made.files)
    session.evaluated(EvaluationPhase.AFTER, made.steps, metrics)
    session.hand_over(Result(step=made.steps, metrics=metrics, trained_tokens=made.trained_tokens), descriptor)


def _run(
    bench: Bench, parts: Partition, before: tuple[Panel, Scores, str], number: int, resume: BinaryIO | None
) -> tuple[Mitigated, Scores, Run]:
    """Mitigate with one seed and measure what came of it."""
    panel, scores_before, digest_before = before
    session, spec = bench.session, bench.spec
    with stage(session, Stage.MITIGATE):
        subject = bench.load(bench.start, trainable=True)
        made = spec.mitigation.apply(_case(bench, parts, subject, number, resume))
        del subject
    with stage(session, Stage.EVALUATE):
        subject = bench.load(made.files)
        scores, digest = bench.score(panel, subject, made.files)
        del subject
    with stage(session, Stage.JUDGE):
        run = judge_run(
            panel,
            scores_before,
            scores,
            bench.gate,
            seed=spec.seed + number,
            weights_changed=digest != digest_before,
        )
    return made, scores, run


def _digest(subject: Any, files: Files | None) -> str:  # noqa: ANN401
    """What must have changed: the weights as they were loaded, and the rules by which they decide."""
    rules = (files or {}).get(THRESHOLDS, b"")
    return f"{weights_digest(subject)}:{hashlib.sha256(rules).hexdigest()}"


def _case(bench: Bench, parts: Partition, subject: Any, number: int, resume: BinaryIO | None) -> Case:  # noqa: ANN401
    spec, place = bench.spec, bench.place
    runs = spec.seeds if spec.mitigation.trained else 1
    return Case(
        subject=subject,
        kind=spec.task,
        axes=spec.axes,
        fit=_of_axes(parts.fit, spec),
        validation=_of_axes(parts.validation, spec),
        settings=spec.settings,
        options=spec.options,
        hyperparameters=spec.hyperparameters,
        lora=spec.lora,
        seed=spec.seed + number,
        model_name=_base_name(bench),
        scratch=place.scratch,
        training=LoopTraining(bench.session, spec.task, number, runs, resume, place.clock),
    )


def _of_axes(part: Part, spec: DebiasSpec) -> Part:
    """What a mitigation may see: without the word lists of axes that are guarded alone."""
    mitigated = _mitigated(spec)
    return replace(part, lexicons={axis: part.lexicons[axis] for axis in part.lexicons if axis in mitigated})


def _mitigated(spec: DebiasSpec) -> tuple[str, ...]:
    """The axes of the spec, an intersection by its parts."""
    return tuple(dict.fromkeys(axis for name in spec.axes for axis in name.split(BETWEEN)))


def _base_name(bench: Bench) -> str:
    """The base model's given name: an adapted version carries it, as its specification names the version instead."""
    start = bench.start or {}
    for file, key in (("adapter_config.json", "base_model_name_or_path"), ("config.json", "_name_or_path")):
        if file in start:
            return str(json.loads(start[file]).get(key) or bench.spec.model)
    return bench.spec.model


def _layer(inputs: Inputs) -> Files | None:
    if DatasetRole.LAYER not in inputs:
        return None
    try:
        files = read_bundle(inputs[DatasetRole.LAYER])
    except ValueError as error:
        raise TrainerError(
            FailureCode.MODEL_INVALID, "the version that the job starts from is not a whole bundle; start from another"
        ) from error
    return files if kind_of(files).is_weights else None


def _read(bench: Bench, inputs: Inputs, labels: frozenset[str]) -> Partition:
    spec, session = bench.spec, bench.session
    reader = Reader(
        spec.data, labels if spec.task is ModelKind.CLASSIFIER else frozenset(), _poll(session), session.tell
    )
    seen: set[bytes] = set()
    rows: dict[DatasetRole, tuple[RowType, ...]] = {}
    for role in (DatasetRole.TRAINING, DatasetRole.VALIDATION, DatasetRole.EVALUATION):
        rows[role] = reader.read(role, inputs[role], seen) if role in inputs else ()
    return make_partition(
        rows[DatasetRole.TRAINING],
        rows[DatasetRole.VALIDATION],
        rows[DatasetRole.EVALUATION],
        _lexicons(spec),
        language=spec.language,
        axes=_mitigated(spec),
        seed=spec.seed,
        validation_fraction=0.0 if DatasetRole.VALIDATION in inputs else spec.data.validation_fraction,
        evaluation_fraction=0.0 if DatasetRole.EVALUATION in inputs else spec.data.evaluation_fraction,
    )


def _lexicons(spec: DebiasSpec) -> dict[str, Lexicon]:
    """Our own lists for the axes that have one; rows of kind `swap` bring the others."""
    wanted = {axis for name in spec.measured_axes for axis in name.split(BETWEEN)}
    return {axis: load_lexicon(axis, spec.language) for axis in axes(spec.language) if axis in wanted}


def _poll(session: Session) -> Any:  # noqa: ANN401 - a callable
    return lambda: session.poll(0)


def _counts(parts: Partition) -> dict[str, int]:
    sizes = {
        f"{name}_rows": sum(len(rows) for rows in part.rows.rows.values())
        for name, part in (("fit", parts.fit), ("validation", parts.validation), ("test", parts.test))
    }
    return {
        **sizes,
        "dropped_rows": parts.dropped,
        "left_out_rows_that_name_a_test_word": parts.left_out,
        CROSSING: parts.crossing,
    }
