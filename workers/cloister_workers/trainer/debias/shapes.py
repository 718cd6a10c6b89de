# SPDX-License-Identifier: Apache-2.0
"""The kinds of rows that several measures and mitigations share.

{"text": ...}                                                    text
{"text", "label", "groups": {axis: group}, "person", "template"} labelled; groups, person, template may be absent
{"kind": "pair", "axis", "first", "second", "template"}          two texts that differ in the group alone
{"prompt", "chosen", "rejected", "axis"}                         preference; axis may be absent
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from cloister_workers.messages import RowReason
from cloister_workers.trainer.debias.material import ROW_KINDS, RowType, row_kind
from cloister_workers.trainer.rows import checked_text, text_of


@row_kind("text")
@dataclass(frozen=True)
class Text:
    """A plain text, for language models and as neutral background."""

    text: str

    @classmethod
    def parse(cls, row: Mapping[str, object]) -> Self | RowReason:
        text = text_of(dict(row), "text")
        return text if isinstance(text, RowReason) else cls(text)

    def keys(self) -> tuple[str, ...]:
        return (f"text:{self.text}",)


@row_kind("labelled")
@dataclass(frozen=True)
class Labelled:
    """A text with its class and, where known, the groups of the person it speaks of."""

    text: str
    label: str
    groups: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Axis to group, for example {"gender": "female"}."""
    person: str = ""
    template: str = ""

    @classmethod
    def parse(cls, row: Mapping[str, object]) -> Self | RowReason:
        text = text_of(dict(row), "text")
        if isinstance(text, RowReason):
            return text
        label = _label(row)
        if isinstance(label, RowReason):
            return label
        groups = _groups(row.get("groups", {}))
        if isinstance(groups, RowReason):
            return groups
        person, template = row.get("person", ""), row.get("template", "")
        if not isinstance(person, str) or not isinstance(template, str):
            return RowReason.WRONG_TYPE
        return cls(text, label, groups, person, template)

    def keys(self) -> tuple[str, ...]:
        tied = (("person", self.person), ("template", self.template))
        return (f"text:{self.text}", *(f"{name}:{value}" for name, value in tied if value))


@row_kind("pair")
@dataclass(frozen=True)
class Pair:
    """Two texts that say the same of two groups of an axis."""

    axis: str
    first: str
    second: str
    template: str = ""

    @classmethod
    def parse(cls, row: Mapping[str, object]) -> Self | RowReason:
        values = [text_of(dict(row), key) for key in ("axis", "first", "second")]
        if problem := next((value for value in values if isinstance(value, RowReason)), None):
            return problem
        template = row.get("template", "")
        if not isinstance(template, str):
            return RowReason.WRONG_TYPE
        axis, first, second = values
        return cls(axis, first, second, template)

    def keys(self) -> tuple[str, ...]:
        tied = (f"template:{self.template}",) if self.template else ()
        return (f"text:{self.first}", f"text:{self.second}", *tied)


@row_kind("preference")
@dataclass(frozen=True)
class Preference:
    """A prompt with the completion to prefer and the one to avoid."""

    prompt: str
    chosen: str
    rejected: str
    axis: str = ""

    @classmethod
    def parse(cls, row: Mapping[str, object]) -> Self | RowReason:
        values = [text_of(dict(row), key) for key in ("prompt", "chosen", "rejected")]
        if problem := next((value for value in values if isinstance(value, RowReason)), None):
            return problem
        axis = row.get("axis", "")
        prompt, chosen, rejected = values
        return cls(prompt, chosen, rejected, axis) if isinstance(axis, str) else RowReason.WRONG_TYPE

    def keys(self) -> tuple[str, ...]:
        return (f"text:{self.prompt}",)


_BY_KEYS: tuple[tuple[frozenset[str], type[RowType]], ...] = (
    (frozenset({"prompt", "chosen", "rejected"}), Preference),
    (frozenset({"text", "label"}), Labelled),
    (frozenset({"text"}), Text),
)


def parse_row(row: Mapping[str, object]) -> RowType | RowReason:
    """A row by its `kind`, else by its keys."""
    if "kind" in row:
        kind = ROW_KINDS.get(row["kind"]) if isinstance(row["kind"], str) else None
        return RowReason.UNKNOWN_KIND if kind is None else kind.parse(row)
    for wanted, cls in _BY_KEYS:
        if wanted <= row.keys():
            return cls.parse(row)
    return RowReason.MISSING_KEY


def _label(row: Mapping[str, object]) -> str | RowReason:
    if "label" not in row:
        return RowReason.MISSING_KEY
    value = row["label"]
    return checked_text(str(value) if isinstance(value, int) and not isinstance(value, bool) else value)


def _groups(value: object) -> dict[str, str] | RowReason:
    if not isinstance(value, Mapping):
        return RowReason.WRONG_TYPE
    if not all(isinstance(key, str) and isinstance(group, str) and group for key, group in value.items()):
        return RowReason.WRONG_TYPE
    return dict(value)
