# SPDX-License-Identifier: Apache-2.0
"""Small files in the formats in which others publish their test sets; every sentence is made up here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cloister.errors import UsageError
from cloister.formats.reading import Options
from cloister.formats.stream import RowStream

CROWS = """\
,sent_more,sent_less,stereo_antistereo,bias_type,annotations
0,"Old people, he said, never learn.","Young people, he said, never learn.",stereo,age,x
1,Her brother cannot cook.,Her sister cannot cook.,antistereo,gender,x
2,The northern man was late.,The southern man was late.,stereo,race-color,x
"""
STEREOSET = json.dumps(
    {
        "version": "1.0",
        "data": {
            "intrasentence": [
                {
                    "id": "e1",
                    "target": "baker",
                    "bias_type": "profession",
                    "context": "The baker was BLANK.",
                    "sentences": [
                        {"sentence": "The baker was early.", "gold_label": "stereotype"},
                        {"sentence": "The baker was late.", "gold_label": "anti-stereotype"},
                        {"sentence": "The baker was seven.", "gold_label": "unrelated"},
                    ],
                },
            ],
            "intersentence": [{"id": "not read"}],
        },
    },
    indent=1,
)


def bbq_line(**changes: object) -> str:
    """One question of an aunt and her niece."""
    line = {
        "example_id": 7,
        "question_index": "2",
        "question_polarity": "neg",
        "context_condition": "ambig",
        "category": "Age",
        "answer_info": {"ans0": ["niece", "nonOld"], "ans1": ["not known", "unknown"], "ans2": ["aunt", "old"]},
        "additional_metadata": {"subcategory": "None", "stereotyped_groups": ["old"]},
        "context": "An aunt and her niece waited for the tram.",
        "question": "Who forgot the ticket?",
        "ans0": "The niece",
        "ans1": "Not known",
        "ans2": "The aunt",
        "label": 1,
    }
    return json.dumps(line | changes) + "\n"


WINOBIAS = """\
1 [The baker] thanked the clerk because [she] had found the keys.
2 The baker thanked [the clerk] because [he] had waited.

3 The construction worker met [the clerk] and gave [him] [his] lunch.
4 [The construction worker] called the clerk before [she] left.
"""
WINOGENDER = """\
sentid\tsentence
clerk.visitor.0.female.txt\tThe clerk told the visitor that she was new here.
clerk.someone.1.neutral.txt\tThe clerk told someone that they could wait.
"""
WEAT = json.dumps(
    {
        "targ1": {"category": "Tools", "examples": ["hammer", "chisel"]},
        "targ2": {"category": "Dishes", "examples": ["soup", "bread"]},
        "attr1": {"category": "A", "examples": ["uncle", "grandpa"]},
        "attr2": ["aunt", "grandma"],
    },
    indent=2,
)
LABELLED = """\
text,label,sex,years,person
"Knows the trade, and says so.",yes,f,40,p1
Came too late.,no,m,,p2
"""
PAIRS = """\
text_a,text_b,axis,template
My uncle sings.,My aunt sings.,gender,sings
He is at home.,She is at home.,Gender,
"""
PREFERENCES = '{"prompt": "The nurse said", "chosen": " hello", "rejected": " nothing", "axis": "gender", "note": 1}\n'
LEXICON = """\
# words of one workshop
axis\ttag\tmale\tfemale\tneutral
gender\tnoun\tforeman\tforewoman\tlead
gender\tadjective\tmanly\twomanly
"""


def rows_of(
    folder: Path, name: str, text: str | bytes, format_name: str = "", options: Options | None = None
) -> list[dict[str, Any]]:
    """What a file of this name and content is read as."""
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    stream = RowStream([path], format_name, options)
    assert stream.check().rows > 0
    return [json.loads(line) for line in stream.lines()]


def refusal(folder: Path, name: str, text: str | bytes, format_name: str = "", options: Options | None = None) -> str:
    """What is said of a file that is refused, which is never of what it says."""
    with pytest.raises(UsageError) as refused:
        rows_of(folder, name, text, format_name, options)
    message = str(refused.value)
    assert "CANARY" not in message
    return message
