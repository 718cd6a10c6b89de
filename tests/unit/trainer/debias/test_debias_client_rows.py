# SPDX-License-Identifier: Apache-2.0
"""What the client's readers make of foreign files is what the trainer reads."""

from __future__ import annotations

import json

import pytest

from cloister.formats import FORMATS
from cloister.formats.reading import Options
from cloister.formats.stream import RowStream
from cloister_workers.messages import RowReason
from cloister_workers.trainer.debias.lexicon import rows
from cloister_workers.trainer.debias.material import ROW_KINDS
from cloister_workers.trainer.debias.registry import measures
from cloister_workers.trainer.debias.shapes import parse_row
from foreign_files import (
    CROWS,
    LABELLED,
    LEXICON,
    PAIRS,
    PREFERENCES,
    STEREOSET,
    WEAT,
    WINOBIAS,
    WINOGENDER,
    bbq_line,
)

AXIS = Options(values={"axis": "gender"})
FILES = {
    "crows_pairs": ("c.csv", CROWS, None),
    "stereoset": ("dev.json", STEREOSET, None),
    "bbq": ("Age.jsonl", bbq_line() + bbq_line(additional_metadata={}), None),
    "winobias": ("pro_stereotyped_type1.txt.dev", WINOBIAS, None),
    "winogender": ("all.tsv", WINOGENDER, None),
    "association": ("weat1.json", WEAT, AXIS),
    "labelled": ("l.csv", LABELLED, Options({"gender": "sex", "age": "years"})),
    "pairs": ("p.csv", PAIRS, None),
    "preferences": ("r.jsonl", PREFERENCES, None),
    "lexicon": ("w.tsv", LEXICON, None),
}

OF_TRAINING = {"alpaca", "sharegpt", "openai_preferences"}
"""Formats whose rows train and measure no bias: the tests of the methods read them."""


@pytest.mark.parametrize("name", sorted(set(FORMATS) - OF_TRAINING))
def test_rows_of_every_reader_are_read_by_the_trainer(tmp_path, name):
    """No row of a test set for bias is refused, and each is of the kind that the reader names."""
    assert measures()
    assert rows.Swap is ROW_KINDS["swap"]
    file, text, options = FILES[name]
    (tmp_path / file).write_text(text)
    for line in RowStream([tmp_path / file], name, options).lines():
        row = json.loads(line)
        found = parse_row(row)
        assert not isinstance(found, RowReason), found
        assert "kind" not in row or type(found) is ROW_KINDS[row["kind"]]
