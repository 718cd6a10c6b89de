# SPDX-License-Identifier: Apache-2.0
"""What is held out of replay rows was never trained on, whatever the later job is like."""

from __future__ import annotations

import io
import json
from array import array
from types import SimpleNamespace
from typing import Any

import pytest

from cloister.estimates import REPLAY_HELD_OUT
from cloister_workers.errors import SpecError
from cloister_workers.messages import DatasetRole
from cloister_workers.trainer.example import Example, digest_of
from cloister_workers.trainer.preparation import prepare
from cloister_workers.trainer.replay import HELD_OUT
from cloister_workers.trainer.spec import parse_spec

EARLIER = [f"earlier {number}" + " and on" * (number % 5) for number in range(100)]
NEW = [f"new {number}" for number in range(60)]
FRACTIONS = {"validation_fraction": 0.1, "evaluation_fraction": 0.2}
SPLIT = {**FRACTIONS, "seed": "42"}
"""As the client signs it of a job with the default seed and FRACTIONS."""


def test_client_and_trainer_hold_out_the_same_share():
    """The client signs for an earlier job the share that the trainer held out of its replay rows."""
    assert REPLAY_HELD_OUT == HELD_OUT


class Words:
    """Reads a text as pieces of at most so many words."""

    def __init__(self, length):
        self.length = length

    def read(self, rows):
        return [self._pieces(row["text"]) for row in rows]

    def _pieces(self, text):
        starts = range(0, len(text.split()), self.length)
        return tuple(
            Example(tokens=array("i", [0]), group=digest_of(text), digest=digest_of(text, start), piece=piece)
            for piece, start in enumerate(starts)
        )


def parts_of(texts, seed=42, length=100, data=None, **more):
    """The parts of a job on these texts; `more` are texts by role."""
    spec = parse_spec({"seed": seed, "data": data or FRACTIONS, "method": {"language_modeling": {}}})
    inputs = {
        DatasetRole(role): io.BytesIO("\n".join(json.dumps({"text": text}) for text in given).encode())
        for role, given in {"training": texts, **more}.items()
    }
    method: Any = SimpleNamespace(objective=lambda _: Words(length), fitted=lambda objective, _: objective)
    session: Any = SimpleNamespace(poll=lambda _: None, tell=lambda _: None)
    setup: Any = None
    return prepare(spec, method, setup, inputs, session)[1]


def inputs(*parts):
    return {example.group for part in parts for example in part}


def replayed(parts):
    return tuple(example for example in parts.training if example.replayed)


def later(split=SPLIT, ratio=0.5, new=NEW, earlier=EARLIER, **more):
    data = {**more.pop("data", FRACTIONS), "replay_ratio": ratio}
    return parts_of(new, data=data | ({"replay_split": split} if split else {}), replay=earlier, **more)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"seed": 7},
        {"new": [*NEW, EARLIER[0]]},
        {"new": [*NEW, *EARLIER[:50]], "seed": 7},
        {"data": {"validation_fraction": 0.0, "evaluation_fraction": 0.5}},
        {"data": {"validation_fraction": 0.0, "evaluation_fraction": 0.0}},
        {"length": 2},
        {"data": {**FRACTIONS, "max_rows": "50"}},
        {"validation": EARLIER[:20]},
        {"evaluation": EARLIER[:20]},
    ],
)
def test_what_is_held_out_was_not_trained_on(change):
    """A later job of another seed, other shares, rows that repeat earlier ones, shorter pieces or fewer rows measures
    forgetting on just what the earlier job held out, and replays only what that one trained on.
    """
    first = parts_of(EARLIER)
    second = later(**change)
    assert inputs(first.evaluation) == inputs(second.replay)
    assert inputs(replayed(second)) <= inputs(first.training)
    assert not inputs(second.replay) & inputs(first.training, second.training)


def test_rows_that_a_named_file_repeats_do_not_move_the_split():
    """An earlier job that left out rows of its validation dataset trained on nothing that is held out later."""
    first = parts_of(EARLIER, validation=[*NEW[:5], *EARLIER[3:9]])
    second = later({"seed": "42", "validation_fraction": 0.0, "evaluation_fraction": 0.2})
    assert 20 == len(inputs(second.replay))
    assert not inputs(second.replay) & inputs(first.training)


def test_a_job_that_read_its_first_rows_is_followed_in_that():
    """The split of an earlier job with max_rows is over those rows, whatever the later job says of its own."""
    first = parts_of(EARLIER, data={**FRACTIONS, "max_rows": "50"})
    second = later({**SPLIT, "max_rows": "50"}, data={**FRACTIONS, "max_rows": "30"})
    assert inputs(first.evaluation) == inputs(second.replay)


def test_the_validation_part_stands_in_for_an_evaluation_part():
    """Where another dataset was evaluated on, forgetting is measured on the validation part, which no job trains on."""
    first = parts_of(EARLIER, evaluation=NEW[:5])
    second = later({"seed": "42", "validation_fraction": 0.1})
    assert inputs(first.validation) == inputs(second.replay)
    assert not inputs(second.replay) & inputs(first.training, second.training)


def test_nothing_is_measured_where_all_rows_were_trained_on():
    """There is no held-out part, and no forgetting, but rows are replayed."""
    second = later({"seed": "42"})
    assert ((), 42) == (second.replay, len(replayed(second)))


def test_an_earlier_evaluation_dataset_is_measured_whole():
    """All rows are held out and none is replayed, whatever the ratio."""
    second = later({"seed": "42", "evaluation_fraction": 1.0})
    assert (inputs(second.replay), ()) == ({digest_of(text) for text in EARLIER}, replayed(second))


def test_what_is_held_out_stays_so_for_the_next_job():
    """A job on new rows that repeat held-out ones leaves those out, so a third job measures on rows that are clean."""
    second = later(new=[*NEW, *EARLIER])
    third = later(new=[f"newest {number}" for number in range(30)], seed=9)
    assert inputs(second.replay) == inputs(third.replay)
    assert not inputs(third.replay) & inputs(second.training, third.training)


def test_rows_without_an_earlier_job_are_split_by_this_one():
    """A base model has seen none of them: this job's seed and share hold out, a fifth where its share is 0."""
    held_out = [later(None, seed=seed).replay for seed in (42, 42, 7)]
    assert [20, 20, 20] == [len(inputs(part)) for part in held_out]
    assert held_out[0] == held_out[1] != held_out[2]
    assert 20 == len(inputs(later(None, data={"evaluation_fraction": 0.0}).replay))


@pytest.mark.parametrize(
    "split",
    ["all", {"seed": "0"}, {"evaluation_fraction": 1.1}, {"validation_fraction": 0.6, "evaluation_fraction": 0.6}],
)
def test_a_split_that_is_none_is_refused(split):
    """A split out of range ends the job before any row is read."""
    with pytest.raises(SpecError):
        later(split)
