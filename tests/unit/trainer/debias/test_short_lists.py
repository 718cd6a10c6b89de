# SPDX-License-Identifier: Apache-2.0
"""Word lists under 25 words: what is measured on them stands in the report with their length."""

from __future__ import annotations

import io
import json

import torch

from cloister.gate import Gate
from cloister_workers.messages import DatasetRole, Report
from cloister_workers.trainer.bundle import read_bundle
from cloister_workers.trainer.debias.job import run_debias
from cloister_workers.trainer.debias.lexicon import load_lexicon
from cloister_workers.trainer.debias.lexicon.rows import Swap
from cloister_workers.trainer.debias.measures.association import AssociationTest
from cloister_workers.trainer.debias.partition import make_partition
from cloister_workers.trainer.debias.spec import parse_debias
from cloister_workers.trainer.debias.wordlists import short_lists
from cloister_workers.trainer.place import Workplace
from tiny_encoder import write_encoder

LONG = tuple(f"w{number}" for number in range(25))
OWN = AssociationTest("gender", "own", LONG, LONG[:24], LONG[:8], LONG)
SWAPS = [Swap("caste", ("one", "other"), (f"m{number}", f"f{number}")) for number in range(24)]


def test_short_lists_are_named_by_what_they_are():
    """Users' lists of an axis and of an association that have 24 words or fewer are counted; longer and built-in ones,
    and those of other axes, are not.
    """
    lexicons = {axis: load_lexicon(axis, "en") for axis in ("gender", "age", "ethnicity", "religion")}
    parts = make_partition([], [], [*SWAPS, OWN], lexicons, seed=1)
    found = [(entry.axis, entry.why.partition(" words")[0]) for entry in short_lists(parts, [*lexicons, "caste"])]
    assert [
        ("caste", "terms of group 1 has 24"),
        ("caste", "terms of group 2 has 24"),
        ("gender", "second targets of association row 1 has 24"),
        ("gender", "first attributes of association row 1 has 8"),
    ] == found
    assert () == short_lists(parts, ["age"])


def test_the_report_of_a_job_names_short_lists(tmp_path, recorder):
    """A job that measures an association of eight words a list says so on its page and in its data."""
    body = {
        "task": "sentence_encoder",
        "axes": ["gender"],
        "mitigation": {"name": "erasure", "options": {"eraser": "mean_difference"}},
        "measures": ["association"],
        "primary": ["association"],
        "utilities": ["similarity_structure"],
    }
    spec = parse_debias({"model": "m", "data": {"validation_fraction": 0.0}, "method": {"debias": body}})
    row: dict[str, object] = {"kind": "association", "axis": "gender", "name": "own"}
    row |= {"first_targets": [f"m{n}" for n in range(8)], "second_targets": [f"f{n}" for n in range(8)]}
    row |= {"first_attributes": [f"a{n}" for n in range(8)], "second_attributes": [f"b{n}" for n in range(8)]}
    place = Workplace(str(write_encoder(tmp_path / "encoder")), str(tmp_path), torch.device("cpu"), lambda: 0.0)
    inputs = {DatasetRole.EVALUATION: io.BytesIO(json.dumps(row).encode() + b"\n")}
    run_debias(spec, Gate(draws=50), inputs, place, recorder)
    kinds = [type(message) for message in recorder.messages if type(message).__name__ in {"Report", "Result"}]
    files = read_bundle(io.BytesIO(recorder.bundles[kinds.index(Report)]))
    named = [entry for entry in json.loads(files["report.json"])["not_measured"] if entry["name"] == "word lists"]
    assert 4 == len(named)
    assert {"gender"} == {entry["axis"] for entry in named}
    assert "first attributes of association row 1 has 8 words" in files["report.html"].decode()
