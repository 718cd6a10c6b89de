# SPDX-License-Identifier: Apache-2.0
"""Several files as one stream of rows."""

from __future__ import annotations

import pytest

from cloister.errors import RowsError, UsageError
from cloister.formats.reading import Options
from cloister.formats.stream import LineSource, RowStream
from foreign_files import CROWS, PAIRS


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (Options({"gender": "sex"}), "only labelled tables"),
        (Options(values={"axes": "gender"}), "--option axes: these files do not take it"),
        (Options(values={"axis": "Gender!"}), "not a name such as gender"),
    ],
)
def test_a_setting_that_no_file_takes_is_refused(tmp_path, options, reason):
    """What a user says must mean something for one of the files."""
    (tmp_path / "p.csv").write_text(PAIRS)
    with pytest.raises(UsageError, match=reason):
        RowStream([tmp_path / "p.csv"], options=options).check()


def test_several_files_are_one_dataset(tmp_path):
    """Rows come in the order of the files, whatever their formats; a mark at the start of a later file goes."""
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "a"}')
    (tmp_path / "b.csv").write_text(CROWS)
    (tmp_path / "c.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "c"}\n\n{"text": "d"}')
    stream = RowStream([tmp_path / name for name in ("a.jsonl", "b.csv", "c.jsonl")])
    summary = stream.check()
    lines = list(stream.lines())
    assert (6, [1, 3, 2]) == (summary.rows, [part.rows for part in summary.parts])
    assert b'\xef\xbb\xbf{"text": "a"}\n' == lines[0]
    assert [b'{"text": "c"}\n', b"\n", b'{"text": "d"}'] == lines[4:]
    assert sum(map(len, lines)) == summary.size
    assert {"age": 1, "gender": 1, "ethnicity": 1} == dict(summary.parts[1].axes)


def test_a_later_file_is_named_where_it_is_bad(tmp_path):
    """The message names the file at fault and the line within it."""
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "a"}\n')
    (tmp_path / "b.jsonl").write_bytes(b'{"text": "b"}\nCANARY\n')
    with pytest.raises(RowsError, match=r"^b\.jsonl: 1 of 2 rows are bad: line 2 \(not JSON\); mend them$"):
        RowStream([tmp_path / "a.jsonl", tmp_path / "b.jsonl"]).check()


@pytest.mark.parametrize("size", [1, 7, 1 << 16])
def test_lines_fill_any_buffer(size):
    """A byte source of lines gives every byte once, in order, in pieces of any size."""
    lines = [b"a\n", b"", b"long line\n" * 50, b"end"]
    source, found, buffer = LineSource(iter(lines)), bytearray(), bytearray(size)
    while count := source.readinto(buffer):
        found += buffer[:count]
    assert b"".join(lines) == bytes(found)
