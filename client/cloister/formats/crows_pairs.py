# SPDX-License-Identifier: Apache-2.0
"""CrowS-Pairs (Nangia et al. 2020): a table of sentence pairs.

    ,sent_more,sent_less,stereo_antistereo,bias_type,...

`sent_more` stereotypes more, whatever the direction says.  The unnamed first column is the pair's id where there is
one, else its place among the pairs from 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from cloister.formats.reading import Bad, Entry, Format, Head, Options, Row, axis_of, filled, table_of

_COLUMNS = ("sent_more", "sent_less", "stereo_antistereo", "bias_type")
_DIRECTIONS = ("stereo", "antistereo")


def _fits(head: Head) -> bool:
    return set(_COLUMNS) <= set(head.columns)


def _read(path: Path, _options: Options) -> Iterator[Entry]:
    for number, (line, record) in enumerate(table_of(path, wanted=_COLUMNS)):
        yield line, record if isinstance(record, Bad) else _row(record, number)


def _row(record: Mapping[str, str], number: int) -> Row | Bad:
    axis = axis_of(record["bias_type"])
    if isinstance(axis, Bad):
        return axis
    if record["stereo_antistereo"] not in _DIRECTIONS:
        return Bad("stereo_antistereo is neither stereo nor antistereo")
    return filled(record, "sent_more", "sent_less") or {
        "kind": "crows_pairs",
        "id": record.get("", "") or str(number),
        "axis": axis,
        "more": record["sent_more"],
        "less": record["sent_less"],
        "direction": record["stereo_antistereo"],
    }


FORMAT = Format("crows_pairs", "CrowS-Pairs, CSV", _fits, _read)
