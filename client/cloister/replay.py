# SPDX-License-Identifier: Apache-2.0
"""Which replay rows a model has not been trained on, by what was signed for its earlier jobs; and what to say of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cloister.api.v1 import spec_pb2
from cloister.errors import UsageError
from cloister.estimates import REPLAY_HELD_OUT
from cloister.lineage import Start
from cloister.spec import SEED, Spec, hyperparameters_of

Split = spec_pb2.ReplaySplit


def bind_replay(spec: Spec, given: Spec, earlier: Sequence[Spec]) -> None:
    """Fill in how the replay rows were split by the model's earlier jobs, newest first.

    `spec` is resolved and names datasets by id, `given` is what was asked for.  Raises UsageError for a split that is
    not theirs, and for training on rows on which they measured.
    """
    found = earlier_split(spec.replay_dataset, earlier) if spec.replay_dataset else None
    if given.data.HasField("replay_split") and given.data.replay_split != found:
        raise UsageError("spec: replay_split is not what the model's earlier jobs signed; leave it out")
    if found is None:
        return
    spec.data.replay_split.CopyFrom(found)
    if found.evaluation_fraction < 1:
        return
    if given.data.replay_ratio > 0:
        raise UsageError(
            f"spec: replay_ratio is {given.data.replay_ratio:g}, but the replay dataset is one on which the model's "
            "earlier jobs measured: it stays held out; give 0"
        )
    spec.data.replay_ratio = 0.0


def earlier_split(dataset: str, earlier: Sequence[Spec]) -> Split | None:
    """The split under which jobs with these specifications trained on a dataset; all held out where they only measured
    on it, None where they did neither.

    Jobs that split it differently have between them trained on any row: then nothing of it is held out.
    """
    splits = [split for spec in earlier for split in _trained_on(spec, dataset)]
    if splits:
        same = all(split == splits[0] for split in splits)
        return splits[0] if same else _split(SEED, 0.0, 0.0, 0)
    if any(dataset in (spec.validation_dataset, spec.evaluation_dataset) for spec in earlier):
        return _split(SEED, 0.0, 1.0, 0)
    return None


def replay_remarks(spec: Spec, start: Start) -> Iterator[str]:
    """What a training job on an adapted version will not measure, and how it can be had."""
    trains = hyperparameters_of(spec) is not None and spec.method.WhichOneof("type") != "debias"
    if start.lineage is None or not start.weights or not trains:
        return
    before = start.lineage.spec
    if spec.method.WhichOneof("type") == "reinforcement":
        yield f"reinforcement does not measure what {start.name} forgets; evaluate both versions on its earlier rows"
    elif not spec.replay_dataset:
        yield (
            f"no replay dataset is named: what {start.name} forgets of its earlier rows is not measured; name one, "
            f"for example {before.training_dataset}, as replay_dataset in the specification or with --replay"
        )
    elif not spec.data.HasField("replay_split"):
        yield (
            f"no earlier job of {start.name} names the replay dataset: where it repeats rows that they trained on, "
            "forgetting may be measured on those"
        )
    elif not spec.data.replay_split.evaluation_fraction and not spec.data.replay_split.validation_fraction:
        yield (
            f"{start.name} was trained on all rows of the replay dataset, so forgetting is not measured; name the "
            "evaluation dataset of that job as replay_dataset to measure it, and nothing is replayed"
        )


def _trained_on(spec: Spec, dataset: str) -> Iterator[Split]:
    """By training, by replay or both; what trains no weights forgets nothing."""
    if hyperparameters_of(spec) is None:
        return
    data = spec.data
    if spec.training_dataset == dataset:
        validation = 0.0 if spec.validation_dataset else data.validation_fraction
        evaluation = 0.0 if spec.evaluation_dataset else data.evaluation_fraction
        if spec.method.WhichOneof("type") == "debias":  # its parts are made in another way
            validation = evaluation = 0.0
        yield _split(spec.seed, validation, evaluation, data.max_rows)
    if spec.replay_dataset == dataset and data.replay_ratio > 0:
        if data.HasField("replay_split"):
            yield data.replay_split
        else:
            yield _split(spec.seed, 0.0, data.evaluation_fraction or REPLAY_HELD_OUT, data.max_rows)


def _split(seed: int, validation: float, evaluation: float, max_rows: int) -> Split:
    return Split(seed=seed, validation_fraction=validation, evaluation_fraction=evaluation, max_rows=max_rows)
