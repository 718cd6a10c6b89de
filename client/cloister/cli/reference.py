# SPDX-License-Identifier: Apache-2.0
"""Makes docs/reference/cli.md from the commands themselves: `python -m cloister.cli.reference > FILE`."""

from __future__ import annotations

from collections.abc import Iterator

import click

from cloister.cli.exits import EXIT_CODES

INTRODUCTION = """# Command line

This page is made from the programs' own help: `python -m cloister.cli.reference > docs/reference/cli.md`.

Results go to stdout, progress and messages to stderr, and an error is one line `cloister: what; what to do`.
Every command that reads has `--json`: the JSON form of the contract's messages, with their field names.
A command that was interrupted is run again as it was: it continues where it stood.
With `CLOISTER_DEBUG=1` an unforeseen error shows where it happened.

## Exit codes

| code | meaning |
| --- | --- |
"""


def page() -> str:
    """The whole page."""
    from cloister.admin.main import cli as admin
    from cloister.cli.main import cli

    codes = "".join(f"| {code} | {meaning} |\n" for code, meaning in EXIT_CODES.items())
    sections = [*_sections(cli, "cloister", None), *_sections(admin, "cloister-admin", None)]
    return INTRODUCTION + codes + "".join(sections)


def _sections(command: click.Command, name: str, parent: click.Context | None) -> Iterator[str]:
    context = click.Context(
        command, info_name=name, parent=parent, terminal_width=100, help_option_names=["-h", "--help"]
    )
    depth = "##" if parent is None else "###"
    yield f"\n{depth} {context.command_path}\n\n```text\n{command.get_help(context).rstrip()}\n```\n"
    if isinstance(command, click.Group):
        for inner in command.list_commands(context):
            found = command.get_command(context, inner)
            if found is not None:
                yield from _sections(found, inner, context)


if __name__ == "__main__":
    click.echo(page(), nl=False)
