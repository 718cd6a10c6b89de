# SPDX-License-Identifier: Apache-2.0
"""A control plane one version behind, as a process: a newer program migrates the database under it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from cloister.api.v1 import audit_pb2
from cloister.evidence.log import verify_log
from cloister.evidence.note import NoteVerifier
from cloister_server.database.engine import open_database
from cloister_server.migrations import schema
from later_schema import LATER, additive_scripts, breaking_scripts
from postgres_roles import with_roles
from served_site import Founded, sqlite_url
from server_process import ServerProcess, environment, server_process, write_config
from site_objects import policy, publish_policy, push_dataset, push_model, sign_job
from waiting import eventually


@dataclass(frozen=True)
class Place:
    """A founded site and the URLs of its database: for serving, and for who may change the schema."""

    founded: Founded
    serving: str
    owner: str

    def migrate(self, scripts: Path) -> None:
        """As the newer program does it."""
        database = open_database(self.owner)
        schema.upgrade(database, scripts=scripts)
        database.dispose()

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """One command of the program that is behind."""
        config = write_config(self.founded, self.owner, "command")
        return subprocess.run(
            [sys.executable, "-P", "-m", "cloister_server", command, "--config", str(config)],
            env=environment({}),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    founded = Founded(tmp_path)
    if request.param == "sqlite":
        url = sqlite_url(tmp_path)
        place = Place(founded, url, url)
    else:
        fresh: Callable[[], str] = request.getfixturevalue("postgres_url")
        urls = with_roles(fresh())
        place = Place(founded, urls.application, urls.owner)
    place.migrate(schema.HERE)
    return place


def submit(server: ServerProcess) -> Callable[[ServerProcess], str]:
    """Submits a job with all that it needs."""
    digest = publish_policy(server, policy(server.founded))
    training, model = push_dataset(server, "alice"), push_model(server, "alice")

    def make(at: ServerProcess) -> str:
        signed = sign_job(at.founded, "alice", training, model, digest)
        return at.caller("alice").jobs.CreateJob(signed.request(), timeout=60).job.id

    return make


def events(server: ServerProcess, name: str) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in server.said().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == name]


def log_size(server: ServerProcess) -> int:
    """Entries of the log as an auditor exports it, verified."""
    export = list(server.caller("carol").audit.ExportLog(audit_pb2.ExportLogRequest(), timeout=60))
    bodies = [part.entry for part in export[1:]]
    verify_log(bodies, export[0].checkpoint, NoteVerifier.parse(server.founded.roster.log_vkey))
    return len(bodies)


def test_a_server_goes_on_and_starts_again_on_an_addition(place: Place, tmp_path: Path) -> None:
    """Calls before and after the migration succeed, one line tells of it, and the same version starts again on it."""
    with server_process(place.founded, place.serving) as server:
        make = submit(server)
        make(server)
        place.migrate(additive_scripts(tmp_path))
        make(server)
        (told,) = eventually(lambda: events(server, "schema_is_newer"), "the line about the schema")
        assert (LATER, schema.newest(), True) == (told["found"], told["known"], told["usable"])
        size = log_size(server)
    with server_process(place.founded, place.serving, "again") as again:
        make(again)
        assert log_size(again) > size
        assert 1 == len(events(again, "schema_is_newer"))


def test_a_server_does_not_start_on_a_break(place: Place, tmp_path: Path) -> None:
    """One that runs says NOT_SERVING from then on; none starts, and `migrate` and `check-config` say what to do."""
    with server_process(place.founded, place.serving) as server:
        place.migrate(breaking_scripts(tmp_path))
        (told,) = eventually(lambda: events(server, "schema_is_newer"), "the line about the schema")
        assert told["usable"] is False
        health = eventually(lambda: [line for line in events(server, "health") if not line["serving"]], "its health")
        assert "schema" == health[-1]["fault"]
    for command in ("serve", "migrate", "check-config"):
        done = place.run(command)
        assert (3, True) == (done.returncode, "install the newer version here" in done.stderr), command


def test_migrate_by_the_version_before_says_what_it_found(place: Place, tmp_path: Path) -> None:
    """`migrate` of the program that is behind ends well, changes nothing, and names both revisions."""
    place.migrate(additive_scripts(tmp_path))
    done = place.run("migrate")
    told = f"schema {LATER} is newer than this version's {schema.newest()} and takes it; nothing was changed\n"
    assert (0, told) == (done.returncode, done.stdout), done.stderr
