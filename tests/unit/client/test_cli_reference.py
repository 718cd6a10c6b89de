# SPDX-License-Identifier: Apache-2.0
"""The reference pages say what the programs do."""

import re
from pathlib import Path
from typing import Any

import pytest

from cloister.api.v1 import spec_pb2
from cloister.cli.reference import page
from cloister.settings import default_of, defaults, setting_of, training_defaults
from cloister.spec import parse_spec, resolve

ROW = re.compile(r"^\| `(\w+)` \| ([^|]+?) \| ([^|]+?) \|", re.MULTILINE)
METHODS: dict[str, Any] = {f.name: f.message_type for f in spec_pb2.Method.DESCRIPTOR.fields if f.name != "debias"}
REFERENCE = Path(__file__).parents[3] / "docs" / "reference"


def test_command_line_page_is_up_to_date():
    """The page is what the commands' own help makes."""
    assert page() == (REFERENCE / "cli.md").read_text(encoding="utf-8")


def test_every_field_of_a_spec_is_documented():
    """Each field of the contract's specification has a row in the section of its message, which says its default and
    range as the contract states them.
    """
    text = (REFERENCE / "spec.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## (\S+)$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    messages: dict[str, Any] = {
        "Job": spec_pb2.JobSpec.DESCRIPTOR,
        "data": spec_pb2.DataOptions.DESCRIPTOR,
        "hyperparameters": spec_pb2.Hyperparameters.DESCRIPTOR,
        "adapter.lora": spec_pb2.Lora.DESCRIPTOR,
        **{f"method.{name}": message for name, message in METHODS.items()},
    }
    for title, message in messages.items():
        rows = {
            row[0]: row[1:]
            for row in re.findall(r"^\| `(\w+)` \| ([^|]+?) \| ([^|]+?) \|", sections[title], re.MULTILINE)
        }
        fields = [field for field in message.fields if field.name != "hyperparameters"]
        assert {field.name for field in fields} == set(rows), title
        for field in fields:
            assert not (default := default_of(field)) or _plain(default) in rows[field.name][0], field.full_name
            assert _range(field) in rows[field.name][1], field.full_name


@pytest.mark.parametrize("name", METHODS)
def test_defaults_of_training_are_documented(name):
    """The page names each hyper-parameter whose default is a method's own."""
    text = (REFERENCE / "spec.md").read_text(encoding="utf-8")
    stated = defaults(spec_pb2.Hyperparameters.DESCRIPTOR)
    own = {n: v for n, v in training_defaults(METHODS[name]).items() if v != stated[n]}
    section = text.split(f"## method.{name}\n")[1].split("\n## ")[0]
    assert [] == [key for key, value in own.items() if f"`{key}` {_plain(value)}" not in section]


def _plain(value: float | str) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else f"{value:g}"


def _range(field) -> str:
    setting = setting_of(field)
    if setting.HasField("minimum"):
        return f"{setting.minimum:.10g} to {setting.maximum:.10g}"
    return ", ".join(setting.choices)


def test_examples_are_good_specs():
    """Each YAML example of the page resolves."""
    text = (REFERENCE / "spec.md").read_text(encoding="utf-8")
    examples = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert examples
    for example in examples:
        resolve(parse_spec(example))
