# SPDX-License-Identifier: Apache-2.0
"""docs/reference/programs.md: the programs of servers and workers, with every command and option."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial

import click

from cloister_audit.__main__ import main as audit
from cloister_dev.__main__ import main as dev
from cloister_server.__main__ import parser as server
from cloister_workers.__main__ import parser as worker

INTRODUCTION = """# Programs of the site

This page is made from the programs' own help: `make reference`. What members and custodians run is on
[the page of the command line](cli.md).
"""
WIDTH = 100


def page() -> str:
    """The whole page."""
    sections = (
        *_of_parser(server()),
        *_of_parser(worker()),
        *_of_command(audit, "cloister-audit", None),
        *_of_command(dev, "cloister-dev", None),
    )
    return INTRODUCTION + "".join(sections)


def _of_parser(parser: argparse.ArgumentParser) -> Iterator[str]:
    parser.formatter_class = partial(argparse.HelpFormatter, width=WIDTH)
    yield _section(parser.prog, parser.format_help())
    for action in parser._actions:  # noqa: SLF001 - argparse tells its commands nowhere else
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for command in action.choices.values():
                yield from _of_parser(command)


def _of_command(command: click.Command, name: str, parent: click.Context | None) -> Iterator[str]:
    context = click.Context(command, info_name=name, parent=parent, terminal_width=WIDTH)
    yield _section(context.command_path, command.get_help(context))
    if isinstance(command, click.Group):
        for inner in command.list_commands(context):
            found = command.get_command(context, inner)
            if found is not None:
                yield from _of_command(found, inner, context)


def _section(name: str, text: str) -> str:
    depth = "###" if " " in name else "##"
    return f"\n{depth} {name}\n\n```text\n{text.rstrip()}\n```\n"
