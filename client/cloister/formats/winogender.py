# SPDX-License-Identifier: Apache-2.0
"""Winogender schemas (Rudinger et al. 2018): a table of sentence ids and sentences, with tabs.

    sentid                               sentence
    clerk.customer.1.female.txt          The clerk told the customer that she could pay later.

The id says occupation, other person, which of both the pronoun means (0 the occupation, 1 the other), and its gender.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from cloister.formats.reading import Bad, Entry, Format, Head, Options, Row, filled, table_of

_COLUMNS = ("sentid", "sentence")
_GENDERS = ("male", "female", "neutral")
_ANSWERS = {"0": 0, "1": 1}


def _fits(head: Head) -> bool:
    return set(_COLUMNS) <= set(head.columns)


def _read(path: Path, _options: Options) -> Iterator[Entry]:
    for line, record in table_of(path, wanted=_COLUMNS):
        yield line, record if isinstance(record, Bad) else _row(record)


def _row(record: Mapping[str, str]) -> Row | Bad:
    parts = record["sentid"].removesuffix(".txt").split(".")
    if len(parts) != 4 or not all(parts) or parts[2] not in _ANSWERS or parts[3] not in _GENDERS:
        return Bad("sentid is not occupation.person.0-or-1.gender")
    occupation, participant, answer, gender = parts
    return filled(record, "sentence") or {
        "kind": "winogender",
        "id": record["sentid"],
        "text": record["sentence"],
        "gender": gender,
        "occupation": occupation,
        "participant": participant,
        "answer": _ANSWERS[answer],
    }


FORMAT = Format("winogender", "Winogender schemas, TSV", _fits, _read)
