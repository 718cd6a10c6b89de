# SPDX-License-Identifier: Apache-2.0
"""Rows at hand, checked against the job that is to learn from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from google.protobuf import json_format

from cloister.dry_run import DryRun
from cloister.errors import UsageError
from cloister.formats.shapes import check_of
from cloister.formats.stream import RowStream, StreamSummary
from cloister.spec import method_of


def check_rows_for(run: DryRun, files: Sequence[str | Path]) -> StreamSummary:
    """Check that files hold the very rows that a job will read, of the form that its method asks for.

    Raises RowsError with the numbers of bad rows, UsageError where they are not the rows of the dataset.
    """
    method, chosen = method_of(run.spec)
    settings = json_format.MessageToDict(chosen, preserving_proto_field_name=True)
    found = RowStream(files, check=check_of(method, settings)).check()
    role = "training" if "training" in run.data else "evaluation"
    dataset = run.data[role]
    if (found.rows, found.size) != (dataset.trailer.rows, dataset.trailer.plaintext_size):
        name, rows = dataset.manifest.name, dataset.trailer.rows
        raise UsageError(f"--rows: {found.rows} rows are not those of {name}, which has {rows}; name what was pushed")
    return found
