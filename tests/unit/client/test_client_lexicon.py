# SPDX-License-Identifier: Apache-2.0
"""Word lists by group become rows, with and without a line that names the groups."""

from __future__ import annotations

import pytest

from cloister.formats.reading import Options
from foreign_files import LEXICON, refusal, rows_of

AXIS = Options(values={"axis": "gender"})


def test_lexicon(tmp_path):
    """A column a group; remarks are skipped, cells that an editor cut off are empty."""
    groups = ["male", "female", "neutral"]
    assert [
        {"kind": "swap", "axis": "gender", "groups": groups, "words": ["foreman", "forewoman", "lead"], "tag": "noun"},
        {"kind": "swap", "axis": "gender", "groups": groups, "words": ["manly", "womanly", ""], "tag": "adjective"},
    ] == rows_of(tmp_path, "w.tsv", LEXICON)
    (row,) = rows_of(tmp_path, "w.tsv", "male\tfemale\nuncle\taunt\n", options=AXIS)
    assert (["male", "female"], "noun") == (row["groups"], row["tag"])


SWAPS = "uncle \taunt \nCANARY\tb\n"


def named(groups):
    return Options(values={"axis": "gender", "groups": groups})


def test_a_lexicon_without_a_first_line_of_groups(tmp_path):
    """The option names the columns of a list that starts with its words, whatever its file is called."""
    rows = rows_of(tmp_path, "swaps.txt", SWAPS, "lexicon", named("male, female"))
    assert [(["male", "female"], ["uncle", "aunt"]), (["male", "female"], ["CANARY", "b"])] == [
        (row["groups"], row["words"]) for row in rows
    ]
    assert "line 1 (3 columns, --option has 2)" in refusal(
        tmp_path, "l.csv", "a,b,c\n", "lexicon", named("male,female")
    )


@pytest.mark.parametrize(("name", "text"), [("swaps.tsv", SWAPS + "aunt\tuncle\n"), ("swaps.txt", SWAPS)])
def test_words_are_not_taken_for_groups(tmp_path, name, text):
    """A first line whose words come back in another column, or that of a plain text file, is told with what to do."""
    message = refusal(tmp_path, name, text, "lexicon", AXIS)
    assert "does not name the groups" in message
    assert "say --option groups=male,female" in message


def test_pairs_that_stand_both_ways_are_told(tmp_path):
    """The second of two lines would put each word under the other's group; it is named and not sealed."""
    text = SWAPS + "aunt\tuncle\nb\tCANARY\n"
    assert "2 of 4 rows are bad: line 3 (words of an earlier line the other way round" in refusal(
        tmp_path, "swaps.txt", text, "lexicon", named("male,female")
    )
