# SPDX-License-Identifier: Apache-2.0
"""What is printed: tables for people and the contract's JSON for programs, on standard output; notes on the other."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from google.protobuf.descriptor import EnumDescriptor
    from google.protobuf.message import Message
    from google.protobuf.timestamp_pb2 import Timestamp


def print_message(message: Message) -> None:
    """One object as JSON."""
    click.echo(json.dumps(_values(message), indent=2))


def print_messages(found: Iterable[Message]) -> None:
    """A JSON array."""
    click.echo(json.dumps([_values(message) for message in found], indent=2))


def print_json(value: object) -> None:
    """Any other JSON."""
    click.echo(json.dumps(value, indent=2))


def print_note(text: str) -> None:
    """What is worth knowing beside the result: on standard error."""
    click.echo(f"note: {text}", err=True)


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Left-aligned columns."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def print_fields(fields: Iterable[tuple[str, str]]) -> None:
    """One name and value per line; empty values are left out."""
    shown = [(name, value) for name, value in fields if value]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        click.echo(f"{name.ljust(width)}  {value}")


def state_name(descriptor: EnumDescriptor, value: int) -> str:
    """An enum value without its prefix, in lower case: JOB_STATE_RUNNING is "running"."""
    prefix = descriptor.values_by_number[0].name.removesuffix("UNSPECIFIED")
    known = descriptor.values_by_number.get(value)
    return f"state {value}" if known is None else known.name.removeprefix(prefix).lower().replace("_", " ")


def moment(timestamp: Timestamp) -> str:
    """UTC to the second; empty for none."""
    if not timestamp.seconds:
        return ""
    return datetime.fromtimestamp(timestamp.seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def size(count: int) -> str:
    """Bytes for people."""
    value, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def duration(seconds: float) -> str:
    """Seconds for people, to two figures."""
    value, unit = seconds, "s"
    for length, larger in ((60, "min"), (60, "h"), (24, "days")):
        if value < 2 * length:
            break
        value, unit = value / length, larger
    return f"{value:.2g} {unit}" if value < 100 else f"{value:.0f} {unit}"


def _values(message: Message) -> object:
    from google.protobuf import json_format

    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
