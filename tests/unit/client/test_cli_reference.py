# SPDX-License-Identifier: Apache-2.0
"""The reference pages say what the programs do."""

import re
from pathlib import Path

from cloister.api.v1 import jobs_pb2
from cloister.cli.reference import page
from cloister.spec import METHOD_DEFAULTS, RANGES, parse_spec, resolve

REFERENCE = Path(__file__).parents[3] / "docs" / "reference"


def test_command_line_page_is_up_to_date():
    """The page is what the commands' own help makes."""
    assert page() == (REFERENCE / "cli.md").read_text(encoding="utf-8")


def test_every_field_of_a_spec_is_documented():
    """Each field of the contract's specification has a row, and each range and default is the code's."""
    text = (REFERENCE / "spec.md").read_text(encoding="utf-8")
    rows = {row[0]: row[1:] for row in re.findall(r"^\| `(\w+)` \| ([^|]+?) \| ([^|]+?) \|", text, re.MULTILINE)}
    messages = (jobs_pb2.JobSpec, jobs_pb2.DataOptions, jobs_pb2.Hyperparameters, jobs_pb2.Lora)
    assert set() == {f.name for m in messages for f in m.DESCRIPTOR.fields} - set(rows)
    for name, (low, high) in RANGES.items():
        assert f"{low:.10g} to {high:.10g}" == rows[name][1], name
    for name in METHOD_DEFAULTS["classification"]:
        shown = " / ".join(_plain(METHOD_DEFAULTS[kind][name]) for kind in ("classification", "supervised"))
        assert shown == rows[name][0], name


def _plain(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def test_examples_are_good_specs():
    """Each YAML example of the page resolves."""
    text = (REFERENCE / "spec.md").read_text(encoding="utf-8")
    examples = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert examples
    for example in examples:
        resolve(parse_spec(example))
