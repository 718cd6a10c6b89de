# SPDX-License-Identifier: Apache-2.0
"""StereoSet: word and sentence scores against plain loops, means over terms by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from cloister_workers.messages import RowReason
from cloister_workers.trainer.debias.material import Material, Part
from cloister_workers.trainer.debias.measure import Items, Missing
from cloister_workers.trainer.debias.measures.stereoset import MEASURES, StereoSetRow, differing_spans
from cloister_workers.trainer.debias.shapes import parse_row
from cloister_workers.trainer.debias.subjects.causal import CausalSubject
from cloister_workers.trainer.debias.subjects.masked import MaskedSubject
from cloister_workers.trainer.debias.utilities.stereoset_lms import UTILITIES
from tiny_language_models import bert, byte_pairs, gpt2, whole_words

(MEASURE,) = MEASURES
(UTILITY,) = UTILITIES


def _row(number: int, target: str, words: tuple[str, str, str], axis: str = "gender") -> StereoSetRow:
    one, two, three = (f"my {target} is very {word} today." for word in words)
    return StereoSetRow(str(number), axis, target, one, two, three, f"my {target} is very BLANK today.")


ROWS = (
    _row(0, "mother", ("soft", "tough", "wooden")),
    _row(1, "mother", ("caring", "strong", "yellow")),
    _row(2, "mother", ("tender", "bossy", "round")),
    _row(3, "uncle", ("strong", "tender", "green")),
)
TEXTS = [text for row in ROWS for text in row.sentences()]


def _items(rows: tuple[StereoSetRow, ...] = ROWS) -> Items:
    found = MEASURE.items(Part(Material.from_rows(rows), {}), "gender")
    assert isinstance(found, Items)
    return found


def test_a_causal_model_is_asked_for_the_mean_of_the_sentence() -> None:
    """The sentence with the higher mean log-probability of a token wins, the first token given end-of-text."""
    tokenizer = byte_pairs(TEXTS)
    model = gpt2(tokenizer).eval()
    means = []
    for text in TEXTS:
        ids = tokenizer(text)["input_ids"]
        with torch.no_grad():
            first = model(torch.tensor([[tokenizer.eos_token_id]])).logits[0, -1].double().log_softmax(-1)
            later = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        values = [float(first[ids[0]]), *(float(later[place, token]) for place, token in enumerate(ids[1:]))]
        means.append(sum(values) / len(values))
    expected = [
        [float(a > b), (float(a > c) + float(b > c)) / 2, 1.0]
        for a, b, c in zip(means[::3], means[1::3], means[2::3], strict=True)
    ]
    subject = CausalSubject(model, tokenizer, torch.device("cpu"), lambda: None, batch_size=5)
    np.testing.assert_array_equal(MEASURE.score(subject, _items()), expected)


def _pieces_tokenizer():
    """A masked tokenizer in which `tender` and `caring` are two pieces and every other word is one."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = sorted({word for text in TEXTS for word in text.replace(".", " .").split()} - {"tender", "caring"})
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "ten", "##der", "car", "##ing", *words]
    tokenizer = Tokenizer(models.WordPiece({name: number for number, name in enumerate(names)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def test_a_masked_model_is_asked_for_the_word() -> None:
    """The mean probability of the word's pieces decides, each with the earlier ones shown and the later ones gone."""
    tokenizer = _pieces_tokenizer()
    model = bert(tokenizer).eval()

    def probability(front: str, pieces: list[str], back: str) -> float:
        found = []
        for number, piece in enumerate(pieces):
            tokens = ["[CLS]", *front.split(), *pieces[:number], "[MASK]", *back.split(), "[SEP]"]
            ids = torch.tensor([tokenizer.convert_tokens_to_ids(tokens)])
            with torch.no_grad():
                table = model(ids).logits[0, tokens.index("[MASK]")].double().softmax(-1)
            found.append(float(table[tokenizer.convert_tokens_to_ids(piece)]))
        return sum(found) / len(found)

    split = {"tender": ["ten", "##der"], "caring": ["car", "##ing"]}
    means = []
    for row in ROWS:
        for text in row.sentences():
            word = text.split()[4]
            means.append(probability(f"my {row.target} is very", split.get(word, [word]), "today ."))
    expected = [
        [float(a > b), (float(a > c) + float(b > c)) / 2, 1.0]
        for a, b, c in zip(means[::3], means[1::3], means[2::3], strict=True)
    ]
    subject = MaskedSubject(model, tokenizer, torch.device("cpu"), lambda: None, batch_size=5)
    np.testing.assert_array_equal(MEASURE.score(subject, _items()), expected)


def test_means_are_over_terms() -> None:
    """A term with three rows weighs as much as one with one row, in the score, in LMS and so in ICAT."""
    items = _items()
    scores = np.array([[1, 1.0, 1], [1, 0.5, 1], [0, 1.0, 1], [0, 0.5, 1]])
    ones = np.ones((1, 4))
    stereotype, language = 100 * (2 / 3 + 0) / 2, 100 * (2.5 / 3 + 0.5) / 2
    np.testing.assert_allclose(MEASURE.figure(items, scores, ones), [stereotype])
    parts = MEASURE.by_group(items, scores, ones)
    np.testing.assert_allclose(parts["language model score (LMS)"], [language])
    np.testing.assert_allclose(parts["idealised score (ICAT)"], [language * min(stereotype, 100 - stereotype) / 50])
    np.testing.assert_allclose(UTILITY.level(items, scores, ones), [language])


def test_a_term_drawn_twice_counts_twice() -> None:
    """The bootstrap draws terms, and a draw without any row has no figure."""
    items = _items()
    scores = np.array([[1, 1.0, 1], [1, 0.5, 1], [0, 1.0, 1], [0, 0.5, 1]])
    weights = np.array([[2.0, 2, 2, 1], [0, 0, 0, 3], [0, 0, 0, 0]])
    expected = [100 * (2 * 2 / 3 + 0) / 3, 0.0, math.nan]
    np.testing.assert_allclose(MEASURE.figure(items, scores, weights), expected)


def test_rows_that_do_not_count_are_left_out_and_said() -> None:
    """A row that could not be scored changes no mean; its share stands in the report."""
    items = _items()
    scores = np.array([[1, 1.0, 1], [1, 0.5, 1], [0, 0.0, 0], [0, 0.5, 1]])
    ones = np.ones((1, 4))
    np.testing.assert_allclose(MEASURE.figure(items, scores, ones), [100 * (1 + 0) / 2])
    assert MEASURE.by_group(items, scores, ones)["rows not counted, percent"][0] == pytest.approx(25)


def test_what_differs_is_found_in_whole_words() -> None:
    """Common letters of the words, punctuation and the sentence's end do not confuse it."""
    cases = [
        (("She is strong.", "She is stubborn.", "She is sand."), ["strong", "stubborn", "sand"]),
        (("Old men walk.", "Odd men walk.", "Oak men walk."), ["Old", "Odd", "Oak"]),
        (("He was (rude), again", "He was (rudely), again", "He was (blue), again"), ["rude", "rudely", "blue"]),
        (("all good men", "all hard-working men", "all purple men"), ["good", "hard-working", "purple"]),
    ]
    for sentences, words in cases:
        spans = differing_spans(sentences)
        assert [text[begin:end] for text, (begin, end) in zip(sentences, spans, strict=True)] == words


def test_sentences_without_a_difference_do_not_count() -> None:
    """Three times the same sentence asks the masked model nothing."""
    row = StereoSetRow("0", "gender", "mother", TEXTS[0], TEXTS[0], TEXTS[0])
    tokenizer = whole_words(TEXTS[0].replace(".", " .").split(), masked=True)
    subject = MaskedSubject(bert(tokenizer), tokenizer, torch.device("cpu"), lambda: None)
    np.testing.assert_array_equal(MEASURE.score(subject, _items((row,))), [[0.0, 0.0, 0.0]])


def test_the_utility_takes_all_axes() -> None:
    """Language model score is over every row; terms of the same name on two axes are two terms."""
    part = Part(Material.from_rows([*ROWS, _row(9, "mother", ("a", "b", "c"), axis="age")]), {})
    found = UTILITY.items(part)
    assert isinstance(found, Items)
    assert (len(found), len(set(found.clusters))) == (5, 3)
    after = np.array([[1, 0.5, 1]] * 5)
    before = np.array([[1, 1.0, 1]] * 5)
    np.testing.assert_allclose(UTILITY.loss(found, before, after, np.ones((1, 5))), [50.0])
    assert isinstance(UTILITY.items(Part(Material(), {})), Missing)
    assert isinstance(MEASURE.items(part, "religion"), Missing)


def test_rows_are_parsed_and_refused() -> None:
    """A row is read by its kind; the context may be absent, the sentences may not."""
    row = {
        "kind": "stereoset",
        "id": "a",
        "axis": "gender",
        "target": "Mother",
        "context": "She is BLANK.",
        "stereotype": "x",
        "anti_stereotype": "y",
        "unrelated": "z",
    }
    parsed = parse_row(row)
    assert isinstance(parsed, StereoSetRow)
    assert parsed.sentences() == ("x", "y", "z")
    assert parsed.keys()[-1] == "template:stereoset/gender/mother"
    assert isinstance(parse_row({key: value for key, value in row.items() if key != "context"}), StereoSetRow)
    assert parse_row({**row, "unrelated": 3}) is RowReason.WRONG_TYPE
    assert parse_row({key: value for key, value in row.items() if key != "target"}) is RowReason.MISSING_KEY


def test_items_laid_twice_change_nothing() -> None:
    """Scores before beside scores after, with one of each chosen by weight, give the figure of the chosen ones."""
    items = _items()
    before, after = np.array([[1, 1.0, 1], [1, 0.5, 1], [0, 1.0, 1], [0, 0.5, 1]]), np.array([[0, 0.5, 1.0]] * 4)
    chosen = np.array([1.0, 0, 1, 0])
    twice = Items(items.content * 2, items.clusters * 2)
    weights = np.concatenate([chosen, 1 - chosen])[None, :]
    mixed = np.where(chosen[:, None] > 0, before, after)
    np.testing.assert_allclose(
        MEASURE.figure(twice, np.concatenate([before, after]), weights), MEASURE.figure(items, mixed, np.ones((1, 4)))
    )
