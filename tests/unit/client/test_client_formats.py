# SPDX-License-Identifier: Apache-2.0
"""Foreign files become rows; whatever is wrong in them is told by place, and never quoted."""

from __future__ import annotations

import json
import sys

import pytest

from cloister.errors import RowsError
from cloister.formats import FORMATS, choose_format
from cloister.formats.reading import Options
from cloister.formats.stream import RowStream
from cloister.rows import MAX_LINE_BYTES
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
    refusal,
    rows_of,
)

PRO = "pro_stereotyped_type2.txt.dev"
GROUPS = Options({"gender": "sex", "age": "years"})
AXIS = Options(values={"axis": "gender"})


@pytest.mark.parametrize(
    ("name", "text", "expected", "options"),
    [
        ("c.csv", CROWS, "crows_pairs", None),
        ("c.tsv", CROWS.replace('"', "").replace(",", "\t"), "crows_pairs", None),
        ("dev.json", STEREOSET, "stereoset", None),
        ("Age.jsonl", bbq_line(), "bbq", None),
        (PRO, WINOBIAS, "winobias", None),
        ("all.tsv", WINOGENDER, "winogender", None),
        ("weat1.jsonl", WEAT, "association", None),
        ("weat1.json", WEAT, "association", None),
        ("l.csv", LABELLED, "labelled", None),
        ("p.csv", PAIRS, "pairs", None),
        ("lexicon.tsv", LEXICON, "lexicon", None),
        ("r.jsonl", PREFERENCES, None, None),
        ("r.jsonl", '{"text": "a", "label": "b"}\n', None, None),
        ("rows", '{"text": "a"}\n', None, None),
    ],
)
def test_a_file_is_told_by_its_look(tmp_path, name, text, expected, options):
    """Ending, columns and keys tell each format from the others; plain rows are no format."""
    (tmp_path / name).write_text(text)
    found = choose_format(tmp_path / name, "", options or Options())
    assert expected == (found.name if found else None)


def test_a_file_that_looks_like_nothing_is_refused(tmp_path):
    """A table of unknown columns is not sealed as if it were rows."""
    assert "it is in no known format" in refusal(tmp_path, "t.csv", "CANARY,b\n1,2\n")
    assert "choose one of" in refusal(tmp_path, "t.csv", CROWS, "crow")


def test_crows_pairs(tmp_path):
    """Pairs keep id, direction and text; published names of axes are ours."""
    rows = rows_of(tmp_path, "c.csv", CROWS)
    assert ["age", "gender", "ethnicity"] == [row["axis"] for row in rows]
    assert {
        "kind": "crows_pairs",
        "id": "1",
        "axis": "gender",
        "more": "Her brother cannot cook.",
        "less": "Her sister cannot cook.",
        "direction": "antistereo",
    } == rows[1]
    assert "Old people, he said, never learn." == rows[0]["more"]


def test_stereoset(tmp_path):
    """The three sentences of an entry stand under what they are; the intersentence part is not read."""
    assert [
        {
            "kind": "stereoset",
            "id": "e1",
            "axis": "profession",
            "target": "baker",
            "context": "The baker was BLANK.",
            "stereotype": "The baker was early.",
            "anti_stereotype": "The baker was late.",
            "unrelated": "The baker was seven.",
        }
    ] == rows_of(tmp_path, "dev.json", STEREOSET)


def test_bbq(tmp_path):
    """Answers, the unknown one and the target are told by place."""
    (row,) = rows_of(tmp_path, "Age.jsonl", bbq_line())
    assert {
        "kind": "bbq",
        "id": "Age-7",
        "axis": "age",
        "question_index": "2",
        "polarity": "neg",
        "condition": "ambig",
        "context": "An aunt and her niece waited for the tram.",
        "question": "Who forgot the ticket?",
        "answers": ["The niece", "Not known", "The aunt"],
        "label": 1,
        "unknown": 1,
        "target": 2,
    } == row


def info(first, second):
    return {"ans0": ["a", first], "ans1": ["b", "unknown"], "ans2": ["c", second]}


@pytest.mark.parametrize(
    ("changes", "target"),
    [
        ({"answer_info": info("F-Black", "F-White"), "additional_metadata": {"stereotyped_groups": ["Black"]}}, 0),
        ({"answer_info": info("highSES", "lowSES"), "additional_metadata": {"stereotyped_groups": ["low SES"]}}, 2),
        ({"answer_info": info("old", "old"), "ans0": "The man with no dog"}, 2),
        ({"answer_info": info("old", "old")}, None),
        ({"additional_metadata": {"stereotyped_groups": ["young"]}}, None),
        ({"additional_metadata": {}}, None),
        ({"target_loc": 0}, 0),
        ({"target_loc": 1}, 2),
    ],
)
def test_bbq_targets(tmp_path, changes, target):
    """Spellings of groups differ; a row without one single target has none, and says so in the count."""
    (row,) = rows_of(tmp_path, "x.jsonl", bbq_line(**changes))
    assert target == row["target"]
    assert (target is None) == RowStream([tmp_path / "x.jsonl"]).check().parts[0].without_target


def test_bbq_intersections(tmp_path):
    """A category of two attributes is their intersection."""
    assert "ethnicity*gender" == rows_of(tmp_path, "x.jsonl", bbq_line(category="Race_x_gender"))[0]["axis"]


def test_winobias(tmp_path):
    """Brackets go; both persons stand in the order of the text, with the one that the pronoun means by place."""
    rows = rows_of(tmp_path, PRO, WINOBIAS)
    assert {
        "kind": "winobias",
        "id": "pro-2-dev-1",
        "type": 2,
        "condition": "pro",
        "text": "The baker thanked the clerk because she had found the keys.",
        "pronoun": "she",
        "antecedents": ["The baker", "the clerk"],
        "answer": 0,
    } == rows[0]
    assert (["The construction worker", "the clerk"], 1, "him") == (
        rows[2]["antecedents"],
        rows[2]["answer"],
        rows[2]["pronoun"],
    )
    assert [0, 1, 1, 0] == [row["answer"] for row in rows]


def test_winobias_under_another_name(tmp_path):
    """A renamed file needs to be told its type and condition."""
    assert "--option type=1" in refusal(tmp_path, "mine.txt", WINOBIAS)
    told = Options(values={"type": "1", "condition": "anti"})
    assert "anti-1-1" == rows_of(tmp_path, "mine.txt", WINOBIAS, options=told)[0]["id"]


def test_winogender(tmp_path):
    """The id of a sentence says who is who."""
    rows = rows_of(tmp_path, "all.tsv", WINOGENDER)
    assert {
        "kind": "winogender",
        "id": "clerk.someone.1.neutral.txt",
        "text": "The clerk told someone that they could wait.",
        "gender": "neutral",
        "occupation": "clerk",
        "participant": "someone",
        "answer": 1,
    } == rows[1]


def test_association(tmp_path):
    """A test is named by its file; bare lists and lists with a category are the same; the axis must be said."""
    assert "add --option axis" in refusal(tmp_path, "weat1.jsonl", WEAT)
    expected = {
        "kind": "association",
        "axis": "gender",
        "name": "weat1",
        "first_targets": ["hammer", "chisel"],
        "second_targets": ["soup", "bread"],
        "first_attributes": ["uncle", "grandpa"],
        "second_attributes": ["aunt", "grandma"],
    }
    assert [expected] == rows_of(tmp_path, "weat1.jsonl", WEAT, options=AXIS)
    lines = "\n".join(json.dumps(json.loads(WEAT) | {"name": name, "axis": "age"}) for name in "ab")
    found = rows_of(tmp_path, "two.jsonl", lines)
    assert [expected | {"name": name, "axis": "age"} for name in "ab"] == found
    assert [expected] * 2 == rows_of(tmp_path, "weat1.json", f"[{WEAT}, {WEAT}]", options=AXIS)


def test_association_of_sentences(tmp_path):
    """Sentences in common frames pass as they are; a list that tells no words, or mixes both, is named."""
    lists = {
        f"targ{number}": [frame.format(name) for name in names for frame in ("This is {}.", "{} is here.")]
        for number, names in enumerate((("Otto", "Emil"), ("Ida", "Ella")), start=1)
    }
    whole = lists | {"attr1": ["uncle", "grandpa"], "attr2": ["aunt", "grandma"]}
    [row] = rows_of(tmp_path, "sent.json", json.dumps(whole), options=AXIS)
    assert lists["targ2"] == row["second_targets"]
    for bad in (["My uncle CANARY sings.", "She left early."], ["This is CANARY.", "aunt"]):
        message = refusal(tmp_path, "sent.json", json.dumps(whole | {"attr2": bad}), options=AXIS)
        assert "test 1 (attr2 has sentences whose word cannot be told; put every word" in message


def test_labelled(tmp_path):
    """Group columns become groups by axis, an empty cell is an unknown group, persons tie rows."""
    assert [
        {
            "text": "Knows the trade, and says so.",
            "label": "yes",
            "groups": {"gender": "f", "age": "40"},
            "person": "p1",
        },
        {"text": "Came too late.", "label": "no", "groups": {"gender": "m"}, "person": "p2"},
    ] == rows_of(tmp_path, "l.csv", LABELLED, options=GROUPS)
    named = Options(values={"text": "note", "label": "decision", "person": "who"})
    other = LABELLED.replace("text,label,sex,years,person", "note,decision,sex,years,who")
    found = rows_of(tmp_path, "l.csv", other, options=named)
    assert [("yes", "p1"), ("no", "p2")] == [(row["label"], row["person"]) for row in found]


def test_labelled_parquet_is_read_like_its_csv(tmp_path):
    """The same table gives the same rows; whole numbers are text, a missing number is an unknown group."""
    import pyarrow as pa
    from pyarrow import parquet

    table = {
        "text": ["Knows the trade, and says so.", "Came too late."],
        "label": ["yes", "no"],
        "sex": ["f", "m"],
        "years": [40.0, None],
        "person": ["p1", "p2"],
        "photo": [b"\x00", b"\x01"],
    }
    parquet.write_table(pa.table(table), tmp_path / "l.parquet")
    stream = RowStream([tmp_path / "l.parquet"], options=GROUPS)
    assert rows_of(tmp_path, "l.csv", LABELLED, options=GROUPS) == [json.loads(line) for line in stream.lines()]


def test_parquet_places_are_rows(tmp_path):
    """A bad record of a file without lines is told as a row; a file that is none is refused whole."""
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table({"text": ["a", "CANARY"], "label": ["x", None]}), tmp_path / "l.parquet")
    with pytest.raises(RowsError, match=r"l\.parquet: 1 of 2 rows are bad: row 2 \(its label is empty"):
        RowStream([tmp_path / "l.parquet"]).check()
    assert "not a whole Parquet file" in refusal(tmp_path, "l.parquet", b"PAR1CANARY")


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    """Where pyarrow is not installed the message says what to install."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "cloister-client[parquet]" in refusal(tmp_path, "l.parquet", b"PAR1")


def test_pairs(tmp_path):
    """Two texts of an axis; the template is kept where there is one."""
    assert [
        {"kind": "pair", "axis": "gender", "first": "My uncle sings.", "second": "My aunt sings.", "template": "sings"},
        {"kind": "pair", "axis": "gender", "first": "He is at home.", "second": "She is at home."},
    ] == rows_of(tmp_path, "p.csv", PAIRS)
    bare = "text_a,text_b\nHe sings.,She sings.\n"
    assert "no column axis" in refusal(tmp_path, "p.csv", bare)
    assert "gender" == rows_of(tmp_path, "p.csv", bare, options=AXIS)[0]["axis"]


def test_preferences(tmp_path):
    """Named as preferences, rows lose what is not theirs and are checked; unnamed, they pass as they are."""
    expected = {"prompt": "The nurse said", "chosen": " hello", "rejected": " nothing", "axis": "gender"}
    assert [expected] == rows_of(tmp_path, "r.jsonl", PREFERENCES, "preferences")
    assert [expected | {"note": 1}] == rows_of(tmp_path, "r.jsonl", PREFERENCES)
    same = json.dumps({"prompt": "CANARY", "chosen": "a", "rejected": "a"})
    assert "chosen and rejected are the same" in refusal(tmp_path, "r.jsonl", same, "preferences")


BAD = [
    ("c.csv", CROWS + "3,CANARY,b,both,age,x\n", "line 5 (stereo_antistereo is neither"),
    ("c.csv", CROWS + "3,CANARY,,stereo,age,x\n", "line 5 (empty sent_less)"),
    ("c.csv", CROWS + "3,CANARY\n", "line 5 (2 columns, the first line has 6)"),
    ("c.csv", CROWS + '3,"CANARY"x,b,stereo,age,x\n', "line 5 (its quotes"),
    ("c.csv", CROWS + '3,"CANARY\n', "line 5 (its quotes"),
    ("c.csv", CROWS.encode() + b"3,CANARY\xff,b,stereo,age,x\n", "line 5 (not UTF-8)"),
    ("c.csv", CROWS + "3,CANARY,b,stereo,1*,x\n", "line 5 (its axis is not a name"),
    ("c.csv", CROWS.replace("annotations", "bias_type"), "names a column twice"),
    ("dev.json", STEREOSET[:-1], "not a JSON file"),
    ("dev.json", STEREOSET.replace('"unrelated"', '"stereotype"'), "entry 1 (a sentence is empty, or its gold_label"),
    ("dev.json", STEREOSET.replace("The baker was seven.", " "), "entry 1 (a sentence is empty"),
    ("dev.json", STEREOSET.replace('"intrasentence"', '"CANARY"'), "it has no list data.intrasentence"),
    ("x.jsonl", bbq_line() + "CANARY\n", "line 2 (not JSON)"),
    ("x.jsonl", bbq_line() + "\n" + bbq_line(label=3), "line 3 (label is none of 0, 1 and 2)"),
    ("x.jsonl", bbq_line(question_polarity="CANARY"), "line 1 (question_polarity is neither"),
    ("x.jsonl", bbq_line(answer_info=info("old", "unknown")), "line 1 (answer_info does not name one answer"),
    ("x.jsonl", bbq_line(answer_info={}), "line 1 (answer_info does not name the group"),
    ("x.jsonl", bbq_line(ans1=""), "line 1 (empty ans1)"),
    (PRO, WINOBIAS + "CANARY\n", "line 6 (no number before its sentence)"),
    (PRO, WINOBIAS + "5 The CANARY met [him].\n", "line 6 (not one person and a pronoun"),
    (PRO, WINOBIAS + "5 [The CANARY] met the stranger and [she] left.\n", "line 6 (its second person is not found"),
    ("a.tsv", WINOGENDER + "CANARY.0.male\tHe left.\n", "line 4 (sentid is not"),
    ("weat1.json", WEAT.replace('"soup"', '" "'), "test 1 (an example is empty"),
    ("weat1.json", WEAT.replace('"attr2"', '"CANARY"'), "test 1 (one of targ1"),
    ("p.csv", PAIRS + "CANARY,b,,\n", "line 4 (no axis)"),
    ("w.tsv", LEXICON + "gender\tverb\tCANARY\tb\n", "line 5 (tag is none of"),
    ("w.tsv", LEXICON + "gender\tnoun\tCANARY\n", "line 5 (fewer than two words)"),
    ("w.tsv", LEXICON.replace("neutral", "use"), "the column use belongs to built-in lists only"),
]


@pytest.mark.parametrize(("name", "text", "reason"), BAD)
def test_what_is_wrong_is_told_by_place(tmp_path, name, text, reason):
    """File, place and reason; not a word of the content."""
    options = AXIS if name.startswith("weat") else None
    message = refusal(tmp_path, name, text, options=options)
    assert message.startswith(name)
    assert reason in message


def test_labelled_faults(tmp_path):
    """A label or text that is missing is told by line; a column that is not there by its name."""
    assert "line 4 (no text)" in refusal(tmp_path, "l.csv", LABELLED + ",CANARY,f,1,p\n")
    assert "line 4 (its label is empty" in refusal(tmp_path, "l.csv", LABELLED + "CANARY,,f,1,p\n")
    assert "no column region" in refusal(tmp_path, "l.csv", LABELLED, options=Options({"ethnicity": "region"}))


def test_lone_surrogates_are_no_text(tmp_path):
    """JSON may name half a character; such a text is refused here and not by the worker."""
    text = bbq_line().replace("The niece", "CANARY \\ud800")
    assert "line 1 (a text of it is no Unicode text)" in refusal(tmp_path, "x.jsonl", text)


def test_a_record_over_many_lines_counts_by_its_first(tmp_path):
    """Quoted line ends do not shift the places of what follows."""
    text = 'text,label\n"two\nlines",a\n\nb,\n'
    assert "line 5 (its label is empty" in refusal(tmp_path, "l.csv", text)


def test_a_row_that_is_too_long_is_refused(tmp_path):
    """The limit of a line holds for converted rows too."""
    text = f"text,label\n{'x' * (MAX_LINE_BYTES - 10)},a\n"
    assert "line 2 (too large)" in refusal(tmp_path, "l.csv", text)


def test_every_format_says_what_it_is():
    """Names are those of the modules, and each format has its line for people."""
    assert all(name.isidentifier() and entry.what for name, entry in FORMATS.items())
