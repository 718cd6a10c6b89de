# SPDX-License-Identifier: Apache-2.0
"""The command line: what it prints, where, and with which exit code."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys

import click
import pytest
import yaml
from rich.console import Console
from rich.progress import Progress, TextColumn

from cloister.admin.main import cli as admin_cli
from cloister.api.v1 import jobs_pb2
from cloister.cli import watching
from cloister.cli.exits import EXIT_CODES, run
from cloister.cli.main import cli
from cloister.client import Client
from cloister.errors import ConnectError
from cloister.evidence.log import EXIT_CODES as LOG_CODES


@pytest.fixture
def cloister(site, monkeypatch, capsys, tmp_path):
    """Run a command as a person: (exit code, stdout, stderr)."""

    def opened(home=None):
        client = site.client(home.name)
        client.site.refresh()
        return client

    monkeypatch.setattr(Client, "open", opened)
    for module in ("audit", "forecast", "sealing"):
        monkeypatch.setattr(f"cloister.cli.{module}.now", site.clock)
    monkeypatch.chdir(tmp_path)

    def command(*arguments, person="anna"):
        code = run("cloister", cli, [*map(str, arguments), "--home", str(site.homes[person].directory)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return command


def test_a_version_shows_what_it_was_made_from(cloister, site, spec, tmp_path):
    """`model show` names the version that a result's job started from, whose base it shares."""
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec()))
    first = cloister("job", "submit", "spec.yaml")[1].strip()
    site.finish_job(first)
    (tmp_path / "second.yaml").write_text(yaml.safe_dump({**spec(), "model": "helpdesk", "suffix": "second"}))
    second = cloister("job", "submit", "second.yaml")[1].strip()
    site.finish_job(second)
    shown = dict(re.findall(r"^(made from|base) +(\S+)$", cloister("model", "show", "second")[1], re.MULTILINE))
    assert {"base": site.versions[first].base, "made from": first} == shown


def test_main_path(cloister, site, rows, model_dir, tmp_path):
    """From push to pull, each command prints the id that the next one takes."""
    assert 0 == cloister("dataset", "push", rows, "--name", "tickets", "--purpose", "routing")[0]
    source = ("--licence", "Apache-2.0", "--source", "tests")
    assert 0 == cloister("model", "import", model_dir, "--name", "minilm", *source)[0]
    spec = {"model": "minilm", "training_dataset": "tickets", "purpose": "routing", "method": {"classification": {}}}
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    code, out, _ = cloister("job", "submit", "spec.yaml")
    job_id = out.strip()
    assert 0 == code
    site.finish_job(job_id)
    code, out, err = cloister("job", "watch", job_id)
    assert 0 == code
    assert "succeeded" in out
    assert "eval_accuracy  0.1 before, 0.9 [0.800, 0.950] after" in re.sub(r"accuracy +", "accuracy  ", out)
    assert "working" in err
    code, out, _ = cloister("model", "release", job_id, "--reason", "pilot", "--no-wait")
    release_id = out.split()[1]
    assert 0 == code
    site.grant(release_id)
    code, out, _ = cloister("model", "pull", job_id, "-o", tmp_path / "out")
    assert (0, f"{tmp_path / 'out'}\n") == (code, out)


@pytest.mark.parametrize("noun", ["dataset", "job", "model", "audit"])
def test_lists(cloister, spec, site, noun):
    """Every list is a table for people and an array for programs."""
    site.client().jobs.submit(spec())
    code, out, _ = cloister(noun, "list")
    assert 0 == code
    assert out.split("\n")[0].split()[0] in {"ID", "SEQ"}
    code, out, _ = cloister(noun, "list", "--json")
    assert 0 == code
    assert json.loads(out)


@pytest.mark.parametrize(("noun", "name"), [("dataset", "tickets"), ("model", "minilm")])
def test_shows(cloister, spec, noun, name):
    """Every object is shown for people and for programs."""
    spec()
    assert name in cloister(noun, "show", name)[1]
    assert json.loads(cloister(noun, "show", name, "--json")[1])["id"]


def test_whoami(cloister):
    """Who one is, for people and for programs."""
    assert "anna" in cloister("whoami")[1]
    assert "alpha" == json.loads(cloister("whoami", "--json")[1])["team"]


def test_delete_asks(cloister, spec, monkeypatch):
    """Nothing is destroyed without a yes."""
    spec()
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert 130 == cloister("dataset", "delete", "tickets")[0]
    assert 0 == cloister("dataset", "delete", "tickets", "--yes")[0]
    assert 4 == cloister("dataset", "show", "tickets")[0]


def test_failed_job(cloister, spec, site):
    """A job that ends without a result has its own exit code and says what to correct."""
    job = site.client().jobs.submit(spec())
    failed = site.jobs[job.id]
    failed.state = 8
    failed.error.code, failed.error.message, failed.error.param = "ROWS_INVALID", "3 rows are bad", "training_dataset"
    code, out, err = cloister("job", "watch", job.id)
    assert 7 == code
    assert "failed" in out
    assert "ROWS_INVALID: 3 rows are bad; correct training_dataset" in err
    assert "ROWS_INVALID: 3 rows are bad; correct training_dataset" in cloister("job", "show", job.id)[1]


def test_live_verification(cloister, site):
    """The live log is verified against the head that the home keeps; a fork has its own exit code."""
    code, out, _ = cloister("audit", "verify")
    assert 0 == code
    assert "first head kept" in out
    assert "extends" in cloister("audit", "verify")[1]
    site.entries[0] = site.entries[0].replace(b"site.start", b"site.stop_")
    code, _, err = cloister("audit", "verify")
    assert 12 == code
    assert err.startswith("cloister: the log does not verify (FORK)")


def test_export_and_offline_verification(cloister, site, tmp_path):
    """An export verifies offline; a changed byte in it has the exit code of tampering."""
    assert 0 == cloister("audit", "export", "log.tar", person="dora")[0]
    assert 0 == cloister("audit", "verify", "log.tar", person="dora")[0]
    data = (tmp_path / "log.tar").read_bytes()
    (tmp_path / "log.tar").write_bytes(data.replace(b"site.start", b"site.stop_"))
    assert 10 == cloister("audit", "verify", "log.tar", person="dora")[0]
    assert 2 == cloister("audit", "export", "log.tar", person="dora")[0]


def test_rollback_exit_code(cloister, site):
    """A shorter log has the exit code of a rollback."""
    for _ in range(3):
        site.log("job.read")
    cloister("audit", "verify")
    del site.entries[1:]
    assert 15 == cloister("audit", "verify")[0]
    assert 6 == cloister("dataset", "list")[0]


def test_seal_inspect_open(cloister, site, rows, tmp_path):
    """A file sealed to oneself opens again; without a key one sees what it is; damage has its own exit code."""
    cloister("whoami")
    site.client().site.refresh()
    me = json.loads(site.homes["anna"].read("request.json"))["recipient"]
    args = ("--name", "d", "--purpose", "p", "-o", "d.sealed")
    assert 0 == cloister("seal", rows, *args, "--to", me)[0]
    assert "verified" in cloister("inspect", "d.sealed")[1]
    assert "d" == json.loads(cloister("inspect", "d.sealed", "--json")[1])["manifest"]["name"]
    assert 0 == cloister("open", "d.sealed", "-o", "back.jsonl")[0]
    assert rows.read_bytes() == (tmp_path / "back.jsonl").read_bytes()
    data = bytearray((tmp_path / "d.sealed").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "bad.sealed").write_bytes(bytes(data))
    assert 8 == cloister("open", "bad.sealed", "-o", "bad.jsonl")[0]
    assert not (tmp_path / "bad.jsonl").exists()
    assert 2 == cloister("open", "d.sealed", "-o", "back.jsonl")[0]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nonsense"], 2, "No such command"),
        (["job", "submit"], 2, "Missing argument"),
        (["job", "show", "abc"], 2, "is not a job id"),
        (["job", "clone", "abc", "--set", "seed"], 2, "FIELD=VALUE"),
        (["job", "show", "00000000-0000-4000-8000-000000000000"], 4, "no such object"),
    ],
)
def test_errors_are_one_line(cloister, arguments, code, said):
    """Every failure is one line on stderr that names the program, and nothing on stdout."""
    found, out, err = cloister(*arguments)
    assert (code, "") == (found, out)
    assert err.startswith("cloister: ")
    assert 1 == err.count("\n")
    assert said in err


def test_unreachable_and_unforeseen(cloister, monkeypatch):
    """No control plane is exit code 3; a defect of ours is one line too."""

    def fails(error):
        def open_(*_, **__):
            raise error

        return open_

    monkeypatch.setattr(Client, "open", fails(ConnectError("nobody there; check the network")))
    assert (3, "", "cloister: nobody there; check the network\n") == cloister("job", "list")
    monkeypatch.setattr(Client, "open", fails(ZeroDivisionError("CANARY")))
    code, _, err = cloister("job", "list")
    assert 1 == code
    assert "unforeseen ZeroDivisionError" in err
    assert "CANARY" not in err


def test_log_exit_codes_are_documented():
    """Every exit code of the log's verifier is in the table of exit codes."""
    assert set() == set(LOG_CODES.values()) - set(EXIT_CODES)


def every_command(group, path=()):
    for name, command in sorted(group.commands.items()):
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from every_command(command, (*path, name))


def test_every_read_has_json():
    """Each command that reads has --json."""
    reads = {"list", "show", "whoami", "inspect", "verify"}
    lacking = [
        path
        for path, command in every_command(cli)
        if path[-1] in reads and not any(p.name == "as_json" for p in command.params)
    ]
    assert [] == lacking


@pytest.mark.parametrize("group", [cli, admin_cli])
def test_every_command_explains_itself(group):
    """Each command has a sentence of help."""
    assert [] == [path for path, command in every_command(group) if not command.help]


def test_help_loads_nothing_heavy():
    """Asking for help loads neither gRPC nor protobuf, cryptography, YAML or rich: it must be quick."""
    program = (
        "import sys; from cloister.cli.main import cli; from cloister.cli.exits import run; "
        "run('cloister', cli, ['-h']); "
        "print(sorted({'grpc', 'google.protobuf', 'cryptography', 'yaml', 'rich'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "[]" == done.stderr.strip()


@pytest.mark.parametrize(
    ("ahead", "seconds", "words"),
    [
        (2, 840, "2 jobs ahead, starts in about 14 min"),
        (1, 7500, "1 job ahead, starts in about 2.1 h"),
        (0, 59, "starts soon"),
        (0, -5, "starts soon"),
        (3, None, "3 jobs ahead"),
        (0, None, ""),
    ],
)
def test_a_waiting_job_says_when_it_starts(cloister, site, spec, tmp_path, ahead, seconds, words):
    """`job show` and `job list` tell place and forecast start; where none is known they tell none."""
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec()))
    job_id = cloister("job", "submit", "spec.yaml")[1].strip()
    job = site.jobs[job_id]
    job.jobs_ahead = ahead
    if seconds is not None:
        job.forecast_start.FromSeconds(site.clock() + seconds)
    shown = dict(re.findall(r"^(waiting|forecast start) +(.+)$", cloister("job", "show", job_id)[1], re.MULTILINE))
    assert (words, seconds is not None) == (shown.get("waiting", ""), "forecast start" in shown)
    listed = cloister("job", "list")[1]
    assert "STARTS" in listed
    assert words.rpartition("starts ")[2] in listed if seconds is not None else "soon" not in listed


def test_a_watched_job_says_when_it_starts(site, spec, tmp_path, monkeypatch, cloister):
    """On a terminal `job watch` shows place and forecast start where progress will be."""
    monkeypatch.setattr("cloister.cli.forecast.now", site.clock)
    terminal = io.StringIO()
    waiting = jobs_pb2.Job(state=jobs_pb2.JOB_STATE_QUEUED, jobs_ahead=2)
    waiting.forecast_start.FromSeconds(site.clock() + 840)
    columns = (TextColumn("{task.description}"), TextColumn("{task.fields[figures]}"))
    with Progress(*columns, console=Console(file=terminal, width=100)) as progress:
        watching._Bar(progress).job(waiting)
    assert "queued 2 jobs ahead, starts in about 14 min" in terminal.getvalue()
