# SPDX-License-Identifier: Apache-2.0
"""`cloister tune`: the common job without a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloister.cli.options import home_option, json_option, open_client, rows_option
from cloister.cli.output import print_note

if TYPE_CHECKING:
    from cloister.client import Client

METHOD_HELP = (
    "What is done: a method of docs/reference/spec.md, or the name by which it is known elsewhere: sft, classify, ner, "
    "qa, cpt, pretrain, dpo, ipo, orpo, simpo, kto, grpo, rloo, distill, embed, rag, icl."
)


@click.command()
@click.option("--base", required=True, metavar="MODEL", help="Base model or version to start from.")
@click.option("--data", required=True, metavar="DATASET", help="Rows to learn from.")
@click.option("--method", required=True, help=METHOD_HELP)
@click.option("--eval", "evaluation", metavar="DATASET", help="Rows to measure on, before and after.")
@click.option("--replay", metavar="DATASET", help="Earlier rows to mix in, on which forgetting is measured.")
@click.option("--with", "auxiliary", metavar="MODEL", help="Second model: teacher, reward model or encoder.")
@click.option("--name", metavar="NAME", help="Of the new model.")
@click.option("--purpose", help="[default: the only one that the dataset allows]")
@click.option("--full", "adapter", flag_value="full", help="Train every weight, not an adapter.")
@click.option("--head", "adapter", flag_value="head", help="Train the task's own head alone.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="For example n_epochs=2 or lora.rank=16.")
@click.option("--watch", "follow", is_flag=True, help="Watch it to its end.")
@click.option("--dry-run", is_flag=True, help="Show what would be signed and what it takes; sign nothing.")
@rows_option
@json_option
@home_option
def tune(  # noqa: PLR0913, PLR0917 - click passes each option by its name
    base: str,
    data: str,
    method: str,
    evaluation: str | None,
    replay: str | None,
    auxiliary: str | None,
    name: str | None,
    purpose: str | None,
    adapter: str | None,
    settings: tuple[str, ...],
    follow: bool,
    dry_run: bool,
    rows: tuple[Path, ...],
    as_json: bool,
    home: Path | None,
) -> None:
    """Adapt a model with one command: check, sign and queue the job that a specification would describe.

    Defaults are those of docs/reference/spec.md and are spelled out in what is signed.
    """
    from cloister.cli.job import started
    from cloister.tuning import Wish, spec_of

    pairs = [entry.partition("=") for entry in settings]
    if any(not equals for _, equals, _ in pairs):
        raise click.UsageError("--set takes NAME=VALUE, for example --set n_epochs=2")
    with open_client(home) as client:
        spec = spec_of(
            Wish(
                base=base,
                data=data,
                method=method,
                purpose=purpose or _only_purpose(client, data),
                evaluation=evaluation or "",
                replay=replay or "",
                auxiliary=auxiliary or "",
                name=name or "",
                adapter=adapter or "",
                settings={key: value for key, _, value in pairs},
            )
        )
        if dry_run or rows:
            from cloister.cli.planning import print_plan

            print_plan(client.jobs.dry_run(spec), rows, as_json=as_json)
            return
        started(client, client.jobs.submit(spec, remark=print_note), follow, as_json)


def _only_purpose(client: Client, dataset: str) -> str:
    purposes = client.datasets.verified(dataset).manifest.purposes
    if len(purposes) != 1:
        raise click.UsageError(f"dataset {dataset} allows {', '.join(purposes)}: name one with --purpose")
    return purposes[0]
