# SPDX-License-Identifier: Apache-2.0
"""The audit log of a live site, exported by its auditor and verified offline."""

from __future__ import annotations

import json
import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path
from typing import Any

from cloister_dev.found import verifier_key
from live_site import LiveSite

Entry = dict[str, Any]  # canonical JSON; each test reads its own fields


def verified_log(site: LiveSite, directory: Path) -> list[Entry]:
    """Every entry, after `cloister-audit verify` found the export whole and no opening without its end."""
    export = directory / "log.tar"
    export.unlink(missing_ok=True)
    site.ok("carol", "cloister", "audit", "export", str(export))
    said = site.ok("carol", "cloister-audit", "verify", str(export), "--key", verifier_key(site.layout.root))
    assert "unfinished" not in said.out, said.out
    return entries_of(export)


def entries_of(export: Path) -> list[Entry]:
    with tarfile.open(export) as tar:
        member = tar.extractfile("entries.jsonl")
        assert member is not None
        return [json.loads(line) for line in member.read().splitlines()]


def about(entries: list[Entry], identifier: str) -> list[Entry]:
    return [entry for entry in entries if entry["object"]["id"] == identifier]


def logged(site: LiveSite, action: str) -> int:
    """How often an action is in the log by now; read from the database, as polling by command line is slow."""
    with closing(sqlite3.connect(site.layout.server / "cloister.db", timeout=30)) as database:
        query = "SELECT count(*) FROM audit_index WHERE action = ?"
        return int(database.execute(query, (action,)).fetchone()[0])


def check_ended_once(site: LiveSite, job_id: str, directory: Path) -> None:
    """The job succeeded, with one result version and one end in a log that verifies."""
    job = site.read("alice", "cloister", "job", "show", job_id)
    assert ("JOB_STATE_SUCCEEDED", job_id) == (job["state"], job["fine_tuned_model"]), job
    versions = json.loads(site.ok("alice", "cloister", "model", "list", "--json").out)
    assert 1 == sum(version["id"] == job_id for version in versions)
    actions = [entry["action"] for entry in about(verified_log(site, directory), job_id)]
    assert 1 == actions.count("job.end")
    assert actions.count("job.lease") == actions.count("job.attempt.end") + 1
