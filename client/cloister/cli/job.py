# SPDX-License-Identifier: Apache-2.0
"""`cloister job`: fine-tuning jobs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloister.cli.forecast import starts_in, waiting_words
from cloister.cli.options import home_option, json_option, limit_option, open_client, rows_option
from cloister.cli.output import moment, print_fields, print_message, print_messages, print_note, print_table, state_name

if TYPE_CHECKING:
    from cloister.api.v1.jobs_pb2 import Job
    from cloister.client import Client


IDENTITY_HELP = "Open it with the identity in this file, for example the team's recovery key."


@click.group()
def job() -> None:
    """Submit, watch and look after jobs."""


@job.command()
@click.argument("spec", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--watch", "follow", is_flag=True, help="Watch it to its end.")
@click.option("--dry-run", is_flag=True, help="Show what would be signed and what it takes; sign nothing.")
@rows_option
@json_option
@home_option
def submit(spec: Path, follow: bool, dry_run: bool, rows: tuple[Path, ...], as_json: bool, home: Path | None) -> None:
    """Sign and queue the job of a SPEC (YAML).

    Every input is verified here first.  Keys and defaults: docs/reference/spec.md.
    """
    with open_client(home) as client:
        if dry_run or rows:
            from cloister.cli.planning import print_plan

            print_plan(client.jobs.dry_run(spec), rows, as_json=as_json)
            return
        started(client, client.jobs.submit(spec, remark=print_note), follow, as_json)


@job.command()
@click.argument("job_id")
@click.option("--set", "changes", multiple=True, metavar="FIELD=VALUE", help="For example seed=7; may be repeated.")
@click.option("--watch", "follow", is_flag=True, help="Watch it to its end.")
@json_option
@home_option
def clone(job_id: str, changes: tuple[str, ...], follow: bool, as_json: bool, home: Path | None) -> None:
    """Submit the specification of an earlier job again, with changes."""
    pairs = [change.partition("=") for change in changes]
    if any(not equals for _, equals, _ in pairs):
        raise click.UsageError("--set takes FIELD=VALUE, for example --set seed=7")
    with open_client(home) as client:
        made = client.jobs.clone(job_id, {name: value for name, _, value in pairs}, remark=print_note)
        started(client, made, follow, as_json)


@job.command("list")
@limit_option
@json_option
@home_option
def list_(limit: int | None, as_json: bool, home: Path | None) -> None:
    """List jobs, newest first."""
    with open_client(home) as client:
        found = list(client.jobs.list(limit))
    if as_json:
        print_messages(found)
        return
    rows = [
        (j.id, _state(j), j.owner, _progress(j), str(j.jobs_ahead or ""), starts_in(j), moment(j.created_at))
        for j in found
    ]
    print_table(("ID", "STATE", "OWNER", "PROGRESS", "AHEAD", "STARTS", "CREATED"), rows)


@job.command()
@click.argument("job_id")
@click.option("--curve", is_flag=True, help="Draw the loss of training.")
@json_option
@home_option
def show(job_id: str, curve: bool, as_json: bool, home: Path | None) -> None:
    """Show one job."""
    with open_client(home) as client:
        found = client.jobs.get(job_id)
        if curve:
            from cloister.cli.reporting import print_curve

            print_curve(client, job_id)
            return
    if as_json:
        print_message(found)
        return
    from cloister.cli.watching import error_words

    fields = [
        ("id", found.id),
        ("state", _state(found)),
        ("reason", found.state_reason),
        ("owner", f"{found.owner} ({found.team})"),
        ("model", found.model),
        ("training", found.training_dataset),
        ("replay", found.replay_dataset),
        ("second model", found.auxiliary_model),
        ("result", found.fine_tuned_model),
        ("attempt", str(found.attempt)),
        ("progress", _progress(found)),
        ("created", moment(found.created_at)),
        ("waiting", waiting_words(found)),
        ("forecast start", moment(found.forecast_start)),
        ("started", moment(found.started_at)),
        ("finished", moment(found.finished_at)),
        ("expected end", moment(found.estimated_finish)),
        ("spec digest", found.spec_digest),
        ("error", error_words(found)),
        *((f"step {step.name}", step.status) for step in found.steps),
    ]
    print_fields(fields + [(name, f"{value:.6g}") for name, value in sorted(found.metrics.items()) if "." not in name])


@job.command()
@click.argument("job_ids", nargs=-1, required=True, metavar="JOB_ID...")
@json_option
@home_option
def compare(job_ids: tuple[str, ...], as_json: bool, home: Path | None) -> None:
    """Show jobs side by side: what was measured, and what was asked for differently."""
    from cloister.cli.comparing import print_comparison

    with open_client(home) as client:
        print_comparison(client, job_ids, as_json=as_json)


@job.command()
@click.argument("job_id")
@click.option("--after", default=0, show_default=True, help="Only events after this number.")
@json_option
@home_option
def watch(job_id: str, after: int, as_json: bool, home: Path | None) -> None:
    """Watch a job to its end; interrupting this does not stop the job."""
    with open_client(home) as client:
        _watch(client, job_id, after, as_json)


@job.command()
@click.argument("job_id")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="New folder.  [default: report-JOB]")
@click.option("--numeric", is_flag=True, help="Only the figures, without names: what auditors read.")
@click.option("--identity", type=click.Path(exists=True, dir_okay=False, path_type=Path), help=IDENTITY_HELP)
@click.option("--open", "show_page", is_flag=True, help="Show the page in a browser.")
@json_option
@home_option
def report(
    job_id: str,
    output: Path | None,
    numeric: bool,
    identity: Path | None,
    show_page: bool,
    as_json: bool,
    home: Path | None,
) -> None:
    """Read what a job found.

    Writes the report, a page and its data or the answers, into a new folder.  That of a de-biasing, evaluation or
    inference job is sealed to the member who signed the job and to the team's recovery key; that of a training job,
    with its loss curves, is made here of what the host signed.  With --numeric nothing is opened: the figures are
    verified against what the host signed and printed, and those of a de-biasing job are kept with -o, with the
    documents that prove them.
    """
    from cloister.cli.reporting import print_figures, save_report, save_training_report

    with open_client(home) as client:
        if client.jobs.is_training(job_id):
            save_training_report(client, job_id, output, show_page=show_page, as_json=as_json)
        elif numeric:
            print_figures(client, job_id, output, as_json=as_json)
        else:
            save_report(client, job_id, output, identity, show_page=show_page, as_json=as_json)


@job.command()
@click.argument("job_id")
@json_option
@home_option
def cancel(job_id: str, as_json: bool, home: Path | None) -> None:
    """Ask for the end of a job; a running one stops within a step."""
    with open_client(home) as client:
        _told(client.jobs.cancel(job_id), as_json)


@job.command()
@click.argument("job_id")
@json_option
@home_option
def pause(job_id: str, as_json: bool, home: Path | None) -> None:
    """Ask for a pause: a training job stops after its step, with a checkpoint, and frees its host."""
    with open_client(home) as client:
        _told(client.jobs.pause(job_id), as_json)


@job.command()
@click.argument("job_id")
@json_option
@home_option
def resume(job_id: str, as_json: bool, home: Path | None) -> None:
    """Let a paused job go on from its checkpoint; takes one of its max_attempts."""
    with open_client(home) as client:
        _told(client.jobs.resume(job_id), as_json)


def _told(found: Job, as_json: bool) -> None:
    if as_json:
        print_message(found)
    else:
        click.echo(f"{found.id} {_state(found)}")


def started(client: Client, made: Job, follow: bool, as_json: bool) -> None:
    """Say which job was queued, or watch it."""
    if follow:
        _watch(client, made.id, 0, as_json)
    elif as_json:
        print_message(made)
    else:
        click.echo(made.id)


def _watch(client: Client, job_id: str, after: int, as_json: bool) -> None:
    from cloister.cli.watching import watch_job

    click.echo(f"job {job_id}", err=True)
    watch_job(client, job_id, after, as_json=as_json)


def _state(found: Job) -> str:
    from cloister.api.v1.jobs_pb2 import JobState

    return state_name(JobState.DESCRIPTOR, found.state)


def _progress(found: Job) -> str:
    progress = found.progress
    return f"{progress.percent:.0f} % of {progress.total} steps" if progress.total else ""
