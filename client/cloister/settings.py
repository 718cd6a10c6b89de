# SPDX-License-Identifier: Apache-2.0
"""Defaults and ranges of a specification, read from the contract itself: the options of its fields in spec.proto.

`fill` and `check` know no method by its name, so a method that the contract gains needs no code here.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeAlias

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from cloister.api.v1 import spec_pb2
from cloister.errors import UsageError

if TYPE_CHECKING:
    from google._upb._message import Descriptor as UpbDescriptor
    from google._upb._message import FieldDescriptor as UpbField
    from google.protobuf.descriptor import Descriptor as PlainDescriptor

    Descriptor: TypeAlias = PlainDescriptor | UpbDescriptor
    Field: TypeAlias = FieldDescriptor | UpbField

Value: TypeAlias = float | int | str | bool

HYPERPARAMETERS = "hyperparameters"


def setting_of(field: Field) -> spec_pb2.Setting:
    """Default, range and words of a field; empty where the contract states none."""
    found: spec_pb2.Setting = field.GetOptions().Extensions[spec_pb2.setting]
    return found


def default_of(field: Field) -> Value | None:
    """What is filled in for an absent value; None where nothing is."""
    text = setting_of(field).default_value
    if not text:
        return None
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_DOUBLE:
            return float(text)
        case FieldDescriptor.CPPTYPE_BOOL:
            return text == "true"
        case FieldDescriptor.CPPTYPE_STRING:
            return text
    return int(text)


def defaults(descriptor: Descriptor) -> dict[str, Value]:
    """The defaults of a message by field, those of its training loop left out."""
    found = {field.name: default_of(field) for field in descriptor.fields}
    return {name: value for name, value in found.items() if value is not None}


def training_defaults(method: Descriptor) -> dict[str, Value]:
    """Hyper-parameters of a method: its own, then those that Hyperparameters states; empty where it trains nothing."""
    field = method.fields_by_name.get(HYPERPARAMETERS)
    if field is None:
        return {}
    own: spec_pb2.Hyperparameters = field.GetOptions().Extensions[spec_pb2.training]
    stated = defaults(spec_pb2.Hyperparameters.DESCRIPTOR)
    return {**stated, **{entry.name: value for entry, value in own.ListFields()}}


def fill(message: Message, values: dict[str, Value] | None = None) -> None:
    """Put the defaults of a message, or `values`, where it holds nothing."""
    for name, value in (defaults(message.DESCRIPTOR) if values is None else values).items():
        if not message.HasField(name):
            setattr(message, name, value)


def check(message: Message) -> None:
    """Raise UsageError, naming the field, for a number out of its range or a word that is none of those allowed."""
    for field, value in message.ListFields():
        setting = setting_of(field)
        if isinstance(value, str):
            if setting.choices and value not in setting.choices:
                raise UsageError(f"spec: {field.name} is none of {', '.join(setting.choices)}")
        elif isinstance(value, int | float) and setting.HasField("minimum"):
            low, high = setting.minimum, setting.maximum
            # A comparison with NaN is never true, so it is refused as well.
            if not low <= value <= high or not math.isfinite(value):
                raise UsageError(f"spec: {field.name} is {value}; give {low:.10g} to {high:.10g}")
