# SPDX-License-Identifier: Apache-2.0
"""Messages of the contract for hypothesis, made from the descriptors: a new RPC or field is fuzzed by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

DEPTH = 3
"""Messages inside one another: deeper ones stay empty."""

_BITS = {
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
    # An open enum takes every number, those that the contract does not list too.
    FieldDescriptor.TYPE_ENUM: (-(2**31), 2**31 - 1),
}
_WORDS = ["", "\x00", "a", "../../etc/passwd", "%s'\"--", "\U0001f9ea", "-1", "\n", "0" * 19 + "/a"]

# Values of any field, as protobuf's own API takes them.
Value = Any


@dataclass(frozen=True)
class Change:
    """Set the field at a path; each step but the last leads into a message, of a list into its first."""

    path: tuple[FieldDescriptor, ...]
    value: Value

    def apply(self, message: Message) -> None:
        *way, last = self.path
        holder = message
        for field in way:
            inner = getattr(holder, field.name)
            holder = (inner[0] if len(inner) else inner.add()) if field.is_repeated else inner
        _put(holder, last, self.value)


def messages(kind: Descriptor, depth: int = DEPTH) -> st.SearchStrategy[Message]:
    """Any message of this kind."""
    fields = [st.tuples(st.just(field), values(field, depth)) for field in kind.fields]
    if not fields:
        return st.just(GetMessageClass(kind)())
    chosen = st.lists(st.one_of(fields), max_size=len(fields), unique_by=lambda pair: pair[0].name)
    return chosen.map(lambda pairs: _built(kind, pairs))


def changes(kind: Descriptor) -> st.SearchStrategy[list[Change]]:
    """A few changes of a good message of this kind."""
    places = [st.builds(Change, st.just(path), values(path[-1], DEPTH - len(path) + 1)) for path in paths(kind, DEPTH)]
    return st.lists(st.one_of(places), min_size=1, max_size=3) if places else st.just([])


def paths(kind: Descriptor, depth: int) -> Iterator[tuple[FieldDescriptor, ...]]:
    """Every field of a message and of the messages in it."""
    for field in kind.fields:
        yield (field,)
        if field.message_type is not None and depth > 1 and not _is_map(field):
            yield from ((field, *rest) for rest in paths(field.message_type, depth - 1))


def values(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Value]:
    """Any value of a field."""
    if _is_map(field):
        key, value = _inner(field).fields
        return st.dictionaries(_one(key, depth), _one(value, depth), max_size=3)
    one = _one(field, depth)
    return st.lists(one, max_size=3) if field.is_repeated else one


def _one(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Value]:
    if field.type in _BITS:
        low, high = _BITS[field.type]
        edges = [value for value in (low, -1, 0, 1, 2, high) if low <= value]
        return st.sampled_from(edges) | st.integers(low, high)
    makers: dict[int, Callable[[], st.SearchStrategy[Value]]] = {
        FieldDescriptor.TYPE_BOOL: st.booleans,
        FieldDescriptor.TYPE_DOUBLE: st.floats,
        FieldDescriptor.TYPE_STRING: lambda: st.sampled_from(_WORDS) | st.text(max_size=20) | _long("x"),
        FieldDescriptor.TYPE_BYTES: lambda: st.binary(max_size=40) | st.just(b"{}") | _long(b"["),
        FieldDescriptor.TYPE_MESSAGE: lambda: (
            messages(_inner(field), depth - 1) if depth > 0 else st.just(GetMessageClass(_inner(field))())
        ),
    }
    return makers[field.type]()


def _long(piece: str | bytes) -> st.SearchStrategy[str | bytes]:
    # Made late: hypothesis would write what a strategy holds into each of its messages.
    return st.integers(60_000, 70_000).map(lambda times: piece * times)


def _inner(field: FieldDescriptor) -> Descriptor:
    assert field.message_type is not None
    return field.message_type


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _built(kind: Descriptor, pairs: list[tuple[FieldDescriptor, Value]]) -> Message:
    message = GetMessageClass(kind)()
    for field, value in pairs:
        _put(message, field, value)
    return message


def _put(message: Message, field: FieldDescriptor, value: Value) -> None:
    message.ClearField(field.name)
    if _is_map(field):
        for key, item in value.items():
            if _inner(field).fields_by_name["value"].message_type is None:
                getattr(message, field.name)[key] = item
            else:
                getattr(message, field.name)[key].CopyFrom(item)
    elif field.is_repeated:
        getattr(message, field.name).extend(value)
    elif field.message_type is not None:
        getattr(message, field.name).CopyFrom(value)
    else:
        setattr(message, field.name, value)
