# SPDX-License-Identifier: Apache-2.0
"""Options that say how files of rows are read."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from cloister.formats.stream import RowStream


@dataclass(frozen=True)
class Reading:
    """What the user said."""

    format_name: str
    groups: dict[str, str]
    options: dict[str, str]

    def stream(self, files: Sequence[Path]) -> RowStream:
        """The rows of the files.  Raises UsageError."""
        from cloister.formats.reading import Options
        from cloister.formats.stream import RowStream

        return RowStream(files, self.format_name, Options(self.groups, self.options))


def reading_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds --format, --group and --option; the command takes them as one argument `reading`."""

    @click.option("--format", "format_name", default="", help="Format of the files.  [default: told by their look]")
    @click.option("--group", "groups", multiple=True, metavar="AXIS=COLUMN", help="Group column of a labelled table.")
    @click.option("--option", "options", multiple=True, metavar="NAME=VALUE", help="Setting of a format, such as axis.")
    @functools.wraps(command)
    def wrapped(
        *arguments: Any,  # noqa: ANN401 - the command's own
        format_name: str,
        groups: tuple[str, ...],
        options: tuple[str, ...],
        **others: Any,  # noqa: ANN401
    ) -> None:
        reading = Reading(format_name, _pairs("--group", groups), _pairs("--option", options))
        command(*arguments, reading=reading, **others)

    return wrapped


def _pairs(option: str, values: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in values:
        name, equals, value = text.partition("=")
        if not (name and equals and value) or name in found:
            raise click.UsageError(f"{option} takes NAME=VALUE, each name once, not {text[:60]!r}")
        found[name] = value
    return found
