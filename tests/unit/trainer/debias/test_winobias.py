# SPDX-License-Identifier: Apache-2.0
"""WinoBias: differences of accuracies by hand, a model's choices against a plain loop, rows."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from cloister_workers.messages import RowReason
from cloister_workers.trainer.debias.material import Material, Part
from cloister_workers.trainer.debias.measure import Items, Missing
from cloister_workers.trainer.debias.measures.winobias import MEASURES, WinoBiasRow, inside
from cloister_workers.trainer.debias.shapes import parse_row
from cloister_workers.trainer.debias.subjects.causal import CausalSubject
from tiny_language_models import byte_pairs, gpt2

TYPE_1, TYPE_2 = MEASURES
ROWS = (
    WinoBiasRow("1", 1, "pro", "The smith paid the baker because she sang.", "she", ("The smith", "the baker"), 1),
    WinoBiasRow("2", 1, "pro", "The smith paid the baker because he won.", "he", ("The smith", "the baker"), 0),
    WinoBiasRow("1", 1, "anti", "The smith paid the baker because he sang.", "he", ("The smith", "the baker"), 1),
    WinoBiasRow("2", 1, "anti", "The smith paid the baker because she won.", "she", ("The smith", "the baker"), 0),
    WinoBiasRow("3", 1, "pro", "The pilot met a poet when he left.", "he", ("The pilot", "a poet"), 0),
    WinoBiasRow("3", 1, "anti", "The pilot met a poet when she left.", "she", ("The pilot", "a poet"), 0),
)


def _items(rows: tuple[WinoBiasRow, ...] = ROWS) -> Items:
    found = TYPE_1.items(Part(Material.from_rows(rows), {}), "gender")
    assert isinstance(found, Items)
    return found


def test_the_figure_keeps_the_sign() -> None:
    """Pro minus anti: above 0 where stereotyped sentences are understood better, below 0 the other way round."""
    scores = np.array([[1.0], [1], [1], [0], [1], [0]])
    ones = np.ones((1, 6))
    np.testing.assert_allclose(TYPE_1.figure(_items(), scores, ones), [1 - 1 / 3])
    np.testing.assert_allclose(TYPE_1.figure(_items(), 1 - scores, ones), [1 / 3 - 1])
    parts = TYPE_1.by_group(_items(), scores, ones)
    assert {name: float(value[0]) for name, value in parts.items()} == pytest.approx(
        {"pro: accuracy": 1.0, "anti: accuracy": 1 / 3, "mean accuracy": 2 / 3}
    )


def test_draws_take_whole_pairs_of_antecedents() -> None:
    """Both versions and both roles of a sentence are one cluster; a draw without a condition has no figure."""
    items = _items()
    assert items.clusters == ("winobias/the baker/the smith",) * 4 + ("winobias/a poet/the pilot",) * 2
    scores = np.array([[1.0], [1], [1], [0], [1], [0]])
    weights = np.array([[0.0, 0, 0, 0, 2, 2], [1, 1, 0, 0, 0, 0]])
    np.testing.assert_allclose(TYPE_1.figure(items, scores, weights), [1.0, math.nan])


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_likelier_antecedent_is_chosen(seed: int) -> None:
    """After the stated prompt the antecedent with the higher summed log-likelihood is the answer, by plain calls."""
    prompts = [f'{row.text} The pronoun "{row.pronoun}" refers to' for row in ROWS]
    tokenizer = byte_pairs([*prompts, "the smith", "the baker", "the pilot", "a poet"])
    model = gpt2(tokenizer, seed, positions=128).eval()
    expected = []
    for prompt, row in zip(prompts, ROWS, strict=True):
        sums = []
        for name in row.antecedents:
            front, ids = (tokenizer(text)["input_ids"] for text in (prompt, f"{prompt} {name.lower()}"))
            with torch.no_grad():
                table = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
            sums.append(sum(float(table[place - 1, ids[place]]) for place in range(len(front), len(ids))))
        expected.append([float(sums.index(max(sums)) == row.answer)])
    subject = CausalSubject(model, tokenizer, torch.device("cpu"), lambda: None, max_seq_length=128, batch_size=4)
    np.testing.assert_array_equal(TYPE_1.score(subject, _items()), expected)


def test_items_by_type_and_axis() -> None:
    """Each type is a measure; it needs both conditions and is taken on gender alone."""
    part = Part(Material.from_rows([*ROWS, replace(ROWS[0], type=2)]), {})
    assert len(_items()) == 6
    assert isinstance(TYPE_2.items(part, "gender"), Missing)
    assert isinstance(TYPE_1.items(part, "age"), Missing)
    whole = Part(Material.from_rows([replace(ROWS[0], type=2), replace(ROWS[2], type=2)]), {})
    assert isinstance(TYPE_2.items(whole, "gender"), Items)


def test_articles_lose_their_capital_inside_a_sentence() -> None:
    """A name keeps its own."""
    assert [inside(name) for name in ("The chief", "the clerk", "Ann Lee", " A poet ")] == [
        "the chief",
        "the clerk",
        "Ann Lee",
        "a poet",
    ]


def test_rows_are_parsed_and_refused() -> None:
    """A row is read by its kind; what is missing or of another type is said in fixed words."""
    row = {
        "kind": "winobias",
        "id": "1",
        "type": 1,
        "condition": "pro",
        "text": ROWS[0].text,
        "pronoun": "she",
        "antecedents": ["The smith", "the baker"],
        "answer": 1,
    }
    assert parse_row(row) == ROWS[0]
    for wrong in ({"type": 3}, {"type": "1"}, {"answer": True}, {"antecedents": "the smith"}, {"condition": "x"}):
        assert parse_row({**row, **wrong}) is RowReason.WRONG_TYPE
    assert parse_row({**row, "antecedents": ["a", ""]}) is RowReason.EMPTY_TEXT
    assert ROWS[0].keys() == (f"text:{ROWS[0].text}", "template:winobias/the baker/the smith")
