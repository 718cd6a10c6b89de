# SPDX-License-Identifier: Apache-2.0
"""The demo's screening notes: what the demo says of them holds, and every note can be swapped."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from cloister_workers.trainer.debias.dividing import Role
from cloister_workers.trainer.debias.lexicon.builtin import load_lexicon
from cloister_workers.trainer.debias.partition import divide_lexicons
from cloister_workers.trainer.debias.shapes import Labelled, parse_row
from cloister_workers.trainer.debias.swapping import Swapped, Swapper

MAKE = Path(__file__).parents[4] / "demo" / "screening" / "make.py"
ROLES = {"training": Role.FIT, "test": Role.TEST}


def made(folder: Path) -> dict[str, bytes]:
    subprocess.run([sys.executable, str(MAKE), str(folder)], check=True)
    return {name: (folder / f"{name}.jsonl").read_bytes() for name in ROLES}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return made(tmp_path_factory.mktemp("notes"))


@pytest.fixture(scope="module")
def rows(files):
    return {name: [parse_row(json.loads(line)) for line in content.splitlines()] for name, content in files.items()}


def test_the_notes_are_the_same_each_time(files, tmp_path):
    """Two runs write the same bytes, into a folder that need not be there."""
    assert made(tmp_path / "again") == files


def test_past_decisions_are_skewed_and_the_test_is_even(rows):
    """About 92 % of the training notes follow the gender; of the test notes each gender and decision has a quarter."""
    follows = [(row.groups["gender"] == "male") == (row.label == "interview") for row in rows["training"]]
    assert 0.89 < sum(follows) / len(follows) < 0.95
    cells = Counter((row.groups["gender"], row.label) for row in rows["test"])
    assert set(cells.values()) == {len(rows["test"]) // 4}


def test_the_files_share_no_text_and_no_person(rows):
    """All rows are labelled ones, each of its own person, and no text of one file is in the other."""
    every = [row for part in rows.values() for row in part]
    assert all(isinstance(row, Labelled) for row in every)
    assert len({row.person for row in every}) == len(every)
    assert not {row.text for row in rows["training"]} & {row.text for row in rows["test"]}


@pytest.mark.parametrize("name", list(ROLES))
def test_every_note_can_be_swapped_with_the_words_of_its_part(rows, name):
    """Nothing is left out of augmentation or of the flip rate, and swapping twice gives the note back."""
    lexicons = divide_lexicons({"gender": load_lexicon("gender", "en")})[ROLES[name]]
    swapper = Swapper(lexicons)
    for row in rows[name]:
        swapped = swapper.swap(row.text, "gender")
        assert isinstance(swapped, Swapped), row.text
        assert swapped.group_from == row.groups["gender"]
        back = swapper.swap(swapped.text, "gender")
        assert isinstance(back, Swapped)
        assert back.text == row.text
