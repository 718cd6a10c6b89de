# SPDX-License-Identifier: Apache-2.0
"""`cloister model`: base models and the results of jobs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloister.cli.bars import transfer
from cloister.cli.options import home_option, json_option, limit_option, open_client
from cloister.cli.output import moment, print_fields, print_message, print_messages, print_table, size, state_name
from cloister.cli.wraps import tell

if TYPE_CHECKING:
    from cloister.api.v1.models_pb2 import ModelVersion, Release
    from cloister.evidence.release import ReleaseRequest


@click.group()
def model() -> None:
    """Import base models; release and pull results."""


@model.command("import")
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--name", required=True, help="Name under which jobs refer to it.")
@click.option("--licence", required=True, help="Licence, for the record; for example Apache-2.0.")
@click.option("--source", required=True, help="Where it came from, for the record.")
@click.option("--pool", default="default", show_default=True, help="Pool of hosts that may open it.")
@click.option("--config-only", is_flag=True, help="It has no weights: jobs pre-train it from random ones.")
@json_option
@home_option
def import_(
    directory: Path,
    name: str,
    licence: str,
    source: str,
    pool: str,
    config_only: bool,
    as_json: bool,
    home: Path | None,
) -> None:
    """Seal and send the base model in DIRECTORY.

    Takes safetensors weights, configuration and tokenizer files; anything else is refused.
    """
    with open_client(home) as client, transfer("import") as progress:
        version = client.models.import_dir(
            directory, name, licence, source, pool=pool, weightless=config_only, progress=progress
        )
    if as_json:
        print_message(version)
    else:
        click.echo(version.id)


@model.command("try")
@click.argument("name_or_id")
@click.argument("texts", nargs=-1, metavar="[TEXT]...")
@click.option(
    "--task",
    type=click.Choice(["generate", "classify", "embed", "tag", "answer"]),
    default="generate",
    show_default=True,
)
@click.option(
    "--context",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="With --task answer: the text asked about.",
)
@click.option("--with", "auxiliary", metavar="MODEL", help="Encoder of a version with an index.")
@click.option("--purpose", help="[default: the only one that the version was made for]")
@click.option("--chat", is_flag=True, help="Show the model what was said before.")
@click.option("--max-new-tokens", type=click.IntRange(1, 8192), help="Longest answer.")
@click.option("--temperature", type=click.FloatRange(0, 10), help="Of sampling; 0 takes the likeliest token.")
@json_option
@home_option
def try_(  # noqa: PLR0913, PLR0917 - click passes each option by its name
    name_or_id: str,
    texts: tuple[str, ...],
    task: str,
    context: Path | None,
    auxiliary: str | None,
    purpose: str | None,
    chat: bool,
    max_new_tokens: int | None,
    temperature: float | None,
    as_json: bool,
    home: Path | None,
) -> None:
    """Ask a base model or a released version: TEXTs, or what you type until the end of input.

    Every question is sealed, answered by a worker in a sandbox, and its answer opened here; both are in the log.
    """
    from cloister.cli.trying import answer_all, read_context
    from cloister.trying import Question, purpose_of

    wanted = {"max_new_tokens": max_new_tokens, "temperature": temperature}
    settings = {name: value for name, value in wanted.items() if value is not None}
    with open_client(home) as client:
        question = Question(name_or_id, purpose or purpose_of(client, name_or_id), task, auxiliary or "", settings)
        about = read_context(context) if context else ""
        answer_all(client, question, texts, context=about, chat=chat, as_json=as_json)


@model.command("list")
@limit_option
@json_option
@home_option
def list_(limit: int | None, as_json: bool, home: Path | None) -> None:
    """List model versions, newest first."""
    with open_client(home) as client:
        found = list(client.models.list(limit))
    if as_json:
        print_messages(found)
        return
    header = ("ID", "NAME", "STATE", "BASE", "SIZE", "CREATED")
    print_table(header, [(v.id, v.name, _state(v), v.base, size(v.size), moment(v.created_at)) for v in found])


@model.command()
@click.argument("name_or_id")
@json_option
@home_option
def show(name_or_id: str, as_json: bool, home: Path | None) -> None:
    """Show one model version, by name (the newest) or id."""
    with open_client(home) as client:
        found = client.models.get(name_or_id)
        made_from = "" if as_json else client.models.made_from(found)
    if as_json:
        print_message(found)
        return
    from cloister.evidence.figures import VERDICT_METRIC, verdict_of

    dossier = found.dossier
    fields = [
        ("id", found.id),
        ("name", found.name),
        ("state", _state(found)),
        ("team", found.team),
        ("created", moment(found.created_at)),
        ("base", found.base),
        ("made from", made_from),
        ("sealed size", size(found.size)),
        ("licence", dossier.licence),
        ("source", dossier.source),
        ("job", dossier.job_id),
    ]
    fields += [(f"before {name}", f"{value:.6g}") for name, value in sorted(dossier.metrics_before.items())]
    after = {name: value for name, value in dossier.metrics_after.items() if name != VERDICT_METRIC}
    fields += [(f"after {name}", f"{value:.6g}") for name, value in sorted(after.items())]
    fields.append(("gate", verdict_of({name: str(value) for name, value in dossier.metrics_after.items()}) or ""))
    print_fields(fields)


@model.command()
@click.argument("name_or_id")
@click.option("--reason", required=True, help="Shown to the approvers and kept.")
@click.option("--recipient", help="Person of your team who may open it.  [default: you]")
@click.option("--exception", is_flag=True, help="Ask although the de-biasing gate was not passed; --reason says why.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait for the host's decision.")
@json_option
@home_option
def release(
    name_or_id: str,
    reason: str,
    recipient: str | None,
    exception: bool,
    wait: bool,
    as_json: bool,
    home: Path | None,
) -> None:
    """Ask that a job's result be sealed to a person.

    The result of a de-biasing job whose gate was not passed stays a candidate, unless an exception is asked for here
    and an approver signs for it, with a reason each.
    """
    with open_client(home) as client:
        made = client.models.release(name_or_id, recipient, reason=reason, exception=exception)
        if wait:
            made = client.models.wait_release(made.id)
    _print_release(made, as_json)


@model.command()
@click.argument("release_id")
@click.option("--reason", required=True, help="Kept with the model.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@home_option
def approve(release_id: str, reason: str, yes: bool, as_json: bool, home: Path | None) -> None:
    """Read somebody else's release request, then approve it."""
    with open_client(home) as client:
        request, digest = client.models.release_request(release_id)
        _show_request(request, digest)
        if not yes:
            what = "an EXCEPTION to the failed gate, and a release of" if request.exception else "an approval of"
            click.confirm(f"Sign {what} exactly this?", abort=True, err=True)
        made = client.models.approve(release_id, reason=reason, request_sha256=digest)
    _print_release(made, as_json)


@model.command()
@click.argument("name_or_id")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="New folder.")
@home_option
def pull(name_or_id: str, output: Path, home: Path | None) -> None:
    """Fetch, verify and open a version that was released to you.

    The folder appears whole or not at all, and loads with plain peft and transformers.
    """
    with open_client(home) as client, transfer("pull") as progress:
        click.echo(str(client.models.pull(name_or_id, output, progress)))


EXCEPTION = (
    "EXCEPTION: this version did not pass the gate of its de-biasing job.\n"
    "Approving it releases it all the same, under your name and reason. What was found: cloister job report"
)


@model.command()
@home_option
def rewrap(home: Path | None) -> None:
    """Wrap the adapted versions that were released to you to hosts that were certified later.

    A candidate is for the hosts that it was sealed to alone: release it first.  Run it again after an interruption.
    """
    with open_client(home) as client:
        done = list(client.grants.rewrap_released())
    tell(done)


def _show_request(request: ReleaseRequest, digest: str) -> None:
    if request.exception:
        click.echo(f"{EXCEPTION} {request.model_version}", err=True)
    shown = (
        ("requester", f"{request.requester} ({request.team})"),
        ("recipient", request.recipient),
        ("model", request.model_version),
        ("exception", "yes" if request.exception else "no"),
        ("reason", request.reason),
        ("result sha256", request.result_sha256),
        ("policy sha256", request.policy_sha256),
        ("request sha256", digest),
    )
    for name, value in shown:
        click.echo(f"{name:<15} {value}", err=True)


def _print_release(made: Release, as_json: bool) -> None:
    from cloister.api.v1.models_pb2 import ReleaseState

    if as_json:
        print_message(made)
        return
    state = state_name(ReleaseState.DESCRIPTOR, made.state)
    count = f"{len(made.approvals)} of {made.approvals_required}" if made.approvals_required else ""
    exception = "yes" if made.exception else ""
    fields = (("release", made.id), ("model", made.model_version), ("state", state), ("exception", exception))
    print_fields((*fields, ("approvals", count)))


def _state(found: ModelVersion) -> str:
    from cloister.api.v1.models_pb2 import ModelVersionState

    return state_name(ModelVersionState.DESCRIPTOR, found.state)
