# SPDX-License-Identifier: Apache-2.0
"""The trainer's parts that need no model: spec, rows, order, split, packing, schedule, figures, bundles."""

from __future__ import annotations

import io
import math
import os

import pytest

from cloister_workers.errors import SpecError
from cloister_workers.messages import FailureCode, RowReason, SpecField
from cloister_workers.trainer import bundle, metrics, order, packing, rows, spec, split
from cloister_workers.trainer.schedule import learning_rate
from cloister_workers.trainer.spec import Full, Method, Scheduler, parse_spec


# ---------------------------------------------------------------- spec
def test_spec_in_the_form_of_the_contract():
    """Sixty-four bit numbers come as strings, absent values take the method's defaults, 0 stands for seed 42."""
    parsed = parse_spec(
        {
            "model": "m",
            "training_dataset": "d",
            "seed": "18446744073709551615",
            "data": {"max_rows": "5"},
            "method": {"supervised": {"hyperparameters": {"n_epochs": 2, "lr_scheduler_type": "cosine"}}},
            "adapter": {"full": {}},
        }
    )
    assert (2**64 - 1, 5, Full()) == (parsed.seed, parsed.data.max_rows, parsed.adapter)
    wanted = parsed.hyperparameters
    assert (2, Scheduler.COSINE, 2048, 1) == (
        wanted.n_epochs,
        wanted.lr_scheduler_type,
        wanted.max_seq_length,
        wanted.micro_batch_size,
    )
    assert 42 == parse_spec({"method": {"classification": {}}, "seed": "0"}).seed


def test_micro_batch_is_left_to_the_host():
    """Classification without micro_batch_size takes what memory allows, and the method's other defaults."""
    parsed = parse_spec({"method": {"classification": {"hyperparameters": {"batch_size": 9}}}})
    assert 0 == parsed.hyperparameters.micro_batch_size
    assert spec.DEFAULTS[Method.CLASSIFICATION].n_epochs == parsed.hyperparameters.n_epochs


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"extra": 1}, SpecField.SPEC),
        ({"seed": -1}, SpecField.SEED),
        ({"method": {}}, SpecField.METHOD),
        ({"method": {"classification": {}, "supervised": {}}}, SpecField.METHOD),
        ({"method": {"classification": {"hyperparameters": {"lr": 1}}}}, SpecField.METHOD),
        ({"method": {"classification": {"hyperparameters": {"batch_size": 0}}}}, SpecField.BATCH_SIZE),
        ({"method": {"classification": {"hyperparameters": {"batch_size": True}}}}, SpecField.BATCH_SIZE),
        (
            {"method": {"classification": {"hyperparameters": {"learning_rate": math.inf}}}},
            SpecField.LEARNING_RATE,
        ),
        (
            {"method": {"classification": {"hyperparameters": {"lr_scheduler_type": "x"}}}},
            SpecField.LR_SCHEDULER_TYPE,
        ),
        ({"data": {"validation_fraction": 0.5, "evaluation_fraction": 0.5}}, SpecField.EVALUATION_FRACTION),
        ({"adapter": {"lora": {"rank": 0}}}, SpecField.RANK),
        ({"adapter": {"lora": {"target_modules": "query"}}}, SpecField.TARGET_MODULES),
        ({"adapter": {"dora": {}}}, SpecField.ADAPTER),
    ],
)
def test_unusable_spec_names_its_field(change, field):
    """A value that does not fit is refused with the field at fault."""
    with pytest.raises(SpecError) as caught:
        parse_spec({"method": {"classification": {}}, **change})
    assert (FailureCode.SPEC_INVALID, field) == (caught.value.code, caught.value.field)


# ---------------------------------------------------------------- rows
def test_each_bad_line_has_its_number_and_reason():
    """Bad lines are told by line number while good ones around them are read; blank lines only count."""
    lines = [
        b'\xef\xbb\xbf{"a":1}',
        b"\xff",
        b"",
        b"{",
        b"[1]",
        b'{"a":NaN}',
        b"[" * 100_000,
        b'{"a":2}\r',
    ]
    found = [
        (row.number, row.reason if isinstance(row, rows.RowProblem) else row.value)
        for row in rows.read_rows(io.BytesIO(b"\n".join(lines)))
    ]
    assert [
        (1, {"a": 1}),
        (2, RowReason.BAD_UTF8),
        (4, RowReason.NOT_JSON),
        (5, RowReason.NOT_AN_OBJECT),
        (6, RowReason.NOT_JSON),
        (7, RowReason.NOT_JSON),
        (8, {"a": 2}),
    ] == found


def test_an_endless_line_costs_no_memory(monkeypatch):
    """A line above the limit is one TOO_LARGE row, and the next line is read as usual."""
    monkeypatch.setattr(rows, "MAX_LINE", 8)
    found = list(rows.read_rows(io.BytesIO(b"x" * 50 + b"\n{}\n" + b"y" * 9)))
    assert [
        rows.RowProblem(1, RowReason.TOO_LARGE),
        rows.Row(2, {}),
        rows.RowProblem(3, RowReason.TOO_LARGE),
    ] == found


@pytest.mark.parametrize(
    ("value", "reason"),
    [(1, RowReason.WRONG_TYPE), (" \n", RowReason.EMPTY_TEXT), ("\ud800", RowReason.INVALID_TEXT)],
)
def test_texts_are_checked(value, reason):
    """What is no usable text has a reason."""
    assert reason == rows.checked_text(value)


# ---------------------------------------------------------------- order and split
def test_order_is_fixed_for_all_time():
    """The order of a small set is this one, whatever the versions of Python and torch."""
    assert [5, 1, 4, 0, 3, 2] == order.data_order(42, 0, 6)
    assert order.data_order(42, 0, 100) != order.data_order(42, 1, 100) != order.data_order(43, 1, 100)
    assert list(range(100)) == sorted(order.data_order(7, 3, 100))


def test_milestones_lie_evenly_inside():
    """Evaluations and checkpoints are spread inside training and never at its end."""
    assert frozenset({25, 50, 75}) == order.milestones(100, 3)
    assert frozenset() == order.milestones(1, 3)


def test_split_keeps_repeats_together():
    """Rows with one input land in one part, parts are disjoint and as large as asked."""
    groups = [bytes([number % 70]) for number in range(100)]
    parts = split.split_rows(groups, 42, 0.1, 0.2)
    sets = [{groups[index] for index in part} for part in (parts.training, parts.validation, parts.evaluation)]
    assert 100 == len(parts.training) + len(parts.validation) + len(parts.evaluation)
    assert not sets[0] & sets[1]
    assert not sets[0] & sets[2]
    assert not sets[1] & sets[2]
    assert len(parts.evaluation) in (20, 21)
    assert len(parts.validation) in (10, 11)


def test_split_does_not_look_at_content():
    """Other texts in the same places split alike."""
    one = [bytes([number]) for number in range(50)]
    two = [bytes([number, 1]) for number in range(50)]
    assert split.split_rows(one, 1, 0.1, 0.1) == split.split_rows(two, 1, 0.1, 0.1)


# ---------------------------------------------------------------- packing
def test_packing_is_best_fit_decreasing():
    """Every example is in exactly one bin, no bin is over its capacity, and the known case packs tightly."""
    assert [[0, 3], [1, 2]] == packing.best_fit_decreasing([6, 5, 5, 4], 10)
    lengths = [(number * 37) % 90 + 10 for number in range(200)]
    bins = packing.best_fit_decreasing(lengths, 100)
    assert list(range(200)) == sorted(index for row in bins for index in row)
    assert max(sum(lengths[index] for index in row) for row in bins) <= 100
    with pytest.raises(ValueError, match="101 tokens"):
        packing.best_fit_decreasing([101], 100)


def test_positions_start_again():
    """Positions and boundaries describe the sequences of a row."""
    assert [0, 1, 0, 1, 2] == packing.position_ids([2, 3])
    assert [0, 2, 5] == packing.cumulative_lengths([2, 3])


# ---------------------------------------------------------------- schedule and figures
def test_schedules_equal_those_of_transformers():
    """Each named schedule gives the rates of the scheduler that transformers gives under this name."""
    import torch
    from transformers import get_scheduler

    names = {
        Scheduler.LINEAR: "linear",
        Scheduler.COSINE: "cosine",
        Scheduler.CONSTANT: "constant_with_warmup",
    }
    for kind, name in names.items():
        weight = torch.zeros(1, requires_grad=True)
        optimiser = torch.optim.SGD([weight], lr=0.5)
        theirs = get_scheduler(name, optimiser, num_warmup_steps=3, num_training_steps=21)
        for step in range(21):
            assert theirs.get_last_lr()[0] == pytest.approx(learning_rate(kind, 0.5, step, 21, 0.1), abs=1e-12)
            optimiser.step()
            theirs.step()


def test_interval_of_a_mean_is_students():
    """Of 1, 2, 3, 4 the mean 2.5 has standard error 0.6455, and t of 3 degrees is 3.1824 at 97.5 %."""
    assert pytest.approx((2.5 - 2.05426, 2.5 + 2.05426), abs=1e-5) == metrics.mean_interval([1.0, 2.0, 3.0, 4.0])
    assert (3.0, 3.0) == metrics.mean_interval([3.0])


def test_wilson_interval_is_the_published_one():
    """15 of 148 gives the interval of Newcombe 1998 (method 3), 0 of 20 starts at 0."""
    low, high = metrics.wilson_interval(15, 148)
    assert (0.0624, 0.1605) == (round(low, 4), round(high, 4))
    assert 0.0 == metrics.wilson_interval(0, 20)[0]
    assert (0.0, 1.0) == metrics.wilson_interval(0, 0)


def test_macro_f1_counts_labels_alike():
    """The mean is over labels, however rare, and a label never predicted counts 0."""
    assert pytest.approx((2 / 3 + 2 / 3 + 0.0) / 3) == metrics.macro_f1([0, 0, 1, 1, 1], [0, 1, 1, 1, 2])
    assert metrics.perplexity(1e6) is None


# ---------------------------------------------------------------- bundles
def test_bundle_is_deterministic_and_sealed():
    """Equal files give equal bytes, come back unchanged, and nobody can write to the descriptor."""
    made = []
    for files in ({"a": b"1", "b.json": b"{}"}, {"b.json": b"{}", "a": b"1"}):
        descriptor = bundle.write_bundle(files)
        with pytest.raises(PermissionError):
            os.write(descriptor, b"x")
        with os.fdopen(descriptor, "rb") as stream:
            made.append(stream.read())
    assert made[0] == made[1]
    assert {"a": b"1", "b.json": b"{}"} == bundle.read_bundle(io.BytesIO(made[0]))


def test_bundle_refuses_paths_and_cuts():
    """A name with a path, and a bundle cut short, are refused."""
    with pytest.raises(ValueError, match="plain file name"):
        bundle.write_bundle({"../a": b""})
    with os.fdopen(bundle.write_bundle({"a": bytes(2000)}), "rb") as stream:
        whole = stream.read()
    with pytest.raises(ValueError):
        bundle.read_bundle(io.BytesIO(whole[:900]))
